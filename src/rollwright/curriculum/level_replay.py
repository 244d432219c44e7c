"""Prioritised level replay: tasks whose last episodes surprised are played again, others now and then.

    unseen tasks:   drawn uniformly, as often as their share among all tasks
    seen tasks:     (1 - stale_frac) h(rank of score)^(1 / temperature) + stale_frac (reports since it was played)
    score:          mean |outcome - expected|, expected the mean of its group, or for a lone episode that of the report
                    before it; it stands in for the mean |advantage|, which needs no critic here

Sources: arXiv:2010.03934 (PLR; rank prioritisation, temperature 0.1, staleness 0.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rollwright.contracts import Group, Task
from rollwright.curriculum.samplers import checked_tasks, draws_of, outcomes_of


class LevelReplayCurriculum:
    """Draws tasks by the rank of their score and by how long they were not played.

    Args:
        temperature: near 0 plays the highest score alone, large ones all tasks alike.
        stale_frac: share of the draws that goes by age.
    """

    def __init__(self, tasks: Sequence[Task], *, seed: int, temperature: float = 0.1, stale_frac: float = 0.1) -> None:
        self.tasks, self.seed = checked_tasks(tasks), seed
        self.temperature, self.stale_frac = temperature, stale_frac
        self._known = {task.id for task in self.tasks}
        self.scores: dict[str, float] = {}
        self.means: dict[str, float] = {}
        self.last_played: dict[str, int] = {}
        self.num_reports = 0

    def next(self, step: int, count: int) -> list[Task]:
        """Each draw is an unseen task, with the chance of their share, or a seen one by its weight."""
        rng = draws_of(self.seed, "level_replay", step)
        seen = [task for task in self.tasks if task.id in self.scores]
        unseen = [task for task in self.tasks if task.id not in self.scores]
        weights = self.weights(seen)
        drawn: list[Task] = []
        for _ in range(count):
            # `random()` is below 1: with nothing seen this always holds, with nothing unseen never.
            if rng.random() < len(unseen) / len(self.tasks):
                drawn.append(rng.choice(unseen))
            else:
                drawn += rng.choices(seen, weights)
        return drawn

    def weights(self, seen: Sequence[Task]) -> list[float]:
        """[n] the share of each seen task among their draws."""
        if not seen:
            return []
        by_rank = rank_shares([self.scores[task.id] for task in seen], self.temperature)
        ages = [self.num_reports - self.last_played[task.id] for task in seen]
        total = sum(ages)
        # All ages are 0 while only one task was ever played.
        by_age = [age / total if total else 1 / len(seen) for age in ages]
        return [(1 - self.stale_frac) * a + self.stale_frac * b for a, b in zip(by_rank, by_age, strict=True)]

    def update(self, groups: Sequence[Group]) -> None:
        """Score each task by how far its latest episodes were from what was expected."""
        for group in groups:
            outcomes = outcomes_of(group)
            if not outcomes or group.task.id not in self._known:
                continue
            mean = sum(outcomes) / len(outcomes)
            # A lone episode is its own mean and would surprise nobody: it is held against the report before it.
            expected = mean if len(outcomes) > 1 else self.means.get(group.task.id, 0.5)
            self.num_reports += 1
            self.scores[group.task.id] = sum(abs(one - expected) for one in outcomes) / len(outcomes)
            self.means[group.task.id] = mean
            self.last_played[group.task.id] = self.num_reports

    def metrics(self) -> dict[str, float]:
        """Mean score, and the share of tasks that were played."""
        if not self.scores:
            return {}
        return {
            "curriculum/score_mean": sum(self.scores.values()) / len(self.scores),
            "curriculum/seen_frac": len(self.scores) / len(self.tasks),
        }

    def state_dict(self) -> dict[str, Any]:
        """Scores, means, and when each task was last played."""
        return {
            "scores": dict(self.scores),
            "means": dict(self.means),
            "last_played": dict(self.last_played),
            "num_reports": self.num_reports,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved scores; tasks that are new since count as unseen, those that are gone are forgotten."""
        for name in ("scores", "means", "last_played"):
            # A task that is gone would otherwise still count in the metrics.
            setattr(self, name, {task: value for task, value in state[name].items() if task in self._known})
        self.num_reports = int(state["num_reports"])


def rank_shares(scores: Sequence[float], temperature: float) -> list[float]:
    """[n] (1 / rank)^(1 / temperature), scaled to add up to 1; the highest score has rank 1, of equals the first."""
    # Ranks and not scores: one outlier must not take all draws.
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    raw = [0.0] * len(scores)
    for rank, index in enumerate(order, start=1):
        raw[index] = (1 / rank) ** (1 / temperature)
    whole = sum(raw)
    return [one / whole for one in raw]
