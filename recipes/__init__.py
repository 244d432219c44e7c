"""Recipes, one per algorithm family; run them as files or as `python -m rollwright.recipes.<name>`."""

if __name__ != "rollwright.recipes":
    raise ImportError("import this package as `rollwright.recipes`, not `recipes`; run `pip install -e .` first")
