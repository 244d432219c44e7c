"""Losses, their averaging and the off-policy corrections: hand-made numbers, invariances and reductions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollwright.losses import (
    AGGREGATIONS,
    AdaptiveKl,
    CispoClip,
    Clip,
    Correction,
    NoClip,
    PpoClip,
    aggregate,
    aggregate_padded,
    approximate_kl,
    clip_frac,
    combine,
    count_loss_units,
    count_loss_units_padded,
    effective_sample_frac,
    entropy_of_logits,
    filter_geometric,
    filter_off_policy,
    filter_stale,
    group_can_teach,
    importance_ratio,
    kl_estimate,
    kl_loss,
    kl_shaped_rewards,
    loss_denominator,
    mask_sequences,
    mask_tokens,
    masked_mean,
    normalise_weights,
    overlong_penalty,
    policy_loss,
    policy_loss_padded,
    sampler_log_weights,
    token_weights,
    truncate_sequences,
    truncate_tokens,
    value_loss,
)
from rollwright.segments import flatten_padded, padded_sequence_index

PPO = PpoClip(low=0.2, high=0.2)
CAPPED = CispoClip.absolute(cap=1.28)
ALL_METHODS: list[tuple[str, Clip]] = [
    ("none", NoClip()),
    ("token", NoClip()),
    ("token", PPO),
    ("token", PpoClip(low=0.2, high=0.28, dual=3.0)),
    ("token", CispoClip.relative(low=10.0, high=0.2)),
    ("token", CispoClip.absolute(cap=5.0)),
    ("sequence", PpoClip(low=3e-4, high=4e-4)),
    ("sequence_token", PpoClip(low=3e-4, high=4e-4)),
    ("sequence_sum", PPO),
]


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def i(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def close(actual: Tensor, *expected: float) -> None:
    torch.testing.assert_close(actual.detach().double(), f(*expected), atol=5e-7, rtol=0)


def single(ratio: float, advantage: float, clip: Clip, level: str = "token") -> tuple[float, float, bool]:
    """Loss of one token, its gradient in the log-prob, and whether the clip acted."""
    logprob = f(math.log(ratio)).requires_grad_()
    result = policy_loss(
        logprob, f(0), f(advantage), i(1) == 1, i(0), num_sequences=1, level=level, clip=clip
    )  # fmt: skip
    result.losses.sum().backward()
    assert logprob.grad is not None
    return result.losses.item(), logprob.grad.item(), bool(result.clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clip", "loss", "clipped"),
    [
        (1.5, 1, PPO, -1.2, True),
        (1.5, -1, PPO, 1.5, False),
        (0.5, 1, PPO, -0.5, False),
        (0.5, -1, PPO, 0.8, True),
        (5, -1, PpoClip(low=0.2, high=0.2, dual=3.0), 3, True),
        (2, -1, PpoClip(low=0.2, high=0.2, dual=3.0), 2, False),
        (5, 1, PpoClip(low=0.2, high=0.2, dual=3.0), -1.2, True),
        (1.25, 1, PpoClip(low=0.2, high=0.28), -1.25, False),
        (1.25, 1, PPO, -1.2, True),
        (1.5, 1, NoClip(), -1.5, False),
    ],
)
def test_ppo_clip_by_hand(ratio: float, advantage: float, clip: Clip, loss: float, clipped: bool) -> None:
    value, gradient, acted = single(ratio, advantage, clip)
    assert value == pytest.approx(loss)
    assert gradient == pytest.approx(0.0 if clipped else -ratio * advantage)
    assert acted == clipped


def test_cispo_keeps_the_gradient_that_ppo_drops() -> None:
    assert single(2.0, 0.5, CAPPED)[1] == pytest.approx(-1.28 * 0.5)
    assert single(2.0, 0.5, CAPPED)[2] is True
    assert single(2.0, 0.5, PPO)[1] == 0.0
    assert single(1.0, 0.5, CAPPED)[1] == pytest.approx(-0.5)
    assert single(0.1, 1.0, CispoClip.relative(low=0.2, high=0.2))[1] == pytest.approx(-0.8)
    assert CispoClip.relative(low=10.0, high=0.2) == CispoClip(min_ratio=0.0, max_ratio=1.2)


def test_sequence_ratios_by_hand() -> None:
    logprobs, old, mask, index = f(0.1, -0.3), f(0, 0), i(1, 1) == 1, i(0, 0)
    ratio = {
        level: importance_ratio(logprobs, old, mask, index, num_sequences=1, level=level)
        for level in ("token", "sequence", "sequence_token", "sequence_sum")
    }
    close(ratio["sequence"], 0.904837, 0.904837)
    close(ratio["sequence_token"], 0.904837, 0.904837)
    close(ratio["sequence_sum"], 0.818731, 0.818731)
    close(ratio["token"], math.exp(0.1), math.exp(-0.3))


def test_gspo_token_gives_each_token_its_own_gradient() -> None:
    logprobs, s = f(0.1, -0.3).requires_grad_(), math.exp(-0.1)
    expected = {"sequence_token": (-2 * s, 4 * s), "sequence": (s, s)}  # advantages 2 and -4: own, or their mean
    for level, gradient in expected.items():
        losses = policy_loss(
            logprobs, f(0, 0), f(2, -4), i(1, 1) == 1, i(0, 0), num_sequences=1, level=level, clip=NoClip()
        ).losses
        close(losses, -2 * s, 4 * s)
        close(torch.autograd.grad(losses.sum(), logprobs)[0], *gradient)


@pytest.mark.parametrize("level", ["sequence", "sequence_token", "sequence_sum"])
def test_a_sequence_of_one_token_is_ppo(level: str) -> None:
    for ratio, advantage in ((1.5, 1), (1.5, -1), (0.5, -1), (1.1, 2)):
        assert single(ratio, advantage, PPO, level) == pytest.approx(single(ratio, advantage, PPO))


def batch(seed: int, num_sequences: int = 4, tokens: int = 14) -> dict[str, Any]:
    """A random flat batch in which every sequence has a token and tokens of different sequences are interleaved."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.cat(
        [torch.arange(num_sequences), torch.randint(num_sequences, (tokens - num_sequences,), generator=generator)]
    )
    logprobs = -torch.rand(tokens, generator=generator, dtype=torch.float64) * 3
    return {
        "logprobs": logprobs,
        "logprobs_old": logprobs + 0.3 * torch.randn(tokens, generator=generator, dtype=torch.float64),
        "advantages": torch.randn(num_sequences, generator=generator, dtype=torch.float64)[index],
        "mask": torch.rand(tokens, generator=generator) < 0.8,
        "sequence_index": index,
        "num_sequences": num_sequences,
    }


