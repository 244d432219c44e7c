"""Replay: the index reads what the store wrote, views keep what the cards say, samplers resume where they were."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rollwright.batching.token_batch import TokenBatch
from rollwright.contracts.errors import DataError
from rollwright.contracts.record import Score, Span, StopReason, Task, Trajectory, Turn
from rollwright.critics.success_replay import mean_logprobs
from rollwright.store.replay import (
    ReplaySampler,
    TurnTable,
    above,
    best_trajectories,
    cap_relative,
    in_perplexity_band,
    keep_trajectories,
    replay_index,
    top_trajectories,
    valid_turns,
)
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders


def turn(prompt: tuple[int, ...], action: tuple[int, ...], reward: float = 0.0, **more: object) -> Turn:
    logprobs = [-0.1 * (i + 1) for i in range(len(action))]
    return builders.turn(prompt, action, reward or None, logprobs=logprobs, text="x", **more)


def trajectory(name: str, *turns: Turn, **more: Any) -> Trajectory:
    stop = more.pop("stop_reason", StopReason.TERMINATED)
    return builders.episode(name, *turns, stop=stop, **({"task": name, "seed": 7} | more))


GROWING = trajectory(  # an append-only history
    "growing", turn((1, 2), (3,)), turn((1, 2, 3, 4), (5, 6), 0.5), turn((1, 2, 3, 4, 5, 6, 7), (8,), 1.0), success=True
)
WINDOWED = trajectory(  # every prompt its own; cut by a limit
    "windowed",
    turn((10, 11), (12,), -1.0),
    turn(
        (10, 13),
        (14, 15),
        -1.0,
        spans=(Span(start=0, end=1, version=0, producer="forced"), Span(start=1, end=2, version=0)),
    ),
    stop_reason=StopReason.MAX_TURNS,
    success=False,
    next_prompt_ids=(10, 16),
)
BLIND = trajectory("blind", turn((20,), (21,)), stop_reason=StopReason.MAX_TOKENS, success=False)
FAULT = trajectory("fault", turn((30,), (31,)), stop_reason=StopReason.ENV_ERROR)
HELD_OUT = trajectory("held", turn((40,), (41,)), split="test", success=True)
UNDECIDED = trajectory("undecided", turn((50,), (51,)), score=Score(value=None, verifier="judge"))
LOG = trajectory("log", turn((60,), ()), has_actions=False, origin="log")


@pytest.fixture
def table(tmp_path: Path) -> TurnTable:
    store = TrajectoryStore(tmp_path / "store")
    store.append([GROWING, WINDOWED], tag="a")
    store.append([BLIND, FAULT, HELD_OUT, UNDECIDED, LOG], tag="b")
    return TurnTable(store)


def test_turns_read_back_as_they_were_written(table: TurnTable) -> None:
    assert len(table) == 10
    for number, (owner, written) in enumerate([(t, u) for t in (GROWING, WINDOWED) for u in t.turns]):
        [read] = table.transitions([number])
        assert (read.prompt_ids, read.action_ids) == (written.prompt_ids, written.action_ids)
        assert read.action_mask == written.action_mask
        assert read.logprobs == pytest.approx(written.action_logprobs)
        assert (read.reward, read.task, read.success) == (written.reward, owner.task.id, owner.success)
        assert table.prompt_ids(number) == written.prompt_ids


def test_the_next_state_is_the_next_prompt_and_ends_keep_apart(table: TurnTable) -> None:
    first, second, last, before_cut, cut, blind = table.transitions(range(6))
    assert first.next_prompt_ids == GROWING.turns[1].prompt_ids and not first.terminated and not first.truncated
    assert second.turns_left == 1 and last.turns_left == 0
    assert last.terminated and not last.truncated and last.next_prompt_ids == ()
    assert before_cut.next_prompt_ids == (10, 13)
    assert cut.truncated and not cut.terminated and cut.next_prompt_ids == (10, 16), "bootstrap only the truncated"
    assert blind.truncated and blind.next_prompt_ids == ()


def test_returns_to_go_count_turns(table: TurnTable) -> None:
    expected = [0.5 * 0.5 + 0.25 * 1.0, 0.5 + 0.5 * 1.0, 1.0, -1.5, -1.0]
    assert [t.return_to_go for t in table.transitions(range(5), gamma=0.5)] == pytest.approx(expected)


def test_valid_turns_leave_out_faults_held_out_undecided_and_empty_actions(table: TurnTable) -> None:
    assert valid_turns(table).tolist() == [0, 1, 2, 3, 4, 5]
    assert valid_turns(table, needs_next=True).tolist() == [0, 1, 2, 3, 4], "a blind end has nothing to bootstrap from"


def test_the_best_tenth_of_failures_is_all_of_them_unless_positive_only() -> None:
    scores = np.array([0.0] * 19 + [1.0])
    assert len(best_trajectories(scores, 0.1, positive_only=False)) == 20
    assert best_trajectories(scores, 0.1, positive_only=True).tolist() == [19]
    ranked = np.arange(10.0)
    assert best_trajectories(ranked, 0.1, positive_only=False).tolist() == [9]
    assert best_trajectories(ranked, 0.3, positive_only=False, among=np.arange(5)).tolist() == [3, 4]
    with pytest.raises(ValueError, match="fraction"):
        best_trajectories(scores, 0.0, positive_only=False)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_ties_at_the_share_are_drawn_so_that_exactly_the_share_is_kept() -> None:
    """LMRL-Gym's %BC: of five walks of -7 and 95 of -101 a tenth is ten, five of each."""
    scores = np.array([-101.0] * 40 + [-7.0] * 5 + [-101.0] * 55)
    kept = top_trajectories(scores, 0.1, rng=draw())
    assert len(kept) == 10 and (scores[kept] == -7).sum() == 5 and (np.diff(kept) > 0).all()
    assert kept.tolist() == top_trajectories(scores, 0.1, rng=draw()).tolist()
    others = [top_trajectories(scores, 0.1, rng=draw(seed)).tolist() for seed in range(1, 6)]
    assert all(other != kept.tolist() for other in others)
    assert len({place for other in others for place in other}) > 20, "the draw must not favour the first in the store"


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.29, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("total", [1, 7, 10, 30, 100])
def test_the_share_is_a_share_whatever_ties_there_are(total: int, fraction: float) -> None:
    exact = max(1, int(Fraction(str(fraction)) * total))
    for levels in (1, 2, 5, 1000):
        scores = draw(total).integers(levels, size=total).astype(float)
        kept = top_trajectories(scores, fraction, rng=draw(1))
        assert len(kept) == len(set(kept.tolist())) == exact
        rest = np.delete(scores, kept)
        assert not len(rest) or scores[kept].min() >= rest.max()
        wins = top_trajectories(scores, fraction, rng=draw(1), positive_only=True)
        assert wins.tolist() == [row for row in kept.tolist() if scores[row] > 0]


