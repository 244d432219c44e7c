"""Critics of turns, utterances and words, their targets, and what off-policy recipes share.

Lives here: the sections of critics (`critic_settings`), the parts of a critic (`critic_body`, `packed_reader`),
critics by kind (`turn_critic`, `vocabulary_critic`, `frozen_critic`, `token_baseline`), how they are fitted
(`value_learner`, `token_q`, `token_steps`), and what recipes do with stored turns (`offpolicy`, `phase_replay`).
May import: learner and what stands above it.
"""

from rollwright.critics.critic_assembly import open_turn_critic, open_vocabulary_critic
from rollwright.critics.critic_body import cut_to, policy_body
from rollwright.critics.critic_settings import TokenCriticFit, TurnCriticFit
from rollwright.critics.frozen_critic import FrozenValueLearner
from rollwright.critics.offpolicy import sample_actions
from rollwright.critics.phase_replay import PhaseReplay, PhaseReplaySettings
from rollwright.critics.token_baseline import baseline_critic, residual_ratio, with_token_baseline
from rollwright.critics.token_q import (
    ENGINES_WITH_Q,
    StoredChains,
    TokenQSettings,
    decode_with,
    implicit_loss,
    implicit_targets,
    token_q_loss,
)
from rollwright.critics.turn_critic import TurnCriticSettings, reading
from rollwright.critics.value_learner import ReadingLoss, Readings

__all__ = [
    "ENGINES_WITH_Q",
    "FrozenValueLearner",
    "PhaseReplay",
    "PhaseReplaySettings",
    "ReadingLoss",
    "Readings",
    "StoredChains",
    "TokenCriticFit",
    "TokenQSettings",
    "TurnCriticFit",
    "TurnCriticSettings",
    "baseline_critic",
    "cut_to",
    "decode_with",
    "implicit_loss",
    "implicit_targets",
    "open_turn_critic",
    "open_vocabulary_critic",
    "policy_body",
    "reading",
    "residual_ratio",
    "sample_actions",
    "token_q_loss",
    "with_token_baseline",
]
