"""Launch configurations (YAML) for `accelerate launch --config_file`."""

if __name__ != "rollwright.accelerate_configs":
    raise ImportError(
        "import this package as `rollwright.accelerate_configs`, not `accelerate_configs`; run `pip install -e .` first"
    )
