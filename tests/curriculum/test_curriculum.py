"""Curricula: reproducible draws, held-out tasks refused, the band prefers what is neither solved nor hopeless."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Group, Task
from rollwright.curriculum.curriculum_settings import CurriculumSettings
from rollwright.curriculum.samplers import BandCurriculum, Curriculum
from rollwright.curriculum.select_curriculum import open_curriculum
from tests import builders

NAMES = ["uniform", "band", "learnability", "level_replay", "alp_gmm"]
TASKS = [Task(id=name, split="train") for name in ("easy", "middling", "hard", "new")]


def made(name: str, tasks: Sequence[Task], *, seed: int = 0, **settings: Any) -> Curriculum:
    return open_curriculum(CurriculumSettings(name=name, **settings), tasks, seed=seed)


def outcome(task: Task, success: bool) -> Group:
    return builders.group(builders.episode("x", builders.turn(text="a"), task=task, success=success))


@pytest.mark.parametrize("name", NAMES)
def test_draws_depend_on_seed_and_step_alone(name: str) -> None:
    first, second, other = (made(name, TASKS, seed=s) for s in (3, 3, 4))
    draws = [[t.id for t in first.next(step, 6)] for step in range(8)]
    assert draws == [[t.id for t in second.next(step, 6)] for step in range(8)]
    assert draws != [[t.id for t in other.next(step, 6)] for step in range(8)]


def test_uniform_leaves_no_task_out() -> None:
    uniform = made("uniform", TASKS)
    counts = Counter(t.id for step in range(10) for t in uniform.next(step, 6))
    assert set(counts.values()) == {15}


def test_the_band_follows_p_times_one_minus_p() -> None:
    band = BandCurriculum(TASKS, seed=0, momentum=0.0, floor=0.05)
    band.update([outcome(TASKS[0], True), outcome(TASKS[2], False)])
    band.success["middling"] = 0.5
    # weights 0.05, 0.30, 0.05, 0.30: of 700 draws 50, 300, 50, 300, each step rounded to a neighbour
    counts = Counter(t.id for step in range(100) for t in band.next(step, 7))
    assert counts == pytest.approx({"easy": 50, "middling": 300, "hard": 50, "new": 300}, abs=20)


def test_the_state_survives_saving() -> None:
    band = BandCurriculum(TASKS, seed=0)
    band.update([outcome(TASKS[0], True)])
    restored = BandCurriculum(TASKS, seed=0)
    restored.load_state_dict(band.state_dict())
    assert restored.success == band.success and restored.success["easy"] == pytest.approx(0.65)


def test_held_out_tasks_and_no_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="held-out split"):
        made("uniform", [Task(id="t", split="test")])
    with pytest.raises(ConfigError, match="no training tasks"):
        made("band", [])
