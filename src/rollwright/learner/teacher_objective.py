"""The loss of a policy that learns from whole distributions of a teacher, beside its usual policy loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from rollwright.batching import TokenBatch, TokenLoss
from rollwright.contracts import require_choice
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.policy_losses import required
from rollwright.maths.losses import Aggregation, Rest, full_reverse_kl, jensen_shannon, top_k_reverse_kl
from rollwright.models import VocabularyTerm

Divergence = Literal["full", "top_k", "jsd"]
"""Reverse KL over the whole vocabulary; over the student's k likeliest tokens; GKD's Jensen-Shannon divergence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherObjective:
    """`policy` plus `coef` times a divergence from the teacher, in the states that the policy visited.

    Args:
        head: [n, H] the teacher's hidden states -> [n, V] its logits, at the policy's temperature.
        policy: what advantages of a reward do; with all of them 0 it adds nothing.
        top_k, rest: of "top_k". beta: of "jsd", see `jensen_shannon`.
    """

    head: Callable[[Tensor], Tensor]
    policy: PolicyObjective
    divergence: Divergence
    coef: float = 1.0
    top_k: int = 32
    rest: Rest = "tail"
    beta: float = 0.5
    _captured: list[Tensor] = field(default_factory=list, compare=False)
    """The teacher's mass on the support at each token of the micro-batch under way."""

    def __post_init__(self) -> None:
        require_choice("divergence", self.divergence, Divergence)

    @property
    def aggregation(self) -> Aggregation:
        """As the policy loss has it."""
        return self.policy.aggregation

    @property
    def max_length(self) -> float | None:
        """As the policy loss has it."""
        return self.policy.max_length

    @property
    def with_entropy(self) -> bool:
        """As the policy loss has it."""
        return self.policy.with_entropy

    @property
    def whole_sequences(self) -> bool:
        """As the policy loss has it."""
        return self.policy.whole_sequences

    def term(self, tokens: TokenBatch) -> VocabularyTerm:
        """The divergence at the places of a micro-batch, from the policy's logits there."""
        hidden = required(tokens.teacher_hidden, "teacher_hidden")
        # Written by place: the chunks that the backward pass computes again write the same numbers again.
        captured = torch.ones(len(tokens), device=hidden.device)
        self._captured.append(captured)

        def divergence(places: Tensor, logits: Tensor) -> Tensor:
            with torch.no_grad():
                teacher = self.head(hidden[places])
            if self.divergence == "full":
                return full_reverse_kl(logits, teacher)
            own, theirs = logits.log_softmax(dim=-1), teacher.log_softmax(dim=-1)
            if self.divergence == "jsd":
                return jensen_shannon(own, theirs, beta=self.beta)
            # The student's likeliest tokens: one that it never says costs nothing, whatever the teacher thinks of it.
            support = own.detach().topk(self.top_k, dim=-1).indices
            own, theirs = own.gather(-1, support), theirs.gather(-1, support)
            captured[places] = theirs.exp().sum(dim=-1)
            return top_k_reverse_kl(own, theirs, rest=self.rest)

        return divergence

    def __call__(self, tokens: TokenBatch) -> TokenLoss:
        """Per-token losses [N], and metrics as (sum, count)."""
        usual = self.policy(tokens)
        found = required(tokens.divergence, "divergence")
        # Masked tokens have no teacher, and a NaN of theirs would pass a product with 0.
        found = torch.where(tokens.mask, found, torch.zeros_like(found))
        count, captured = float(tokens.mask.sum()), self._captured.pop()
        told = {"distill/divergence_mean": (float(found.detach().sum()), count)}
        if self.divergence == "top_k":
            told["distill/captured_mean"] = (float(captured[tokens.mask].sum()), count)
        return TokenLoss(losses=usual.losses + self.coef * found, metrics={**usual.metrics, **told})
