"""Who acts in an episode: an engine that samples from the policy, a scripted teacher, or chance. One contract."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from rollwright.contracts import (
    ActsAtRandom,
    DataError,
    Environment,
    EnvironmentFault,
    Observation,
    Origin,
    Passed,
    Span,
    Task,
    Taught,
    World,
)
from rollwright.generation import Engine, Generation, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is known when an action is due: the ids for a policy, the observation and environment for a script."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    request_id: str
    observation: Observation
    env: Environment
    episode: str = ""
    attempt: int = 0
    """Played how often before: a faulted episode asks the same again."""
    turn: int = 0
    """Of this episode, counted from 0."""
    state_key: str = ""
    """Fingerprint of the state that is acted in."""
    passed: tuple[Passed, ...] = ()
    """What lies before the episode's first turn, where it began in the middle of an earlier one."""
    guide_frac: float | None = None
    """How much of the episode a guide may play (`GroupRequest.guide_frac`); None = nobody but the policy acts."""


Act = Callable[[Decision], Awaitable[Generation]]


class Actor(Protocol):
    """Acts in many episodes at once; `begin` is called once per episode and may keep state in what it returns."""

    name: str
    origin: Origin

    def begin(self, task: Task) -> Act:
        """What chooses the actions of one episode of this task."""


class EngineActor:
    """The policy itself, sampled by an engine."""

    origin: Origin = "policy"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.name

    def begin(self, task: Task) -> Act:
        """What chooses the actions of one episode of this task."""
        return self._act

    async def _act(self, decision: Decision) -> Generation:
        return await self.engine.generate(decision.prompt_ids, decision.sampling, request_id=decision.request_id)


Encode = Callable[[str], tuple[int, ...]]


async def scripted(said: Callable[[], str | Awaitable[str]], encode_action: Encode, who: str) -> Generation:
    """What a script writes: its words become ids once, here, and are marked as produced by a dataset.

    Raises:
        EnvironmentFault: the script raised; one that loses its way is a fault of ours, not a lesson.
    """
    try:
        text = said()
        text = await text if inspect.isawaitable(text) else text
    except (asyncio.CancelledError, EnvironmentFault):
        raise
    except Exception as error:
        raise EnvironmentFault(f"{who} failed: {error!r}") from error
    ids = tuple(encode_action(text))
    # Marked as a dataset's, these tokens are in no policy loss, so their log-probs of 0 are never read there.
    span = Span(start=0, end=len(ids), version=-1, producer="dataset")
    # `encode_action` ends in the stop token, so this answer was never cut.
    return Generation(token_ids=ids, logprobs=(0.0,) * len(ids), finish_reason="stop", spans=(span,))


class RandomActor:
    """A world's random actions. The name of the episode and the turn fix the draws, so that it plays the same again.

    Args:
        encode_action: text to ids, stop token included (`ChatCodec.encode_action`).
    """

    origin: Origin = "scripted"

    def __init__(self, world: World, encode_action: Encode) -> None:
        if not isinstance(world, ActsAtRandom):
            raise DataError(
                f"world {world.name!r} has no random actions; collect with a policy or its teachers, "
                "or give it `random_action(env, observation, draws)`"
            )
        self.world: ActsAtRandom = world
        self.encode_action = encode_action
        self.name = f"random:{world.name}"

    def begin(self, task: Task) -> Act:
        """What chooses the actions of one episode of this task."""
        return self._act

    async def _act(self, decision: Decision) -> Generation:
        # A retried episode has the same request ids and draws the same. A text seed is hashed alike in every process.
        draws = random.Random(f"random action/{decision.request_id}")
        said = partial(self.world.random_action, decision.env, decision.observation, draws)
        return await scripted(said, self.encode_action, self.name)


class TeacherActor:
    """A world's scripted teachers.

    Args:
        encode_action: text to ids, stop token included (`ChatCodec.encode_action`).
        random_frac: share of the turns in which chance acts in place of the teacher (`RandomActor`).
    """

    origin: Origin = "teacher"

    def __init__(self, world: World, encode_action: Encode, *, random_frac: float = 0.0) -> None:
        if not isinstance(world, Taught):
            raise DataError(f"world {world.name!r} has no teachers; collect with a policy, or give it `teacher(task)`")
        self.world: Taught = world
        self.encode_action, self.random_frac = encode_action, random_frac
        self.stray = RandomActor(world, encode_action) if random_frac > 0 else None
        self.name = f"teacher:{world.name}" + (f" with {random_frac:g} random" if random_frac > 0 else "")

    def begin(self, task: Task) -> Act:
        """What chooses the actions of one episode of this task."""
        teacher = self.world.teacher(task)
        if teacher is None:
            raise DataError(f"task {task.id!r} has no teacher; leave it out of the tasks to demonstrate")
        stray = self.stray.begin(task) if self.stray else None
        unheard = ""  # a goal that was shown in a turn of chance: the teacher still has to hear it

        async def act(decision: Decision) -> Generation:
            nonlocal unheard
            unheard = decision.observation.goal or unheard
            # A stream of its own: whether chance acts is independent of what it then does.
            if stray is not None and random.Random(f"stray/{decision.request_id}").random() < self.random_frac:
                return await stray(decision)
            observation, unheard = replace(decision.observation, goal=unheard), ""
            said = partial(teacher.act, decision.env, observation)
            return await scripted(said, self.encode_action, f"teacher of {task.id!r}")

        return act
