"""The speed ledger: where an iteration's wall time went, in two lanes that each add up to it.

Generator lane: the engine's prefill and decode, what else episodes waited for at the engine, the environment (no
episode waits for the engine, some wait for the world), and the queue (nothing is in flight: it waits for the learner).
Learner lane: waiting for episodes, scoring, learning, handing over weights, and the rest.

What the rollouts of one step looked like, as named numbers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from rollwright.batching import members_to_learn_from, policy_return, policy_turns
from rollwright.contracts import Group, StopReason, Trajectory
from rollwright.generation import Engine, TimedEngine
from rollwright.run_io import LEARNER_LANE


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Means over the learnable trajectories of `groups`; shares of stop reasons over all of them."""
    everyone = [t for group in groups for t in group.trajectories]
    good = [t for t in everyone if t.learnable]
    metrics = {f"rollout/{reason.value}_frac": count for reason, count in stop_fractions(everyone).items()}
    metrics["rollout/episodes_count"] = float(len(everyone))
    metrics["rollout/groups_informative_frac"] = _mean([float(is_informative(group)) for group in groups])
    if not good:
        return metrics
    # A share over verdicts: an episode without one is no failure.
    judged = [t.success for t in good if t.success is not None]
    turns = [turn for t in good for turn in t.turns]
    return metrics | {
        "rollout/num_turns_mean": _mean([len(t.turns) for t in good]),
        "rollout/action_tokens_mean": _mean([len(turn.action_ids) for turn in turns]),
        "rollout/prompt_tokens_mean": _mean([len(turn.prompt_ids) for turn in turns]),
        "rollout/action_cut_frac": _mean([float(turn.finish == "length") for turn in turns]),
        "rollout/nll_mean": -_mean([lp for turn in turns for lp in turn.action_logprobs]),
        "rollout/success_frac": _mean([float(s) for s in judged]),
        "reward/total_mean": _mean([t.total_reward for t in good]),
        "time/env_step_s": _mean([turn.timings.env_s for turn in turns]),
        "time/engine_wait_s": _mean([turn.timings.engine_wait_s for turn in turns]),
        **{f"reward/{part}_mean": value for part, value in _parts(good).items()},
    }


def is_informative(group: Group) -> bool:
    """Whether the members of a group that an update can use earned different returns, by what the estimators compare:
    only then can they be told apart."""
    # Rounded, since returns that differ by rounding errors alone tell nothing apart.
    return len({round(policy_return(t), 9) for t in members_to_learn_from(group)}) > 1


def met_again_frac(groups: Sequence[Group]) -> float:
    """Share of the policy's turns whose state another turn of their group was in too: where GiGPO's step part compares.

    The first turns of a group always meet: all of its episodes begin in one state.
    """
    met = everywhere = 0
    for group in groups:
        visits = Counter(turn.state_key for t in members_to_learn_from(group) for turn, _ in policy_turns(t))
        met += sum(count for count in visits.values() if count > 1)
        everywhere += visits.total()
    return met / max(1, everywhere)


def stop_fractions(trajectories: Sequence[Trajectory]) -> dict[StopReason, float]:
    """Share of each stop reason, all reasons listed."""
    counts = Counter(t.stop_reason for t in trajectories)
    # Reasons that did not occur as well, so that the columns of a metrics file do not come and go.
    return {reason: counts[reason] / max(1, len(trajectories)) for reason in StopReason}


