"""The command line: `rollwright`, also `python -m rollwright.cli`; and what notebooks call.

Lives here: the table of commands (`commands`), what their words may be (`argument_types`), and one file per command:
`add(parser)` declares its options, `run(arguments)` does it. A command's file is imported only when it is named.
May import: every folder.
"""

from rollwright.cli.commands import main
from rollwright.cli.launching.notebook import RunHandle, compare_two, judge_policy, train

__all__ = [
    "RunHandle",
    "compare_two",
    "judge_policy",
    "main",
    "train",
]
