"""TextWorld's games as a world: only where TextWorld is installed; without it, the error says what installs it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import MissingDependency
from rollwright.envs.text import textworld_game

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


# Commands to the interpreter. In TextWorld 1.7 each of the first kind wrote a file, read one, or began another game.

OUTSIDE = (
    *(
        "save",
        "SAVE",
        " save ",
        "restore",
        "quit",
        "q",
        "restart",
        "undo",
        "script",
        "script on",
        "transcript",
        "oops save",
    ),
    *(
        "transcripz",
        "look. save",
        "n.save",
        "look then save",
        "me, save",
        "look, save",
        "tw-trace-actions",
        "look. tw-print",
    ),
    *("recording", "replay", "noscript", "\x00save", "save\x00", "..save", "o save", "\ud800. save"),
)
INSIDE = ("look", "take saved lamp", "open script box", "examine quilt", "go east", "", "saver", "x" * 5000, "\ud800")


class Interpreter:
    """Notes what reaches the game."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def step(self, command: str) -> tuple[dict[str, Any], float, bool]:
        self.heard.append(command)
        return {"feedback": "Fine.", "max_score": 1, "won": False}, 0.0, False


def standing(world: textworld_game.TextWorldWorld) -> tuple[textworld_game.TextWorldEnvironment, Interpreter]:
    env, game = world.make(), Interpreter()
    env._env, env._state, env._over = game, {"feedback": "", "max_score": 1, "won": False}, False
    return env, game


@pytest.mark.parametrize("command", OUTSIDE)
def test_a_command_to_the_interpreter_is_a_slip_and_never_reaches_it(command: str) -> None:
    world = textworld_game.TextWorldWorld(rooms=1, things=1, quest=1, games=1, folder=Path(), max_turns=2)
    env, game = standing(world)
    first, last = env.step(command), env.step(command)
    assert game.heard == [] and first.observation == textworld_game.SLIP and first.reward == 0.0
    assert not first.truncated and last.truncated and last.success is False


def test_commands_to_the_game_reach_it_as_one_printable_line() -> None:
    world = textworld_game.TextWorldWorld(rooms=1, things=1, quest=1, games=1, folder=Path(), max_turns=50)
    env, game = standing(world)
    for command in INSIDE:
        env.step(command)
    assert len(game.heard) == len(INSIDE) and all(line.isascii() and 0 < len(line) <= 200 for line in game.heard)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="TextWorld is not installed")
def test_the_policy_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real interpreter, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    world = textworld_game.build(games=1, folder=str(tmp_path / "games"), max_turns=100)
    env, task = world.make(), world.tasks("train")[0]
    env.reset(task, episode_seed("train", 0))
    for command in OUTSIDE:
        assert env.step(command).observation == textworld_game.SLIP
    assert list((tmp_path / "here").iterdir()) == []
    env.close()
