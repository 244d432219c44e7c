"""The section `learner`, and the keys of `algorithm` that say which loss a policy has."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rollwright.config import OWN, Config, Limits, Readers
from rollwright.learner.policy_losses import LOSSES
from rollwright.maths.losses import Aggregation

CorrectionName = Literal["none", "token_tis", "sequence_tis", "token_mask", "sequence_mask"]
FilterName = Literal["none", "geometric", "off_policy"]
_CLIPPED = ("ppo", "gspo", "gspo_token", "rloo_sequence")


class LearnerSettings(Config):
    """The optimiser and its batches."""

    learning_rate: float = Field(1e-6, gt=0, description="AdamW's peak learning rate.")
    warmup_steps: int = Field(0, ge=0, description="Linear warm-up, in optimiser steps.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm is clipped to this.")
    minibatches: int = Field(1, ge=1, description="Optimiser steps one collected batch is split into.")
    epochs: int = Field(1, ge=1, description="Passes over the collected batch.")
    token_budget: int = Field(1024, ge=64, description="Tokens per packed row: memory against speed.")
    layout: Literal["auto", "tree", "padded"] = Field("auto", description="How turns are packed.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="Compute type; weights stay fp32.")
    dropout: bool = Field(False, description="Keep the dropout of the model's own configuration on in updates.")

    limits: ClassVar[Limits] = {
        "learning_rate": (1.0, "AdamW moves every weight by up to so much at each step"),
        "token_budget": (2**20, "the attention mask of a row alone holds the square of it, 1 TiB"),
        "minibatches": (1_000_000, "no batch has so many episodes"),
        "epochs": (10_000, "no batch is worth more passes"),
    }


class PolicyLossSettings(Config):
    """The loss on the tokens that the policy sampled."""

    loss: Annotated[str, LOSSES] = Field(
        "ppo", description="Ratio level and clip; or a loss of one's own, by its place."
    )
    loss_options: dict[str, Any] = Field({}, description="Arguments of a loss of one's own.")
    aggregation: Aggregation = Field("token-mean", description="How token losses become one number.")
    max_length: int | None = Field(
        None, ge=1, description="constant: the length L that Dr. GRPO divides by; null = the longest an episode can be."
    )
    clip_low: float = Field(0.2, gt=0, description="The ratio is clipped below 1 - clip_low.")
    clip_high: float = Field(0.2, gt=0, description="... and above 1 + clip_high (DAPO: 0.28).")
    dual_clip: float | None = Field(None, gt=1, description="Bound for negative advantages, such as 3.0; null = off.")
    correction: CorrectionName = Field(
        "token_tis",
        description="Importance weights for the engine's slightly different or older policy: cut at the cap (tis), or "
        "what lies above it left out (mask).",
    )
    correction_cap: float = Field(2.0, ge=1, description="Cap of those weights.")
    sequence_filter: FilterName = Field(
        "none",
        description="Leave out whole sequences: whose mean weight lies outside a band (geometric), or that did badly "
        "and that the policy has moved away from (off_policy, arXiv:2512.02556).",
    )
    filter_low: float = Field(0.999, gt=0, le=1, description="geometric: lowest geometric mean of the weights.")
    filter_high: float = Field(1.001, ge=1, description="geometric: highest one.")
    filter_threshold: float = Field(0.1, ge=0, description="off_policy: drift it tolerates, in nats per token.")
    kl_coef: float = Field(0.0, ge=0, description="KL to the frozen reference as a loss term; 0 loads no reference.")
    kl_kind: Literal["k2", "k3", "abs", "k3+"] = Field("k3", description="Estimator of that KL.")
    entropy_coef: float = Field(0.0, ge=0, description="Entropy bonus.")

    only_for: ClassVar[Readers] = {
        "loss_options": {"loss": (OWN,)},
        "max_length": {"aggregation": ("constant",)},
        "clip_low": {"loss": (*_CLIPPED, "cispo")},
        "clip_high": {"loss": (*_CLIPPED, "cispo")},
        "dual_clip": {"loss": _CLIPPED},
        "correction_cap": {"correction": ("token_tis", "sequence_tis", "token_mask", "sequence_mask")},
        "filter_low": {"sequence_filter": ("geometric",)},
        "filter_high": {"sequence_filter": ("geometric",)},
        "filter_threshold": {"sequence_filter": ("off_policy",)},
    }

    @model_validator(mode="after")
    def _ratios_are_positive(self) -> PolicyLossSettings:
        if self.clip_low > 1 and self.loss in _CLIPPED:
            whose = "" if "clip_low" in self.model_fields_set else " (the preset's, set your own)"
            raise ValueError(
                f"`clip_low={self.clip_low:g}`{whose} would clip the ratio below {1 - self.clip_low:g}, where it never "
                "is: with `loss=cispo` it means no lower cap, else use at most 1"
            )
        return self
