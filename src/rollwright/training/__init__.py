"""What the loops of all recipes share: opening a run, its steps, its end, and going on after a kill.

Lives here: the entry of a recipe and what is checked before it starts (`recipe_entry`, `preflight`, `preflight_models`,
`plan`, `inputs`), what a run says at its start and its end (`announcements`), the sections that loops read
(`loop_config`, `token_q_config`), opening a run (`open_run`: its parts in order; `open_world`), a world outside of a
loop (`stage`), the steps (`loop`, `collection`, `pipeline`, `parity_gate`, `lessons`), the loop of methods on stored
turns (`replay_loop`), and resumption (`resumption`, `inventory`).
May import: every folder but the command line.
"""

from rollwright.training.announcements import announce, announce_evaluation, announce_next
from rollwright.training.collection import OnPolicy, Requests
from rollwright.training.loop import Training
from rollwright.training.loop_config import NO_GROUPS, ONE_EVALUATION, OWN_UPDATES, LoopConfig, PolicyLoopConfig
from rollwright.training.open_world import (
    RewardSettings,
    WorldSettings,
    close_play,
    open_reward,
    open_world,
    require_judged,
)
from rollwright.training.plan import plan_text
from rollwright.training.recipe_entry import INTERRUPTED, recipe_config, run_recipe
from rollwright.training.replay_loop import PhasedMethod, ReplayMethod, ReplayPhases, replay_loop
from rollwright.training.stage import Stage, open_context, open_stage
from rollwright.training.token_q_config import TokenQConfig, token_q_plan
from rollwright.training.tree_collection import collect_trees, tree_metrics

__all__ = [
    "INTERRUPTED",
    "NO_GROUPS",
    "ONE_EVALUATION",
    "OWN_UPDATES",
    "LoopConfig",
    "OnPolicy",
    "PhasedMethod",
    "PolicyLoopConfig",
    "ReplayMethod",
    "ReplayPhases",
    "Requests",
    "RewardSettings",
    "Stage",
    "TokenQConfig",
    "Training",
    "WorldSettings",
    "announce",
    "announce_evaluation",
    "announce_next",
    "close_play",
    "collect_trees",
    "open_context",
    "open_reward",
    "open_stage",
    "open_world",
    "plan_text",
    "recipe_config",
    "replay_loop",
    "require_judged",
    "run_recipe",
    "token_q_plan",
    "tree_metrics",
]
