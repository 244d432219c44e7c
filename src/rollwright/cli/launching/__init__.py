"""Commands that start a recipe, and the same from Python.

Lives here: recipes and YAML files by name (`recipe_names`), `accelerate launch` (`recipe_launch`), the commands
(`train_command`), and what notebooks call (`notebook`).
"""
