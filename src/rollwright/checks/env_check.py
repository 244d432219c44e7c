"""Proof that a world keeps the environment contract: `check_env(build())` in a test of yours, sync or async."""

from __future__ import annotations

import asyncio
import json
import random
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from typing import get_args

from rollwright.checks.env_player import Abandon, Moment, Player, short
from rollwright.contracts import (
    SPLITS,
    ActsAtRandom,
    ContractViolation,
    Environment,
    Execution,
    SnapshotKind,
    Snapshots,
    StepResult,
    Task,
    Taught,
    Teacher,
    World,
    episode_seed,
)

# What a policy can really send, each item after a way in which parsers break.
MALFORMED_ACTIONS = (
    "",
    " \n\t",
    # Longer than many fields and buffers take: it may be cut, but without an error.
    "x" * 10_000,
    "\x00\x07\x1b[31m\r\x7f",
    # More bytes than characters, an emoji outside the first plane, and signs that turn or hide the text around them.
    "größer 漢字 🙂 \u202e\u200b",
    '{"action": [',
    "a\nb\nc",
    "a\ud800b",  # half a surrogate pair: JSON can spell it, UTF-8 cannot
    # Nested too deeply for recursive parsers: they raise RecursionError, which `except ValueError` does not catch.
    "(" * 5_000,
    '{"action": ' * 2_000,
)
_ANY_ACTIONS = ("1", "up", "yes", "click 1")  # where nobody has said what an action looks like
NONE_PLAYED = (
    "no well-formed action was played: the world has no `teacher` that acts and no `random_action`, and no actions "
    "were named, so what an understood action does (rewards, chance, ends) is not proved"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a proof rests on: episodes by where their actions came from. `guessed` ones may all have been slips."""

    given: int = 0
    teacher: int = 0
    random: int = 0
    guessed: int = 0

    @property
    def well_formed(self) -> int:
        """Episodes of actions that somebody vouched for."""
        return self.given + self.teacher + self.random

    def __str__(self) -> str:
        counts = {"given actions": self.given, "the teacher's": self.teacher, "random ones": self.random}
        return ", ".join(f"{count} episodes of {name}" for name, count in counts.items() if count) or NONE_PLAYED


# Names and no `isinstance`: what is missing is what the author of the world needs to read.
def missing_attributes(world: object) -> list[str]:
    """What an object lacks to be a world; empty where it can be played."""
    required = ("name", "instructions", "execution", "snapshots", "max_turns", "tasks", "make", "close")
    return [name for name in required if not hasattr(world, name)]


def check_env(
    world: World,
    *,
    tasks_per_split: int = 2,
    seeds: int = 3,
    max_steps: int = 30,
    actions: Sequence[str] | None = None,
    call_s: float = 60.0,
) -> Played:
    """Play episodes and report every breach of the contract at once. Closes the world in the end.

    Args:
        world: any world; its `execution` decides how its methods are called.
        tasks_per_split: tasks tried, the first ones of each split.
        seeds: episodes per task.
        max_steps: actions per episode, except for teachers, who get the world's `max_turns`.
        actions: well-formed actions, played in turn. Where None, the teacher's actions are played, else the world's
            random ones; where it has neither, a warning says that no well-formed action was played.
        call_s: longest time of a single call; one that takes longer is a breach and is left behind.

    Returns:
        Whose actions were played.

    Raises:
        ContractViolation: lists what is broken, where it was seen, and what to do.
        RuntimeError: called while an event loop is running; there, await `async_check_env`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        limits = {"tasks_per_split": tasks_per_split, "seeds": seeds, "max_steps": max_steps}
        return asyncio.run(async_check_env(world, **limits, actions=actions, call_s=call_s))
    raise RuntimeError("check_env makes its own event loop, and one is running: use `await async_check_env(world)`")


async def async_check_env(
    world: World,
    *,
    tasks_per_split: int = 2,
    seeds: int = 3,
    max_steps: int = 30,
    actions: Sequence[str] | None = None,
    call_s: float = 60.0,
) -> Played:
    """`check_env` for callers that have an event loop."""
    # Even a world that lacks attributes goes through `finish`, which raises with all that was found.
    checker = _Checker(world, max_steps=max_steps, actions=actions, call_s=call_s)
    if checker.check_attributes():
        tasks = checker.check_tasks()
        for split in SPLITS:
            for task in tasks[split][:tasks_per_split]:
                await checker.check_malformed_actions(task, episode_seed(split, "check", "malformed"))
                for i in range(seeds):
                    await checker.check_episode(task, episode_seed(split, "check", i))
        await checker.check_world_close()
    return checker.finish()


class _Checker:
    """Collects violations. Made and used by `async_check_env` alone, for one world."""

    def __init__(self, world: World, *, max_steps: int, actions: Sequence[str] | None, call_s: float) -> None:
        self._world = world
        self._max_steps = max_steps
        self._actions = actions
        # Keys are the field names of `Played`, which `finish` fills from this counter.
        self._sources: Counter[str] = Counter()
        self._player = Player(world, call_s=call_s)

    def finish(self) -> Played:
        """Raise if anything was found; else tell what was played, and warn where that proves little."""
        # Before anything can raise: the threads that wait for calls end in either case.
        self._player.shut_down()
        lines = []
        for problem, places in self._player.found.items():
            others = f" and {len(places) - 1} more" if len(places) > 1 else ""
            lines.append(f"{problem} [{places[0]}{others}]")
        if lines:
            raise ContractViolation(f"world {type(self._world).__name__}", lines)
        played = Played(**self._sources)
        if not played.well_formed:
            warnings.warn(f"world {type(self._world).__name__}: {NONE_PLAYED}; name some in `actions`", stacklevel=3)
        return played

    # What the world says of itself

    def check_attributes(self) -> bool:
        """False where so much is missing that nothing can be played."""
        world, missing = self._world, missing_attributes(self._world)
        if missing:
            self._player.report(
                f"the world lacks {', '.join(missing)}: see rollwright.contracts.environment.World", "world"
            )
            return False
        # From here on every attribute exists, so that all wrong ones can be told in one run of the check.
        for name in ("name", "instructions"):
            if not isinstance(getattr(world, name), str):
                self._player.report(f"{name} must be text, got {short(getattr(world, name))}", "world")
        if not world.name:
            self._player.report("name is empty: records and metrics need one", "world")
        for name, allowed in (("execution", get_args(Execution)), ("snapshots", get_args(SnapshotKind))):
            if getattr(world, name) not in allowed:
                self._player.report(
                    f"{name} is {getattr(world, name)!r}, expected one of {', '.join(allowed)}", "world"
                )
        if not isinstance(world.max_turns, int) or world.max_turns < 1:
            self._player.report(f"max_turns must be a whole number of 1 or more, got {world.max_turns!r}", "world")
        return not self._player.found

    def check_tasks(self) -> dict[str, list[Task]]:
        """The tasks of each split that carry their split; every id once in a split."""
        tasks: dict[str, list[Task]] = {}
        seen: set[tuple[str, str]] = set()
        for split in SPLITS:
            try:
                # Asked twice: a list that is drawn or shuffled on each call would give every process other tasks.
                listed, again = list(self._world.tasks(split)), list(self._world.tasks(split))
            except Exception as error:
                self._player.report(
                    f"tasks({split!r}) raised {error!r}; return an empty list where there are none", split
                )
                # An empty list lets the other splits be checked all the same.
                listed = again = []
            if [task.id for task in listed] != [task.id for task in again]:
                self._player.report("tasks() lists other tasks at the second call: build the list once", split)
            for task in listed:
                self._check_task(task, split, seen)
            # A task that is listed under a foreign split is reported above and must not be played under this one.
            tasks[split] = [task for task in listed if task.split == split]
        if not any(tasks.values()):
            self._player.report("no split has a task: there is nothing to play", "world")
        return tasks

    def _check_task(self, task: Task, split: str, seen: set[tuple[str, str]]) -> None:
        if task.split != split:
            self._player.report(
                f"a task of split {task.split!r} is listed under {split!r}: splits must be apart", task.id
            )
        # The same id in two splits is allowed: such worlds split by seed.
        if (task.id, split) in seen:
            self._player.report(f"a task id is used twice in {split!r}: ids are unique within a split", task.id)
        seen.add((task.id, split))
        try:
            # By default json writes NaN and Infinity, which are no JSON and which other readers refuse.
            json.dumps(dict(task.params), allow_nan=False)
        except (TypeError, ValueError) as error:
            self._player.report(f"params are not JSON ({error}): keep plain numbers, text, lists and maps", task.id)

    # Episodes

    async def check_episode(self, task: Task, seed: int) -> None:
        """Same task, seed and actions: the same episode, whatever was played before or is played beside it."""
        where = f"task {task.id!r}, seed {seed}"
        with suppress(Abandon):
            async with self._player.environment(where) as env, self._player.environment(where) as neighbour:
                # Teacher and random player play here already, so `record` is seldom this environment's first episode.
                script = await self._script(env, task, seed, where)
                record = await self._player.play(env, task, seed, script, where)
                again = await self._player.play(env, task, seed, script, where)
                self._compare(record, again, "after a second reset; draw all chance from reset's seed", where)
                await self._check_step_after_end(env, record, where)
                # It begins before the neighbour's episode and goes on after it, so shared state shows.
                await self._player.begin(env, task, seed, where)
                await self._player.play(neighbour, task, seed + 1, script, where)
                # Seen before the neighbour played, the first moment shows no influence: the record's stands for it.
                beside = [record[0], *await self._player.go_on(env, script, where)]
                self._compare(record, beside, "while another environment is played; share no state", where)
                # The neighbour has played another seed by now, so this also finds what survives its reset.
                other = await self._player.play(neighbour, task, seed, script, where)
                self._compare(record, other, "in another environment; keep nothing from earlier episodes", where)
            # Actions that nobody vouched for may all be slips, which change what is said and not the state.
            if script != self._cycled(_ANY_ACTIONS):
                self._check_fingerprints(record, where)
            if self._world.snapshots != "none":
                # A record holds one moment more than actions: the one after reset.
                await self._check_snapshots(task, seed, script[: len(record) - 1], record, where)

    async def check_malformed_actions(self, task: Task, seed: int) -> None:
        """A malformed action is answered, never raised. What it earns must be finite like anything else."""
        # A world that cannot even reset is left after one report and not after one per action.
        with suppress(Abandon):
            async with self._player.environment(f"task {task.id!r}") as env:
                for action in MALFORMED_ACTIONS:
                    where = f"task {task.id!r}, action {short(action)}"
                    await self._player.begin(env, task, seed, where)
                    with suppress(Abandon):
                        await self._player.go_on(env, [action], where)

    async def check_world_close(self) -> None:
        # Callers close in `finally` blocks that may run twice, so a second close must be harmless.
        for attempt in ("first", "second"):
            with suppress(Abandon):
                await self._player.call("world.close", self._world.close, where=f"{attempt} call")

    async def _script(self, env: Environment, task: Task, seed: int, where: str) -> list[str]:
        """The actions of an episode. A teacher must also solve the task within the world's own limit."""
        written: list[str] = []
        # The teacher plays even where actions were given: its claim to solve the task is checked too.
        if isinstance(self._world, Taught):
            teacher = await self._player.call("world.teacher", self._world.teacher, task, where=where)
            written = await self._teach(env, teacher, task, seed, where) if teacher is not None else []
        source, script = "teacher", written[: self._max_steps]
        if self._actions is not None:
            source, script = "given", self._cycled(self._actions)
        # A teacher's actions say more than random ones: they reach the end of the task.
        elif not written and isinstance(self._world, ActsAtRandom):
            source, script = "random", await self._wander(env, task, seed, where)
        if not script:
            source, script = "guessed", self._cycled(_ANY_ACTIONS)
        self._sources[source] += 1
        return script

    async def _wander(self, env: Environment, task: Task, seed: int, where: str) -> list[str]:
        """The world's own random actions, until the episode ends or there are enough."""
        assert isinstance(self._world, ActsAtRandom)
        moment, observation = await self._player.begin(env, task, seed, where)
        script: list[str] = []
        # Text seeds give the same draws in every process; `hash` of a text would not.
        draws = random.Random(f"check-env/{task.id}/{seed}")
        while len(script) < self._max_steps and not moment.is_end:
            act = self._world.random_action
            script.append(await self._player.call("world.random_action", act, env, observation, draws, where=where))
            moment, observation = await self._player.step(env, script[-1], where)
        return script

    def _cycled(self, actions: Sequence[str]) -> list[str]:
        return list(islice(cycle(actions), self._max_steps))

    async def _teach(self, env: Environment, teacher: Teacher, task: Task, seed: int, where: str) -> list[str]:
        moment, observation = await self._player.begin(env, task, seed, where)
        script: list[str] = []
        # Not `max_steps`: a solution that is longer than this check's own limit is still a solution.
        while len(script) < self._world.max_turns and not moment.is_end:
            script.append(await self._player.call("teacher.act", teacher.act, env, observation, where=where))
            moment, observation = await self._player.step(env, script[-1], where)
        # None is refused too: a solved task must be called a success and not left undecided.
        if moment.success is not True:
            self._player.report(f"the teacher does not solve its task within max_turns={self._world.max_turns}", where)
        return script

    async def _check_step_after_end(self, env: Environment, record: list[Moment], where: str) -> None:
        if not record[-1].is_end:
            return
        try:
            # `attempt` and not `call`: an exception is the right answer here and must not be noted as a breach.
            result = await self._player.attempt(env.step, "")
        except Exception:
            return
        # An end that is said again is harmless, but only where it does not pay a second time.
        refused = isinstance(result, StepResult) and (result.terminated or result.truncated)
        if not refused or any(result.rewards.values()):
            self._player.report("step after the end of the episode plays on: raise, and name `reset`", where)

    def _check_fingerprints(self, record: list[Moment], where: str) -> None:
        # One state and several texts; the other way round is fine, since a state may hold more than is shown.
        if len({m.state for m in record}) == 1 and len({m.text for m in record}) > 1:
            self._player.report(
                "fingerprint stays the same while the observation changes: hash all that can be seen, or play actions "
                "that the world understands",
                where,
            )

    async def _check_snapshots(
        self, task: Task, seed: int, script: list[str], record: list[Moment], where: str
    ) -> None:
        """From the middle of the episode: the same rest each time, chance included, in this environment and another."""
        # In the middle, so that actions lie before the snapshot and after it.
        middle = len(script) // 2
        rest, expected = script[middle:], record[middle + 1 :]
        async with self._player.environment(where) as env, self._player.environment(where) as other:
            # The declaration and the methods are separate, so one can be there without the other.
            if not (isinstance(env, Snapshots) and isinstance(other, Snapshots)):
                kind = self._world.snapshots
                self._player.report(
                    f"snapshots is {kind!r} but snapshot() or restore() is missing: write them, or say none", where
                )
                return
            await self._player.begin(env, task, seed, where)
            await self._player.go_on(env, script[:middle], where)
            state = await self._player.call("snapshot", env.snapshot, where=where)
            if not isinstance(state, bytes):
                self._player.report(f"snapshot() must give bytes, got {type(state).__name__}", where)
                return
            # First straight on, without a restore: some worlds change themselves while they write their state down.
            after = await self._player.go_on(env, rest, where)
            self._compare(expected, after, "because a snapshot was taken; snapshot() must only look", where)
            # Twice, since a restore may use up what it reads; elsewhere, since bytes may refer to this process.
            for target, how in ((env, "after restore"), (env, "after a second restore"), (other, "restored elsewhere")):
                await self._player.call("restore", target.restore, state, where=where)
                # Compared before any step: an episode can come out alike from an unlike state.
                key = await self._player.call("fingerprint", target.fingerprint, where=where)
                if key != record[middle].state:
                    self._player.report(f"{how} the fingerprint is not that of the snapshot", where)
                tail = await self._player.go_on(target, rest, where)
                self._compare(expected, tail, f"{how}; keep everything in the bytes, chance too", where)

    def _compare(self, expected: list[Moment], got: list[Moment], when: str, where: str) -> None:
        # Compared as far as both go: the first moment that differs says more than the lengths do.
        for i, (a, b) in enumerate(zip(expected, got, strict=False)):
            for name in ("text", "state", "rewards", "terminated", "truncated", "success"):
                if getattr(a, name) != getattr(b, name):
                    what = {"text": "observation", "state": "fingerprint"}.get(name, name)
                    values = f"{short(getattr(a, name))} became {short(getattr(b, name))}"
                    self._player.report(f"the {what} is another {when}", f"{where}, moment {i}: {values}")
                    # One difference is enough: all that follows it differs too.
                    return
        if len(expected) != len(got):
            self._player.report(f"the episode has another length {when}", f"{where}: {len(expected)} became {len(got)}")