def test_a_lot_stays_when_others_join_and_only_those_asked_for_are_ranked() -> None:
    early = top_trajectories(np.zeros(50), 0.2, rng=draw(), among=np.arange(20))
    assert early.tolist() == top_trajectories(np.zeros(90), 0.2, rng=draw(), among=np.arange(20)).tolist()
    assert len(early) == 4 and early.max() < 20
    assert top_trajectories(np.arange(10.0), 0.4, rng=draw(), among=np.arange(5)).tolist() == [3, 4]
    assert top_trajectories(np.zeros(3), 0.4, rng=draw(), among=np.arange(0)).tolist() == []
    with pytest.raises(ValueError, match="fraction"):
        top_trajectories(np.zeros(3), 1.5, rng=draw())
    for ranked in (best_trajectories, partial(top_trajectories, rng=draw())):
        with pytest.raises(ValueError, match="finite to be ranked, got nan for trajectory 1"):
            ranked(np.array([0.0, np.nan]), 0.5, positive_only=False)


def test_filters_by_trajectory_advantage_and_perplexity(table: TurnTable) -> None:
    kept = keep_trajectories(table, np.array([1]), among=valid_turns(table))
    assert kept.tolist() == [3, 4]
    assert above(np.array([7, 8, 9]), np.array([0.25, 0.26, 0.1]), 0.25).tolist() == [8]
    turns = np.arange(4)
    p = np.log(np.array([0.5, 0.500001, 0.95, 0.950001]))
    assert in_perplexity_band(turns, p).tolist() == [1, 2], "WebRL's band is open below and closed above"
    perplexities = np.array([1.0, 1.06, 1.9, 2.1])
    assert in_perplexity_band(turns, -np.log(perplexities)).tolist() == [1, 2]
    rng = np.random.default_rng(0)
    assert len(cap_relative(np.arange(50), num_current=10, ratio=2.0, rng=rng)) == 20


