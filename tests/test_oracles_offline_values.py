"""Offline value methods against exact values, and the failures that belong to a method.

On CHAIN-3, a chain of three states whose values are known: the expectile of arXiv:2110.06169 (IQL) with the weights of
AWR, the reverse-KL loss of arXiv:2302.08560 (Dual RL). On a lottery: what averages luck and what maximises it. HNPG
(arXiv:2311.08384) without its logs against PPO with the same critic; return conditioning (arXiv:2106.01345,
arXiv:2310.19308) where chance decides and where no episode shows the way; inverse dynamics (arXiv:2210.06518) with no
label, with every label, and with the episodes that are held out.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from rollwright.advantages import whiten
from rollwright.assembly import open_world
from rollwright.batching import Segment
from rollwright.codec import ChatCodec
from rollwright.conditioning import ReturnLevels, ReturnTargets, conditioned
from rollwright.config import load_config
from rollwright.contexts import Windowed
from rollwright.credit import flatten, to_segments, value_advantages
from rollwright.critic_body import policy_body
from rollwright.env import Environment, Execution, Observation, SnapshotKind, StepResult, World
from rollwright.generation.base import Generation, Sampling
from rollwright.generation.scripted import ScriptedEngine
from rollwright.inverse_dynamics import InversePrompt, LabelReport, inverse_rows, judge_labels, passages
from rollwright.learner import Learner
from rollwright.losses import weighted_nll
from rollwright.models import load_policy
from rollwright.objective import PolicyObjective
from rollwright.offline_assembly import open_context
from rollwright.optimisation import OptimiserSettings
from rollwright.recipes import archer, hnpg, inverse_dynamics
from rollwright.replay import Transition, TurnTable, valid_turns
from rollwright.rerender import NewContext
from rollwright.rollout import Collector, EngineActor, FaultLog, Limits, RandomActor, TeacherActor
from rollwright.store import TrajectoryStore
from rollwright.tiny import make_tiny_model, tiny_tokenizer
from rollwright.turn_critic import TurnCriticSettings
from rollwright.types import Group, Split, StopReason, Task, Trajectory, Turn
from rollwright.value_learner import ReadingLoss, ValueLearner
from rollwright.values import expectile_loss, reverse_kl_loss, td_target

Loss = Callable[[Tensor, Tensor], Tensor]
TASK = Task(id="t", split="train")

# --- CHAIN-3 ----------------------------------------------------------------------------------------------------

GAMMA = 0.95
# (state, next state, reward, over): first the three steps of F, which moves on, then those of B, which moves back.
FORWARD = ((0, 1, -1.0, False), (1, 2, -1.0, False), (2, 0, 0.0, True))
BACK = ((0, 0, -1.0, False), (1, 0, -1.0, False), (2, 1, -1.0, False))
SOURCE, TARGET, REWARD, OVER = (torch.tensor(column) for column in zip(*FORWARD, *BACK, strict=True))
UNIFORM, BEST = [-7.529148, -6.216426, -3.452802], [-1.95, -1.0, 0.0]


def chain_q(values: Tensor) -> Tensor:
    """[6] r + gamma V(s') of every step."""
    return td_target(REWARD.double(), values[TARGET], OVER, gamma=GAMMA)


def settle(loss: Loss, *, start: float, rate: float, rounds: int = 3000) -> Tensor:
    """[3] V after descent on the loss over all six steps, its targets read anew before each step as in training."""
    values = torch.full((3,), start, dtype=torch.float64)
    for _ in range(rounds):
        values.requires_grad_()
        (slope,) = torch.autograd.grad(loss(values[SOURCE], chain_q(values)).sum(), values)
        values = values.detach() - rate * slope
    return values


def near(found: Tensor, expected: Sequence[float] | Sequence[Sequence[float]], within: float = 2e-6) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=0, atol=within)


IMPLICIT = [
    (0.5, UNIFORM),
    (0.7, [-4.123816, -2.930118, -1.135084]),
    (0.8, [-3.155316, -2.047113, -0.588952]),
    (0.9, [-2.461629, -1.435993, -0.236419]),
    (0.99, [-1.994839, -1.037627, -0.019857]),
]


@pytest.mark.parametrize(("tau", "expected"), IMPLICIT)
def test_the_expectile_loss_settles_on_the_value_of_taking_the_better_action_so_often(
    tau: float, expected: list[float]
) -> None:
    for start in (-9.0, 1.0):
        near(settle(lambda v, q: expectile_loss(v, q, tau=tau), start=start, rate=0.5), expected)


