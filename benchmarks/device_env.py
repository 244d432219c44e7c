"""The phone: steps per second of 32 phones in one process, resets, and the cost of a fork.

A step is one action of a policy and the observation that follows: parse, touch, draw the tree, number the elements,
render them. The actions are the solvers' own with every third one a random tap, so that all screens are met.

    python benchmarks/device_env.py              table; also written to benchmarks/results/device_env.md
    python benchmarks/device_env.py --json       one final JSON line: steps_per_s_in_process, device_ms, ...
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from _common import RESULTS, machine

from rollwright.contracts import Observation, Task, episode_seed
from rollwright.envs.device.backend import Backend
from rollwright.envs.device.phone import build
from rollwright.envs.device.phone_world import PhoneEnv, PhoneTeacher, PhoneWorld

STRAY_ONE_IN = 3


@dataclass(slots=True)
class Seat:
    """One phone with the teacher that plays on it."""

    env: PhoneEnv
    teacher: PhoneTeacher
    observation: Observation


class Room:
    """Phones played in turn. Resets are timed apart: they belong to episodes, not to steps."""

    def __init__(self, world: PhoneWorld, phones: int, seed: int) -> None:
        self._world = world
        self._tasks: list[Task] = list(world.tasks("train"))
        self._rng = random.Random(seed)
        self._episodes = 0
        self.reset_s: list[float] = []
        self.seats = [self._sit(world.make()) for _ in range(phones)]

    def _sit(self, env: PhoneEnv) -> Seat:
        self._episodes += 1
        task = self._tasks[self._episodes % len(self._tasks)]
        start = time.perf_counter()
        observation = env.reset(task, episode_seed("train", "benchmark", self._episodes))
        self.reset_s.append(time.perf_counter() - start)
        return Seat(env, self._world.teacher(task), observation)

    def play(self, steps: int) -> tuple[float, float]:
        """Seconds that so many steps took: wall and processor, without resets and without choosing actions."""
        wall = cpu = 0.0
        for number in range(steps):
            place = number % len(self.seats)
            seat = self.seats[place]
            action = seat.teacher.act(seat.env, seat.observation)
            if self._rng.randrange(STRAY_ONE_IN) == 0:
                action = f"tap {self._rng.randrange(len(seat.env.elements))}"
            began, began_cpu = time.perf_counter(), time.process_time()
            result = seat.env.step(action)
            wall, cpu = wall + time.perf_counter() - began, cpu + time.process_time() - began_cpu
            assert isinstance(result.observation, Observation)
            seat.observation = result.observation
            if result.terminated or result.truncated:
                self.seats[place] = self._sit(seat.env)
        return wall, cpu


def fork_ms(env: PhoneEnv, repeats: int) -> float:
    """Median milliseconds of `snapshot` and `restore` of an episode, the observation drawn anew."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        env.restore(env.snapshot())
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def in_process(phones: int, rounds: int, steps: int) -> dict[str, float]:
    """Medians over rounds."""
    world = build(distractors="some", splits="seed")
    room = Room(world, phones, seed=0)
    room.play(steps // 4)
    played = [room.play(steps) for _ in range(rounds)]
    return {
        "steps_per_s_in_process": statistics.median(steps / wall for wall, _ in played),
        "steps_per_s_in_process_lowest": min(steps / wall for wall, _ in played),
        "steps_per_cpu_s_in_process": statistics.median(steps / cpu for _, cpu in played),
        "reset_ms": 1000 * statistics.median(room.reset_s),
        "device_ms": fork_ms(room.seats[0].env, 300),
        "screenshot_ms": screenshot_ms(room.seats[0].env, 10),
    }


def screenshot_ms(env: PhoneEnv, repeats: int) -> float:
    """Median milliseconds of one picture at half scale, PNG included."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        env.screenshot()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def over_adb(phones: int, rounds: int, steps: int) -> dict[str, float]:
    """The same over ADB: each step is an `input` and a dump by the direct client; phones in a process of their own."""
    from rollwright.envs.device.adb.client import DirectLink
    from rollwright.envs.device.adb.remote_phones import AdbBackend

    command = [sys.executable, "-m", "rollwright.envs.device.adb.server", "--port", "0", "--phones", str(phones)]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        ports = [int(served.stdout.readline().rpartition(":")[2]) for _ in range(phones)]
        left = iter(ports)
        world = build(distractors="some", splits="seed")
        world.play_over(_Given(lambda: AdbBackend(DirectLink(next(left)))), snapshots="exact")
        room = Room(world, phones, seed=0)
        room.play(steps // 4)
        played = [room.play(steps) for _ in range(rounds)]
        found = {
            "steps_per_s_adb": statistics.median(steps / wall for wall, _ in played),
            "steps_per_s_adb_lowest": min(steps / wall for wall, _ in played),
            "reset_ms_adb": 1000 * statistics.median(room.reset_s),
            "device_ms_adb": fork_ms(room.seats[0].env, 50),
        }
        for seat in room.seats:
            seat.env.close()
        return found
    finally:
        served.terminate()
        served.wait()


@dataclass(frozen=True)
class _Given:
    """Backends made by a function."""

    take: Callable[[], Backend]

    def close(self) -> None:
        """Each environment closes its own."""


BACKENDS: dict[str, Callable[[int, int, int], dict[str, float]]] = {"in_process": in_process, "adb": over_adb}
"""What can be measured: name to a function of phones, rounds and steps."""

_ROWS = (
    ("steps per second, wall", "steps_per_s_in_process", "at least 1000"),
    ("steps per second, slowest round", "steps_per_s_in_process_lowest", ""),
    ("steps per second of processor time", "steps_per_cpu_s_in_process", ""),
    ("reset, ms", "reset_ms", ""),
    ("fork (snapshot and restore), ms", "device_ms", "at most 1"),
    ("screenshot 540x1200 as PNG, ms", "screenshot_ms", ""),
    ("over ADB, steps per second (touch and dump), wall", "steps_per_s_adb", "at least 400"),
    ("over ADB, slowest round", "steps_per_s_adb_lowest", ""),
    ("over ADB, reset, ms", "reset_ms_adb", ""),
    ("over ADB, fork (snapshot and restore), ms", "device_ms_adb", ""),
)


def table(found: dict[str, float], phones: int, rounds: int, steps: int) -> str:
    lines = [
        "# The phone: steps, resets, forks",
        "",
        f"{phones} phones in one process, one thread, {rounds} rounds of {steps} steps; medians.",
        "",
        "| | measured | wanted |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {title} | {found[key]:.2f} | {wanted} |" for title, key, wanted in _ROWS if key in found]
    return "\n".join([*lines, "", f"Machine: {machine('rollwright', 'pillow')}", ""])


def main() -> None:
    import json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phones", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--backend", choices=[*BACKENDS, "all"], default="all")
    parser.add_argument("--json", action="store_true", help="end with one JSON line; write no file")
    args = parser.parse_args()
    found: dict[str, float] = {}
    for name, measure in BACKENDS.items():
        if args.backend in (name, "all"):
            found |= measure(args.phones, args.rounds, args.steps)
    text = table(found, args.phones, args.rounds, args.steps)
    print(text)
    if args.json:
        print(json.dumps({key: round(value, 3) for key, value in found.items()}))
    else:
        (RESULTS / "device_env.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
