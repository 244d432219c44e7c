"""HNPG (arXiv:2311.08384) without its logs: what is left is PPO with the same critic.

With no weight on logged turns the critic regresses on the returns of its own, and with no logged states the segments,
the advantages and the policy's step are PPO's: GAE per turn on V(s) = mean Q(s, a ~ pi), and the policy gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from rollwright.batching import TokenBatch
from rollwright.batching.credit import flatten
from rollwright.batching.value_estimators import TurnGae
from rollwright.contracts.record import Group, Task, Turn
from rollwright.critics.critic_body import policy_body
from rollwright.critics.critic_targets import HeadTargets
from rollwright.critics.fresh_actions import FreshValues
from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner
from rollwright.generation.engine import Generation
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective, objective_of
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.maths.advantages import whiten
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes import hnpg
from rollwright.store.replay import Transition
from tests import builders

TASK = Task(id="t", split="train")
LOGGED = Transition(
    prompt_ids=(5,),
    action_ids=(8,),
    action_mask=(True,),
    logprobs=(0.0,),
    reward=0.0,
    next_prompt_ids=(),
    terminated=True,
    truncated=False,
    return_to_go=0.0,
    trajectory_return=0.0,
    success=None,
    task="t",
    turn=0,
    turns_left=0,
    trajectory=0,
    index=0,
)
"""What a log would give, were it read."""


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
        return [LOGGED] * len(turns)


class Hybrid(hnpg.Hnpg):
    """The recipe's object on a critic of ours, with logs at hand and without a run."""

    def __init__(self, critic: ValueLearner, **settings: Any) -> None:
        self.algorithm = hnpg.AlgorithmSettings(**settings)
        fit = SimpleNamespace(updates=6, batch_size=5)
        self.config = SimpleNamespace(run=SimpleNamespace(seed=0), critic=fit)
        self.run = SimpleNamespace(engine=SimpleNamespace(version=-1))
        self.table, self.turns = Logs(), np.arange(4)
        self.critic, self.fresh = critic, Fresh()
        self.values = FreshValues(critic, cast(Any, self.fresh), samples=self.algorithm.samples)

    def take_in(self) -> None:
        """A step begins with our episodes."""
        self.draws = np.random.default_rng([0, 0])
        self.draw(0, own_groups())


def said(prompt: tuple[int, ...], action: tuple[int, ...], reward: float) -> Turn:
    return builders.turn(prompt, action, reward, logprobs=-1.5)


def own_groups() -> list[Group]:
    """Two episodes: three turns of one to three tokens, and one turn."""
    first = (said((5, 6), (7, 4), -1.0), said((5, 8), (9,), 0.5), said((5, 9), (7, 8, 4), 2.0))
    one = said((5, 6), (8, 4), 3.0)
    return [builders.group(builders.episode("many", *first, task=TASK), builders.episode("one", one, task=TASK))]


RETURNS = {
    (5, 6, 7, 4): -1.0 + 0.9 * (0.5 + 0.9 * 2.0),
    (5, 8, 9): 0.5 + 0.9 * 2.0,
    (5, 9, 7, 8, 4): 2.0,
    (5, 6, 8, 4): 3.0,
}
"""What each action of `own_groups` still earned, with gamma 0.9."""


def test_without_weight_on_logs_the_hybrid_critic_regresses_on_its_own_returns(folder: Path) -> None:
    """Every step of the optimiser is that of the mean of (Q - G)^2 over own turns."""
    critic, plain = turn_critic(folder), turn_critic(folder)
    hybrid = Hybrid(critic, gamma=0.9, offline_weight=0.0, logged_states=0)
    asked: list[list[tuple[int, ...]]] = []
    update = critic.update

    def kept(targets: HeadTargets, **more: Any) -> dict[str, float]:
        asked.append([tuple(ids) for ids in targets["q"][0]])
        return update(targets, **more)

    critic.update = kept  # type: ignore[method-assign]
    hybrid.take_in()
    metrics = hybrid.fit()
    assert [len(sequences) for sequences in asked] == [5] * 6 and hybrid.table.reads == 0
    for sequences in asked:
        returns = torch.tensor([RETURNS[ids] for ids in sequences])
        expected = plain.update({"q": (sequences, returns)})
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    actions = list(RETURNS)
    torch.testing.assert_close(critic.read(actions)["q"], plain.read(actions)["q"], rtol=0, atol=1e-5)
    assert (critic.read(actions)["q"] - 0.5).abs().max() > 0.05, "and it has learned something"


