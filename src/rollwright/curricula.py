"""Every curriculum by its name in the settings."""

from __future__ import annotations

from collections.abc import Sequence

from rollwright.alp_gmm import AlpGmmCurriculum
from rollwright.curriculum import BandCurriculum, Curriculum, UniformCurriculum
from rollwright.env import Parametrised, World
from rollwright.learnability import LearnabilityCurriculum
from rollwright.level_replay import LevelReplayCurriculum
from rollwright.settings import CurriculumSettings
from rollwright.task_space import BoxSpace, ListSpace, TaskSpace
from rollwright.types import Task


def make_curriculum(
    settings: CurriculumSettings, tasks: Sequence[Task], *, seed: int, world: World | None = None
) -> Curriculum:
    """The curriculum of `settings.name` over `tasks`.

    Args:
        world: one that declares a box of task parameters is searched by ALP-GMM in that box, and not by its list.

    Raises:
        ConfigError: there are no tasks, or held-out ones among them.
    """
    if settings.name == "uniform":
        return UniformCurriculum(tasks, seed=seed)
    if settings.name == "band":
        return BandCurriculum(tasks, seed=seed)
    if settings.name == "learnability":
        return LearnabilityCurriculum(
            tasks,
            seed=seed,
            window=settings.window,
            random_frac=settings.random_frac,
            mastered_frac=settings.mastered_frac,
        )
    if settings.name == "level_replay":
        return LevelReplayCurriculum(tasks, seed=seed, temperature=settings.temperature, stale_frac=settings.stale_frac)
    return AlpGmmCurriculum(
        task_space(tasks, world),
        seed=seed,
        fit_every=settings.fit_every,
        random_frac=settings.random_frac,
        max_components=settings.max_components,
        min_width=settings.min_width,
        criterion=settings.criterion,
        progress=settings.progress,
    )


def task_space(tasks: Sequence[Task], world: object) -> TaskSpace:
    """The box of parameters where the world declares one with any side, else the list."""
    if isinstance(world, Parametrised) and world.parameter_box():
        return BoxSpace(world)
    return ListSpace(tasks)
