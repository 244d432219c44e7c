"""YAML of the recipes for code environments."""
