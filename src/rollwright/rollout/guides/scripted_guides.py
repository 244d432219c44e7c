"""Guides: who takes turns from the policy. Each answers in words or ids of the policy, or leaves the turn to it.

    teacher    the world's script for the task
    store      what was done in this state in a stored episode of the task
    model      another model with weights of its own, in this process; it reads by its own tokenizer and template
    endpoint   a server that speaks OpenAI's chat API
    hinted     the policy itself, with a hint in its prompt

What a guide writes has no policy loss and keeps its rewards (`Turn.policy_mask`, `batching.policy_turns`). A script is
asked again in a resumed run; whatever samples is kept in the journal like the policy's own answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from rollwright.contracts import ConfigError, Producer, Span, Task, Taught, World
from rollwright.generation import Generation
from rollwright.rollout.actors import Decision, Encode, scripted
from rollwright.store import TrajectoryStore

Answer = Generation | None
"""None: the guide does not know, and the policy acts."""


class Advice(Protocol):
    """A guide in one episode: it sees every turn, whoever acts in it."""

    def see(self, decision: Decision) -> None:
        """A turn begins."""

    async def act(self, decision: Decision) -> Answer:
        """The guide is asked to act in the turn that it has just seen."""

    def hear(self, generation: Generation, text: str) -> None:
        """What was done in this turn, by whomever."""


class Guide(Protocol):
    """Acts in many episodes at once."""

    name: str
    producer: Producer

    def begin(self, task: Task) -> Advice:
        """For one episode of this task."""

    async def show_life(self, tasks: Sequence[Task]) -> None:
        """Asked once before training.

        Raises:
            ConfigError: the guide cannot act in a single one of these tasks, or gives no answer.
        """

    def close(self) -> None:
        """Free what the guide holds. Idempotent."""


def marked_as(generation: Generation, producer: Producer) -> Generation:
    """The same answer, all of it written by this producer; its weights have no version that the run counts."""
    span = Span(start=0, end=len(generation.token_ids), version=-1, producer=producer)
    return replace(generation, spans=(span,))


@dataclass
class ScriptedAdvice:
    """Advice in words that depends on the decision alone."""

    say: Callable[[Decision], str | Awaitable[str] | None]
    encode: Encode
    producer: Producer
    who: str
    goal: str = ""

    def see(self, decision: Decision) -> None:
        """Goals are shown once; a script that is asked later still has to hear of them."""
        self.goal = decision.observation.goal or self.goal

    async def act(self, decision: Decision) -> Answer:
        """The words as ids, encoded here once."""
        heard = replace(decision, observation=replace(decision.observation, goal=self.goal))
        said = self.say(heard)
        if said is None:
            return None
        self.goal = ""
        return marked_as(await scripted(lambda: said, self.encode, self.who), self.producer)

    def hear(self, generation: Generation, text: str) -> None:
        """A script looks at the world and not at what was said."""


class TeacherGuide:
    """The world's scripted teacher; tasks without one are the policy's alone."""

    producer: Producer = "teacher"

    def __init__(self, world: World, encode: Encode) -> None:
        if not isinstance(world, Taught):
            raise ConfigError(
                f"`actor.guide=teacher`: {world.name} has no teachers. Use another guide (store, model, endpoint, "
                "hinted), or give the world `teacher(task)`"
            )
        self.world: Taught = world
        self.encode, self.name = encode, f"teacher:{world.name}"

    def begin(self, task: Task) -> Advice:
        """For one episode of this task."""
        teacher = self.world.teacher(task)

        def say(decision: Decision) -> str | Awaitable[str] | None:
            return None if teacher is None else teacher.act(decision.env, decision.observation)

        return ScriptedAdvice(say, self.encode, self.producer, f"teacher of {task.id!r}")

    async def show_life(self, tasks: Sequence[Task]) -> None:
        """Raises ConfigError where no task has a teacher."""
        if all(self.world.teacher(task) is None for task in tasks):
            raise ConfigError(f"`actor.guide=teacher`: none of the {len(tasks)} training tasks has a teacher")

    def close(self) -> None:
        """Nothing is held."""


class StoreGuide:
    """What stored episodes did: in a state that one of them passed, the action of the best of them.

    States are told by their fingerprints, so the guide also knows its way where the policy has left the stored path and
    come back to it. Words are encoded by the policy's own tokenizer, whatever wrote the store.

    Args:
        folder: of the store. Only episodes that can be learned from count; those of highest return are heard first.

    Raises:
        ConfigError: the store holds no action.
    """

    producer: Producer = "dataset"

    def __init__(self, folder: str, encode: Encode) -> None:
        self.encode, self.folder, self.name = encode, folder, f"store:{folder}"
        self.known: dict[tuple[str, str], str] = {}
        self.tasks: set[str] = set()
        store = TrajectoryStore(folder, mode="read")
        stored = [t for t in store.iter_trajectories() if t.learnable]
        # Stable: of equal returns the first one stored is heard.
        for trajectory in sorted(stored, key=lambda t: -t.total_reward):
            self.tasks.add(trajectory.task.id)
            for turn in trajectory.turns:
                self.known.setdefault((trajectory.task.id, turn.state_key), turn.action)
        if not self.known:
            raise ConfigError(f"`actor.store` names {folder!r}, which holds no episode that could guide anybody")

    def begin(self, task: Task) -> Advice:
        """For one episode of this task."""

        def say(decision: Decision) -> str | None:
            return self.known.get((task.id, decision.state_key))

        return ScriptedAdvice(say, self.encode, self.producer, self.name)

    async def show_life(self, tasks: Sequence[Task]) -> None:
        """Raises ConfigError where the store knows none of the tasks."""
        if not self.tasks & {task.id for task in tasks}:
            there, wanted = ", ".join(sorted(self.tasks)[:3]), ", ".join(task.id for task in tasks[:3])
            raise ConfigError(
                f"`actor.store` names {self.folder!r}, which holds no episode of the training tasks (it has {there}; "
                f"the run plays {wanted}): collect some with recipes/collect.py in this world"
            )

    def close(self) -> None:
        """Nothing is held."""
