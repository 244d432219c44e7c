"""On-policy distillation by hand: divergences and their gradients, top-k, JSD, temperature, discount, turns, schedules.

The numbers are for pi = (.5, .3, .2) and nu = (.7, .2, .1), worked out on paper from the definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rollwright.batching import flatten
from rollwright.contracts.errors import UnknownComponent
from rollwright.curriculum import replayed_turns, turn_depth
from rollwright.maths.losses import (
    discounted_ahead,
    distillation_advantages,
    full_reverse_kl,
    jensen_shannon,
    kl_estimate,
    loss_denominator,
    top_k_reverse_kl,
)
from rollwright.maths.losses.aggregation import aggregate, count_loss_units
from rollwright.recipes.distill import AlgorithmSettings, apart, credit
from tests import builders

PI, NU = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)


def close(found: Tensor, *expected: float, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found.detach(), torch.tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


def mean_gradient(loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of E_a[loss of token a] in the logits, a ~ pi held fixed. loss: [3] log-probs -> [3]."""
    logits = PI.log().clone().requires_grad_()
    (PI * loss(logits.log_softmax(-1))).sum().backward()
    assert logits.grad is not None
    return logits.grad


def gradient_of(loss: Callable[[Tensor], Tensor], at: Tensor = PI) -> Tensor:
    """The same of a loss of the whole distribution. loss: [3] logits -> scalar."""
    logits = at.log().clone().requires_grad_()
    loss(logits).backward()
    assert logits.grad is not None
    return logits.grad


REVERSE = (-0.214253, 0.094030, 0.120223)
"""Logit gradient of the reverse KL: pi_v (x_v - KL)."""


# --- forms and their gradients --------------------------------------------------------------------------------------


def test_log_ratios_and_both_divergences() -> None:
    x = PI.log() - NU.log()
    close(x, -0.336472, 0.405465, 0.693147)
    close(full_reverse_kl(PI.log()[None], NU.log()[None]), 0.092033)
    close((NU * (NU.log() - PI.log())).sum()[None], 0.085123)  # forward


def test_the_sampled_token_has_the_gradient_of_the_reverse_kl() -> None:
    def sampled(logprobs: Tensor) -> Tensor:
        return -distillation_advantages(logprobs.detach(), NU.log(), clip=None) * logprobs

    close(mean_gradient(sampled), *REVERSE)
    close(gradient_of(lambda z: full_reverse_kl(z[None], NU.log()[None]).sum()), *REVERSE)
    close(mean_gradient(lambda logprobs: kl_estimate(logprobs, NU.log(), kind="k2")), *REVERSE)


def test_the_estimators_that_do_not() -> None:
    close(mean_gradient(lambda logprobs: kl_estimate(logprobs, NU.log(), kind="k3")), -0.2, 0.1, 0.1)
    close(mean_gradient(lambda logprobs: kl_estimate(logprobs, NU.log(), kind="k1")), 0, 0, 0)
    k3 = kl_estimate(PI.log(), NU.log(), kind="k3")
    close(mean_gradient(lambda logprobs: k3.detach() * logprobs), -0.014253, -0.005970, 0.020223)


def test_a_constant_baseline_leaves_the_mean_and_lowers_the_variance() -> None:
    x = PI.log() - NU.log()
    score = torch.eye(3, dtype=torch.float64) - PI  # [a, v] gradient of log pi(a) in logit v

    def moments(baseline: float) -> tuple[Tensor, float]:
        samples = (x - baseline)[:, None] * score
        mean = PI @ samples
        return mean, float(PI @ (samples[:, 0] - mean[0]).square())

    (plain, wide), (based, narrow) = moments(0.0), moments(0.092033)
    close(plain, *REVERSE)
    close(based, *REVERSE)
    assert (wide, narrow) == pytest.approx((0.004600, 0.002483), abs=1e-6)


def test_top_k_and_what_becomes_of_the_rest() -> None:
    own, theirs = PI.log()[:2], NU.log()[:2]  # the student's two likeliest tokens
    for rest, expected in (("raw", -0.046597), ("renormalise", 0.059537), ("tail", 0.092033)):
        close(top_k_reverse_kl(own, theirs, rest=rest)[None], expected)  # type: ignore[arg-type]


def test_only_the_raw_form_pushes_a_student_that_is_its_teacher() -> None:
    def at_the_teacher(rest: Any) -> Tensor:
        return gradient_of(lambda z: top_k_reverse_kl(z.log_softmax(-1)[:2], NU.log()[:2], rest=rest), at=NU)

    close(at_the_teacher("raw"), 0.07, 0.02, -0.09)
    at_pi = gradient_of(lambda z: top_k_reverse_kl(z.log_softmax(-1)[:2], PI.log()[:2], rest="raw"))
    close(at_pi, 0.1, 0.06, -0.16)
    for rest in ("renormalise", "tail"):
        close(at_the_teacher(rest), 0, 0, 0)


