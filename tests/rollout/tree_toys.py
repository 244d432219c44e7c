"""What tests of trees play with: a context of characters, engines that guess or know, and worlds that misbehave."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from rollwright.contracts import ContextOverflow, Message, Span, episode_seed
from rollwright.envs.text import combination_lock
from rollwright.generation import Ask, Generation, Sampling
from rollwright.rollout import Collector, EngineActor, FaultLog, Limits
from rollwright.rollout.trees import SearchSettings, SearchTree, TreeRequest, grow_trees

SEED = episode_seed("train", 0)


class Characters:
    """A context whose ids are characters."""

    def __init__(self, ids: tuple[int, ...] = (), room: int = 4000) -> None:
        self.ids, self.room = ids, room

    def observe(self, observation: Any) -> tuple[Message, ...]:
        self.ids += tuple(map(ord, f"<{observation.text}>"))
        return (Message(role="user", content=observation.text),)

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        if len(self.ids) + reserve > self.room:
            raise ContextOverflow(f"{len(self.ids)} and {reserve} are more than {self.room}")
        return self.ids

    def act(self, generation: Generation) -> str:
        self.ids += generation.token_ids
        return "".join(map(chr, generation.token_ids))

    def fork(self) -> Characters:
        return Characters(self.ids, self.room)


class Guesses:
    """Says one of its words by chance, by the seed of the request; what it was asked is kept."""

    name, version, context_length = "guesses", 3, 10_000

    def __init__(self, words: Sequence[str] = ("0", "1")) -> None:
        self.words, self.asked, self.batches = words, [], []

    def say(self, prompt_ids: tuple[int, ...], sampling: Sampling, request_id: str) -> Generation:
        self.asked.append(request_id)
        word = random.Random(f"{sampling.seed}/{prompt_ids}").choice(self.words)
        ids = tuple(map(ord, word))
        span = Span(start=0, end=len(ids), version=self.version)
        logprobs = (math.log(1 / len(self.words)), *(0.0,) * (len(ids) - 1))
        return Generation(token_ids=ids, logprobs=logprobs, finish_reason="stop", spans=(span,))

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        return self.say(prompt_ids, sampling, request_id)

    async def generate_together(self, asks: Sequence[Ask]) -> list[Generation]:
        self.batches.append([ask.request_id for ask in asks])
        return [self.say(ask.prompt_ids, ask.sampling, ask.request_id) for ask in asks]

    def load_weights(self, weights: object, *, version: int) -> None: ...

    def close(self) -> None: ...


def lock(length: int = 3, **options: Any) -> Any:
    """A lock that a wrong digit blocks: a binary tree with one leaf that pays."""
    return combination_lock.build(lengths=(length,), wording="compact", **{"slip": "over", **options})


def collector_of(world: Any, engine: Any = None, *, actor: Any = None, **options: Any) -> Collector:
    turns = options.pop("max_turns", 8)
    return Collector(
        world,
        actor or EngineActor(engine or Guesses()),
        options.pop("context", Characters),
        sampling=Sampling(max_tokens=options.pop("max_tokens", 2)),
        limits=Limits(max_turns=turns, episode_s=20.0, env_call_s=2.0, engine_call_s=2.0),
        faults=options.pop("faults", FaultLog(None, max_frac=1.0)),
        **options,
    )


def grown(collector: Collector, key: str = "a", **settings: Any) -> SearchTree:
    """One tree of the world's first training task; the collector is closed."""
    request = TreeRequest(key=key, task=collector.world.tasks("train")[0], seed=SEED)
    try:
        return grow_trees(collector, [request], SearchSettings.model_validate(settings))[0]
    finally:
        collector.close()
