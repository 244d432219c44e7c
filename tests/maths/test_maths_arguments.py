"""What the public functions of the maths refuse: words, lengths and numbers that would change the method in silence.

The table holds one sound call of each public function that could be called wrongly. Introspection finds every argument
that takes words, so a new one without a line here fails.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor

from rollwright.batching import credit, estimators
from rollwright.batching.estimators import ADVANTAGES
from rollwright.batching.value_estimators import VALUE_ADVANTAGES, Gae
from rollwright.config import load_part
from rollwright.contracts.choices import require_choice
from rollwright.contracts.errors import UnknownComponent
from rollwright.contracts.record import StopReason, Task
from rollwright.critics.outcome_values import outcomes
from rollwright.critics.replay_updates import WebRLObjective
from rollwright.learner import objective
from rollwright.maths import advantages, guided_masks, guided_mode, losses, statistics
from rollwright.maths import sequences as segments
from rollwright.maths import value_targets as values
from rollwright.maths.statistics import reliability as calibration
from rollwright.store.replay import above, in_perplexity_band
from tests import builders
from tests.maths import padded_layout


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


def i(*numbers: int) -> Tensor:
    return torch.tensor(numbers)


TASK = Task(id="t", split="train")
TURN = builders.turn((1,), (2, 3), 1.0, text="x")
BATCH = credit.flatten(
    [builders.group(*(builders.episode(name, TURN, task=TASK, stop=StopReason.MAX_TURNS) for name in "ab"))]
)
MASK = torch.ones(4, dtype=torch.bool)
INDEX, TWO = i(0, 0, 1, 1), {"num_sequences": 2}
LOGPROBS, OLD = f(-1, -2, -3, -4), f(-1.1, -2, -3, -4)
TOKENS = {"logprobs": LOGPROBS, "logprobs_old": OLD, "advantages": f(1, 1, -1, -1), "mask": MASK}
ROWS = {name: value.reshape(2, 2) for name, value in TOKENS.items()}
TURNS = {"rewards": f(0, 1, 0, 1), "values": f(1, 2, 3, 4), "turn_index": i(0, 0, 1, 1), "trajectory_index": i(0, 1)}
STEPS = {"values": f(0.1, 0.2, 0.3), "trajectory_index": i(0, 0, 1), "outcomes": f(1, 0), "last_values": f(0, 0.5)}
WEBRL = {"logprobs": LOGPROBS, "logprobs_ref": OLD, "mask": MASK, "sequence_index": INDEX, **TWO}
GAMMAS = {"gamma": 1.0, "gae_lambda": 1.0}
ENDS = {"last_values": f(0, 1)}
INTERVAL = statistics.Interval(point=0.1, low=0.0, high=0.2, confidence=0.95)
PAIRED = {"a": [0.0, 1.0, 1.0], "b": [1.0, 0.0, 1.0]}
RUNS = statistics.RunScores(name="r", scores=np.array([[0.0, 1.0], [0.5, 1.0]]))


def gae_of_a_batch(values: Tensor, last_values: Tensor) -> Any:
    return Gae(gae_lambda=1.0)(BATCH, values, last_values)


def named(function: Callable[..., Any]) -> str:
    """Such as advantages.gae: two modules may use one name."""
    return f"{function.__module__.split('.')[2]}.{function.__name__}"


@dataclass(frozen=True)
class Call:
    """A function, arguments that it takes, and which of its tensors must be finite everywhere."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    finite: tuple[str, ...] = ()
    lengths: tuple[str, ...] = field(default=())

    def __call__(self, **changed: Any) -> Any:
        return self.function(**(self.arguments | changed))


def scored(function: Callable[..., Tensor], **more: Any) -> Call:
    return Call(
        function, {"scores": f(1, 0), "group_index": i(0, 0), **more}, ("scores", *(k for k in more if k == "lengths"))
    )


