"""The command line: `rollwright`, also `python -m rollwright.cli`.

Lives here: the commands (`commands`, `import_command`, `upgrade_command`).
May import: every folder.
"""

from rollwright.cli.commands import main

__all__ = [
    "main",
]
