"""check_env passes what keeps the contract and names every way of breaking it. Each broken world breaks one thing."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rollwright.checks.env_check import async_check_env, check_env
from rollwright.contracts.environment import Environment, Execution, Observation, SnapshotKind, StepResult, state_key
from rollwright.contracts.errors import ContractViolation, RollwrightError
from rollwright.contracts.record import Split, Task
from rollwright.envs.text import bandit, guess_number, maze


class Dice:
    """Draws a die at every step; "stop" ends the episode and pays the sum. Chance after reset, exact snapshots."""

    def __init__(self) -> None:
        self.chance = random.Random(0)
        self.rolled: list[int] = []
        self.over = True

    def reset(self, task: Task, seed: int) -> Any:
        self.chance, self.rolled, self.over = random.Random(f"{task.id} {seed}"), [], False
        return Observation(text="roll or stop", goal="Collect pips.")

    def step(self, action: str) -> Any:
        if self.over:
            raise RuntimeError("over: call reset")
        if action not in ("roll", "stop"):
            return StepResult(observation="roll or stop, please")
        if action == "stop":
            self.over = True
            return StepResult(observation="done", reward=float(sum(self.rolled)), terminated=True, success=True)
        self.rolled.append(self.chance.randint(1, 6))
        return StepResult(observation=f"rolled {self.rolled}")

    def fingerprint(self) -> Any:
        return state_key(str(self.rolled), str(self.over))

    def snapshot(self) -> Any:
        kind, words, gauss = self.chance.getstate()
        return json.dumps([kind, list(words), gauss, self.rolled, self.over]).encode()

    def restore(self, state: bytes) -> Any:
        kind, words, gauss, rolled, self.over = json.loads(state)
        self.rolled = list(rolled)
        self.chance.setstate((kind, tuple(words), gauss))

    def close(self) -> Any:
        return None


class DiceTeacher:
    def act(self, env: Environment, observation: Observation) -> str:
        return "stop" if observation.text.count(",") >= 2 else "roll"


class DiceWorld:
    name = "dice"
    instructions = "roll or stop"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    max_turns = 10

    def __init__(self, environment: Callable[[], Any] = Dice) -> None:
        self.environment = environment
        self.closed = 0

    def tasks(self, split: Split) -> list[Task]:
        return [Task(id=f"{split}/{i}", split=split, params={"sides": 6}) for i in range(3)]

    def make(self) -> Any:
        return self.environment()

    def teacher(self, task: Task) -> Any:
        return DiceTeacher()

    def close(self) -> Any:
        self.closed += 1


class AsyncDice:
    """The same game with coroutines."""

    def __init__(self) -> None:
        self.inner = Dice()

    async def reset(self, task: Task, seed: int) -> Any:
        return self.inner.reset(task, seed)

    async def step(self, action: str) -> Any:
        return self.inner.step(action)

    async def fingerprint(self) -> str:
        return self.inner.fingerprint()

    async def snapshot(self) -> bytes:
        return self.inner.snapshot()

    async def restore(self, state: bytes) -> None:
        self.inner.restore(state)

    async def close(self) -> None:
        self.inner.close()


class AsyncDiceWorld(DiceWorld):
    execution: Execution = "async"

    async def make(self) -> Any:
        return self.environment()


def violations(world: Any, **options: Any) -> list[str]:
    with pytest.raises(ContractViolation) as caught:
        check_env(world, **options)
    assert isinstance(caught.value, RollwrightError) and isinstance(caught.value, AssertionError)
    assert all(line in str(caught.value) for line in caught.value.violations)
    return list(caught.value.violations)


def the_only_violation(world: Any, **options: Any) -> str:
    found = violations(world, **options)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    "world",
    [
        lambda: maze.build(),
        lambda: maze.build(variant="po", wording="compact"),
        lambda: maze.build(maze="umaze", max_turns=6),
        lambda: maze.build(starts="all"),
        lambda: guess_number.build(),
        lambda: guess_number.build(low=-3, high=40),
        lambda: bandit.build(),
        DiceWorld,
        lambda: AsyncDiceWorld(AsyncDice),
    ],
)
def test_worlds_that_keep_the_contract_pass(world: Callable[[], Any]):
    check_env(world())


def test_the_maze_also_keeps_it_when_actions_are_given():
    check_env(maze.build(max_turns=20), actions=["move up", "nonsense", "move left", "move down", "move right"])


async def test_inside_an_event_loop_the_async_form_is_asked_for_and_works():
    with pytest.raises(RuntimeError, match="await async_check_env"):
        check_env(DiceWorld())
    world = AsyncDiceWorld(AsyncDice)
    await async_check_env(world)
    assert world.closed == 2


def test_blocking_worlds_run_in_one_worker_thread():
    import threading

    seen: set[str] = set()

    class Threaded(Dice):
        def step(self, action: str) -> Any:
            seen.add(threading.current_thread().name)
            return super().step(action)

    world = DiceWorld(Threaded)
    world.execution = "thread"
    check_env(world)
    assert len(seen) == 1 and threading.main_thread().name not in seen


# Broken environments: (class, what must be said)


class ForgetsTheSeed(Dice):
    def reset(self, task: Task, seed: int) -> Any:
        first = super().reset(task, seed)
        self.chance = random.Random()
        return first


class KeepsOldRolls(Dice):
    """The second episode begins with what is left of the first."""

    def reset(self, task: Task, seed: int) -> Any:
        kept = self.rolled
        first = super().reset(task, seed)
        self.rolled = kept
        return first


class SharesChance(Dice):
    """All environments draw from one generator: alone each is right."""

    shared = random.Random(0)

    def reset(self, task: Task, seed: int) -> Any:
        first = super().reset(task, seed)
        SharesChance.shared.seed(seed)
        self.chance = SharesChance.shared
        return first


class SharesTheSeed(Dice):
    """The seed lies in the class: only an environment with another seed beside it shows that."""

    seed = 0

    def reset(self, task: Task, seed: int) -> Any:
        SharesTheSeed.seed = seed
        return super().reset(task, seed)

    def step(self, action: str) -> Any:
        self.chance = random.Random(f"{SharesTheSeed.seed} {len(self.rolled)}")
        return super().step(action)


class ChangesReward(Dice):
    total = 0

    def step(self, action: str) -> Any:
        result = super().step(action)
        ChangesReward.total += 1
        return StepResult(observation=result.observation, reward=float(self.total), terminated=result.terminated)


class ObservesANumber(Dice):
    def step(self, action: str) -> Any:
        super().step(action)
        return StepResult(observation=3)  # type: ignore[arg-type]


class ResetsToNone(Dice):
    def reset(self, task: Task, seed: int) -> Any:
        super().reset(task, seed)


class StepsToATuple(Dice):
    def step(self, action: str) -> Any:
        return "rolled", 0.0, False, False


class RaisesOnSlips(Dice):
    def step(self, action: str) -> Any:
        if action not in ("roll", "stop"):
            raise KeyError(action)
        return super().step(action)


class RaisesOnLongActions(Dice):
    def step(self, action: str) -> Any:
        if len(action) > 1000:
            raise MemoryError("too long")
        return super().step(action)


class RaisesOnUnicode(Dice):
    def step(self, action: str) -> Any:
        action.encode("latin-1")
        return super().step(action)


class RaisesOnControlCharacters(Dice):
    def step(self, action: str) -> Any:
        if "\x00" in action:
            raise OSError("embedded null byte")
        return super().step(action)


class RaisesOnNothing(Dice):
    def step(self, action: str) -> Any:
        return super().step(action if action[0] else "")


class PaysNan(Dice):
    def step(self, action: str) -> Any:
        result = super().step(action)
        return StepResult(observation=result.observation, reward={"mean": float("inf")}, terminated=result.terminated)


class PaysText(Dice):
    def step(self, action: str) -> Any:
        return StepResult(observation="x", reward="a lot")  # type: ignore[arg-type]


class PlaysOn(Dice):
    """After the end it goes on paying."""

    def step(self, action: str) -> Any:
        if self.over:
            return StepResult(observation="once more", reward=1.0)
        return super().step(action)


class ClosesOnce(Dice):
    open = True

    def close(self) -> Any:
        if not self.open:
            raise RuntimeError("already closed")
        self.open = False


class ForgetsChanceInSnapshot(Dice):
    def restore(self, state: bytes) -> Any:
        chance = self.chance.getstate()
        super().restore(state)
        self.chance.setstate(chance)


class RestoresOnce(Dice):
    """The first restore is right; the second finds the list that the episode went on filling."""

    saved: Any = None

    def restore(self, state: bytes) -> Any:
        super().restore(state)
        if self.saved is None:
            self.saved = self.rolled
        self.rolled = self.saved


class SnapshotDraws(Dice):
    def snapshot(self) -> Any:
        self.chance.random()
        return super().snapshot()


class RestoresOnlyItself(Dice):
    """The bytes name a place in this environment's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[bytes] = []

    def snapshot(self) -> Any:
        self.memory.append(super().snapshot())
        return str(len(self.memory) - 1).encode()

    def restore(self, state: bytes) -> Any:
        super().restore(self.memory[int(state)])


