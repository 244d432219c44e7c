"""Two baselines of LMRL-Gym (arXiv:2311.18232) against what they reduce to.

PPO with a KL inside the reward: a weight of 0 leaves rewards untouched, any other takes its share of each token's KL
off them.
Filtered imitation on the maze: it helps, and it joins no walks; mean returns are exact, by dynamic programming.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rollwright.batching import TokenBatch
from rollwright.contracts.environment import as_observation, episode_seed
from rollwright.contracts.record import Group, StopReason, Task, Trajectory, Turn
from rollwright.envs.text import maze
from rollwright.maths.losses import kl_shaped_rewards
from rollwright.recipes import filtered_bc, ppo
from rollwright.store.replay import TurnTable
from tests import builders

TASK = Task(id="t", split="train")
FIRST = 5  # the id that says state 0


def turn(state: int, action: tuple[int, ...], reward: float) -> Turn:
    return builders.turn((FIRST + state,), action, reward)


def stored(folder: Path, episodes: Sequence[Trajectory]) -> TurnTable:
    return builders.table_of(folder / "store", *episodes)


# --- a KL inside the reward -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["k1", "k2", "k3", "abs"])
def test_a_kl_of_weight_zero_leaves_rewards_untouched(kind: Any) -> None:
    torch.manual_seed(0)
    rewards, logprobs, reference = torch.randn(8), -3 * torch.rand(8), -3 * torch.rand(8)
    assert torch.equal(kl_shaped_rewards(rewards, logprobs, reference, kl_coef=0.0, kind=kind), rewards)
    assert not torch.equal(kl_shaped_rewards(rewards, logprobs, reference, kl_coef=0.1, kind=kind), rewards)


class Episodes:
    """A run that has played one episode, for a recipe that trains on it: what it was told is kept."""

    def __init__(self, group: Group, old: float, reference: float) -> None:
        self.group, self.trained, self.asked = group, None, 0  # type: tuple[Group, TokenBatch | None, int]
        self.learner = SimpleNamespace(
            values=lambda batch: torch.zeros(len(batch)),
            logprobs=lambda batch: torch.full((len(batch),), old),
            reference_logprobs=lambda batch: self.refer(batch, reference),
        )
        self.learning = nullcontext

    def refer(self, batch: TokenBatch, logprob: float) -> Tensor:
        self.asked += 1
        return torch.full((len(batch),), logprob)

    @contextmanager
    def start(self, config: Any, *, reference: bool, critic: Any) -> Iterator[Episodes]:
        self.with_reference = reference
        yield self

    def steps(self) -> Iterator[int]:
        yield 0

    def collect(self, step: int) -> list[Group]:
        return [self.group]

    def score(self, groups: list[Group]) -> list[Group]:
        return groups

    def update(self, batch: TokenBatch, objective: Any) -> dict[str, float]:
        self.trained = batch
        return {}

    def sync(self) -> None: ...

    def finish(self, step: int, groups: list[Group], metrics: dict[str, float]) -> None: ...


@pytest.mark.parametrize(("weight", "cost"), [(0.0, 0.0), (0.25, 0.25 * 2.0)])
def test_ppo_trains_on_rewards_less_the_kl_of_each_token(
    weight: float, cost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lambda 1 and V = 0: the advantage is the reward to go. log pi - log pi_ref = 2 on each of the three tokens."""
    turns = (turn(0, (3, 1), 1.0), turn(1, (2,), 5.0))
    episode = Trajectory(id="e", task=TASK, seed=0, turns=turns, stop_reason=StopReason.TERMINATED)
    run = Episodes(Group(id="g", task=TASK, seed=0, trajectories=(episode,)), old=-1.0, reference=-3.0)
    monkeypatch.setattr(ppo, "Training", run)
    monkeypatch.chdir(Path(__file__).parents[2])
    words = ["algorithm.advantage=gae", "algorithm.gae_lambda=1", "algorithm.whiten=false", "model.path=tiny"]
    ppo.main(["recipes/text/maze_ppo.yaml", *words, f"algorithm.kl_in_reward={weight}"])
    assert run.trained is not None and run.trained.returns is not None
    found = run.trained.advantages.tolist()
    assert found == pytest.approx([6.0 - 3 * cost, 6.0 - 2 * cost, 5.0 - cost])
    assert run.trained.returns.tolist() == pytest.approx(found)
    assert (run.with_reference, run.asked) == (weight > 0, int(weight > 0)), "weight 0 loads no reference"