def test_advantage_weights_turn_even_data_into_a_softmax_of_advantages() -> None:
    """tau 0.9, temperature 1: pi(F) = exp(A(F)) / (exp(A(F)) + exp(A(B))) minimises the weighted likelihood."""
    iql = archer.AlgorithmSettings(critic="iql", actor="awr", expectile=0.9, temperature=1.0)
    values = settle(lambda v, q: archer.value_losses(iql, v, q), start=-9.0, rate=0.5)
    weights = archer.actor_weights(iql, chain_q(values) - values[SOURCE])
    assert not weights.requires_grad and weights.max() < 100
    logits = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)
    actions = torch.tensor([0] * 3 + [1] * 3)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = weighted_nll(logits.log_softmax(dim=1)[SOURCE, actions], weights).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    near(logits.detach().softmax(dim=1)[:, 0], [0.725986, 0.892252, 0.914056], within=1e-5)


def reverse_kl(beta: float, clip: float = 7.0) -> Loss:
    return lambda v, q: reverse_kl_loss(v, q, beta=beta, clip=clip)


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (0.5, [-2.884943, -1.669145, -0.343743]),
        (1.0, [-3.583578, -2.251513, -0.650731]),
        (5.0, [-5.723768, -4.314997, -1.925926]),
    ],
)
def test_reverse_kl_settles_on_the_soft_value_of_the_chain(beta: float, expected: list[float]) -> None:
    rate = 0.3 * beta**2
    near(settle(reverse_kl(beta), start=1.0, rate=rate), expected)
    near(settle(reverse_kl(beta, clip=50.0), start=-9.0, rate=rate), expected)  # a clip lets go of what lies far above


def test_reverse_kl_maximises_as_beta_falls_and_averages_as_it_grows() -> None:
    beta = 0.01  # each turn costs beta ln 2 against the best action, the other one is out of reach
    low = settle(reverse_kl(beta), start=0.0, rate=0.3 * beta**2)
    lost = beta * math.log(2)
    near(low, [-1.95 - lost * (1 + GAMMA + GAMMA**2), -1 - lost * (1 + GAMMA), -lost])
    near(low, BEST, within=0.03)
    near(settle(reverse_kl(1e5), start=0.0, rate=0.3 * 1e10), UNIFORM, within=1e-3)


def slope(error: float, *, beta: float, clip: float = 7.0) -> float:
    """Derivative of the reverse-KL loss by x = target - value at x = error."""
    value = torch.tensor([0.0], dtype=torch.float64, requires_grad=True)
    loss = reverse_kl_loss(value, torch.tensor([error], dtype=torch.float64), beta=beta, clip=clip)
    return -float(torch.autograd.grad(loss.sum(), value)[0])


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_reverse_kl_has_no_kink_at_zero(beta: float) -> None:
    """(exp(z) - 1) exp(-m) / beta, z = x / beta: 0 at x = 0 and 1 / beta^2 steep on both sides; f-DVL's others jump."""
    step = 1e-5
    assert slope(0.0, beta=beta) == 0.0
    for side in (step, -step):
        assert slope(side, beta=beta) / side == pytest.approx(1 / beta**2, rel=1e-3)
    assert slope(3 * beta, beta=beta) == pytest.approx((1 - math.exp(-3)) / beta), (
        "m = 3: the step stays below 1 / beta"
    )
    assert slope(-3 * beta, beta=beta) == pytest.approx((math.exp(-2) - math.e) / beta), "m = -1 at the least"
    assert slope(3 * beta, beta=beta, clip=2.0) == 0.0, "beyond the clip nothing pulls"


# --- the lottery ------------------------------------------------------------------------------------------------


class TableCritic:
    """Q of every sequence and V of every state, two heads each; the slow copy is this one."""

    def __init__(self) -> None:
        self.tables: dict[tuple[int, ...], Tensor] = {}

    def row(self, sequence: Sequence[int]) -> Tensor:
        below = torch.tensor([[-0.6, -0.3], [-1.0, -0.8]])  # where expectiles are quick
        return self.tables.setdefault(tuple(sequence), below)

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        rows = torch.stack([self.row(sequence) for sequence in sequences], dim=2)
        return {"q": rows[0], "v": rows[1]}

    def update(self, sequences: Sequence[Sequence[int]], loss: ReadingLoss) -> None:
        values = {name: rows.requires_grad_() for name, rows in self.read(sequences).items()}
        total = loss(values, torch.arange(len(sequences))).sum()
        slopes = torch.stack(torch.autograd.grad(total, [values["q"], values["v"]]))
        counts = Counter(tuple(sequence) for sequence in sequences)
        for place, sequence in enumerate(map(tuple, sequences)):
            self.tables[sequence] = self.tables[sequence] - 0.25 / counts[sequence] * slopes[:, :, place]


