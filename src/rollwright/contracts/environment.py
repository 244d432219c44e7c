"""The environment contract. Text in and out: an environment never sees a token id, a group or a learner.

An `Environment` plays one episode at a time. A `World` owns the tasks and hands out environments; what they share
(a browser, a server) belongs to the world. `rollwright.checks.env_check.check_env` proves the contract for any world.

Which world an episode was played in: its version, and a fingerprint of how it was built.

Not to be confused with `Environment.fingerprint`, which names one state of one episode.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from rollwright import __version__
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Split, Task, WorldMark
from rollwright.contracts.turn import Attachment

# Of a world that states none: only name and fingerprint tell such worlds apart.
UNVERSIONED = "0"
MAX_FILE_BYTES = 64_000_000
_SHOWN_ONLY = frozenset({"screenshots", "screenshot_scale", "draw"})
"""Options that say what is kept of an episode and change nothing in it."""


@runtime_checkable
class Versioned(Protocol):
    """A world that says which version of its rules it plays by.

    Change it whenever the same actions in the same task could bring something else.
    """

    version: str


def version_of(world: World) -> str:
    """The version that a world states; that of Rollwright for a world of ours that states none; else "0"."""
    # A protocol of data alone asks for the name of the attribute, whatever its value.
    if isinstance(world, Versioned):
        return world.version
    # By the module of the class, so that a user's subclass of ours does not get our version.
    return __version__ if type(world).__module__.startswith("rollwright.envs.") else UNVERSIONED


def world_mark(world: World, options: Mapping[str, Any] | None = None) -> WorldMark:
    """The world's name, its version (`version_of`) and its fingerprint.

    The fingerprint is a hash of the system prompt, the step limit and the options. An option that names a file counts
    by the file's content and one that names a folder or an address not at all: the same task file at another place
    makes the same world. Tasks are not asked for, which may take long: evaluations are paired by them anyway.

    Args:
        options: what the world was built with.
    """
    kept = {name: _content(value) for name, value in (options or {}).items() if name not in _SHOWN_ONLY}
    # What JSON does not know, such as a Path, counts by its `repr`.
    text = json.dumps([world.name, world.instructions, world.max_turns, kept], sort_keys=True, default=repr)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return WorldMark(name=world.name, version=version_of(world), fingerprint=digest)


def _content(option: Any) -> Any:
    """The option itself, or what the file holds that it names; None for another place."""
    if not isinstance(option, str):
        return option
    try:
        # A larger file is not read whole for a hash: it counts by its name, or not at all where that is a path.
        if Path(option).is_file() and Path(option).stat().st_size <= MAX_FILE_BYTES:
            return hashlib.sha256(Path(option).read_bytes()).hexdigest()
    # Such a text names no file, so it is an option like any other.
    except (OSError, ValueError):  # too long for a path, not to be read
        return option
    # A word without a slash is a choice, such as a difficulty, and changes what is played.
    return None if "/" in option else option


SnapshotKind = Literal["exact", "replay", "none"]
Execution = Literal["inline", "thread", "async"]
FingerprintKind = Literal["state", "history"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the policy sees.

    `goal` is the instruction, given at reset (later observations may leave it empty: it does not change).
    `text` is the state. Attachments are pictures, kept by hash.
    """

    text: str
    goal: str = ""
    attachments: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one action brought.

    `reward` may be one number or named parts. `costs` are named numbers that a constraint bounds, apart from the reward
    and never mixed into it. `terminated`: the task itself is over, `success` is then its verdict.
    `truncated`: the environment's own limit ended the episode. A malformed action is the policy's slip: it gets an
    observation that says so, no exception. `attempt` numbers the attempts at one task, from 0, in worlds of several.
    """

    observation: Observation | str
    reward: float | Mapping[str, float] = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0

    @property
    def rewards(self) -> dict[str, float]:
        """The named parts; one plain number goes by the name `env`."""
        # A copy: the world may go on writing into its own mapping.
        if isinstance(self.reward, Mapping):
            return dict(self.reward)
        return {"env": float(self.reward)}


def as_observation(value: Observation | str) -> Observation:
    """Wrap plain text."""
    return Observation(text=value) if isinstance(value, str) else value


@runtime_checkable
class Environment(Protocol):
    """One episode at a time: `reset`, `step` until terminated or truncated, `reset` again; `close` at the end.

    The same task and seed give the same episode for the same actions. `close` may be called twice.
    With `World.execution` "async" the four methods are coroutines; "thread" means that they block and run in a worker
    thread; "inline" that they return within microseconds and run on the event loop.
    Raises `EnvironmentFault` where the environment itself broke.
    """

    def reset(self, task: Task, seed: int) -> Observation | str | Awaitable[Observation | str]:
        """Begin an episode; the same task and seed give the same one."""
        ...

    def step(self, action: str) -> StepResult | Awaitable[StepResult]:
        """Act once; see `StepResult`."""
        ...

    def fingerprint(self) -> str | Awaitable[str]:
        """A key of everything the policy can see of the state; equal keys mean the same state.

        A world whose state cannot be seen makes it of all actions so far, and says so (`TellsStatesApart`).
        """
        ...

    def close(self) -> Awaitable[None] | None:
        """Give back what the environment holds; a second call does nothing."""
        ...


@runtime_checkable
class Snapshots(Protocol):
    """What an environment with `World.snapshots` other than "none" can do besides. Both leave the episode playable."""

    def snapshot(self) -> bytes | Awaitable[bytes]:
        """The state of the episode now, as something that `restore` takes."""
        ...

    def restore(self, state: bytes) -> Awaitable[None] | None:
        """Go to the state of a snapshot."""
        ...


class World(Protocol):
    """Tasks, and environments to play them in. Built once per process by the `build` function of its module.

    `instructions` is the system prompt: the rules and the grammar of actions, task-independent.
    `max_turns` is the step limit that published results of this world use.
    """

    name: str
    instructions: str
    execution: Execution
    snapshots: SnapshotKind
    max_turns: int

    def tasks(self, split: Split) -> Sequence[Task]:
        """The tasks of a split, the same ones in the same order at every call."""
        ...

    def make(self) -> Environment | Awaitable[Environment]:
        """A fresh environment. A world with execution "async" may return a coroutine."""
        ...

    def close(self) -> Awaitable[None] | None:
        """End everything the world started. Idempotent."""
        ...


def distinct(tasks: Sequence[Task], world: str = "the world") -> Sequence[Task]:
    """The tasks, where each has an id of its own: groups, start states, stores and figures are kept by it.

    Raises:
        ConfigError: an id is there twice.
    """
    counts = Counter(task.id for task in tasks)
    if len(counts) == len(tasks):
        return tasks
    # Five are enough to find the mistake; a task file may repeat thousands.
    twice = [f"{name!r} ({count} times)" for name, count in counts.most_common(5) if count > 1]
    raise ConfigError(
        f"{world} lists several tasks under one id: {', '.join(twice)}. They would be merged into one, with the same "
        "start states and one success rate for all: give each task an id of its own (the task file, or `tasks()` of "
        "the world)"
    )


def tasks_of(world: World, split: Split) -> Sequence[Task]:
    """The tasks of a split, none of them twice.

    Raises:
        ConfigError: see `distinct`.
    """
    return distinct(world.tasks(split), f"world {world.name!r}, split {split!r},")


class Teacher(Protocol):
    """A scripted policy: sees what the policy sees (and may look into the environment), returns the next action."""

    def act(self, env: Environment, observation: Observation) -> str | Awaitable[str]:
        """The text of the teacher's next action."""
        ...


