"""The composed loss: on fresh data every method is REINFORCE; KL, entropy, corrections add what they should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rollwright.batching import Segment, TokenBatch
from rollwright.config import build, make_part
from rollwright.contracts.errors import ConfigError
from rollwright.learner.learner_settings import PolicyLossSettings
from rollwright.learner.objective import PolicyObjective, objective_of
from rollwright.learner.policy_losses import LOSSES, Ppo, Reinforce


def record(logprobs: torch.Tensor, **changes: Any) -> TokenBatch:
    n = logprobs.numel()
    batch = TokenBatch.of([Segment(prompt_ids=(1,), action_ids=(2,) * n, sequence=0)])
    values: dict[str, Any] = {
        "versions": torch.zeros(n, dtype=torch.long),
        "logprobs_sampled": logprobs.detach(),
        "advantages": torch.tensor([1.0, -2.0, 0.5])[:n],
        "logprobs": logprobs,
        "logprobs_old": logprobs.detach(),
    }
    return replace(batch, **(values | changes))


def gradient(objective: PolicyObjective, **changes: Any) -> list[float]:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    objective(record(logprobs, **changes)).losses.sum().backward()
    assert logprobs.grad is not None
    return [round(g, 5) for g in logprobs.grad.tolist()]


@pytest.mark.parametrize("name", ["ppo", "cispo", "gspo_token", "reinforce"])
def test_on_fresh_data_every_method_has_the_gradient_of_reinforce(name: str) -> None:
    assert gradient(PolicyObjective(loss=make_part(LOSSES, name, {}), correction="none")) == [-1.0, 2.0, -0.5]


def test_truncated_importance_weights_multiply_the_gradient_up_to_the_cap() -> None:
    sampled = torch.tensor([-1.5, -2.0, -3.5])  # learner over engine: e^0.5 = 1.64872, 1, e^3 -> 2
    expected = [-1.64872, 2.0, -1.0]
    assert gradient(PolicyObjective(loss=Ppo(), correction_cap=2.0), logprobs_sampled=sampled) == expected
    assert gradient(PolicyObjective(loss=Ppo(), correction="none"), logprobs_sampled=sampled) == [-1.0, 2.0, -0.5]


def test_the_kl_term_has_its_coefficient_and_needs_the_reference() -> None:
    objective = PolicyObjective(loss=Reinforce(), kl_coef=0.1, kl_kind="k2", correction="none")
    assert objective.needs_reference
    # gradient of 0.1 * x^2 / 2 is 0.1 * x, with x = logprob - reference
    assert gradient(objective, logprobs_ref=torch.tensor([-2.0, -2.0, -0.5])) == [-0.9, 2.0, -0.5]
    with pytest.raises(ValueError, match="logprobs_ref"):
        gradient(objective)


def test_entropy_is_subtracted() -> None:
    objective = PolicyObjective(loss=Reinforce(), entropy_coef=0.5)
    logprobs = torch.tensor([-1.0], requires_grad=True)
    tokens = record(logprobs, entropy=torch.tensor([3.0]), advantages=torch.tensor([0.0]))
    assert objective.with_entropy and objective(tokens).losses.tolist() == [-1.5]


def test_masked_tokens_have_no_loss_and_no_gradient() -> None:
    mask = torch.tensor([True, False, True])
    assert gradient(PolicyObjective(), mask=mask)[1] == 0.0


def test_sequence_methods_ask_for_whole_sequences() -> None:
    asks = {
        name: PolicyObjective(loss=make_part(LOSSES, name, {})).whole_sequences
        for name in ("ppo", "gspo", "rloo_sequence")
    }
    assert asks == {"ppo": False, "gspo": True, "rloo_sequence": True}
    assert PolicyObjective(correction="sequence_tis").whole_sequences


def test_metrics_are_sums_and_counts_over_unmasked_tokens() -> None:
    tokens = record(torch.tensor([-1.0, -2.0, -0.5]), logprobs_sampled=torch.tensor([-1.3, -2.0, -0.5]))
    metrics = PolicyObjective()(tokens).metrics
    total, count = metrics["policy/sampler_gap_mean"]
    assert round(float(total) / float(count), 4) == 0.1


TWO = {"turn_index": torch.tensor([0, 0, 1]), "trajectory_index": torch.tensor([0, 1]), "num_sequences": 2}
DRIFTED = {**TWO, "logprobs_sampled": torch.tensor([-2.0, -2.0, -0.5])}  # log weights 1, 0 and 0


def from_keys(**keys: Any) -> PolicyObjective:
    """The objective that these keys of the YAML make."""
    return objective_of(build(PolicyLossSettings, keys))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # advantages 1, -2, 0.5; the plain gradient is -1, 2, -0.5. e = 2.71828 lies above a cap of 2.
        ({"correction": "none"}, [-1.0, 2.0, -0.5]),
        ({}, [-2.0, 2.0, -0.5]),
        ({"correction": "token_tis", "correction_cap": 5.0}, [-2.71828, 2.0, -0.5]),
        ({"correction": "sequence_tis"}, [-2.0, 4.0, -0.5]),
        ({"correction": "token_mask"}, [0.0, 2.0, -0.5]),
        ({"correction": "sequence_mask"}, [0.0, 0.0, -0.5]),
        ({"correction": "sequence_mask", "correction_cap": 3.0}, [-2.71828, 5.43656, -0.5]),
        # The first sequence has a mean advantage below 0 and a mean drift log pi_sampler - log pi of -0.5: it stays.
        ({"correction": "none", "sequence_filter": "off_policy"}, [-1.0, 2.0, -0.5]),
    ],
)
def test_each_correction_key_changes_the_gradient_as_its_formula_says(keys: Any, expected: list[float]) -> None:
    assert gradient(from_keys(**keys), **DRIFTED) == expected


@pytest.mark.parametrize(("threshold", "expected"), [(0.1, [0.0, 0.0, -0.5]), (0.6, [-1.0, 2.0, -0.5])])
def test_a_bad_sequence_that_the_policy_moved_away_from_is_masked(threshold: float, expected: list[float]) -> None:
    moved = {**TWO, "logprobs_sampled": torch.tensor([0.0, -2.0, 5.0])}  # drift 1, 0 (mean 0.5); 5.5 of a good one
    keys = {"correction": "none", "sequence_filter": "off_policy", "filter_threshold": threshold}
    assert gradient(from_keys(**keys), **moved) == expected


def test_masks_and_the_geometric_filter_also_change_the_denominator() -> None:
    tokens = record(torch.tensor([-1.0, -2.0, -0.5]), **DRIFTED)
    kept = {
        name: from_keys(**keys).keep(tokens).tolist()
        for name, keys in {
            "token": {"correction": "token_mask"},
            "sequence": {"correction": "sequence_mask"},
            "narrow": {"sequence_filter": "geometric"},
            "wide": {"sequence_filter": "geometric", "filter_high": 1.7},  # mean weight e^0.5 = 1.649
        }.items()
    }
    assert kept == {
        "token": [False, True, True],
        "sequence": [False, False, True],
        "narrow": [False, False, True],
        "wide": [True, True, True],
    }
    assert not PolicyObjective().filters and from_keys(correction="token_mask").filters


@pytest.mark.parametrize(
    "keys",
    [
        {"correction": "none", "correction_cap": 3.0},
        {"filter_low": 0.9},
        {"filter_high": 1.1},
        {"sequence_filter": "off_policy", "filter_high": 1.1},
        {"sequence_filter": "geometric", "filter_threshold": 0.2},
    ],
)
def test_a_key_that_the_chosen_correction_does_not_read_is_refused(keys: Any) -> None:
    with pytest.raises(ConfigError, match="no effect"):
        build(PolicyLossSettings, keys)


def test_the_default_correction_is_token_truncation_alone() -> None:
    assert from_keys() == PolicyObjective(correction="token_tis", correction_cap=2.0, sequence_filter="none")
