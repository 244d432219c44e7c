"""The curriculum that the settings name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rollwright.config import build_part, is_own
from rollwright.contracts import ConfigError, Task, World
from rollwright.curriculum.curriculum_settings import CurriculumSettings
from rollwright.curriculum.samplers import Curriculum


def open_curriculum(
    settings: CurriculumSettings, tasks: Sequence[Task], *, seed: int, world: World | None = None
) -> Curriculum:
    """The curriculum of `settings.name` over `tasks`; an evolving one is given its generator later.

    Args:
        world: one that declares a box of task parameters is searched by ALP-GMM in that box, and not by its list.

    Raises:
        ConfigError: there are no tasks, or held-out ones among them; or a curriculum of the user's own breaks its
            contract.
    """
    if is_own(settings.name):
        # Tried on one of its own, so that the run's begins where it was made.
        _try(settings.name, build_part(settings, "name", tasks=tasks, seed=seed, world=world))
    curriculum: Curriculum = build_part(settings, "name", tasks=tasks, seed=seed, world=world)
    return curriculum


def _try(name: str, curriculum: Curriculum) -> None:
    """Raises ConfigError unless a first draw gives training tasks and the state can be written down."""
    try:
        drawn = curriculum.next(0, 3)
        problem = _problem_of(drawn)
        state = curriculum.state_dict()
        # A checkpoint holds JSON: tuples would come back as lists, and numbers as keys would come back as text.
        if json.loads(json.dumps(state)) != state:
            problem = "`state_dict` must hold what JSON keeps as it is: text as keys, numbers, lists"
    except Exception as error:  # a stranger's code may fail in any way
        raise _breach(name, f"{type(error).__name__}: {error}") from error
    if problem:
        raise _breach(name, problem)


def _problem_of(drawn: object) -> str:
    if not isinstance(drawn, list | tuple) or len(drawn) != 3 or not all(isinstance(task, Task) for task in drawn):
        return f"`next(0, 3)` must give 3 tasks, got {str(drawn)[:100]}"
    if held_out := [task.id for task in drawn if task.split != "train"]:
        return f"`next` gave tasks of held-out splits: {held_out}"
    return ""


def _breach(name: str, problem: str) -> ConfigError:
    return ConfigError(f"`curriculum.name`: curriculum `{name}` breaks its contract (docs/extending.md): {problem}")
