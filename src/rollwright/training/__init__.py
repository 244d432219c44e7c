"""What the loops of all recipes share: opening a run, its steps, its end, and going on after a kill.

Lives here: the entry of a recipe and what is checked before it starts (`recipe_entry`, `preflight`, `model_plan`,
`inputs`), the parts of a run (`assembly`, `run_assembly`, `start_assembly`, `offline_assembly`), the steps (`loop`,
`pipeline`, `group_scores`, `parity_gate`, `step_clock`, `phases`, `lessons`), and resumption (`resumption`,
`inventory`).
May import: every folder but the command line.
"""

from rollwright.training.assembly import (
    close_play,
    judge,
    open_codec,
    open_collector,
    open_engine,
    open_reward,
    open_world,
    policy_folder,
)
from rollwright.training.loop import Training
from rollwright.training.offline_assembly import open_context
from rollwright.training.phases import Phases
from rollwright.training.recipe_entry import recipe_config, run_recipe

__all__ = [
    "Phases",
    "Training",
    "close_play",
    "judge",
    "open_codec",
    "open_collector",
    "open_context",
    "open_engine",
    "open_reward",
    "open_world",
    "policy_folder",
    "recipe_config",
    "run_recipe",
]
