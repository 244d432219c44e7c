"""Demonstrations: successful episodes of a teacher (or from a store) as rows for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from rollwright.contracts import DataError, Task, Trajectory, distinct, episode_seed, require_choice
from rollwright.methods.turn_lessons import learned_mask
from rollwright.models import padding_text
from rollwright.rollout import Collector

IGNORED = -100
"""The label that cross-entropy leaves out."""
DEMONSTRATION = "demo/"
"""What the names of demonstrations begin with."""
Corrections = Literal["all", "wrong_to_right", "ends_right"]


def demonstrate(collector: Collector, tasks: Sequence[Task], *, per_task: int, seed: int) -> list[Trajectory]:
    """`per_task` episodes of every training task by the collector's actor, start states of the train split."""
    requests = [
        collector.request(
            f"{DEMONSTRATION}{seed}/{task.id}/{i}", task, episode_seed(task.split, "demo", seed, task.id, i)
        )
        # `distinct` refuses a task that is listed twice: its episodes would bear the same names.
        for task in distinct(tasks)
        for i in range(per_task)
    ]
    return collector.play(requests)


def imitable(trajectories: Iterable[Trajectory], *, only_success: bool = True) -> list[Trajectory]:
    """Those worth imitating: no faults, training split only, and successful unless told otherwise.

    Raises:
        DataError: nothing is left, or an episode of a held-out split is among them.
    """
    seen, kept = list(trajectories), []
    for trajectory in seen:
        if trajectory.task.split != "train":
            raise DataError(
                f"trajectory {trajectory.id} is of split {trajectory.task.split!r}: training on it would spoil the "
                "evaluation; give trajectories of the train split only"
            )
        if trajectory.learnable and (trajectory.success or not only_success):
            kept.append(trajectory)
    if not kept:
        wanted = "free of faults and successful" if only_success else "free of faults"
        raise DataError(
            f"no trajectory to imitate: of {len(seen)} that could be read none is {wanted}; collect some "
            "(recipes/collect.py)"
        )
    return kept


def corrections(trajectories: Iterable[Trajectory], kept: Corrections) -> list[Trajectory]:
    """Episodes of several attempts that ended right, cut to their last attempt: its prompt holds the ones before.

    Earlier attempts are read and not learned, or a policy would learn to be wrong first.

    Args:
        kept: "wrong_to_right" are those whose first attempt was wrong; "ends_right" also those that were right at
            once, so that the policy learns to leave right answers alone; "all" gives every episode as it is.

    Raises:
        ValueError: no such kind.
        DataError: nothing is left.

    Source: arXiv:2409.12917, section 4 (the two data sets of supervised fine-tuning on own corrections).
    """
    require_choice("kept", kept, Corrections)
    seen = list(trajectories)
    if kept == "all":
        return seen
    several = [t for t in seen if len(t.attempts) > 1]
    found = [t for t in several if _earned(t, -1) and (kept == "ends_right" or not _earned(t, 0))]
    if not found:
        raise DataError(
            f"no correction to imitate: of {len(seen)} episodes {len(several)} have two attempts, and none of these "
            + ("ends right" if kept == "ends_right" else "goes from wrong to right")
            + "; collect more in a world of two attempts (recipes/collect.py)"
        )
    return [replace(trajectory, turns=trajectory.attempts[-1]) for trajectory in found]


def hardest(trajectories: Iterable[Trajectory], frac: float) -> list[Trajectory]:
    """The episodes of those tasks that were solved least often: of a share `frac` of the tasks, one at least.

    Episodes without a verdict say nothing about a task and are left out of its rate; ties go by the order of the tasks.

    Raises:
        ValueError: the share is not above 0 and at most 1.

    Source: arXiv:2502.02508 (Satori's second round imitates the trained policy on the hardest problems).
    """
    if not 0 < frac <= 1:
        raise ValueError(f"the share of the hardest tasks is above 0 and at most 1, got {frac}")
    seen = list(trajectories)
    verdicts: dict[str, list[bool]] = {}
    for trajectory in seen:
        verdicts.setdefault(trajectory.task.id, []).extend([] if trajectory.success is None else [trajectory.success])
    # A task that nobody ever judged is no hard one: nothing of it can be imitated as a success either.
    rates = {task: sum(found) / len(found) for task, found in verdicts.items() if found}
    chosen = set(sorted(rates, key=lambda task: rates[task])[: max(1, round(frac * len(rates)))])
    return [trajectory for trajectory in seen if trajectory.task.id in chosen] if frac < 1 else seen


def _earned(trajectory: Trajectory, number: int) -> bool:
    """Whether this attempt earned more than half a point."""
    return sum(turn.reward for turn in trajectory.attempts[number]) > 0.5


def sft_rows(
    trajectories: Sequence[Trajectory], *, vocab_size: int, max_length: int, unknown_ids: Collection[int] = ()
) -> list[dict[str, Any]]:
    """One row per turn: `input_ids` = prompt + action, `labels` = the action's ids, `IGNORED` elsewhere.

    In an append-only episode, where each prompt continues the one before, the turns become one row of the whole episode
    with a label on every action.

    Args:
        vocab_size: ids that the model has a row for (`vocabulary.rows_of`).
        unknown_ids: those of them that its tokenizer does not know (`vocabulary.unknown_ids`).

    Raises:
        DataError: ids outside the vocabulary: the data were written with another tokenizer.
    """
    rows = [row for trajectory in trajectories for row in _rows_of(trajectory)]
    # Prompts count too, since the embedding needs a row for every id that is read.
    highest = max(max(row["input_ids"]) for row in rows)
    if highest >= vocab_size:
        raise DataError(
            f"the trajectories hold token id {highest}, the model's vocabulary has {vocab_size}: they were collected "
            "with another tokenizer; collect them again with this model"
        )
    never = set(unknown_ids)
    # These ids have a row, so nothing would fail: the model would learn what nobody can read.
    if never and (found := never.intersection(index for row in rows for index in row["input_ids"])):
        raise DataError(padding_text(min(found), vocab_size))
    # A turn without an action (a doubtful label was left out) has nothing to learn from.
    rows = [row for row in rows if any(label != IGNORED for label in row["labels"])]
    # Rows are left out, not cut: half an action would be taught as a whole one.
    fitting = [row for row in rows if len(row["input_ids"]) <= max_length]
    if not fitting:
        raise DataError(f"every row is longer than learner.max_length = {max_length} tokens")
    return fitting


def _rows_of(trajectory: Trajectory) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for turn in trajectory.turns:
        ids = [*turn.prompt_ids, *turn.action_ids]
        # A forced token was chosen by nobody, one of weight 0 was a mistake (`revisions`): both are read, not learned.
        action = [t if keep else IGNORED for t, keep in zip(turn.action_ids, learned_mask(turn), strict=True)]
        before = rows[-1] if rows else None
        # The prompt has to begin with everything so far, the last action's ids included.
        if before is not None and list(turn.prompt_ids[: len(before["input_ids"])]) == before["input_ids"]:
            # What lies between two actions is an observation, which is read and never predicted.
            gap = len(turn.prompt_ids) - len(before["input_ids"])
            rows[-1] = {"input_ids": ids, "labels": [*before["labels"], *[IGNORED] * gap, *action]}
        else:
            rows.append({"input_ids": ids, "labels": [IGNORED] * len(turn.prompt_ids) + action})
    return rows
