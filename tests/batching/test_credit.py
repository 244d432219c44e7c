"""From groups to per-token advantages: every token of two turns listed, faults left out, estimators wired."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from rollwright.batching.credit import (
    flatten,
    states_after_cuts,
)
from rollwright.batching.estimators import ADVANTAGES
from rollwright.batching.packing import pack
from rollwright.batching.token_batch import TokenBatch, join_batches
from rollwright.batching.value_estimators import VALUE_ADVANTAGES
from rollwright.config import make_part
from rollwright.contracts.record import Score, Span, StopReason, Task, Trajectory, Turn
from rollwright.maths.advantages import ValueAdvantages
from rollwright.maths.sequences import is_segment_start, segment_sum
from tests import builders
from tests.builders import group

TASK = Task(id="t", split="train")


def group_advantages(
    batch: TokenBatch, how: str, *, greedy_scores: dict[str, float] | None = None, **words: Any
) -> Tensor:
    """By the name and the keys, as the recipe does it."""
    estimator = make_part(ADVANTAGES, how, words)
    return estimator(batch) if greedy_scores is None else estimator(batch, greedy_scores)


def value_advantages(
    batch: TokenBatch, values: Tensor, how: str, *, last_values: Tensor | None = None, **words: Any
) -> ValueAdvantages:
    """By the name and the keys, as the recipe does it."""
    return make_part(VALUE_ADVANTAGES, how, words)(batch, values, last_values)


def turn(
    ids: tuple[int, ...], reward: float, *, prompt: tuple[int, ...] = (1,), forced: int = 0, key: str = ""
) -> Turn:
    """A turn whose last `forced` ids were not chosen by anyone."""
    chosen = len(ids) - forced
    spans = (Span(start=0, end=chosen, version=4),)
    if forced:
        spans += (Span(start=chosen, end=len(ids), version=4, producer="forced"),)
    logprobs = [-0.1 * (i + 1) for i in range(len(ids))]
    return builders.turn(prompt, ids, reward or None, logprobs=logprobs, text="x", spans=spans, state_key=key)


def trajectory(name: str, *turns: Turn, **changes: Any) -> Trajectory:
    return builders.episode(name, *turns, task=TASK, **changes)


@pytest.fixture
def batch() -> TokenBatch:
    a = trajectory("a", turn((10, 11), 0.0, key="s0"), turn((12, 13, 14), 1.0, prompt=(1, 10, 11, 5), key="s1"))
    b = trajectory("b", turn((20,), 0.0, key="s0"))
    return flatten([group(a, b)])


def test_the_flat_layout_token_by_token(batch: TokenBatch) -> None:
    assert batch.turn_index.tolist() == [0, 0, 1, 1, 1, 2]
    assert batch.trajectory_index.tolist() == [0, 0, 1]
    assert batch.sequence_index.tolist() == [0, 0, 0, 0, 0, 1]
    assert batch.group_index.tolist() == [0, 0]
    assert batch.rewards.tolist() == [0, 0, 0, 0, 1, 0]  # on the last token of the action that earned it
    assert batch.scores.tolist() == [1, 0] and batch.lengths.tolist() == [5, 1]


def test_every_token_of_a_two_turn_trajectory_has_its_mask_logprob_and_advantage(batch: TokenBatch) -> None:
    advantages = group_advantages(batch, "dr_grpo")
    assert advantages.tolist() == [0.5] * 5 + [-0.5]
    batch = batch.with_columns(advantages=advantages)
    ids = [i for s in batch.segments for i in s.action_ids]
    columns = (batch.mask.tolist(), [round(x, 1) for x in batch.logprobs_sampled.tolist()], batch.advantages.tolist())
    assert list(zip(ids, *columns, strict=True)) == [
        (10, True, -0.1, 0.5),
        (11, True, -0.2, 0.5),
        (12, True, -0.1, 0.5),
        (13, True, -0.2, 0.5),
        (14, True, -0.3, 0.5),
        (20, True, -0.1, -0.5),
    ]
    assert [s.sequence for s in batch.segments] == [0, 0, 1] and batch.versions.tolist() == [4] * 6
    assert batch.segments[1].prompt_ids == (1, 10, 11, 5)


def test_forced_tokens_get_no_advantage_and_no_place_in_the_batch() -> None:
    batch = flatten([group(trajectory("a", turn((7, 8, 9), 0.0, forced=1)), trajectory("b", turn((6,), 1.0)))])
    assert batch.turn_index.tolist() == [0, 0, 1] and batch.tokens_per_turn.tolist() == [2, 1]
    assert batch.segments[0].action_ids == (7, 8, 9) and batch.segments[0].mask == (True, True, False)
    (packed,) = pack(batch.segments, token_budget=64, layout="padded")
    assert packed.targets[packed.entries].tolist() == [7, 8, 6], "9 is read and not scored"
    batch = batch.with_columns(advantages=torch.tensor([1.0, 2.0, 3.0]))
    assert [row.tolist() for row in batch.by_turn(batch.advantages)] == [[1.0, 2.0], [3.0]]


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
def test_each_estimator_by_hand(batch: TokenBatch, how: str, expected: list[float]) -> None:
    found = group_advantages(batch, how, gamma=1.0)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), atol=1e-4, rtol=0)


def test_remax_needs_and_uses_the_greedy_return(batch: TokenBatch) -> None:
    assert group_advantages(batch, "remax", greedy_scores={"g": 0.25}).tolist() == [0.75] * 5 + [-0.25]
    with pytest.raises(ValueError, match="greedy"):
        group_advantages(batch, "remax")


def test_gae_at_lambda_one_is_return_minus_value_over_all_turns(batch: TokenBatch) -> None:
    values = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    found = value_advantages(batch, values, "gae", gamma=1.0, gae_lambda=1.0, turn_gamma=1.0)
    torch.testing.assert_close(found.advantages, torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, -0.6]))


# --- episodes that a limit cut ----------------------------------------------------------------------------------

ONES = {"gamma": 1.0, "gae_lambda": 1.0, "turn_gamma": 1.0}
VALUE_ESTIMATORS = tuple(VALUE_ADVANTAGES.ours)


def cut_and_ended() -> TokenBatch:
    cut = trajectory(
        "cut",
        turn((10,), -1.0),
        turn((11,), -1.0, prompt=(1, 10, 5)),
        stop=StopReason.MAX_TURNS,
        next_prompt_ids=(1, 10, 5, 11, 6),
    )
    ended = trajectory("ended", turn((3,), 0.0), next_prompt_ids=())
    overflown = trajectory("overflown", turn((7, 8), 0.0, prompt=(1, 2)), stop=StopReason.MAX_TOKENS)
    return flatten([group(cut, ended, overflown)])


@pytest.mark.parametrize("how", VALUE_ESTIMATORS)
def test_a_cut_episode_ends_in_the_value_of_the_state_after_the_cut(how: str) -> None:
    """Rewards -1, -1, values -2, -1, and nothing left to pay after the cut: the critic was right all along."""
    batch = cut_and_ended()
    values = torch.tensor([-2.0, -1.0, 0.3, 0.5, 0.5])
    found = value_advantages(batch, values, how, last_values=torch.tensor([0.0, 9.0, 0.5]), **ONES)
    torch.testing.assert_close(found.advantages, torch.tensor([0.0, 0.0, -0.3, 0.0, 0.0]))
    torch.testing.assert_close(found.returns, torch.tensor([-2.0, -1.0, 0.0, 0.5, 0.5]))
    plain = value_advantages(batch, values, how, **ONES)
    torch.testing.assert_close(plain.returns, torch.tensor([-2.0, -1.0, 0.0, 0.0, 0.0]))


def test_the_state_after_a_cut_is_the_next_prompt_or_else_lies_behind_the_last_action() -> None:
    assert states_after_cuts(cut_and_ended()) == {0: (1, 10, 5, 11, 6), 2: (1, 2, 7, 8)}


def test_a_cut_turn_never_bootstraps_from_inside_its_own_action() -> None:
    """One turn of three tokens, reward -1, V before it -2, V after it 0: what stands inside moves nothing."""
    cut = trajectory("cut", turn((1, 2, 3), -1.0), stop=StopReason.TIMEOUT, next_prompt_ids=(1, 1, 2, 3, 9))
    batch = flatten([group(cut)])
    found = value_advantages(
        batch, torch.tensor([-2.0, 50.0, 60.0]), "turn_gae", last_values=torch.tensor([0.0]), **ONES
    )
    assert found.advantages.tolist() == [1.0] * 3 and found.returns.tolist() == [-1.0] * 3


@pytest.mark.parametrize("how", VALUE_ESTIMATORS)
@pytest.mark.parametrize("seed", range(5))
def test_a_value_after_the_cut_is_a_reward_that_comes_one_step_later(how: str, seed: int) -> None:
    """Reduction to the episode that the task ended, whose last reward is r + gamma V."""
    draws = torch.Generator().manual_seed(seed)
    episodes, paid_later = [], []
    for name in "abc":
        lengths = (torch.randint(1, 4, (3,), generator=draws)).tolist()
        rewards = torch.randn(3, generator=draws).tolist()
        turns = [turn(tuple(range(1, n + 1)), r) for n, r in zip(lengths, rewards, strict=True)]
        episodes.append(trajectory(name, *turns, stop=StopReason.MAX_TURNS, next_prompt_ids=(9,)))
        paid_later.append(turns)
    after = torch.randn(3, generator=draws)
    closed = [
        trajectory(name, *turns[:-1], turn(turns[-1].action_ids, turns[-1].reward + 0.9 * value))
        for name, turns, value in zip("abc", paid_later, after.tolist(), strict=True)
    ]
    batch, ended = flatten([group(*episodes)]), flatten([group(*closed)])
    values = torch.randn(len(batch.turn_index), generator=draws)
    settings = {"gamma": 0.9, "turn_gamma": 0.9, "gae_lambda": 0.7}
    found = value_advantages(batch, values, how, last_values=after, **settings)
    wanted = value_advantages(ended, values, how, **settings)
    torch.testing.assert_close(found.advantages, wanted.advantages)
    torch.testing.assert_close(found.returns, wanted.returns)


# --- turns that the policy did not write ------------------------------------------------------------------------


def foreign(reward: float, producer: Literal["guide", "dataset"] = "guide") -> Turn:
    return replace(turn((30, 31), reward), spans=(Span(start=0, end=2, version=-1, producer=producer),))


def silent(reward: float) -> Turn:
    """A turn without any token, such as one where nothing could be said."""
    return replace(turn((), reward), spans=())


@pytest.fixture
def guided() -> TokenBatch:
    """The policy acts twice in each episode; before, between and after it others earn 100, 2 and 4."""
    mine, yours = turn((10, 11), 1.0, key="s0"), turn((12,), 0.0, key="s1")
    led = trajectory("led", foreign(100.0), mine, foreign(2.0), yours, silent(4.0), foreign(0.0, "dataset"))
    alone = trajectory("alone", turn((20,), 0.0, key="s0"), turn((21,), 1.0, key="s1"))
    watched = trajectory("watched", foreign(50.0))
    return flatten([group(led, alone, watched)])


def test_rewards_of_turns_that_the_policy_did_not_write_count_with_its_turn_before(guided: TokenBatch) -> None:
    assert [t.id for t in guided.trajectories] == ["led", "alone"], "nothing of the policy's own to learn from"
    assert guided.rewards.tolist() == [0, 3, 4, 0, 1] and guided.turn_rewards.tolist() == [3, 4, 0, 1]
    assert guided.scores.tolist() == [7, 1], "what came before the policy's first turn is nothing that it caused"


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("dr_grpo", [3, 3, 3, -3, -3]),
        ("rloo", [6, 6, 6, -6, -6]),
        ("opo", [7 - 4.6] * 3 + [1 - 4.6] * 2),  # baseline (3 * 7 + 2 * 1) / 5
        ("pass@k", [6, 6, 6, 0, 0]),
        ("reinforce", [7, 7, 4, 1, 1]),
        ("gigpo", [6, 6, 4.5, -6, -4.5]),  # 3 of the episode; returns 7 and 1 at s0, 4 and 1 at s1
    ],
)
def test_every_estimator_counts_the_same_rewards(guided: TokenBatch, how: str, expected: list[float]) -> None:
    found = group_advantages(guided, how, gamma=1.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", VALUE_ESTIMATORS)
def test_return_minus_value_counts_the_same_rewards_too(guided: TokenBatch, how: str) -> None:
    returns = value_advantages(guided, torch.zeros(5), how, **ONES).returns
    assert returns.tolist() == [7, 7, 4, 1, 1]
    discounted = value_advantages(guided, torch.zeros(5), "turn_gae", gamma=1.0, gae_lambda=1.0, turn_gamma=0.5).returns
    assert discounted.tolist() == [5, 5, 4, 0.5, 1], "the clock is the policy's own: 3 + 4 / 2"


@pytest.mark.parametrize("seed", range(20))
def test_the_same_sum_reaches_tokens_turns_and_scores_whoever_wrote_the_turns(seed: int) -> None:
    draws = np.random.default_rng(seed)
    made = {"policy": lambda r: turn((1, 2, 3), r), "guide": foreign, "nobody": silent}
    episodes = []
    for name in "abcd":
        writers = ["policy", *draws.choice(list(made), size=6)]
        turns = [made[writer](float(reward)) for writer, reward in zip(writers, draws.normal(size=7), strict=True)]
        episodes.append(trajectory(name, *turns))
    batch = flatten([group(*episodes)])
    totals = torch.tensor([t.total_reward for t in episodes])
    for values, index in ((batch.rewards, batch.sequence_index), (batch.turn_rewards, batch.trajectory_index)):
        torch.testing.assert_close(segment_sum(values, index, 4), totals)
    torch.testing.assert_close(batch.scores, totals)
    first = is_segment_start(batch.sequence_index, 4)
    torch.testing.assert_close(group_advantages(batch, "reinforce")[first], totals)


def test_a_tensor_of_another_length_is_refused_by_name(batch: TokenBatch) -> None:
    with pytest.raises(ValueError, match="`last_values` needs one number per trajectory"):
        value_advantages(batch, torch.zeros(6), "gae", last_values=torch.zeros(3), **ONES)
    for name in ("advantages", "returns", "values", "logprobs_old", "logprobs_ref"):
        with pytest.raises(ValueError, match=f"`{name}` needs one number per action token"):
            batch.with_columns(**{name: torch.zeros(5)})


def test_parts_of_a_batch_keep_their_columns_and_count_their_sequences_anew(batch: TokenBatch) -> None:
    batch = batch.with_columns(advantages=torch.arange(6), returns=torch.arange(6) * 2)
    part = batch.select_turns([2, 0])
    assert part.advantages.tolist() == [5, 0, 1] and part.returns is not None and part.returns.tolist() == [10, 0, 2]
    assert part.turn_index.tolist() == [0, 1, 1] and part.sequence_index.tolist() == [0, 1, 1]
    assert part.num_sequences == 2 and part.lengths.tolist() == [1, 2] and not part.trajectories
    micro = batch.select(torch.tensor([5, 2]))
    assert micro.advantages.tolist() == [5, 2] and micro.sequence_index.tolist() == [1, 0] and micro.num_sequences == 2
    assert batch.masked(torch.arange(6) > 3).mask.tolist() == [False] * 4 + [True] * 2


def test_joined_batches_keep_their_sequences_apart(batch: TokenBatch) -> None:
    both = join_batches([batch.with_columns(advantages=torch.arange(6)), batch])
    assert both.advantages.tolist() == [0, 1, 2, 3, 4, 5] + [0] * 6
    assert both.sequence_index.tolist() == [0] * 5 + [1] + [2] * 5 + [3] and both.num_sequences == 4
    assert both.turn_index.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 5]
    assert both.select_turns(range(3, 6)).sequence_index.tolist() == [0] * 5 + [1]
    with pytest.raises(ValueError, match="returns is given for 1 of 2"):
        join_batches([batch.with_columns(returns=torch.zeros(6)), batch])
    with pytest.raises(ValueError, match="at least one segment"):
        TokenBatch.of([])
