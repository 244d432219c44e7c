"""Commands that list what there is.

Lives here: `methods_command`, `worlds_command`, `components_command`, and the tables that they print (`tables`).
"""
