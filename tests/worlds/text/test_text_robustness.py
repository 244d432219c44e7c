"""All text worlds under random and hostile actions: no crash, the same bytes in another process, exact forks.

ROLLWRIGHT_TEXT_EPISODES and ROLLWRIGHT_TEXT_ACTIONS raise the numbers; 1000 and 10000 are what the worlds are meant to
stand.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from rollwright.contracts.environment import Observation, StepResult, as_observation, episode_seed
from rollwright.contracts.forking import fork
from rollwright.contracts.record import SPLITS
from rollwright.envs.text import (
    car_dealer,
    chess_game,
    guess_city,
    household,
    maze,
    navigation,
    twenty_questions,
    wordle,
)

EPISODES = int(os.environ.get("ROLLWRIGHT_TEXT_EPISODES", "20"))
ACTIONS = int(os.environ.get("ROLLWRIGHT_TEXT_ACTIONS", "300"))
WORLDS: dict[str, Callable[[], Any]] = {
    "maze": lambda: maze.build(variant="po"),
    "navigation": lambda: navigation.build(variant="po"),
    "wordle": wordle.build,
    "chess": lambda: chess_game.build(opponent="random", wording="compact"),
    "endgames": lambda: chess_game.build(opponent="random", start="endgames"),
    "twenty_questions": twenty_questions.build,
    "guess_city": guess_city.build,
    "car_dealer": car_dealer.build,
    "household": household.build,
    "household-small": lambda: household.build(size="small", wording="state", show_commands=True),
}
LONGEST = 20_000
"""Characters that an observation may have, whatever was said to the world."""


def well_formed(world: Any, env: Any, rng: random.Random) -> str:
    """A random action of the world's own grammar."""
    return world.random_action(env, Observation(text=""), rng)


HOSTILE = (
    "",
    " ",
    "\x00\x1b[2J",
    "a" * 100_000,
    "9" * 10_000,
    "١٢٣ ² ½ Ⅷ",
    "{}{0}{state.seed}%s%n",
    "../../etc/passwd",
    "__import__('os').system('true')",
    "\u202e\u200b\ud7ff🙂" * 50,
    "go to " * 5000,
    "(" * 5000,
    "$" * 5000 + "1",
    "1," * 5000,
    "not " * 3000,
    "take a from b; DROP TABLE",
    "--",
    "0000",
    "\n\n\nmove up\n",
)
MIXED = "go to take put open close is it a the shelf 1 apple 2 Kf3 e4 O-O deal 20000 $ move up french"


def hostile(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(HOSTILE)
    if kind < 0.7:
        return "".join(
            chr(rng.choice([rng.randrange(32, 127), rng.randrange(160, 0xD800)])) for _ in range(rng.randrange(60))
        )
    words = MIXED.split()
    return " ".join(rng.choice(words) for _ in range(rng.randrange(12)))


def check_result(result: StepResult) -> None:
    text = as_observation(result.observation).text
    assert isinstance(text, str) and len(text) < LONGEST
    assert all(math.isfinite(value) for value in result.rewards.values())
    assert not (result.terminated and result.truncated)
    assert (result.success is not None) == (result.terminated or result.truncated)


def transcript(name: str, episodes: int) -> tuple[str, list[str]]:
    """The hash of all that is said in `episodes` random episodes, and the tasks that went on beyond the limit."""
    world, digest, endless = WORLDS[name](), hashlib.sha256(), []
    tasks = [task for split in SPLITS for task in world.tasks(split)[:5]]
    env = world.make()
    for number in range(episodes):
        rng, task = random.Random(number), tasks[number % len(tasks)]
        digest.update(as_observation(env.reset(task, episode_seed(task.split, "walk", number))).text.encode())
        for _ in range(world.max_turns):
            result = env.step(well_formed(world, env, rng))
            check_result(result)
            digest.update(f"{result}{env.fingerprint()}".encode())
            if result.terminated or result.truncated:
                break
        else:
            endless.append(task.id)
    return digest.hexdigest(), endless


@pytest.mark.parametrize("name", WORLDS)
def test_random_episodes_end_within_their_limit(name: str) -> None:
    _, endless = transcript(name, EPISODES if name not in ("chess", "endgames") else max(3, EPISODES // 10))
    assert not endless


def test_another_process_says_the_same_bytes() -> None:
    """Other hash seeds shuffle sets and hashes of text: nothing that is said may depend on them."""
    here = {name: transcript(name, 3) for name in WORLDS}
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('robust', {__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "print({name: module.transcript(name, 3) for name in module.WORLDS})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(here)


@pytest.mark.parametrize("name", WORLDS)
def test_hostile_actions_are_answered(name: str) -> None:
    world, rng = WORLDS[name](), random.Random(5)
    task = next(task for split in SPLITS for task in world.tasks(split))
    env, over, episodes = world.make(), True, 0
    for _ in range(ACTIONS):
        if over:
            env.reset(task, episode_seed(task.split, "hostile", episodes))
            episodes += 1
        result = env.step(hostile(rng))
        check_result(result)
        over = result.terminated or result.truncated


@pytest.mark.parametrize("name", WORLDS)
async def test_forks_in_mid_episode_go_on_exactly_as_the_original(name: str) -> None:
    world, rng = WORLDS[name](), random.Random(9)
    task = next(task for split in SPLITS for task in world.tasks(split))
    env = world.make()
    env.reset(task, episode_seed(task.split, "fork"))
    for _ in range(2):
        assert not env.step(well_formed(world, env, rng)).terminated
    copies = await fork(world, env, 3)
    for _ in range(3):
        action = well_formed(world, env, rng)
        results = [e.step(action) for e in (env, *copies)]
        assert all(result == results[0] for result in results)
        assert len({e.fingerprint() for e in (env, *copies)}) == 1
        if results[0].terminated or results[0].truncated:
            break