CALLS = {
    named(call.function): call
    for call in (
        *(scored(getattr(advantages, name)) for name in ("group_mean", "dr_grpo", "grpo", "rloo")),
        scored(advantages.pass_at_k_advantages),
        Call(guided_masks, {"positions": i(0, 1), "prefix": i(1, 1), "mode": "ppo++"}),
        Call(guided_mode, {"method": "lols", "step": 0, "seed": 0, "ppo_frac": 0.5, "switch_step": 1}),
        scored(advantages.opo, lengths=f(2, 1)),
        Call(
            advantages.remax,
            {"scores": f(1, 0), "greedy_scores": f(1, 1)},
            ("scores", "greedy_scores"),
            ("greedy_scores",),
        ),
        Call(
            advantages.gigpo,
            {
                "turn_rewards": f(1, 0),
                "trajectory_index": i(0, 1),
                "anchors": ["s", "s"],
                "group_index": i(0, 0),
                "gamma": 1.0,
                "scale": "none",
                "episode_mean": "turns",
            },
            ("turn_rewards",),
            ("turn_rewards", "anchors"),
        ),
        Call(advantages.reinforce, {"rewards": f(0, 1), "sequence_index": i(0, 0), "gamma": 1.0, **TWO}, ("rewards",)),
        Call(
            advantages.returns_to_go,
            {"rewards": f(0, 1), "sequence_index": i(0, 0), "gamma": 1.0, **TWO},
            ("rewards",),
            ("rewards",),
        ),
        Call(
            advantages.reinforce_plus_plus,
            {"rewards": f(0, 1), "sequence_index": i(0, 0), "gamma": 1.0, **TWO},
            ("rewards",),
            ("rewards",),
        ),
        Call(
            advantages.reinforce_plus_plus_baseline,
            {"rewards": f(0, 1), "sequence_index": i(0, 1), "group_index": i(0, 0), **TWO},
            ("rewards",),
            ("rewards", "group_index"),
        ),
        Call(
            advantages.gae,
            {"rewards": f(0, 1), "values": f(1, 2), "sequence_index": i(0, 1), **TWO, **GAMMAS, **ENDS},
            ("rewards", "values", "last_values"),
            ("rewards", "values", "last_values"),
        ),
        Call(
            padded_layout.gae_padded,
            {"rewards": f(0, 1)[None], "values": f(1, 2)[None], "mask": MASK[:2][None], **GAMMAS},
            ("rewards", "values"),
        ),
        Call(
            padded_layout.returns_to_go_padded,
            {"rewards": f(0, 1)[None], "mask": MASK[:2][None], "gamma": 1.0},
            ("rewards",),
        ),
        Call(padded_layout.check_rewards, {"rewards": f(0, 1), "mask": MASK[:2]}, ("rewards",), ("mask",)),
        Call(
            advantages.bootstrap_values,
            {"values_after": f(1, 2), "terminated": MASK[:2], "truncated": ~MASK[:2]},
            (),
            ("terminated", "truncated"),
        ),
        *(
            Call(
                function,
                {**TURNS, **GAMMAS, **ENDS, **more},
                ("rewards", "values", "last_values"),
                ("rewards", "values", "last_values"),
            )
            for function, more in (
                (advantages.turn_gae, {}),
                (advantages.bilevel_gae_v1, {"turn_gamma": 1.0}),
                (
                    advantages.bilevel_gae_v2,
                    {"turn_gamma": 1.0, "turn_gae_lambda": 1.0, "turn_reward": "sum"},
                ),
            )
        ),
        *(
            Call(getattr(advantages, name), STEPS, ("values", "outcomes", "last_values"), ("values", "last_values"))
            for name in ("digirl", "digirl_released", "webrl", "webrl_released")
        ),
        Call(advantages.awr_weights, {"advantages": f(1, 2), "temperature": 1.0}, ("advantages",)),
        Call(advantages.whiten, {"values": f(1, 2)}, ("values",)),
        Call(
            values.lambda_returns,
            {"rewards": f(0, 1), "values": f(1, 2), "sequence_index": i(0, 1), **ENDS, **GAMMAS},
            ("rewards", "values", "last_values"),
            ("rewards", "values"),
        ),
        Call(values.dual_value_loss, {"values": f(1), "targets": f(2), "divergence": "tv", "alpha": 0.7}),
        Call(values.dual_weights, {"advantages": f(1), "divergence": "chi2"}, ("advantages",)),
        Call(losses.importance_ratio, {k: v for k, v in TOKENS.items() if k != "advantages"}
             | {"sequence_index": INDEX, "level": "token", **TWO}),
        Call(losses.policy_loss, {**TOKENS, "sequence_index": INDEX, "level": "token", "clip": losses.NoClip(), **TWO}),
        Call(padded_layout.policy_loss_padded, {**ROWS, "level": "token", "clip": losses.NoClip()}),
        Call(losses.kl_estimate, {"logprobs": LOGPROBS, "logprobs_ref": OLD, "kind": "k1"}),
        Call(losses.top_k_reverse_kl, {"logprobs": LOGPROBS, "logprobs_teacher": OLD, "rest": "tail"}),
        Call(losses.kl_loss, {"logprobs": LOGPROBS, "logprobs_old": OLD, "logprobs_ref": OLD, "mask": MASK,
                              "kind": "k3", "ratio_weighted": True}),
        Call(losses.kl_shaped_rewards, {"rewards": LOGPROBS, "logprobs": LOGPROBS, "logprobs_ref": OLD,
                                        "kl_coef": 1.0, "kind": "k1"}),
        Call(losses.loss_denominator, {"counts": [losses.LossCounts(num_tokens=1, num_sequences=1, num_rows=1)],
                                       "how": "token-mean"}),
        Call(losses.token_weights, {"mask": MASK, "sequence_index": INDEX, "how": "token-mean", "denominator": 1.0,
                                    **TWO}),
        Call(losses.aggregate, {"losses": LOGPROBS, "mask": MASK, "sequence_index": INDEX, "how": "token-mean",
                                "denominator": 1.0, **TWO}),
        Call(padded_layout.aggregate_padded, {"losses": ROWS["logprobs"], "mask": ROWS["mask"], "how": "token-mean",
                                       "denominator": 1.0}),
        Call(losses.webrl_released_loss, {**WEBRL, "targets": f(1, -1), "num_tokens": "turn"}),
        Call(estimators.Gigpo, {"gigpo_scale": "std"}),
        Call(estimators.estimator_needs, {"name": "rloo", "what": "siblings"}),
        Call(estimators.estimators_that_need, {"what": "siblings"}),
        Call(gae_of_a_batch, {"values": f(1, 2, 3, 4), **ENDS}, ("values", "last_values"), ("values", "last_values")),
        Call(objective.PolicyObjective, {}),
        Call(statistics.paired_difference, {"a": PAIRED, "b": PAIRED, "pair_episodes": True, "target": "these"}),
        Call(statistics.run_difference, {"a": RUNS, "b": RUNS, "num_episodes": 8, "target": "these"}),
        Call(statistics.PairedDifference, {"name_a": "A", "name_b": "B", "target": "these", "unit": "start",
                                           "interval": INTERVAL, "p_value": 0.1,
                                           "num_units": 6, "units_each": 3, "num_tasks": 2, "num_episodes": 6,
                                           "degrees": 5.0}),
    )
}  # fmt: skip
MODULES = (advantages, losses, values, credit, estimators, statistics, calibration, segments, objective)


