"""YAML of the recipes for device environments."""
