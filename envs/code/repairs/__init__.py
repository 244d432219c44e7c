"""Repositories with bugs: what `code.repair` is played on.

`repositories.py` gives ours (the `repo_*.txt` here) and installed packages, `mutation.py` and `bugs.py` break them (the
bugs are listed in `bugs.json`), `repository_tools.py` searches and edits, `repair_world.py` is the world over bugs of
ours and `filed_bugs.py` the one over a file of real ones. May import the sandbox, `judging.py` and `submission.py` of
`rollwright.envs.code`, no other world.
"""
