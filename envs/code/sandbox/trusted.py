"""Trusted functions that look at foreign text, called in a box: parsers and rules that such text can stall or blow up.

Whatever the text does to the function, time and memory are bounded by the kernel, from any thread. The function itself
must be one that text cannot talk to: what evaluates foreign text can be made to return anything, in a box too.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollwright.envs.code.sandbox import plain
from rollwright.envs.code.sandbox.limits import Limits
from rollwright.envs.code.sandbox.session import Ended
from rollwright.envs.code.sandbox.warm import WarmBox

How = Literal["value", "error", "memory", "timeout", "crash", "output"]
"""It returned; it raised; it wanted more memory than it may have; its time ran out, by the clock or the processor; its
process died; it printed or answered more than it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What became of a call: the plain value where `how` is "value", else in words why there is none."""

    how: How
    value: Any = None
    message: str = ""


def call_trusted(
    box: WarmBox, module: str, function: str, args: Sequence[Any] = (), *, limits: Limits | None = None
) -> Called:
    """Call `function` of `module`, one of the box's `trusted` modules, on plain data.

    Raises:
        ValueError: the box does not hold this module.
        NotPlain: an argument is no plain data.
        EnvironmentFault: the box could not be started, or was lost.
    """
    if module not in box.trusted:
        raise ValueError(f"this box holds the trusted modules {list(box.trusted)}, not {module!r}")
    order = {"mode": "trusted", "module": module, "function": function, "args": [plain.encode(arg) for arg in args]}
    answers, ended = box.run(order, limits=limits)
    if ended.outcome != "done" or not answers:
        return Called(how=_how(ended, limits or box.limits), message=ended.said)
    answer = answers[0]
    if "value" in answer:
        return Called(how="value", value=plain.decode(answer["value"]))
    name = answer["failed"]["names"][0]
    return Called(how="memory" if name == "MemoryError" else "error", message=f"{name}: {answer['failed']['text']}")


def _how(ended: Ended, limits: Limits) -> How:
    if ended.outcome in ("timeout", "output"):
        return "timeout" if ended.outcome == "timeout" else "output"
    if (
        ended.outcome == "signal"
        and ended.code in (signal.SIGXCPU, signal.SIGKILL)
        and ended.cpu_s > limits.cpu_s - 0.5
    ):
        return "timeout"
    return "memory" if "MemoryError" in ended.output else "crash"
