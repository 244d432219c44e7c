"""The run folder and its metrics file. What was measured is on disk before anything else hears of it."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rollwright.config import Config, same_settings
from rollwright.contracts import ConfigError, RunFolderError, UserError
from rollwright.run_io.run_facts import FACTS, RunFacts
from rollwright.run_io.run_lock import held

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9][A-Za-z0-9_.+-]*)+")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where one run keeps everything. Made once, by `opened` or `create`, before any weight is loaded."""

    path: Path
    facts: RunFacts = field(default_factory=lambda: RunFacts(None), compare=False, repr=False)
    """What this start of the run is and spends; without a file until `run.json` is begun."""
    set_aside: Path | None = field(default=None, compare=False, repr=False)
    """Where this start has moved the settings of an earlier one, if they were others."""

    @classmethod
    @contextmanager
    def opened(cls, path: Path | str, *, config_yaml: str) -> Iterator[RunFolder]:
        """The folder, made by `create` and locked until the body ends, so that one process at a time writes to it.

        What the run was goes into its `run.json` (see `run_facts`).

        Raises:
            RunFolderError: another process that is alive writes there (see `run_lock`), or as `create`.
        """
        with held(path):
            folder = cls.create(path, config_yaml=config_yaml)
            with folder.kept_if_refused(), RunFacts.recorded(folder.path, settings=config_yaml) as facts:
                yield replace(folder, facts=facts)

    @classmethod
    def create(cls, path: Path | str, *, config_yaml: str) -> RunFolder:
        """Make the folder and its sub-folders and write `config.yaml`; a folder that is there already is taken over.

        A different `config.yaml` of an earlier start is kept as `config.1.yaml`, `config.2.yaml`, ...

        Raises:
            RunFolderError: the folder cannot be made or written.
        """
        folder = cls(Path(path).expanduser())
        try:
            for part in (folder.path, folder.trajectories, folder.checkpoints, folder.evaluations):
                part.mkdir(parents=True, exist_ok=True)
            # Else a folder in one of these places would stop the run only when the file is first written.
            for file in (folder.config, folder.metrics, folder.faults):
                if file.exists() and not file.is_file():
                    raise IsADirectoryError(errno.EISDIR, f"{file.name} is not a file")
            with tempfile.NamedTemporaryFile(dir=folder.path, prefix=".probe-") as probe:
                # A full disk often still takes an empty file, so a block is written and flushed.
                probe.write(b"\0" * 4096)
                probe.flush()
            folder = replace(folder, set_aside=folder._write_config(config_yaml))
        except OSError as error:
            raise RunFolderError(
                f"the run folder {folder.path} cannot be written: {error.strerror or error}. Name a folder where you "
                "may write and where there is space, for example `run.folder=runs/mine`."
            ) from error
        return folder

    @classmethod
    def refuse_other_settings(cls, path: Path | str, *, config: Config, why: str) -> None:
        """A folder whose finished parts are kept may only be continued with the settings it was begun with.

        Args:
            why: what would go wrong, and the way out; ends the message.

        Raises:
            ConfigError: the folder was begun with others.
        """
        folder = cls(Path(path).expanduser())
        begun = folder.config
        if not begun.exists() and any(folder.path.glob("*/*/*.parquet")):
            log.warning("%s holds episodes but no config.yaml: it cannot be told if they are of these settings", path)
        if begun.exists() and not same_settings(config, begun):
            raise ConfigError(f"{begun.parent} was begun with other settings (see {begun}): {why}")

    @contextmanager
    def kept_if_refused(self) -> Iterator[None]:
        """While a start may still be refused: if it is, the settings of the earlier start are put back in their place.

        The folder is then another run's, which must be able to go on as if nobody had tried. A start that has played
        (its `run.json` is kept, see `RunFacts.recorded`) is no refused one any more.
        """
        before = self.facts_text()
        try:
            yield
        except UserError:
            if self.set_aside is not None and self.set_aside.exists() and self.facts_text() == before:
                self.set_aside.replace(self.config)
            raise

    def facts_text(self) -> bytes:
        """What `run.json` holds; empty where there is none."""
        file = self.path / FACTS
        return file.read_bytes() if file.is_file() else b""

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One line of metrics for each step."""
        return self.path / "metrics.jsonl"

    @property
    def faults(self) -> Path:
        """One line for each fault."""
        return self.path / "faults.jsonl"

    @property
    def trajectories(self) -> Path:
        """The store of the run's episodes."""
        return self.path / "trajectories"

    @property
    def checkpoints(self) -> Path:
        """Its checkpoints."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """Its evaluations."""
        return self.path / "eval"

    def _write_config(self, text: str) -> Path | None:
        """Write the settings; -> where those of an earlier start were moved, if they were others."""
        if not self.config.exists() or self.config.read_bytes() == text.encode():
            self.config.write_text(text, encoding="utf-8")
            return None
        number = 1
        while (kept := self.path / f"config.{number}.yaml").exists():
            number += 1
        self.config.rename(kept)
        self.config.write_text(text, encoding="utf-8")
        return kept


class Tracker:
    """Writes the metrics of each step: first to `metrics.jsonl`, then to whoever else listens.

    The step is the run's own, one for each round of collect, update and sync, however many optimiser steps it takes:
    training and evaluation stand on one axis, and it never goes back.

    Args:
        folder: the run's.
        speaks: false on every rank but the first; `log` then checks the names and writes nothing.
        also: called with (metrics, step) after the file is written, for example `accelerator.log`. When it fails, the
            run goes on without it.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        speaks: bool = True,
        also: Callable[[dict[str, float], int], None] | None = None,
    ) -> None:
        self.folder, self.speaks, self._also = folder, speaks, also
        self._not_finite: set[str] = set()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line `{"step": ..., name: value, ...}`. A value that is not finite is written as null.

        Raises:
            ValueError: a name is not of the form `area/what_unit`, or a value is no number.
            RunFolderError: the line could not be written; everything before it is intact.
        """
        # All ranks check the names: an error on the first rank alone would leave the others waiting for it.
        values = {name: _number(name, value) for name, value in metrics.items()}
        if not self.speaks:
            return
        for name in sorted(name for name, value in values.items() if not math.isfinite(value)):
            if name not in self._not_finite:
                log.warning("%s is %s at step %d; metrics.jsonl holds null for it", name, values[name], step)
                self._not_finite.add(name)
        # JSON has neither NaN nor infinity.
        written = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            append_line(self.folder.metrics, {"step": step, **written})
        except OSError as error:
            raise RunFolderError(
                f"the metrics of step {step} could not be written to {self.folder.metrics}: "
                f"{error.strerror or error}. Safe on disk: all earlier steps in that file, the trajectories and the "
                f"complete checkpoints in {self.folder.checkpoints}. Make space and start again with the same folder."
            ) from error
        self._tell_others(values, step)

    @property
    def position(self) -> int:
        """Bytes of `metrics.jsonl` so far. A checkpoint keeps it; `rewind` takes it."""
        return self.folder.metrics.stat().st_size if self.folder.metrics.exists() else 0

    def rewind(self, position: int) -> int:
        """Take out what was written after `position`, as a resumed run writes it anew.

        It is moved to `metrics.superseded.jsonl`, not thrown away.

        Returns:
            How many bytes were taken out.
        """
        if not self.speaks or self.position <= position:
            return 0
        content = self.folder.metrics.read_bytes()
        with (self.folder.path / "metrics.superseded.jsonl").open("ab") as aside:
            # Kept aside before they are taken out: a kill in between leaves lines twice, and loses none.
            aside.write(content[position:])
        beside = self.folder.path / ".metrics.jsonl.new"
        beside.write_bytes(content[:position])
        beside.replace(self.folder.metrics)
        return len(content) - position

    def _tell_others(self, values: dict[str, float], step: int) -> None:
        if self._also is None:
            return
        try:
            self._also(values, step)
        except Exception:  # foreign code, and the numbers are already safe in the file
            log.exception("a tracker failed at step %d; the run goes on with metrics.jsonl alone", step)
            # It is not asked again, so that its traceback is logged once and not at every step.
            self._also = None


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append one JSON line whole or not at all. A torn line that a kill left behind is closed off first.

    Raises:
        OSError: the line does not fit; the file is as it was.
    """
    line = (json.dumps(row) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        try:
            view = memoryview(line)
            while view:  # a full disk first takes a part of the line, then refuses
                view = view[os.write(descriptor, view) :]
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """The whole configuration for a tracker: dotted keys, and values of the kinds that all of them take."""
    return dict(_flat(config.model_dump(mode="json")))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            # Lists and None are written as JSON, since not every tracker takes them.
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else json.dumps(value)


def metric_part(name: str) -> str:
    """A task's or a part's name as one part of a metric's name, which takes letters, digits and a few signs."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", name if name[:1].isalnum() else f"task{name}")


def metric_row(line: str | bytes) -> dict[str, Any] | None:
    """One line of a metrics file; None where it is torn or names no step. Integers that no float holds are infinite."""
    try:
        row = json.loads(line, parse_int=_bounded_int)
    except (ValueError, RecursionError):
        return None
    # `type`, as True is an int to isinstance; beyond 2**53 a float, and so a tracker, merges neighbours.
    named = isinstance(row, dict) and type(row.get("step")) is int and abs(row["step"]) < 2**53
    return row if named else None


def _bounded_int(text: str) -> int | float:
    # `float` makes infinity of what no float holds; `int` raises for more than 4300 digits.
    return int(text) if len(text) < 300 else float(text)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; those that a kill tore, or that are no metrics of a step, are left out."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        row = metric_row(line)
        if row is not None:
            rows.append(row)
        else:
            log.warning("%s: left out a torn line of %d characters", path, len(line))
    return rows


def _number(name: str, value: object) -> float:
    if not _NAME.fullmatch(name):
        raise ValueError(f"metric {name!r} must be named `area/what_unit`, for example `rollout/num_turns_mean`")
    # Python takes True and "1" for numbers; as a metric they are a slip.
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise ValueError(f"metric {name!r} must be a number, got {value!r}")
    return float(value)
