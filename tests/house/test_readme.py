"""What the README shows is true: its environment and reward keep the contracts, its files and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rollwright.checks.env_check import check_env
from rollwright.checks.reward_check import check_reward
from rollwright.contracts.record import Group, StopReason, Task, Trajectory, Turn

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown() -> dict:
    [block] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


def test_the_environment_keeps_the_contract(shown: dict) -> None:
    check_env(shown["CountdownWorld"](), actions=["3", "2", "1", "0"])


def test_the_reward_keeps_the_contract(shown: dict) -> None:
    task = Task(id="countdown", split="train")
    turn = Turn(prompt_ids=(1,), action_ids=(2,), action_logprobs=(-1.0,), text="2")
    trajectories = tuple(
        Trajectory(id=str(i), task=task, seed=0, turns=(turn,), stop_reason=StopReason.TERMINATED, success=bool(i))
        for i in range(2)
    )
    check_reward(shown["Brief"](), [Group(id="g", task=task, seed=0, trajectories=trajectories)])


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"\]\(([\w/.-]+)\)", README)) | set(re.findall(r"recipes/[\w/]+\.(?:py|yaml)", README))
    assert len(named) > 8
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing
