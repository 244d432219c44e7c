"""Rules of ours that judge foreign text: each call in a process of its own, bounded in time and memory.

From any thread, in a box where this machine can make one; elsewhere in a plain child process under the same limits: the
rules parse text and run none, so what they need is an end, not a wall.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from rollwright.contracts import EnvironmentFault
from rollwright.envs.code.sandbox.limits import Limits
from rollwright.envs.code.sandbox.pool import BoxPool
from rollwright.envs.code.sandbox.trusted import Called

LIMITS = Limits(wall_s=20.0, cpu_s=1, memory_mib=256, open_files=16, file_mib=0, disk_mib=1, output_kib=64)
"""One second of the processor decides, not the clock: a verdict must not depend on what else the machine does. The
memory is address space, of which Python with sympy takes 67 MiB before it begins."""
AT_MOST = 4
"""Calls under way at once; each is short."""
TRIES = 3


class Rule:
    """A function of one of our modules, called in a box that holds this module and the packages it names."""

    def __init__(self, module: str, packages: Sequence[str]) -> None:
        self._module = module
        self._pool = BoxPool(limits=LIMITS, packages=packages, trusted=(module,), unsafe=True, at_most=AT_MOST)

    def __call__(self, function: str, *args: Any) -> Called:
        """What became of the call. The first one starts the box.

        Raises:
            MissingDependency: a package is not installed.
            EnvironmentFault: the process was lost again and again, or does not start.
        """
        for _ in range(TRIES):
            called = self._pool.call(self._module, function, *args)
            if not _is_the_machines(called):
                return called
        raise EnvironmentFault(
            f"{self._module} could not judge a text in {TRIES} tries: its process was killed from outside, or had no "
            f"second of the processor within {LIMITS.wall_s:g} s ({called.message}); is the machine overloaded?"
        )


def _is_the_machines(called: Called) -> bool:
    """A text can exhaust its time and memory, or crash a parser. It cannot kill its process early, or make it wait."""
    starved = called.how == "timeout" and "SIG" not in called.message
    return starved or (called.how == "crash" and "SIGKILL" in called.message)


@cache
def rule(module: str, packages: tuple[str, ...] = ()) -> Rule:
    """The process's one `Rule` of a module: its boxes start once and stay up, whoever asks."""
    return Rule(module, packages)
