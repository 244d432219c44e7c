"""Verifiers, reward models and shaping, one module each; import them as `rollwright.rewards`."""

if __name__ != "rollwright.rewards":
    raise ImportError("import this package as `rollwright.rewards`, not `rewards`; run `pip install -e .` first")
