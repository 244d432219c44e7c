"""Critics of turns, utterances and words, what they are fitted to, and updates of a policy on stored turns.

Lives here: the sections of critics (`critic_settings`), what a critic reads with (`critic_body`), critics of whole
turns, of every token of the vocabulary, with a body that never learns (`turn_critic`, `vocabulary_critic`,
`frozen_critic`) and as a baseline (`token_baseline`), how recipes open them (`open_critics`) and how they learn
(`critic_learner`, `critic_targets`, `outcome_values`, `token_q`, `token_steps`); fresh actions, updates on stored turns
and replayed successes (`fresh_actions`, `replay_updates`, `success_replay`).
May import: learner and what stands above it.
"""

from rollwright.critics.critic_body import cut_to, policy_body
from rollwright.critics.critic_settings import RegressedCriticFit, TokenCriticFit, TurnCriticFit
from rollwright.critics.critic_targets import (
    DIVERGENCES,
    ColumnLoss,
    Columns,
    HeadLoss,
    HeadTargets,
    Readings,
    followed,
    loss_of_heads,
    loss_of_v,
    one_step_targets,
    rows_of_heads,
    squared_error,
)
from rollwright.critics.fresh_actions import FreshActions, FreshValues, sample_actions, with_action, with_fresh_actions
from rollwright.critics.frozen_critic import FrozenValueLearner
from rollwright.critics.open_critics import open_turn_critic, open_value_beside, open_vocabulary_critic
from rollwright.critics.outcome_values import (
    fit_instructions,
    fit_outcomes,
    fit_passes,
    fit_states,
    instruction_prompts,
    outcome_steps,
    outcomes,
    success_probability,
)
from rollwright.critics.replay_updates import (
    WebRLObjective,
    WeightedLikelihood,
    actor_weights,
    imitate,
    least_advantages,
    shuffled_batches,
    stored_batch,
    whitened,
)
from rollwright.critics.step_value import StepValue, StepValueFit, SuccessChance, ValueRows, open_step_value
from rollwright.critics.step_value_files import load_step_value, save_step_value
from rollwright.critics.success_replay import SuccessReplay, SuccessReplaySettings
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
from rollwright.critics.value_beside import ValueBeside

__all__ = [
    "DIVERGENCES",
    "ENGINES_WITH_Q",
    "ColumnLoss",
    "Columns",
    "FreshActions",
    "FreshValues",
    "FrozenValueLearner",
    "HeadLoss",
    "HeadTargets",
    "Readings",
    "RegressedCriticFit",
    "StepValue",
    "StepValueFit",
    "StoredChains",
    "SuccessChance",
    "SuccessReplay",
    "SuccessReplaySettings",
    "TokenCriticFit",
    "TokenQSettings",
    "TurnCriticFit",
    "TurnCriticSettings",
    "ValueBeside",
    "ValueRows",
    "WebRLObjective",
    "WeightedLikelihood",
    "actor_weights",
    "baseline_critic",
    "cut_to",
    "decode_with",
    "fit_instructions",
    "fit_outcomes",
    "fit_passes",
    "fit_states",
    "followed",
    "imitate",
    "implicit_loss",
    "implicit_targets",
    "instruction_prompts",
    "least_advantages",
    "load_step_value",
    "loss_of_heads",
    "loss_of_v",
    "one_step_targets",
    "open_step_value",
    "open_turn_critic",
    "open_value_beside",
    "open_vocabulary_critic",
    "outcome_steps",
    "outcomes",
    "policy_body",
    "reading",
    "residual_ratio",
    "rows_of_heads",
    "sample_actions",
    "save_step_value",
    "shuffled_batches",
    "squared_error",
    "stored_batch",
    "success_probability",
    "token_q_loss",
    "whitened",
    "with_action",
    "with_fresh_actions",
    "with_token_baseline",
]
