"""Which task comes next, and from where an episode starts.

Lives here: samplers by name (`select_curriculum`, `samplers`, `learnability`, `level_replay`, `alp_gmm`), tasks that
grow (`evolving`, `task_generators`, `task_space`), start states (`starts`, `waypoints`).
May import: rollout and what stands above it.
"""

from rollwright.curriculum.alp_gmm import AlpGmmCurriculum, Progress
from rollwright.curriculum.evolving import EvolvingCurriculum, open_curriculum
from rollwright.curriculum.samplers import Curriculum, UniformCurriculum
from rollwright.curriculum.starts import StartPool
from rollwright.curriculum.task_generators import open_generator

__all__ = [
    "AlpGmmCurriculum",
    "Curriculum",
    "EvolvingCurriculum",
    "Progress",
    "StartPool",
    "UniformCurriculum",
    "open_curriculum",
    "open_generator",
]
