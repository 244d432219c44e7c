"""Which world was audited: digests of its rules, tasks and files, and of how it behaves."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import platform
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from rollwright import __version__
from rollwright.checks.audit.audit_episodes import Act, AuditPlayer, PlayRequest, digest_of, script_of
from rollwright.checks.audit.hostile_panel import GARBAGE
from rollwright.contracts import (
    SPLITS,
    ActsAtRandom,
    Environment,
    Observation,
    Task,
    Taught,
    World,
    episode_seed,
    version_of,
)

NUM_FIXED_EPISODES = 20
# A bound on time: whole episodes of a world with a thousand turns would make the digest slow.
_MOST_ACTIONS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldIdentity:
    """Digests by what they cover. Two audits with equal identities judged the same world.

    `files` covers the modules in the folder of the world's own module, `tasks` ids, splits and parameters, `rules` the
    instructions and the step limit, `behaviour` what 20 fixed episodes bring.
    """

    name: str
    version: str
    files: str
    tasks: str
    rules: str
    behaviour: str
    rollwright: str = __version__
    python: str = platform.python_version()


def behaviour_digest(world: World, *, episodes: int = NUM_FIXED_EPISODES, call_s: float = 60.0) -> str:
    """A hash of how a world behaves: the observations, rewards, flags and fingerprints of fixed episodes.

    Task, seed and actions of each episode are fixed by the world's task list. Half of the episodes are played by the
    world's teacher and half at random, as far as the world has both; otherwise by malformed actions. Two worlds with
    different digests cannot be compared, even where both state one version. The world is left open.

    Args:
        world: any world; environments are made for this and closed.
        episodes: how many fixed episodes.
        call_s: longest time of a single call.

    Returns:
        16 hexadecimal digits.

    Raises:
        RuntimeError: called while an event loop is running; there, await `async_behaviour_digest`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(async_behaviour_digest(world, episodes=episodes, call_s=call_s))
    raise RuntimeError("an event loop is running: use `await async_behaviour_digest(world)`")


async def async_behaviour_digest(world: World, *, episodes: int = NUM_FIXED_EPISODES, call_s: float = 60.0) -> str:
    """`behaviour_digest` for callers that have an event loop."""
    player = AuditPlayer(world, call_s=call_s, parallel=1)
    seen = []
    try:
        for index, task in enumerate(_fixed_tasks(world, episodes)):
            seed = episode_seed(task.split, "behaviour", index)
            act = await fixed_act(player, task, seed, index)
            # A fresh environment each: state that leaks between episodes is the leakage check's business.
            env = await player.fresh()
            request = PlayRequest(policy="fixed", task=task, seed=seed, act=act, limit=_MOST_ACTIONS)
            seen.append([task.id, seed, (await player.play(env, request, states=True)).seen()])
            await player.call(env.close)
    finally:
        # The world belongs to the caller and stays open.
        player.shut_down()
    return digest_of(seen)


def _fixed_tasks(world: World, count: int) -> list[Task]:
    """Tasks spread evenly over each split, the splits in turn, from the start again where there are few."""
    lists = [list(world.tasks(split)) for split in SPLITS]
    # A list's first tasks are often of one kind.
    spread = [tasks[:: max(1, len(tasks) // count)] for tasks in lists if tasks]
    mixed = [task for task in chain(*zip_longest(*spread)) if task is not None]
    return list(islice((mixed[i % len(mixed)] for i in range(count)), count)) if mixed else []


async def fixed_act(player: AuditPlayer, task: Task, seed: int, index: int) -> Act:
    """The player of a fixed episode: the teacher in even ones, chance in odd ones, else malformed actions."""
    world = player.world
    # Alternated by index, so that a world with both is seen under good actions and under poor ones.
    teacher = await player.call(world.teacher, task) if index % 2 == 0 and isinstance(world, Taught) else None
    if teacher is not None:
        return lambda turn, observation, env: player.call(teacher.act, env, observation)
    if isinstance(world, ActsAtRandom):
        # The draws belong to task and seed alone, so that they are the same in every process.
        return random_act(player, random.Random(f"behaviour/{task.id}/{seed}"))
    # From another place each time, so that all texts are played even where episodes are short.
    return script_of(GARBAGE[index % len(GARBAGE) :])


def random_act(player: AuditPlayer, draws: random.Random) -> Act:
    """Plays the world's own random actions."""
    # The caller has checked that the world acts at random.
    world: Any = player.world

    def act(turn: int, observation: Observation, env: Environment) -> Any:
        return player.call(world.random_action, env, observation, draws)

    return act


async def identity_of(world: World, *, call_s: float) -> WorldIdentity:
    """All digests of a world, which is left open."""
    return WorldIdentity(
        name=world.name,
        version=version_of(world),
        files=_files_digest(world),
        tasks=tasks_digest(world),
        rules=digest_of([world.instructions, world.max_turns, world.execution, world.snapshots]),
        behaviour=await async_behaviour_digest(world, call_s=call_s),
    )


def tasks_digest(world: World) -> str:
    """Over ids, splits and parameters of all tasks, in their order."""
    return digest_of([[task.id, task.split, dict(task.params)] for split in SPLITS for task in world.tasks(split)])


def _files_digest(world: World) -> str:
    """Over the Python files beside the module of the world's class; "" where it has no file."""
    try:
        own = Path(inspect.getfile(type(world)))
    # Classes made in a shell or a notebook have no file.
    except (TypeError, OSError):
        return ""
    hashes = [[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in _modules_beside(own)]
    return digest_of(hashes)


def _modules_beside(own: Path) -> Sequence[Path]:
    # A package's modules belong together. A lone script may lie in a folder of unrelated ones.
    return sorted(own.parent.glob("*.py")) if (own.parent / "__init__.py").exists() else [own]