def test_jensen_shannon_and_its_ends() -> None:
    close(jensen_shannon(PI.log(), NU.log(), beta=0.5)[None], 0.021901)
    close(jensen_shannon(PI.log(), NU.log(), beta=0.01)[None] / 0.01, 0.084306)
    close(jensen_shannon(PI.log(), NU.log(), beta=0.99)[None] / 0.01, 0.090999)
    with pytest.raises(ValueError, match="between 0 and 1"):
        jensen_shannon(PI.log(), NU.log(), beta=1.0)


def test_another_temperature_makes_a_teacher_of_equal_logits_a_stranger() -> None:
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    sharp = logits / 0.5
    x = sharp.log_softmax(-1) - logits.log_softmax(-1)
    close(x[0, :1], 0.186334)
    close(full_reverse_kl(sharp, logits), 0.067131)
    assert float(full_reverse_kl(logits, logits)) == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), chunk=st.integers(1, 13))
def test_the_whole_vocabulary_in_chunks_is_the_plain_formula(seed: int, chunk: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    teacher = torch.randn(4, 11, generator=draws, dtype=torch.float64)
    logits = torch.randn(4, 11, generator=draws, dtype=torch.float64)
    logits[:, 3] = teacher[:, 3] = -torch.inf  # an id that nobody says
    weights = torch.rand(4, generator=draws, dtype=torch.float64)

    def plain(z: Tensor) -> Tensor:
        own, theirs = z.log_softmax(-1), teacher.log_softmax(-1)
        terms = own.exp() * (own.masked_fill(own.isinf(), 0) - theirs.masked_fill(theirs.isinf(), 0))
        return terms.sum(-1)

    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found, expected = full_reverse_kl(one, teacher, chunk=chunk), plain(two)
    torch.testing.assert_close(found, expected)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert one.grad is not None and two.grad is not None
    keep = torch.arange(11) != 3
    torch.testing.assert_close(one.grad[:, keep], two.grad[:, keep])


# --- discount, turns, schedules -------------------------------------------------------------------------------------


def test_a_discount_hides_which_digit_was_right() -> None:
    """A lock of 8 dials that blocks: uniform student, teacher .99 / .01."""
    right, wrong = math.log(0.5 / 0.99), math.log(0.5 / 0.01)
    assert (right + wrong) / 2 == pytest.approx(1.614463, abs=1e-6)
    # Behind a right digit at the first dial come further ones; a wrong one ends the episode.
    later = sum(0.5**dial * (right + wrong) / 2 for dial in range(7))
    for gamma, expected in ((0.0, 4.595), (1.0, 1.391)):
        ahead = discounted_ahead(torch.tensor([right, later]), torch.zeros(2).long(), num_sequences=1, gamma=gamma)
        assert wrong - float(ahead[0]) == pytest.approx(expected, abs=5e-4)


def test_the_discount_is_the_slow_sum_and_stays_in_its_episode() -> None:
    x, owners = torch.tensor([1.0, 10.0, 2.0, torch.nan, 4.0]), torch.tensor([0, 1, 0, 0, 0])
    found = discounted_ahead(x, owners, num_sequences=2, gamma=0.5)
    close(found[[0, 1, 2, 4]], 1 + 0.5 * 2 + 0.125 * 4, 10, 2 + 0.25 * 4, 4)
    assert found[3].isnan(), "what is unknown stays unknown"


def test_turn_mean_and_token_mean() -> None:
    """A turn of 8 tokens of KL .1 and one of 2 tokens of .4."""
    long, short = builders.turn(action=range(2, 10)), builders.turn(action=(2, 3))
    batch = flatten([builders.group(builders.episode("a", long, short))])
    losses = torch.tensor([0.1] * 8 + [0.4] * 2)
    for where, how, expected in (
        (batch, "token-mean", 0.16),
        (apart(batch), "seq-mean-token-mean", 0.25),
        (batch, "seq-mean-token-mean", 0.16),
    ):
        counts = count_loss_units(where.mask, where.sequence_index, num_sequences=where.num_sequences)
        found = aggregate(
            losses,
            where.mask,
            where.sequence_index,
            num_sequences=where.num_sequences,
            how=how,  # type: ignore[arg-type]
            denominator=loss_denominator([counts], how),  # type: ignore[arg-type]
        )
        assert float(found) == pytest.approx(expected)


def test_schedules_of_depth() -> None:
    depths = [turn_depth(step, first=1, every=6, most=30) for step in (0, 5, 6, 30, 174, 1000)]
    assert depths == [1, 1, 2, 6, 30, 30]
    assert [replayed_turns(step, length=10, every=5) for step in (0, 5, 45, 500)] == [9, 8, 0, 0]
    for bad in ({"first": 0, "every": 1, "most": 1}, {"first": 2, "every": 1, "most": 1}):
        with pytest.raises(ValueError, match="first"):
            turn_depth(0, **bad)
    with pytest.raises(ValueError, match="length"):
        replayed_turns(0, length=0, every=1)


# --- what must not be learned from ----------------------------------------------------------------------------------


def taught(scores: list[float], algorithm: AlgorithmSettings, weight: float = 0.0) -> tuple[Tensor, Tensor]:
    """Advantages and mask of two episodes of one turn, by a teacher that gave these scores."""
    turns = [builders.turn(action=(2, 3), reward=reward) for reward in (1.0, 0.0)]
    batch = flatten([builders.group(*(builders.episode(name, turn) for name, turn in zip("ab", turns, strict=True)))])
    teacher = torch.tensor(scores)
    known = teacher.isfinite()
    batch = batch.with_columns(logprobs_old=torch.full((4,), -1.0), logprobs_ref=teacher.nan_to_num(0.0)).masked(known)
    return credit(batch, algorithm, weight), batch.mask


def test_a_token_without_a_score_is_masked_and_never_certain() -> None:
    found, mask = taught([-1.5, torch.nan, -0.5, -9.0], AlgorithmSettings())
    assert mask.tolist() == [True, False, True, True]
    close(found, -0.5, 0.0, 0.5, -5.0)  # the last one clipped at -5; a score of 0.0 would have been an advantage of 1
    raw = distillation_advantages(torch.tensor([-1.0]), torch.tensor([torch.nan]))
    assert raw.isnan().all()


def test_the_advantage_of_a_reward_is_mixed_in() -> None:
    same = [-1.0] * 4  # the teacher is the student
    found, _ = taught(same, AlgorithmSettings(rl_to=1.0, advantage="dr_grpo"), weight=0.5)
    close(found, 0.25, 0.25, -0.25, -0.25)
    close(taught(same, AlgorithmSettings())[0], 0, 0, 0, 0)
    told = AlgorithmSettings(rl_from=0.0, rl_to=1.0, rl_steps=4)
    assert [told.rl_weight(step) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert [AlgorithmSettings(rl_to=0.5).rl_weight(step) for step in (0, 3)] == [0.5, 0.5]


def test_what_is_not_the_students_own_has_no_advantage() -> None:
    from rollwright.contracts import Span

    spans = (Span(start=0, end=1, version=0, producer="guide"), Span(start=1, end=2, version=0))
    batch = flatten([builders.group(builders.episode("a", builders.turn(action=(2, 3), spans=spans)))])
    assert len(batch) == 1, "a guide's token is context, no entry of the batch"
    with pytest.raises((ValueError, UnknownComponent)):
        top_k_reverse_kl(PI.log(), NU.log(), rest="drop")  # type: ignore[arg-type]


# --- what it is worth: a table of logits ----------------------------------------------------------------------------


def tabular(seed: int, *, slip: str, distil: bool, dials: int = 8, group: int = 8, rate: float = 4.0) -> int:
    """Episodes until the lock opens with .9, by softmax policies of two digits per dial; digit 1 is right.

    Distillation has a teacher of .99 / .01, Dr. GRPO the reward against the group's mean; one token a turn, token-mean.
    """
    draws, logits = torch.Generator().manual_seed(seed), torch.zeros(dials, 2)
    teacher = torch.tensor([0.01, 0.99]).log()
    for step in range(1, 400):
        logprobs = logits.log_softmax(-1)
        played: list[tuple[int, int, int]] = []
        solved = torch.zeros(group)
        for member in range(group):
            dial = 0
            for _ in range(32):
                digit = int(torch.rand((), generator=draws) < logprobs[dial, 1].exp())
                played.append((member, dial, digit))
                dial = dial + 1 if digit else 0
                if dial == dials:
                    solved[member] = 1.0
                if dial == dials or (slip == "over" and not digit):
                    break
        who, where, what = torch.tensor(played).T
        chosen = logprobs[where, what]
        gains = distillation_advantages(chosen, teacher[what]) if distil else (solved - solved.mean())[who]
        pushes = torch.nn.functional.one_hot(what, 2) - logprobs[where].exp()
        logits.index_add_(0, where, rate * gains[:, None] * pushes / len(played))
        if chance(logits.log_softmax(-1)[:, 1].exp(), slip) >= 0.9:
            return step * group
    return 10_000


def chance(right: Tensor, slip: str, turns: int = 32) -> float:
    """Probability to open the lock within the turns."""
    if slip == "over":
        return float(right.prod())
    standing = torch.zeros(len(right) + 1)
    standing[0] = 1.0
    for _ in range(turns):
        moved = torch.zeros_like(standing)
        moved[1:] = standing[:-1] * right
        moved[0] = (standing[:-1] * (1 - right)).sum()
        moved[-1] += standing[-1]
        standing = moved
    return float(standing[-1])


@pytest.mark.long
def test_in_a_table_the_teacher_is_worth_most_of_the_episodes() -> None:
    for slip, most, ratio in (("back", 60, 10), ("over", 800, 1.5)):
        by_teacher = [tabular(seed, slip=slip, distil=True) for seed in range(2)]
        by_reward = [tabular(seed, slip=slip, distil=False) for seed in range(2)]
        assert max(by_teacher) <= most
        assert min(by_reward) >= ratio * max(by_teacher), (by_teacher, by_reward)
