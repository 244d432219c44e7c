"""A curriculum that grows: new tasks out of those that failed, kept where possible and neither solved nor lost.

    at every round:  seeds     := some of the tasks that failed since the last round
                     proposed  := generator.propose(seeds)           (the world's own variations, or a language model)
                     possible  := those that the world can open, and that are not known yet
                     kept      := those whose first state a critic values within the band; all where there is no critic

Sources: WebRL, arXiv:2411.02337 (phases, seeds, band [0.05, 0.75], either of two heads may lie in it).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rollwright.contracts import ConfigError, Group, Task, Trajectory
from rollwright.curriculum.samplers import checked_tasks, draws_of

log = logging.getLogger(__name__)
Prompt = tuple[int, ...]
Look = Callable[[Sequence[Task]], Sequence[Prompt | None]]
"""The first prompt of each task; None where the world cannot open it."""


class TaskGenerator(Protocol):
    """Makes new tasks out of given ones. Equal arguments give equal tasks."""

    def propose(self, seeds: Sequence[Task], count: int, *, key: int) -> Sequence[Task]:
        """About `count` training tasks like the seeds; fewer, or known ones, are no error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a curriculum grows.

    every: steps between two rounds. new_tasks: kept of one round at most. num_seeds: failed tasks a round starts from.
    given_frac: share of the draws that stays with the world's own tasks. low, high: the band of start values.
    outcome: what tells success from failure: the verdict where there is one, or a return above 0 alone, so that an
    outcome model is believed and the world's knowledge not used.
    """

    every: int = 1
    new_tasks: int = 16
    num_seeds: int = 10
    given_frac: float = 0.2
    low: float = 0.05
    high: float = 0.75
    outcome: Literal["verdict", "reward"] = "verdict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A task that is new and can be opened, and the first prompt of its episodes."""

    task: Task
    prompt: Prompt


