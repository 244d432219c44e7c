"""Losses of policies and critics, per flat action token, and the ways to average them.

`policy_loss` = ratio level x clip x detached weight; `aggregate` turns it into a scalar with a global denominator.
"""

from rollwright.maths.losses.aggregation import (
    AGGREGATIONS,
    Aggregation,
    LossCounts,
    aggregate,
    constant_length,
    count_loss_units,
    loss_denominator,
    token_weights,
)
from rollwright.maths.losses.corrections import (
    Correction,
    combine,
    filter_geometric,
    filter_off_policy,
    mask_sequences,
    mask_tokens,
    sampler_log_weights,
    sequence_log_weights,
    truncate_sequences,
    truncate_tokens,
)
from rollwright.maths.losses.imitation import webrl_released_loss, webrl_squared, weighted_nll
from rollwright.maths.losses.kl import KlKind, kl_estimate, kl_loss, kl_shaped_rewards
from rollwright.maths.losses.policy import (
    CispoClip,
    Clip,
    NoClip,
    PolicyLoss,
    PpoClip,
    RatioLevel,
    importance_ratio,
    log_ratio,
    policy_loss,
)
from rollwright.maths.losses.ratio_metrics import approximate_kl, clip_frac, masked_mean
from rollwright.maths.losses.shaping import overlong_penalty
from rollwright.maths.losses.value_losses import value_loss

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "CispoClip",
    "Clip",
    "Correction",
    "KlKind",
    "LossCounts",
    "NoClip",
    "PolicyLoss",
    "PpoClip",
    "RatioLevel",
    "aggregate",
    "approximate_kl",
    "clip_frac",
    "combine",
    "constant_length",
    "count_loss_units",
    "filter_geometric",
    "filter_off_policy",
    "importance_ratio",
    "kl_estimate",
    "kl_loss",
    "kl_shaped_rewards",
    "log_ratio",
    "loss_denominator",
    "mask_sequences",
    "mask_tokens",
    "masked_mean",
    "overlong_penalty",
    "policy_loss",
    "sampler_log_weights",
    "sequence_log_weights",
    "token_weights",
    "truncate_sequences",
    "truncate_tokens",
    "value_loss",
    "webrl_released_loss",
    "webrl_squared",
    "weighted_nll",
]
