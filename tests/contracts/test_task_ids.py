"""A task's id is its name everywhere: in groups, start states, stores and figures. Two tasks of one id are refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Split, Task
from rollwright.curriculum.samplers import UniformCurriculum
from rollwright.curriculum.task_space import ListSpace
from rollwright.envs.text import bandit
from rollwright.evaluation.evaluation_play import evaluation_requests
from rollwright.generation.engine import Sampling
from rollwright.methods.demonstrations import demonstrate
from rollwright.recipes import collect, evaluate, grpo


def three(split: Split) -> list[Task]:
    return [Task(id="same", split=split, params={"number": number}) for number in range(3)]


def requests(tasks: Sequence[Task]) -> object:
    return evaluation_requests(tasks, split="test", seeds_per_task=1, attempts=1, sampling=Sampling())


class Collects:
    def request(self, key: str, task: Task, seed: int) -> str:
        return key

    def play(self, asked: list[str]) -> list[str]:
        return asked


USES: dict[str, tuple[Split, Callable[[Sequence[Task]], Any]]] = {
    "curriculum": ("train", lambda tasks: UniformCurriculum(tasks, seed=0)),
    "task space": ("train", ListSpace),
    "evaluation": ("test", requests),
    "demonstrations": ("train", lambda tasks: demonstrate(Collects(), tasks, per_task=1, seed=0)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("use", USES)
def test_several_tasks_of_one_id_are_refused_wherever_tasks_are_taken(use: str):
    split, take = USES[use]
    assert take(three(split)[:1])
    with pytest.raises(ConfigError, match=r"'same' \(3 times\)"):
        take(three(split))


def test_a_run_on_a_world_with_doubled_ids_ends_before_a_weight_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bandit.BanditWorld, "tasks", lambda self, split: three(split))
    same = ("world.name=text.bandit", "model.path=tiny", "engine=transformers")
    for recipe, words in (
        (collect, (f"run.folder={tmp_path}/collect",)),
        (evaluate, (f"folder={tmp_path}/evaluate", "name=x")),
        (grpo, (f"run.folder={tmp_path}/grpo", "rollout.group_size=2")),
    ):
        with pytest.raises(ConfigError, match=r"world 'text.bandit', split '\w+', lists several tasks under one id"):
            recipe.main([*same, *words])
