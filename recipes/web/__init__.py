"""YAML of the recipes for web environments."""
