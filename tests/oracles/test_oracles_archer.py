"""ArCHer against numbers solved by hand: the critic's fixed points on a chain of three states in the online and in the
offline form, the score-function identity of the actor, and a warm-up that leaves the policy as it is. Formulas are
those of arXiv:2402.19446; the chain, its buffer and its table of values are the test's, everything else is the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from rollwright.contracts.record import Span, StopReason, Trajectory
from rollwright.critics.critic_targets import HeadLoss, HeadTargets, loss_of_heads, rows_of_heads
from rollwright.critics.replay_updates import WeightedLikelihood, actor_weights, least_advantages, stored_batch
from rollwright.generation.engine import Generation, Sampling
from rollwright.learner.learner import Learner
from rollwright.maths.value_targets import polyak_update
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import tiny_llama
from rollwright.recipes import archer as recipe
from rollwright.run_io.tracking import read_metrics
from rollwright.store.replay import Transition
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.loop import Training
from tests import builders

pytestmark = pytest.mark.usefixtures("at_root")
Ids = tuple[int, ...]

# CHAIN-3: F moves on, from state 2 to the end; B moves back. A turn costs 1, the one that ends costs nothing.

STATES = ((5,), (6,), (7,))
F, B = (10,), (11,)
GAMMA = 0.95


def solved(p: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """V [3] and Q [3, 2], F first, of the policy that moves on with probability p, by linear algebra."""
    reward = np.array([[-1.0, -1.0], [-1.0, -1.0], [0.0, -1.0]])
    forward = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=np.float64)
    back = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float64)
    mixed = p * forward + (1 - p) * back
    values = np.linalg.solve(np.eye(3) - GAMMA * mixed, reward @ [p, 1 - p])
    return values, reward + GAMMA * np.stack([forward @ values, back @ values], axis=1)


def walk(name: str, visits: Sequence[tuple[Ids, Ids, float]], *, then: Ids = ()) -> Trajectory:
    """Turns of one action each; cut before the state `then`, or ended by the task."""
    turns = [builders.turn(state, action, reward, logprobs=-0.7) for state, action, reward in visits]
    why = StopReason.MAX_TURNS if then else StopReason.TERMINATED
    return builders.episode(name, *turns, task="chain", stop=why, next_prompt_ids=then)


class Table:
    """A value for every sequence of the chain and every head: plain gradient descent, and a slow copy."""

    def __init__(
        self,
        heads: Mapping[str, int],
        losses: Mapping[str, HeadLoss],
        *,
        polyak: float,
        start: float,
        rate: float = 1.5,
    ) -> None:
        self.losses = losses
        known = [*STATES, *(state + action for state in STATES for action in (F, B))]
        self.places = {ids: place for place, ids in enumerate(known)}
        # Heads begin apart, so that one that followed the other's target would be seen.
        begun = {name: start - torch.arange(n)[:, None].expand(n, len(known)).float() for name, n in heads.items()}
        self.fast, self.slow = ({name: rows.clone() for name, rows in begun.items()} for _ in range(2))
        self.polyak, self.rate = polyak, rate

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        columns = [self.places[tuple(ids)] for ids in sequences]
        return {name: rows[:, columns] for name, rows in (self.slow if slow else self.fast).items()}

    def update(self, targets: HeadTargets) -> dict[str, float]:
        sequences, wanted = rows_of_heads(targets)
        columns = [self.places[tuple(ids)] for ids in sequences]
        leaves = {name: rows.clone().requires_grad_() for name, rows in self.fast.items()}
        read = {name: rows[:, columns] for name, rows in leaves.items()}
        mean = loss_of_heads(self.losses, read, wanted).mean()
        found = torch.autograd.grad(mean, list(leaves.values()))
        for rows, gradient in zip(self.fast.values(), found, strict=True):
            rows.sub_(self.rate * gradient)
        polyak_update(self.slow.values(), self.fast.values(), polyak=self.polyak)
        return {"critic/loss": float(mean.detach())}

    def save_state(self, folder: Path) -> None: ...

    def load_state(self, folder: Path) -> None: ...


class Proportional:
    """A policy whose answers to equal prompts come in a fixed round: its shares are exact in every round."""

    name, version, context_length = "proportional", 0, 100

    def __init__(self, answers: Sequence[Ids]) -> None:
        self.answers, self.asked = answers, dict[Ids, int]()

    async def generate(self, prompt_ids: Ids, sampling: Sampling, *, request_id: str) -> Generation:
        count = self.asked[prompt_ids] = self.asked.get(prompt_ids, -1) + 1
        ids, span = self.answers[count % len(self.answers)], Span(start=0, end=1, version=0)
        return Generation(token_ids=ids, logprobs=(-0.7,), finish_reason="stop", spans=(span,))

    def close(self) -> None: ...


class InTurn:
    """Draws that take one after the other: every batch is the uniform buffer itself."""

    def choice(self, items: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        return np.resize(items, size)


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(policy's round of answers, rounds per batch, settings): the recipe's two levels on the chain's six turns."""
    store = TrajectoryStore(tmp_path / "own")
    store.append([walk("on", [(STATES[0], F, -1.0), (STATES[1], F, -1.0), (STATES[2], F, 0.0)])])
    back = [(STATES[2], B, -1.0), (STATES[1], B, -1.0), (STATES[0], B, -1.0)]
    store.append([walk("back", back, then=STATES[0])])

    def build(answers: Sequence[Ids], *, updates: int, start: float = -5.0, **algorithm: Any) -> recipe.Archer:
        def table(*args: Any, **more: Any) -> Table:
            return Table(args[4], more["losses"], polyak=more["polyak"], start=start)

        monkeypatch.setattr(recipe, "open_turn_critic", table)
        critic = {"updates": updates, "batch_size": 6 * len(answers)}
        config = recipe.ArcherConfig.model_validate(
            {"world": {"name": "chain"}, "algorithm": {"polyak": 1.0} | algorithm, "critic": critic}
        )
        run = SimpleNamespace(
            store=store,
            learner=SimpleNamespace(policy=tiny_llama(16, hidden=32, layers=1)),
            codec=None,
            engine=Proportional(answers),
            collector=SimpleNamespace(sampling=Sampling(max_tokens=1)),
            attach=lambda part: None,
        )
        made = recipe.Archer(cast(Training, run), config)
        assert made.phases.begin(0) and made.phases.may_update()
        made.draw(0, [])
        made.draws = cast(np.random.Generator, InTurn())
        assert len(made.turns) == 6
        return made

    return build


