"""Which task comes next, and from where an episode starts.

Lives here: the sections `curriculum` and `starts` (`curriculum_settings`), samplers by name (`select_curriculum`,
`samplers`, `learnability`, `level_replay`, `alp_gmm`), tasks that grow (`evolving`, `task_generators`, `task_space`),
start states (`starts`, `waypoints`, `prefixes`).
May import: rollout and what stands above it.
"""

from rollwright.curriculum.alp_gmm import AlpGmmCurriculum, Progress
from rollwright.curriculum.curriculum_settings import CURRICULA, CurriculumSettings, StartSettings
from rollwright.curriculum.evolving import EvolvingCurriculum
from rollwright.curriculum.prefixes import is_prefixed, prefix_length
from rollwright.curriculum.samplers import Curriculum, UniformCurriculum
from rollwright.curriculum.select_curriculum import open_curriculum
from rollwright.curriculum.starts import StartPool
from rollwright.curriculum.task_generators import open_generator

__all__ = [
    "CURRICULA",
    "AlpGmmCurriculum",
    "Curriculum",
    "CurriculumSettings",
    "EvolvingCurriculum",
    "Progress",
    "StartPool",
    "StartSettings",
    "UniformCurriculum",
    "is_prefixed",
    "open_curriculum",
    "open_generator",
    "prefix_length",
]