@runtime_checkable
class Taught(Protocol):
    """A world with teachers for some or all of its tasks."""

    def teacher(self, task: Task) -> Teacher | None:
        """A teacher of the task, or None where there is none."""
        ...


@runtime_checkable
class ActsAtRandom(Protocol):
    """A world that can act by chance: the other end of the scale from a teacher."""

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str | Awaitable[str]:
        """What a policy that knows the grammar of actions and nothing else might do here: never malformed.

        All chance comes from `draws`: equal draws in an equal state give equal actions.
        """
        ...


@runtime_checkable
class Oversees(Protocol):
    """A world that knows which of its actions are dangerous, and what to do in their place."""

    def override(self, env: Environment, observation: Observation, action: str) -> str | Awaitable[str | None] | None:
        """The action that is to be done in place of `action` here; None where that may be done.

        Called before the step, with the environment as it stands; nothing may change in it.
        """
        ...


@runtime_checkable
class Proposes(Protocol):
    """A world that can vary its tasks: other parameters of the same template, neighbours in a declared pool."""

    def propose(self, task: Task, count: int, seed: int) -> Sequence[Task]:
        """Up to `count` further training tasks like this one, the most alike first; none where there are none.

        Equal arguments give equal tasks, and equal tasks have equal ids. None of them is of a held-out split.
        """
        ...


