"""ILQL and Monte-Carlo Q over tokens against values that are known exactly.

The formulas are those of arXiv:2206.11871 (ILQL) and arXiv:2311.18232 (LMRL-Gym): tau 0.5 without conservatism is
SARSA, gamma 0 leaves the immediate reward, luck is averaged inside Q. A table takes the network's place where a fixed
point is asked for; stores, chains, targets and losses are the recipes'.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from rollwright.batching.packing import Segment
from rollwright.contracts.record import StopReason, Task, Trajectory, Turn
from rollwright.critics.critic_learner import CriticLearner
from rollwright.critics.critic_targets import ColumnLoss, Columns
from rollwright.critics.token_q import implicit_loss, implicit_targets, token_q_loss
from rollwright.critics.token_steps import StoredSteps, TokenSteps, token_steps
from rollwright.critics.vocabulary_critic import VocabularyQSettings, vocabulary_q
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.maths.value_targets import conservative_loss
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.store.replay import TurnTable, valid_turns
from tests import builders

TASK = Task(id="t", split="train")
VOCABULARY = 12
FIRST, SAY, STOP = 5, 3, 4  # ids: the state s is FIRST + s, F is 1, B is 2
FORWARD, BACK = 1, 2
GAMMA = 0.95

Step = tuple[int, int, float]
"""State, action, reward of a turn."""

# CHAIN-3: F moves on, from state 2 to the end, B moves back; -1 a turn, 0 on the one that ends.
NEXT = {(0, FORWARD): 1, (1, FORWARD): 2, (0, BACK): 0, (1, BACK): 0, (2, BACK): 1}


def reward_of(state: int, action: int) -> float:
    return -1.0 if (state, action) in NEXT else 0.0


def turn(state: int, action: tuple[int, ...], reward: float) -> Turn:
    return builders.turn((FIRST + state,), action, reward)


def spelled(action: int, *, long: bool) -> tuple[int, ...]:
    return (SAY, action, STOP) if long else (action,)


def played(name: str, steps: Sequence[Step], end: int | None, *, long: bool = False) -> Trajectory:
    """An episode. `end`: the state in which a limit cut it, None where it ended."""
    return Trajectory(
        id=name,
        task=TASK,
        seed=0,
        turns=tuple(turn(state, spelled(action, long=long), reward) for state, action, reward in steps),
        stop_reason=StopReason.TERMINATED if end is None else StopReason.MAX_TURNS,
        next_prompt_ids=() if end is None else (FIRST + end,),
    )


def stored(folder: Path, episodes: Sequence[Trajectory]) -> TurnTable:
    return builders.table_of(folder / "store", *episodes)


def grouped(folder: Path, episodes: Sequence[Trajectory]) -> TokenSteps:
    """The batch as the recipes draw it: turns that say the same are one segment."""
    table = stored(folder, episodes)
    turns = valid_turns(table)
    return StoredSteps.scan(table, turns).steps(turns)


def every_step_once() -> list[Trajectory]:
    """The chain's six steps, each an episode of its own: both actions equally often everywhere."""
    pairs = [(state, action) for state in range(3) for action in (FORWARD, BACK)]
    return [played(str(pair), [(*pair, reward_of(*pair))], NEXT.get(pair)) for pair in pairs]


def walks(count: int, p: float, *, long: bool) -> list[Trajectory]:
    """Walks along the chain, a limit of 9 turns, F with probability p and more often in the later states."""
    draws, episodes = random.Random(3), []
    for number in range(count):
        steps: list[Step] = []
        state: int | None = draws.randrange(3)
        while state is not None and len(steps) < 9:
            action = FORWARD if draws.random() < p + 0.1 * state else BACK
            steps.append((state, action, reward_of(state, action)))
            state = NEXT.get((state, action))
        episodes.append(played(str(number), steps, state, long=long))
    return episodes


