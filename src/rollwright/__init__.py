"""Rollwright: post-training of language agents with multi-turn reinforcement learning.

    import rollwright

    run = rollwright.train("grpo", "text/maze_grpo", folder="runs/maze")
    print(rollwright.compare(run.evaluation("start"), run.evaluation("final")).verdict())

Importing this package is quick on purpose: it loads no torch, reads no file and no environment variable. The functions
above are loaded when they are first named; everything else is imported from its module, for example
`from rollwright.contracts import Trajectory`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rollwright.cli import RunHandle as Run
    from rollwright.cli import compare_two as compare
    from rollwright.cli import judge_policy as evaluate
    from rollwright.cli import train

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "compare", "evaluate", "train"]

_LATER = {"Run": "RunHandle", "compare": "compare_two", "evaluate": "judge_policy", "train": "train"}
"""Name here -> name in `rollwright.cli`."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("rollwright.cli"), _LATER[name])


def __dir__() -> list[str]:
    return sorted(__all__)