@runtime_checkable
class TakesInstructions(Protocol):
    """A world whose tasks are sentences, so that anybody can write another one."""

    def instruction_of(self, task: Task) -> str:
        """The instruction of a task, in words."""
        ...

    def place_of(self, task: Task) -> str:
        """Where the task is done: a site, an app. Tasks of one place can be told from one another by words alone."""
        ...

    def task_of(self, instruction: str, like: Task) -> Task | None:
        """A training task with this instruction that begins where `like` does; None where the world declines it.

        Nothing but a model can say whether such a task was done: its episodes end without a verdict.
        """
        ...


@runtime_checkable
class Parametrised(Protocol):
    """A world whose training tasks fill a box of numbers: `curriculum=alp_gmm` searches the box, not the task list."""

    def parameter_box(self) -> Mapping[str, tuple[float, float]]:
        """Name of a number in `Task.params` -> its lowest and highest value; empty where the list is to be searched."""
        ...

    def task_at(self, values: Mapping[str, float]) -> Task:
        """The training task nearest to these values, which it then has in its `params`."""
        ...


@runtime_checkable
class TellsStatesApart(Protocol):
    """A world that says what its fingerprints are made of.

    "history": of every action so far, so that two turns have one key only if all actions before them were the same.
    A state is then never met again, and what compares actions in one state (GiGPO's step part) has nothing to compare.
    """

    fingerprint_kind: FingerprintKind


def fingerprint_kind(world: World) -> FingerprintKind:
    """What the world's fingerprints are made of; "state" where it does not say."""
    return world.fingerprint_kind if isinstance(world, TellsStatesApart) else "state"


@runtime_checkable
class SmallLanguage(Protocol):
    """A world whose whole language is known: a tiny model's tokenizer can be made from it (`model.path=tiny`)."""

    def texts(self) -> Sequence[str]:
        """Texts that together hold every word an observation or an action may contain."""
        ...


# Seeds of the splits are disjoint ranges, so no run can train on a start state it is judged on.
SEEDS_PER_SPLIT = 100_000_000
# All three ranges lie below 2**32, beyond which numpy's legacy generators take no seed.
_FIRST_SEED: dict[Split, int] = {"train": 0, "validation": SEEDS_PER_SPLIT, "test": 2 * SEEDS_PER_SPLIT}


def episode_seed(split: Split, *key: int | str) -> int:
    """A seed in the range of `split`, fixed by `key` (run seed, iteration, group index ...), spread by a hash."""
    # Python's own `hash` of text differs from process to process; a run that is resumed must draw the same.
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return _FIRST_SEED[split] + int.from_bytes(digest[:8], "big") % SEEDS_PER_SPLIT


def split_of_seed(seed: int) -> Split:
    """The split a seed belongs to.

    Raises:
        ValueError: the seed lies outside all three ranges.
    """
    for split, first in _FIRST_SEED.items():
        if first <= seed < first + SEEDS_PER_SPLIT:
            return split
    raise ValueError(f"seed {seed} is in no split's range [0, {3 * SEEDS_PER_SPLIT}); draw it with `episode_seed`")


def state_key(*parts: str) -> str:
    """A short stable hash of everything visible: the default fingerprint. Text that UTF-8 cannot hold has one too."""
    # The ASCII unit separator keeps ("ab", "c") apart from ("a", "bc").
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
