"""RLGF by hand: the numbers of arXiv:2306.11816's method, worked out, and the reductions between its methods."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from rollwright.batching import TokenBatch, flatten, flatten_guided
from rollwright.batching.value_estimators import Gae
from rollwright.contracts import Branch, Span, Start, Trajectory
from rollwright.curriculum import prefix_length
from rollwright.curriculum.roll_ins import spliced
from rollwright.learner.token_critic import Squared
from rollwright.maths import guided_masks, guided_mode
from rollwright.maths.losses import PpoClip, policy_loss
from tests.builders import episode, group, turn

FIVE = torch.arange(5)


def bits(mask: torch.Tensor) -> list[int]:
    return mask.int().tolist()


@pytest.mark.parametrize(
    ("mode", "prefix", "policy", "value"),
    [
        ("ppo++", 2, [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]),
        ("aggrevated", 2, [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]),
        ("aggrevated", 0, [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
        ("ppo++", 0, [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
    ],
)
def test_masks_of_five_tokens(mode: str, prefix: int, policy: list[int], value: list[int]) -> None:
    found = guided_masks(FIVE, torch.full((5,), prefix), mode=mode)
    assert [bits(mask) for mask in found] == [policy, value]


def test_prefix_lengths_of_five_turns() -> None:
    """P(0) = .2, P(j) = .2 for j = 1..4, E[k] = 2; a single turn is never given away."""
    drawn = [prefix_length(5, 0.8, seed=7, step=step, group=g) for step in range(200) for g in range(50)]
    shares = [drawn.count(k) / len(drawn) for k in range(5)]
    assert shares == pytest.approx([0.2] * 5, abs=0.015) and max(drawn) == 4
    assert fmean(drawn) == pytest.approx(2.0, abs=0.05)
    assert {prefix_length(1, 0.8, seed=7, step=step, group=0) for step in range(50)} == {0}


def three_turns(producers: tuple[str, str, str], *, prefix: int | None = None, name: str = "e") -> Trajectory:
    """Three turns of one token each; the last one earns 1."""
    turns = [
        turn((1, *range(10, 10 + i)), (10 + i,), float(i == 2), spans=(Span(start=0, end=1, version=0, producer=p),))
        for i, p in enumerate(producers)
    ]
    branch = None if prefix is None else Branch(parent="roll-in", turn=prefix)
    return episode(name, *turns, branch=branch)


def estimated(batch: TokenBatch, values: list[float]) -> TokenBatch:
    found = Gae(gamma=1.0, gae_lambda=0.95)(batch, torch.tensor(values))
    return batch.with_columns(advantages=found.advantages, returns=found.returns, values=torch.tensor(values))


def surrogates(logprobs: torch.Tensor, batch: TokenBatch) -> torch.Tensor:
    """PPO's loss of every token against log-probs of -1."""
    old, index = torch.full((len(batch),), -1.0), batch.sequence_index
    clip = PpoClip(low=0.2, high=0.2)
    return policy_loss(
        logprobs, old, batch.advantages, batch.mask, index, num_sequences=1, level="token", clip=clip
    ).losses


def losses_of(batch: TokenBatch, policy: torch.Tensor, value: torch.Tensor) -> tuple[float, float]:
    """Mean policy loss at ratio 1 over one mask, mean critic loss at unmoved values over the other."""
    assert batch.values is not None and batch.returns is not None
    old = torch.full((len(batch),), -1.0)
    each = surrogates(old, batch)
    fits = Squared(clip_eps=0.2)(batch.values, batch.returns, batch.values)
    return float(each[policy].mean()), float(fits[value].mean())


def test_advantages_reach_the_loss_without_whitening() -> None:
    """r = [0,0,1], V = [.5,.6,.8], lambda = .95: A = [.4705,.39,.2]; k = 1."""
    found = flatten_guided([group(three_turns(("policy", "teacher", "teacher"), prefix=1))])
    batch = estimated(found.tokens, [0.5, 0.6, 0.8])
    assert batch.advantages.tolist() == pytest.approx([0.4705, 0.39, 0.2])
    plus = losses_of(batch, *guided_masks(found.positions, found.prefix, mode="ppo++"))
    assert plus == pytest.approx((-0.295, 0.048025))
    aggrevated = losses_of(batch, *guided_masks(found.positions, found.prefix, mode="aggrevated"))
    assert aggrevated == pytest.approx((-0.4705, 0.048025))


def test_what_follows_a_prefix_is_credited_as_in_the_whole_episode() -> None:
    """The recipe's PPO++ has the prefix as context alone: GAE runs backwards, so the rest is credited the same."""
    whole = three_turns(("teacher", "policy", "policy"))
    rest = episode("rest", *whole.turns[1:], start=Start(kind="guide_prefix", prefix_turns=1, source="roll-in"))
    batch = estimated(flatten([group(rest)]), [0.6, 0.8])
    assert batch.advantages.tolist() == pytest.approx([0.39, 0.2])
    everything = torch.ones(2, dtype=torch.bool)
    assert losses_of(batch, everything, everything) == pytest.approx((-0.295, 0.048025))


