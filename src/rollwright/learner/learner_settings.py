"""The section `learner`, and the keys of `algorithm` that say which loss a policy has."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from rollwright.config import OWN, Config, Limits, Readers
from rollwright.learner.policy_losses import LOSSES
from rollwright.maths.losses import Aggregation

CorrectionName = Literal["none", "token_tis", "sequence_tis", "token_mask", "sequence_mask"]
FilterName = Literal["none", "geometric", "off_policy"]
# These take PPO's clip. cispo caps a detached weight: it has no dual clip, and its clip_low may exceed 1.
_CLIPPED = ("ppo", "gspo", "gspo_token", "rloo_sequence")


class LearnerSettings(Config):
    """The optimiser and its batches."""

    learning_rate: float = Field(1e-6, gt=0, description="AdamW's peak learning rate.")
    warmup_steps: int = Field(0, ge=0, description="Linear warm-up, in optimiser steps.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Maximum gradient norm; larger gradients are clipped.")
    minibatches: int = Field(1, ge=1, description="Number of optimiser steps per pass over the collected batch.")
    epochs: int = Field(1, ge=1, description="Passes over the collected batch.")
    token_budget: int = Field(
        1024, ge=64, description="Maximum number of tokens in one packed row; more is faster and takes more memory."
    )
    layout: Literal["auto", "tree", "padded"] = Field("auto", description="How turns are packed into rows.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Data type of the computation; weights stay in fp32."
    )
    dropout: bool = Field(False, description="Keep the model's own dropout active during updates.")

    limits: ClassVar[Limits] = {
        "learning_rate": (1.0, "AdamW moves every weight by up to so much at each step"),
        "token_budget": (2**20, "the attention mask of a row alone holds the square of it, 1 TiB"),
        "minibatches": (1_000_000, "no batch has so many episodes"),
        "epochs": (10_000, "no batch is worth more passes"),
    }


class PolicyLossSettings(Config):
    """The loss on the tokens that the policy sampled."""

    loss: Annotated[str, LOSSES] = Field(
        "ppo",
        description="Policy loss: level of the ratio and form of the clip; or your own loss, as "
        "package.module:Attribute.",
    )
    loss_options: dict[str, Any] = Field({}, description="Arguments of your own loss.")
    aggregation: Aggregation = Field("token-mean", description="How token losses are reduced to one number.")
    max_length: int | None = Field(
        None,
        ge=1,
        description="constant: the length L that Dr. GRPO divides by; null = the maximum length of an episode.",
    )
    clip_low: float = Field(0.2, gt=0, description="The ratio is clipped from below at 1 - clip_low.")
    clip_high: float = Field(0.2, gt=0, description="The ratio is clipped from above at 1 + clip_high (DAPO: 0.28).")
    dual_clip: float | None = Field(
        None, gt=1, description="Bound of the ratio for negative advantages (dual clip), such as 3.0; null = off."
    )
    correction: CorrectionName = Field(
        "token_tis",
        description="Importance weights that correct for the engine's slightly different or older policy: "
        "truncated at the cap (tis), or tokens above the cap left out (mask).",
    )
    # A cap below 1 would change on-policy tokens too.
    correction_cap: float = Field(2.0, ge=1, description="Cap of these importance weights.")
    sequence_filter: FilterName = Field(
        "none",
        description="Leave out whole sequences. geometric: those whose mean weight lies outside a band; "
        "off_policy: those with a negative advantage that the policy has moved away from "
        "(arXiv:2512.02556).",
    )
    filter_low: float = Field(
        0.999, gt=0, le=1, description="geometric: lower bound of a sequence's geometric mean weight."
    )
    filter_high: float = Field(1.001, ge=1, description="geometric: upper bound of a sequence's geometric mean weight.")
    filter_threshold: float = Field(0.1, ge=0, description="off_policy: maximum drift, in nats per token.")
    kl_coef: float = Field(
        0.0,
        ge=0,
        description="Coefficient of the KL to the frozen reference as a loss term; 0 = none, and no reference"
        " is loaded.",
    )
    # k1 is left out: as a loss term its expected gradient is 0.
    kl_kind: Literal["k2", "k3", "abs", "k3+"] = Field("k3", description="Estimator of that KL.")
    entropy_coef: float = Field(0.0, ge=0, description="Coefficient of the entropy bonus.")

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
