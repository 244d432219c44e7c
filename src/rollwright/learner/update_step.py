"""One optimiser step over a packed batch: forward, loss, backward per micro-batch; check, clip, move once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from rollwright.batching import FilteringObjective, PackedBatch, TokenBatch, TokenObjective, VocabularyObjective
from rollwright.learner.optimisation import Averages, Optimisation, require_finite
from rollwright.learner.token_critic import CriticLoss
from rollwright.learner.token_notes import TokenTap
from rollwright.maths.losses import (
    Aggregation,
    LossCounts,
    count_loss_units,
    loss_denominator,
    token_weights,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStep:
    """Runs optimiser step number `step`. Made by the learner for each step; `autocast` opens its precision context."""

    accelerator: Accelerator
    policy: Optimisation
    critic: Optimisation | None
    critic_loss: CriticLoss | None
    autocast: Callable[[], AbstractContextManager[object]]
    step: int
    averages: Averages
    tap: TokenTap | None = None
    stand_in: bool = False
    """Whether this rank has nothing of its own to do, and runs a turn whose results count nowhere."""

    def run(self, packs: Sequence[PackedBatch], batch: TokenBatch, objective: TokenObjective) -> bool:
        """Move policy and critic once, from the gradient of the whole batch.

        Returns:
            False where the loss's own filter left no token on any rank: then nothing has moved.

        Raises:
            NonFiniteUpdate: before anything has moved.
            ValueError: no unmasked token, or a critic without targets.
        """
        kept = self._filtered(batch, objective)
        if kept is None:
            return False
        weights = global_token_weights(
            self.accelerator, kept, objective.aggregation, objective.max_length, stand_in=self.stand_in
        )
        # Priorities of drawn turns scale the numerator only; the denominator counts tokens as they are.
        weights = weights * batch.weights
        # The critic learns from every token, whatever the policy's filter or aggregation says.
        value_weights = global_token_weights(self.accelerator, batch, "token-mean", None)
        self._begin()
        # Ranks with fewer micro-batches repeat one with weight 0: the others would wait for them for ever.
        mine = torch.tensor([len(packs)], device=self.accelerator.device)
        # The largest count of all ranks, so that all make the same number of collective calls.
        rounds = int(self.accelerator.gather(mine).max())
        try:
            for index in range(rounds):
                packed, live = packs[index % len(packs)], index < len(packs)
                last = index == rounds - 1
                # A repeated micro-batch has weight 0: it takes part in the collective calls and adds no gradient.
                # Before the critic, whose kind "head" reads the hidden states of this pass.
                hidden = self._policy_pass(packed, kept, objective, weights * live, live=live, last=last)
                if self.critic:
                    self._critic_pass(self.critic, packed, batch, hidden, value_weights * live, last=last)
            self._move()
        # Also on Ctrl-C: gradients of a step that was given up must not leak into the next one.
        except BaseException:
            for module in self._modules:
                module.drop()
            raise
        return True

    def _filtered(self, batch: TokenBatch, objective: TokenObjective) -> TokenBatch | None:
        """The tokens that the policy loss keeps (the critic learns from all of them); None where there are none."""
        if not (isinstance(objective, FilteringObjective) and objective.filters):
            return batch
        before, mask = batch.mask, objective.keep(batch) & batch.mask
        self.averages.add({"policy/filtered_frac": (float((before & ~mask).sum()), float(before.sum()))})
        # All ranks decide alike: one that left the step out alone would leave the others waiting.
        left = self.accelerator.reduce(mask.sum(), reduction="sum")
        return batch.masked(mask) if int(left) else None

    @property
    def _modules(self) -> list[Optimisation]:
        return [self.policy] + ([self.critic] if self.critic else [])

    def _area(self, module: Optimisation) -> str:
        """Where its metrics belong."""
        return "optim" if module is self.policy else module.name

    def _begin(self) -> None:
        for module in self._modules:
            # The loss counts once per step here; micro-batches add their shares with a count of 0.
            area = self._area(module)
            self.averages.add({f"{area}/learning_rate": (module.begin(self.step), 1), f"{area}/loss": (0.0, 1)})

    def _move(self) -> None:
        """All norms are checked before the first optimiser moves: policy and critic step together or not at all.

        DeepSpeed alone learns its norm inside its step: there a critic with a bad norm stops the run one step late.
        """
        for module in self._modules:
            module.clip(self.step)
        for module in self._modules:
            self.averages.add({f"{self._area(module)}/grad_norm": (module.move(self.step), 1)})

    def _policy_pass(
        self,
        packed: PackedBatch,
        batch: TokenBatch,
        objective: TokenObjective,
        weights: Tensor,
        *,
        live: bool,
        last: bool,
    ) -> Tensor:
        """Backward of one micro-batch's share; returns the hidden states [U, H], detached."""
        # DDP decides in the forward pass whether the backward pass reduces, so both stand inside.
        with self.policy.accumulating(last):
            tokens = batch.select(packed.entries)
            term = objective.term(tokens) if isinstance(objective, VocabularyObjective) else None
            with self.autocast():
                # A term over the vocabulary is computed with the head, chunk by chunk, and comes back as one more.
                asked = {} if term is None else {"term": term}
                logprobs, entropy, hidden, *found = self.policy.prepared(packed, objective.with_entropy, **asked)
            tokens = replace(tokens, logprobs=logprobs, entropy=entropy, divergence=found[0] if found else None)
            if tokens.logprobs_old is None:
                # The only step on this batch: the policy before it is the one that was just run.
                tokens = replace(tokens, logprobs_old=logprobs.detach())
            result = objective(tokens)
            self._backward(self.policy, result.losses, tokens, weights[packed.entries])
        # A repeated micro-batch would count its tokens twice.
        if live:
            self.averages.add(result.metrics)
            if self.tap is not None:
                self.tap.see(batch, packed.entries, tokens)
        return hidden.detach()

    def _critic_pass(
        self,
        critic: Optimisation,
        packed: PackedBatch,
        batch: TokenBatch,
        hidden: Tensor,
        weights: Tensor,
        *,
        last: bool,
    ) -> None:
        tokens = batch.select(packed.entries)
        if tokens.returns is None:
            raise ValueError("the critic has no targets: give every token its `returns`, or train without a critic")
        with critic.accumulating(last):
            with self.autocast():
                values = critic.prepared(packed, hidden)
            # In the only step on a batch the old values are these: the clip then cuts nothing.
            old = values.detach() if tokens.values is None else tokens.values
            assert self.critic_loss is not None
            losses = self.critic_loss(values, tokens.returns, old)
            self._backward(critic, losses, tokens, weights[packed.entries])

    def _backward(self, module: Optimisation, losses: Tensor, tokens: TokenBatch, weights: Tensor) -> None:
        zeros = torch.zeros_like(losses)
        # `where` and not a product: a masked token may hold NaN, and 0 times NaN is NaN.
        share = (torch.where(tokens.mask, losses, zeros) * weights.to(losses.dtype)).sum()
        require_finite(share, what=f"{module.name} loss", step=self.step, accelerator=self.accelerator)
        module.backward(share)
        self.averages.add({f"{self._area(module)}/loss": (share.detach(), 0.0)})


def global_token_weights(
    accelerator: Accelerator, batch: TokenBatch, how: Aggregation, max_length: float | None, *, stand_in: bool = False
) -> Tensor:
    """[N] factor of every token: its part in the mean over all ranks, times the ranks the gradient is averaged over."""
    counts = count_loss_units(batch.mask, batch.sequence_index, num_sequences=batch.num_sequences)
    # Counts are added before they divide: a mean of the ranks' means would favour ranks with few tokens.
    # The constant aggregation counts masked sequences too, but the stand-in of an idle rank is another rank's sequence.
    rows_here = 0 if stand_in else counts.num_rows
    local = torch.tensor([counts.num_tokens, counts.num_sequences, rows_here], device=batch.mask.device)
    tokens, sequences, rows = accelerator.reduce(local, reduction="sum").tolist()
    total = LossCounts(num_tokens=tokens, num_sequences=sequences, num_rows=rows)
    # DDP averages gradients over ranks; dividing the denominator by their number turns the average into a sum.
    denominator = loss_denominator([total], how, max_length=max_length) / accelerator.num_processes
    return token_weights(
        batch.mask, batch.sequence_index, num_sequences=batch.num_sequences, how=how, denominator=denominator
    )