def test_a_guides_turns_have_rewards_and_values_and_are_not_the_policys_own() -> None:
    record = three_turns(("policy", "teacher", "dataset"), prefix=1)
    found = flatten_guided([group(record)])
    assert found.tokens.rewards.tolist() == [0.0, 0.0, 1.0]
    assert (found.positions.tolist(), found.prefix.tolist(), bits(found.own)) == ([0, 1, 2], [1, 1, 1], [1, 0, 0])
    # Of the policy's own tokens there is one, and `flatten` gives it what the guide earned behind it.
    assert flatten([group(record)]).rewards.tolist() == [1.0]
    assert record.turns[1].policy_mask == (False,), "the record itself is as it was"


def test_forced_tokens_stay_out_of_both_losses() -> None:
    spans = (Span(start=0, end=1, version=-1, producer="forced"), Span(start=1, end=2, version=0))
    found = flatten_guided([group(episode("e", turn((1,), (2, 3), 1.0, spans=spans)))])
    assert len(found.tokens) == 1


def test_a_splice_has_the_policys_turns_and_then_the_guides() -> None:
    rolled = three_turns(("policy", "policy", "policy"), name="roll-in")
    end = episode("end", *three_turns(("teacher",) * 3).turns[2:], start=Start(kind="guide_prefix", prefix_turns=2))
    whole = spliced(rolled, end, name="whole")
    assert whole.turns == (*rolled.turns[:2], *end.turns) and whole.id == "whole"
    assert whole.branch == Branch(parent="roll-in", turn=2) and whole.start == Start()
    assert spliced(None, end, name="alone").turns == end.turns


def test_the_combination_lock_opens_a_hundred_times_as_often_behind_prefixes() -> None:
    """Ten dials of two digits, a uniform learner, a perfect guide: 2^-10, (1 - 2^-9)/9, and .8 of it plus .2 of PPO."""

    def opens(beta: float) -> float:
        behind = fmean(2.0 ** -(10 - k) for k in range(1, 10))
        return beta * behind + (1 - beta) * 2.0**-10

    assert opens(0.0) == pytest.approx(0.000977, abs=1e-6)
    assert opens(1.0) == pytest.approx(0.110894, abs=1e-6)
    # The card's .088911 has 0.2 of 2^-10 in it.
    assert opens(0.8) == pytest.approx(0.088911, abs=1e-6)
    drawn = [prefix_length(10, 0.8, seed=0, step=s, group=g) for s in range(400) for g in range(50)]
    assert fmean(2.0 ** -(10 - k) for k in drawn) == pytest.approx(0.088911, abs=0.004)


def modes(method: str, steps: int = 400, *, ppo_frac: float = 0.8, switch_step: int = 20) -> list[str]:
    return [guided_mode(method, step=step, seed=3, ppo_frac=ppo_frac, switch_step=switch_step) for step in range(steps)]


def test_lols_tosses_a_coin_for_each_step_and_d2lols_switches_once() -> None:
    assert set(modes("lols", ppo_frac=1.0)) == {"ppo++"} and set(modes("lols", ppo_frac=0.0)) == {"aggrevated"}
    assert modes("lols").count("ppo++") / 400 == pytest.approx(0.8, abs=0.06)
    assert modes("lols") == modes("lols"), "a resumed run tosses the same coins"
    assert modes("d2lols", 25) == ["aggrevated"] * 20 + ["ppo++"] * 5
    assert set(modes("d2lols", switch_step=0)) == {"ppo++"}
    assert set(modes("aggrevated")) == {"aggrevated"}


def test_words_are_checked() -> None:
    with pytest.raises(ValueError, match="mode"):
        guided_masks(FIVE, FIVE, mode="ppo")
    with pytest.raises(ValueError, match="method"):
        modes("dagger")


def test_a_prefix_token_sends_no_gradient() -> None:
    """PPO++: moving the log-prob of a guide's token leaves the loss as it is."""
    found = flatten_guided([group(three_turns(("teacher", "policy", "policy"), prefix=1))])
    batch = estimated(found.tokens, [0.5, 0.6, 0.8])
    policy, _ = guided_masks(found.positions, found.prefix, mode="ppo++")
    now = torch.full((3,), -1.0, requires_grad=True)
    surrogates(now, batch)[policy].mean().backward()
    assert now.grad is not None
    assert now.grad.tolist() == pytest.approx([0.0, -0.39 / 2, -0.2 / 2])
