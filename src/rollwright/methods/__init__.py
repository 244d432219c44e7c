"""Methods on data that are no loop of their own: conditioning, inverse dynamics, learned rewards.

Lives here: conditioning on returns (`conditioning`), inverse dynamics (`inverse_dynamics`), demonstrations of teachers
(`demonstrations`), stores that are filled once (`store_filling`), outcome models and what they are trained on
(`outcome_*`, `pair_fit`).
May import: curriculum and what stands above it.
"""

from rollwright.methods.conditioning import ReturnLevels, ReturnTargets, conditioned
from rollwright.methods.demonstrations import DEMONSTRATION, IGNORED, demonstrate, imitable, sft_rows
from rollwright.methods.inverse_dynamics import (
    TAG,
    InversePrompt,
    LabelReport,
    ModelLabeller,
    held_out,
    inverse_rows,
    judge_labels,
    label,
    labelled,
    require_logs,
    without_actions,
)
from rollwright.methods.outcome_data import (
    Case,
    prompts_apart,
    read_cases,
    require_both,
    require_scores,
    split_cases,
    starting_model,
)
from rollwright.methods.outcome_model import (
    OutcomeCard,
    OutcomeModel,
    answer_ids,
    publish,
    tokenizer_mark,
    writing_folder,
)
from rollwright.methods.outcome_settings import JudgedData, JudgeFit, JudgeModel
from rollwright.methods.outcome_text import Evidence, OutcomePrompt, evidence_of
from rollwright.methods.pair_fit import fit_pairs, pairs_of
from rollwright.methods.store_filling import fill_store, warn_of_undecided, worth_of_store

__all__ = [
    "DEMONSTRATION",
    "IGNORED",
    "TAG",
    "Case",
    "Evidence",
    "InversePrompt",
    "JudgeFit",
    "JudgeModel",
    "JudgedData",
    "LabelReport",
    "ModelLabeller",
    "OutcomeCard",
    "OutcomeModel",
    "OutcomePrompt",
    "ReturnLevels",
    "ReturnTargets",
    "answer_ids",
    "conditioned",
    "demonstrate",
    "evidence_of",
    "fill_store",
    "fit_pairs",
    "held_out",
    "imitable",
    "inverse_rows",
    "judge_labels",
    "label",
    "labelled",
    "pairs_of",
    "prompts_apart",
    "publish",
    "read_cases",
    "require_both",
    "require_logs",
    "require_scores",
    "sft_rows",
    "split_cases",
    "starting_model",
    "tokenizer_mark",
    "warn_of_undecided",
    "without_actions",
    "worth_of_store",
    "writing_folder",
]
