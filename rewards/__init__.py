"""Verifiers, reward models and shaping, one module each with a `build`; import them as `rollwright.rewards`.

They may import the core's contracts, and the sandbox of `rollwright.envs.code` for what reads foreign text; no other
world and no recipe. Modules named `*_rule.py` run inside the sandbox and import the standard library, or the package
that their caller names.
"""

if __name__ != "rollwright.rewards":
    raise ImportError("import this package as `rollwright.rewards`, not `rewards`; run `pip install -e .` first")