class SnapshotsText(Dice):
    def snapshot(self) -> Any:
        return super().snapshot().decode()


class WithoutRestore(Dice):
    restore = None  # type: ignore[assignment]


class FingerprintOfTheClock(Dice):
    calls = 0

    def fingerprint(self) -> Any:
        self.calls += 1
        return state_key(str(self.calls))


class ConstantFingerprint(Dice):
    def fingerprint(self) -> Any:
        return "state"


class EmptyFingerprint(Dice):
    def fingerprint(self) -> Any:
        return ""


class NeverEnds(Dice):
    def step(self, action: str) -> Any:
        return super().step("roll" if action == "stop" else action)


class EndsWithoutSuccess(Dice):
    def step(self, action: str) -> Any:
        result = super().step(action)
        return StepResult(observation=result.observation, terminated=result.terminated)


class SecretlyAsync(Dice):
    def close(self) -> Any:
        async def later() -> None: ...

        return later()


BROKEN: list[tuple[type, str]] = [
    (ForgetsTheSeed, "after a second reset"),
    (KeepsOldRolls, "after a second reset"),
    (SharesChance, "while another environment is played"),
    (SharesTheSeed, "while another environment is played"),
    (ChangesReward, "the rewards is another after a second reset"),
    (ObservesANumber, "step() must give an Observation or text"),
    (ResetsToNone, "reset() must give an Observation or text"),
    (StepsToATuple, "step() must give a StepResult"),
    (RaisesOnSlips, "step() raised KeyError: answer with an observation"),
    (RaisesOnLongActions, "step() raised MemoryError"),
    (RaisesOnUnicode, "step() raised UnicodeEncodeError"),
    (RaisesOnControlCharacters, "step() raised OSError"),
    (RaisesOnNothing, "step() raised IndexError"),
    (PaysNan, "a reward is not finite"),
    (PaysText, "a reward is no number"),
    (PlaysOn, "step after the end of the episode plays on"),
    (ClosesOnce, "close() raised RuntimeError"),
    (ForgetsChanceInSnapshot, "after restore; keep everything in the bytes"),
    (RestoresOnce, "after a second restore"),
    (SnapshotDraws, "snapshot() must only look"),
    (RestoresOnlyItself, "restore() raised IndexError"),
    (SnapshotsText, "snapshot() must give bytes"),
    (WithoutRestore, "snapshot() or restore() is missing"),
    (FingerprintOfTheClock, "fingerprint() changes while nothing happens"),
    (ConstantFingerprint, "fingerprint stays the same while the observation changes"),
    (EmptyFingerprint, "fingerprint() must give text that is not empty"),
    (NeverEnds, "the teacher does not solve its task within max_turns=10"),
    (EndsWithoutSuccess, "the teacher does not solve its task"),
    (SecretlyAsync, "close() is a coroutine but execution is 'inline'"),
]


