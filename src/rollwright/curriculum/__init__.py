"""Which task comes next, and from where an episode starts.

Lives here: the sections `curriculum` and `starts` (`curriculum_settings`), samplers by name (`select_curriculum`,
`samplers`, `learnability`, `level_replay`, `alp_gmm`), tasks that grow (`evolving`, `task_generators`, `task_space`),
start states (`starts`, `start_states`, `guide_starts`, `open_starts`, `waypoints`, `prefixes`), how deep episodes go
(`turn_depth`).
May import: rollout and what stands above it.
"""

from rollwright.curriculum.alp_gmm import AlpGmmCurriculum, Progress
from rollwright.curriculum.curriculum_settings import CURRICULA, CurriculumSettings, StartSettings
from rollwright.curriculum.evolving import EvolvingCurriculum
from rollwright.curriculum.open_starts import has_teacher, open_starts, reflection_ids, taught_groups
from rollwright.curriculum.prefixes import is_prefixed, prefix_length
from rollwright.curriculum.roll_ins import RollIns
from rollwright.curriculum.samplers import Curriculum, UniformCurriculum
from rollwright.curriculum.select_curriculum import open_curriculum
from rollwright.curriculum.starts import StartPool
from rollwright.curriculum.task_generators import open_generator
from rollwright.curriculum.turn_depth import replayed_turns, turn_depth

__all__ = [
    "CURRICULA",
    "AlpGmmCurriculum",
    "Curriculum",
    "CurriculumSettings",
    "EvolvingCurriculum",
    "Progress",
    "RollIns",
    "StartPool",
    "StartSettings",
    "UniformCurriculum",
    "has_teacher",
    "is_prefixed",
    "open_curriculum",
    "open_generator",
    "open_starts",
    "prefix_length",
    "reflection_ids",
    "replayed_turns",
    "taught_groups",
    "turn_depth",
]
