"""ILQL and Monte-Carlo Q with a table in place of the network, on walks through the maze that have to be joined.

A table can hold any Q, so what is tested is everything but the network: the data, the chains of tokens, targets and
losses. The optimum is -6.84; the walks' own policy is near -72 (as LMRL-Gym's BC, -72.1), and no walk from an arm of
the double T reaches the goal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from rollwright.batching.packing import Segment
from rollwright.contracts.environment import as_observation
from rollwright.contracts.record import StopReason, Task, Trajectory, Turn
from rollwright.critics.critic_targets import ColumnLoss, Columns
from rollwright.critics.token_q import implicit_loss, implicit_targets, token_q_loss
from rollwright.critics.token_steps import TokenSteps, token_steps
from rollwright.envs.text import maze
from rollwright.store.replay import TurnTable, valid_turns
from rollwright.store.trajectory_store import TrajectoryStore

MOVE, STOP, FIRST_CELL = 0, 5, 10  # ids: "move", four directions, the stop token, then the cells
MOVES = list(maze.MOVES)
WORLD = maze.build(wording="compact", teacher_optimal_frac=0.15, teacher_stays=True)
CELLS = [*WORLD.layout.starts, WORLD.layout.goal]
GAMMA = 0.99


def prompt_of(cell: maze.Cell) -> tuple[int, ...]:
    return (FIRST_CELL + CELLS.index(cell),)


def action_ids(move: str) -> tuple[int, ...]:
    return (MOVE, 1 + MOVES.index(move), STOP)


def walk(task: Task, seed: int, max_turns: int) -> Trajectory:
    env, teacher = WORLD.make(), WORLD.teacher(task)
    observation, turns = as_observation(env.reset(task, seed)), []
    while len(turns) < max_turns:
        cell, move = env.cell, teacher.act(env, observation)
        result = env.step(move)
        ids = {"prompt_ids": prompt_of(cell), "action_ids": action_ids(move), "action_logprobs": (-1.0,) * 3}
        turns.append(Turn(**ids, text=move, rewards=result.rewards))
        if result.terminated:
            break
    ended = {"stop_reason": StopReason.TERMINATED}
    cut = {"stop_reason": StopReason.MAX_TURNS, "next_prompt_ids": prompt_of(env.cell)}
    end = ended if result.terminated else cut
    return Trajectory(id=f"{task.id}/{seed}", task=task, seed=seed, turns=tuple(turns), **end)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> TokenSteps:
    """Every walk of the store as one batch."""
    store = TrajectoryStore(tmp_path_factory.mktemp("walks") / "store")
    store.append([walk(task, seed, 40) for task in WORLD.tasks("train") for seed in range(5)])
    table = TurnTable(store)
    return token_steps(table, valid_turns(table))


class TableCritic:
    """Q of every token in every state (prompt and tokens so far), and V of the state; the slow copy is this one."""

    def __init__(self, steps: TokenSteps) -> None:
        self.rows: dict[tuple[int, ...], int] = {}
        # `readings` begins with `segments`, so one list of places serves both.
        self.states, self.tokens = self._places(steps.readings)
        # From below, where an expectile regression is quick.
        self.q = torch.full((len(self.rows), FIRST_CELL + len(CELLS)), -12.0, requires_grad=True)
        self.v = torch.full((len(self.rows),), -12.0, requires_grad=True)
        num, one = len(steps.rewards), torch.tensor(1.0)
        self.seen = torch.zeros(self.q.shape).index_put((self.states[:num], self.tokens[:num]), one, accumulate=True)

    def _places(self, segments: Sequence[Segment]) -> tuple[Tensor, Tensor]:
        pairs = [
            (self.rows.setdefault((*segment.prompt_ids, *segment.action_ids[:at]), len(self.rows)), token)
            for segment in segments
            for at, token in enumerate(segment.action_ids)
        ]
        states, tokens = torch.tensor(pairs).T
        return states, tokens

    def values(self, num: int) -> dict[str, Tensor]:
        states, tokens = self.states[:num], self.tokens[:num]
        q = self.q[states, tokens][None]
        return {"q": q, "v": self.v[states][None], "cql": torch.zeros_like(q)}

    @torch.no_grad()
    def read_tokens(self, segments: Sequence[Segment], *, slow: bool = False) -> dict[str, Tensor]:
        return self.values(sum(len(segment.action_ids) for segment in segments))

    def update(self, num: int, targets: Columns, loss: ColumnLoss) -> None:
        """One gradient step on the sum, in units of how often each entry was seen: Q lands on its mean target."""
        loss(self.values(num), targets).sum().backward()
        with torch.no_grad():
            for entries, counts in ((self.q, self.seen), (self.v, self.seen.sum(dim=1))):
                if entries.grad is not None:
                    entries -= entries.grad / counts.clamp(min=1)
                    entries.grad = None


def moves_of(critic: TableCritic, beta: float) -> np.ndarray:
    """[25, 4] how often each move is made at each start by softmax(log pi + beta Q), pi as frequent as in the walks."""
    # What was never said stays impossible.
    probabilities = (critic.seen.log() + beta * critic.q.detach()).softmax(dim=-1)
    rows = [critic.rows[(*prompt_of(cell), MOVE)] for cell in WORLD.layout.starts]
    return probabilities[rows, 1:5].numpy()


def expected_return(moves: np.ndarray) -> float:
    """The exact mean over the 25 starts of the return within 100 moves."""
    follows = np.zeros((len(CELLS), 4), np.int64)
    for at, cell in enumerate(CELLS[:-1]):
        targets = [(cell[0] + r, cell[1] + c) for r, c in maze.MOVES.values()]
        follows[at] = [CELLS.index(t) if WORLD.layout.is_free(t) else at for t in targets]
    goal = len(CELLS) - 1
    values = np.full(len(CELLS), -1.0)  # a walk that is cut pays one more
    values[goal] = 0.0
    for _ in range(100):
        after = np.where(follows == goal, 0.0, values[follows] - 1.0)
        values[:goal] = (moves * after[:goal]).sum(axis=1)
    return float(values[:goal].mean())


@pytest.fixture(scope="module")
def implicit(steps: TokenSteps) -> TableCritic:
    critic, num = TableCritic(steps), len(steps.rewards)
    for _ in range(200):
        targets = implicit_targets(critic, steps, gamma=GAMMA)
        critic.update(num, targets, partial(implicit_loss, cql_weight=0.0, expectile=0.95))
    return critic


def monte_carlo(steps: TokenSteps, updates: int = 3) -> TableCritic:
    critic, num = TableCritic(steps), len(steps.rewards)
    for _ in range(updates):
        targets = {"q": steps.returns(GAMMA), "weights": steps.weights}
        critic.update(num, targets, partial(token_q_loss, cql_weight=0.0))
    return critic


def test_no_walk_from_an_arm_reaches_the_goal(steps: TokenSteps) -> None:
    owners = steps.index[::3].tolist()  # one per turn
    firsts = {owner: steps.segments[owners.index(owner)] for owner in set(owners)}
    ended = [CELLS[firsts[s].prompt_ids[0] - FIRST_CELL] for s, end in enumerate(steps.ends) if end is None]
    assert ended and set(ended) <= WORLD.layout.parts[0]


def test_ilql_joins_the_walks_and_monte_carlo_does_not(steps: TokenSteps, implicit: TableCritic) -> None:
    """LMRL-Gym's ordering on the maze: ILQL -6.97, MC -48.1, BC -72.1 there."""
    returns = monte_carlo(steps)
    behaviour = expected_return(moves_of(implicit, beta=0.0))
    stitched, not_stitched = (expected_return(moves_of(critic, beta=16.0)) for critic in (implicit, returns))
    assert -82 < behaviour < -60
    assert stitched >= -7.0, f"{stitched:.2f}; the optimum is -6.84"
    assert not_stitched < -40, f"{not_stitched:.2f}: no walk's return says how to leave an arm"
