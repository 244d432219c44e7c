"""WebRL (arXiv:2411.02337) against what its formulas reduce to.

The regression of log-ratios: its minimum, what it leaves where no policy has the advantages, and its limits in beta;
the tie of an outcome model; and how far one phase drifts in KL. The critic is a table, everything else is the recipe's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from rollwright.batching import Segment, TokenBatch
from rollwright.contracts.record import Group, Message, StopReason, Task, Trajectory, Turn
from rollwright.contracts.reward import score_group
from rollwright.critics.outcome_values import outcomes
from rollwright.critics.replay_updates import WebRLObjective
from rollwright.learner.learner import Learner
from rollwright.methods.outcome_model import OutcomeCard, answer_ids
from rollwright.methods.outcome_text import Evidence, OutcomePrompt
from rollwright.models.loading import load_model
from rollwright.models.starting_model import open_codec
from rollwright.models.tiny_model import make_tiny_model, tiny_llama
from rollwright.recipes import webrl
from rollwright.rewards import outcome_model
from rollwright.store.replay import TurnTable, valid_turns
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.loop import Training
from tests import builders

# the loss

REFERENCE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
TOKENS = torch.tensor([1, 2, 3])
"""Three arms, of so many tokens: their log-probs lie spread over them."""


def arms_loss(logits: Tensor, advantages: Tensor, beta: float) -> Tensor:
    """E[loss] over arms drawn from the reference, by the recipe's objective."""
    index = torch.arange(3).repeat_interleave(TOKENS)

    def spread(logprobs: Tensor) -> Tensor:
        return (logprobs / TOKENS)[index]

    arms = [
        Segment(prompt_ids=(1,), action_ids=(2,) * count, sequence=arm) for arm, count in enumerate(TOKENS.tolist())
    ]
    batch = replace(
        TokenBatch.of(arms),
        advantages=advantages[index],
        logprobs=spread(logits.log_softmax(dim=0)),
        logprobs_ref=spread(REFERENCE.log()),
    )
    losses = WebRLObjective(form="squared", beta=beta)(batch).losses
    return (REFERENCE[index] * losses).sum()


def minimise(advantages: Tensor, beta: float) -> tuple[Tensor, float]:
    """The best policy over the arms, found from a uniform one, and what it leaves of the loss."""
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = arms_loss(logits, advantages, beta) / beta**2
        loss.backward()
        return loss

    optimiser.step(closure)
    return logits.detach().softmax(dim=0), float(arms_loss(logits.detach(), advantages, beta))


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_soft_advantages_leave_no_loss_at_the_optimum_and_some_everywhere_else(beta: float) -> None:
    """beta log(pi* / pi_ref) = Q - V = A, with V = beta log E_ref exp(Q / beta)."""
    q = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    value = beta * (REFERENCE * (q / beta).exp()).sum().log()
    optimum = REFERENCE.log() + q / beta
    assert float(arms_loss(optimum, q - value, beta)) < 1e-20
    policy, left = minimise(q - value, beta)
    torch.testing.assert_close(policy, optimum.softmax(dim=0), rtol=0, atol=1e-6)
    assert left < 1e-12
    for arm in range(3):
        for by in (-0.1, 0.1):
            moved = optimum.clone()
            moved[arm] += by
            assert float(arms_loss(moved, q - value, beta)) > 1e-4 * beta**2


def test_other_advantages_leave_some_loss_and_a_policy_that_a_larger_beta_holds_at_the_reference() -> None:
    """A = Q - E_ref[Q] is no log-ratio of any policy: beta log E_ref exp(A / beta) is near E_ref[A^2] / (2 beta) and
    not 0, and its square stays. Under beta = 1000 next to nothing is learned."""
    advantages = torch.tensor([0.5, -0.5, -0.5], dtype=torch.float64)
    found = {beta: minimise(advantages, beta) for beta in (0.1, 1.0, 10.0, 100.0, 1000.0)}
    assert float(found[0.1][0][0]) == pytest.approx(0.9967, abs=5e-5)
    torch.testing.assert_close(found[1000.0][0], REFERENCE, rtol=0, atol=5e-4)
    assert found[0.1][1] > 0.05 and found[1.0][1] > 0.01
    for beta in (100.0, 1000.0):
        assert found[beta][1] == pytest.approx((0.25 / 2 / beta) ** 2, rel=1e-3)
    distances = [float((policy - REFERENCE).abs().max()) for policy, _ in found.values()]
    assert distances == sorted(distances, reverse=True)
    for near, far in zip(distances[3:], distances[2:], strict=False):
        assert far / near == pytest.approx(10, rel=0.15)  # the way left is of the order 1 / beta


# the tie


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., TrajectoryStore]:
    def store(*episodes: Trajectory) -> TrajectoryStore:
        made = TrajectoryStore(tmp_path / "store")
        made.append(episodes)
        return made

    return store