def transitions_of(made: recipe.Archer, action: Ids) -> list[Transition]:
    """The chain's turns with this action, by state."""
    turns = [t for t in made.table.transitions(made.turns) if t.action_ids == action]
    return sorted(turns, key=lambda turn: turn.prompt_ids)


def values_of(made: recipe.Archer) -> tuple[Tensor, Tensor, Tensor]:
    """[2, 3] each: both heads' V, Q(., F), Q(., B)."""
    read = made.critic.read
    return (
        read(STATES)["v"],
        read([state + F for state in STATES])["q"],
        read([state + B for state in STATES])["q"],
    )


Numbers = Sequence[float] | Sequence[Sequence[float]] | NDArray[np.float64]


def close(actual: Tensor, expected: Numbers, *, atol: float = 1e-3) -> None:
    wanted = torch.as_tensor(np.asarray(expected), dtype=actual.dtype).expand_as(actual)
    torch.testing.assert_close(actual, wanted, rtol=0, atol=atol)


# The critic


@pytest.mark.parametrize(
    ("answers", "values", "advantages"),
    [
        ((F, B), (-7.529148, -6.216426, -3.452802), (0.623543, 1.936264, 3.452802)),
        ((F, F, F, F, B), (-3.155316, -2.047113, -0.588952), None),
    ],
    ids=["even", "mostly on"],
)
def test_a_critic_fitted_from_a_uniform_buffer_finds_values_and_advantages_of_the_policy(
    chain: Any, answers: Sequence[Ids], values: Sequence[float], advantages: Sequence[float] | None
) -> None:
    """y_Q = r + gamma V_slow(s'), y_V = Q_slow(s, a') with a' of the policy, whatever wrote the buffer."""
    made = chain(answers, updates=300)
    made.fit()
    p = answers.count(F) / len(answers)
    exact_v, exact_q = solved(p)
    np.testing.assert_allclose(exact_v, values, atol=1e-6)
    v, on, back = values_of(made)
    close(v, values)
    close(on, exact_q[:, 0])
    close(back, exact_q[:, 1])
    found = [least_advantages(made.critic, transitions_of(made, action)) for action in (F, B)]
    close(p * found[0] + (1 - p) * found[1], [0.0] * 3)  # E_pi[A] = 0
    close(found[0], exact_q[:, 0] - exact_v)
    if advantages is not None:
        close(found[0], advantages)
        close(found[1], [-a for a in advantages])
        close(on, [-6.905605, -4.280162, 0.0])
        close(back, [-8.152690, -8.152690, -6.905605])


