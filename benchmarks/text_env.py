"""Steps, resets and forks per second of the text worlds, one environment in one thread, actions of the teacher.

A step is one `step` call with the teacher's time left out; a fork is `rollwright.contracts.fork` of an environment in
the middle of an episode, per copy, `make` and `restore` included. Chess is played against random moves, so that the
number is the world's and not the engine's.

    python benchmarks/text_env.py             table; also written to benchmarks/results/text_env.md
    python benchmarks/text_env.py --json      one final JSON line: steps/s, resets/s and fork ms by world
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from _common import command, machine, publish, table

from rollwright.contracts import as_observation, episode_seed, fork
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

WORLDS: dict[str, Callable[[], Any]] = {
    "maze": maze.build,
    "navigation": navigation.build,
    "wordle": wordle.build,
    "chess": lambda: chess_game.build(opponent="random"),
    "twenty_questions": twenty_questions.build,
    "guess_city": guess_city.build,
    "car_dealer": car_dealer.build,
    "household": household.build,
    "household, commands shown": lambda: household.build(show_commands=True),
}


def next_action(world: Any, task: Any, env: Any, observation: Any) -> str:
    """The teacher's; for chess, whose teacher is an engine, the first legal move."""
    teacher = world.teacher(task)
    if teacher is not None:
        return str(teacher.act(env, observation))
    import chess

    board = chess.Board(env.state.fen)
    return board.san(next(iter(board.legal_moves)))


def measure(world: Any, seconds: float) -> tuple[float, float]:
    """Steps and resets per second; what lies between the calls is not counted."""
    tasks, env = world.tasks("train"), world.make()
    stepping = resetting = 0.0
    steps = resets = 0
    while stepping + resetting < seconds and resets < 20_000:
        task = tasks[resets % len(tasks)]
        begun = time.perf_counter()
        observation = as_observation(env.reset(task, episode_seed("train", "bench", resets)))
        resetting += time.perf_counter() - begun
        resets += 1
        for _ in range(world.max_turns):
            action = next_action(world, task, env, observation)
            begun = time.perf_counter()
            result = env.step(action)
            stepping += time.perf_counter() - begun
            steps += 1
            if result.terminated or result.truncated:
                break
            observation = as_observation(result.observation)
    return steps / stepping, resets / resetting


async def fork_ms(world: Any, copies: int) -> float:
    """Milliseconds per copy, the best of twenty rounds: what the work costs, not what the machine's other work does."""
    task, env = world.tasks("train")[0], world.make()
    observation = as_observation(env.reset(task, episode_seed("train", "bench", 0)))
    env.step("")
    env.step(next_action(world, task, env, observation))
    rounds = []
    for _ in range(20):
        begun = time.perf_counter()
        await fork(world, env, copies)
        rounds.append((time.perf_counter() - begun) / copies * 1000)
    return min(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent in each world")
    parser.add_argument("--copies", type=int, default=100, help="copies made by one fork")
    arguments = parser.parse_args()
    found = {}
    for name, make in WORLDS.items():
        world = make()
        steps, resets = measure(world, arguments.seconds)
        found[name] = {"steps_per_s": steps, "resets_per_s": resets}
        found[name]["fork_ms"] = asyncio.run(fork_ms(world, arguments.copies))
        world.close()
    rows = [[n, f"{v['steps_per_s']:,.0f}", f"{v['resets_per_s']:,.0f}", v["fork_ms"]] for n, v in found.items()]
    text = "\n\n".join(
        [
            "# Text worlds: steps, resets and forks",
            "One environment, one thread. Fork: milliseconds per copy, best of twenty rounds.",
            table(["world", "steps/s", "resets/s", "fork ms"], rows),
            f"`{command()}`\n\n{machine('pydantic', 'chess')}",
        ]
    )
    worst = max(v["fork_ms"] for v in found.values())
    publish("text_env", text, {"text_ms": worst, "worlds": found}, as_json=arguments.json)


if __name__ == "__main__":
    main()