def test_without_logged_states_hnpg_updates_as_ppo_does_with_that_critic(folder: Path) -> None:
    """Segments, advantages and the policy's weights after them: GAE per turn on V(s) = mean Q(s, a ~ pi)."""
    critic = turn_critic(folder)
    hybrid = Hybrid(critic, gamma=0.9, gae_lambda=0.8, offline_weight=0.0, logged_states=0, samples=2)
    hybrid.take_in()
    hybrid.fit()
    found = hnpg.whitened(hybrid.tokens())

    batch = flatten(own_groups())
    asked = [turn.prompt_ids for turn in batch.turns for _ in range(2)]
    acted = [prompt + action.token_ids for prompt, action in zip(asked, Fresh()(asked), strict=True)]
    values = critic.read(acted)["q"][0].view(-1, 2).mean(dim=1)[batch.turn_index]
    estimate = TurnGae(turn_gamma=0.9, gae_lambda=0.8)(batch, values)
    expected = batch.with_columns(advantages=whiten(estimate.advantages))
    assert found.segments == expected.segments and len(found.segments) == 4 and hybrid.table.reads == 0
    for name in ("advantages", "logprobs_sampled", "versions", "weights", "mask", "turn_index", "sequence_index"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name

    objective = objective_of(hybrid.algorithm)
    moved = [updated(folder, tokens, objective) for tokens in (found, expected)]
    assert torch.equal(moved[0], moved[1])
    some = Hybrid(critic, gamma=0.9, gae_lambda=0.8, offline_weight=0.0, logged_states=3, samples=2)
    some.take_in()
    more = hnpg.whitened(some.tokens())
    assert len(more.segments) == 7 and some.table.reads == 1
    assert not torch.allclose(updated(folder, more, objective), moved[0], atol=1e-4), "logged states would be seen"


def updated(folder: Path, batch: TokenBatch, objective: PolicyObjective) -> Tensor:
    """The policy's weights after one step from the model in the folder."""
    policy, _ = load_policy(folder, "float32")
    Learner(Accelerator(), policy, learning_rate=1e-2).update(batch, objective)
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


def test_that_update_is_the_policy_gradient(folder: Path) -> None:
    """At the sampling policy: minus the mean over own action tokens of A grad log pi, here by autograd on the model."""
    policy, _ = load_policy(folder, "float32")
    hybrid = Hybrid(turn_critic(folder), gamma=0.9, offline_weight=0.0, logged_states=0, correction="none")
    hybrid.take_in()
    batch = hnpg.whitened(hybrid.tokens())
    terms = []
    for segment, advantages in zip(batch.segments, batch.by_turn(batch.advantages), strict=True):
        ids = torch.tensor([[*segment.prompt_ids, *segment.action_ids]])
        logprobs = policy(input_ids=ids).logits[0].float().log_softmax(dim=-1)
        at = len(segment.prompt_ids) - 1
        taken = logprobs[at:-1].gather(1, torch.tensor(segment.action_ids)[:, None])[:, 0]
        terms.append(-advantages * taken)
    loss = torch.cat(terms).mean()
    slopes = torch.autograd.grad(loss, [p for p in policy.parameters() if p.requires_grad])
    norm = torch.cat([part.flatten() for part in slopes]).norm().item()
    learner = Learner(Accelerator(), policy, learning_rate=1e-2)
    metrics = learner.update(batch, objective_of(hybrid.algorithm))
    assert norm > 0.01 and metrics["optim/grad_norm"] == pytest.approx(norm, rel=1e-4)