def _parts(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean per trajectory of each named reward part."""
    sums: Counter[str] = Counter()
    for trajectory in trajectories:
        for turn in trajectory.turns:
            # The type stub of `Counter.update` knows counts alone; at run time it adds floats as well.
            sums.update({name: value for name, value in turn.rewards.items()})  # type: ignore[dict-item]
    return {name: value / len(trajectories) for name, value in sums.items()}


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0


Place = Literal["engine", "environment"]
State = Literal["engine", "environment", "queue"]


class Occupancy:
    """Where the episodes of a collector are, and for how long each state of the whole held. Safe to use from threads.

    The whole is in state "engine" while any episode waits for the engine, else "environment" while any waits for the
    world, else "queue": nothing is in flight, and what comes next waits for the learner. So the three times add up to
    the time that has passed, however many episodes there are.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Episodes move on the loop's thread, and the learner reads on another.
        self._lock = threading.Lock()
        self._at: dict[Place, int] = {"engine": 0, "environment": 0}
        self._seconds: dict[State, float] = {"engine": 0.0, "environment": 0.0, "queue": 0.0}
        self._since = clock()

    def move(self, left: Place | None, entered: Place | None) -> None:
        """An episode changes what it waits for; None before its first and after its last."""
        with self._lock:
            # First: the time until now belongs to the state before the move.
            self._account()
            if left is not None:
                self._at[left] -= 1
            if entered is not None:
                self._at[entered] += 1

    def seconds(self) -> Mapping[State, float]:
        """Seconds in each state since this was made."""
        with self._lock:
            self._account()
            return dict(self._seconds)

    def _account(self) -> None:
        now = self._clock()
        state: State = "engine" if self._at["engine"] else "environment" if self._at["environment"] else "queue"
        self._seconds[state] += now - self._since
        self._since = now


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Clocks at one moment, in seconds. `work` is None where the engine does not tell prefill from decode."""

    lane: Mapping[State, float]
    work: tuple[float, float] | None

    @property
    def at(self) -> float:
        """The time itself: one state or another has held at every moment."""
        return sum(self.lane.values())


class Ledger:
    """Reads the clocks at the beginning and the end of an iteration. Made by `Training`, lives for the run."""

    def __init__(self, occupancy: Occupancy, engine: Engine) -> None:
        self._occupancy, self._engine = occupancy, engine
        self._begun = self._read()

    def begin(self) -> None:
        """An iteration begins."""
        self._begun = self._read()

    def end(self, timings: Mapping[str, float]) -> dict[str, float]:
        """The entries of the iteration that ends now, in seconds.

        Args:
            timings: of its stages, by metric name (see `run_io.LEARNER_LANE`).
        """
        now = self._read()
        return generator_lane(self._begun, now) | learner_lane(timings, wall_s=now.at - self._begun.at)

    def _read(self) -> Reading:
        # Totals since the engine was made: only the difference of two readings means anything.
        work = self._engine.work_seconds() if isinstance(self._engine, TimedEngine) else None
        return Reading(lane=self._occupancy.seconds(), work=work)


class StepClock:
    """Adds up seconds by stage, from one `begin` to the next. Made by `Training`, lives for the run."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._running: set[str] = set()

    def begin(self) -> None:
        """A step begins."""
        self._began, self._seconds = time.monotonic(), {}
        self._ledger.begin()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """What happens inside belongs to this stage, named as its metric; a stage may be entered several times.

        Inside itself a stage counts once.
        """
        if name in self._running:
            yield
            return
        self._running.add(name)
        before = time.monotonic()
        try:
            yield
        finally:
            self._running.discard(name)
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - before

    def metrics(self) -> dict[str, float]:
        """The step's stages, the whole of it, and the ledger's two lanes, in seconds."""
        timings = self._seconds | {"time/step_s": time.monotonic() - self._began}
        return timings | self._ledger.end(timings)


def generator_lane(before: Reading, after: Reading) -> dict[str, float]:
    """What the generator did between two readings."""
    seconds = {state: after.lane[state] - before.lane[state] for state in after.lane}
    entries = {
        "ledger/generator_engine_s": seconds["engine"],
        "ledger/generator_environment_s": seconds["environment"],
        "ledger/generator_queue_s": seconds["queue"],
    }
    if before.work is None or after.work is None:
        return entries
    prefill, decode = (late - early for early, late in zip(before.work, after.work, strict=True))
    # The engine ends a step a moment after the last episode has its answer.
    rest = max(0.0, seconds["engine"] - prefill - decode)
    return entries | {
        "ledger/generator_prefill_s": prefill,
        "ledger/generator_decode_s": decode,
        "ledger/generator_engine_s": rest,
    }


def learner_lane(timings: Mapping[str, float], *, wall_s: float) -> dict[str, float]:
    """What the learner did in an iteration of `wall_s` seconds."""
    parts = {part: sum(timings.get(name, 0.0) for name in names) for part, names in LEARNER_LANE.items()}
    parts["other"] = max(0.0, wall_s - sum(parts.values()))
    return {f"ledger/learner_{part}_s": seconds for part, seconds in parts.items()}