@pytest.mark.parametrize("value", ["verdict", "score"])
def test_an_exact_tie_of_the_outcome_model_is_a_success(
    tmp_path: Path, stored: Callable[..., TrajectoryStore], value: outcome_model.Value
) -> None:
    """P(YES) = P(NO) to the bit, from equal rows of the output layer; a little off, one side wins."""
    prompt = OutcomePrompt()
    asked = prompt.messages(Evidence(goal="buy", actions=("click",), state="the shop"))
    words = [message.content for message in asked] + [prompt.yes, prompt.no]
    make_tiny_model(tmp_path / "judge", texts=words, hidden=32, layers=1, context_length=128, tied=False)
    seen = (Message(role="user", content="Task: buy\nthe shop"),)
    turn = Turn(prompt_ids=(1,), action_ids=(2,), action_logprobs=(-1.0,), text="click", observed=seen)
    task = Task(id="t", split="train")
    one = Trajectory(id="e", task=task, seed=0, turns=(turn,), stop_reason=StopReason.TERMINATED, success=False)
    found = []
    for factor in (0.99, 1.0, 1.01):
        reward = judge(tmp_path / "judge", prompt, factor, value)
        (scored,) = score_group(Group(id="g", task=task, seed=0, trajectories=(one,)), reward).trajectories
        found.append(scored)
    below, tie, above = (t.total_reward for t in found)
    if value == "score":
        assert tie == 0.5 and min(below, above) < 0.5 < max(below, above)
    else:
        assert tie == 1.0 and {below, above} == {0.0, 1.0}
        assert outcomes(TurnTable(stored(*found[1:2])), by="reward").tolist() == [1.0], "the world knew of none"


def judge(folder: Path, prompt: OutcomePrompt, factor: float, value: outcome_model.Value) -> Any:
    """The reward whose NO is so many times its YES before the softmax."""
    ids = answer_ids(open_codec(folder), prompt)
    model: Any = load_model(folder)
    with torch.no_grad():
        rows = model.get_output_embeddings().weight
        rows[ids[1]] = factor * rows[ids[0]]
    model.save_pretrained(folder)
    OutcomeCard(kind="verifier", prompt=prompt, answer_ids=ids, max_length=128).save(folder)
    return outcome_model.build(path=str(folder), value=value, device="cpu")


# the drift

VOCAB = 16
STATES = range(8, 14)


def episode(name: str, state: int, action: int, *, won: bool) -> Trajectory:
    """One turn: a prompt of one id, an action of one id."""
    return builders.episode(name, builders.turn((state,), (action,)), success=won)


class Table:
    """A critic that says what it was told, on every head."""

    def __init__(self, heads: Mapping[str, int]) -> None:
        self.heads = heads

    def say(self, known: Mapping[int, float]) -> None:
        """Let these states have these probabilities."""
        self.known = known

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        assert not slow, "these values are not bootstrapped"
        chances = torch.tensor([self.known[state] for (state,) in sequences], dtype=torch.float64)
        return {"v": chances.logit().float().expand(self.heads["v"], -1)}


def drift(store: TrajectoryStore, promised: Mapping[int, float], beta: float) -> float:
    """Mean KL(pi || pi_ref) over the states after one epoch of the recipe, over all actions of one token."""
    learner = Learner(Accelerator(cpu=True), tiny_llama(VOCAB, hidden=32, layers=1), learning_rate=3e-3)
    config = webrl.WebrlConfig.model_validate(
        {"world": {"name": "w"}, "algorithm": {"beta": beta, "epochs": 1, "batch_size": 8, "outcome": "verdict"}}
    )
    parts = SimpleNamespace(store=store, learner=learner, codec=None, next_step=0, attach=lambda part: None)
    made = webrl.Webrl(cast(Training, parts), config)
    cast(Table, made.critic).say(promised)
    made.phase.begin()
    made.labels, made.valid = outcomes(made.table), valid_turns(made.table)
    made.draws = np.random.default_rng(0)
    assert float(np.abs(made.advantages(made.valid)).min()) > 0
    made.turns, made.replayed_frac = made.valid, 0.0
    made.update()
    assert learner.step == len(made.valid) // 8
    every = [
        Segment(
            prompt_ids=(state,),
            action_ids=(action,),
            sequence=(state, action),
        )
        for state in STATES
        for action in range(VOCAB)
    ]
    now, before = (by.logprobs(TokenBatch.of(every)).view(-1, VOCAB) for by in (learner, made.reference))
    torch.testing.assert_close(now.exp().sum(dim=1), torch.ones(len(now)))
    return float((now.exp() * (now - before)).sum(dim=1).mean())


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1])
def test_the_kl_to_the_reference_after_one_epoch_falls_with_beta(
    monkeypatch: pytest.MonkeyPatch, stored: Callable[..., TrajectoryStore], seed: int
) -> None:
    """Random advantages: random outcomes against random promises, in the paper's form of the loss."""
    draws = np.random.default_rng(seed)
    monkeypatch.setattr(webrl, "open_turn_critic", lambda *args, **more: Table(args[4]))
    played = [
        episode(f"e{k}", int(draws.choice(STATES)), won=bool(draws.integers(2)), action=int(draws.integers(VOCAB)))
        for k in range(480)
    ]
    promised = {state: float(draws.uniform(0.1, 0.9)) for state in STATES}
    store = stored(*played)
    found = [drift(store, promised, beta) for beta in (0.1, 1.0, 10.0)]
    assert found[0] > 2 * found[1] > 4 * found[2] > 0, found
