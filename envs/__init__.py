"""Environments, one module each; import them as `rollwright.envs`."""

if __name__ != "rollwright.envs":
    raise ImportError("import this package as `rollwright.envs`, not `envs`; run `pip install -e .` first")
