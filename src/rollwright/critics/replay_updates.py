"""How a policy is updated on stored turns: likelihood weighed per turn, or WebRL's regression of log-ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollwright.batching import TokenBatch, TokenLoss, segment_of
from rollwright.contracts import require_choice
from rollwright.critics.critic_learner import TurnValues
from rollwright.critics.critic_targets import DIVERGENCES
from rollwright.maths import dual_weights, segment_count, segment_mean
from rollwright.maths.advantages import awr_weights, whiten
from rollwright.maths.losses import Aggregation, webrl_released_loss, webrl_squared, weighted_nll
from rollwright.store.replay import Transition, TurnTable, mixed_places

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedLikelihood:
    """-w log pi of the action, w in `advantages`: filtered BC (0/1), AWR (exp), DigiRL (kept), REINFORCE (A).

    aggregation: "seq-mean-token-sum" takes the whole action's log-prob, with turns of weight 0 in the denominator;
    "token-mean" is the cross-entropy of behaviour cloning.
    """

    aggregation: Aggregation = "seq-mean-token-sum"
    max_length: float | None = None
    with_entropy: bool = False
    whole_sequences: bool = False

    def __call__(self, tokens: TokenBatch) -> TokenLoss:
        assert tokens.logprobs is not None
        count = float(tokens.mask.sum())
        nll = -float(tokens.logprobs.detach()[tokens.mask].sum())
        # Turns of weight 0 stay in the batch: this is the share that is learned from.
        kept = float((tokens.advantages != 0)[tokens.mask].sum())
        metrics = {"policy/nll_mean": (nll, count), "policy/kept_frac": (kept, count)}
        return TokenLoss(losses=weighted_nll(tokens.logprobs, tokens.advantages), metrics=metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebRLObjective:
    """WebRL's regression of the action's log-ratio to the phase's reference on its advantage (in `advantages`).

    form: "squared" is the paper's loss with `beta`; "released" that of the trainer, which learns from positives only
    and divides by `num_tokens`: the action tokens of all positive turns of the step, or "turn", those of each turn.
    """

    form: Literal["squared", "released"] = "squared"
    beta: float = 1.0
    num_tokens: float | Literal["turn"] | None = None
    aggregation: Aggregation = "seq-mean-token-sum"
    max_length: float | None = None
    with_entropy: bool = False
    # The loss is one of the whole action's log-ratio, whose tokens must lie in one micro-batch.
    whole_sequences: bool = True

    def __post_init__(self) -> None:
        require_choice("form", self.form, ("squared", "released"))
        if isinstance(self.num_tokens, str):
            require_choice("num_tokens", self.num_tokens, ("turn",))
        require_choice("aggregation", self.aggregation, Aggregation)

    def __call__(self, tokens: TokenBatch) -> TokenLoss:
        assert tokens.logprobs is not None and tokens.logprobs_ref is not None
        index, num = tokens.sequence_index, tokens.num_sequences
        # Of this micro-batch: turns that lie in others count 0 here.
        counts = segment_count(tokens.mask, index, num)
        targets = segment_mean(tokens.advantages, index, num)  # one advantage per turn, on each of its tokens
        args = (tokens.logprobs, tokens.logprobs_ref, targets, tokens.mask, index)
        if self.form == "squared":
            per_turn = webrl_squared(*args, num_sequences=num, beta=self.beta)
        else:
            per_turn = webrl_released_loss(*args, num_sequences=num, num_tokens=self.num_tokens)
        # k1: the mean of the log-ratio itself, which may be negative on stored actions.
        ratios = (tokens.logprobs - tokens.logprobs_ref).detach()[tokens.mask]
        metrics = {"policy/kl_ref_mean": (float(ratios.sum()), float(tokens.mask.sum()))}
        # The learner adds up tokens: each carries an equal part of its turn's loss.
        return TokenLoss(losses=(per_turn / counts.clamp(min=1))[index], metrics=metrics)


def stored_batch(transitions: Sequence[Transition], weights: Sequence[float]) -> TokenBatch:
    """Stored turns for an update, one sequence each; `weights` become the advantages of all their chosen tokens.

    A turn that was drawn twice counts twice.

    Raises:
        ValueError: no turn, or another number of weights than of turns.
    """
    if len(weights) != len(transitions):
        raise ValueError(f"{len(transitions)} turns need as many weights, got {len(weights)}")
    # Tokens that nobody chose have no entry in a batch.
    chosen = [logprob for t in transitions for logprob, counts in zip(t.logprobs, t.action_mask, strict=True) if counts]
    batch = TokenBatch.of(
        # The place and not the turn's number names the sequence: one that was drawn twice stays two.
        [segment_of(t, sequence=place, mask=t.action_mask) for place, t in enumerate(transitions)],
        logprobs_sampled=torch.tensor(chosen, dtype=torch.float32),
    )
    worth = torch.tensor([float(weight) for weight in weights], dtype=torch.float32)
    return batch.with_columns(advantages=worth[batch.turn_index])


def least_advantages(critic: TurnValues, turns: Sequence[Transition]) -> Tensor:
    """[n] min Q(s, a) - min V(s), each over its heads: a single head overrates actions (arXiv:2402.19446)."""
    q = critic.read([t.prompt_ids + t.action_ids for t in turns])["q"]
    v = critic.read([t.prompt_ids for t in turns])["v"]
    # [heads, n] -> [n]
    return q.min(dim=0).values - v.min(dim=0).values


def actor_weights(
    advantages: Tensor, actor: str, critic: str, *, temperature: float = 1.0, cap: float | None = None
) -> Tensor:
    """[n] what the likelihood of each action counts: A itself, exp(A / temperature), or f-DVL's weight.

    Args:
        actor: "reinforce", "awr" or "dual". critic: the kind of V, whose divergence "dual" weighs by.
        cap: greatest weight of "awr"; None = none.
    """
    if actor == "reinforce":
        return advantages
    if actor == "awr":
        return awr_weights(advantages, temperature=temperature, cap=cap)
    return dual_weights(advantages, divergence=DIVERGENCES[critic])


def whitened(batch: TokenBatch) -> TokenBatch:
    """Advantages of mean 0 and spread 1 over all tokens, so that batches of two origins are on one scale."""
    return batch.with_columns(advantages=whiten(batch.advantages))


def shuffled_batches(items: Array, size: int, draws: np.random.Generator) -> list[Array]:
    """One pass over all of them; the last batch may be smaller."""
    # A copy: the caller's numbers keep their order.
    order = draws.permutation(items)
    return [order[start : start + size] for start in range(0, len(order), size)]


class Updates(Protocol):
    """The learner, as far as imitation needs it."""

    def update(self, batch: TokenBatch, loss: WeightedLikelihood) -> dict[str, float]:
        """Train on a batch; metrics come back."""


def imitate(
    learner: Updates,
    table: TurnTable,
    turns: Array,
    weights: Array,
    *,
    updates: int,
    batch_size: int,
    draws: np.random.Generator,
    loss: WeightedLikelihood,
    marked: Array | None = None,
    marked_frac: float = 0.0,
) -> dict[str, float]:
    """Optimiser steps of weighted likelihood, each on turns drawn uniformly with replacement.

    A draw of weight 0 counts in the mean, so the step's size says how much of the data is worth imitating. A batch
    without any weight is left out.

    Args:
        turns, weights: [n] numbers of turns, and what each is worth.
        marked: [n] bool, the turns that make up exactly `marked_frac` of each draw, as long as there are any.

    Returns:
        Metrics of the last step; empty where there was none.
    """
    metrics: dict[str, float] = {}
    # Without any weight the gradient is 0, and AdamW's moments would still move the policy.
    for _ in range(updates if weights.any() else 0):
        if marked is None:
            places = draws.integers(len(turns), size=batch_size)
        else:
            places = mixed_places(marked, batch_size, marked_frac, draws)
        if weights[places].any():
            batch = stored_batch(table.transitions(turns[places]), weights[places].tolist())
            metrics = learner.update(batch, loss)
    return metrics