class Table:
    """Two heads of Q for every token in every state (the prompt and the tokens so far) and V of the state."""

    def __init__(self, steps: TokenSteps, *, heads: tuple[float, ...] = (-4.0, -2.0)) -> None:
        self.rows: dict[tuple[int, ...], int] = {}
        self.segments = steps.segments
        states, tokens = self.places(steps.readings)
        states, tokens = states[: steps.num_entries], tokens[: steps.num_entries]
        self.num = steps.num_entries
        self.q = torch.stack([torch.full((len(self.rows), VOCABULARY), start) for start in heads]).requires_grad_()
        self.v = torch.full((len(self.rows),), -9.0, requires_grad=True)  # from below, where expectiles are quick
        self.slow = self.q.detach().clone()
        mass = torch.zeros(len(self.rows), VOCABULARY)
        self.mass = mass.index_put((states, tokens), steps.weights.float(), accumulate=True)

    def places(self, segments: Sequence[Segment]) -> tuple[Tensor, Tensor]:
        pairs = [
            (self.rows.setdefault((*segment.prompt_ids, *segment.action_ids[:at]), len(self.rows)), token)
            for segment in segments
            for at, token in enumerate(segment.action_ids)
        ]
        states, tokens = torch.tensor(pairs).T
        return states, tokens

    def values(self, q: Tensor, segments: Sequence[Segment]) -> dict[str, Tensor]:
        states, tokens = self.places(segments)
        cql = torch.stack([conservative_loss(head[states], tokens) for head in q])
        return {"q": q[:, states, tokens], "v": self.v[states][None], "cql": cql}

    @torch.no_grad()
    def read_tokens(self, segments: Sequence[Segment], *, slow: bool = False) -> dict[str, Tensor]:
        return self.values(self.slow if slow else self.q, segments)

    def update(self, targets: Columns, loss: ColumnLoss) -> None:
        """A gradient step, every entry in units of how often it was seen; the slow copy follows at once."""
        loss(self.values(self.q, self.segments), targets).sum().backward()
        with torch.no_grad():
            for entries, seen in ((self.q, self.mass), (self.v, self.mass.sum(dim=1))):
                if entries.grad is not None:
                    entries -= entries.grad / torch.where(seen > 0, seen, 1.0)
                    entries.grad = None
            self.slow = self.q.detach().clone()

    def q_of(self, *ids: int) -> list[float]:
        """Both heads' value of the last of these ids after the others."""
        found: list[float] = self.q[:, self.rows[ids[:-1]], ids[-1]].tolist()
        return found

    def v_of(self, *ids: int) -> float:
        return self.v[self.rows[ids]].item()


def ilql(
    steps: TokenSteps, *, expectile: float, gamma: float = GAMMA, cql_weight: float = 0.0, updates: int = 700
) -> Table:
    """What the recipe does at each step, on all the data at once."""
    table = Table(steps)
    for _ in range(updates):
        loss = partial(implicit_loss, cql_weight=cql_weight, expectile=expectile)
        table.update(implicit_targets(table, steps, gamma=gamma), loss)
    return table


# --- fixed points -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expectile", "expected"),
    [
        (0.5, [-7.529148, -6.216426, -3.452802]),
        (0.7, [-4.123816, -2.930118, -1.135084]),
        (0.8, [-3.155316, -2.047113, -0.588952]),
        (0.9, [-2.461629, -1.435993, -0.236419]),
    ],
)
def test_an_expectile_over_two_equal_actions_takes_the_better_one_so_often(
    expectile: float, expected: list[float], tmp_path: Path
) -> None:
    """With tau 0.5 that is SARSA's fixed point, the value of the data's own uniform policy."""
    table = ilql(grouped(tmp_path, every_step_once()), expectile=expectile)
    assert [table.v_of(FIRST + state) for state in range(3)] == pytest.approx(expected, abs=1e-4)
    for state in range(3):
        for action in (FORWARD, BACK):
            after = NEXT.get((state, action))
            wanted = reward_of(state, action) + GAMMA * (0.0 if after is None else expected[after])
            assert table.q_of(FIRST + state, action) == pytest.approx([wanted] * 2, abs=1e-4), "in both heads"