@pytest.mark.parametrize(("expectile", "p"), [(0.5, 0.5), (0.8, 0.8)])
def test_an_expectile_of_two_equally_frequent_actions_is_the_policy_that_takes_the_better_so_often(
    chain: Any, expectile: float, p: float
) -> None:
    """No action is sampled: the policy would only ever move back."""
    made = chain((B,), updates=600, critic="iql", expectile=expectile)
    made.fit()
    exact_v, exact_q = solved(p)
    v, on, back = values_of(made)
    close(v, exact_v)
    close(on, exact_q[:, 0])
    close(back, exact_q[:, 1])
    assert not made.run.engine.asked


def test_the_offline_critic_finds_the_best_values_on_record(chain: Any) -> None:
    """tau = 0.9999 leaves 1e-4 of the worse action. V* = (-1.95, -1, 0), Q*(., B) = (-2.8525, -2.8525, -1.95)."""
    made = chain((B,), updates=600, start=-10.0, critic="iql", expectile=0.9999)
    made.fit()
    v, on, back = values_of(made)
    close(v, [-1.95, -1.0, 0.0], atol=2e-3)
    close(on, [-1.95, -1.0, 0.0], atol=2e-3)
    close(back, [-2.8525, -2.8525, -1.95], atol=2e-3)


def test_each_head_has_its_own_slow_target_and_the_advantage_takes_the_smaller_of_both(chain: Any) -> None:
    made = chain((F,), updates=1)
    critic = made.critic
    slow, fast = critic.slow, critic.fast
    slow["v"][:, :3] = torch.tensor([[-1.0, -2.0, -3.0], [-5.0, -4.0, -6.0]])
    slow["q"][:, critic.places[STATES[0] + F]] = torch.tensor([-7.0, -9.0])
    fast["v"].fill_(99.0)  # targets are the slow copy's alone
    on = transitions_of(made, F)
    targets = made.targets(on, [STATES[0] + F] * 3)
    close(targets["q"], [[-1 + GAMMA * -2.0, -1 + GAMMA * -3.0, 0.0], [-1 + GAMMA * -4.0, -1 + GAMMA * -6.0, 0.0]])
    close(targets["v"], [[-7.0] * 3, [-9.0] * 3])
    fast["v"][:, 0] = torch.tensor([-2.0, -1.0])
    fast["q"][:, critic.places[STATES[0] + F]] = torch.tensor([-0.25, -0.5])
    close(least_advantages(made.critic, on[:1]), [-0.5 - -2.0])


# The actor

WORDS = 8


