"""Methods on data that are no loop of their own: conditioning, inverse dynamics, learned rewards.

Lives here: conditioning on returns (`conditioning`), inverse dynamics (`inverse_dynamics`), demonstrations of teachers
(`demonstrations`), turns to be imitated (`turn_lessons`), stores that are filled once (`store_filling`), revisions of
searched episodes (`revision_*`, `revisions`), outcome models and what they are trained on
(`outcome_*`, `pair_fit`), the teachers of distillation (`teachers`,
`turn_teacher`, `teacher_metrics`, `script_scores`).
May import: curriculum and what stands above it.
"""

from rollwright.methods.conditioning import ReturnLevels, ReturnTargets, conditioned
from rollwright.methods.demonstrations import (
    DEMONSTRATION,
    IGNORED,
    Corrections,
    corrections,
    demonstrate,
    hardest,
    imitable,
    sft_rows,
)
from rollwright.methods.inverse_data import InverseEpisodes, tell_labels
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
    scored_cases,
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
from rollwright.methods.pair_fit import fit_pairs, pair_rows, pairs_of
from rollwright.methods.revision_builder import (
    RevisionBuilder,
    Revisions,
    RevisionSettings,
    nothing_to_imitate,
    open_builder,
    require_disjoint,
    require_revisable,
    waiting_action,
)
from rollwright.methods.revision_pairs import repeats_failing_action, round_alpha
from rollwright.methods.revision_ratings import ActorVerifier, ValueVerifier, Verifier, WorldVerifier
from rollwright.methods.revisions import REVISION, RevisionMessage, message_template
from rollwright.methods.store_filling import fill_store, warn_of_undecided, worth_of_store
from rollwright.methods.teacher_metrics import distillation_metrics, log_ratios
from rollwright.methods.teachers import TeacherSettings, require_teachable
from rollwright.methods.tree_lessons import (
    TargetBy,
    end_rows,
    path_credit,
    paths_to_imitate,
    ranked_pairs,
    require_success_alone_pays,
    return_rows,
    step_pairs,
    tree_group,
    value_rows,
    with_verdict,
)
from rollwright.methods.turn_lessons import Lesson, general_lessons, imitate_lessons, learned_mask, lesson_batch
from rollwright.methods.turn_teacher import TurnTeacher

__all__ = [
    "DEMONSTRATION",
    "IGNORED",
    "REVISION",
    "TAG",
    "ActorVerifier",
    "Case",
    "Corrections",
    "Evidence",
    "InverseEpisodes",
    "InversePrompt",
    "JudgeFit",
    "JudgeModel",
    "JudgedData",
    "LabelReport",
    "Lesson",
    "ModelLabeller",
    "OutcomeCard",
    "OutcomeModel",
    "OutcomePrompt",
    "ReturnLevels",
    "ReturnTargets",
    "RevisionBuilder",
    "RevisionMessage",
    "RevisionSettings",
    "Revisions",
    "TargetBy",
    "TeacherSettings",
    "TurnTeacher",
    "ValueVerifier",
    "Verifier",
    "WorldVerifier",
    "answer_ids",
    "conditioned",
    "corrections",
    "demonstrate",
    "distillation_metrics",
    "end_rows",
    "evidence_of",
    "fill_store",
    "fit_pairs",
    "general_lessons",
    "hardest",
    "held_out",
    "imitable",
    "imitate_lessons",
    "inverse_rows",
    "judge_labels",
    "label",
    "labelled",
    "learned_mask",
    "lesson_batch",
    "log_ratios",
    "message_template",
    "nothing_to_imitate",
    "open_builder",
    "pair_rows",
    "pairs_of",
    "path_credit",
    "paths_to_imitate",
    "prompts_apart",
    "publish",
    "ranked_pairs",
    "read_cases",
    "repeats_failing_action",
    "require_both",
    "require_disjoint",
    "require_logs",
    "require_revisable",
    "require_scores",
    "require_success_alone_pays",
    "require_teachable",
    "return_rows",
    "round_alpha",
    "scored_cases",
    "sft_rows",
    "split_cases",
    "starting_model",
    "step_pairs",
    "tell_labels",
    "tokenizer_mark",
    "tree_group",
    "value_rows",
    "waiting_action",
    "warn_of_undecided",
    "with_verdict",
    "without_actions",
    "worth_of_store",
    "writing_folder",
]
