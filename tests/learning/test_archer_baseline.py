"""ArCHer's token baseline: numbers by hand, what it leaves as it is and what it takes away, whole runs, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from rollwright.contracts.errors import ConfigError
from rollwright.critics.critic_settings import TokenCriticFit
from rollwright.critics.replay_updates import WeightedLikelihood
from rollwright.critics.token_baseline import baseline_critic, residual_ratio, with_token_baseline
from rollwright.learner.learner import Learner
from rollwright.learner.token_critic import CriticSettings
from rollwright.maths.losses import aggregate, value_loss, weighted_nll
from rollwright.models.tiny_model import tiny_llama
from rollwright.recipes import archer as recipe
from rollwright.run_io.tracking import read_metrics
from tests.token_batches import SpelledTurn, batch_of

VOCAB = 32
pytestmark = pytest.mark.usefixtures("at_root")


def utterance(
    action: tuple[int, ...], advantage: float, *, owner: int = 0, prompt: tuple[int, ...] = (1, 2)
) -> SpelledTurn:
    count = len(action)
    return SpelledTurn(
        prompt_ids=prompt,
        action_ids=action,
        logprobs_sampled=(-1.0,) * count,
        advantages=(advantage,) * count,
        sequence=owner,
    )


TWO = batch_of([utterance((5, 6), 2.0), utterance((7, 8, 9), -1.0, owner=1)])


def learner_of(critic: CriticSettings | None = None, **settings: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(Accelerator(cpu=True), tiny_llama(VOCAB, hidden=32), learning_rate=1e-2, critic=critic, **settings)


def weights_of(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.weights()}


# --- numbers ------------------------------------------------------------------------------------------------------


def test_advantages_targets_and_losses_by_hand() -> None:
    """A = 2 over two tokens and -1 over three; v = (0.5, 1.5) and (0, -1, -2)."""
    made = with_token_baseline(TWO, torch.tensor([0.5, 1.5, 0.0, -1.0, -2.0]))
    assert made.advantages.tolist() == [1.5, 0.5, -1.0, 0.0, 1.0]
    assert made.returns is not None and made.returns.tolist() == [2.0, 2.0, -1.0, -1.0, -1.0]
    assert residual_ratio(made) == pytest.approx((2.25 + 0.25 + 1 + 0 + 1) / (4 + 4 + 1 + 1 + 1))
    left, returns = made.advantages, made.returns
    logprobs = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0])
    index, everything = torch.tensor([0, 0, 1, 1, 1]), torch.ones(5, dtype=torch.bool)
    # -(1.5 * -1 + 0.5 * -2 + -1 * -3 + 0 * -4 + 1 * -5) over two utterances
    how = WeightedLikelihood().aggregation
    policy = aggregate(weighted_nll(logprobs, left), everything, index, num_sequences=2, how=how, denominator=2.0)
    assert float(policy) == pytest.approx(2.25)
    values = torch.tensor([0.5, 1.5, 0.0, -1.0, -2.0])
    assert float(value_loss(values, returns, values_old=None, clip_eps=None).mean()) == pytest.approx(0.45)


def test_the_learner_minimises_these_losses_and_names_them_apart() -> None:
    """The critic starts at 0, so its first loss is half the mean of A squared over all tokens."""
    learner = learner_of(baseline_critic(TokenCriticFit(learning_rate=1e-2)))
    metrics = learner.update(with_token_baseline(TWO, learner.values(TWO)), WeightedLikelihood())
    assert metrics["baseline/loss"] == pytest.approx((2 * 4 + 3 * 1) / 5 / 2)
    assert metrics["baseline/learning_rate"] == 1e-2 and metrics["baseline/grad_norm"] > 0
    assert not [name for name in metrics if name.startswith("critic/")], "that is the critic of utterances"


def test_the_baseline_has_not_seen_its_token() -> None:
    """Else the gradient would be biased. Both utterances begin with 5; the second tokens differ."""
    learner = learner_of(baseline_critic(TokenCriticFit(learning_rate=1e-2)))
    pair = batch_of([utterance((5, 6, 9), 3.0), utterance((5, 8, 9), -1.0, owner=1)])
    for _ in range(30):
        learner.update(with_token_baseline(pair, learner.values(pair)), WeightedLikelihood())
    first, second = pair.by_turn(learner.values(pair))
    torch.testing.assert_close(first[:2], second[:2])
    assert float(first[0]) == pytest.approx(1.0, abs=0.5), "the mean of what follows"
    assert float(first[2] - second[2]) > 2, "the last token's value has seen the second"


def test_values_must_fit_the_segments() -> None:
    for values in (torch.zeros(2), torch.zeros(4)):
        with pytest.raises(ValueError, match="`values` needs one number per action token"):
            with_token_baseline(TWO, values)
    with pytest.raises(ValueError, match="with_token_baseline"):
        residual_ratio(TWO)


# --- what it leaves, and what it takes away -------------------------------------------------------------------------


def test_an_untrained_baseline_is_plain_archer_bit_for_bit() -> None:
    plain, based = learner_of(), learner_of(baseline_critic(TokenCriticFit(learning_rate=1e-2)))
    plain.update(TWO, WeightedLikelihood())
    based.update(with_token_baseline(TWO, based.values(TWO)), WeightedLikelihood())
    one, two = weights_of(plain), weights_of(based)
    assert all(torch.equal(one[name], two[name]) for name in one)
    plain.update(TWO, WeightedLikelihood())
    based.update(with_token_baseline(TWO, based.values(TWO)), WeightedLikelihood())
    one, two = weights_of(plain), weights_of(based)
    assert any(not torch.equal(one[name], two[name]) for name in one), "now the baseline knows something"


WORTH = {(0,): -1.0, (1, 0): 2.0, (1, 1, 0): -0.5, (1, 1, 1): 5.0}
"""A token MDP: 0 stops, 1 goes on, at most three tokens; the advantage of each whole utterance."""


@dataclass
class TokenMdp:
    """Its policy has one logit per prefix, so that everything about it can be enumerated."""

    logits: Tensor

    def logprobs(self, action: Sequence[int]) -> Tensor:
        both = torch.stack([-self.logits, self.logits], dim=-1).log_softmax(-1)
        return torch.stack([both[place, token] for place, token in enumerate(action)])

    def chance(self, action: Sequence[int]) -> float:
        return float(self.logprobs(action).sum().exp().detach())

    def value(self, prefix: tuple[int, ...]) -> float:
        """E[A | the tokens so far]: what the baseline is regressed on."""
        below = {u: self.chance(u) for u in WORTH if u[: len(prefix)] == prefix}
        return sum(WORTH[u] * p for u, p in below.items()) / sum(below.values())

    def gradient(self, action: tuple[int, ...], values: list[float]) -> Tensor:
        """Of the recipe's own loss of one utterance."""
        batch = with_token_baseline(batch_of([utterance(action, WORTH[action])]), torch.tensor(values).double())
        loss = weighted_nll(self.logprobs(action), batch.advantages.double()).sum()
        return torch.autograd.grad(loss, self.logits)[0]

    def moments(self, *, baseline: bool) -> tuple[Tensor, float]:
        """The exact mean of the gradient over utterances, and its total variance."""
        mean, square = torch.zeros(3, dtype=torch.float64), 0.0
        for action in WORTH:
            values = [self.value(action[:place]) * baseline for place in range(len(action))]
            gradient, chance = self.gradient(action, values), self.chance(action)
            mean, square = mean + chance * gradient, square + chance * float(gradient.square().sum())
        return mean, square - float(mean.square().sum())


