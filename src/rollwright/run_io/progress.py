"""Progress of anything that takes longer than a few seconds, on a terminal and in a log file alike."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

T = TypeVar("T")


class Progress:
    """A bar on a terminal, gone when it is full; elsewhere a plain line every `every_s` seconds, and one at the end.

    What lasts are the lines of steps and evaluations (`console`). Only rank 0 speaks.

        with Progress("episodes", total=96) as progress:
            progress.advance(note="3 faults")

    Args:
        what: what is counted, in one or two words.
        total: how many; None where nobody knows.
        every_s: seconds between lines where there is no terminal.
        stream: where to; standard error when None.
    """

    def __init__(
        self, what: str, *, total: int | None = None, every_s: float = 10.0, stream: TextIO | None = None
    ) -> None:
        self.what, self.total, self.every_s = what, total, every_s
        self.done = 0
        self._stream = stream or sys.stderr
        self._speaks = os.environ.get("RANK", "0") == "0"
        # A bar redraws its line by control codes, which would litter a log file.
        self._bar = _bar(self._stream) if self._speaks and self._stream.isatty() else None
        self._note = ""
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        self._started = self._last_line = time.monotonic()
        if self._bar is not None:
            self._task = self._bar.add_task(self.what, total=self.total, note="")
            self._bar.start()
        return self

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Count `count` more as done; `note` stands beside the bar until the next one."""
        self.done += count
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update(self._task, advance=count, note=self._note)
        elif time.monotonic() - self._last_line >= self.every_s:
            self._line()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        # Work that was shorter than one interval is not worth a line in a log.
        elif time.monotonic() - self._started >= self.every_s:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        if not self._speaks:
            return
        of = f"/{self.total}" if self.total is not None else ""
        note = f", {self._note}" if self._note else ""
        self._stream.write(f"{self.what}: {self.done}{of} after {self._last_line - self._started:.0f} s{note}\n")
        self._stream.flush()


def _bar(stream: TextIO) -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(file=stream),
        transient=True,
    )
