"""What a run in the sandbox may use."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

Outcome = Literal["done", "exit", "signal", "timeout", "output"]
"""How a run ended: it finished; it left with another exit code than 0; a signal (its CPU limit is one) killed it; the
wall clock ran out; it wrote more than it may. All are the program's doing: a box that died with it is a `BoxLost`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one run. Every one is enforced by the kernel or from outside the box, none by the program's good will.

    Memory is address space per process, so a run holds at most `(1 + processes) x memory_mib`, and `disk_mib` beside
    it.
    """

    wall_s: float = 5.0
    """Wall-clock seconds, after which everything in the box is killed."""
    cpu_s: int = 5
    """CPU seconds per process."""
    memory_mib: int = 512
    """Address space per process."""
    processes: int = 0
    """Processes and threads besides the first one."""
    file_mib: int = 8
    """Size of one file."""
    open_files: int = 64
    """File descriptors per process."""
    output_kib: int = 64
    """What may be printed; one byte more ends the run."""
    answers_kib: int = 1024
    """What may be answered through the channel of results."""
    disk_mib: int = 16
    """Size of the private /tmp, the only place that can be written. Fixed when a box starts."""

    def __post_init__(self) -> None:
        wrong = [f.name for f in fields(self) if not math.isfinite(getattr(self, f.name)) or getattr(self, f.name) < 0]
        wrong += [name for name in ("wall_s", "cpu_s", "memory_mib", "disk_mib") if getattr(self, name) == 0]
        if wrong:
            raise ValueError(f"limits must be finite and positive, {', '.join(wrong)} is not: {self}")
