"""The parity gate by hand-made numbers; with a real engine see test_engine_vllm and test_engine_transformers."""

from __future__ import annotations

import math

import pytest

from rollwright.contracts.errors import ParityError
from rollwright.contracts.record import Turn
from rollwright.generation.parity import Sampled, check_parity, measure_parity


def action(*logprobs: float) -> Sampled:
    return Sampled(prompt_ids=(1, 2), action_ids=tuple(range(len(logprobs))), logprobs=logprobs)


def test_differences_by_hand():
    # |-1.0 - -1.5| = 0.5, |-2.0 - -2.0| = 0, |-3.0 - -2.75| = 0.25; ratios e^-0.5, 1, e^0.25
    parity = measure_parity([action(-1.0, -2.0), action(-3.0)], [[-1.5, -2.0], [-2.75]])
    assert (parity.max_difference, parity.mean_difference, parity.num_tokens) == (0.5, 0.25, 3)
    assert parity.ratio_mean == pytest.approx((math.exp(-0.5) + 1 + math.exp(0.25)) / 3)


@pytest.mark.parametrize(
    ("dtype", "difference", "passes"),
    [("float32", 9e-4, True), ("float32", 1.1e-3, False), ("bfloat16", 0.079, True), ("bfloat16", 0.081, False)],
)
def test_the_limits(dtype: str, difference: float, passes: bool):
    parity = measure_parity([action(-1.0)], [[-1.0 - difference]])
    if passes:
        assert check_parity(parity, dtype=dtype) is parity  # type: ignore[arg-type]
        return
    with pytest.raises(ParityError) as caught:
        check_parity(parity, dtype=dtype, where="after update 3")  # type: ignore[arg-type]
    message = str(caught.value)
    for part in ("after update 3", f"{difference:.3g}", dtype, "tied", "skipped", "temperature"):
        assert part in message


def test_hints_begin_with_what_this_model_is_known_for():
    parity = measure_parity([action(-1.0)], [[-2.0]])
    facts = ["attention looks back 16 tokens (sliding_window)", "attn_pdrop=0.1"]
    with pytest.raises(
        ParityError, match=r"names .*: attention looks back 16 .*; attn_pdrop=0\.1\. Look at: a skipped"
    ):
        check_parity(parity, dtype="float32", facts=facts)


def test_one_bad_token_among_many_fails_in_fp32_but_not_on_the_bf16_mean():
    parity = measure_parity([action(*[-1.0] * 100)], [[-1.0] * 99 + [-1.4]])
    check_parity(parity, dtype="bfloat16")
    with pytest.raises(ParityError):
        check_parity(parity, dtype="float32")


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_log_prob_that_is_no_number_never_passes(broken: float, dtype: str):
    parity = measure_parity([action(-1.0, -1.0, -1.0)], [[-1.0, broken, -1.0]])
    with pytest.raises(ParityError):
        check_parity(parity, dtype=dtype)  # type: ignore[arg-type]


def test_nothing_to_compare_and_unequal_lengths_are_errors():
    with pytest.raises(ValueError, match="at least one"):
        measure_parity([], [])
    with pytest.raises(ValueError, match="zip"):
        measure_parity([action(-1.0, -1.0)], [[-1.0]])


def test_a_stored_turn_can_be_checked():
    turn = Turn(prompt_ids=(1,), action_ids=(2, 3), action_logprobs=(-0.5, -0.5), text="x")
    assert measure_parity([Sampled.of_turn(turn)], [[-0.5, -0.5]]).max_difference == 0