def denominator_of(data: dict[str, Any], how: str) -> float:
    counts = count_loss_units(data["mask"], data["sequence_index"], num_sequences=data["num_sequences"])
    return loss_denominator([counts], how, max_length=16 if how == "constant" else None)


def gradient_of(data: dict[str, Any], level: str, clip: Clip, how: str, **extra: Any) -> Tensor:
    logprobs = data["logprobs"].clone().requires_grad_()
    losses = policy_loss(**(data | {"logprobs": logprobs}), level=level, clip=clip, **extra).losses
    total = aggregate(
        losses, data["mask"], data["sequence_index"], num_sequences=data["num_sequences"], how=how,
        denominator=denominator_of(data, how),
    )  # fmt: skip
    return torch.autograd.grad(total, logprobs)[0]


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_first_update_is_reinforce_whatever_the_ratio_and_clip(how: str) -> None:
    fresh = batch(0)
    fresh["logprobs_old"] = fresh["logprobs"].clone()
    expected = gradient_of(fresh, "none", NoClip(), how)
    assert expected.abs().max() > 0
    for level, clip in ALL_METHODS:
        if level.startswith("sequence") and how != "seq-mean-token-mean":
            continue  # a sequence's ratio is spread over its tokens: its own average is the mean over them
        gradient = gradient_of(fresh, level, clip, how)
        if level == "sequence_sum":  # d exp(sum) spreads undivided: the token-sum REINFORCE
            gradient, target = gradient, gradient_of(fresh, "none", NoClip(), "seq-mean-token-sum")
        else:
            target = expected
        torch.testing.assert_close(gradient, target)
        result = policy_loss(**fresh, level=level, clip=clip)
        assert clip_frac(result.clipped, fresh["mask"]) == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), method=st.sampled_from(ALL_METHODS), how=st.sampled_from(AGGREGATIONS))
