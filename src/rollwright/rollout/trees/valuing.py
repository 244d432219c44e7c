"""What new states are worth: a value model's word, or the mean return of episodes that the policy plays on from them.

Simulations need the task's rewards, so that they serve to build data and are forbidden in an evaluation.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollwright.contracts import ContextOverflow, EnvironmentFault, as_observation
from rollwright.maths import judged_state
from rollwright.rollout.trees.asking import TreeAnswer
from rollwright.rollout.trees.expansion import TreePlay
from rollwright.rollout.trees.grounds import Place, SpentBudget
from rollwright.rollout.trees.tree import BatchedStateValue, StateAsk, StateValue, TreeNode


async def judge_states(play: TreePlay, nodes: Sequence[TreeNode]) -> None:
    """Set the estimates of new nodes, as `search.value` says. What has ended with a visible outcome has none."""
    asked = [node for node in nodes if not (play.sees_verdict and node.stop is not None)]
    if not asked:
        return
    if play.settings.value == "rollouts":
        found = await simulated_returns(play, asked, play.settings.rollouts)
        for node in asked:
            node.estimate = judged_state(None, found.get(node.number, ()))
    elif play.value is not None:
        said = await _values(play.value, [_state_ask(play, node) for node in asked])
        for node, estimate in zip(asked, said, strict=True):
            node.estimate = float(estimate)


@dataclass(slots=True, kw_only=True)
class _Simulation:
    """An episode that is played on from a node; only its return is kept, rewards before the node included."""

    node: TreeNode
    line: str
    env: Any
    place: Place
    depth: int
    total: float
    over: bool = False
    lost: bool = False


async def simulated_returns(play: TreePlay, nodes: Sequence[TreeNode], count: int) -> dict[int, list[float]]:
    """Returns of `count` episodes played on from each node, by its number.

    All take their turns together, so that the engine batches them. Those that a fault took or that the budget cut are
    left out: their returns would be those of other episodes.
    """
    every: list[_Simulation] = []
    for node in nodes:
        every += [one for index in range(count) if (one := await _begun(play, node, index)) is not None]
    running = every
    while running := [one for one in running if not one.over and not one.lost and _has_room(play, one)]:
        room = play.asker.room(len(running))
        if room < len(running):
            play.spent = "search.max_tokens"
            for cut in running[room:]:
                cut.lost = True
                play.grounds.give_back(cut.env)
            running = running[:room]
        asks = [play.asker.decision(one.place, one.place.prompt or (), one.line, one.depth) for one in running]
        for one, answer in zip(running, await play.asker.ask(asks), strict=True):
            await _advance(play, one, answer)
    found: dict[int, list[float]] = {}
    for one in every:
        if not one.lost:
            found.setdefault(one.node.number, []).append(one.total)
    return found


async def _begun(play: TreePlay, node: TreeNode, index: int) -> _Simulation | None:
    try:
        env = await play.grounds.borrow(node.number)
    except SpentBudget as error:
        play.spent = str(error)
        return None
    except EnvironmentFault as error:
        play.note(node, str(error), 0)
        play.lose(node)
        return None
    place = play.grounds.places[node.number]
    return _Simulation(
        node=node,
        line=f"{play.tree.key}/{node.number}~{index}",
        env=env,
        place=replace(place, context=place.context.fork(), prompt=None),
        depth=node.depth,
        total=sum(turn.reward for turn in play.tree.turns(node.number)),
    )


def _has_room(play: TreePlay, one: _Simulation) -> bool:
    """Make the next prompt; where it leaves no room the episode is over, and its return is what it is."""
    try:
        one.place.prompt = one.place.context.prompt_ids(play.asker.sampling.max_tokens)
    except ContextOverflow:
        one.over = True
        play.grounds.give_back(one.env)
    return not one.over


async def _advance(play: TreePlay, one: _Simulation, answer: TreeAnswer) -> None:
    """One turn of a simulation."""
    fault = answer.fault
    if answer.generation is not None:
        said = one.place.context.act(answer.generation)
        one.depth += 1
        try:
            play.grounds.require_calls(1)
            action = play.action_of(said, answer.generation)
            result, state = await play.grounds.act(one.env, action, last=one.depth >= play.limit)
        except SpentBudget as error:
            play.spent, one.lost = str(error), True
            play.grounds.give_back(one.env)
            return
        except EnvironmentFault as error:
            fault = str(error)
        else:
            one.total += sum(result.rewards.values())
            one.over = play.stop_of(result, one.depth) is not None
            if one.over:
                play.grounds.give_back(one.env)
                return
            observation = as_observation(result.observation)
            observed = one.place.context.observe(observation)
            one.place = replace(one.place, observation=observation, observed=observed, state=state)
            return
    one.lost = True
    play.note(one.node, fault, 0)
    play.lose(one.node)


def _state_ask(play: TreePlay, node: TreeNode) -> StateAsk:
    place = play.grounds.places.get(node.number)
    prompt = node.next_prompt_ids if place is None else play.prompt_or_none(place.context)
    return play.tree.task, play.tree.turns(node.number), prompt


async def _values(value: StateValue, states: Sequence[StateAsk]) -> Sequence[float]:
    """What the value says of these states: all at once where it can."""
    if isinstance(value, BatchedStateValue):
        found = value.values(states)
        return await found if inspect.isawaitable(found) else found
    each = [value(*state) for state in states]
    return [await one if inspect.isawaitable(one) else one for one in each]
