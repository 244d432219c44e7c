"""Around the policy loss: KL, value loss, entropy, corrections for another sampler, shaping, what can teach."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rollwright.maths.losses import (
    approximate_kl,
    clip_frac,
    combine,
    count_loss_units,
    filter_geometric,
    filter_off_policy,
    kl_estimate,
    kl_loss,
    kl_shaped_rewards,
    mask_sequences,
    mask_tokens,
    masked_mean,
    overlong_penalty,
    sampler_log_weights,
    truncate_sequences,
    truncate_tokens,
    value_loss,
)


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def i(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


def close(actual: Tensor, *expected: float) -> None:
    torch.testing.assert_close(actual.detach().double(), f(*expected), atol=5e-7, rtol=0)


def test_kl_estimates_by_hand() -> None:
    values = {kind: kl_estimate(f(0.5), f(0), kind=kind).item() for kind in ("k1", "abs", "k2", "k3", "k3+")}
    assert values == pytest.approx({"k1": 0.5, "abs": 0.5, "k2": 0.125, "k3": 0.106531, "k3+": 0.106531}, abs=5e-7)
    assert kl_estimate(f(-0.5), f(0), kind="abs").item() == 0.5
    with pytest.raises(ValueError, match="unknown KL estimate 'k4'"):
        kl_estimate(f(0), f(0), kind="k4")


@pytest.mark.parametrize("kind", ["k1", "k2", "k3", "abs", "k3+"])
def test_no_kl_estimate_is_clamped_before_floats_end(kind: str) -> None:
    """At log pi - log pi_ref = -2.65, k3 is 10.50 and its slope -13.15, by the paper; far out all stay finite."""
    slopes = {"k1": 1.0, "k2": -2.65, "k3": 1 - math.exp(2.65), "abs": -1.0, "k3+": -2.65}
    values = {"k1": -2.65, "k2": 0.5 * 2.65**2, "abs": 2.65} | dict.fromkeys(("k3", "k3+"), math.exp(2.65) - 3.65)
    logprob = torch.tensor([-2.65], requires_grad=True)
    estimate = kl_estimate(logprob, torch.zeros(1), kind=kind)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(estimate.sum(), logprob)
    assert estimate.item() == pytest.approx(values[kind], rel=1e-6) and slope.item() == pytest.approx(slopes[kind])
    for far in (-30.0, -500.0, -1e4, 30.0, 1e4):
        logprob = torch.tensor([far], requires_grad=True)
        estimate = kl_estimate(logprob, torch.zeros(1), kind=kind)  # type: ignore[arg-type]
        (slope,) = torch.autograd.grad(estimate.sum(), logprob)
        assert estimate.isfinite() and slope.isfinite()
        assert slope.item() != 0 and (kind == "k1" or slope.sign().item() == math.copysign(1, far))


def test_masked_tokens_may_hold_anything_in_the_kl_term() -> None:
    logprobs = torch.tensor([-1.0, -math.inf], requires_grad=True)
    losses = kl_loss(logprobs, logprobs, f(-1.5, 0.0).float(), i(1, 0) == 1, kind="k3", ratio_weighted=False)
    losses.sum().backward()
    assert logprobs.grad is not None and logprobs.grad.isfinite().all() and losses[1] == 0


def test_the_monitored_kl_counts_what_a_far_token_has() -> None:
    everything = i(1, 1) == 1
    assert approximate_kl(f(-1, -1), f(-26, -1), everything) == pytest.approx((math.exp(25) - 26) / 2)


def test_sequence_corrections_clamp_after_the_sum() -> None:
    """-30 on one token of ten, +25 on another: product e^-5; the geometric mean of -30 alone is e^-3."""
    everything, index = torch.ones(10, dtype=torch.bool), torch.zeros(10, dtype=torch.long)
    old = torch.zeros(10, dtype=torch.float64)
    sampled = old.clone()
    sampled[0] = 30.0
    mean_only = sampler_log_weights(old, sampled, everything)
    inside = filter_geometric(mean_only, everything, index, num_sequences=1, low=0.06, high=1.0)
    assert not inside.mask.any()  # 0.0498; a clamp of the token would have made it 0.1353
    sampled[1] = -25.0
    logs = sampler_log_weights(old, sampled, everything)
    for correct in (truncate_sequences, mask_sequences):
        weights = correct(logs, everything, index, num_sequences=1, cap=10.0).weights
        close(weights, *[math.exp(-5)] * 10)
    drift = filter_off_policy(
        old, sampled, torch.full_like(old, -1.0), everything, index, num_sequences=1, threshold=0.45
    )
    assert not drift.mask.any()  # mean drift (30 - 25) / 10 = 0.5; of clamped tokens it would be 0


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
    generator, count, index = torch.Generator().manual_seed(3), 4, torch.arange(14) % 4
    mask = torch.rand(14, generator=generator) < 0.8
    logprobs = -3 * torch.rand(14, generator=generator, dtype=torch.float64)
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)[index]
    logs = sampler_log_weights(logprobs, logprobs.clone(), mask)
    everything = combine(
        truncate_tokens(logs, mask, cap=2.0),
        truncate_sequences(logs, mask, index, num_sequences=count, cap=2.0),
        mask_tokens(logs, mask, cap=2.0),
        mask_sequences(logs, mask, index, num_sequences=count, cap=2.0),
        filter_geometric(logs, mask, index, num_sequences=count),
        filter_off_policy(logprobs, logprobs, advantages, mask, index, num_sequences=count, threshold=0.0),
    )
    assert (everything.weights == 1).all() and torch.equal(everything.mask, mask)


def test_undefined_sampler_logprobs_weigh_one() -> None:
    mask = i(1, 1, 1, 0) == 1
    logs = sampler_log_weights(f(-1, -1, -1, math.nan), f(math.nan, -math.inf, -101, 0), mask)
    assert logs.tolist() == [0, 0, 100, 0]
    close(truncate_tokens(logs, mask, cap=1e12).weights / math.exp(20), math.exp(-20), math.exp(-20), 1, math.exp(-20))
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


def test_metrics_count_unmasked_tokens_only() -> None:
    mask = i(1, 1, 0) == 1
    assert masked_mean(f(1, 3, math.nan), mask) == 2.0 and masked_mean(f(1), i(0) == 1) == 0.0
    assert clip_frac(i(1, 0, 1) == 1, mask) == 0.5
    # k3 towards the policy that sampled: e^.5 - .5 - 1 on one of two tokens.
    assert approximate_kl(f(0.5, 0, math.nan), f(0, 0, 0), mask) == pytest.approx((math.exp(0.5) - 1.5) / 2)