def test_splitting_into_micro_batches_changes_no_gradient(seed: int, method: tuple[str, Clip], how: str) -> None:
    data = batch(seed)
    if not data["mask"].any():
        return
    level, clip = method
    whole = gradient_of(data, level, clip, how)
    denominator = denominator_of(data, how)
    pieced = torch.zeros_like(whole)
    for rows in ([0, 2], [1], [3]):  # "ranks" and micro-batches: one optimiser step
        part = torch.isin(data["sequence_index"], i(*rows))
        renumber = torch.zeros(data["num_sequences"], dtype=torch.long).index_copy(0, i(*rows), torch.arange(len(rows)))
        logprobs = data["logprobs"][part].requires_grad_()
        index = renumber[data["sequence_index"][part]]
        losses = policy_loss(
            logprobs, data["logprobs_old"][part], data["advantages"][part], data["mask"][part], index,
            num_sequences=len(rows), level=level, clip=clip,
        ).losses  # fmt: skip
        share = aggregate(losses, data["mask"][part], index, num_sequences=len(rows), how=how, denominator=denominator)
        pieced[part] += torch.autograd.grad(share, logprobs)[0]
    torch.testing.assert_close(pieced, whole)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    method=st.sampled_from(ALL_METHODS),
    how=st.sampled_from(AGGREGATIONS),
    junk=st.sampled_from([0.0, 5.0, -1e4, math.nan, math.inf]),
)
def test_masked_positions_never_matter(seed: int, method: tuple[str, Clip], how: str, junk: float) -> None:
    data = batch(seed)
    if not data["mask"].any():
        return
    spoilt = data | {
        name: torch.where(data["mask"], data[name], torch.tensor(junk, dtype=torch.float64))
        for name in ("logprobs", "logprobs_old", "advantages")
    }
    level, clip = method
    clean, dirty = gradient_of(data, level, clip, how), gradient_of(spoilt, level, clip, how)
    torch.testing.assert_close(dirty, clean)
    assert (dirty[~data["mask"]] == 0).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), method=st.sampled_from(ALL_METHODS), how=st.sampled_from(AGGREGATIONS))
def test_padded_and_flat_layouts_agree(seed: int, method: tuple[str, Clip], how: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, 6, generator=generator) < 0.7
    mask[0, 0] = True
    mask[3] = False  # a fully masked row
    logprobs, old, advantages = torch.randn(3, 4, 6, generator=generator, dtype=torch.float64) * 0.3
    level, clip = method
    index = padded_sequence_index(mask)
    flat = policy_loss(
        logprobs.reshape(-1), old.reshape(-1), advantages.reshape(-1), mask.reshape(-1),
        torch.arange(4).repeat_interleave(6), num_sequences=4, level=level, clip=clip,
    )  # fmt: skip
    padded = policy_loss_padded(logprobs, old, advantages, mask, level=level, clip=clip)
    torch.testing.assert_close(padded.losses, flat.losses[mask.reshape(-1)])
    length = 6 if how == "constant" else None
    denominator = loss_denominator([count_loss_units_padded(mask)], how, max_length=length)
    everything = torch.ones_like(index, dtype=torch.bool)
    from_flat = aggregate(padded.losses, everything, index, num_sequences=4, how=how, denominator=denominator)
    grid = torch.full(mask.shape, math.nan, dtype=torch.float64).masked_scatter(mask, padded.losses)
    torch.testing.assert_close(aggregate_padded(grid, mask, how=how, denominator=denominator), from_flat)
    assert flatten_padded(grid, mask).isfinite().all()


AGGREGATED = [
    ("token-mean", {}, 10 / 6),
    ("seq-mean-token-mean", {}, 1.5),
    ("seq-mean-token-sum", {}, 5.0),
    ("constant", {"max_length": 4}, 1.25),
    ("constant", {"max_length": 4, "per_sequence": False}, 2.5),
]