def expected_gradient(model: Learner, worths: Sequence[float]) -> tuple[float, float]:
    """Norm of the recipe's gradient with each utterance of two tokens counted as often as the policy writes it, and
    of the gradient of sum_a pi(a) A(a), both divided by the number of utterances."""
    prompt, spoken = (1, 2), list(product(range(WORDS), repeat=2))
    blank: dict[str, Any] = {"reward": 0.0, "next_prompt_ids": (), "terminated": True, "truncated": False}
    blank |= {"return_to_go": 0.0, "trajectory_return": 0.0, "success": None, "task": "t", "turn": 0, "turns_left": 0}
    blank |= {"prompt_ids": prompt, "action_mask": (True, True), "logprobs": (0.0, 0.0), "trajectory": 0}
    batch = [Transition(action_ids=ids, index=place, **blank) for place, ids in enumerate(spoken)]
    advantages = torch.tensor(worths)
    weights = actor_weights(advantages, recipe.AlgorithmSettings().actor, recipe.AlgorithmSettings().critic)
    tokens = stored_batch(batch, weights.tolist())
    chances = torch.stack([row.sum() for row in tokens.by_turn(model.logprobs(tokens))]).exp()
    assert float(chances.sum()) == pytest.approx(1.0, abs=1e-5)
    rows = torch.tensor([prompt + ids for ids in spoken])
    logits = model.policy(input_ids=rows).logits[:, 1:3].log_softmax(dim=-1)
    exact = logits.gather(2, rows[:, 2:, None]).sum(dim=(1, 2)).exp()
    parameters = [p for p in model.policy.parameters() if p.requires_grad]
    wanted = torch.autograd.grad((exact * advantages).sum() / len(spoken), parameters)
    metrics = model.update(stored_batch(batch, (weights * chances).tolist()), WeightedLikelihood())
    return metrics["optim/grad_norm"], float(torch.cat([g.flatten() for g in wanted]).norm())


def test_an_advantage_of_one_everywhere_has_no_expected_gradient() -> None:
    """E[grad log pi] = 0: over all 64 utterances of two tokens, each as often as the policy writes it."""
    torch.manual_seed(0)
    model = Learner(Accelerator(cpu=True), tiny_llama(WORDS, hidden=32, layers=1), learning_rate=1e-3)
    flat, exact = expected_gradient(model, [1.0] * 64)
    assert flat < 1e-6 and exact < 1e-6


def test_other_advantages_have_the_gradient_of_the_expected_advantage() -> None:
    torch.manual_seed(0)
    model = Learner(Accelerator(cpu=True), tiny_llama(WORDS, hidden=32, layers=1), learning_rate=1e-3)
    worths = torch.randn(64, generator=torch.Generator().manual_seed(1)).tolist()
    found, exact = expected_gradient(model, worths)
    assert exact > 1e-4 and found == pytest.approx(exact, rel=1e-4)


# The warm-up


def held(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a saved module, by their names in the model."""
    return {name.removeprefix("model."): tensor for name, tensor in saved["weights"].items()}


def equal(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


def test_the_policy_rests_bit_by_bit_in_the_warm_up_while_the_critic_learns(tmp_path: Path) -> None:
    words = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "world.options.maze=umaze"]
    words += ["run.steps=3", "run.checkpoint_every=1", "run.keep_checkpoints=9", "run.transcripts_every=0"]
    words += ["rollout.groups_per_step=3", "rollout.max_turns=5", "evaluation.seeds_per_task=1"]
    words += ["evaluation.max_turns=2", "critic.updates=2", "critic.batch_size=6", "algorithm.batch_size=6"]
    words += ["algorithm.actor_updates=2", "algorithm.warmup_steps=2", f"run.folder={tmp_path}"]
    recipe.main(["recipes/text/maze_archer.yaml", *words])
    folders = sorted((tmp_path / "checkpoints").glob("step_*"))
    policies, critics = (
        [torch.load(folder / name, weights_only=True) for folder in folders] for name in ("learner.pt", "critic.pt")
    )
    begun = {name: p.detach() for name, p in load_policy(tmp_path / "tiny_model", "float32")[0].named_parameters()}
    assert len(begun) >= 5 and equal(begun, held(policies[0]["policy"])) and equal(begun, held(policies[1]["policy"]))
    assert [state["step"] for state in policies] == [0, 0, 2]
    assert not policies[1]["policy"]["optimizer"]["state"], "its optimiser has not begun either"
    assert not equal(begun, held(policies[2]["policy"])), "after the warm-up it learns"
    assert [state["step"] for state in critics] == [2, 4, 6]
    assert not equal(held(critics[0]["fast"]), held(critics[1]["fast"]))
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "critic/loss" in row]
    assert ["archer/advantage_mean" in row for row in rows] == [False, False, True]
