"""From groups to per-token advantages: every token of two turns listed, faults left out, estimators wired."""

from __future__ import annotations

import pytest
import torch

from rollwright.credit import FlatBatch, flat_tokens, flatten, group_advantages, to_segments, value_advantages
from rollwright.types import Group, Score, Span, StopReason, Task, Trajectory, Turn

TASK = Task(id="t", split="train")


def turn(
    ids: tuple[int, ...], reward: float, *, prompt: tuple[int, ...] = (1,), forced: int = 0, key: str = ""
) -> Turn:
    """A turn whose last `forced` ids were not chosen by anyone."""
    chosen = len(ids) - forced
    spans = (Span(start=0, end=chosen, version=4),)
    if forced:
        spans += (Span(start=chosen, end=len(ids), version=4, producer="forced"),)
    return Turn(
        prompt_ids=prompt,
        action_ids=ids,
        action_logprobs=tuple(-0.1 * (i + 1) for i in range(len(ids))),
        text="x",
        spans=spans,
        rewards={"env": reward} if reward else {},
        state_key=key,
    )


def trajectory(name: str, *turns: Turn, stop: StopReason = StopReason.TERMINATED, **changes: object) -> Trajectory:
    return Trajectory(id=name, task=TASK, seed=0, turns=turns, stop_reason=stop, **changes)


def group(*trajectories: Trajectory) -> Group:
    return Group(id="g", task=TASK, seed=0, trajectories=trajectories)


@pytest.fixture
def batch() -> FlatBatch:
    a = trajectory("a", turn((10, 11), 0.0, key="s0"), turn((12, 13, 14), 1.0, prompt=(1, 10, 11, 5), key="s1"))
    b = trajectory("b", turn((20,), 0.0, key="s0"))
    return flatten([group(a, b)])


def test_the_flat_layout_token_by_token(batch: FlatBatch) -> None:
    assert batch.turn_index.tolist() == [0, 0, 1, 1, 1, 2]
    assert batch.trajectory_index.tolist() == [0, 0, 1]
    assert batch.sequence_index.tolist() == [0, 0, 0, 0, 0, 1]
    assert batch.group_index.tolist() == [0, 0]
    assert batch.rewards.tolist() == [0, 0, 0, 0, 1, 0]  # on the last token of the action that earned it
    assert batch.scores.tolist() == [1, 0] and batch.lengths.tolist() == [5, 1]


def test_every_token_of_a_two_turn_trajectory_has_its_mask_logprob_and_advantage(batch: FlatBatch) -> None:
    advantages = group_advantages(batch, "dr_grpo")
    assert advantages.tolist() == [0.5] * 5 + [-0.5]
    segments = to_segments(batch, advantages)
    rows = [
        (i, m, round(lp, 1), a)
        for s in segments
        for i, m, lp, a in zip(s.action_ids, s.action_mask, s.logprobs_sampled, s.advantages, strict=True)
    ]
    assert rows == [
        (10, True, -0.1, 0.5),
        (11, True, -0.2, 0.5),
        (12, True, -0.1, 0.5),
        (13, True, -0.2, 0.5),
        (14, True, -0.3, 0.5),
        (20, True, -0.1, -0.5),
    ]
    assert [s.sequence for s in segments] == [0, 0, 1] and [s.version for s in segments] == [4, 4, 4]
    assert segments[1].prompt_ids == (1, 10, 11, 5)


def test_forced_tokens_get_no_advantage_and_no_place_in_the_batch() -> None:
    batch = flatten([group(trajectory("a", turn((7, 8, 9), 0.0, forced=1)), trajectory("b", turn((6,), 1.0)))])
    assert batch.turn_index.tolist() == [0, 0, 1]
    segments = to_segments(batch, torch.tensor([1.0, 2.0, 3.0]))
    assert segments[0].advantages == (1.0, 2.0, 0.0) and segments[0].action_mask == (True, True, False)
    answers = [torch.tensor([5.0, 6.0, 99.0]), torch.tensor([7.0])]
    assert flat_tokens(answers, batch).tolist() == [5.0, 6.0, 7.0]


def test_faults_undecided_scores_and_lonely_groups_are_left_out() -> None:
    good, bad = trajectory("a", turn((1,), 1.0)), trajectory("b", turn((2,), 9.0), stop=StopReason.ENV_ERROR)
    undecided = trajectory("c", turn((3,), 9.0), score=Score(value=None, verifier="judge"))
    other = trajectory("d", turn((4,), 0.0))
    batch = flatten([group(good, bad, undecided, other)], min_members=2)
    assert [t.id for t in batch.trajectories] == ["a", "d"]
    assert group_advantages(batch, "rloo").tolist() == [1.0, -1.0]
    with pytest.raises(ValueError, match="none of 1 groups has 2 or more"):
        flatten([group(good, bad)], min_members=2)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("dr_grpo", [0.5, 0.5, 0.5, 0.5, 0.5, -0.5]),
        ("rloo", [1, 1, 1, 1, 1, -1]),
        ("grpo", [0.7071] * 5 + [-0.7071]),  # unbiased std of (1, 0) is 0.7071
        ("opo", [1 / 6] * 5 + [-5 / 6]),  # baseline 5/6: mean reward weighted by length 5 and 1
        ("reinforce", [1, 1, 1, 1, 1, 0]),
        ("gigpo", [1.0, 1.0, 0.5, 0.5, 0.5, -1.0]),  # s0 is shared (+-0.5 besides), s1 is not; gamma 1, no std
    ],
)
def test_each_estimator_by_hand(batch: FlatBatch, how: str, expected: list[float]) -> None:
    found = group_advantages(batch, how, gamma=1.0)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), atol=1e-4, rtol=0)


def test_remax_needs_and_uses_the_greedy_return(batch: FlatBatch) -> None:
    assert group_advantages(batch, "remax", greedy_scores={"g": 0.25}).tolist() == [0.75] * 5 + [-0.25]
    with pytest.raises(ValueError, match="greedy"):
        group_advantages(batch, "remax")


def test_gae_at_lambda_one_is_return_minus_value_over_all_turns(batch: FlatBatch) -> None:
    values = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    found = value_advantages(batch, values, "gae", gamma=1.0, gae_lambda=1.0, turn_gamma=1.0)
    torch.testing.assert_close(found.advantages, torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, -0.6]))


def test_only_a_cut_episode_bootstraps_and_only_when_asked() -> None:
    cut = trajectory("cut", turn((1, 2), 0.0), stop=StopReason.MAX_TURNS)
    ended = trajectory("ended", turn((3,), 0.0))
    batch = flatten([group(cut, ended)])
    values = torch.tensor([0.0, 0.8, 0.3])
    kwargs = {"gamma": 1.0, "gae_lambda": 1.0, "turn_gamma": 1.0}
    asked = value_advantages(batch, values, "gae", bootstrap_truncated=True, **kwargs)
    torch.testing.assert_close(asked.returns, torch.tensor([0.8, 0.8, 0.0]))
    plain = value_advantages(batch, values, "gae", **kwargs)
    torch.testing.assert_close(plain.returns, torch.tensor([0.0, 0.0, 0.0]))
