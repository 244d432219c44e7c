"""`run.json`: what a run was. One entry per start: code, packages, machine, seeds, command line, and what it spent.

The file is written when a run starts, after every step, and at the end or at an error; each time it is whole. A run
that was killed leaves an entry that says "running"; the next start of the folder changes that to "killed" and adds its
own.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from rollwright.config import credentials, redact
from rollwright.contracts import RunFolderError, Trajectory, UserError
from rollwright.run_io.foreign_files import open_regular
from rollwright.run_io.machine_facts import commit, hardware, package_versions

log = logging.getLogger(__name__)

FACTS = "run.json"
VERSION = 1
RUNNING, FINISHED, KILLED = "running", "finished", "killed"
COUNTED = (
    *("episodes", "turns", "tokens_sampled", "tokens_trained"),
    *("wall_s", "cpu_s", "engine_s", "world_s", "learner_s", "device_s"),
)
"""What every session spends, in the order of the file; the totals are sums over sessions."""
_words: list[str] = []
"""The recipe and the words that this process was started with, where a recipe has said so."""


def remember_command(words: Sequence[str]) -> None:
    """Take these words for the command line of the runs that this process opens from now on."""
    _words[:] = words


def command_line() -> str:
    """How this process was started, as a shell reads it; passwords, keys and tokens are `***`."""
    words = _words or [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(without_secret(word) for word in words)


def without_secret(word: str) -> str:
    """One word of a command line: the value of a key that is named like a secret is hidden, and what `redact` finds."""
    key, sign, value = word.partition("=")
    if sign and any(credentials(value, key)):
        # A URL keeps its harmless part; where `redact` finds nothing, the name of the key is reason enough.
        hidden = redact(value)
        return f"{key}={hidden if hidden != value else '***'}"
    return redact(word)


def seeds_of(settings: str) -> dict[str, int]:
    """The dotted path of every `seed` in a run's settings, given as YAML text, with its value."""
    return dict(_seeds(yaml.safe_load(settings), ""))


