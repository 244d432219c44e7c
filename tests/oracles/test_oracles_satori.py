"""Satori: every number of the card's part on verification. Source: arXiv:2502.02508."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rollwright.batching import flatten
from rollwright.contracts import Group, Score, Shown, Span, Trajectory, Way, Waypoint
from rollwright.curriculum import StartSettings
from rollwright.curriculum.start_states import FAILED, SOLVED, RestartStates
from rollwright.maths import margin_ranking_loss, reflection_bonus
from rollwright.maths.advantages import gae
from rollwright.methods import hardest
from rollwright.rewards.restart_bonus import RestartBonusReward, build
from tests.builders import episode, group, turn

# The table of the card: status, solved, score of the outcome model, reward with beta = .5.
TABLE = [
    (-1, True, 2.0, 1.380797),
    (1, False, -1.0, -1.231059),
    (0, True, 2.0, 0.880797),
    (0, False, -1.0, -0.731059),
    (-1, False, -1.0, -0.731059),
    (1, True, 2.0, 0.880797),
]


class Likes:
    """An outcome model of one score."""

    card = SimpleNamespace(kind="scalar")

    def __init__(self, score: float) -> None:
        self.score = score

    def scores(self, trajectories: Any) -> list[float]:
        return [self.score] * len(trajectories)


def begun(status: int, solved: bool | None) -> Group:
    """An episode behind a start of this status; of none where the status is 0."""
    played = group(episode("e", turn(reward=0.0), success=solved))
    start = Waypoint(
        source="s",
        task=played.task,
        seed=played.seed,
        passed=(),
        shown=Shown(text=""),
        state_key="",
        prompt_digest="",
        kind="restart",
        status=status,
    )
    return replace(played, start=start) if status else played


def scored(status: int, solved: bool | None, score: float, beta: float = 0.5) -> Score:
    model: Any = Likes(score)
    return RestartBonusReward(beta=beta, model=model).score(begun(status, solved))[0]


@pytest.mark.parametrize(("status", "solved", "score", "earned"), TABLE)
def test_the_table_of_rewards(status: int, solved: bool, score: float, earned: float) -> None:
    found = scored(status, solved, score)
    assert found.value == pytest.approx(earned, abs=5e-7)
    assert set(found.parts) == {"rule", "bonus", "preference"} and found.parts["rule"] == float(solved) - 1


def test_the_bonus_is_as_large_on_either_side() -> None:
    mean = {status: sum(reflection_bonus(solved, status) for solved in (True, False)) / 2 for status in (-1, 0, 1)}
    assert mean == {-1: 0.25, 0: 0.0, 1: -0.25}
    for solved, score in ((True, 2.0), (False, -1.0)):
        without = {scored(status, solved, score, beta=0.0).value for status in (-1, 0, 1)}
        assert len(without) == 1
    with pytest.raises(ValueError, match="status"):
        reflection_bonus(True, 2)


def test_what_nobody_has_judged_earns_nothing() -> None:
    assert scored(-1, None, 2.0).value is None
    cannot_read: Any = SimpleNamespace(card=SimpleNamespace(kind="scalar"), scores=lambda trajectories: [None])
    assert RestartBonusReward(beta=0.5, model=cannot_read).score(begun(0, True))[0].value is None
    # Without a model the preference is left out.
    assert build().score(begun(0, True))[0].value == 0.0 and build().score(begun(-1, True))[0].value == 0.5


def segments(count: int, success: bool) -> tuple[Group, Trajectory]:
    """An episode of so many turns from the initial state, with its way."""
    played = episode("e", *(turn(action=(number, 99)) for number in range(count)), success=success)
    way = Way(shown=tuple(Shown(text=f"before {number}") for number in range(count)))
    return replace(group(played), ways={played.id: way}), played


def drawn(counts: tuple[int, int], back: int, draws: int = 400) -> list[Waypoint]:
    states = RestartStates(StartSettings(name="restarts", back=back), reflections=[(7,)])
    for count, success in zip(counts, (True, False), strict=True):
        states.learn([segments(count, success)[0]])
    rng = random.Random(0)
    return [start for _ in range(draws) if (start := states.draw(rng)) is not None]


def test_segments_are_taken_back_and_the_first_one_survives() -> None:
    """[c1 c2 r3 c4], t = 2 -> c1 c2 and the reflection; t is never above the number of segments less one."""
    _, source = segments(4, True)
    found = drawn((4, 4), back=2)
    assert {len(start.passed) for start in found} == {2, 3} and all(start.forced_ids == (7,) for start in found)
    shortest = next(start for start in found if len(start.passed) == 2)
    # The ids are those of the source: nothing is tokenised again.
    assert [p.action_ids for p in shortest.passed] == [turn.action_ids for turn in source.turns[:2]]
    assert {len(start.passed) for start in drawn((4, 4), back=9)} == {1, 2, 3}
    assert not drawn((1, 1), back=2), "an episode of one segment has nothing to take back"


def test_both_sides_are_there_once_and_drawn_alike() -> None:
    """With p(correct) = 0 or 1 a problem gives no entry; otherwise one on each side."""
    found = drawn((4, 4), back=2, draws=2000)
    solved = sum(start.status == SOLVED for start in found)
    assert solved + sum(start.status == FAILED for start in found) == 2000 and abs(solved - 1000) < 100
    states = RestartStates(StartSettings(name="restarts"))
    states.learn([segments(4, True)[0]] * 3)
    assert states.paired == [] and states.draw(random.Random(0)) is None


def test_neither_prefix_nor_reflection_has_a_gradient() -> None:
    spans = (Span(start=0, end=2, version=-1, producer="forced"), Span(start=2, end=4, version=0))
    first = turn((1, 2, 3), (7, 8, 5, 6), {"rule": 1.0}, logprobs=(0.0, 0.0, -0.5, -0.5), spans=spans)
    batch = flatten([group(episode("e", first))])
    # Two tokens are trained on: neither those of the prompt nor the forced ones.
    assert len(batch) == 2 and batch.rewards.tolist() == [0.0, 1.0]


def test_the_pair_loss_has_a_margin() -> None:
    loss = margin_ranking_loss(torch.tensor([3.0, 1.0]), torch.tensor([0.0, 1.0]), margin=2.0)
    assert loss.tolist() == pytest.approx([0.313262, 2.126928], abs=1e-6)
    plain = margin_ranking_loss(torch.tensor([3.0]), torch.tensor([0.0]))
    assert plain.item() == pytest.approx(0.048587, abs=1e-6)


def test_gae_of_one_reward_at_the_end() -> None:
    """Values 0: token k from the end gets 1.380797 * .95^k."""
    rewards = torch.tensor([0.0, 0.0, 0.0, 1.380797], dtype=torch.float64)
    owner = torch.zeros(4, dtype=torch.long)
    found = gae(rewards, torch.zeros(4, dtype=torch.float64), owner, num_sequences=1, gamma=1.0, gae_lambda=0.95)
    assert found.advantages.tolist() == pytest.approx([1.380797 * 0.95**k for k in (3, 2, 1, 0)])


def test_the_second_round_imitates_the_hardest_tasks() -> None:
    """Of rates 1, 1/2, 0 and 1/2 the lower half is the third task and, of equals, the one that came first."""
    solved = {"a": (True, True), "b": (True, False), "c": (False, False), "d": (False, True)}
    played = [
        episode(f"{task}{number}", turn(), task=task, success=verdict)
        for task, verdicts in solved.items()
        for number, verdict in enumerate(verdicts)
    ]
    assert {t.task.id for t in hardest(played, 0.5)} == {"c", "b"}
    assert {t.task.id for t in hardest(played, 0.01)} == {"c"} and hardest(played, 1.0) == played
    unjudged = episode("x", turn(), task="x", success=None)
    assert unjudged not in hardest([*played, unjudged], 0.75)
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        hardest(played, 0.0)
