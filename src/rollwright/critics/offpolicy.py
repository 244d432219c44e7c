"""What off-policy recipes share: stored turns as segments, objectives that imitate or regress, fits of state values."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollwright.batching import Segment, TokenLoss, TokenRecord
from rollwright.contracts import require_choice
from rollwright.critics.value_learner import ReadingLoss, Readings, TurnValues
from rollwright.generation import Ask, BatchEngine, Engine, Generation, Sampling
from rollwright.maths import outcome_loss, segment_count, segment_mean, td_target
from rollwright.maths.losses import Aggregation, webrl_released, webrl_squared, weighted_nll
from rollwright.store.replay import Transition, TurnTable

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

    def __call__(self, tokens: TokenRecord) -> TokenLoss:
        assert tokens.logprobs is not None
        count = float(tokens.mask.sum())
        nll = -float(tokens.logprobs.detach()[tokens.mask].sum())
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
    whole_sequences: bool = True

    def __post_init__(self) -> None:
        require_choice("form", self.form, ("squared", "released"))
        if isinstance(self.num_tokens, str):
            require_choice("num_tokens", self.num_tokens, ("turn",))
        require_choice("aggregation", self.aggregation, Aggregation)

    def __call__(self, tokens: TokenRecord) -> TokenLoss:
        assert tokens.logprobs is not None and tokens.logprobs_ref is not None
        index, num = tokens.sequence_index, tokens.num_sequences
        counts = segment_count(tokens.mask, index, num)
        targets = segment_mean(tokens.advantages, index, num)  # one advantage per turn, on each of its tokens
        args = (tokens.logprobs, tokens.logprobs_ref, targets, tokens.mask, index)
        if self.form == "squared":
            per_turn = webrl_squared(*args, num_sequences=num, beta=self.beta)
        else:
            per_turn = webrl_released(*args, num_sequences=num, num_tokens=self.num_tokens)
        ratios = (tokens.logprobs - tokens.logprobs_ref).detach()[tokens.mask]
        metrics = {"policy/kl_ref_mean": (float(ratios.sum()), float(tokens.mask.sum()))}
        # The learner adds up tokens: each carries an equal part of its turn's loss.
        return TokenLoss(losses=(per_turn / counts.clamp(min=1))[index], metrics=metrics)


def to_segments(
    transitions: Sequence[Transition], weights: Sequence[float], logprobs_ref: Sequence[Tensor] | None = None
) -> list[Segment]:
    """Stored turns for an update, one sequence each; `weights` become the advantages of all their tokens.

    A turn that was drawn twice counts twice.
    """
    reference = [None] * len(transitions) if logprobs_ref is None else [tuple(row.tolist()) for row in logprobs_ref]
    return [
        Segment(
            prompt_ids=t.prompt_ids,
            action_ids=t.action_ids,
            action_mask=t.action_mask,
            logprobs_sampled=t.logprobs,
            advantages=(float(weight),) * len(t.action_ids),
            logprobs_ref=ref,
            sequence=place,
        )
        for place, (t, weight, ref) in enumerate(zip(transitions, weights, reference, strict=True))
    ]


def sample_actions(
    engine: Engine, prompts: Sequence[tuple[int, ...]], sampling: Sampling, *, key: str
) -> list[Generation]:
    """One action of the current policy for each prompt. No environment is asked; equal keys draw equal actions.

    Raises:
        EngineFault: the engine failed. ContextOverflow: a prompt leaves no room for an action.
    """
    asks = [
        Ask(prompt_ids=prompt, sampling=replace(sampling, seed=_seed(f"{key}/{place}")), request_id=f"{key}/{place}")
        for place, prompt in enumerate(prompts)
    ]
    answers = asyncio.run(_ask_all(engine, asks))
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [answer for answer in answers if isinstance(answer, Generation)]


class FreshActions:
    """What the policy would do now. Draws are fixed by the run's seed, the step, and how often it was asked in it."""

    def __init__(self, engine: Engine, sampling: Sampling, *, seed: int) -> None:
        self.engine, self.sampling, self.seed = engine, sampling, seed
        self._step, self._asked = 0, 0

    def begin(self, step: int) -> None:
        """A step begins: a resumed run that begins it again draws the same."""
        self._step, self._asked = step, 0

    def __call__(self, prompts: Sequence[tuple[int, ...]]) -> list[Generation]:
        """One action for each prompt; raises as `sample_actions`."""
        self._asked += 1
        return sample_actions(self.engine, prompts, self.sampling, key=f"{self.seed}/{self._step}/fresh/{self._asked}")


async def _ask_all(engine: Engine, asks: Sequence[Ask]) -> Sequence[Generation | Exception]:
    """As one batch where the engine can, so that equal asks get equal bits; else each by itself."""
    if isinstance(engine, BatchEngine):
        return await engine.generate_together(asks)
    return await asyncio.gather(*(engine.generate(a.prompt_ids, a.sampling, request_id=a.request_id) for a in asks))


