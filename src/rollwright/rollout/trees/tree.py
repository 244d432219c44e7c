"""A search tree over one episode's start: its nodes, its paths, and its paths as trajectories with parents.

A node is a state, named by the action that led there. Whatever the search did, the tree is handed on as ordinary
trajectories: there is no second store. Sources: arXiv:2501.11223 (the structure of reasoning trees) and
arXiv:2501.11425 (trees over an environment).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from rollwright.contracts import Branch, Origin, StopReason, Task, Trajectory, Turn, WorldMark

StateAsk = tuple[Task, tuple[Turn, ...], tuple[int, ...]]
"""A state to be valued: the task, the turns that led there, and the prompt that the policy would be given there."""


class StateValue(Protocol):
    """What a state is worth, on the scale of the episode's return, told without knowing how the episode will end."""

    def __call__(self, task: Task, turns: tuple[Turn, ...], prompt_ids: tuple[int, ...]) -> float | Awaitable[float]:
        """The worth of the state after these turns. `prompt_ids` is empty where no prompt fits the context any more."""
        ...


@runtime_checkable
class BatchedStateValue(StateValue, Protocol):
    """A `StateValue` that takes all new states of an expansion at once."""

    def values(self, states: Sequence[StateAsk]) -> Sequence[float] | Awaitable[Sequence[float]]:
        """One number per state, in their order."""
        ...


@dataclass(slots=True, kw_only=True)
class TreeNode:
    """One state of a tree.

    `turn` is the action that led here, None at the root. `total` is the sum of the values that were backed up, and
    `estimate` what a value model or simulations said when the node was made. `prior` is the log-probability of the
    action. `stop` is set where the episode ended, with its verdict (`success`) and the undiscounted return of
    the path (`score`). A node is `closed` where it has ended, or where all of its children are closed.
    """

    number: int
    parent: int | None = None
    # A list of its own for every node: one shared by mistake would merge the children of all nodes.
    children: list[int] = field(default_factory=list)
    depth: int = 0
    turn: Turn | None = None
    visits: int = 0
    total: float = 0.0
    prior: float = 0.0
    estimate: float | None = None
    stop: StopReason | None = None
    success: bool | None = None
    score: float | None = None
    closed: bool = False
    state_key: str = ""
    next_prompt_ids: tuple[int, ...] = ()
    """The prompt behind the last action of a path that ended, where somebody reads it."""
    fault: str = ""

    @property
    def value(self) -> float:
        """Mean of what was backed up; 0 without a visit."""
        return self.total / self.visits if self.visits else 0.0


