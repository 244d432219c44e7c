"""Losses of offline values against fixed points that are solved by hand, and what they make of luck.

On CHAIN-3, a chain of three states whose values are known: the expectile of arXiv:2110.06169 (IQL) with the weights of
AWR (arXiv:1910.00177), the reverse-KL loss of arXiv:2302.08560 (Dual RL). On a lottery: an expectile of a Q that
averages luck, and one that maximises it. The losses and ArCHer's targets are the recipes', the values a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from rollwright.critics.critic_targets import HeadLoss, HeadTargets, loss_of_heads, loss_of_v, rows_of_heads
from rollwright.critics.replay_updates import actor_weights
from rollwright.maths.losses import weighted_nll
from rollwright.maths.value_targets import expectile_loss, td_target
from rollwright.recipes import archer
from rollwright.store.replay import Transition

Loss = Callable[[Tensor, Tensor], Tensor]

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
        near(settle(lambda v, q: expectile_loss(v, q, expectile=tau), start=start, rate=0.5), expected)


def test_advantage_weights_turn_even_data_into_a_softmax_of_advantages() -> None:
    """tau 0.9, temperature 1: pi(F) = exp(A(F)) / (exp(A(F)) + exp(A(B))) minimises the weighted likelihood."""
    values = settle(loss_of_v("iql", expectile=0.9, alpha=0.8), start=-9.0, rate=0.5)
    weights = actor_weights(chain_q(values) - values[SOURCE], "awr", "iql", temperature=1.0)
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


# --- the lottery ------------------------------------------------------------------------------------------------


class TableCritic:
    """Q of every sequence and V of every state, two heads each; the slow copy is this one."""

    def __init__(self, losses: Mapping[str, HeadLoss]) -> None:
        self.losses = losses
        self.tables: dict[tuple[int, ...], Tensor] = {}

    def row(self, sequence: Sequence[int]) -> Tensor:
        below = torch.tensor([[-0.6, -0.3], [-1.0, -0.8]])  # where expectiles are quick
        return self.tables.setdefault(tuple(sequence), below)

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        rows = torch.stack([self.row(sequence) for sequence in sequences], dim=2)
        return {"q": rows[0], "v": rows[1]}

    def update(self, targets: HeadTargets) -> None:
        sequences, wanted = rows_of_heads(targets)
        values = {name: rows.requires_grad_() for name, rows in self.read(sequences).items()}
        total = loss_of_heads(self.losses, values, wanted).sum()
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
    settings = archer.AlgorithmSettings(critic="iql", expectile=expectile)
    critic = TableCritic({"v": loss_of_v(settings.critic, expectile=settings.expectile, alpha=settings.alpha)})
    fitted = SimpleNamespace(algorithm=settings, critic=critic)
    acted = [t.prompt_ids + t.action_ids for t in tickets]
    for _ in range(400):
        targets = archer.Archer.targets(fitted, tickets, acted)
        critic.update({"q": (acted, targets["q"]), "v": ([t.prompt_ids for t in tickets], targets["v"])})
    return critic


@pytest.mark.parametrize("tau", [0.5, 0.9, 0.99])
def test_a_repeated_ticket_is_worth_what_it_pays_on_average(tau: float) -> None:
    """Reward 1 with probability 0.1, one action: Q = V = 0.1 for every tau, as luck is averaged inside Q."""
    critic = bought(unique=False, expectile=tau)
    near(critic.read([(5, 10)])["q"], [[0.1], [0.1]], within=1e-5)
    near(critic.read([(5,)])["v"], [[0.1], [0.1]], within=1e-4)


def test_an_expectile_of_returns_pays_for_luck() -> None:
    """tau 0.9: 0.9 * 0.1 (1 - V) = 0.1 * 0.9 V, V = 0.5. The same where each ticket has a name that Q remembers."""
    loss = loss_of_v("iql", expectile=0.9, alpha=0.8)
    returns = torch.tensor([1.0] + [0.0] * 9, dtype=torch.float64)
    value = torch.zeros((), dtype=torch.float64)
    for _ in range(200):
        value.requires_grad_()
        (steep,) = torch.autograd.grad(loss(value.expand(10), returns).sum(), value)
        value = value.detach() - 0.2 * steep
    assert value.item() == pytest.approx(0.5, abs=1e-6)
    critic = bought(unique=True, expectile=0.9)
    near(critic.read([(5, 10 + k) for k in range(10)])["q"][0], [float(k == 4) for k in range(10)], within=1e-5)
    near(critic.read([(5,)])["v"][:, 0], [0.5, 0.5], within=1e-4)
