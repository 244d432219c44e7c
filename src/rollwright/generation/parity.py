"""The parity gate: does the engine sample from the weights that are being trained?

Engine and learner are two programs with two copies of the weights. Whether they agree is measured on sampled tokens
after each weight update; a learner that trains on another policy's samples shows no error, only a run that fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rollwright.contracts import ParityError
from rollwright.generation.engine import Engine, Generation, Sampling
from rollwright.models import without_unknown

if TYPE_CHECKING:
    from rollwright.contracts import Turn

MAX_DIFFERENCE_FP32 = 1e-3  # nats: ten times what vLLM and a learner differ by in float32
MEAN_DIFFERENCE_LOW = 0.08  # nats: twice the mean difference that bfloat16 alone makes in vLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One sampled action: ids, and the log-probs that the engine reported."""

    prompt_ids: tuple[int, ...]
    action_ids: tuple[int, ...]
    logprobs: tuple[float, ...]

    @classmethod
    def of_turn(cls, turn: Turn) -> Sampled:
        """What a recorded turn sampled."""
        return cls(prompt_ids=turn.prompt_ids, action_ids=turn.action_ids, logprobs=turn.action_logprobs)

    @classmethod
    def of_generation(cls, prompt_ids: tuple[int, ...], generation: Generation) -> Sampled:
        """What an answer of an engine sampled."""
        return cls(prompt_ids=prompt_ids, action_ids=generation.token_ids, logprobs=generation.logprobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Absolute differences of log-probs (nats) over `num_tokens` sampled tokens; `ratio_mean` of exp(learner - engine)
    is 1 for equal policies."""

    max_difference: float
    mean_difference: float
    ratio_mean: float
    num_tokens: int


def measure_parity(sampled: Sequence[Sampled], learner_logprobs: Sequence[Sequence[float]]) -> Parity:
    """Compare the engine's log-probs with the learner's, token by token.

    Args:
        sampled: the engine's actions.
        learner_logprobs: for each of them, one natural log-prob per action token, at the same temperature.

    Raises:
        ValueError: there is nothing to compare, or the lengths differ.
    """
    pairs = [
        (engine, learner)
        for action, row in zip(sampled, learner_logprobs, strict=True)
        for engine, learner in zip(action.logprobs, row, strict=True)
    ]
    if not pairs:
        raise ValueError("parity needs at least one sampled token")
    differences = [abs(learner - engine) for engine, learner in pairs]
    # A token that one side holds for impossible is as far apart as can be; max() would pass over a NaN.
    differences = [math.inf if math.isnan(value) else value for value in differences]
    return Parity(
        max_difference=max(differences),
        mean_difference=math.fsum(differences) / len(differences),
        # Capped, since math.exp raises above 709; e^50 tells of unlike policies well enough.
        ratio_mean=math.fsum(math.exp(min(learner - engine, 50.0)) for engine, learner in pairs) / len(pairs),
        num_tokens=len(pairs),
    )


def check_parity(
    parity: Parity,
    *,
    dtype: Literal["float32", "bfloat16", "float16"],
    where: str = "",
    facts: Sequence[str] = (),
) -> Parity:
    """Pass `parity` on if it is within the limits: 1e-3 at most in float32; 0.08 on average where either side is lower.

    Args:
        dtype: the lower precision of the two sides.
        where: the moment of the run, for the message.
        facts: what this model's configuration names that one side may compute otherwise (`model_facts.facts_of`).

    Raises:
        ParityError: above the limit, with both numbers and what to look at.
    """
    if dtype == "float32":
        good, limit = parity.max_difference < MAX_DIFFERENCE_FP32, f"max < {MAX_DIFFERENCE_FP32:g}"
    else:
        good, limit = parity.mean_difference < MEAN_DIFFERENCE_LOW, f"mean < {MEAN_DIFFERENCE_LOW:g}"
    if good:
        return parity
    raise ParityError(
        f"engine and learner disagree{' ' + where if where else ''}: log-prob difference max "
        f"{parity.max_difference:.3g}, mean {parity.mean_difference:.3g} over {parity.num_tokens} tokens (mean ratio "
        f"{parity.ratio_mean:.3g}); expected {limit} for {dtype}. {_hints(facts)}"
    )


def _hints(facts: Sequence[str]) -> str:
    """What to look at: this model's own peculiarities first, then what may happen with any."""
    own = (
        f"This model's configuration names what the engine may compute otherwise: {'; '.join(facts)}. " if facts else ""
    )
    return own + (
        "Look at: a skipped or partial weight update; an output head tied to the embedding that kept its old values; "
        "another dtype on one side; another temperature, top-p or top-k on one side; dropout left on in the learner"
    )


def model_logprobs(model: Any, sampled: Sequence[Sampled], *, temperature: float = 1.0) -> list[list[float]]:
    """The plain computation, one sequence at a time: log-probs of each action's tokens under a transformers model.

    Slow and obvious; the reference that faster paths are compared with.
    """
    import torch

    rows = []
    with torch.inference_mode():
        for action in sampled:
            ids = torch.tensor([action.prompt_ids + action.action_ids], device=model.device)  # [1, T]
            count = len(action.action_ids)
            # The logits at a token predict the next one: one position earlier is needed, and the last predicts nothing.
            logits = model(input_ids=ids, logits_to_keep=count + 1).logits[0, :-1].float()  # [count, V]
            logits = without_unknown(model, logits)
            logprobs = (logits / (temperature or 1.0)).log_softmax(-1)  # greedy actions report the unscaled softmax
            rows.append(logprobs.gather(-1, ids[0, -count:, None]).squeeze(-1).tolist())
    return rows


async def parity_gate(
    engine: Engine,
    learner_logprobs: Callable[[Sequence[Sampled]], Sequence[Sequence[float]]],
    prompts: Sequence[tuple[int, ...]],
    *,
    sampling: Sampling,
    dtype: Literal["float32", "bfloat16", "float16"],
    where: str = "",
) -> Parity:
    """Sample one action for each prompt and compare; raises `ParityError` where engine and learner disagree."""
    sampled = []
    for number, prompt in enumerate(prompts):
        generation = await engine.generate(prompt, sampling, request_id=f"parity/{where}/{number}")
        sampled.append(Sampled.of_generation(prompt, generation))
    return check_parity(measure_parity(sampled, learner_logprobs(sampled)), dtype=dtype, where=where)
