"""How every recipe begins and ends: settings are checked before anything is done, an error is one paragraph."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TypeVar

from rollwright.config import DEBUG, VERBOSE_WORDS, Config, load_config, redact, wants_everything
from rollwright.contracts import RollwrightError, UserError
from rollwright.run_io import FACTS, RunSettings, next_command, parent_words, remember_command, what_is_saved
from rollwright.run_io import NAME as LOCK
from rollwright.training.plan import CHECK, check_models
from rollwright.training.preflight import folder_of, preflight

ConfigT = TypeVar("ConfigT", bound=Config)
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""
_ENDED, _TOGETHER_S = "rollwright/ended", 15.0
_new_folders: list[Path] = []
"""What the start of this process will have made; it is a recipe's whole life."""
_run_folder: list[Path] = []
"""The run folder of this process, once its settings are known."""
_started_by: list[str] = []
"""The command line of the process that started this one."""
_loops, _anew = [False], [False]
"""Whether it is a run of steps with checkpoints; whether it was told not to go on from one."""


def recipe_config(
    cls: type[ConfigT], argv: Sequence[str] | None = None, *, plan: Callable[[ConfigT], str] | None = None
) -> ConfigT:
    """The settings that a recipe was started with, held against this machine; nothing is written and no weight loaded.

    Args:
        argv: the words of the command line; None is this process's own. `--check` loads the models and compares what
            learner and engine would compute with the models' own forward; mostly asked for together with `--plan`.
        plan: what `--plan` prints above them.

    Raises:
        UserError: a setting is wrong, or what it names is not here.
        SystemExit: code 0, after `--help` or `--plan` has printed.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    remember_command([_recipe_name(cls), *words])
    check = _checked_deeply if CHECK in words else preflight
    # `--check` is no setting, so the words without it are read as settings.
    config = load_config(cls, [word for word in words if word != CHECK], plan=plan, check=check)
    _run_folder[:] = [Path(folder_of(config)[1]).expanduser().absolute()]
    # Looked up now, as this start will make them.
    _new_folders[:] = new_folders(_run_folder[0])
    run = getattr(config, "run", None)
    _loops[:], _anew[:] = [isinstance(run, RunSettings)], [getattr(run, "resume", "") == "never"]
    return config


def _recipe_name(cls: type[Config]) -> str:
    """The file of a recipe by its settings: started as a program, or called from another one."""
    module = cls.__module__
    return Path(sys.argv[0]).name if module == "__main__" else f"{module.rpartition('.')[2]}.py"


def _checked_deeply(config: Config) -> None:
    preflight(config)
    check_models(config)


def run_recipe(main: Callable[[], None]) -> None:
    """Run a recipe's `main` on this process's command line; an error that we raise on purpose ends it in a paragraph.

    `-v`, `--verbose` or ROLLWRIGHT_DEBUG=1 show the traceback above it.

    Raises:
        SystemExit: code 2 where the user has to change something, 1 where something broke under way, 130 after Ctrl-C.
    """
    everything = _asked_for_more()
    _started_by[:] = parent_words()  # now: a launcher that is interrupted too may be gone when it is asked for
    try:
        with _interruptible():
            main()
    except RollwrightError as error:
        if everything:
            traceback.print_exc()
        sys.last_value = error  # as Python itself does at an error: ranks then end without waiting for one another
        # What the user has to change needs no traceback, only the paragraph.
        kept = keep_traceback() if error.exit_code == 1 else ""
        # A start that was refused leaves no empty folder behind; one that broke under way keeps what there is.
        if error.exit_code == UserError.exit_code and os.environ.get("RANK", "0") == "0":
            remove_empty_run(_new_folders)
        if _speaks():
            _say(error, kept)
        _end_together()
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt as interrupt:
        if everything:
            traceback.print_exc()
        sys.last_value = interrupt
        if os.environ.get("RANK", "0") == "0":
            remove_empty_run(_new_folders)
            sys.stderr.write(f"\n{interrupted_text()}\n")
            sys.stderr.flush()
        raise SystemExit(INTERRUPTED) from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """While a recipe runs, the first Ctrl-C ends it in order and the second at once.

    A launcher of several processes passes the signal on once more, and later sends SIGTERM: what is about to say what
    is saved must live through both. Its SIGKILL comes half a minute later.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        signal.signal(signal.SIGINT, signal.SIG_IGN if several else signal.default_int_handler)
        if several:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # episodes that are given up are no news
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    # A thread of a notebook's, or a job that a shell put in the background: Ctrl-C is meant for somebody else.
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:  # else it came, and what follows is the end
            signal.signal(signal.SIGINT, before)