def ticket(won: bool, word: int) -> Transition:
    reward = float(won)
    return Transition(
        prompt_ids=(5,),
        action_ids=(word,),
        action_mask=(True,),
        logprobs=(0.0,),
        reward=reward,
        next_prompt_ids=(),
        terminated=True,
        truncated=False,
        return_to_go=reward,
        trajectory_return=reward,
        success=None,
        task="t",
        turn=0,
        turns_left=0,
        trajectory=0,
        index=0,
    )


def bought(*, unique: bool, expectile: float) -> TableCritic:
    """ArCHer's critic after many fits to ten tickets of which one wins 1."""
    tickets = [ticket(k == 4, 10 + k if unique else 10) for k in range(10)]
    critic = TableCritic()
    settings = archer.AlgorithmSettings(critic="iql", expectile=expectile)
    fitted = SimpleNamespace(algorithm=settings, critic=critic)
    acted = [t.prompt_ids + t.action_ids for t in tickets]
    for _ in range(400):
        targets = archer.Archer.targets(fitted, tickets, acted)
        critic.update([*acted, *(t.prompt_ids for t in tickets)], archer.Archer.loss(fitted, targets))
    return critic


@pytest.mark.parametrize("tau", [0.5, 0.9, 0.99])
def test_a_repeated_ticket_is_worth_what_it_pays_on_average(tau: float) -> None:
    """Reward 1 with probability 0.1, one action: Q = V = 0.1 for every tau, as luck is averaged inside Q."""
    critic = bought(unique=False, expectile=tau)
    near(critic.read([(5, 10)])["q"], [[0.1], [0.1]], within=1e-5)
    near(critic.read([(5,)])["v"], [[0.1], [0.1]], within=1e-4)


def test_an_expectile_of_returns_pays_for_luck() -> None:
    """tau 0.9: 0.9 * 0.1 (1 - V) = 0.1 * 0.9 V, V = 0.5. The same where each ticket has a name that Q remembers."""
    iql = archer.AlgorithmSettings(critic="iql", expectile=0.9)
    returns = torch.tensor([1.0] + [0.0] * 9, dtype=torch.float64)
    value = torch.zeros((), dtype=torch.float64)
    for _ in range(200):
        value.requires_grad_()
        (steep,) = torch.autograd.grad(archer.value_losses(iql, value.expand(10), returns).sum(), value)
        value = value.detach() - 0.2 * steep
    assert value.item() == pytest.approx(0.5, abs=1e-6)
    critic = bought(unique=True, expectile=0.9)
    near(critic.read([(5, 10 + k) for k in range(10)])["q"][0], [float(k == 4) for k in range(10)], within=1e-5)
    near(critic.read([(5,)])["v"][:, 0], [0.5, 0.5], within=1e-4)


# --- HNPG without logs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=["some words to make a vocabulary of"], hidden=32, layers=1, context_length=64, seed=0)
    return path


def turn_critic(folder: Path) -> ValueLearner:
    torch.manual_seed(0)
    policy, _ = load_policy(folder, "float32")
    shape = TurnCriticSettings(heads={"q": 1}, width=16, bias=0.5)
    return ValueLearner(Accelerator(), policy_body(policy), shape, OptimiserSettings(learning_rate=1e-2), polyak=0.2)


class Fresh:
    """Actions in place of sampled ones: of two tokens, differing from place to place."""

    def begin(self, step: int) -> None: ...

    def __call__(self, prompts: Sequence[tuple[int, ...]]) -> list[Generation]:
        return [
            Generation(token_ids=(7 + k % 3, 4), logprobs=(-1.0, -1.0), finish_reason="stop", spans=())
            for k in range(len(prompts))
        ]


class Logs:
    """Stored turns; counts how often one of them is read."""

    def __init__(self) -> None:
        self.reads = 0

    def transitions(self, turns: np.ndarray) -> list[Transition]:
        self.reads += 1
        return [ticket(won=False, word=8)] * len(turns)