@pytest.mark.parametrize(("how", "options", "expected"), AGGREGATED)
def test_aggregation_by_hand(how: str, options: dict[str, Any], expected: float) -> None:
    losses = f(1, 1, 2, 2, 2, 2)
    index, mask = i(0, 0, 1, 1, 1, 1), torch.ones(6, dtype=torch.bool)
    counts = [
        count_loss_units(mask[:2], index[:2], num_sequences=1),
        count_loss_units(mask[2:], index[2:] - 1, num_sequences=1),
    ]
    denominator = loss_denominator(counts, how, **options)
    whole = aggregate(losses, mask, index, num_sequences=2, how=how, denominator=denominator)
    assert whole.item() == pytest.approx(expected)
    parts = [
        aggregate(
            losses[part], mask[part], torch.zeros_like(index[part]), num_sequences=1, how=how, denominator=denominator
        )
        for part in (slice(0, 2), slice(2, 6))
    ]
    assert sum(part.item() for part in parts) == pytest.approx(expected)
    # Two ranks, each with one sequence, whose gradients are averaged: scaled up before, the mean is the whole.
    ranked = [
        aggregate(
            losses[p],
            mask[p],
            torch.zeros_like(index[p]),
            num_sequences=1,
            how=how,
            denominator=denominator,
            num_ranks=2,
        )
        for p in (slice(0, 2), slice(2, 6))
    ]
    assert sum(part.item() for part in ranked) / 2 == pytest.approx(expected)
    weights = token_weights(mask, index, num_sequences=2, how=how, denominator=denominator, dtype=losses.dtype)
    assert float(losses @ weights) == pytest.approx(expected)


def test_fully_masked_sequences_do_not_count_in_a_mean_over_sequences() -> None:
    mask, index = i(1, 1, 0, 0) == 1, i(0, 0, 1, 1)
    counts = count_loss_units(mask, index, num_sequences=3)
    assert (counts.num_tokens, counts.num_sequences, counts.num_rows) == (2, 1, 3)
    for how in ("seq-mean-token-mean", "seq-mean-token-sum"):
        assert loss_denominator([counts], how) == 1.0
    assert loss_denominator([counts], "constant", max_length=4) == 12.0


@pytest.mark.parametrize("junk", [5.0, math.nan, math.inf])
def test_aggregate_ignores_what_masked_tokens_hold(junk: float) -> None:
    for how in AGGREGATIONS:
        total = aggregate(f(3, junk), i(1, 0) == 1, i(0, 0), num_sequences=1, how=how, denominator=2.0)
        assert total.item() == 1.5


def test_aggregation_bad_input() -> None:
    nothing = count_loss_units(i(0) == 1, i(0), num_sequences=1)
    with pytest.raises(ValueError, match="skip the update"):
        loss_denominator([nothing], "token-mean")
    some = count_loss_units(i(1) == 1, i(0), num_sequences=1)
    for how, length in (("constant", None), ("token-mean", 4)):
        with pytest.raises(ValueError, match="max_length belongs to the 'constant'"):
            loss_denominator([some], how, max_length=length)
    with pytest.raises(ValueError, match="unknown aggregation 'mean'"):
        loss_denominator([some], "mean")
    with pytest.raises(ValueError, match="denominator must be positive"):
        aggregate(f(1), i(1) == 1, i(0), num_sequences=1, how="token-mean", denominator=0.0)
    with pytest.raises(ValueError, match="flatten padded tensors"):
        aggregate(torch.ones(2, 2), torch.ones(2, 2), i(0), num_sequences=1, how="token-mean", denominator=1.0)
    with pytest.raises(ValueError, match=r"span 0\.\.1, but there are 1 sequences"):
        aggregate(f(1, 1), i(1, 1), i(0, 1), num_sequences=1, how="token-mean", denominator=1.0)


def test_policy_loss_bad_input() -> None:
    data = batch(0)
    with pytest.raises(ValueError, match="has no ratio to clip"):
        policy_loss(**data, level="none", clip=PPO)
    with pytest.raises(ValueError, match="unknown ratio level 'turn'"):
        policy_loss(**data, level="turn", clip=PPO)
    with pytest.raises(ValueError, match="must share one shape"):
        policy_loss(**(data | {"advantages": f(1)}), level="token", clip=PPO)
    for bad in (
        lambda: PpoClip(low=0, high=1),
        lambda: PpoClip(low=0.2, high=0.2, dual=1.0),
        lambda: CispoClip.absolute(cap=0),
    ):
        with pytest.raises(ValueError):
            bad()


