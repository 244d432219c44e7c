"""Losses of policies and critics, per flat action token, and the ways to average them.

`policy_loss` = ratio level x clip x detached weight; `aggregate` turns it into a scalar with a global denominator.
"""

from rollwright.losses.aggregation import (
    AGGREGATIONS,
    Aggregation,
    LossCounts,
    aggregate,
    aggregate_padded,
    count_loss_units,
    count_loss_units_padded,
    loss_denominator,
    token_weights,
)
from rollwright.losses.corrections import (
    Correction,
    combine,
    effective_sample_frac,
    filter_geometric,
    filter_off_policy,
    filter_stale,
    mask_sequences,
    mask_tokens,
    normalise_weights,
    sampler_log_weights,
    sequence_log_weights,
    truncate_sequences,
    truncate_tokens,
)
from rollwright.losses.critic import entropy_of_logits, value_loss
from rollwright.losses.imitation import webrl_released, webrl_squared, weighted_nll
from rollwright.losses.kl import AdaptiveKl, KlKind, kl_estimate, kl_loss, kl_shaped_rewards
from rollwright.losses.metrics import approximate_kl, clip_frac, masked_mean
from rollwright.losses.policy import (
    CispoClip,
    Clip,
    NoClip,
    PolicyLoss,
    PpoClip,
    RatioLevel,
    importance_ratio,
    log_ratio,
    policy_loss,
    policy_loss_padded,
)
from rollwright.losses.shaping import group_can_teach, overlong_penalty

__all__ = [
    "AGGREGATIONS",
    "AdaptiveKl",
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
    "aggregate_padded",
    "approximate_kl",
    "clip_frac",
    "combine",
    "count_loss_units",
    "count_loss_units_padded",
    "effective_sample_frac",
    "entropy_of_logits",
    "filter_geometric",
    "filter_off_policy",
    "filter_stale",
    "group_can_teach",
    "importance_ratio",
    "kl_estimate",
    "kl_loss",
    "kl_shaped_rewards",
    "log_ratio",
    "loss_denominator",
    "mask_sequences",
    "mask_tokens",
    "masked_mean",
    "normalise_weights",
    "overlong_penalty",
    "policy_loss",
    "policy_loss_padded",
    "sampler_log_weights",
    "sequence_log_weights",
    "token_weights",
    "truncate_sequences",
    "truncate_tokens",
    "value_loss",
    "webrl_released",
    "webrl_squared",
    "weighted_nll",
]
