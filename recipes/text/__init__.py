"""YAML of the recipes for text environments."""
