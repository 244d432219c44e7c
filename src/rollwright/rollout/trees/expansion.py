"""One tree being grown: answers tried in states, and what became of them.

A child that faults is tried again, then written down and counted; it never becomes a node and never has a value.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from rollwright.contracts import (
    ContextOverflow,
    EnvironmentFault,
    Passed,
    StepResult,
    StopReason,
    Timings,
    Turn,
    as_observation,
)
from rollwright.generation import Generation
from rollwright.rollout.collector import Collector
from rollwright.rollout.episode import Status, make_turn
from rollwright.rollout.restoring import shown_of
from rollwright.rollout.trees.asking import TreeAnswer, TreeAsker
from rollwright.rollout.trees.grounds import ForkedContext, Grounds, Place, SpentBudget
from rollwright.rollout.trees.tree import SearchTree, StateValue, TreeNode
from rollwright.rollout.trees.tree_settings import SearchSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One action done in one state: the record, what the world gave, and the context after the action."""

    turn: Turn
    result: StepResult
    state: str
    context: ForkedContext
    stop: StopReason | None
    verdict: bool | None


class TreePlay:
    """A tree while it is grown.

    Args:
        value: what judges states, for `search.value` critic and reward_model.
        sees_verdict: whether rewards and verdicts of ended paths may be seen. An evaluation must not: what it searches
            would then be told the answer.
    """

    def __init__(
        self,
        collector: Collector,
        tree: SearchTree,
        settings: SearchSettings,
        status: Status,
        *,
        value: StateValue | None = None,
        sees_verdict: bool = True,
    ) -> None:
        self.collector, self.tree, self.settings = collector, tree, settings
        self.value, self.sees_verdict = value, sees_verdict
        # Where a world can only replay, an environment per open path spares it the ways back.
        most = 1 if collector.world.snapshots == "exact" else min(16, max(settings.simulations, settings.children))
        self.grounds = Grounds(collector, tree, status, most=most, max_calls=settings.max_env_calls)
        self.asker = TreeAsker(collector, tree, status, settings)
        self.limit = settings.max_depth or collector.limits.max_turns
        self.spent = ""
        """What of the budget is used up; empty while the search may go on."""
        self._lines = {0: tree.key}
        self._asked: dict[int, int] = {}

    async def open(self) -> None:
        """Go to the start state; where that fails for good, the root is a fault and the tree is closed."""
        root, fault = self.tree.root, ""
        for attempt in range(self.collector.retries + 1):
            try:
                observation, state = await self.grounds.reset()
            except EnvironmentFault as error:
                fault = self.note(root, str(error), attempt)
            except SpentBudget as error:
                self.spent = str(error)
                return
            else:
                root.state_key, context = state, cast(ForkedContext, self.collector.new_context())
                self.grounds.places[0] = Place(
                    context=context, observation=observation, observed=context.observe(observation), state=state
                )
                return
        self.tree.end(root, StopReason.ENV_ERROR, fault=fault)

    async def expand(
        self, wanted: Sequence[tuple[TreeNode, int]], *, distinct: bool = True, again: bool = False
    ) -> list[TreeNode]:
        """Try so many answers in each of these states; the new nodes, in order.

        There are fewer where answers repeat an action (`distinct`), where children fault, or where the budget ends.

        Args:
            again: the states will be expanded once more; else they are left for good.
        """
        asks = [
            (node, self._asked.get(node.number, 0) + index)
            for node, count in wanted
            if self._can_act(node)
            for index in range(count)
        ]
        room = self.asker.room(len(asks))
        if room < len(asks):
            self.spent = "search.max_tokens"
        asks = asks[:room]
        answers = await self.asker.ask([self._decision(node, index) for node, index in asks])
        made: list[TreeNode] = []
        for number in dict.fromkeys(node.number for node, _ in asks):
            own = [(i, a) for (node, i), a in zip(asks, answers, strict=True) if node.number == number]
            self._asked[number] = self._asked.get(number, 0) + len(own)
            made += await self._children(self.tree.nodes[number], own, distinct=distinct, again=again)
        return made

    def worth(self, node: TreeNode) -> float | None:
        """What is known of a node by itself: how its path ended, where that may be seen, else its estimate."""
        return node.score if node.stop is not None and self.sees_verdict else node.estimate

    def likelihood(self, node: TreeNode) -> float:
        """Log-probability of all actions of the path to a node."""
        return sum(above.prior for above in self.tree.path(node.number))

    async def finish_path(self, node: TreeNode) -> TreeNode:
        """The policy plays on from this node to the end; the node where that is, or where the budget ended."""
        while node.stop is None and not self.spent:
            made = await self.expand([(node, 1)])
            if not made:
                break
            node = made[0]
        return node

    def cut_off(self, node: TreeNode) -> None:
        """End a path where the budget leaves it: a failure where the search is judged, else without a verdict."""
        stop = StopReason.MAX_TOKENS if "tokens" in self.spent else StopReason.MAX_TURNS
        self.tree.end(node, stop, success=None if self.sees_verdict or not node.depth else False)

    def line(self, node: TreeNode, index: int) -> str:
        """Name of the draws of this answer in this state."""
        return self._lines[node.number] if index == 0 else f"{self.tree.key}/{node.number}.{index}"

    def note(self, node: TreeNode, fault: str, attempt: int, stop: StopReason = StopReason.ENV_ERROR) -> str:
        """Write down a faulted attempt at going on from this node."""
        broken = replace(self.tree.trajectory(node.number), stop_reason=stop, success=None, fault=fault)
        self.collector.faults.record(broken, attempt=attempt)
        return fault

    def lose(self, node: TreeNode) -> None:
        """A child of this node is lost for good."""
        self.tree.faults += 1
        broken = replace(self.tree.trajectory(node.number), stop_reason=StopReason.ENV_ERROR, success=None)
        self.collector.faults.finished(broken)

    def stop_of(self, result: StepResult, depth: int) -> StopReason | None:
        """Why a path ends after a turn of this number, or None."""
        if result.terminated:
            return StopReason.TERMINATED
        return StopReason.MAX_TURNS if result.truncated or depth >= self.limit else None

    def _can_act(self, node: TreeNode) -> bool:
        """Whether the policy can be asked here; a prompt without room for an answer ends the path."""
        place = self.grounds.places.get(node.number)
        if place is None:
            return False
        if place.prompt is None:
            try:
                place.prompt = place.context.prompt_ids(self.asker.sampling.max_tokens)
            except ContextOverflow:
                # As in an episode: a failure, unless nobody has acted.
                self.tree.end(node, StopReason.MAX_TOKENS, success=self._cut(place.verdict) if node.depth else None)
                self.grounds.forget(node.number)
                return False
        return True

    def _decision(self, node: TreeNode, index: int) -> Any:
        place = self.grounds.places[node.number]
        assert place.prompt is not None
        return self.asker.decision(place, place.prompt, self.line(node, index), node.depth)

    async def _children(
        self, node: TreeNode, answers: Sequence[tuple[int, TreeAnswer]], *, distinct: bool, again: bool
    ) -> list[TreeNode]:
        """Do what was answered in one state, each action once."""
        place, made = self.grounds.places[node.number], []
        chosen = list(self._actions(node, place, answers, distinct=distinct))
        for at, (index, answer, said, context) in enumerate(chosen):
            child = await self._child(node, answer, said, context, again=again or at + 1 < len(chosen))
            if child is not None:
                self._lines[child.number] = self.line(node, index)
                made.append(child)
            elif self.spent:
                break
        if again:
            return made
        self.grounds.forget(node.number)
        if not node.children and not self.spent:
            fault = next((a.fault for _, a in answers if a.fault), "every child faulted")
            self.tree.end(node, StopReason.ENV_ERROR, fault=fault)
        return made

    def _actions(
        self, node: TreeNode, place: Place, answers: Sequence[tuple[int, TreeAnswer]], *, distinct: bool
    ) -> Iterable[tuple[int, TreeAnswer, str, ForkedContext]]:
        """The answers that say something new, with what was said and the context after it."""
        seen: set[str] = set()
        for index, answer in answers:
            if answer.generation is None:
                self.note(node, answer.fault, self.collector.retries, StopReason.ENGINE_ERROR)
                self.lose(node)
                continue
            context = place.context.fork()
            said = context.act(answer.generation)
            # By what the world is given, so that two thoughts before one action are one child.
            action = " ".join(self.action_of(said, answer.generation).split())
            if distinct and action in seen:
                self.tree.duplicates += 1
                continue
            seen.add(action)
            yield index, answer, said, context

    async def _child(
        self, node: TreeNode, answer: TreeAnswer, said: str, context: ForkedContext, *, again: bool
    ) -> TreeNode | None:
        """One more node, or None where the child faulted for good or the budget is spent."""
        for attempt in range(self.collector.retries + 1):
            try:
                tried, env = await self._try(node, answer, said, context, again=again)
            except SpentBudget as error:
                self.spent = str(error)
                return None
            except EnvironmentFault as error:
                self.note(node, str(error), attempt)
                continue
            child = self._added(node, tried)
            if tried.stop is None:
                self.grounds.stands(child.number, env)
            else:
                self.grounds.give_back(env)
            return child
        self.lose(node)
        return None

    async def _try(
        self, node: TreeNode, answer: TreeAnswer, said: str, context: ForkedContext, *, again: bool
    ) -> tuple[Tried, Any]:
        place, generation, depth = self.grounds.places[node.number], answer.generation, node.depth + 1
        assert generation is not None and place.prompt is not None
        action, before = self.action_of(said, generation), time.monotonic()
        last = depth >= self.limit
        result, state, env = await self.grounds.step(node.number, action, again=again, last=last)
        timings = Timings(
            engine_wait_s=answer.wait_s, generate_s=generation.generate_s, env_s=time.monotonic() - before
        )
        turn = make_turn(place.prompt, generation, said, action, place.observed, place.state, result, timings)
        stop = self.stop_of(result, depth)
        if stop is StopReason.MAX_TURNS:
            turn = replace(turn, truncated=True)
        if place.observation.attachments:
            turn = replace(turn, attachments=place.observation.attachments)
        verdict = result.success if result.success is not None else place.verdict
        return Tried(turn=turn, result=result, state=state, context=context, stop=stop, verdict=verdict), env

    def _added(self, node: TreeNode, tried: Tried) -> TreeNode:
        """The node of an action that was done, and its place where the path goes on."""
        place, turn = self.grounds.places[node.number], tried.turn
        child = self.tree.add(node.number, turn, prior=sum(turn.action_logprobs), state_key=tried.state)
        observation = as_observation(tried.result.observation)
        if tried.stop is None:
            here = Passed(
                shown=shown_of(place.observation),
                state_key=turn.state_key,
                action=turn.action,
                action_ids=turn.action_ids,
                finish=turn.finish,
            )
            self.grounds.places[child.number] = Place(
                context=tried.context,
                observation=observation,
                observed=tried.context.observe(observation),
                state=tried.state,
                passed=(*place.passed, here),
                verdict=tried.verdict,
            )
            return child
        cut = tried.stop.is_truncation
        # A value model reads the last state of every path, and is fitted to it; a critic bootstraps only after a limit.
        tried.context.observe(observation)
        child.next_prompt_ids = self.prompt_or_none(tried.context)
        self.tree.end(child, tried.stop, success=self._cut(tried.verdict) if cut else tried.verdict)
        return child

    def _cut(self, verdict: bool | None) -> bool | None:
        """The verdict of a path that a limit ended: a failure, but where the search's own limit is the shorter one."""
        shorter = self.limit < self.collector.limits.max_turns
        return False if verdict is None and not (shorter and self.sees_verdict) else verdict

    def action_of(self, said: str, generation: Generation) -> str:
        """What of an answer the world is given."""
        return self.collector.rule.action_of(said, generation.finish_reason, scripted=generation.scripted)

    def prompt_or_none(self, context: ForkedContext) -> tuple[int, ...]:
        """The next prompt; empty where it does not fit."""
        try:
            return context.prompt_ids(self.asker.sampling.max_tokens)
        except ContextOverflow:
            return ()