@pytest.mark.parametrize(("environment", "said"), BROKEN, ids=[case[0].__name__ for case in BROKEN])
def test_every_broken_environment_is_caught(environment: type, said: str):
    found = violations(DiceWorld(environment))
    assert any(said in violation for violation in found), found


@pytest.mark.parametrize(
    ("environment", "said"),
    [case for case in BROKEN if case[0] in (RaisesOnSlips, PlaysOn, ClosesOnce, SharesChance, ConstantFingerprint)],
)
def test_one_breach_is_reported_once_with_the_places_counted(environment: type, said: str):
    found = the_only_violation(DiceWorld(environment))
    assert said in found and "more]" in found


def test_snapshots_are_only_tried_where_they_are_declared():
    world = DiceWorld(WithoutRestore)
    world.snapshots = "none"
    check_env(world)


class Wandering(DiceWorld):
    """No teacher, but actions by chance."""

    teacher = None  # type: ignore[assignment]

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        return draws.choice(["roll", "roll", "stop"])


def test_a_world_without_a_teacher_is_played_by_its_random_actions_and_the_proof_says_so():
    played = check_env(Wandering(), tasks_per_split=1, seeds=2)
    assert (played.random, played.well_formed, played.guessed) == (6, 6, 0) and "random ones" in str(played)
    assert "after a second reset" in "".join(violations(Wandering(ForgetsTheSeed)))
    assert check_env(DiceWorld(), tasks_per_split=1, seeds=1, actions=["roll"]).given == 3