def test_weights_are_detached_factors() -> None:
    data = batch(1)
    weights = torch.full((14,), 0.25, dtype=torch.float64, requires_grad=True)
    scaled = gradient_of(data, "token", PPO, "token-mean", weights=weights)
    torch.testing.assert_close(scaled, 0.25 * gradient_of(data, "token", PPO, "token-mean"))


def test_extreme_log_ratios_stay_finite() -> None:
    for level in ("token", "sequence", "sequence_sum"):
        ratio = importance_ratio(f(0, 0), f(-5000, -5000), i(1, 1) == 1, i(0, 0), num_sequences=1, level=level)
        close(ratio / math.exp(20), 1, 1)


def test_kl_estimates_by_hand() -> None:
    values = {kind: kl_estimate(f(0.5), f(0), kind=kind).item() for kind in ("k1", "abs", "k2", "k3", "k3+")}
    assert values == pytest.approx({"k1": 0.5, "abs": 0.5, "k2": 0.125, "k3": 0.106531, "k3+": 0.106531}, abs=5e-7)
    assert kl_estimate(f(-0.5), f(0), kind="abs").item() == 0.5
    assert kl_estimate(f(-500.0), f(0), kind="k3").item() == 10.0
    with pytest.raises(ValueError, match="unknown KL estimate 'k4'"):
        kl_estimate(f(0), f(0), kind="k4")


def test_k3_plus_has_the_gradient_of_k2() -> None:
    gradients = {}
    for kind in ("k2", "k3", "k3+"):
        x = f(0.5).requires_grad_()
        gradients[kind] = torch.autograd.grad(kl_estimate(x, f(0), kind=kind).sum(), x)[0].item()
    assert gradients == pytest.approx({"k2": 0.5, "k3": 1 - math.exp(-0.5), "k3+": 0.5})


def test_expected_k2_gradient_is_the_gradient_of_the_kl() -> None:
    logits, reference = f(0.3, -0.2, 0.1).requires_grad_(), f(0, 0.5, -0.5).log_softmax(0)
    logprobs = logits.log_softmax(0)
    exact = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits, retain_graph=True)[0]
    for kind, right in (("k2", True), ("k3+", True), ("k3", False), ("k1", False)):
        estimate = (logprobs.exp().detach() * kl_estimate(logprobs, reference, kind=kind)).sum()
        gradient = torch.autograd.grad(estimate, logits, retain_graph=True)[0]
        assert torch.allclose(gradient, exact) == right


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_ratio_weighted_kl_loss_has_the_gradient_of_the_kl_on_old_data(kind: str) -> None:
    logits, reference = f(0.3, -0.2, 0.1).requires_grad_(), f(0, 0.5, -0.5).log_softmax(0)
    behaviour = f(-0.4, 0.4, 0.2).log_softmax(0)  # the policy that sampled
    logprobs, everything = logits.log_softmax(0), torch.ones(3, dtype=torch.bool)
    exact = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits, retain_graph=True)[0]
    losses = kl_loss(logprobs, behaviour, reference, everything, kind=kind, ratio_weighted=True)
    expected = torch.autograd.grad((behaviour.exp() * losses).sum(), logits)[0]
    torch.testing.assert_close(expected, exact)


def test_kl_loss_ignores_masked_tokens() -> None:
    logprobs = f(-1, math.nan).requires_grad_()
    losses = kl_loss(logprobs, f(-1, 0), f(-1.5, -math.inf), i(1, 0) == 1, kind="k3", ratio_weighted=True)
    close(losses, 0.106531, 0)
    assert torch.autograd.grad(losses.sum(), logprobs)[0].isfinite().all()


def test_kl_in_the_reward() -> None:
    close(kl_shaped_rewards(f(0, 1), f(-1, -2), f(-1.5, -2), kl_coef=0.1), -0.05, 1.0)


