"""f-DVL's value losses and weights, and the hybrid critic: the cards' numbers, tabular solutions, reductions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError
from torch import Tensor

from rollwright.critics.critic_body import policy_body
from rollwright.critics.critic_targets import HeadLoss, loss_of_v
from rollwright.critics.replay_updates import actor_weights
from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.maths.advantages import awr_weights
from rollwright.maths.value_targets import (
    chi_square_loss,
    dual_value_loss,
    dual_weights,
    expectile_loss,
    hybrid_weights,
    td_target,
    total_variation_loss,
)
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes.archer import AlgorithmSettings, Archer
from rollwright.store.replay import Transition

Loss = Callable[[Tensor, Tensor], Tensor]
GAMMA = 0.95
# CHAIN-3: (state, action, next state, reward, over); action 0 moves on, action 1 moves back.
CHAIN = (
    *((0, 0, 1, -1.0, False), (1, 0, 2, -1.0, False), (2, 0, 0, 0.0, True)),
    *((0, 1, 0, -1.0, False), (1, 1, 0, -1.0, False), (2, 1, 1, -1.0, False)),
)
SOURCE, ACTION, TARGET, REWARD, OVER = (torch.tensor(column) for column in zip(*CHAIN, strict=True))


def chain_q(values: Tensor) -> Tensor:
    """[6] r + gamma V(s') of every transition."""
    return td_target(REWARD.double(), values[TARGET], OVER, gamma=GAMMA)


def lowest(loss: Loss, targets: Tensor, low: float, high: float, steps: int = 40_001) -> Tensor:
    """[S] minimiser of the mean loss over the columns of targets [S, A], found on a grid."""
    grid = torch.linspace(low, high, steps, dtype=torch.float64)
    rows = [sum((loss(grid, q.expand_as(grid)) for q in row), torch.zeros_like(grid)) for row in targets]
    return torch.stack([grid[row.argmin()] for row in rows])


def solve_chain(loss: Loss, *, rounds: int = 80, low: float = -8.0) -> Tensor:
    """V of the three states where V is the loss's fixed point over two equally frequent actions."""
    values = torch.zeros(3, dtype=torch.float64)
    for _ in range(rounds):
        values = lowest(loss, chain_q(values).view(2, 3).T, low, 0.5)
    return values


def loss_by(settings: AlgorithmSettings) -> HeadLoss:
    """The loss of V that ArCHer takes with these settings."""
    return loss_of_v(settings.critic, expectile=settings.expectile, alpha=settings.alpha)


def slope(loss: Loss, error: float) -> float:
    """Derivative of the loss by x = target - value at x = error."""
    value = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    loss(value, torch.tensor(error, dtype=torch.float64)).backward()
    assert value.grad is not None
    return -float(value.grad)


def test_slopes_on_either_side_of_zero() -> None:
    """alpha f*'(x) - (1 - alpha): 2 alpha - 1 above 0, alpha - 1 below, where the bracket is cut off."""
    for divergence in ("tv", "chi2"):
        above = slope(lambda v, q: dual_value_loss(v, q, divergence=divergence, alpha=0.8), 1e-9)  # type: ignore[arg-type]  # noqa: B023
        below = slope(lambda v, q: dual_value_loss(v, q, divergence=divergence, alpha=0.8), -1e-9)  # type: ignore[arg-type]  # noqa: B023
        assert (above, below) == (pytest.approx(0.6), pytest.approx(-0.2))
    assert slope(lambda v, q: chi_square_loss(v, q, alpha=0.8), 2.0) == pytest.approx(0.8 * 2 - 0.2)
    assert slope(lambda v, q: chi_square_loss(v, q, alpha=0.8), -5.0) == pytest.approx(0.8 * -1.5 - 0.2), "the trap"


def test_total_variation_on_the_chain_is_value_iteration() -> None:
    """Of two equally frequent values the (2 - 1/0.9)-quantile is the larger: V* = (-1.95, -1, 0)."""
    found = solve_chain(lambda v, q: total_variation_loss(v, q, alpha=0.9))
    torch.testing.assert_close(found, torch.tensor([-1.95, -1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-3)
    worst = solve_chain(lambda v, q: total_variation_loss(v, q, alpha=0.5001), low=-25.0)
    assert (worst < -15).all(), "at alpha 0.5 it degenerates to the minimum: never reaching the end"


def test_chi_square_on_the_chain_lies_between_the_mean_and_the_maximum() -> None:
    uniform, best = (-7.529148, -6.216426, -3.452802), (-1.95, -1.0, 0.0)
    found = solve_chain(lambda v, q: chi_square_loss(v, q, alpha=0.6))
    # Above 0 the slope is alpha (1 + x/2) - (1 - alpha), below it -(1 - alpha): the better action's error x must
    # balance the other's, 0.6 (1 + x/2) = 0.8, x = 2/3, unless both lie closer together than that: then V = max.
    q = chain_q(found).view(2, 3)
    gap = (q.max(dim=0).values - q.min(dim=0).values).clamp(max=2 / 3)
    torch.testing.assert_close(found, q.max(dim=0).values - gap, rtol=0, atol=1e-3)
    assert all(low < value < high for low, value, high in zip(uniform, found.tolist(), best, strict=True))


def test_a_certain_value_is_kept() -> None:
    q = torch.tensor([[-1.3]], dtype=torch.float64)
    for divergence in ("tv", "chi2"):
        for alpha in (0.6, 0.8, 0.95):
            found = lowest(lambda v, t: dual_value_loss(v, t, divergence=divergence, alpha=alpha), q, -4.0, 1.0)  # type: ignore[arg-type]  # noqa: B023
            assert found.item() == pytest.approx(-1.3, abs=1e-3)


def test_weights_are_the_slope_of_the_conjugate() -> None:
    advantages = torch.tensor([-3.0, -2.0, -0.5, 0.0, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert dual_weights(advantages, divergence="chi2").tolist() == [0.0, 0.0, 0.75, 1.0, 1.5, 3.0]
    assert dual_weights(advantages, divergence="tv").tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert not dual_weights(advantages, divergence="chi2").requires_grad
    inside = advantages.detach()[2:].clone().requires_grad_()
    (inside + inside.square() / 4).sum().backward()  # f* of chi-square where it is not flat
    torch.testing.assert_close(inside.grad, dual_weights(inside, divergence="chi2"))


def test_archer_takes_the_loss_and_the_weights_of_its_settings() -> None:
    values, targets = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([1.0, 0.0, 3.0])
    cases = {
        "policy": (values - targets).square(),
        "iql": expectile_loss(values, targets, expectile=0.9),
        "fdvl_tv": total_variation_loss(values, targets, alpha=0.7),
        "fdvl_chi2": chi_square_loss(values, targets, alpha=0.7),
    }
    for critic, expected in cases.items():
        settings = AlgorithmSettings(critic=critic, **({"alpha": 0.7} if critic.startswith("fdvl") else {}))  # type: ignore[arg-type]
        torch.testing.assert_close(loss_by(settings)(values, targets), expected)
    advantages = torch.tensor([-1.0, 0.5])
    assert actor_weights(advantages, "reinforce", "policy") is advantages
    exponential = actor_weights(advantages, "awr", "policy")
    torch.testing.assert_close(exponential, awr_weights(advantages, temperature=1.0))
    assert actor_weights(advantages, "dual", "fdvl_chi2").tolist() == [0.5, 1.25]
    assert actor_weights(advantages, "dual", "fdvl_tv").tolist() == [0.0, 1.0]
    with pytest.raises(ValidationError, match="weighs by the divergence"):
        AlgorithmSettings(actor="dual", critic="iql")


@pytest.mark.long
@pytest.mark.parametrize("divergence", ["fdvl_tv", "fdvl_chi2"])
def test_archers_own_loss_brings_a_network_to_the_tabular_solution(divergence: str, tmp_path: Path) -> None:
    """CHAIN-3 as sequences of ids, Q by Bellman regression and V by f-DVL's loss, in one critic with slow targets."""
    make_tiny_model(tmp_path, texts=["words to make a vocabulary of"], hidden=32, layers=2, context_length=64, seed=0)
    torch.manual_seed(0)
    policy, _ = load_policy(tmp_path, "float32")
    shape = TurnCriticSettings(heads={"q": 2, "v": 2}, width=32, bias=-2.0)
    algorithm = AlgorithmSettings(critic=divergence, alpha=0.9, gamma=GAMMA)  # type: ignore[arg-type]
    optimiser, losses = OptimiserSettings(learning_rate=3e-3), {"v": loss_by(algorithm)}
    critic = ValueLearner(Accelerator(), policy_body(policy), shape, optimiser, losses=losses, polyak=0.1)
    archer = SimpleNamespace(algorithm=algorithm, critic=critic)
    states, actions = ((5, 6, 7), (5, 6, 8, 9), (11,)), ((12,), (13,))
    acted = [states[s] + actions[a] for s, a in zip(SOURCE.tolist(), ACTION.tolist(), strict=True)]
    seen = [states[s] for s in SOURCE.tolist()]
    batch = [
        SimpleNamespace(reward=float(r), next_prompt_ids=() if over else states[to])
        for r, to, over in zip(REWARD.tolist(), TARGET.tolist(), OVER.tolist(), strict=True)
    ]
    for _ in range(300):
        targets = Archer.targets(archer, batch, acted)  # type: ignore[arg-type]
        critic.update({"q": (acted, targets["q"]), "v": (seen, targets["v"])})
    name = "tv" if divergence == "fdvl_tv" else "chi2"
    expected = solve_chain(lambda v, q: dual_value_loss(v, q, divergence=name, alpha=0.9))  # type: ignore[arg-type]
    found = critic.read(states, slow=True)["v"].double()
    torch.testing.assert_close(found, expected.expand(2, 3), rtol=0, atol=0.5)  # under the uniform policy -7.5 to -3.5
    assert (critic.read([states[2] + actions[0]])["q"].abs() < 0.3).all(), "nothing follows the last turn"


# --- the hybrid critic ------------------------------------------------------------------------------------------


def test_the_hybrid_minimiser_of_the_card() -> None:
    """Shares 0.2 and 0.6, mean return 1, mean target 0.5, lambda 1: Q = (0.2 * 1 + 0.6 * 0.5) / 0.8 = 0.625."""
    here = torch.tensor([True] * 2 + [False] * 8 + [True] * 3 + [False] * 2)  # 2 of 10 own entries, 3 of 5 logged ones
    on_policy = torch.tensor([True] * 10 + [False] * 5)
    targets = torch.where(on_policy, 1.0, 0.5)
    q = torch.zeros((), requires_grad=True)
    optimiser = torch.optim.LBFGS([q], max_iter=50)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (hybrid_weights(on_policy, off_weight=1.0) * (q - targets).square() * here).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert q.item() == pytest.approx(0.625, abs=1e-5)


def test_hybrid_weights_are_two_means() -> None:
    on_policy = torch.tensor([True, False, False, True, False])
    errors = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    for off_weight in (0.0, 0.5, 2.0):
        expected = errors[on_policy].mean() + off_weight * errors[~on_policy].mean()
        torch.testing.assert_close((hybrid_weights(on_policy, off_weight=off_weight) * errors).mean(), expected)
    assert hybrid_weights(torch.ones(3, dtype=torch.bool), off_weight=1.0).tolist() == [1.0, 1.0, 1.0]
    assert hybrid_weights(torch.zeros(3, dtype=torch.bool), off_weight=0.5).tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(ValueError, match="0 or more"):
        hybrid_weights(on_policy, off_weight=-1.0)


class Lock:
    """A combination lock of H steps: one of 10 actions goes on, any other falls for good. Reward 1 at the end of the
    way, 0.1 with probability one half at the end of a fall: the trap that on-policy learning settles for."""

    horizon, actions = 10, 10

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.key = self.rng.integers(self.actions, size=self.horizon)

    def play(self, policy: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """States [count, H] (0 on the way, 1 fallen), actions [count, H], rewards at the end [count].

        policy: [H, 2, actions] probabilities.
        """
        states, acted = np.zeros((2, count, self.horizon), np.int64)
        fallen = np.zeros(count, np.int64)
        for h in range(self.horizon):
            states[:, h] = fallen
            chances = policy[h][fallen].cumsum(axis=1)
            acted[:, h] = (self.rng.random((count, 1)) * chances[:, -1:] > chances).sum(axis=1)
            fallen |= acted[:, h] != self.key[h]
        return states, acted, np.where(fallen, 0.1 * (self.rng.random(count) < 0.5), 1.0)

    def expert(self) -> np.ndarray:
        """Takes the right action but for a share 1 / H of random ones."""
        policy = np.full((self.horizon, 2, self.actions), 1 / self.horizon / self.actions)
        policy[np.arange(self.horizon), :, self.key] += 1 - 1 / self.horizon
        return policy


def npg(lock: Lock, *, off_weight: float, iterations: int, eta: float = 10.0) -> float:
    """Tabular natural policy gradient, pi <- pi exp(eta Q) at every state that was seen, Q the hybrid minimiser."""
    policy = np.full((lock.horizon, 2, lock.actions), 1 / lock.actions)
    logged = lock.play(lock.expert(), 2000)
    for _ in range(iterations):
        q = fit(lock, lock.play(policy, 100), logged, policy, off_weight)
        policy = policy * np.exp(eta * (q - q.max(axis=2, keepdims=True)))
        policy /= policy.sum(axis=2, keepdims=True)
    return float(lock.play(policy, 2000)[2].mean())


def fit(lock: Lock, own: tuple, logged: tuple, policy: np.ndarray, off_weight: float) -> np.ndarray:
    """[H, 2, actions] from the last step backwards: own episodes regress on the return, logged ones on Q(s', a')."""
    q, last = np.zeros(policy.shape), lock.horizon - 1
    on_policy = torch.tensor([True] * len(own[2]) + [False] * len(logged[2]))
    weights = hybrid_weights(on_policy, off_weight=off_weight).double().numpy()
    for h in range(last, -1, -1):
        follow = torch.zeros(len(logged[2]), dtype=torch.float64)
        if h < last:
            after = logged[0][:, h + 1]
            follow = torch.tensor((policy[h + 1][after] * q[h + 1][after]).sum(axis=1))  # E of a' ~ pi
        rewards = torch.tensor(logged[2] * (h == last))
        targets = td_target(rewards, follow, torch.full((len(follow),), h == last), gamma=1.0).numpy()
        everything = np.concatenate([own[2], targets])
        cells = np.concatenate([part[0][:, h] * lock.actions + part[1][:, h] for part in (own, logged)])
        total = np.bincount(cells, weights * everything, minlength=2 * lock.actions)
        mass = np.bincount(cells, weights, minlength=2 * lock.actions)
        q[h] = np.divide(total, mass, out=np.zeros_like(total), where=mass > 0).reshape(2, lock.actions)
    return q


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_only_the_hybrid_critic_opens_the_lock(seed: int) -> None:
    assert npg(Lock(seed), off_weight=0.0, iterations=200) < 0.06, "on-policy learning sits in the trap"
    assert npg(Lock(seed), off_weight=1.0, iterations=200) > 0.95


@pytest.mark.parametrize("critic", ["policy", "iql"])
def test_archers_critic_batches_pair_each_state_with_its_own_action(critic: str) -> None:
    blank: dict[str, Any] = {"action_mask": (True, True), "logprobs": (0.0, 0.0), "reward": 0.0, "next_prompt_ids": ()}
    blank |= {"terminated": True, "truncated": False, "return_to_go": 0.0, "trajectory_return": 0.0, "success": None}
    blank |= {"task": "t", "turn": 0, "turns_left": 0, "trajectory": 0}
    turns = [Transition(prompt_ids=(k, 0), action_ids=(k, 1), index=k, **blank) for k in range(6)]
    asked: list[list[tuple[int, ...]]] = []

    def fresh(prompts: list[tuple[int, ...]]) -> list[SimpleNamespace]:
        asked.append(prompts)
        return [SimpleNamespace(token_ids=(prompt[0], 2), logprobs=(0.0, 0.0)) for prompt in prompts]

    archer = SimpleNamespace(
        config=SimpleNamespace(critic=SimpleNamespace(updates=3, batch_size=2)),
        algorithm=AlgorithmSettings(critic=critic),
        turns=turns,
        sample=lambda size: turns[:size],
        fresh=fresh,
    )
    batches = list(Archer.critic_batches(archer))  # type: ignore[arg-type]
    last = 2 if critic == "policy" else 1
    assert [len(batch) for batch, _ in batches] == [2, 2, 2] and len(asked) == (critic == "policy")
    for batch, judged in batches:
        assert judged == [(*turn.prompt_ids, turn.prompt_ids[0], last) for turn in batch]