def test_a_reward_that_runs_refuse_is_a_breach():
    class Lavish(Dice):
        def step(self, action: str) -> Any:
            result = super().step(action)
            return StepResult(observation=result.observation, reward=1e31 if action == "roll" else 0.0)

    assert "a reward is larger than 1e+30" in "".join(violations(DiceWorld(Lavish), actions=["roll"]))


def test_a_task_without_a_teacher_is_played_with_any_actions():
    class Untaught(DiceWorld):
        def teacher(self, task: Task) -> Any:
            return None

    with pytest.warns(UserWarning, match="no well-formed action was played"):
        assert check_env(Untaught()).well_formed == 0
    assert "after a second reset" in "".join(violations(Untaught(ForgetsTheSeed), actions=["roll", "roll", "stop"]))


def test_missing_snapshot_methods_are_named():
    class Plain:
        def __init__(self) -> None:
            inner = Dice()
            self.reset, self.step, self.fingerprint, self.close = (
                inner.reset,
                inner.step,
                inner.fingerprint,
                inner.close,
            )

    assert "snapshot() or restore() is missing" in the_only_violation(DiceWorld(Plain))


def test_plain_methods_in_an_async_world_are_told_apart():
    found = violations(AsyncDiceWorld(Dice))
    assert [v.split("()")[0] for v in found] == ["reset", "fingerprint", "step", "close"]


# Broken worlds


class LeaksATestTask(DiceWorld):
    def tasks(self, split: Split) -> list[Task]:
        leaked = Task(id="leaked", split="test")
        return [*super().tasks(split), *([leaked] if split == "train" else [])]


class SameIdTwiceInASplit(DiceWorld):
    def tasks(self, split: Split) -> list[Task]:
        return [Task(id="one", split=split), Task(id="one", split=split)]


class DrawsItsTasks(DiceWorld):
    def tasks(self, split: Split) -> list[Task]:
        return [Task(id=f"{split}/{random.random()}", split=split)]