def public_callables() -> Iterator[Callable[..., Any]]:
    for module in MODULES:
        for name in getattr(module, "__all__", dir(module)):
            member = getattr(module, name)
            inside = getattr(member, "__module__", "").startswith(module.__name__)
            if inside and not name.startswith("_") and callable(member):
                yield member


def literal_words(hint: Any) -> list[str]:
    """The words of a Literal, alone or in a union."""
    if get_origin(hint) is Literal:
        return [word for word in get_args(hint) if isinstance(word, str)]
    if get_origin(hint) in (types.UnionType, Union):
        return [word for part in get_args(hint) for word in literal_words(part)]
    return []


def word_arguments() -> list[tuple[str, str, list[str]]]:
    found = []
    for function in public_callables():
        if inspect.isclass(function) and not hasattr(function, "__dataclass_fields__"):
            continue
        hints = get_type_hints(function)
        found += [(named(function), name, words) for name, hint in hints.items() if (words := literal_words(hint))]
    return found


WORDS = word_arguments()


def test_there_is_a_call_for_every_argument_that_takes_words() -> None:
    assert len(WORDS) >= 20
    assert {function for function, _, _ in WORDS} <= CALLS.keys(), "add a sound call of the new function to CALLS"


@pytest.mark.parametrize("name", sorted(CALLS))
def test_the_calls_of_the_table_are_sound(name: str) -> None:
    CALLS[name]()