class EvolvingCurriculum:
    """The world's tasks and those that grew out of their failures. See `rollwright.curriculum.samplers.Curriculum`.

    Attributes:
        generator: set before the first round.
        grown: tasks that were added, oldest first.
    """

    def __init__(self, tasks: Sequence[Task], growth: Growth, *, seed: int) -> None:
        self.given, self.growth, self.seed = checked_tasks(tasks), growth, seed
        self.generator: TaskGenerator | None = None
        self.grown: list[Task] = []
        # Tasks that were taken out again stay in here, so that they are not proposed a second time.
        self._known = {task.id for task in tasks}
        self._wins: dict[str, list[float]] = {}  # by task: outcomes since the last round
        self._metrics: dict[str, float] = {}

    def next(self, step: int, count: int) -> list[Task]:
        """`given_frac` of the draws from the given tasks, the others from those that grew; each in shuffled passes."""
        # The given tasks are what the policy is judged by: they never leave the draws.
        old = count if not self.grown else max(1, round(count * self.growth.given_frac))
        drawn = self._passes(self.given, old, step, "given") + self._passes(self.grown, count - old, step, "grown")
        draws_of(self.seed, "evolving", step).shuffle(drawn)
        return drawn

    def _passes(self, tasks: Sequence[Task], count: int, step: int, name: str) -> list[Task]:
        drawn: list[Task] = []
        while len(drawn) < count:
            order = list(tasks)
            draws_of(self.seed, name, step, len(drawn)).shuffle(order)
            drawn += order[: count - len(drawn)]
        return drawn

    def update(self, groups: Sequence[Group]) -> None:
        """Remember what failed; a grown task whose episodes all broke is taken out again."""
        for group in groups:
            # A fault or an undecided score is no failure and must not make the task a seed.
            played = [t for t in group.trajectories if t.learnable]
            ended = [float(self._succeeded(t)) for t in played]
            if ended:
                self._wins.setdefault(group.task.id, []).append(sum(ended) / len(ended))
            elif any(task.id == group.task.id for task in self.grown):
                log.warning("task %s is taken out: none of its episodes could be played", group.task.id)
                self.grown = [task for task in self.grown if task.id != group.task.id]

    def _succeeded(self, trajectory: Trajectory) -> bool:
        judged = self.growth.outcome == "verdict" and trajectory.success is not None
        # A task that a model wrote ends without a verdict (`TakesInstructions.task_of`): its return decides.
        return bool(trajectory.success) if judged else trajectory.total_reward > 0

    def due(self, step: int) -> bool:
        """Whether a round is due before this step."""
        # Before the first step nothing has been played, so nothing can have failed.
        return step > 0 and step % self.growth.every == 0

    def failed(self) -> list[Task]:
        """The tasks that did not always succeed since the last round, in the order of the pool."""
        # A task that was not played since the last round has not failed. Pool order keeps the sample repeatable.
        return [t for t in (*self.given, *self.grown) if min(self._wins.get(t.id, [1.0])) < 1.0]

    def candidates(self, step: int, look: Look) -> list[Candidate]:
        """The first half of a round: what was proposed, is new, and can be opened.

        Raises:
            ConfigError: there is no generator. ValueError: one proposed a task of a held-out split.
        """
        if self.generator is None:
            raise ConfigError("this curriculum has no generator of tasks: set `generator` before the first round")
        rng = draws_of(self.seed, "seeds", step)
        failed = self.failed()
        seeds = rng.sample(failed, min(len(failed), self.growth.num_seeds))
        wanted = 2 * self.growth.new_tasks  # the filters will take some
        proposed = self.generator.propose(seeds, wanted, key=step) if seeds else []
        new = self._new(proposed)
        # Opening a task takes an environment, so what is known already is filtered out before.
        prompts = look(new)
        opened = [Candidate(task=t, prompt=p) for t, p in zip(new, prompts, strict=True) if p is not None]
        self._metrics = {
            "curriculum/failed_count": float(len(failed)),
            "curriculum/proposed_count": float(len(proposed)),
            "curriculum/possible_count": float(len(opened)),
        }
        return opened

    def _new(self, proposed: Sequence[Task]) -> list[Task]:
        if held_out := [task.id for task in proposed if task.split != "train"]:
            raise ValueError(f"the generator proposed held-out tasks {held_out[:5]}: those are for judging only")
        new: dict[str, Task] = {}
        for task in proposed:
            if task.id not in self._known:
                new.setdefault(task.id, task)
        return list(new.values())

    def take(self, candidates: Sequence[Candidate], values: Sequence[Sequence[float]] | None) -> list[Task]:
        """The second half: keep those of the band, `new_tasks` at most, and begin to count failures anew.

        Args:
            values: [heads, candidates] chance of success at the first prompt; None where no critic can tell.
        """
        low, high = self.growth.low, self.growth.high
        inside = [True] * len(candidates) if values is None else in_value_band(values, low, high)
        fitting = [c.task for c, fits in zip(candidates, inside, strict=True) if fits]
        # The world's generator puts the nearest variation of every seed first, so the cut keeps those.
        kept = fitting[: self.growth.new_tasks]
        self.grown += kept
        self._known |= {task.id for task in kept}
        # Also when nothing was kept: the next round is about what fails from here on.
        self._wins = {}
        self._metrics |= {"curriculum/in_band_count": float(len(fitting)), "curriculum/kept_count": float(len(kept))}
        return kept

    def metrics(self) -> dict[str, float]:
        """Of the pool, and once of a round."""
        # Read once, so that steps without a round do not repeat the numbers of the last one.
        once, self._metrics = self._metrics, {}
        return once | {"curriculum/tasks_count": float(len(self.given) + len(self.grown))}

    def state_dict(self) -> dict[str, Any]:
        """What grew, what was ever known, and the outcomes since the last round."""
        # No split: a held-out task is never taken. The given tasks come from the world again.
        grown = [{"id": task.id, "params": dict(task.params)} for task in self.grown]
        return {"grown": grown, "known": sorted(self._known), "wins": self._wins}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what grew; the given tasks are the world's."""
        self.grown = [Task(id=t["id"], split="train", params=t["params"]) for t in state["grown"]]
        self._known |= set(state["known"])
        self._wins = {task: list(wins) for task, wins in state["wins"].items()}


def evolving_curriculum(
    tasks: Sequence[Task],
    *,
    seed: int,
    every: int = 1,
    new_tasks: int = 16,
    num_seeds: int = 10,
    given_frac: float = 0.2,
    low: float = 0.05,
    high: float = 0.75,
    outcome: Literal["verdict", "reward"] = "verdict",
) -> EvolvingCurriculum:
    """The evolving curriculum of the settings; its generator is set later, for it may need the run's engine.

    Args:
        every, new_tasks, num_seeds, given_frac, low, high, outcome: see `Growth`.

    Raises:
        ConfigError: there are no tasks, or held-out ones among them.
    """
    growth = Growth(
        every=every,
        new_tasks=new_tasks,
        num_seeds=num_seeds,
        given_frac=given_frac,
        low=low,
        high=high,
        outcome=outcome,
    )
    return EvolvingCurriculum(tasks, growth, seed=seed)


def in_value_band(values: Sequence[Sequence[float]], low: float, high: float) -> list[bool]:
    """[N] whether any head's value lies in [low, high]. values: [heads, N]."""
    # Bounds included, and any head suffices, as in the released code of WebRL.
    return [any(low <= value <= high for value in heads) for heads in zip(*values, strict=True)]
