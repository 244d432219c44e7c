"""Interventions by the numbers of HIL-SERL and RLPD: the share of a batch, and what a store tells of who acted."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from rollwright.contracts import Span, Turn
from rollwright.critics import WeightedLikelihood, imitate
from rollwright.recipes.filtered_bc import with_interventions
from rollwright.store.replay import mixed_places
from tests.builders import episode, table_of, turn


def by(producer: str, number: int) -> Turn:
    return turn((1,), (number,), 1.0, spans=(Span(start=0, end=1, version=-1, producer=producer),))


@pytest.mark.parametrize(("frac", "expected"), [(0.25, 64), (0.5, 128), (0.0, 0), (1.0, 256)])
def test_the_share_of_a_batch_is_exact(frac: float, expected: int) -> None:
    marked = np.arange(1000) % 10 == 0
    for seed in range(20):
        places = mixed_places(marked, 256, frac, np.random.default_rng(seed))
        assert len(places) == 256 and marked[places].sum() == expected


def test_both_kinds_are_spread_over_the_batch() -> None:
    places = mixed_places(np.arange(100) < 10, 256, 0.25, np.random.default_rng(0))
    assert 20 < (places[:128] < 10).sum() < 44, "a batch that is cut has both kinds in its halves"


def test_without_interventions_all_is_ordinary_and_without_others_all_is_not() -> None:
    draws = np.random.default_rng(0)
    assert set(mixed_places(np.zeros(5, bool), 8, 0.25, draws)) <= set(range(5))
    assert len(mixed_places(np.ones(3, bool), 8, 0.25, draws)) == 8
    with pytest.raises(ValueError, match="got 0 and"):
        mixed_places(np.zeros(0, bool), 8, 0.5, draws)
    with pytest.raises(ValueError, match="share"):
        mixed_places(np.zeros(3, bool), 8, 1.5, draws)


def test_a_store_knows_the_turns_of_a_human(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = table_of(tmp_path, episode("a", by("policy", 2), by("human", 3)), episode("b", by("teacher", 4), turn()))
    assert table.column("intervened").tolist() == [False, True, False, False]
    turns, marked = with_interventions(table, np.array([0, 1, 2]))
    assert (turns.tolist(), marked.tolist()) == ([0, 2, 1], [False, False, True])
    none = table_of(tmp_path / "none", episode("a", by("policy", 2)))
    with caplog.at_level(logging.WARNING):
        turns, marked = with_interventions(none, np.array([0]))
    assert (turns.tolist(), marked.tolist()) == ([0], [False]) and "nobody has intervened" in caplog.text


def test_each_update_is_given_the_share(tmp_path: Path) -> None:
    table = table_of(tmp_path, episode("a", *(by("policy", 2) for _ in range(9)), by("human", 3)))
    seen: list[int] = []

    class Counts:
        def update(self, batch: object, loss: object) -> dict[str, float]:
            seen.append(sum(segment.action_ids == (3,) for segment in batch.segments))  # type: ignore[attr-defined]
            return {}

    turns, marked = with_interventions(table, np.arange(10))
    imitate(
        Counts(),
        table,
        turns,
        np.ones(10),
        updates=3,
        batch_size=256,
        draws=np.random.default_rng(0),
        loss=WeightedLikelihood(),
        marked=marked,
        marked_frac=0.25,
    )
    assert seen == [64, 64, 64]
