"""`accelerate launch` of a recipe from inside this process, so that its exit code and its words are the recipe's own.

As a program of its own the launcher turns every exit code of a recipe into 1 and adds a traceback of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from rollwright.contracts import ConfigError

# 128 + SIGINT, as shells count.
INTERRUPTED = 130
_BROKE = 1


def default_launch(*, gpu: bool, processes: int) -> str:
    """The name of the launch configuration for this machine: one process on the GPU or the CPU, or several of them.

    Several processes on the CPU meet under DeepSpeed ZeRO-1; on GPUs each holds the whole model (DDP).
    """
    if processes > 1:
        return "ddp" if gpu else "cpu_zero1"
    return "single_gpu" if gpu else "cpu"


def launch_words(script: Path, words: Sequence[str], *, config: Path, processes: int | None) -> list[str]:
    """The words after `accelerate launch`."""
    # Without the option the number of the configuration file counts.
    count = [] if processes is None else ["--num_processes", str(processes)]
    return ["--config_file", str(config), *count, str(script), *words]


def share_cores(config: Path, processes: int | None) -> None:
    """Give every process of a launch its part of the cores that this one may use, unless the user has set a number.

    The launcher itself counts all cores of the machine, also those that a container or a scheduler keeps from us.
    """
    from rollwright.config import usable_cores

    # One line is enough; accelerate reads the file itself.
    found = re.search(r"^num_processes:\s*(\d+)", config.read_text(encoding="utf-8"), re.MULTILINE)
    count = processes or (int(found[1]) if found else 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // max(1, count))))


def shown_line(words: Sequence[str]) -> str:
    """The command as a user would type it: quoted, with secrets hidden and paths below this folder made short."""
    from rollwright.config import redact

    return redact(shlex.join(["accelerate", "launch", *map(_short, words)]))


def launch_recipe(words: Sequence[str], *, verbose: bool = False) -> int:
    """Run `accelerate launch` with these words and wait; -> the recipe's own exit code.

    With several ranks it is the code of the rank that failed first.

    Raises:
        ConfigError: the launcher refuses the launch configuration.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser

    if not verbose:  # both tell what a recipe says itself, or what nobody asked for
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)
    arguments = launch_command_parser().parse_args(list(words), namespace=_Telling())
    with _signals_reach_the_recipe() as interrupted:
        try:
            launch_command(arguments)
        except subprocess.CalledProcessError as error:
            return _shell_code(error.returncode)
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else _BROKE
        except ValueError as error:  # num_processes: 1 in a configuration of several GPUs, say
            raise ConfigError(f"accelerate refuses this launch: {error}") from error
        except Exception as error:
            # After Ctrl-C the ranks end early, which the launcher takes for a failure of theirs.
            return INTERRUPTED if interrupted() else _code_of_ranks(error)
    return INTERRUPTED if interrupted() else 0


def run_alone(script: Path, words: Sequence[str]) -> int:
    """Run a recipe's file as one plain process, for what loads no weights (`--help`, `--plan`); -> its exit code."""
    with _signals_reach_the_recipe():
        return _shell_code(subprocess.Popen([sys.executable, str(script), *words]).wait())


class _Telling(argparse.Namespace):
    """Arguments that never say `quiet`: a quiet launcher keeps the exit code of the recipe to itself."""

    quiet = property(lambda self: False, lambda self, value: None)


def _code_of_ranks(error: Exception) -> int:
    """The exit code of the rank that failed first.

    Raises:
        Exception: `error` itself, where it is no failure of ranks.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if isinstance(error, SignalException):
        # As a shell counts a process that a signal ended.
        return 128 + error.sigval
    if isinstance(error, ChildFailedError):
        # The pair is the global rank of the process and its failure.
        return _shell_code(error.get_first_failure()[1].exitcode)
    raise error


def _shell_code(code: int) -> int:
    """A process that a signal ended has the code that shells give it."""
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _signals_reach_the_recipe() -> Iterator[Callable[[], bool]]:
    """While a recipe runs, Ctrl-C is the recipe's to answer, and SIGTERM is handed on; yields whether Ctrl-C came.

    A terminal sends Ctrl-C to all processes at once. This one has to live on until the recipe has saved and said so.
    """
    import psutil  # here, for a second signal may come while a handler is still importing

    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    def hand_on(number: int, frame: FrameType | None) -> None:
        # SIGTERM comes to this process alone, so its children get it from here.
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)

    # A function, not SIG_IGN: the recipe would inherit a signal that is ignored.
    kept = {signal.SIGINT: signal.signal(signal.SIGINT, note), signal.SIGTERM: signal.signal(signal.SIGTERM, hand_on)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _short(word: str) -> str:
    path = Path(word)
    here = path.is_absolute() and path.is_relative_to(Path.cwd())
    return os.path.relpath(path) if here else word