def test_adaptive_kl_by_hand_and_after_a_restart() -> None:
    controller = AdaptiveKl(coef=0.001, target=0.1, horizon=10_000)
    assert controller.update(0.11, num_samples=1000) == pytest.approx(0.001 * 1.01)  # error .1, a tenth of the horizon
    assert controller.update(5.0, num_samples=10_000) == pytest.approx(0.00101 * 1.2)  # error capped at .2
    assert controller.update(0.0, num_samples=10_000) == pytest.approx(0.00101 * 1.2 * 0.8)
    resumed = AdaptiveKl(coef=1.0, target=0.1, horizon=10_000)
    resumed.load_state_dict(controller.state_dict())
    assert resumed.update(0.2, num_samples=5) == controller.update(0.2, num_samples=5)
    with pytest.raises(ValueError, match="nan"):
        controller.update(math.nan, num_samples=1)
    with pytest.raises(ValueError, match="key 'coef'"):
        resumed.load_state_dict({"beta": 1.0})


def test_value_loss_by_hand() -> None:
    clipped = value_loss(f(1), f(2), values_old=f(0.5), clip_eps=0.2)
    assert clipped.item() == pytest.approx(0.845)  # (0.7 - 2)^2 / 2
    assert value_loss(f(1), f(2), values_old=None, clip_eps=None).item() == 0.5
    with pytest.raises(ValueError, match="both, or neither"):
        value_loss(f(1), f(2), values_old=f(1), clip_eps=None)


def test_clipped_values_get_no_gradient_away_from_the_old_value() -> None:
    for value, expected in ((1.0, 0.0), (0.6, 0.6 - 2.0)):
        x = f(value).requires_grad_()
        assert torch.autograd.grad(value_loss(x, f(2), values_old=f(0.5), clip_eps=0.2).sum(), x)[
            0
        ].item() == pytest.approx(expected)


def test_entropy_with_forbidden_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    entropy = entropy_of_logits(logits)
    close(entropy, math.log(2), math.log(3))
    entropy.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_truncated_and_masked_importance_weights_by_hand() -> None:
    mask, index = torch.ones(3, dtype=torch.bool), i(0, 0, 1)
    logs = f(1, 0, 0)
    close(truncate_tokens(logs, mask, cap=5.0).weights, math.e, 1, 1)
    close(truncate_tokens(logs, mask, cap=2.0).weights, 2, 1, 1)
    close(truncate_sequences(logs, mask, index, num_sequences=2, cap=2.0).weights, 2, 2, 1)
    tokens = mask_tokens(logs, mask, cap=2.0)
    close(tokens.weights, 0, 1, 1)
    assert tokens.mask.tolist() == [False, True, True]
    sequences = mask_sequences(logs, mask, index, num_sequences=2, cap=2.0)
    close(sequences.weights, 0, 0, 1)
    assert sequences.mask.tolist() == [False, False, True]
    close(mask_sequences(f(-1, 0, 0), mask, index, num_sequences=2, cap=2.0).weights, math.exp(-1), math.exp(-1), 1)
    geometric = filter_geometric(logs, mask, index, num_sequences=2)
    assert geometric.mask.tolist() == [False, False, True] and geometric.weights.tolist() == [1, 1, 1]


def test_sequence_weights_ignore_masked_tokens() -> None:
    mask = i(1, 0) == 1
    close(truncate_sequences(f(0.5, 9), mask, i(0, 0), num_sequences=1, cap=10.0).weights, math.exp(0.5), math.exp(0.5))
    assert filter_geometric(f(0, 9), mask, i(0, 0), num_sequences=1).mask.tolist() == [True, False]


def test_the_length_trap_is_clamped() -> None:
    logs = torch.full((1000,), math.log(1.1), dtype=torch.float64)
    everything, index = torch.ones(1000, dtype=torch.bool), torch.zeros(1000, dtype=torch.long)
    weights = truncate_sequences(logs, everything, index, num_sequences=1, cap=1e12).weights
    assert weights[0].item() == pytest.approx(math.exp(20))


def test_agreeing_sampler_makes_every_correction_the_identity() -> None:
    data = batch(3)
    mask, index, count = data["mask"], data["sequence_index"], data["num_sequences"]
    logs = sampler_log_weights(data["logprobs"], data["logprobs"].clone(), mask)
    everything = combine(
        truncate_tokens(logs, mask, cap=2.0),
        truncate_sequences(logs, mask, index, num_sequences=count, cap=2.0),
        mask_tokens(logs, mask, cap=2.0),
        mask_sequences(logs, mask, index, num_sequences=count, cap=2.0),
        filter_geometric(logs, mask, index, num_sequences=count),
        filter_off_policy(
            data["logprobs"], data["logprobs"], data["advantages"], mask, index, num_sequences=count, threshold=0.0
        ),
        filter_stale(torch.full((14,), 7), mask, current_version=7, max_staleness=0),
    )
    everything = normalise_weights(everything)
    assert (everything.weights == 1).all() and torch.equal(everything.mask, mask)