def test_v_is_regressed_on_the_smaller_slow_q(tmp_path: Path) -> None:
    steps = grouped(tmp_path, every_step_once())
    table = Table(steps, heads=(-4.0, -2.0))
    table.slow = torch.stack([torch.full_like(table.slow[0], -1.0), torch.full_like(table.slow[0], -3.0)])
    wanted = implicit_targets(table, steps, gamma=GAMMA)
    assert wanted["v"].tolist() == [-3.0] * steps.num_entries


@pytest.mark.parametrize("long", [False, True])
def test_an_expectile_of_one_half_evaluates_the_data_whatever_they_are(long: bool, tmp_path: Path) -> None:
    """Uneven walks, utterances of one token and of three: V = sum over a of pi(a) gamma^(L-1) (r + gamma V(s'))."""
    episodes = walks(40, 0.4, long=long)
    table = ilql(grouped(tmp_path, episodes), expectile=0.5)
    tokens = 3 if long else 1
    counts = np.zeros((3, 3))
    for episode in episodes:
        for one in episode.turns:
            counts[one.prompt_ids[0] - FIRST, one.action_ids[tokens // 2]] += 1
    matrix, constant = np.eye(3), np.zeros(3)
    for state in range(3):
        for action in (FORWARD, BACK):
            chance = counts[state, action] / counts[state].sum() * GAMMA ** (tokens - 1)
            constant[state] += chance * reward_of(state, action)
            if (state, action) in NEXT:
                matrix[state, NEXT[state, action]] -= chance * GAMMA
    exact = np.linalg.solve(matrix, constant)
    assert [table.v_of(FIRST + state) for state in range(3)] == pytest.approx(exact.tolist(), abs=1e-4)
    assert np.ptp(counts[:, FORWARD] / counts.sum(axis=1)) > 0.1, "a policy that differs from state to state"
    if long:
        inside = GAMMA * (reward_of(1, BACK) + GAMMA * exact[0])
        assert table.q_of(FIRST + 1, SAY, BACK) == pytest.approx([inside] * 2, abs=1e-4)


@pytest.mark.long
def test_conservatism_draws_q_towards_how_often_each_token_was_said(tmp_path: Path) -> None:
    """The gradient is (Q - y) + w (softmax(Q) - onehot(a)): at rest Q = y + w (1 - softmax(Q)_a / pi(a)), pi = 1/2."""
    steps = grouped(tmp_path, every_step_once())
    for weight in (0.0, 0.5):
        table = ilql(steps, expectile=0.5, cql_weight=weight)
        wanted = implicit_targets(table, steps, gamma=GAMMA)["q"]
        states, tokens = table.places(steps.segments)
        with torch.no_grad():
            missing = 1 - 2 * table.q.softmax(dim=-1)[:, states, tokens]
            torch.testing.assert_close(table.q[:, states, tokens] - wanted, weight * missing, rtol=0, atol=1e-3)
            never_said = table.q[:, [table.rows[(FIRST + state,)] for state in range(3)], STOP]
        assert missing.min() < -0.2 and missing.max() > 0.2
        if weight:
            assert (never_said < torch.tensor([[-4.5], [-2.5]])).all(), "what was never said is pushed down"
        else:
            assert torch.equal(never_said, torch.tensor([[-4.0] * 3, [-2.0] * 3])), "left where it was"


@pytest.mark.parametrize("method", ["ilql", "mc"])
def test_without_a_future_q_is_the_mean_reward_of_the_token(method: str, tmp_path: Path) -> None:
    """gamma 0: 2, 3 and 7 for one utterance, -1 for another; the tokens before the last one earn nothing."""
    episodes = [
        played("a", [(0, FORWARD, 2.0), (1, BACK, -1.0), (0, FORWARD, 3.0)], None, long=True),
        played("b", [(0, FORWARD, 7.0)], 1, long=True),
    ]
    steps = grouped(tmp_path, episodes)
    if method == "ilql":
        table = ilql(steps, expectile=0.9, gamma=0.0, updates=5)
    else:
        table = Table(steps)
        targets = {"q": steps.per_entry(steps.returns(0.0)), "weights": steps.weights}
        table.update(targets, partial(token_q_loss, cql_weight=0.0))
    for state, action, mean in ((0, FORWARD, 4.0), (1, BACK, -1.0)):
        assert table.q_of(FIRST + state, SAY, action, STOP) == pytest.approx([mean] * 2, abs=1e-5)
        assert table.q_of(FIRST + state, SAY, action) == pytest.approx([0.0] * 2, abs=1e-5)
        assert table.q_of(FIRST + state, SAY) == pytest.approx([0.0] * 2, abs=1e-5)


def tickets(*, unique: bool = False) -> list[Trajectory]:
    """Ten tickets of which one wins 1, all bought with the same word, or each with a word of its own."""
    return [played(str(k), [(0, 1 + k if unique else FORWARD, float(k == 4))], None) for k in range(10)]


@pytest.mark.parametrize("expectile", [0.5, 0.9, 0.99])
def test_luck_is_averaged_before_it_is_maximised(expectile: float, tmp_path: Path) -> None:
    """A lottery that pays 1 with probability 0.1: Q = V = 0.1 for every tau."""
    table = ilql(grouped(tmp_path, tickets()), expectile=expectile)
    assert table.q_of(FIRST, FORWARD) == pytest.approx([0.1] * 2, abs=1e-5)
    assert table.v_of(FIRST) == pytest.approx(0.1, abs=1e-4)


def test_luck_is_maximised_where_no_action_repeats(tmp_path: Path) -> None:
    """tau 0.9 on the returns themselves, or on a Q that remembers ten words: 0.9 * 0.1 (1 - V) = 0.1 * 0.9 V."""
    (tmp_path / "same").mkdir()
    plain = stored(tmp_path / "same", tickets())
    steps = token_steps(plain, valid_turns(plain))
    returns, on_returns = steps.returns(GAMMA), Table(steps)
    for _ in range(200):
        targets = {"q": returns, "v": returns, "weights": steps.weights}
        on_returns.update(targets, partial(implicit_loss, cql_weight=0.0, expectile=0.9))
    remembering = ilql(grouped(tmp_path, tickets(unique=True)), expectile=0.9)
    for table in (on_returns, remembering):
        assert table.v_of(FIRST) == pytest.approx(0.5, abs=1e-4)
    assert on_returns.q_of(FIRST, FORWARD) == pytest.approx([0.1] * 2, abs=1e-5), "Q itself has no expectile"


# --- a network --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=["some words to make a vocabulary of"], hidden=32, layers=1, context_length=64, seed=0)
    return path


def network(folder: Path, *, bias: float) -> CriticLearner:
    torch.manual_seed(0)
    module = vocabulary_q(load_policy(folder, "float32")[0], VocabularyQSettings(width=32, bias=bias))
    return CriticLearner(Accelerator(), module, OptimiserSettings(learning_rate=3e-3), polyak=0.2)


@pytest.mark.long
def test_a_network_settles_where_the_table_does(folder: Path, tmp_path: Path) -> None:
    """tau 0.5, no conservatism, both actions equally often: within half a turn of SARSA's fixed point."""
    steps, learner = grouped(tmp_path, every_step_once()), network(folder, bias=-4.0)
    for _ in range(300):
        targets = implicit_targets(learner, steps, gamma=GAMMA)
        learner.update_tokens(steps.segments, targets, partial(implicit_loss, cql_weight=0.0, expectile=0.5))
    found = learner.read_tokens(steps.segments)
    exact = {FIRST: -7.529148, FIRST + 1: -6.216426, FIRST + 2: -3.452802}
    wanted = torch.tensor([exact[segment.prompt_ids[0]] for segment in steps.segments])
    torch.testing.assert_close(found["v"][0], wanted, rtol=0, atol=0.5)
    ahead = [NEXT.get((segment.prompt_ids[0] - FIRST, segment.action_ids[0])) for segment in steps.segments]
    bellman = [0.0 if to is None else -1.0 + GAMMA * exact[FIRST + to] for to in ahead]
    torch.testing.assert_close(found["q"], torch.tensor([bellman] * 2), rtol=0, atol=0.5)
