"""Code worlds: programs written, corrected and repaired, and mathematics; what is foreign runs in a sandbox.

Here lie the worlds, one module each with a `build`, and what several of them share: `judging.py` (cases and tests
against a program) and `submission.py` (one program per answer). Imports run from the worlds to `problems/` and
`repairs/`, from these to the two shared modules, and from there to `sandbox/`; none of it knows another world of
`rollwright.envs`.
"""