@dataclass(slots=True, kw_only=True)
class SearchTree:
    """All that was tried from one start state.

    `tokens` are sampled tokens, those of answers that were dropped as duplicates included. `env_calls` counts calls of
    `reset` and `step` that led somewhere new, `replayed_calls` those that only repeated a path (worlds without exact
    snapshots, simulations' ways back). `faults` counts children that a fault took, `duplicates` answers that said the
    same action as a sibling.
    """

    key: str
    task: Task
    seed: int
    nodes: list[TreeNode] = field(default_factory=lambda: [TreeNode(number=0)])
    tokens: int = 0
    env_calls: int = 0
    replayed_calls: int = 0
    faults: int = 0
    duplicates: int = 0
    chosen: int | None = None
    """The leaf that the search decided for; None where it only built data."""
    policy: str = ""
    origin: Origin = "policy"
    world: WorldMark | None = None
    temperature: float = 1.0
    wall_s: float = 0.0

    @property
    def root(self) -> TreeNode:
        """The start state."""
        return self.nodes[0]

    def add(self, parent: int, turn: Turn | None = None, *, prior: float = 0.0, state_key: str = "") -> TreeNode:
        """A new child at the end of the parent's children."""
        above = self.nodes[parent]
        node = TreeNode(
            number=len(self.nodes), parent=parent, depth=above.depth + 1, turn=turn, prior=prior, state_key=state_key
        )
        self.nodes.append(node)
        above.children.append(node.number)
        # A sibling that ended before this one was made may have closed what is above.
        for higher in self.path(parent):
            higher.closed = False
        return node

    def end(self, node: TreeNode, stop: StopReason, *, success: bool | None = None, fault: str = "") -> None:
        """The episode ends at this node; nodes above whose children are now all closed are closed too."""
        node.stop, node.success, node.fault = stop, success, fault
        # A fault has no score: it says nothing about the actions that led there.
        node.score = None if stop.is_fault else sum_of_rewards(self.turns(node.number))
        self.close(node)

    def close(self, node: TreeNode) -> None:
        """Nothing is left to be tried below this node."""
        node.closed = True
        for above in reversed(self.path(node.number)[:-1]):
            if not all(self.nodes[child].closed for child in above.children):
                return
            above.closed = True

    def path(self, number: int) -> list[TreeNode]:
        """The nodes from the root to this one, both included."""
        found: list[TreeNode] = []
        at: int | None = number
        while at is not None:
            found.append(self.nodes[at])
            at = self.nodes[at].parent
        return found[::-1]

    def turns(self, number: int) -> tuple[Turn, ...]:
        """The turns that lead to this node."""
        return tuple(node.turn for node in self.path(number) if node.turn is not None)

    def leaves(self) -> list[TreeNode]:
        """The nodes where an episode ended, by the task or by a limit, in the order in which they were made."""
        return [node for node in self.nodes if node.stop is not None and not node.stop.is_fault]

    def on_ended_paths(self) -> list[TreeNode]:
        """The nodes of all paths that ended, each once."""
        numbers = {node.number for leaf in self.leaves() for node in self.path(leaf.number)}
        return [self.nodes[number] for number in sorted(numbers)]

    def shared_prefix(self, i: int, j: int) -> int:
        """Number of turns that the paths to two nodes have in common."""
        pairs = zip(self.path(i), self.path(j), strict=False)
        # The root is shared always and is no turn.
        return sum(one.number == other.number for one, other in pairs) - 1

    def trajectory(self, number: int) -> Trajectory:
        """The path to this node as an episode of its own, without a parent; its id is `key/number`."""
        node, turns = self.nodes[number], self.turns(number)
        # A path that nothing ended was left by the search: as if a limit of turns had cut it.
        stop = node.stop or StopReason.MAX_TURNS
        return Trajectory(
            id=f"{self.key}/{number}",
            task=self.task,
            seed=self.seed,
            turns=turns,
            stop_reason=stop,
            success=node.success,
            origin=self.origin,
            policy=self.policy,
            version=min((turn.version for turn in turns), default=-1),
            world=self.world,
            temperature=self.temperature,
            fault=node.fault,
            wall_s=self.wall_s,
            # A task that is over has no next state to bootstrap from.
            next_prompt_ids=node.next_prompt_ids if stop.is_truncation else (),
        )

    def trajectories(self) -> list[Trajectory]:
        """Every path that ended, as an episode. The first has the tree's key as its id; each later one is a branch.

        A branch names, of the episodes before it, the first one that it shares most turns with. Where nothing ended
        but in a fault, the fault is the one episode.
        """
        ended = self.leaves() or [node for node in self.nodes if node.stop is not None][:1]
        found: list[Trajectory] = []
        for index, node in enumerate(ended):
            made = self.trajectory(node.number)
            if index:
                parent, shared = self._parent(index, ended, found)
                found.append(replace(made, branch=Branch(parent=parent, turn=shared)))
            else:
                found.append(replace(made, id=self.key))
        return found

    def _parent(self, index: int, ended: Sequence[TreeNode], found: Sequence[Trajectory]) -> tuple[str, int]:
        number = ended[index].number
        shared = [self.shared_prefix(other.number, number) for other in ended[:index]]
        most = max(shared)
        return found[shared.index(most)].id, most


def sum_of_rewards(turns: Sequence[Turn]) -> float:
    """Undiscounted return of these turns, rounded once."""
    return math.fsum(turn.reward for turn in turns)