@pytest.mark.parametrize(
    ("logits", "left"),
    [((0.0, 0.0, 0.0), 5.2109375 / 9.05078125), ((0.7, -0.3, 0.2), 0.753), ((-0.5, 1.0, -1.0), 1.012)],
)
def test_the_expected_gradient_stays_and_the_variance_falls(logits: tuple[float, ...], left: float) -> None:
    """The first by hand: 11.96875 - 2.91796875 without and 8.12890625 - 2.91796875 with the baseline.

    In the third it does not fall: a value is not the baseline of least variance.
    """
    mdp = TokenMdp(torch.tensor(logits, dtype=torch.float64, requires_grad=True))
    expected = sum(mdp.logprobs(action).sum().exp() * worth for action, worth in WORTH.items())
    exact = -torch.autograd.grad(expected, mdp.logits)[0]  # the loss goes down where the expected advantage goes up
    (plain, variance), (based, reduced) = mdp.moments(baseline=False), mdp.moments(baseline=True)
    torch.testing.assert_close(plain, exact, rtol=0, atol=1e-6)
    torch.testing.assert_close(based, exact, rtol=0, atol=1e-6)
    assert reduced / variance == pytest.approx(left, abs=1e-3)


# --- whole runs -----------------------------------------------------------------------------------------------------

