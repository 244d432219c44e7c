"""What is learned from a tree: which paths, which states with which targets, which pairs."""

from __future__ import annotations

import pytest
import torch

from rollwright.contracts import StopReason, Task
from rollwright.methods.tree_lessons import (
    end_rows,
    paths_to_imitate,
    shortest_success,
    step_pairs,
    tree_group,
    value_rows,
)
from rollwright.rollout.trees import SearchTree, TreeNode
from tests import builders

TASK = Task(id="t", split="train")
ENDED, CUT, BROKEN = StopReason.TERMINATED, StopReason.MAX_TURNS, StopReason.ENV_ERROR


class Grown:
    """A tree by hand: the prompt of a state is its own name, so that rows can be told apart."""

    def __init__(self) -> None:
        self.tree = SearchTree(key="tree", task=TASK, seed=3)

    def add(self, parent: int, *, prompt: int, **fields: object) -> TreeNode:
        node = self.tree.add(parent, builders.turn((prompt,), (100 + len(self.tree.nodes),), fields.pop("paid", 0.0)))  # type: ignore[arg-type]
        for name, value in fields.items():
            setattr(node, name, value)
        return node

    def end(self, parent: int, *, prompt: int, success: bool | None, stop: StopReason = ENDED) -> TreeNode:
        node = self.add(parent, prompt=prompt, paid=float(bool(success)))
        node.next_prompt_ids = (90 + bool(success),) if stop is ENDED else ()
        self.tree.end(node, stop, success=success)
        return node


def grown() -> SearchTree:
    """root(1) -> a(2) -> (win, c(4) -> (win, loss)); root -> b(3) -> (loss, cut); root -> d(5) -> fault."""
    made = Grown()
    a = made.add(0, prompt=1, visits=4, total=3.0)
    b = made.add(0, prompt=1, visits=2, total=0.5)
    d = made.add(0, prompt=1, visits=1, total=0.0)
    c = made.add(a.number, prompt=2, visits=2, total=1.0)
    made.end(a.number, prompt=2, success=True)
    made.end(c.number, prompt=4, success=True)
    made.end(c.number, prompt=4, success=False)
    made.end(b.number, prompt=3, success=False)
    made.end(b.number, prompt=3, success=None, stop=CUT)
    made.end(d.number, prompt=5, success=None, stop=BROKEN)
    made.tree.root.visits, made.tree.root.total = 8, 5.0
    return made.tree


def told(tree: SearchTree, by: str) -> dict[tuple[int, ...], tuple[float, float]]:
    rows = value_rows([tree], by)  # type: ignore[arg-type]
    pairs = zip(rows.states, rows.targets.tolist(), rows.counts.tolist(), strict=True)
    return {state: (round(target, 5), count) for state, target, count in pairs if state[0] < 90}


def test_a_state_is_worth_the_share_of_ends_below_it_that_succeeded() -> None:
    # The root has 4 judged ends, 2 of them won; c's are one of each. Below d only a fault: no target.
    assert told(grown(), "ends") == {(1,): (0.0, 4), (2,): (0.33333, 3), (3,): (-1.0, 1), (4,): (0.0, 2)}


def test_or_what_the_search_backed_up() -> None:
    assert told(grown(), "search") == {(1,): (0.25, 8), (2,): (0.5, 4), (3,): (-0.5, 2), (4,): (0.0, 2)}
    with pytest.raises(ValueError, match="by"):
        value_rows([grown()], "luck")  # type: ignore[arg-type]


def test_ended_states_are_told_their_verdict() -> None:
    """Two won and two lost; what a limit cut has no verdict, and a fault says nothing."""
    for rows in (value_rows([grown()]), value_rows([grown()], "search"), end_rows([grown()])):
        ended = [(*s, t) for s, t in zip(rows.states, rows.targets.tolist(), strict=True) if s[0] >= 90]
        assert ended == [(91, 1.0), (91, 1.0), (90, -1.0), (90, -1.0)]
    assert len(end_rows([grown()]).states) == 4


def test_the_shortest_success_is_imitated() -> None:
    tree = grown()
    best = shortest_success(tree)
    assert best is not None and best.depth == 2
    (group,) = paths_to_imitate([tree, Grown().tree])
    (path,) = group.trajectories
    assert [turn.prompt_ids for turn in path.turns] == [(1,), (2,)] and path.success and path.branch is None


def test_pairs_of_steps_from_one_state() -> None:
    """a (1/3) is better than b (-1) and d has no target; a's win is better than c (0); c's win better than its loss."""
    assert step_pairs([grown()]) == ([(2,), (91,), (91,)], [(3,), (4,), (90,)])
    assert step_pairs([grown()], margin=1.0) == ([(2,), (91,)], [(3,), (90,)])


def test_equal_states_are_no_pair() -> None:
    made = Grown()
    for success in (True, False):
        step = made.add(0, prompt=1)
        made.end(step.number, prompt=2, success=success)
    assert step_pairs([made.tree]) == ([], [])


def test_the_paths_are_siblings_of_one_start() -> None:
    group = tree_group(grown())
    assert (group.id, group.seed, len(group.trajectories)) == ("tree", 3, 5)
    assert group.trajectories[0].branch is None
    assert all(path.branch is not None for path in group.trajectories[1:])
    assert torch.tensor([path.total_reward for path in group.trajectories]).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
