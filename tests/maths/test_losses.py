"""Policy losses and how they are averaged: hand-made numbers, invariances and reductions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollwright.maths.losses import (
    AGGREGATIONS,
    CispoClip,
    Clip,
    NoClip,
    PpoClip,
    aggregate,
    clip_frac,
    count_loss_units,
    importance_ratio,
    loss_denominator,
    policy_loss,
    token_weights,
)
from tests.maths.padded_layout import (
    aggregate_padded,
    count_loss_units_padded,
    flatten_padded,
    padded_sequence_index,
    policy_loss_padded,
)

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


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("sequence", math.exp(-3)),  # the mean of ten, not e^-2: 0.0498, not 0.1353
        ("sequence_token", math.exp(-3)),
        ("sequence_sum", math.exp(-5)),  # -30 and +25 on the next: a clamp of each token first would leave +5
    ],
)
def test_clamps_come_after_the_sum(level: str, expected: float) -> None:
    logs = torch.zeros(10, dtype=torch.float64)
    logs[0], logs[1] = -30.0, 25.0 if level == "sequence_sum" else 0.0
    logs.requires_grad_()
    everything, index = torch.ones(10, dtype=torch.bool), torch.zeros(10, dtype=torch.long)
    ratio = importance_ratio(logs, torch.zeros_like(logs), everything, index, num_sequences=1, level=level)  # type: ignore[arg-type]
    close(ratio, *[expected] * 10)
    (slope,) = torch.autograd.grad(ratio[0], logs)
    assert slope[0].item() == pytest.approx(expected * (0.1 if level == "sequence" else 1.0))
