"""Commands that read or write trajectory stores.

Lives here: `show_command`, `score_command`, `import_command`, `export_command` and `upgrade_command`.
"""