# --- filtered imitation on the maze -----------------------------------------------------------------------------

WORLD = maze.build(wording="compact", teacher_optimal_frac=0.15, teacher_stays=True)
CELLS = [*WORLD.layout.starts, WORLD.layout.goal]
MOVES = list(maze.MOVES)


def strayed(task: Task, number: int) -> Trajectory:
    """A walk of LMRL-Gym's offline data: 15 shortest moves of 100, never out of the part that it began in."""
    env, teacher = WORLD.make(), WORLD.teacher(task)
    observation = as_observation(env.reset(task, episode_seed("train", task.id, number)))
    turns: list[Turn] = []
    over = False
    while len(turns) < 40 and not over:
        cell, move = env.cell, teacher.act(env, observation)
        result = env.step(move)
        turns.append(turn(CELLS.index(cell), (MOVES.index(move),), sum(result.rewards.values())))
        over = result.terminated
    stop = StopReason.TERMINATED if over else StopReason.MAX_TURNS
    return Trajectory(
        id=f"{task.id}/{number}", task=task, seed=number, turns=tuple(turns), stop_reason=stop, success=over
    )


def imitated(table: TurnTable, turns: np.ndarray) -> np.ndarray:
    """[26, 4] how often each move was made in each cell: the minimum of the mean -log pi; uniform where never seen."""
    counts = np.zeros((len(CELLS), 4))
    for one in table.transitions(turns):
        counts[one.prompt_ids[0] - FIRST, one.action_ids[0]] += 1
    counts[counts.sum(axis=1) == 0] = 1
    shares: np.ndarray = counts / counts.sum(axis=1, keepdims=True)
    return shares


def mean_return(moves: np.ndarray) -> float:
    """The exact mean over the 25 starts of the return within 100 moves."""
    goal = len(CELLS) - 1
    follows = np.zeros((len(CELLS), 4), np.int64)
    for at, cell in enumerate(CELLS[:-1]):
        targets = [(cell[0] + r, cell[1] + c) for r, c in maze.MOVES.values()]
        follows[at] = [CELLS.index(to) if WORLD.layout.is_free(to) else at for to in targets]
    values = np.full(len(CELLS), -1.0)
    values[goal] = 0.0
    for _ in range(100):
        after = np.where(follows == goal, 0.0, values[follows] - 1.0)
        values[:goal] = (moves[:goal] * after[:goal]).sum(axis=1)
    return float(values[:goal].mean())


@pytest.mark.parametrize("score", ["return", "success"])
def test_filtering_helps_imitation_and_does_not_join_walks(score: Any, tmp_path: Path) -> None:
    """LMRL-Gym's maze: BC -72.1, filtered BC -56.4 in the paper, and -6.84 for who joins the walks.

    No walk of the outer parts arrives, so none is kept, and what is imitated there is chance.
    """
    table = stored(tmp_path, [strayed(task, number) for task in WORLD.tasks("train") for number in range(20)])
    every = filtered_bc.best(table, filtered_bc.AlgorithmSettings(top_frac=1.0), first=0)
    settings = {"positive_only": True} if score == "success" else {}
    kept = filtered_bc.best(table, filtered_bc.AlgorithmSettings(top_frac=0.1, score=score, **settings), first=0)
    behaviour, filtered = (mean_return(imitated(table, turns)) for turns in (every, kept))
    assert -80 < behaviour < -65 and behaviour + 10 < filtered < -45
    assert {CELLS[one.prompt_ids[0] - FIRST] for one in table.transitions(kept)} <= WORLD.layout.parts[0]
