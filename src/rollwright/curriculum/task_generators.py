"""Where new tasks come from: a world that varies its own, or a language model that writes instructions.

Both are `evolving.TaskGenerator`s. What a language model writes is data: it becomes the instruction of a task, of which
the world decides whether it can be opened.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollwright.contracts import (
    ConfigError,
    ContextOverflow,
    EngineFault,
    Message,
    Proposes,
    TakesInstructions,
    Task,
    World,
)
from rollwright.curriculum.curriculum_settings import CurriculumSettings
from rollwright.curriculum.evolving import TaskGenerator
from rollwright.curriculum.samplers import draws_of
from rollwright.generation import AnswerCache, ChatClient, ChatFailure, Engine, Sampling
from rollwright.models import ChatCodec

log = logging.getLogger(__name__)
Writer = Callable[[Sequence[Message], int], str]
"""(messages, seed) -> what the language model wrote."""

SYSTEM = (
    "You write tasks for an agent that practises. You are shown tasks it has failed at, one a line. Write new tasks "
    "for the same place: of the same kind, of similar difficulty, possible with what is there, each complete in "
    "itself. Answer with one task a line and nothing else."
)
# Bullets and numbers such as `-`, `1.`, `(2)`, `3:`. Four digits, such as a year, belong to the task.
_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s*")
_LONGEST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldGenerator:
    """Asks the world for variations of each seed in turn."""

    world: Proposes
    seed: int

    def propose(self, seeds: Sequence[Task], count: int, *, key: int) -> list[Task]:
        """Variations of the seeds, by the world."""
        each = -(-count // len(seeds))
        rng = draws_of(self.seed, "proposals", key)
        batches = [list(self.world.propose(task, each, rng.randrange(2**31))) for task in seeds]
        rounds = [[batch[place] for batch in batches if place < len(batch)] for place in range(each)]
        return [task for row in rounds for task in row]  # every seed's nearest variation first


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenGenerator:
    """Asks a language model for instructions like those of the failed tasks, and the world to make tasks of them.

    Seeds of one place (`TakesInstructions.place_of`) are asked about together, `rounds` times, as WebRL does per site.
    A writer that fails, or whose context is too short for the question, costs the round's tasks, not the run.
    """

    world: TakesInstructions
    write: Writer
    seed: int
    rounds: int = 2

    def propose(self, seeds: Sequence[Task], count: int, *, key: int) -> list[Task]:
        """Tasks with instructions that a model wrote, those that the world can make of them."""
        places: dict[str, list[Task]] = {}
        for task in seeds:
            places.setdefault(self.world.place_of(task), []).append(task)
        each = -(-count // (len(places) * self.rounds))
        made: dict[str, Task] = {}
        # The draws go by the number of the place, which must not depend on the order of the seeds.
        for place, (name, group) in enumerate(sorted(places.items())):
            for turn in range(self.rounds):
                # A seed per question: with one for all, the cache would repeat the first turn's answer.
                seed = draws_of(self.seed, "written", key, place, turn).randrange(2**31)
                for instruction in self._ask(group, each, seed, name):
                    # The new task begins where the first failed task of its place does.
                    new = self.world.task_of(instruction, like=group[0])
                    if new is not None:
                        made.setdefault(new.id, new)
        return list(made.values())

    def _ask(self, group: Sequence[Task], count: int, seed: int, name: str) -> list[str]:
        lines = "\n".join(f"- {self.world.instruction_of(task)}" for task in group)
        asked = f"Place: {name}\nTasks it has failed at:\n{lines}\nWrite {count} new tasks."
        messages = [Message(role="system", content=SYSTEM), Message(role="user", content=asked)]
        try:
            return instructions_in(self.write(messages, seed))[:count]
        except (ChatFailure, EngineFault, ContextOverflow) as error:
            log.warning("no tasks were written for %s: %s", name, error)
            return []


def instructions_in(answer: str) -> list[str]:
    """The lines of an answer without their marks; empty, repeated and over-long ones left out."""
    lines = [" ".join(_MARK.sub("", line).split()) for line in answer.splitlines()]
    return list(dict.fromkeys(line for line in lines if line and len(line) <= _LONGEST))


def endpoint_writer(client: ChatClient, cache: AnswerCache, *, max_tokens: int) -> Writer:
    """An OpenAI-compatible endpoint. Answers are kept, so that a resumed run goes on with the same tasks."""

    def write(messages: Sequence[Message], seed: int) -> str:
        # A temperature of 1, as in WebRL: the tasks are meant to differ.
        question = client.request(messages, temperature=1.0, max_tokens=max_tokens, seed=seed)
        return _remembered(cache, question, lambda: client.ask(question))

    return write


def engine_writer(engine: Engine, codec: ChatCodec, cache: AnswerCache, *, max_tokens: int) -> Writer:
    """The run's own engine with the policy of now."""

    def write(messages: Sequence[Message], seed: int) -> str:
        said = [{"role": message.role, "content": message.content} for message in messages]
        # The version belongs to the question: other weights write other tasks.
        question = {"messages": said, "seed": seed, "version": engine.version, "max_tokens": max_tokens}
        return _remembered(cache, question, lambda: _generate(engine, codec, messages, seed, max_tokens))

    return write


def _generate(engine: Engine, codec: ChatCodec, messages: Sequence[Message], seed: int, max_tokens: int) -> str:
    sampling = Sampling(seed=seed, max_tokens=max_tokens, stop_token_ids=tuple(codec.stop_token_ids))
    prompt = codec.encode_start(messages)
    # The caller's thread has no running loop: episodes are played on a loop thread of their own.
    answer = asyncio.run(engine.generate(prompt, sampling, request_id=f"tasks/{seed}"))
    return codec.decode_action(answer.token_ids)


def _remembered(cache: AnswerCache, question: dict[str, Any], ask: Callable[[], str]) -> str:
    known = cache.get(question)
    if known is None:
        known = ask()
        cache.put(question, known)
    return known


def open_generator(
    settings: CurriculumSettings, world: World, engine: Engine, codec: ChatCodec, run_folder: Path, *, seed: int
) -> TaskGenerator:
    """Who makes the new tasks of an evolving curriculum.

    Raises:
        ConfigError: the world can neither vary its tasks nor take instructions, as `curriculum.generator` asks.
    """
    if settings.generator == "world":
        if not isinstance(world, Proposes):
            raise ConfigError(f"curriculum.generator=world needs a world with `propose`, and {world.name} has none")
        return WorldGenerator(world=world, seed=seed)
    if not isinstance(world, TakesInstructions):
        raise ConfigError(
            f"curriculum.generator={settings.generator} writes instructions, and {world.name} takes none: use world"
        )
    cache = AnswerCache(run_folder / "written_tasks")
    if settings.generator == "engine":
        write = engine_writer(engine, codec, cache, max_tokens=settings.max_tokens)
    else:
        # The settings hold the name of the variable alone, for they are stored with the run.
        key = os.environ.get(settings.key_variable, "") if settings.key_variable else ""
        client = ChatClient(url=settings.url, model=settings.model, key=key)
        write = endpoint_writer(client, cache, max_tokens=settings.max_tokens)
    return WrittenGenerator(world=world, write=write, seed=seed)