def interrupted_text() -> str:
    """What is said after Ctrl-C: what is saved, and the command that goes on."""
    folder = _run_folder[0] if _run_folder else None
    if folder is None or not folder.is_dir():
        return "rollwright: interrupted before anything was written."
    saved = what_is_saved(folder, stored=_stored(folder), resumes=_loops[0])
    again = " run.resume=auto" if _anew[0] else ""  # `never` would set aside what is saved
    kept = f"In {folder}: {', '.join(saved)}." if saved else f"What is complete in {folder} is kept."
    how = "This command goes on from there" if _loops[0] else "This command does what is left"
    return f"rollwright: interrupted. {kept}\n{how}:\n  {next_command(_started_by)}{again}"


def _stored(folder: Path) -> int:
    from rollwright.store import TrajectoryStore

    # Saying what is saved must not fail by itself.
    with contextlib.suppress(RollwrightError, OSError):
        return len(TrajectoryStore(folder / "trajectories", mode="read"))
    return 0


def new_folders(path: Path) -> list[Path]:
    """The run folder and those of its parents that are not there yet, the run folder first."""
    return [place for place in (path, *path.parents) if not os.path.lexists(place)]


def remove_empty_run(folders: Sequence[Path]) -> None:
    """Take away a run folder that this start has made and that holds nothing yet but what any start puts there.

    Args:
        folders: as `new_folders` found them before the start.
    """
    run = folders[0] if folders else None
    if run is None or not run.is_dir() or not all(_is_of_any_start(file, run) for file in run.rglob("*")):
        return
    shutil.rmtree(run, ignore_errors=True)
    for parent in folders[1:]:
        with contextlib.suppress(OSError):  # somebody else uses it by now
            parent.rmdir()


def _is_of_any_start(file: Path, run: Path) -> bool:
    """Not a lock: another process that came in between holds it, for its own is released by now."""
    within = file.relative_to(run)
    if file.is_dir() or within.parts[0] in ("config.yaml", FACTS, "tiny_model", ".tiny_model.writing"):
        return True
    return within.name != LOCK and not file.stat().st_size


def _asked_for_more() -> bool:
    asked = wants_everything()
    if VERBOSE_WORDS & set(sys.argv[1:]):
        # The recipe reads its settings from these words next, and `-v` is none.
        sys.argv[1:] = [word for word in sys.argv[1:] if word not in VERBOSE_WORDS]
        os.environ[DEBUG] = "1"  # for the processes that this one starts
    return asked


def _speaks() -> bool:
    """Before the ranks of a run join, all of one machine find the same mistake; after it, each has its own."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        return True
    # Not imported for this: a slip in the settings must not cost the import of torch.
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())


def keep_traceback() -> str:
    """Write the traceback of what broke under way into the run folder; where it lies, in words for the console."""
    # The ranks share the folder, so each one has a file of its own.
    name = "traceback.txt" if (rank := os.environ.get("RANK", "0")) == "0" else f"traceback_rank{rank}.txt"
    for folder in _run_folder:
        with contextlib.suppress(OSError):
            (folder / name).write_text(redact(traceback.format_exc()), encoding="utf-8")
            return f" (the traceback is in {folder / name})"
    return " (-v shows the traceback)"


def _say(error: RollwrightError, kept: str) -> None:
    rank = os.environ.get("RANK", "0")
    who = "rollwright" if rank == "0" else f"rollwright, rank {rank}"
    # Errors quote settings, which may hold passwords and keys.
    lines = (line.rstrip() for line in redact(str(error)).splitlines())
    sys.stderr.write(f"{who}: " + "\n".join(line for line in lines if line) + f"{kept}\n")
    sys.stderr.flush()


def _end_together() -> None:
    """Wait for the ranks that end for the same reason: the launcher ends all others when it sees the first one go.

    Else the rank that speaks might be ended before it has spoken, and the others not by a code of their own.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    # If it is True, the launcher's agent keeps the meeting point, which therefore outlives every rank.
    if count == 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # this process ends by itself within seconds, with its own code
    with contextlib.suppress(Exception):  # the meeting point is gone with the launcher: nobody is left to wait for
        from torch.distributed import TCPStore

        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*where, is_master=False, timeout=timedelta(seconds=_TOGETHER_S), wait_for_workers=False)
        store.add(_ENDED, 1)
        until = time.monotonic() + _TOGETHER_S
        # Adding 0 reads the counter.
        while store.add(_ENDED, 0) < count and time.monotonic() < until:
            time.sleep(0.02)
