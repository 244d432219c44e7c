"""Every curriculum by its name in the settings."""

from __future__ import annotations

from collections.abc import Sequence

from rollwright.config import CurriculumSettings
from rollwright.contracts import Parametrised, Task, World
from rollwright.curriculum.alp_gmm import AlpGmmCurriculum
from rollwright.curriculum.learnability import LearnabilityCurriculum
from rollwright.curriculum.level_replay import LevelReplayCurriculum
from rollwright.curriculum.samplers import BandCurriculum, Curriculum, UniformCurriculum
from rollwright.curriculum.task_space import BoxSpace, ListSpace, TaskSpace


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