class Hybrid(hnpg.Hnpg):
    """The recipe's object on a critic of ours, with logs at hand and without a run."""

    def __init__(self, critic: ValueLearner, **settings: Any) -> None:
        self.algorithm = hnpg.AlgorithmSettings(**settings)
        fit = SimpleNamespace(updates=6, batch_size=5)
        self.config = SimpleNamespace(run=SimpleNamespace(seed=0), critic=fit)
        self.run = SimpleNamespace(engine=SimpleNamespace(version=-1))
        self.table, self.turns = Logs(), np.arange(4)
        self.critic, self.fresh = critic, Fresh()


def said(prompt: tuple[int, ...], action: tuple[int, ...], reward: float) -> Turn:
    logprobs = (-1.5,) * len(action)
    return Turn(prompt_ids=prompt, action_ids=action, action_logprobs=logprobs, text="", rewards={"env": reward})


def own_groups() -> list[Group]:
    """Two episodes: three turns of one to three tokens, and one turn."""
    first = (said((5, 6), (7, 4), -1.0), said((5, 8), (9,), 0.5), said((5, 9), (7, 8, 4), 2.0))
    many, one = (
        Trajectory(id=name, task=TASK, seed=0, turns=turns, stop_reason=StopReason.TERMINATED)
        for name, turns in (("many", first), ("one", (said((5, 6), (8, 4), 3.0),)))
    )
    return [Group(id="g", task=TASK, seed=0, trajectories=(many, one))]


RETURNS = {
    (5, 6, 7, 4): -1.0 + 0.9 * (0.5 + 0.9 * 2.0),
    (5, 8, 9): 0.5 + 0.9 * 2.0,
    (5, 9, 7, 8, 4): 2.0,
    (5, 6, 8, 4): 3.0,
}
"""What each action of `own_groups` still earned, with gamma 0.9."""


def squared(targets: Tensor) -> ReadingLoss:
    return lambda values, places: (values["q"][0] - targets[places]).square()


def test_without_weight_on_logs_the_hybrid_critic_regresses_on_its_own_returns(folder: Path) -> None:
    """Every step of the optimiser is that of the mean of (Q - G)^2 over own turns."""
    critic, plain = turn_critic(folder), turn_critic(folder)
    hybrid = Hybrid(critic, gamma=0.9, offline_weight=0.0, logged_states=0)
    asked: list[list[tuple[int, ...]]] = []
    update = critic.update

    def kept(sequences: Sequence[Sequence[int]], loss: ReadingLoss) -> dict[str, float]:
        asked.append([tuple(ids) for ids in sequences])
        return update(sequences, loss)

    critic.update = kept  # type: ignore[method-assign]
    hybrid.take_in(0, own_groups())
    metrics = hybrid.fit_critic()
    assert [len(sequences) for sequences in asked] == [5] * 6 and hybrid.table.reads == 0
    for sequences in asked:
        returns = torch.tensor([RETURNS[ids] for ids in sequences])
        expected = plain.update(sequences, squared(returns))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    actions = list(RETURNS)
    torch.testing.assert_close(critic.read(actions)["q"], plain.read(actions)["q"], rtol=0, atol=1e-5)
    assert (critic.read(actions)["q"] - 0.5).abs().max() > 0.05, "and it has learned something"


def test_without_logged_states_hnpg_updates_as_ppo_does_with_that_critic(folder: Path) -> None:
    """Segments, advantages and the policy's weights after them: GAE per turn on V(s) = mean Q(s, a ~ pi)."""
    critic = turn_critic(folder)
    hybrid = Hybrid(critic, gamma=0.9, gae_lambda=0.8, offline_weight=0.0, logged_states=0, samples=2)
    hybrid.take_in(0, own_groups())
    hybrid.fit_critic()
    found = hnpg.whitened([*hybrid.own_segments(), *hybrid.logged_segments()])

    batch = flatten(own_groups())
    asked = [turn.prompt_ids for turn in batch.turns for _ in range(2)]
    acted = [prompt + action.token_ids for prompt, action in zip(asked, Fresh()(asked), strict=True)]
    values = critic.read(acted)["q"][0].view(-1, 2).mean(dim=1)[batch.turn_index]
    estimate = value_advantages(batch, values, "turn_gae", gamma=1.0, turn_gamma=0.9, gae_lambda=0.8)
    expected = to_segments(batch, whiten(estimate.advantages))
    assert found == expected and len(found) == 4 and hybrid.table.reads == 0

    objective = PolicyObjective(**hybrid.algorithm.objective())
    moved = [updated(folder, segments, objective) for segments in (found, expected)]
    assert torch.equal(moved[0], moved[1])
    some = Hybrid(critic, gamma=0.9, gae_lambda=0.8, offline_weight=0.0, logged_states=3, samples=2)
    some.take_in(0, own_groups())
    more = hnpg.whitened([*some.own_segments(), *some.logged_segments()])
    assert len(more) == 7 and some.table.reads == 1
    assert not torch.allclose(updated(folder, more, objective), moved[0], atol=1e-4), "logged states would be seen"