SMALL = [
    "recipes/text/maze_archer.yaml",
    "model.path=tiny",
    "model.tiny_hidden=32",
    "model.tiny_layers=1",
    "world.options.maze=umaze",
    "run.steps=3",
    "run.checkpoint_every=1",
    "run.transcripts_every=0",
    "rollout.schedule=rounds",
    "rollout.groups_per_step=3",
    "rollout.max_turns=5",
    "algorithm.warmup_steps=0",
    "algorithm.actor_updates=2",
    "algorithm.batch_size=6",
    "critic.updates=2",
    "critic.batch_size=6",
    "evaluation.seeds_per_task=1",
    "evaluation.max_turns=3",
]
TOKEN = ["algorithm.baseline=token", "baseline.learning_rate=3e-3"]


def train(folder: Path, *words: str) -> list[dict]:
    """Start a run; -> its lines of metrics, one per step, without what is measured in time."""
    recipe.main([*SMALL, *TOKEN, f"run.folder={folder}", *words])
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if "archer/advantage_mean" in row]
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "ledger/", "engine/"))} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["baseline.kind=model"], ["baseline.kind=head", "critic.frozen=true"]])
def test_a_killed_run_ends_as_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Death in step 2, after its critic was fitted. Weights, optimisers and metrics are those of the whole run."""

    class Killed(Exception):
        pass

    improve = recipe.Archer.update

    def die(self: recipe.Archer) -> dict[str, float]:
        if self.run.next_step == 2:
            raise Killed
        return improve(self)

    rows = train(tmp_path / "whole", *words)
    with monkeypatch.context() as patch:
        patch.setattr(recipe.Archer, "update", die)
        with pytest.raises(Killed):
            train(tmp_path / "killed", *words)
    assert train(tmp_path / "killed", *words) == rows
    assert len(rows) == 3 and all(row["baseline/loss"] > 0 and row["critic/loss"] > 0 for row in rows)
    assert all(row["archer/residual_ratio"] != 1 for row in rows), "the second update's baseline is trained"
    one, two = (load_file(tmp_path / name / "policy" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert same(*(last_learner(tmp_path / name) for name in ("whole", "killed")))


def last_learner(run: Path) -> dict[str, Any]:
    """Policy, baseline and both optimisers of the last checkpoint."""
    state = torch.load(max((run / "checkpoints").glob("step_*")) / "learner.pt", weights_only=True)
    assert state["critic"]["optimizer"]["state"], "the baseline's optimiser is part of it"
    return state


def same(one: Any, two: Any) -> bool:
    """Equal to the bit, however deep."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algorithm.actor=awr"], "`baseline=token` is of a policy gradient, `actor=awr` imitates"),
        (["algorithm.actor=dual", "algorithm.critic=fdvl_tv"], "`actor=dual` imitates"),
        (["algorithm.baseline=turn"], "`algorithm.baseline` must be none | token, got 'turn'"),
        (["algorithm.baseline=none"], "`baseline` has no effect with `algorithm.baseline=none`"),
        (["baseline.kind=table"], "`baseline.kind` must be model | head"),
        (["baseline.learning_rate=0"], "`baseline.learning_rate` must be"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        train(tmp_path, *words)
    assert message in str(refused.value)
    assert not any(tmp_path.iterdir()), "before anything is opened"
