"""What a search tree teaches: paths to imitate, values of its states, pairs of a better and a worse step.

Values lie in [-1, 1]: -1 is a sure failure, 1 a sure success. Sources: arXiv:2501.11223 and its released framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rollwright.batching import TokenBatch, with_members
from rollwright.contracts import ConfigError, Group, require_choice
from rollwright.critics import StepValue, ValueRows
from rollwright.maths import TerminalShare, ranking_accuracy, terminal_shares
from rollwright.maths.advantages import ValueAdvantages, turn_gae
from rollwright.rollout.trees import SearchTree, TreeNode

Ids = tuple[int, ...]
TargetBy = Literal["ends", "search"]
_EQUAL = 1e-6
"""How far a return may be from 0 or 1 by rounding."""


def tree_group(tree: SearchTree) -> Group:
    """The paths of a tree that ended, as siblings: the form in which rewards are asked and episodes are stored."""
    return Group(id=tree.key, task=tree.task, seed=tree.seed, trajectories=tuple(tree.trajectories()))


def shares_of(tree: SearchTree) -> list[TerminalShare | None]:
    """For each node what the judged ends below it say; None where there are none."""
    return terminal_shares([node.parent for node in tree.nodes], [_outcome(node) for node in tree.nodes])


def _outcome(node: TreeNode) -> bool | None:
    # A fault says nothing, and a path that the search left has no verdict.
    return node.success if node.stop is not None and not node.stop.is_fault else None


def state_ids(tree: SearchTree, node: TreeNode) -> Ids | None:
    """The prompt of a node: what the policy was given there, or would have been given where the path had ended.

    None where nobody was asked, or where no prompt fits the context any more.
    """
    # All children of a node were sampled from one prompt.
    turn = tree.nodes[node.children[0]].turn if node.children else None
    return turn.prompt_ids if turn is not None else node.next_prompt_ids or None


def value_rows(trees: Sequence[SearchTree], by: TargetBy = "ends") -> ValueRows:
    """What a value model is told of the states of these trees.

    A state below which nothing ended with a verdict has no target. A state in which a path ended is told its verdict:
    where a search may not see verdicts, it asks the model about these states too.

    Args:
        by: "ends" is the share of the ends below a state that succeeded, counted by their number; "search" is the mean
            of what the search backed up, counted by visits, for worlds that pay 1 for success and nothing else.
    """
    require_choice("by", by, TargetBy)
    found: list[tuple[Ids, float, float]] = []
    for tree in trees:
        for node, share in zip(tree.nodes, shares_of(tree), strict=True):
            state = state_ids(tree, node)
            if share is None or state is None:
                continue
            if by == "ends" or node.stop is not None:
                found.append((state, share.value, float(share.count)))
            else:
                found.append((state, _signed(node.value), float(max(1, node.visits))))
    return _rows(found)


def end_rows(trees: Sequence[SearchTree]) -> ValueRows:
    """The states in which the paths of these trees ended, with their verdicts as targets."""
    ended = [(tree, node) for tree in trees for node in tree.leaves() if node.success is not None]
    states = [(state_ids(tree, node), 1.0 if node.success else -1.0, 1.0) for tree, node in ended]
    return _rows([(state, target, count) for state, target, count in states if state is not None])


def _rows(found: Sequence[tuple[Ids, float, float]]) -> ValueRows:
    return ValueRows(
        states=[state for state, *_ in found],
        targets=torch.tensor([target for _, target, _ in found]),
        counts=torch.tensor([count for *_, count in found]),
    )


def _signed(chance: float) -> float:
    """A return between 0 and 1 as a value; rounding must not leave [-1, 1]."""
    return min(1.0, max(-1.0, 2.0 * chance - 1.0))


def shortest_success(tree: SearchTree) -> TreeNode | None:
    """The successful end with the fewest turns, the earlier one of equals; None where nothing succeeded."""
    won = [node for node in tree.leaves() if node.success]
    return min(won, key=lambda node: (node.depth, node.number), default=None)


def paths_to_imitate(trees: Sequence[SearchTree]) -> list[Group]:
    """The shortest successful path of each tree that has one: one lesson per task, however easy it was."""
    found = [(tree, node) for tree in trees if (node := shortest_success(tree)) is not None]
    return [
        Group(id=tree.key, task=tree.task, seed=tree.seed, trajectories=(tree.trajectory(node.number),))
        for tree, node in found
    ]


def step_pairs(trees: Sequence[SearchTree], *, margin: float = 0.0) -> tuple[list[Ids], list[Ids]]:
    """States that a better and a worse step led to, side by side: steps from one state, judged by the ends below them.

    Args:
        margin: the better step's share of success (in [-1, 1]) is above the other's by more than this.
    """
    better: list[Ids] = []
    worse: list[Ids] = []
    for tree in trees:
        shares = shares_of(tree)
        for node in tree.nodes:
            known = [
                (share.value, state)
                for child in node.children
                if (share := shares[child]) is not None and (state := state_ids(tree, tree.nodes[child])) is not None
            ]
            for high, one in known:
                for low, other in known:
                    # The same state twice cannot be ranked: the world did not answer the two steps differently.
                    if high - low > margin and one != other:
                        better.append(one)
                        worse.append(other)
    return better, worse


def ranked_pairs(value: StepValue, trees: Sequence[SearchTree]) -> dict[str, float]:
    """How well the model ranks steps of trees that it was not yet fitted to; nothing where it was never fitted."""
    better, worse = step_pairs(trees) if value.fitted else ([], [])
    found = ranking_accuracy(value.read(better), value.read(worse)) if better else None
    return {} if found is None else {"reasoner/ranked_frac": found, "reasoner/pairs_count": float(len(better))}


def with_verdict(groups: Sequence[Group]) -> list[Group]:
    """The groups with those episodes alone whose success is known: a path that the search cut says nothing."""
    kept = [g.with_trajectories([t for t in g.trajectories if t.success is not None]) for g in groups]
    return with_members(kept, 1)


def path_credit(batch: TokenBatch, values: Tensor, *, gamma: float, gae_lambda: float) -> ValueAdvantages:
    """GAE over the steps of judged paths, 1 for a success and -1 for a failure at the end; all tokens of a step alike.

    Args:
        values: [U] of the state before each turn.

    Returns:
        [N] each; the returns are A + V, what the value model is fitted to.
    """
    earned = torch.tensor([1.0 if trajectory.success else -1.0 for trajectory in batch.trajectories])
    rewards = torch.zeros(len(batch)).index_copy(0, batch.lengths.cumsum(0) - 1, earned)
    tokens = values[batch.turn_index]
    return turn_gae(rewards, tokens, batch.turn_index, batch.trajectory_index, gamma=gamma, gae_lambda=gae_lambda)


def return_rows(batch: TokenBatch, returns: Tensor) -> ValueRows:
    """The states before the turns of a batch, with their returns ([N], equal within a turn) as targets."""
    # GAE with a value that errs may leave [-1, 1].
    targets = returns[batch.tokens_per_turn.cumsum(0) - 1].clamp(-1, 1)
    states = [turn.prompt_ids for turn in batch.turns]
    return ValueRows(states=states, targets=targets, counts=torch.ones(len(states)))


def require_success_alone_pays(trees: Sequence[SearchTree]) -> None:
    """Raises ConfigError where a path earned something else than its success: it would not compare with a chance."""
    for tree in trees:
        for node in tree.leaves():
            if node.success is not None and node.score is not None and abs(node.score - float(node.success)) > _EQUAL:
                raise ConfigError(
                    f"an episode of task {tree.task.id!r} ended with success {node.success} and earned {node.score:g}, "
                    "and the search compares returns with the value model's chance of success: use a world that pays 1 "
                    "for success and nothing else, such as text.household or text.combination_lock"
                )