def _seeds(tree: object, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _seeds(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, int) and path.rpartition(".")[2].endswith("seed"):
        yield path, int(tree)


class RunFacts:
    """The session of this process in a run's `run.json`. Made by `recorded`, lives as long as the folder is locked.

    Args:
        path: the file; None on ranks that do not write it, which count all the same.
        settings: the run's, as YAML text.
        ranks: processes that train together.
    """

    def __init__(self, path: Path | None, *, settings: str = "", ranks: int = 1) -> None:
        self.path = path
        # The process time counts all threads of this process, but not the servers that it starts.
        self._began, self._cpu_began = time.monotonic(), time.process_time()
        self.session: dict[str, Any] = {
            # Two starts within one second need different ids, and ids sort by time.
            "id": datetime.now(UTC).isoformat(timespec="microseconds"),
            "started": _now(),
            "ended": None,
            "outcome": RUNNING,
            "command": command_line(),
            # Ranks that write nothing need not ask git and nvidia-smi.
            "commit": commit() if path else None,
            "python": platform.python_version(),
            "packages": package_versions() if path else {},
            "hardware": hardware() if path else {},
            "ranks": ranks,
            "seeds": seeds_of(settings),
            "resumed_at_step": None,
            "spent": dict.fromkeys(COUNTED, 0),
        }

    @classmethod
    @contextmanager
    def recorded(cls, folder: Path, *, settings: str, ranks: int = 1, writes: bool = True) -> Iterator[RunFacts]:
        """A new session, from here to the end of the body, whichever way that ends. The caller holds the folder's lock.

        A start that is refused (`UserError`) before anything was played or trained leaves the file as it was.

        Args:
            writes: false on every rank but the first.

        Raises:
            RunFolderError: the file cannot be written when the session begins. Later this is a warning.
        """
        facts = cls(folder / FACTS if writes else None, settings=settings, ranks=ranks)
        before = facts._content()
        try:
            facts._write(begins=True)
        except OSError as error:
            raise RunFolderError(f"{folder / FACTS} cannot be written: {error.strerror or error}") from error
        try:
            yield facts
        except UserError as error:
            # The clock runs from the start on; what counts is whether anything was played or trained.
            if any(facts.session["spent"][name] for name in ("episodes", "tokens_trained", "learner_s")):
                facts._end(_said(error))
            else:
                facts._withdraw(before)
            raise
        except BaseException as error:
            # Ctrl-C comes here too: the entry must not go on saying "running".
            facts._end(_said(error))
            raise
        facts._end(FINISHED)

    def add(self, **spent: float) -> None:
        """Count what was spent since the last call, by the names of `COUNTED`.

        Raises:
            KeyError: another name.
        """
        for name, value in spent.items():
            self.session["spent"][name] += value

    def put(self, **spent: float) -> None:
        """The same by what was spent since the session began, where somebody else counts.

        Raises:
            KeyError: another name.
        """
        for name, value in spent.items():
            self.add(**{name: value - self.session["spent"][name]})

    def set_clocks(self, lane: Mapping[Literal["engine", "environment", "queue"], float]) -> None:
        """Seconds since the session began in which episodes waited for the engine, else for the world alone."""
        self.put(engine_s=lane["engine"], world_s=lane["environment"])

    def played(self, trajectories: Sequence[Trajectory]) -> None:
        """Count episodes. Only what the policy itself wrote was sampled: not a teacher's turn, nor a forced token.

        Turns that a branch shares with its parent were played once, so they are counted with the parent.
        """
        own = [(t, t.turns[t.branch.turn if t.branch else 0 :]) for t in trajectories]
        self.add(
            episodes=len(trajectories),
            turns=sum(len(turns) for _, turns in own),
            tokens_sampled=sum(sum(turn.policy_mask) for t, turns in own if t.origin == "policy" for turn in turns),
        )

    def resumed(self, step: int) -> None:
        """Say that this session goes on from a checkpoint, before this step."""
        self.session["resumed_at_step"] = step
        self.save()

    def save(self) -> None:
        """Write what was counted so far. A file that cannot be written is a warning: nothing that trains reads it."""
        try:
            self._write()
        except OSError as error:
            log.warning("%s could not be brought up to date: %s", self.path, error.strerror or error)

    def _content(self) -> bytes | None:
        return self.path.read_bytes() if self.path and self.path.is_file() else None

    def _withdraw(self, before: bytes | None) -> None:
        """A start that was refused before it played anything is no session: the folder may be another run's."""
        if self.path is None:
            return
        if before is None:
            self.path.unlink(missing_ok=True)
            return
        # Written beside and renamed: a kill at this moment must not cost another run its record.
        beside = self.path.with_name(f".{FACTS}.new")
        beside.write_bytes(before)
        os.replace(beside, self.path)

    def _end(self, outcome: str) -> None:
        self.session |= {"ended": _now(), "outcome": outcome}
        self.save()

    def _write(self, *, begins: bool = False) -> None:
        if self.path is None:
            return
        spent = self.session["spent"]
        spent["wall_s"] = time.monotonic() - self._began
        spent["cpu_s"] = time.process_time() - self._cpu_began
        # A GPU is taken for as long as the process lives, busy or not.
        spent["device_s"] = spent["wall_s"] * len(self.session["hardware"]["gpus"])
        # Read anew each time: a process that took the folder over has its session there, and keeps it.
        others = [entry for entry in _sessions(self.path) if entry.get("id") != self.session["id"]]
        if begins:  # we hold the lock, so nobody else runs here
            for entry in others:
                entry["outcome"] = KILLED if entry.get("outcome") == RUNNING else entry.get("outcome")
        own = self.session | {"spent": {name: round(value, 3) for name, value in spent.items()}}
        # ISO times sort as text; an entry that somebody has edited may have no id at all.
        sessions = sorted([*others, own], key=lambda entry: str(entry.get("id")))
        content = {"version": VERSION, "starts": len(sessions), "totals": totals(sessions), "sessions": sessions}
        beside = self.path.with_name(f".{FACTS}.new")
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, self.path)


def totals(sessions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What all sessions spent together."""
    return {name: round(sum(entry.get("spent", {}).get(name, 0) for entry in sessions), 3) for name in COUNTED}


def read_facts(folder: Path) -> dict[str, Any]:
    """The content of a folder's `run.json`; empty where there is none, or none that can be read."""
    path = folder / FACTS
    try:
        content = json.loads(_content_of(path)) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read and is left out: %s", path, error)
        return {}
    # Somebody may have edited the file, and all who read it rely on these shapes.
    sessions = content.get("sessions") if isinstance(content, dict) else None
    if not isinstance(sessions, list) or not all(isinstance(entry, dict) for entry in sessions):
        return {}
    return content if isinstance(content.get("totals", {}), dict) else content | {"totals": {}}


def _content_of(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def _sessions(path: Path) -> list[dict[str, Any]]:
    """The sessions of a file. One that cannot be read is set aside, since it would be overwritten."""
    sessions: list[dict[str, Any]] = read_facts(path.parent).get("sessions", [])
    if not sessions and path.exists():
        path.replace(path.with_name("run.damaged.json"))
    return sessions


def _said(error: BaseException) -> str:
    """Kind and first line of an error, without its secrets."""
    text = str(error).strip().partition("\n")[0]
    return redact(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:500]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
