"""After Ctrl-C: what a run folder holds of the work so far, and the command that goes on with it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rollwright.run_io.checkpoint import Checkpoints
from rollwright.run_io.run_facts import command_line, without_secret
from rollwright.run_io.tracking import RunFolder, read_metrics

_LAUNCHERS = {"accelerate": ("launch",), "rollwright": ("train", "evaluate", "collect", "demo")}
"""Programs that start a recipe as a process of their own, and the words of theirs that do."""
_MODULES = {"accelerate.commands.launch": ("accelerate", "launch"), "rollwright.cli": ("rollwright",)}
"""The same as `python -m` starts them."""


def what_is_saved(path: Path, *, stored: int, resumes: bool) -> list[str]:
    """What of an interrupted run is on disk, in a few words each. Reads names and counts; no weight is opened.

    Args:
        path: the run folder.
        stored: episodes in its store.
        resumes: whether the recipe goes on from checkpoints.
    """
    folder = RunFolder(path)
    said = []
    if resumes:
        done = Checkpoints(folder.checkpoints).newest_step()
        # Evaluations have lines of their own; this metric is on the lines of whole steps alone.
        whole = sum(1 for row in read_metrics(folder.metrics) if "time/step_s" in row) if folder.metrics.exists() else 0
        said.append(f"{_count(whole, 'whole step')} done")
        said.append("no checkpoint yet" if done is None else f"a checkpoint after step {done}")
    if stored:
        said.append(f"{_count(stored, 'episode')} stored")
    return said


def next_command(parent: Sequence[str]) -> str:
    """The command that was typed to start this process, as a shell reads it, secrets hidden.

    Args:
        parent: words of the process that started this one. Where it is a launcher, its command is what was typed.
    """
    typed = launcher_words(parent)
    if typed:
        return shlex.join(without_secret(word) for word in typed)
    # `command_line` begins with the recipe's bare name, and a shell needs its path.
    script = Path(sys.argv[0])
    return f"python {shlex.quote(str(script))} {command_line().partition(' ')[2]}".strip()


def launcher_words(words: Sequence[str]) -> list[str]:
    """A launcher's command without the interpreter in front; empty where the process is no launcher of recipes."""
    # In front of the program stand at most the interpreter and `-m`; what comes later are arguments.
    for place, word in enumerate(words[:3]):
        name = Path(word).name
        if name in _LAUNCHERS and words[place + 1 : place + 2] and words[place + 1] in _LAUNCHERS[name]:
            return [name, *words[place + 1 :]]
        if place and words[place - 1] == "-m" and word in _MODULES:
            return [*_MODULES[word], *words[place + 1 :]]
    return []


def parent_words() -> list[str]:
    """The command line of the process that started this one; empty where the system does not tell."""
    try:
        import psutil  # type: ignore[import-untyped]  # comes with accelerate

        return list(psutil.Process(os.getppid()).cmdline())
    except Exception:  # another user's process, or one that is gone: no reason to fail while ending
        return []


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
