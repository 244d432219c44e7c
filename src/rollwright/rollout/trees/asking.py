"""What a tree asks of the policy: several answers at once, fixed draws for each, and no more tokens than it may."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from rollwright.contracts import EngineFault, Environment, ReplayMismatch
from rollwright.generation import Generation
from rollwright.rollout.actors import Decision
from rollwright.rollout.collector import Collector
from rollwright.rollout.episode import Status
from rollwright.rollout.rounds import rounds_of
from rollwright.rollout.trees.grounds import Place
from rollwright.rollout.trees.tree import SearchTree
from rollwright.rollout.trees.tree_settings import SearchSettings

# Only scripts look into the environment, and `grow_trees` takes none: it is brought to the state after the answer.
_NOBODY_LOOKS = cast(Environment, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeAnswer:
    """What the policy said to one decision; `fault` where it said nothing for good. `wait_s` before it was computed."""

    generation: Generation | None
    wait_s: float = 0.0
    fault: str = ""


class TreeAsker:
    """The policy as one tree asks it.

    The first answer in a state goes on with the draws of the path that led there, so that a tree of one child is the
    episode of its key; every other answer begins a line of draws of its own, named by tree, node and place.
    """

    def __init__(self, collector: Collector, tree: SearchTree, status: Status, settings: SearchSettings) -> None:
        self.collector, self.tree, self.status = collector, tree, status
        self.act = collector.actor.begin(tree.task)
        self.sampling = replace(collector.sampling, temperature=settings.temperature)
        self.max_tokens = settings.max_tokens

    def room(self, wanted: int) -> int:
        """How many of so many answers the budget of tokens holds, each as long as an answer can be."""
        if not self.max_tokens:
            return wanted
        return max(0, min(wanted, (self.max_tokens - self.tree.tokens) // self.sampling.max_tokens))

    def decision(self, place: Place, prompt: tuple[int, ...], line: str, depth: int) -> Decision:
        """What is known when an action is due in this state, with the draws of this line."""
        draws = self.collector.request(line, self.tree.task, self.tree.seed).sampling_seed or 0
        return Decision(
            prompt_ids=prompt,
            # As `Episode` counts, so that the tree's first line is that episode.
            sampling=replace(self.sampling, seed=(draws + 7919 * depth) % 2**31),
            request_id=f"{line}/{depth}",
            observation=place.observation,
            env=_NOBODY_LOOKS,
            episode=self.tree.key,
            turn=depth,
            state_key=place.state,
            passed=(),
        )

    async def ask(self, decisions: Sequence[Decision]) -> list[TreeAnswer]:
        """One answer per decision; asks that faulted are made again, `rollout.retries` times."""
        answers: list[TreeAnswer] = [TreeAnswer(generation=None)] * len(decisions)
        open_places = list(range(len(decisions)))
        for attempt in range(self.collector.retries + 1):
            if not open_places:
                break
            self.status.now("engine.generate")
            again = await self._together([replace(decisions[place], attempt=attempt) for place in open_places])
            for place, answer in zip(open_places, again, strict=True):
                answers[place] = answer
            open_places = [place for place in open_places if answers[place].generation is None]
        return answers

    async def _together(self, decisions: Sequence[Decision]) -> list[TreeAnswer]:
        # A round waits for everybody who will ask, and this tree asks as several.
        rounds = rounds_of(self.collector.actor)
        if rounds:
            rounds.join(len(decisions) - 1)
        try:
            found = await asyncio.gather(*(self._one(decision) for decision in decisions))
        finally:
            if rounds:
                rounds.join(1 - len(decisions))
        self.tree.tokens += sum(len(answer.generation.token_ids) for answer in found if answer.generation)
        return found

    async def _one(self, decision: Decision) -> TreeAnswer:
        limit_s, before = self.collector.limits.engine_call_s, time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                said = await self.act(decision)
        except TimeoutError:
            name = self.collector.actor.name
            return TreeAnswer(
                generation=None, fault=f"{name} gave no answer within {limit_s:g} s (rollout.engine_call_s)"
            )
        # A replay that does not fit is asked anew: the journal has given the episode up.
        except (EngineFault, ReplayMismatch) as error:
            return TreeAnswer(generation=None, fault=str(error))
        return TreeAnswer(generation=said, wait_s=max(0.0, time.monotonic() - before - said.generate_s))