class ParamsWithASet(DiceWorld):
    def tasks(self, split: Split) -> list[Task]:
        return [Task(id=split, split=split, params={"allowed": {1, 2}})]


class NoTasks(DiceWorld):
    def tasks(self, split: Split) -> list[Task]:
        return []


class RaisesForTest(DiceWorld):
    def tasks(self, split: Split) -> list[Task]:
        return {"train": super().tasks("train"), "validation": super().tasks("validation")}[split]


class CannotMake(DiceWorld):
    def make(self) -> Any:
        raise OSError("no browser")


class TeachesNobody(DiceWorld):
    def teacher(self, task: Task) -> Any:
        return {"other": DiceTeacher()}[task.id]


class WorldClosesOnce(DiceWorld):
    def close(self) -> Any:
        super().close()
        if self.closed > 1:
            raise RuntimeError("closed already")


class UnknownExecution(DiceWorld):
    execution: Execution = "process"  # type: ignore[assignment]


class NoLimit(DiceWorld):
    max_turns = 0


class Nameless(DiceWorld):
    name = ""


class InstructionsAsMessages(DiceWorld):
    instructions = ("roll", "stop")  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (LeaksATestTask, "a task of split 'test' is listed under 'train'"),
        (SameIdTwiceInASplit, "a task id is used twice in 'train'"),
        (DrawsItsTasks, "lists other tasks at the second call"),
        (ParamsWithASet, "params are not JSON"),
        (NoTasks, "no split has a task"),
        (RaisesForTest, "tasks('test') raised KeyError"),
        (CannotMake, "make() raised OSError"),
        (TeachesNobody, "world.teacher() raised KeyError"),
        (WorldClosesOnce, "world.close() raised RuntimeError"),
        (UnknownExecution, "execution is 'process', expected one of inline, thread, async"),
        (NoLimit, "max_turns must be a whole number of 1 or more, got 0"),
        (Nameless, "name is empty"),
        (InstructionsAsMessages, "instructions must be text"),
    ],
)
def test_every_broken_world_is_caught(world: type[DiceWorld], said: str):
    found = violations(world())
    assert any(said in violation for violation in found), found


def test_an_object_that_is_no_world_is_told_what_it_lacks():
    assert "lacks name, instructions, execution" in the_only_violation(object())


def test_all_breaches_are_listed_together():
    class Sloppy(ClosesOnce, RaisesOnSlips):
        fingerprint = ConstantFingerprint.fingerprint

    world = DiceWorld(Sloppy)
    world.instructions = "roll"
    assert len(violations(world)) == 3


async def test_environments_are_closed_even_where_play_breaks_off():
    opened: list[Closing] = []

    class Closing(ResetsToNone):
        closed = 0

        def __init__(self) -> None:
            super().__init__()
            opened.append(self)

        def close(self) -> Awaitable[None] | None:
            self.closed += 1
            return None

    with pytest.raises(ContractViolation):
        await async_check_env(DiceWorld(Closing))
    assert opened and all(env.closed == 2 for env in opened)


@pytest.mark.parametrize("execution", ["inline", "thread", "async"])
def test_a_call_that_hangs_is_named_and_left_behind(execution: Execution):
    class Hangs(Dice):
        def step(self, action: str) -> Any:
            if action == "stop":
                if execution == "async":
                    return asyncio.sleep(30)
                time.sleep(5)
            return super().step(action)

    class HangsAsync(AsyncDice):
        async def step(self, action: str) -> Any:
            if action == "stop":
                await asyncio.sleep(30)
            return await super().step(action)

    world = AsyncDiceWorld(HangsAsync) if execution == "async" else DiceWorld(Hangs)
    world.execution = execution
    before = time.monotonic()
    with pytest.raises(ContractViolation, match=r"step\(\) gave no answer within 0\.2 s"):
        check_env(world, tasks_per_split=1, seeds=1, actions=["roll", "stop"], call_s=0.2)
    assert time.monotonic() - before < 25