def test_undefined_sampler_logprobs_weigh_one() -> None:
    mask = i(1, 1, 1, 0) == 1
    logs = sampler_log_weights(f(-1, -1, -1, math.nan), f(math.nan, -math.inf, -101, 0), mask)
    assert logs.tolist() == [0, 0, 20, 0]
    with pytest.raises(ValueError, match="the model is broken"):
        sampler_log_weights(f(math.nan), f(-1), i(1) == 1)


def test_off_policy_sequences_are_dropped_only_if_they_did_badly() -> None:
    # Three sequences: bad and drifted, good and drifted, bad and close.
    result = filter_off_policy(
        f(-2, -2, -1),
        f(-1, -1, -1),
        f(-1, 1, -1),
        torch.ones(3, dtype=torch.bool),
        i(0, 1, 2),
        num_sequences=3,
        threshold=0.5,
    )
    assert result.mask.tolist() == [False, True, True] and result.weights.tolist() == [1, 1, 1]


def test_stale_tokens_are_dropped() -> None:
    mask = i(1, 1, 1, 0) == 1
    assert filter_stale(i(3, 4, 5, 9), mask, current_version=5, max_staleness=1).mask.tolist() == [
        False,
        True,
        True,
        False,
    ]
    with pytest.raises(ValueError, match="version 9 > 5"):
        filter_stale(i(9), i(1) == 1, current_version=5, max_staleness=1)


def test_normalised_weights_and_effective_sample_size() -> None:
    correction = normalise_weights(Correction(weights=f(1, 3, 100), mask=i(1, 1, 0) == 1))
    close(correction.weights[:2], 0.5, 1.5)
    with pytest.raises(ValueError, match="entirely off-policy"):
        normalise_weights(Correction(weights=f(1), mask=i(0) == 1))
    assert effective_sample_frac(f(2, 2, 2)) == pytest.approx(1.0)
    assert effective_sample_frac(f(1, 0, 0, 0)) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="positive weight"):
        effective_sample_frac(f(0))


def test_a_filter_changes_the_denominator_and_a_truncation_does_not() -> None:
    mask, index, logs = torch.ones(3, dtype=torch.bool), i(0, 0, 1), f(1, 0, 0)
    for correction, tokens in ((truncate_tokens(logs, mask, cap=2.0), 3), (mask_tokens(logs, mask, cap=2.0), 2)):
        assert count_loss_units(correction.mask, index, num_sequences=2).num_tokens == tokens


def test_soft_overlong_penalty_by_hand() -> None:
    lengths = i(100, 16384, 18432, 20480, 22528)
    shape = {"max_length": 20480, "buffer": 4096}
    close(overlong_penalty(lengths, **shape), 0, 0, -0.5, -1, -1)
    close(overlong_penalty(lengths, **shape, factor=2.0, saturate=False), 0, 0, -1, -2, -3)
    with pytest.raises(ValueError, match="buffer"):
        overlong_penalty(lengths, max_length=10, buffer=11)


def test_dynamic_sampling_predicate() -> None:
    assert group_can_teach([1.0, 0.0]) and not group_can_teach([0.0, 0.0]) and not group_can_teach([0.5])
    assert not group_can_teach([0.5, 0.5 + 1e-9], tolerance=1e-6)
    with pytest.raises(ValueError, match="at least one score"):
        group_can_teach([])


def test_metrics_count_unmasked_tokens_only() -> None:
    mask = i(1, 1, 0) == 1
    assert masked_mean(f(1, 3, math.nan), mask) == 2.0 and masked_mean(f(1), i(0) == 1) == 0.0
    assert clip_frac(i(1, 0, 1) == 1, mask) == 0.5
    # k3 towards the policy that sampled: e^.5 - .5 - 1 on one of two tokens.
    assert approximate_kl(f(0.5, 0, math.nan), f(0, 0, 0), mask) == pytest.approx((math.exp(0.5) - 1.5) / 2)