def test_the_probability_of_a_turn_is_the_geometric_mean_of_its_chosen_tokens(tmp_path: Path) -> None:
    """By log-probs: (-0.1, -0.3) is 0.8187, kept; 0.94 kept, 0.49 and 0.97 not; a forced token is not counted."""
    told = [(-0.1, -0.3), (math.log(0.94),) * 2, (math.log(0.49),) * 2, (math.log(0.97),) * 2, (-9.0, -0.1)]

    class Told:
        def logprobs(self, batch: TokenBatch) -> torch.Tensor:
            rows = [torch.tensor(told[s.prompt_ids[0]], dtype=torch.float64) for s in batch.segments]
            masks = [torch.tensor(s.mask) for s in batch.segments]
            return torch.cat([row[mask] for row, mask in zip(rows, masks, strict=True)])

    forced = (Span(start=0, end=1, version=0, producer="forced"), Span(start=1, end=2, version=0))
    turns = [
        Turn(prompt_ids=(k,), action_ids=(8, 9), action_logprobs=(0.0, 0.0), text="", spans=forced if k == 4 else ())
        for k in range(5)
    ]
    store = TrajectoryStore(tmp_path / "s")
    task = Task(id="t", split="train")
    store.append(
        [Trajectory(id="x", task=task, seed=0, turns=tuple(turns), stop_reason=StopReason.TERMINATED, success=True)]
    )
    table = TurnTable(store)
    means = mean_logprobs(Told(), table, np.arange(5))
    assert np.exp(means) == pytest.approx([0.8187, 0.94, 0.49, 0.97, 0.9048], abs=1e-4)
    assert in_perplexity_band(np.arange(5), means).tolist() == [0, 1, 4]


def test_a_grown_store_is_taken_in_and_numbers_stay(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path / "s")
    store.append([GROWING])
    table = TurnTable(store)
    before = table.transitions([2])
    store.append([WINDOWED])
    assert table.refresh() == 2 and len(table) == 5 and table.transitions([2]) == before
    assert table.transitions([4])[0].next_prompt_ids == (10, 16)
    assert table.names["task"] == ["growing", "windowed"]


def test_several_stores_are_one_table(tmp_path: Path) -> None:
    offline, online = TrajectoryStore(tmp_path / "off"), TrajectoryStore(tmp_path / "on")
    offline.append([GROWING], tag="teacher")
    online.append([WINDOWED], tag="policy")
    table = TurnTable(offline, online)
    assert [t.task for t in table.transitions(range(5))] == ["growing"] * 3 + ["windowed"] * 2
    assert [table.names["tag"][code] for code in table.per_turn("tag")] == ["teacher"] * 3 + ["policy"] * 2
    online.append([BLIND])
    assert table.refresh() == 1 and table.transitions([5])[0].task == "blind"


def test_the_index_is_rebuilt_when_torn_or_stale(tmp_path: Path) -> None:
    store = TrajectoryStore(tmp_path / "s")
    store.append([GROWING])
    TurnTable(store)
    meta = tmp_path / "s" / "replay_index" / "000000" / "meta.json"
    meta.write_text("{", encoding="utf-8")
    assert TurnTable(store).prompt_ids(2) == GROWING.turns[2].prompt_ids
    store.rewind(0)
    store.append([replace(WINDOWED)])
    assert TurnTable(store).prompt_ids(1) == WINDOWED.turns[1].prompt_ids


def test_nothing_to_replay_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no turn to replay"):
        TurnTable(TrajectoryStore(tmp_path / "s"))
    store = TrajectoryStore(tmp_path / "s")
    store.append([FAULT])
    with pytest.raises(DataError, match="view `expert`"):
        ReplaySampler(TurnTable(store), valid_turns(TurnTable(store)), seed=0, name="expert")


def test_draws_are_uniform_over_the_view_and_resume(table: TurnTable) -> None:
    view = valid_turns(table)
    sampler = ReplaySampler(table, view, seed=3)
    counts = np.bincount(sampler.indices(60_000), minlength=len(table))
    assert counts[6:].sum() == 0 and abs(counts[:6] / 10_000 - 1).max() < 0.05
    saved = sampler.state_dict()
    expected = sampler.indices(50).tolist()
    again = ReplaySampler(table, view, seed=99)
    again.load_state_dict(saved)
    assert again.indices(50).tolist() == expected and again.num_drawn == 60_050


def test_several_ranks_open_the_same_new_store_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One builds the index, the others wait for it. Threads stand for processes: a lock of a file parts both."""
    turn = Turn(prompt_ids=(1, 2), action_ids=(3,), action_logprobs=(-0.1,), text="a")
    episode = Trajectory(
        id="e", task=Task(id="t", split="train"), seed=0, turns=(turn,), stop_reason=StopReason.TERMINATED
    )
    TrajectoryStore(tmp_path).append([episode])
    built: list[Path] = []
    read = replay_index.read_shard

    def slowly(paths: Mapping[str, Path]) -> object:
        built.append(paths["turns"])
        time.sleep(0.3)
        return read(paths)

    monkeypatch.setattr(replay_index, "read_shard", slowly)
    with ThreadPoolExecutor(3) as ranks:
        tables = list(ranks.map(lambda _: TurnTable(tmp_path), range(3)))
    assert [len(table.trajectories) for table in tables] == [1, 1, 1] and len(built) == 1