@pytest.mark.parametrize(("function", "argument", "words"), WORDS, ids=[f"{w[0]}-{w[1]}" for w in WORDS])
def test_unknown_words_are_refused_by_name(function: str, argument: str, words: list[str]) -> None:
    for wrong in (words[0] + "s", words[-1].upper() + "_", "", "none_of_them", 3 if argument != "num_tokens" else "x"):
        with pytest.raises(ValueError, match=f"`{argument}` is one of {words[0]}"):
            CALLS[function](**{argument: wrong})


@pytest.mark.parametrize("clip", ["ppo", None, 0.2, losses.PpoClip])
def test_a_clip_that_is_none_is_refused(clip: Any) -> None:
    with pytest.raises(ValueError, match="unknown clip"):
        CALLS["losses.policy_loss"](clip=clip)
    with pytest.raises(ValueError, match="unknown clip"):
        CALLS["padded_layout.policy_loss_padded"](clip=clip)


def test_the_nearest_word_is_named() -> None:
    with pytest.raises(UnknownComponent, match=r"no advantage estimator named `gea`. Did you mean `gae`\?"):
        load_part(VALUE_ADVANTAGES, "gea")
    for wrong in ("GRPO_", "", "none_of_them", 3):
        with pytest.raises(UnknownComponent, match=r"no advantage estimator named .* There are grpo, dr_grpo"):
            load_part(ADVANTAGES, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown divergence 'chi-square': `divergence` is one of tv, chi2"):
        CALLS["value_targets.dual_weights"](divergence="chi-square")
    with pytest.raises(ValueError, match="unknown scale 'mean_std_norm': `scale` is one of none, std"):
        CALLS["advantages.gigpo"](scale="mean_std_norm")
    require_choice("mode", 1, (1, 2))
    with pytest.raises(ValueError, match="unknown mode True"):
        require_choice("mode", True, (1, 2))


NUMBERS = [(name, argument) for name, call in CALLS.items() for argument in call.finite]


@pytest.mark.parametrize(("function", "argument"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(function: str, argument: str, value: float) -> None:
    sound = CALLS[function].arguments[argument].float()
    for place in range(sound.numel()):
        spoilt = sound.clone()
        spoilt.view(-1)[place] = value
        with pytest.raises(ValueError, match="finite"):
            CALLS[function](**{argument: spoilt})


LENGTHS = [(name, argument) for name, call in CALLS.items() for argument in call.lengths]


@pytest.mark.parametrize(("function", "argument"), LENGTHS)
def test_tensors_of_another_length_are_refused(function: str, argument: str) -> None:
    sound = CALLS[function].arguments[argument]
    longer = [*sound, sound[0]] if isinstance(sound, list) else torch.cat([sound, sound[:1]])
    for wrong in (longer, sound[:-1], *([] if isinstance(sound, list) else [sound[:, None]])):
        with pytest.raises(ValueError, match=r"needs one number per|one length|must have the same shape|anchors|score"):
            CALLS[function](**{argument: wrong})


PAIRS = {
    "losses.value_loss": (lambda a, b: losses.value_loss(a, b, values_old=None, clip_eps=None)),
    "losses.value_loss, old": (lambda a, b: losses.value_loss(a, a, values_old=b, clip_eps=0.2)),
    "losses.weighted_nll": losses.weighted_nll,
    **{f"losses.kl_estimate, {k}": partial(losses.kl_estimate, kind=k) for k in ("k1", "k2", "k3", "abs", "k3+")},
    "losses.kl_shaped_rewards": (lambda a, b: losses.kl_shaped_rewards(b, a, a, kl_coef=1.0)),
    "value_targets.expectile_loss": partial(values.expectile_loss, expectile=0.7),
    "value_targets.total_variation_loss": partial(values.total_variation_loss, alpha=0.7),
    "value_targets.chi_square_loss": partial(values.chi_square_loss, alpha=0.7),
    "advantages.remax": advantages.remax,
}


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_pairs_of_tensors_are_never_spread_over_each_other(name: str) -> None:
    """[3] against [3, 1] would be nine numbers, and a mean over them looks like a loss."""
    pair = cast(Callable[[Tensor, Tensor], Tensor], PAIRS[name])
    assert pair(f(1, 2, 3), f(1, 1, 1)).shape == (3,)
    for wrong in (f(1, 1, 1)[:, None], f(1), f(1, 1), f(1, 1, 1)[None]):
        with pytest.raises(ValueError, match=r"shape|each score needs"):
            pair(f(1, 2, 3), wrong)


NUMBERS, TURNS_OF_TWO = f(-1, -2, -3, -4), f(0.5, -0.5)
BY_SEQUENCE: dict[str, Any] = {"sequence_index": INDEX, **TWO}
ENTRIES: dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[str, ...]]] = {
    function.__name__: (function, arguments, tuple(k for k, v in arguments.items() if v is NUMBERS or v is MASK))
    for function, arguments in (
        (losses.sampler_log_weights, {"logprobs_old": NUMBERS, "logprobs_sampled": NUMBERS, "mask": MASK}),
        (losses.sequence_log_weights, {"log_weights": NUMBERS, "mask": MASK, **BY_SEQUENCE}),
        (losses.truncate_tokens, {"log_weights": NUMBERS, "mask": MASK, "cap": 2.0}),
        (losses.mask_tokens, {"log_weights": NUMBERS, "mask": MASK, "cap": 2.0}),
        (losses.truncate_sequences, {"log_weights": NUMBERS, "mask": MASK, "cap": 2.0, **BY_SEQUENCE}),
        (losses.mask_sequences, {"log_weights": NUMBERS, "mask": MASK, "cap": 2.0, **BY_SEQUENCE}),
        (
            losses.filter_geometric,
            {"log_weights": NUMBERS, "mask": MASK, "low": 0.9, "high": 1.1, **BY_SEQUENCE},
        ),
        (
            losses.filter_off_policy,
            {
                **{name: NUMBERS for name in ("logprobs", "logprobs_sampled", "advantages")},
                **{"mask": MASK, "threshold": 0.1, **BY_SEQUENCE},
            },
        ),
        (losses.log_ratio, {"logprobs": NUMBERS, "logprobs_old": NUMBERS, "mask": MASK}),
        (
            losses.importance_ratio,
            {"logprobs": NUMBERS, "logprobs_old": NUMBERS, "mask": MASK, "level": "token", **BY_SEQUENCE},
        ),
        (
            losses.policy_loss,
            {
                **{name: NUMBERS for name in ("logprobs", "logprobs_old", "advantages", "weights")},
                **{"mask": MASK, "level": "token", "clip": losses.NoClip(), **BY_SEQUENCE},
            },
        ),
        (
            losses.kl_loss,
            {
                **{name: NUMBERS for name in ("logprobs", "logprobs_old", "logprobs_ref")},
                **{"mask": MASK, "kind": "k3", "ratio_weighted": True},
            },
        ),
        (losses.distillation_advantages, {"logprobs": NUMBERS, "logprobs_teacher": NUMBERS}),
        (losses.approximate_kl, {"logprobs": NUMBERS, "logprobs_old": NUMBERS, "mask": MASK}),
        (losses.masked_mean, {"values": NUMBERS, "mask": MASK}),
        (
            losses.aggregate,
            {"losses": NUMBERS, "mask": MASK, "how": "token-mean", "denominator": 4.0, **BY_SEQUENCE},
        ),
        (losses.token_weights, {"mask": MASK, "how": "token-mean", "denominator": 4.0, **BY_SEQUENCE}),
        (
            losses.webrl_squared,
            {
                **{"logprobs": NUMBERS, "logprobs_ref": NUMBERS, "mask": MASK},
                **{"advantages": TURNS_OF_TWO, "beta": 1.0, **BY_SEQUENCE},
            },
        ),
        (
            losses.webrl_released_loss,
            {"logprobs": NUMBERS, "logprobs_ref": NUMBERS, "mask": MASK, "targets": TURNS_OF_TWO, **BY_SEQUENCE},
        ),
        (values.td_target, {"rewards": NUMBERS, "next_values": NUMBERS, "terminated": MASK, "gamma": 0.9}),
        (advantages.bootstrap_values, {"values_after": NUMBERS, "terminated": ~MASK, "truncated": MASK}),
    )
}


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_an_entry_stands_for_an_entry_in_every_function_of_tokens(name: str) -> None:
    """A column, a row, one number or a scalar beside [4] would be spread over all tokens, and look like a result."""
    function, arguments, flat = ENTRIES[name]
    function(**arguments)
    for argument in (*flat, *(["sequence_index"] if "sequence_index" in arguments else [])):
        sound = arguments[argument]
        for wrong in (sound[:, None], sound[None], sound[:1], sound[0], sound[:0]):
            with pytest.raises((ValueError, IndexError), match=r"shape|one length|needs one number per"):
                function(**arguments | {argument: wrong})


@pytest.mark.parametrize("name", ["digirl", "digirl_released", "webrl", "webrl_released"])
def test_outcomes_and_values_of_turns_are_what_they_are_said_to_be(name: str) -> None:
    function = getattr(advantages, name)
    with pytest.raises(ValueError, match="`outcomes` needs one number per trajectory"):
        function(**STEPS | {"outcomes": f(1, 0)[:, None]})
    with pytest.raises(ValueError, match=r"`values` are a critic's probabilities, so floats; got torch\.int64"):
        function(**STEPS | {"values": i(0, 1, 0)})  # decay ** turns would be whole numbers
    assert not function(**STEPS | {"values": STEPS["values"].clone().requires_grad_()}).requires_grad


class Colour(Enum):
    RED = 1


@dataclass(frozen=True)
class Cell:
    row: int


class Plain:
    """Equal to nothing but itself."""


def test_anchors_that_are_compared_by_identity_are_refused() -> None:
    """A tensor is hashed by identity: equal states would never meet, and the step part would silently be 0."""
    for anchor in (f(1.0), Plain(), [1], np.ones(2), {"a": 1}, (1, (f(1.0),)), math.nan, frozenset([Plain()])):
        with pytest.raises(ValueError, match="`anchors` must be keys that equal states share"):
            CALLS["advantages.gigpo"](anchors=["s", anchor])
    for anchor in ("s", 3, 1.5, None, (1, "a"), b"x", Cell(row=1), Colour.RED, frozenset([1])):
        assert CALLS["advantages.gigpo"](anchors=[anchor, anchor]).lone_frac == 0


def test_words_of_the_off_policy_objectives() -> None:
    for argument in ("form", "num_tokens", "aggregation"):
        with pytest.raises(ValueError, match=f"unknown {argument} 'squarred'"):
            WebRLObjective(**{argument: "squarred"})
    with pytest.raises(ValueError, match=r"unknown by 'verdicts'.*did you mean 'verdict'"):
        outcomes(None, "verdicts")  # type: ignore[arg-type]


def test_views_refuse_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="`advantages` holds NaN at 1"):
        above(np.arange(2), np.array([1.0, math.nan]), 0.0)
    with pytest.raises(ValueError, match="`mean_logprobs` holds NaN at 0"):
        in_perplexity_band(np.arange(1), np.array([math.nan]))
    assert in_perplexity_band(np.arange(2), np.array([-math.inf, -0.5])).tolist() == [1]
