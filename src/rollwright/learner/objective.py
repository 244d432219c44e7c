"""The loss a recipe hands to the learner: policy loss + KL + entropy, composed from pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rollwright.batching import TokenBatch, TokenLoss
from rollwright.config import build_part
from rollwright.contracts import require_choice
from rollwright.learner.learner_settings import CorrectionName, FilterName, PolicyLossSettings
from rollwright.learner.policy_losses import Ppo, TokenPolicyLoss, required
from rollwright.maths.losses import (
    Aggregation,
    Correction,
    KlKind,
    approximate_kl,
    clip_frac,
    filter_geometric,
    filter_off_policy,
    kl_loss,
    mask_sequences,
    mask_tokens,
    sampler_log_weights,
    truncate_sequences,
    truncate_tokens,
)

_PPO = Ppo()
_CHOICES = {
    "aggregation": Aggregation,
    "correction": CorrectionName,
    "sequence_filter": FilterName,
    "kl_kind": KlKind,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyObjective:
    """Per-token loss of a policy-gradient method.

    `loss` is the surrogate itself, such as PPO's; `correction` the detached weight that repairs the difference between
    the engine's and the learner's policy, `sequence_filter` which sequences are left out because of it; `kl_coef` > 0
    adds the KL to the reference as a loss term (GRPO's form). A critic has its own loss and optimiser in the learner.

    What a mask or the geometric filter drops also leaves the denominator, so the learner asks `keep` before it counts.
    Off-policy sequence masking multiplies the loss instead, as in its paper: it follows the policy within the update.
    """

    loss: TokenPolicyLoss = _PPO
    aggregation: Aggregation = "token-mean"
    max_length: float | None = None
    correction: CorrectionName = "token_tis"
    correction_cap: float = 2.0
    sequence_filter: FilterName = "none"
    filter_low: float = 0.999
    filter_high: float = 1.001
    filter_threshold: float = 0.1
    kl_coef: float = 0.0
    kl_kind: KlKind = "k3"
    entropy_coef: float = 0.0

    def __post_init__(self) -> None:
        for name, words in _CHOICES.items():
            require_choice(name, getattr(self, name), words)

    @property
    def needs_reference(self) -> bool:
        """Whether the log-probs of the frozen reference are read."""
        # A reference costs a second model in memory or a second pass, so it is asked for only where it counts.
        return self.kl_coef > 0

    @property
    def with_entropy(self) -> bool:
        """Whether the entropy of every token is read."""
        return self.entropy_coef != 0

    @property
    def whole_sequences(self) -> bool:
        """Sequence ratios and sequence weights need all turns of a sequence in one micro-batch."""
        # A sequence split over micro-batches would get one weight per part.
        by_sequence = self.correction in ("sequence_tis", "sequence_mask") or self.sequence_filter == "off_policy"
        return bool(getattr(self.loss, "whole_sequences", False)) or by_sequence

    @property
    def filters(self) -> bool:
        """Whether `keep` may drop a token; the learner then needs the old log-probs before the step."""
        return self.correction in ("token_mask", "sequence_mask") or self.sequence_filter == "geometric"

    def keep(self, tokens: TokenBatch) -> Tensor:
        """[N] bool: the tokens of one optimiser step that take part in loss and denominator."""
        old = required(tokens.logprobs_old, "logprobs_old")
        # Asked before the denominator is counted: what is dropped must not dilute the mean.
        mask = self._correction(tokens, old).mask
        if self.sequence_filter == "geometric":
            mask = mask & self._geometric(tokens, old)
        return mask

    def _geometric(self, tokens: TokenBatch, old: Tensor) -> Tensor:
        return filter_geometric(
            self._log_weights(tokens, old),
            tokens.mask,
            tokens.sequence_index,
            num_sequences=tokens.num_sequences,
            low=self.filter_low,
            high=self.filter_high,
        ).mask

    def __call__(self, tokens: TokenBatch) -> TokenLoss:
        """Per-token losses [N], and metrics as (sum, count)."""
        logprobs, old = required(tokens.logprobs, "logprobs"), required(tokens.logprobs_old, "logprobs_old")
        weights = self._weights(tokens, logprobs, old)
        policy = self.loss(tokens, weights)
        count = float(tokens.mask.sum())
        # Sums with counts: micro-batches of unlike size then average as one batch would.
        metrics = {
            "policy/loss_mean": (float(policy.losses.detach().sum()), count),
            "policy/ratio_clipped_frac": (clip_frac(policy.clipped, tokens.mask) * count, count),
            "policy/kl_old_mean": (approximate_kl(logprobs, old, tokens.mask) * count, count),
            # Engine against learner at equal weights: grows when an engine computes something else than the learner.
            "policy/sampler_gap_mean": (float(self._log_weights(tokens, old).abs()[tokens.mask].sum()), count),
        }
        if weights is not None:
            used = weights[tokens.mask]
            metrics["policy/weight_mean"] = (float(used.sum()), count)
            # Not `>`: a truncated weight lies exactly at the cap.
            metrics["policy/weight_capped_frac"] = (float((used >= self.correction_cap).sum()), count)
        return TokenLoss(losses=policy.losses + self._extra(tokens, logprobs, metrics, count), metrics=metrics)

    def _log_weights(self, tokens: TokenBatch, old: Tensor) -> Tensor:
        """log of the learner's starting policy over the engine's: the mismatch of the two implementations."""
        return sampler_log_weights(old, tokens.logprobs_sampled, tokens.mask)

    def _correction(self, tokens: TokenBatch, old: Tensor) -> Correction:
        """The named correction at the policy that the update starts from."""
        # Of the old policy and not of the one now: how far the policy has moved since is the ratio's part.
        logs, mask, cap = self._log_weights(tokens, old), tokens.mask, self.correction_cap
        index, count = tokens.sequence_index, tokens.num_sequences
        if self.correction == "token_tis":
            return truncate_tokens(logs, mask, cap=cap)
        if self.correction == "token_mask":
            return mask_tokens(logs, mask, cap=cap)
        if self.correction == "sequence_tis":
            return truncate_sequences(logs, mask, index, num_sequences=count, cap=cap)
        if self.correction == "sequence_mask":
            return mask_sequences(logs, mask, index, num_sequences=count, cap=cap)
        return Correction(weights=torch.ones_like(logs), mask=mask)

    def _weights(self, tokens: TokenBatch, logprobs: Tensor, old: Tensor) -> Tensor | None:
        """[N] detached factors of the policy loss; None where nothing is corrected."""
        if self.correction == "none" and self.sequence_filter != "off_policy":
            return None
        weights = self._correction(tokens, old).weights
        if self.sequence_filter != "off_policy":
            return weights
        return (
            weights
            # Against the policy now, so it may drop more from one step to the next (arXiv:2512.02556 section 3.1).
            * filter_off_policy(
                logprobs,
                tokens.logprobs_sampled,
                tokens.advantages,
                tokens.mask,
                tokens.sequence_index,
                num_sequences=tokens.num_sequences,
                threshold=self.filter_threshold,
            ).mask
        )

    def _extra(
        self, tokens: TokenBatch, logprobs: Tensor, metrics: dict[str, tuple[float, float]], count: float
    ) -> Tensor:
        """KL and entropy terms, each with its metric."""
        nothing = torch.zeros_like(logprobs)
        extra = nothing
        if self.kl_coef > 0:
            reference = required(tokens.logprobs_ref, "logprobs_ref")
            # Unweighted, as GRPO has it: right for fresh data; `ratio_weighted` is for methods that reuse a batch
            # often.
            kl = kl_loss(logprobs, logprobs, reference, tokens.mask, kind=self.kl_kind, ratio_weighted=False)
            metrics["policy/kl_ref_mean"] = (float(kl.detach().sum()), count)
            extra = extra + self.kl_coef * kl
        if self.entropy_coef:
            # Masked tokens may hold NaN, which no weight of 0 removes from a sum.
            entropy = torch.where(tokens.mask, required(tokens.entropy, "entropy"), nothing)
            metrics["policy/entropy_mean"] = (float(entropy.detach().sum()), count)
            # A bonus: the loss falls as the entropy grows.
            extra = extra - self.entropy_coef * entropy
        return extra


def objective_of(settings: PolicyLossSettings) -> PolicyObjective:
    """The loss that the keys of `algorithm` describe.

    Raises:
        ConfigError: a loss of the user's own cannot be made, or breaks its contract.
    """
    return PolicyObjective(
        loss=build_part(settings, "loss"),
        aggregation=settings.aggregation,
        max_length=settings.max_length,
        correction=settings.correction,
        correction_cap=settings.correction_cap,
        sequence_filter=settings.sequence_filter,
        filter_low=settings.filter_low,
        filter_high=settings.filter_high,
        filter_threshold=settings.filter_threshold,
        kl_coef=settings.kl_coef,
        kl_kind=settings.kl_kind,
        entropy_coef=settings.entropy_coef,
    )
