"""The composed loss: on fresh data every method is REINFORCE; KL, entropy, corrections add what they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rollwright.objective import PolicyObjective
from rollwright.records import TokenRecord


def record(logprobs: torch.Tensor, **changes: Any) -> TokenRecord:
    n = logprobs.numel()
    values: dict[str, Any] = {
        "mask": torch.ones(n, dtype=torch.bool),
        "sequence_index": torch.zeros(n, dtype=torch.long),
        "num_sequences": 1,
        "versions": torch.zeros(n, dtype=torch.long),
        "weights": torch.ones(n),
        "logprobs_sampled": logprobs.detach(),
        "advantages": torch.tensor([1.0, -2.0, 0.5])[:n],
        "logprobs": logprobs,
        "logprobs_old": logprobs.detach(),
    }
    return TokenRecord(**(values | changes))


def gradient(objective: PolicyObjective, **changes: Any) -> list[float]:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    objective(record(logprobs, **changes)).losses.sum().backward()
    assert logprobs.grad is not None
    return [round(g, 5) for g in logprobs.grad.tolist()]


@pytest.mark.parametrize("name", ["ppo", "cispo", "gspo_token", "reinforce"])
def test_on_fresh_data_every_method_has_the_gradient_of_reinforce(name: str) -> None:
    assert gradient(PolicyObjective(loss_name=name, correction="none")) == [-1.0, 2.0, -0.5]


def test_truncated_importance_weights_multiply_the_gradient_up_to_the_cap() -> None:
    sampled = torch.tensor([-1.5, -2.0, -3.5])  # learner over engine: e^0.5 = 1.64872, 1, e^3 -> 2
    expected = [-1.64872, 2.0, -1.0]
    assert gradient(PolicyObjective(loss_name="ppo", correction_cap=2.0), logprobs_sampled=sampled) == expected
    assert gradient(PolicyObjective(loss_name="ppo", correction="none"), logprobs_sampled=sampled) == [-1.0, 2.0, -0.5]


def test_the_kl_term_has_its_coefficient_and_needs_the_reference() -> None:
    objective = PolicyObjective(loss_name="reinforce", kl_coef=0.1, kl_kind="k2", correction="none")
    assert objective.needs_reference
    # gradient of 0.1 * x^2 / 2 is 0.1 * x, with x = logprob - reference
    assert gradient(objective, logprobs_ref=torch.tensor([-2.0, -2.0, -0.5])) == [-0.9, 2.0, -0.5]
    with pytest.raises(ValueError, match="logprobs_ref"):
        gradient(objective)


def test_entropy_is_subtracted() -> None:
    objective = PolicyObjective(loss_name="reinforce", entropy_coef=0.5)
    logprobs = torch.tensor([-1.0], requires_grad=True)
    tokens = record(logprobs, entropy=torch.tensor([3.0]), advantages=torch.tensor([0.0]))
    assert objective.with_entropy and objective(tokens).losses.tolist() == [-1.5]


def test_masked_tokens_have_no_loss_and_no_gradient() -> None:
    mask = torch.tensor([True, False, True])
    assert gradient(PolicyObjective(), mask=mask)[1] == 0.0


def test_sequence_methods_ask_for_whole_sequences() -> None:
    asks = {name: PolicyObjective(loss_name=name).whole_sequences for name in ("ppo", "gspo", "rloo_sequence")}
    assert asks == {"ppo": False, "gspo": True, "rloo_sequence": True}
    assert PolicyObjective(correction="sequence_tis").whole_sequences


def test_metrics_are_sums_and_counts_over_unmasked_tokens() -> None:
    tokens = record(torch.tensor([-1.0, -2.0, -0.5]), logprobs_sampled=torch.tensor([-1.3, -2.0, -0.5]))
    metrics = PolicyObjective()(tokens).metrics
    total, count = metrics["policy/sampler_gap_mean"]
    assert round(float(total) / float(count), 4) == 0.1
