"""Who acts in an episode: an engine that samples from the policy, or a scripted teacher. One contract for both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from rollwright.env import Environment, Observation, Taught, World
from rollwright.errors import DataError, EnvironmentFault
from rollwright.generation.base import Engine, Generation, Sampling
from rollwright.types import Origin, Span, Task


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


Act = Callable[[Decision], Awaitable[Generation]]


class Actor(Protocol):
    """Acts in many episodes at once; `begin` is called once per episode and may keep state in what it returns."""

    name: str
    origin: Origin

    def begin(self, task: Task) -> Act: ...


class EngineActor:
    """The policy itself, sampled by an engine."""

    origin: Origin = "policy"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.name

    def begin(self, task: Task) -> Act:
        return self._act

    async def _act(self, decision: Decision) -> Generation:
        return await self.engine.generate(decision.prompt_ids, decision.sampling, request_id=decision.request_id)


class TeacherActor:
    """A world's scripted teachers. Their words become ids once, here, and are marked as produced by a dataset.

    Args:
        encode_action: text to ids, stop token included (`ChatCodec.encode_action`).
    """

    origin: Origin = "teacher"

    def __init__(self, world: World, encode_action: Callable[[str], tuple[int, ...]]) -> None:
        if not isinstance(world, Taught):
            raise DataError(f"world {world.name!r} has no teachers; collect with a policy, or give it `teacher(task)`")
        self.world: Taught = world
        self.encode_action = encode_action
        self.name = f"teacher:{world.name}"

    def begin(self, task: Task) -> Act:
        teacher = self.world.teacher(task)
        if teacher is None:
            raise DataError(f"task {task.id!r} has no teacher; leave it out of the tasks to demonstrate")

        async def act(decision: Decision) -> Generation:
            try:
                text = teacher.act(decision.env, decision.observation)
                text = await text if inspect.isawaitable(text) else text
            except (asyncio.CancelledError, EnvironmentFault):
                raise
            except Exception as error:  # a script that loses its way is a fault of ours, not a lesson
                raise EnvironmentFault(f"teacher of {task.id!r} failed: {error!r}") from error
            return self._as_generation(text)

        return act

    def _as_generation(self, text: str) -> Generation:
        ids = tuple(self.encode_action(text))
        span = Span(start=0, end=len(ids), version=-1, producer="dataset")
        return Generation(token_ids=ids, logprobs=(0.0,) * len(ids), finish_reason="stop", spans=(span,))