def updated(folder: Path, segments: Sequence[Segment], objective: PolicyObjective) -> Tensor:
    """The policy's weights after one step from the model in the folder."""
    policy, _ = load_policy(folder, "float32")
    Learner(Accelerator(), policy, learning_rate=1e-2).update(segments, objective)
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def test_that_update_is_the_policy_gradient(folder: Path) -> None:
    """At the sampling policy: minus the mean over own action tokens of A grad log pi, here by autograd on the model."""
    policy, _ = load_policy(folder, "float32")
    hybrid = Hybrid(turn_critic(folder), gamma=0.9, offline_weight=0.0, logged_states=0, correction="none")
    hybrid.take_in(0, own_groups())
    segments = hnpg.whitened([*hybrid.own_segments(), *hybrid.logged_segments()])
    terms = []
    for segment in segments:
        ids = torch.tensor([[*segment.prompt_ids, *segment.action_ids]])
        logprobs = policy(input_ids=ids).logits[0].float().log_softmax(dim=-1)
        at = len(segment.prompt_ids) - 1
        taken = logprobs[at:-1].gather(1, torch.tensor(segment.action_ids)[:, None])[:, 0]
        terms.append(-torch.tensor(segment.advantages) * taken)
    loss = torch.cat(terms).mean()
    slopes = torch.autograd.grad(loss, [p for p in policy.parameters() if p.requires_grad])
    norm = torch.cat([part.flatten() for part in slopes]).norm().item()
    learner = Learner(Accelerator(), policy, learning_rate=1e-2)
    metrics = learner.update(segments, PolicyObjective(**hybrid.algorithm.objective()))
    assert norm > 0.01 and metrics["optim/grad_norm"] == pytest.approx(norm, rel=1e-4)


# --- return conditioning ----------------------------------------------------------------------------------------

Rule = Callable[[str, str, random.Random], tuple[str | None, float]]
"""(state, action, this episode's draws) -> (the next state, None where the task is over; reward)."""


