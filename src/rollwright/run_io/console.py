"""What a run says while it happens: one line for each step, one for each evaluation, and how long it will take.

`step_line` and `evaluation_line` are pure functions of numbers; `StepReport` keeps what they need to know of earlier
steps and prints. Figures go to standard output, progress inside a step to standard error. Only rank 0 speaks.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

RECENT = 5
"""Steps whose mean a change is measured against, and whose duration the time left is estimated from."""
_MARK = " | "
_STAGES = {
    "collect": ("time/collect_s", "time/greedy_s"),
    "score": ("time/score_s",),
    "update": ("time/update_s",),
    "sync": ("time/sync_s",),
}
_FAULTS = ("rollout/env_error_frac", "rollout/engine_error_frac", "rollout/aborted_frac")
_DIVERGENCE = {"kl": "policy/kl_ref_mean", "kl old": "policy/kl_old_mean"}
_ENTROPY = {"entropy": "policy/entropy_mean", "nll": "rollout/nll_mean"}
"""Label -> metric; the first that was measured is said."""
# A shorter one would be printed as 0.0 s.
_SHORTEST_STAGE_S = 0.05
_MOST_LOSSES = 3

Metrics = Mapping[str, float | None]


def step_line(
    step: int,
    steps: int,
    metrics: Metrics,
    previous: Sequence[Metrics] = (),
    *,
    left_s: float | None = None,
    unit: str = "step",
) -> str:
    """One line about a step. What was not measured is left out.

    Args:
        step: its number, from 1 on.
        steps: how many the run has; 0 where nobody knows.
        metrics: what was logged of the step, by the names of docs/metrics.md.
        previous: the same of earlier steps. The first figure's change is against their mean.
        left_s: seconds until the run is expected to end.
        unit: what is counted.

    Returns:
        Such as `step 3 of 24 | success 0.42 (+0.05) | reward 0.40 | kl 0.012 | 3.1 ep/s | collect 12.3 s`.
    """
    parts = [f"{unit} {step} of {steps}" if steps else f"{unit} {step}"]
    parts += _outcome(metrics, previous)
    parts += _first_of(metrics, _DIVERGENCE)
    parts += _first_of({name: value or None for name, value in metrics.items()}, _ENTROPY)  # 0: nothing was sampled
    parts += _rates(metrics)
    parts += _stages(metrics)
    if lost := faulted_count(metrics):
        parts.append(f"faults {lost}")
    if metrics.get("optim/skipped_count"):
        parts.append("no update")
    if left_s is not None and step != steps:
        parts.append(f"{duration(left_s)} left")
    return _MARK.join(parts)


def evaluation_line(
    name: str,
    *,
    success: tuple[float, float, float] | None,
    reward: float | None = None,
    tasks: int,
    starts: int,
    attempts: int = 1,
    faults: int = 0,
    first_and_last: tuple[float, float] | None = None,
) -> str:
    """One line about an evaluation.

    Args:
        success: rate and the ends of its interval; None where no episode got a verdict, and `reward` is said instead.
        reward: mean return.
        starts: start states of each task.
        attempts: episodes from each start state.
        faults: episodes that broke and are in no figure.
        first_and_last: accuracy of the first and of the last attempt, in worlds with several attempts in an episode.

    Returns:
        Such as `evaluation final: success 0.80 [0.63, 0.93] on 6 tasks × 50 starts, 3 faults left out`.
    """
    if success is not None:
        rate, low, high = success
        said = f"success {rate:.2f} [{low:.2f}, {high:.2f}]"
    else:
        said = "nothing was judged" if reward is None else f"mean return {_figure(reward)}, no verdicts"
    where = f"{_count(tasks, 'task')} × {_count(starts, 'start')}"
    where += f" × {_count(attempts, 'attempt')}" if attempts > 1 else ""
    left_out = f", {_count(faults, 'fault')} left out" if faults else ""
    called = "evaluation" if name == "evaluation" else f"evaluation {name}"
    if first_and_last is not None:
        left_out += f", right at the first attempt {first_and_last[0]:.2f}, at the last {first_and_last[1]:.2f}"
    return f"{called}: {said} on {where}{left_out}"


def duration(seconds: float) -> str:
    """A length of time in its two largest useful units: `40 s`, `14 min`, `2 h 10 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    # A unit is kept up to 90, as 80 s says more than 1 min.
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def faulted_count(metrics: Metrics) -> int:
    """Episodes of a step that were lost to faults of world or engine."""
    # The metrics are shares of all episodes, so the number is recovered from them.
    return round(
        sum(_value(metrics, name) or 0.0 for name in _FAULTS) * (_value(metrics, "rollout/episodes_count") or 0)
    )


def say(text: str, *, stream: TextIO | None = None) -> None:
    """Print lines on rank 0, at once, so that they stand in order with what goes to standard error."""
    if os.environ.get("RANK", "0") != "0":
        return
    where = stream or sys.stdout
    encoding = where.encoding or "utf-8"  # a terminal that cannot show a sign gets "?" in its place
    print(text.encode(encoding, "replace").decode(encoding), file=where, flush=True)


class StepReport:
    """Prints the line of every step. Made by the loop, lives for the run.

    Args:
        steps: of the whole run; a resumed run counts on from where it stood.
        max_minutes: after which the run stops; 0 = no limit.
        clock: seconds, rising.
        unit: what is counted.
    """

    def __init__(
        self,
        steps: int,
        *,
        max_minutes: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "step",
    ) -> None:
        self.steps, self.max_s, self.unit = steps, 60 * max_minutes, unit
        self._clock = clock
        self._began = self._last = clock()
        self._recent: deque[dict[str, float | None]] = deque(maxlen=RECENT)
        self._took: deque[float] = deque(maxlen=RECENT)
        self._last_step = 0

    def begin(self, done: int = 0) -> None:
        """The first step begins, after `done` earlier ones: what was opened or evaluated before it is not its time."""
        self._last, self._last_step = self._clock(), done

    def elapsed(self) -> float:
        """Seconds since the last line, or since `begin`."""
        return self._clock() - self._last

    def step(self, step: int, metrics: Metrics) -> str:
        """Print the line of a step that has ended, and return it.

        Args:
            step: its number, from 1 on.
        """
        now = self._clock()
        self._took.append((now - self._last) / max(1, step - self._last_step))  # some say every fifth step alone
        self._last, self._last_step = now, step
        line = step_line(step, self.steps, metrics, list(self._recent), left_s=self._left_s(step, now), unit=self.unit)
        # After the line is made, as a step is compared with earlier ones only.
        self._recent.append(dict(metrics))
        say(line)
        return line

    def _left_s(self, step: int, now: float) -> float | None:
        """By the mean of recent steps, evaluations and checkpoints between them included."""
        if self.steps <= step:
            return None
        expected = (self.steps - step) * sum(self._took) / len(self._took)
        # The run ends at its last step or at its time limit, whichever comes first.
        return min(expected, max(0.0, self.max_s - (now - self._began))) if self.max_s else expected


def _outcome(metrics: Metrics, previous: Sequence[Metrics]) -> Iterator[str]:
    """Success and reward; where the step has neither, its losses. The first of them with its change."""
    named = {"success": "rollout/success_frac", "reward": "reward/total_mean"}
    there = {label: name for label, name in named.items() if _value(metrics, name) is not None}
    if not there:
        losses = [name for name in metrics if name.endswith("/loss") and _value(metrics, name) is not None]
        # A step that only reads stores has neither, and a line without a figure tells nothing.
        there = {_loss_label(name): name for name in losses[:_MOST_LOSSES]}
    for place, (label, name) in enumerate(there.items()):
        value = _value(metrics, name)
        assert value is not None
        yield f"{label} {_figure(value)}{'' if place else _change(value, name, previous)}"


def _loss_label(name: str) -> str:
    area = name.rpartition("/")[0]
    return "loss" if area == "optim" else f"{area.replace('_', ' ')} loss"


def _change(value: float, name: str, previous: Sequence[Metrics]) -> str:
    before = [found for row in previous if (found := _value(row, name)) is not None]
    return f" ({value - sum(before) / len(before):+.2f})" if before else ""


def _first_of(metrics: Metrics, names: Mapping[str, str]) -> list[str]:
    found = [f"{label} {value:.3g}" for label, name in names.items() if (value := _value(metrics, name)) is not None]
    return found[:1]


def _rates(metrics: Metrics) -> Iterator[str]:
    """Episodes and sampled tokens per second of the whole step, so that a slow update shows too."""
    seconds, episodes = _value(metrics, "time/step_s"), _value(metrics, "rollout/episodes_count")
    if not seconds:
        return
    if episodes:
        yield f"{episodes / seconds:.3g} ep/s"
        per_episode = (
            _value(metrics, name) or 0.0 for name in ("rollout/num_turns_mean", "rollout/action_tokens_mean")
        )
        if tokens := (episodes - faulted_count(metrics)) * math.prod(per_episode):
            yield f"{tokens / seconds:.0f} tok/s"
    elif trained := _value(metrics, "optim/tokens_count"):
        # Without episodes the rate is that of the tokens that were trained on.
        yield f"{trained / seconds:.0f} tok/s"


def _stages(metrics: Metrics) -> Iterator[str]:
    """Seconds by stage, those that took none left out."""
    spent = {stage: sum(_value(metrics, name) or 0.0 for name in names) for stage, names in _STAGES.items()}
    said = [f"{stage} {seconds:.1f} s" for stage, seconds in spent.items() if seconds >= _SHORTEST_STAGE_S]
    if said:
        yield ", ".join(said)


def _value(metrics: Metrics, name: str) -> float | None:
    """None where it is missing or no finite number, as in metrics.jsonl."""
    value = metrics.get(name)
    return value if value is not None and math.isfinite(value) else None


def _figure(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 1000 else f"{value:.4g}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
