"""The rules by which a tree is grown, each as its paper's algorithm box, and the path that a search decides for.

uct        Agent-R (arXiv:2501.11425): values are summed up along the path, unvisited children come first
puct       the reasoning blueprint (arXiv:2501.11223): children start with a value, parents are discounted averages
beam       of all states of one depth, the best ones go on
best_of_n  independent episodes
lookahead  in each state the best child is taken, and the search does not come back
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence

from rollwright.maths import (
    best_choice,
    discounted_average,
    followed_path,
    normalised_value,
    puct_scores,
    uct_scores,
    widened,
)
from rollwright.rollout.trees.expansion import TreePlay
from rollwright.rollout.trees.tree import TreeNode
from rollwright.rollout.trees.valuing import judge_states


async def grow_by_rule(play: TreePlay) -> None:
    """Grow an opened tree until its rule or its budget ends it."""
    if play.tree.root.stop is None and not play.spent:
        await _RULES[play.settings.rule](play)


def add_up(play: TreePlay, node: TreeNode) -> None:
    """Back up what is known of a node by sums: one visit and the value for every node of its path."""
    worth = play.worth(node)
    if worth is None or (node.stop is not None and node.stop.is_fault):
        return
    for above in play.tree.path(node.number):
        above.visits += 1
        above.total += worth


async def _uct(play: TreePlay) -> None:
    draws = random.Random(f"{play.settings.seed}/{play.tree.key}")
    for _ in range(play.settings.simulations):
        node = play.tree.root
        while not node.closed and not play.spent:
            if not node.children and not await _goes_on(play, node):
                break
            below = [child for child in _children(play, node) if not child.closed]
            counts = [child.total for child in below], [child.visits for child in below]
            node = below[best_choice(uct_scores(*counts, node.visits, play.settings.exploration), draws)]


async def _goes_on(play: TreePlay, node: TreeNode) -> bool:
    """Expand a leaf of the tree; whether the iteration goes on below it.

    Without a value every iteration goes down until an episode has ended; with one it ends at the first new states.
    """
    made = await play.expand([(node, play.settings.children)])
    await judge_states(play, made)
    # A state without room to act has ended itself.
    for new in made or [node]:
        add_up(play, new)
    return bool(made) and play.settings.value == "none" and all(new.stop is None for new in made)


async def _puct(play: TreePlay) -> None:
    draws = random.Random(f"{play.settings.seed}/{play.tree.key}")
    bounds: tuple[float, float] | None = None
    for _ in range(play.settings.simulations):
        node = _puct_leaf(play, bounds, draws)
        if node.closed or play.spent:
            return
        made = await play.expand([(node, play.settings.children)])
        await judge_states(play, made)
        for new in made or [node] * (node.stop is not None):
            # Children begin with one visit: nothing below them has been tried yet.
            new.visits, new.total = 1, play.worth(new) or 0.0
            bounds = widened(bounds, new.total)
        for above in reversed(play.tree.path(node.number)):
            if below := _children(play, above):
                worth = discounted_average(
                    [child.value for child in below], [child.visits for child in below], discount=play.settings.discount
                )
                above.visits += 1
                above.total = worth * above.visits
                bounds = widened(bounds, worth)


def _puct_leaf(play: TreePlay, bounds: tuple[float, float] | None, draws: random.Random) -> TreeNode:
    """The node that the scores lead to: one to be expanded, or one where an episode has ended."""
    node = play.tree.root
    while node.children and not node.closed:
        below = _children(play, node)
        if not play.settings.stop_at_end:
            below = [child for child in below if not child.closed]
        values = [normalised_value(child.value, bounds) for child in below]
        node = below[best_choice(puct_scores(values, [child.visits for child in below], node.visits), draws)]
    return node


async def _beam(play: TreePlay) -> None:
    frontier = [play.tree.root]
    while frontier and not play.spent:
        made = await play.expand([(node, play.settings.children) for node in frontier])
        await judge_states(play, made)
        ranked = sorted(made, key=lambda node: -rank(play, node))  # stable: the earlier one of equals first
        for node in made:
            if node.stop is not None:
                add_up(play, node)
        for node in ranked[play.settings.simulations :]:
            play.grounds.forget(node.number)
        frontier = [node for node in ranked[: play.settings.simulations] if node.stop is None]


async def _best_of_n(play: TreePlay) -> None:
    root, count = play.tree.root, play.settings.simulations
    if play.settings.max_tokens or play.settings.max_env_calls:
        # One after the other: a budget that ends all of them in the middle would buy no episode at all.
        for index in range(count):
            for node in await play.expand([(root, 1)], distinct=False, again=index + 1 < count):
                await play.finish_path(node)
            if play.spent:
                break
    else:
        frontier = await play.expand([(root, count)], distinct=False)
        while frontier := [node for node in frontier if node.stop is None]:
            frontier = await play.expand([(node, 1) for node in frontier])
    await judge_states(play, play.tree.leaves())
    for node in play.tree.leaves():
        add_up(play, node)


async def _lookahead(play: TreePlay) -> None:
    node = play.tree.root
    while node.stop is None and not play.spent:
        made = await play.expand([(node, play.settings.children)])
        await judge_states(play, made)
        if not made:
            break
        node = max(made, key=lambda child: rank(play, child))
        for other in made:
            if other is not node:
                play.grounds.forget(other.number)
    add_up(play, node)
    play.tree.chosen = node.number


_RULES: dict[str, Callable[[TreePlay], Awaitable[None]]] = {
    "uct": _uct,
    "puct": _puct,
    "beam": _beam,
    "best_of_n": _best_of_n,
    "lookahead": _lookahead,
}


def rank(play: TreePlay, node: TreeNode) -> float:
    """What states are compared by: their worth, or the mean log-probability of the actions where no value is asked."""
    if play.settings.value == "none":
        # Per action: the paths of one comparison may differ in length.
        return play.likelihood(node) / max(1, node.depth)
    worth = play.worth(node)
    return -math.inf if worth is None else worth


async def decide(play: TreePlay) -> None:
    """Set the path that the search stands for; every tree has one that has ended, if need be by its budget.

    Where rewards may be seen it is the best leaf by them. Else uct follows the most visits and puct the highest value,
    the policy plays the path out where it stops in the middle, and beam and best_of_n take the best rank.
    """
    tree, leaves = play.tree, play.tree.leaves()
    if tree.root.stop is not None:
        tree.chosen = 0
        return
    if play.sees_verdict and leaves:
        tree.chosen = max(leaves, key=lambda node: node.score or 0.0).number
    elif tree.chosen is None and play.settings.rule in ("uct", "puct"):
        by_visits = play.settings.rule == "uct"
        worth = [float(node.visits) if by_visits else node.value for node in tree.nodes]
        node = tree.nodes[followed_path([node.children for node in tree.nodes], worth)[-1]]
        tree.chosen = (await play.finish_path(node)).number
    elif tree.chosen is None:
        tree.chosen = max(leaves or tree.nodes, key=lambda node: (rank(play, node), -node.number)).number
    if play.sees_verdict and leaves:
        return
    chosen = tree.nodes[tree.chosen]
    if chosen.stop is None:
        play.cut_off(chosen)


def _children(play: TreePlay, node: TreeNode) -> Sequence[TreeNode]:
    return [play.tree.nodes[child] for child in node.children]