class Place:
    """An environment of a few named states."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def reset(self, task: Task, seed: int) -> Observation:
        self.state, self.draws = str(task.params["start"]), random.Random(seed)
        return Observation(text=self.state)

    def step(self, action: str) -> StepResult:
        after, reward = self.rule(self.state, action, self.draws)
        self.state = after or "over"
        return StepResult(observation=Observation(text=self.state), reward=reward, terminated=after is None)

    def fingerprint(self) -> str:
        return self.state

    def close(self) -> None: ...


class Places:
    """The world of that environment."""

    name, instructions, max_turns = "places", "", 4
    execution: Execution = "inline"
    snapshots: SnapshotKind = "none"

    def __init__(self, rule: Rule, actions: Sequence[str]) -> None:
        self.rule, self.actions = rule, actions

    def tasks(self, split: Split) -> list[Task]:
        return []

    def make(self) -> Environment:
        return Place(self.rule)

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        return draws.choice(self.actions)

    def close(self) -> None: ...


CODEC = ChatCodec(tiny_tokenizer(["start A M over safe risky on stop nothing\nWanted return: level 1 of 2 3 4 5."]))
CONTEXT = Windowed(codec=CODEC, instructions="", context_length=1 << 20, history=0)


def read(ids: Sequence[int]) -> str:
    return str(CODEC.tokenizer.decode(list(ids)))


def play(
    world: World, actor: EngineActor | RandomActor, start: str, count: int, tmp_path: Path, *, name: str
) -> list[Trajectory]:
    collector = Collector(
        world,
        actor,
        CONTEXT,
        sampling=Sampling(max_tokens=8),
        limits=Limits(max_turns=4),
        faults=FaultLog(tmp_path / f"{name}.jsonl", max_frac=0.0),
    )
    task = Task(id=start, split="train", params={"start": start})
    try:
        return collector.play([collector.request(f"{name}/{k}", task, k) for k in range(count)])
    finally:
        collector.close()


class Imitated:
    """What was done under each prompt, by the episodes as they read with their returns; asked for prompts unseen."""

    def __init__(self, data: Sequence[Trajectory], levels: int) -> None:
        self.levels = ReturnLevels.of([to_go for t in data for to_go in t.returns_to_go(1.0)], count=levels)
        self.table: dict[tuple[int, ...], Counter[str]] = {}
        self.unseen: list[str] = []
        for trajectory in data:
            for turn in conditioned(trajectory, CONTEXT, self.levels).turns:
                self.table.setdefault(turn.prompt_ids, Counter())[turn.text] += 1

    def act(self, prompt_ids: tuple[int, ...], request_id: str) -> str:
        if prompt_ids not in self.table:
            self.unseen.append(read(prompt_ids))
            return "nothing"
        return self.table[prompt_ids].most_common(1)[0][0]

    def play(self, world: World, start: str, count: int, tmp_path: Path, *, target: float) -> list[Trajectory]:
        engine = ScriptedEngine(self.act, CODEC.encode_action)
        told = ReturnTargets(world, self.levels, target)
        return play(told, EngineActor(engine), start, count, tmp_path, name=f"asked for {target:g}")


def earned(episodes: Sequence[Trajectory]) -> float:
    return sum(t.total_reward for t in episodes) / len(episodes)


def done(episodes: Sequence[Trajectory]) -> set[str]:
    return {turn.text for t in episodes for turn in t.turns}


def gamble(state: str, action: str, draws: random.Random) -> tuple[str | None, float]:
    return None, 0.6 if action == "safe" else float(draws.random() < 0.5)


def sure_thing(state: str, action: str, draws: random.Random) -> tuple[str | None, float]:
    return None, 0.6 if action == "safe" else 1.0


def test_who_asks_for_luck_gambles_and_loses(tmp_path: Path) -> None:
    """Safe pays 0.6, risky 1 half of the time: asked for 1 it earns 0.5, asked for 0.6 just that."""
    world = Places(gamble, ["safe", "risky"])
    data = play(world, RandomActor(world, CODEC.encode_action), "start", 200, tmp_path, name="data")
    assert done(data) == {"safe", "risky"} and max(t.total_reward for t in data) == 1.0
    policy = Imitated(data, levels=4)
    lucky = policy.play(world, "start", 400, tmp_path, target=1.0)
    assert done(lucky) == {"risky"} and earned(lucky) == pytest.approx(0.5, abs=0.06)
    modest = policy.play(world, "start", 50, tmp_path, target=0.6)
    assert done(modest) == {"safe"} and earned(modest) == pytest.approx(0.6) and not policy.unseen
    plain = Places(sure_thing, ["safe", "risky"])
    sure = Imitated(play(plain, RandomActor(plain, CODEC.encode_action), "start", 50, tmp_path, name="sure"), levels=4)
    assert earned(sure.play(plain, "start", 20, tmp_path, target=1.0)) == 1.0, "where nothing is left to chance"


def two_steps(state: str, action: str, draws: random.Random) -> tuple[str | None, float]:
    if action != "on":
        return None, 0.0
    return ("M", 0.5) if state == "A" else (None, 1.0)


def test_no_episode_shows_the_way_until_one_is_played(tmp_path: Path) -> None:
    """A -> M pays 0.5 in some episodes and M -> the goal 1 in others: nobody stood in A with 1.5 to go.

    Of rollouts in the exact model those above the data's best return are kept; who imitates them always arrives.
    """
    world = Places(two_steps, ["on", "stop"])

    def halves(prompt_ids: tuple[int, ...], request_id: str) -> str:
        return "stop" if request_id.startswith("from A") and "M" in read(prompt_ids) else "on"

    shown = EngineActor(ScriptedEngine(halves, CODEC.encode_action))
    data = [t for s in "AM" for t in play(world, shown, s, 10, tmp_path, name=f"from {s}")]
    best = max(t.total_reward for t in data)
    assert [t.total_reward for t in data] == [0.5] * 10 + [1.0] * 10 and len(data[0].turns) == 2
    policy = Imitated(data, levels=3)
    assert earned(policy.play(world, "M", 5, tmp_path, target=1.0)) == 1.0 and not policy.unseen
    assert earned(policy.play(world, "A", 5, tmp_path, target=1.5)) == 0.0
    assert len(policy.unseen) == 5 and all("A" in said and "level 3 of 3" in said for said in policy.unseen)

    rollouts = play(world, RandomActor(world, CODEC.encode_action), "A", 40, tmp_path, name="rollouts")
    kept = [t for t in rollouts if t.total_reward > best]
    assert 0 < len(kept) < 40
    joined = Imitated(kept, levels=2)
    assert earned(joined.play(world, "A", 20, tmp_path, target=1.5)) == 1.5 and not joined.unseen
    joined.play(world, "A", 1, tmp_path, target=1.0)
    assert len(joined.unseen) == 1, "in A only 1.5 was ever to go, in M 1: the first reward is taken off"


# --- inverse dynamics -------------------------------------------------------------------------------------------


class Reader(ScriptedEngine):
    """A labeller that knows some of the questions, and how sure it is of each token."""

    def __init__(self, answers: dict[tuple[int, ...], str], codec: ChatCodec, *, logprob: float) -> None:
        super().__init__(lambda prompt_ids, _: answers.get(prompt_ids, "nothing"), codec.encode_action)
        self.logprob = logprob

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        answer = await super().generate(prompt_ids, sampling, request_id=request_id)
        return Generation(
            token_ids=answer.token_ids,
            logprobs=(self.logprob,) * len(answer.token_ids),
            finish_reason=answer.finish_reason,
            spans=answer.spans,
        )


class Labelling:
    """The recipe on walks of the small maze, all but its model: that is a `Reader`.

    optimal_frac: 1 walks straight: no move into a wall, of which two look alike and no labeller could tell them apart.
    """

    def __init__(self, tmp_path: Path, patch: pytest.MonkeyPatch, *, optimal_frac: float) -> None:
        patch.chdir(Path(__file__).parents[1])
        self.tmp_path, self.patch = tmp_path, patch
        self.words = [
            "recipes/text/maze_inverse.yaml",
            *("model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1"),
            *("world.options.maze=umaze", f"world.options.teacher_optimal_frac={optimal_frac}", "rollout.max_turns=3"),
            *("data.hide_frac=0.5", "data.held_out_frac=0.4", f"data.stores=[{tmp_path / 'data'}]"),
        ]
        config = load_config(inverse_dynamics.InverseConfig, self.words)
        self.prompt: InversePrompt = config.label.prompt()
        _, self.codec, new_context = open_context(config.world, config.model, config.rollout, tmp_path / "start")
        self.episodes = self.walks(open_world(config.world), new_context)
        TrajectoryStore(tmp_path / "data").append(self.episodes)

    def walks(self, world: Any, new_context: NewContext) -> list[Trajectory]:
        collector = Collector(
            world,
            TeacherActor(world, self.codec.encode_action),
            new_context,
            sampling=Sampling(max_tokens=8),
            limits=Limits(max_turns=3),
            faults=FaultLog(self.tmp_path / "faults.jsonl", max_frac=0.0),
        )
        try:
            tasks = [(task, seed) for task in world.tasks("train") for seed in range(6)]
            return collector.play([collector.request(f"{t.id}/{seed}", t, seed) for t, seed in tasks])
        finally:
            collector.close()

    def questions(self, episodes: Sequence[Trajectory]) -> dict[tuple[int, ...], str]:
        """What is asked about each step of these episodes, and a true answer."""
        return dict(pair for trajectory in episodes for pair in self.asked(trajectory))

    def asked(self, trajectory: Trajectory) -> list[tuple[tuple[int, ...], str]]:
        return [
            (self.codec.encode_start(self.prompt.messages(passage)), turn.text)
            for passage, turn in zip(passages(trajectory, self.prompt), trajectory.turns, strict=True)
            if passage.after is not None
        ]

    def run(self, name: str, answers: dict[tuple[int, ...], str], *words: str, logprob: float = 0.0) -> None:
        """Afterwards `store`, `report`, the `rows` that the model was given to learn from, the ids of the episodes that
        they came from (`taught`), and of those that labels were `judged` by."""
        self.judged: list[list[str]] = []
        rows_of, judge = inverse_rows, judge_labels

        def taught(episodes: Sequence[Trajectory], *more: Any, **settings: Any) -> list[dict[str, list[int]]]:
            self.taught = [t.id for t in episodes]
            return rows_of(episodes, *more, **settings)

        def judged(truths: Sequence[Trajectory], *more: Any, **settings: Any) -> LabelReport:
            self.judged.append([t.id for t in truths])
            return judge(truths, *more, **settings)

        def fit(rows: list[dict[str, Any]], start: Path, *_: Any, **__: Any) -> Path:
            self.rows = rows
            return start

        def engine(*_: Any, **__: Any) -> Reader:
            return Reader(answers, self.codec, logprob=logprob)

        for what, by in (("inverse_rows", taught), ("judge_labels", judged), ("fit", fit), ("open_engine", engine)):
            self.patch.setattr(inverse_dynamics, what, by)
        folder = self.tmp_path / name
        inverse_dynamics.main([*self.words, f"run.folder={folder}", *words])
        self.store = TrajectoryStore(folder / "trajectories", mode="read")
        self.report = json.loads((folder / "labels.json").read_text())

    def named(self, ids: Sequence[str]) -> list[Trajectory]:
        return [next(t for t in self.episodes if t.id == name) for name in ids]


def batches(store: TrajectoryStore) -> list[Transition]:
    """What an offline learner draws from, in the order of the store."""
    table = TurnTable(store)
    return table.transitions(valid_turns(table))


def test_without_a_label_the_store_is_that_of_the_labelled_episodes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No confidence reaches the threshold: any offline learner sees what it would see without the logs."""
    labelling = Labelling(tmp_path, monkeypatch, optimal_frac=0.5)
    labelling.run("none", labelling.questions(labelling.episodes), "label.threshold=0.95", logprob=-0.1)
    known = [*labelling.taught, *labelling.judged[0]]
    plain = TrajectoryStore(tmp_path / "plain")
    plain.append(labelling.named(known))
    assert batches(labelling.store) == batches(plain)
    assert list(labelling.store.iter_trajectories()) == list(plain.iter_trajectories())
    assert 0 < len(known) < len(labelling.episodes) and labelling.report["store"]["labelled"] == 0
    labelling.run("some", labelling.questions(labelling.episodes), "label.threshold=0.1", logprob=-0.1)
    assert len(batches(labelling.store)) > len(batches(plain)), "the threshold alone left them out"


