"""TextWorld's games as a world: only where TextWorld is installed; without it, the error says what installs it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from rollwright.env import episode_seed
from rollwright.env_check import check_env
from rollwright.envs.text import textworld_game
from rollwright.errors import MissingDependency

INSTALLED = importlib.util.find_spec("textworld") is not None


@pytest.mark.skipif(INSTALLED, reason="TextWorld is installed")
def test_a_missing_textworld_is_said_with_what_installs_it() -> None:
    with pytest.raises(MissingDependency, match=r"rollwright\[textworld\]"):
        textworld_game.build()


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="TextWorld is not installed")
def test_games_are_won_by_their_commands(tmp_path: Path) -> None:
    world = textworld_game.build(games=2, folder=str(tmp_path))
    for split in ("train", "test"):
        for task in world.tasks(split):
            env, teacher, total = world.make(), world.teacher(task), 0.0
            observation = env.reset(task, episode_seed(split, 0))
            result = env.step(teacher.act(env, observation))
            total += sum(result.rewards.values())
            while not (result.terminated or result.truncated):
                result = env.step(teacher.act(env, observation))
                total += sum(result.rewards.values())
            assert result.success is True and total == pytest.approx(1.0)
            env.close()


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="TextWorld is not installed")
def test_the_contract(tmp_path: Path) -> None:
    check_env(textworld_game.build(games=1, folder=str(tmp_path)), seeds=1)
