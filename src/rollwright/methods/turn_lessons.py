"""Turns to be imitated, with a mask that says which of their tokens: from records, and from stores of other things."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rollwright.batching import TokenBatch, segment_of
from rollwright.contracts import Trajectory, Turn
from rollwright.critics import WeightedLikelihood, shuffled_batches
from rollwright.learner import Learner
from rollwright.store.replay import TurnTable, valid_turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One turn to be imitated. mask: [len(action_ids)] the tokens that have a loss; the others are read."""

    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    mask: tuple[bool, ...]


def learned_mask(turn: Turn) -> tuple[bool, ...]:
    """[len(action_ids)] which tokens of a turn imitation learns: chosen by somebody, and of a weight above 0."""
    weights = turn.policy_weights or (1.0,) * len(turn.action_ids)
    return tuple(chosen and weight > 0 for chosen, weight in zip(turn.action_mask, weights, strict=True))


def episode_lessons(episode: Trajectory) -> list[Lesson]:
    """The turns of an episode that have a token to be learned."""
    masks = [(turn, learned_mask(turn)) for turn in episode.turns]
    return [Lesson(prompt_ids=t.prompt_ids, action_ids=t.action_ids, mask=mask) for t, mask in masks if any(mask)]


def general_lessons(table: TurnTable | None, frac: float, own: int, draws: np.random.Generator) -> list[Lesson]:
    """Stored turns, drawn with replacement, that make up the share `frac` of all when `own` others are learned."""
    if table is None or frac == 0:
        return []
    count = math.ceil(own * frac / (1 - frac))
    drawn = table.transitions(draws.choice(valid_turns(table), count))
    return [Lesson(prompt_ids=t.prompt_ids, action_ids=t.action_ids, mask=t.action_mask) for t in drawn]


def lesson_batch(lessons: Sequence[Lesson]) -> TokenBatch:
    """The lessons for one update, one sequence each, in which every learned token weighs 1."""
    # The place names the sequence: one that is there twice counts twice.
    batch = TokenBatch.of([segment_of(one, sequence=place, mask=one.mask) for place, one in enumerate(lessons)])
    return batch.with_columns(advantages=torch.ones(len(batch)))


def imitate_lessons(
    learner: Learner, lessons: Sequence[Lesson], *, epochs: int, batch_size: int, draws: np.random.Generator
) -> dict[str, float]:
    """Cross-entropy: `epochs` passes over the lessons in shuffled batches. -> Metrics of the last update.

    Raises:
        NonFiniteUpdate: loss or gradient is not finite.
    """
    metrics: dict[str, float] = {}
    # Every token counts the same, as in supervised fine-tuning.
    loss = WeightedLikelihood(aggregation="token-mean")
    for _ in range(epochs):
        for places in shuffled_batches(np.arange(len(lessons)), batch_size, draws):
            metrics = learner.update(lesson_batch([lessons[place] for place in places]), loss)
    return metrics