def test_with_every_label_right_a_learner_sees_the_episodes_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State, action, reward, next state and return of every turn, but for the last one before a cut: what followed it
    is not on record in a log."""
    labelling = Labelling(tmp_path, monkeypatch, optimal_frac=1.0)
    labelling.run("all", labelling.questions(labelling.episodes))
    hidden = set(labelling.judged[1])
    once = sorted(t.id for t in labelling.store.iter_trajectories())
    assert once == sorted(t.id for t in labelling.episodes), "no episode is lost and none is there twice"
    assert hidden and labelling.report["hidden"]["accuracy"] == labelling.report["hidden"]["kept_frac"] == 1.0

    def seen(trajectories: Sequence[Trajectory], name: str) -> dict[tuple[str, int], tuple[Any, ...]]:
        store = TrajectoryStore(tmp_path / name)
        store.append(sorted(trajectories, key=lambda t: t.id))
        ids = [t.id for t in store.iter_trajectories()]
        return {
            (ids[t.trajectory], t.turn): (
                *(t.prompt_ids, t.action_ids, t.action_mask, t.reward, t.next_prompt_ids),
                *(t.terminated, t.truncated, t.return_to_go, t.success, t.turns_left),
            )
            for t in batches(store)
        }

    cut = {t.id: len(t.turns) - 1 for t in labelling.episodes if t.stop_reason.is_truncation and t.id in hidden}
    expected = seen(labelling.episodes, "expected")
    assert cut and len(cut) < len(hidden) and all(expected.pop((name, last)) for name, last in cut.items())
    assert seen(list(labelling.store.iter_trajectories()), "found") == expected


def test_what_judges_the_labels_never_taught_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole episodes are held out; a labeller that knows their steps alone is perfect there and not elsewhere."""
    labelling = Labelling(tmp_path, monkeypatch, optimal_frac=0.3)
    labelling.run("once", {})
    taught, (aside, hidden) = labelling.taught, labelling.judged
    everything = [t.id for t in labelling.episodes]
    assert taught and aside and hidden and sorted([*taught, *aside, *hidden]) == sorted(everything)
    rows = inverse_rows(labelling.named(taught), labelling.codec, labelling.prompt, max_length=4096)
    assert labelling.rows == rows and labelling.report["held_out"]["accuracy"] == 0.0

    answers = labelling.questions(labelling.named(aside))
    labelling.run("twice", answers)
    assert (labelling.taught, labelling.judged) == (taught, [aside, hidden]), "the same split from the same seed"
    for part, ids in (("held_out", aside), ("hidden", hidden)):
        steps = [pair for t in labelling.named(ids) for pair in labelling.asked(t)]
        right = sum(answers.get(question) == action for question, action in steps)
        assert labelling.report[part]["steps"] == len(steps)
        assert labelling.report[part]["accuracy"] == pytest.approx(right / len(steps))
    assert labelling.report["held_out"]["accuracy"] > labelling.report["hidden"]["accuracy"] > 0