def _seed(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 2**31


def with_action(transition: Transition, action: Generation) -> Transition:
    """The same state with another action; its reward and its next state are no longer known and must not be read."""
    return replace(
        transition,
        action_ids=action.token_ids,
        action_mask=(True,) * len(action.token_ids),
        logprobs=action.logprobs,
        reward=float("nan"),
        next_prompt_ids=(),
    )


def followed(batch: Sequence[Transition], *, truncated_end: bool = False) -> list[int]:
    """Places of the turns that another state comes after.

    Args:
        truncated_end: a limit is the task's own end, so that nothing comes after a cut episode.
    """
    return [k for k, t in enumerate(batch) if t.next_prompt_ids and not (truncated_end and t.truncated)]


def one_step_targets(
    batch: Sequence[Transition], following: Tensor, *, gamma: float, truncated_end: bool = False
) -> Tensor:
    """[heads, n] r + gamma V(s'); r alone where the task ended.

    A turn after which a cut left no state to bootstrap from has no such target: `valid_turns(needs_next=True)`.

    Args:
        following: [heads, m] values of the states after the m turns that `followed` gives, in the batch's order.
    """
    follows = followed(batch, truncated_end=truncated_end)
    after = torch.zeros(len(following), len(batch))
    after[:, follows] = following
    rewards = torch.tensor([t.reward for t in batch])
    done = torch.ones(len(batch), dtype=torch.bool)
    done[follows] = False
    return td_target(rewards.expand_as(after), after, done.expand_as(after), gamma=gamma)


OutcomeBy = Literal["verdict", "reward"]


def outcomes(table: TurnTable, by: OutcomeBy = "verdict") -> Array:
    """[S] float64 in {0, 1}: the verdict where there is one, else whether the return is above 0.

    Args:
        by: "reward" asks the return alone: what an outcome model said counts, not what the world knows.
    """
    require_choice("by", by, OutcomeBy)
    verdict, earned = table.trajectories["success"], table.trajectories["total_reward"]
    if by == "reward":
        return (earned > 0).astype(np.float64)
    result: Array = np.where(verdict >= 0, verdict == 1, earned > 0).astype(np.float64)
    return result


def instruction_prompts(table: TurnTable, trajectories: Array) -> list[tuple[int, ...]]:
    """The first prompt of each trajectory: what an instruction-level value sees."""
    return [table.prompt_ids(int(table.trajectories["first_turn"][s])) for s in trajectories]


def fit_outcomes(critic: TurnValues, head: str, prompts: Sequence[Sequence[int]], labels: Array) -> dict[str, float]:
    """One step of cross-entropy of every head against 0/1 labels, one per prompt (DigiRL eq. 4.5 and 4.6)."""
    return critic.update(prompts, _outcome_loss(head, torch.as_tensor(labels, dtype=torch.float32)))


def _outcome_loss(head: str, labels: Tensor) -> ReadingLoss:
    def loss(values: Readings, places: Tensor) -> Tensor:
        wanted = labels.to(values[head].device)[places].expand_as(values[head])
        return outcome_loss(values[head], wanted).sum(dim=0)

    return loss


def success_probability(critic: TurnValues, head: str, prompts: Sequence[Sequence[int]]) -> Tensor:
    """[N] the smallest head's probability of success at each prompt; no prompt, no number."""
    if not prompts:
        return torch.zeros(0)
    return critic.read(prompts)[head].sigmoid().min(dim=0).values


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeSteps:
    """What outcome advantages are computed from, for whole trajectories: see `advantages.outcomes`.

    values: [U] before each turn. index: [U] its trajectory, counted from 0. won: [S] outcome. ends: [S] value of what
    follows the last turn; 0 unless a limit cut the episode there.
    """

    values: Tensor
    index: Tensor
    won: Tensor
    ends: Tensor


def outcome_steps(critic: TurnValues, head: str, table: TurnTable, turns: Array, labels: Array) -> OutcomeSteps:
    """The values along the trajectories that these turns make up.

    Args:
        turns: [U] all turns of some trajectories, in order.
        labels: [S] outcome of every trajectory of the table.
    """
    batch = table.transitions(turns)
    values = success_probability(critic, head, [t.prompt_ids for t in batch])
    owners, index = np.unique([t.trajectory for t in batch], return_inverse=True)
    cut = [k for k, t in enumerate(batch) if t.truncated and t.next_prompt_ids]  # what follows has a value
    ends = torch.zeros(len(owners))
    ends[index[cut]] = success_probability(critic, head, [batch[k].next_prompt_ids for k in cut])
    won = torch.as_tensor(labels[owners], dtype=torch.float32)
    return OutcomeSteps(values=values, index=torch.as_tensor(index), won=won, ends=ends)


class Scores(Protocol):
    """A policy that can score actions: the learner's, or a fixed one."""

    def logprobs(self, segments: Sequence[Segment]) -> list[Tensor]: ...


def mean_logprobs(policy: Scores, table: TurnTable, turns: Array) -> Array:
    """[n] mean log-prob of each turn's chosen action tokens under this policy: minus the log of its perplexity."""
    segments = to_segments(table.transitions(turns), [0.0] * len(turns))
    scored = zip(policy.logprobs(segments), segments, strict=True)
    return np.array([float(row[list(segment.action_mask)].mean()) for row, segment in scored])


def shuffled_batches(items: Array, size: int, draws: np.random.Generator) -> list[Array]:
    """One pass over all of them; the last batch may be smaller."""
    order = draws.permutation(items)
    return [order[start : start + size] for start in range(0, len(order), size)]


class Updates(Protocol):
    """The learner, as far as imitation needs it."""

    def update(self, segments: Sequence[Segment], loss: WeightedLikelihood) -> dict[str, float]: ...


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
) -> dict[str, float]:
    """Optimiser steps of weighted likelihood, each on turns drawn uniformly with replacement.

    A draw of weight 0 counts in the mean, so the step's size says how much of the data is worth imitating. A batch
    without any weight is left out.

    Args:
        turns, weights: [n] numbers of turns, and what each is worth.

    Returns:
        Metrics of the last step; empty where there was none.
    """
    metrics: dict[str, float] = {}
    for _ in range(updates if weights.any() else 0):
        places = draws.integers(len(turns), size=batch_size)
        if weights[places].any():
            batch = to_segments(table.transitions(turns[places]), weights[places].tolist())
            metrics = learner.update(batch, loss)
    return metrics
