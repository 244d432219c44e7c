"""DigiRL and WebRL against what their formulas reduce to: what is kept without filters, what a value converges to, the
edges of both filters (arXiv:2406.11896); minimum, residual and limits of the regression of log-ratios, the tie of an
outcome model, and how far a phase drifts in KL (arXiv:2411.02337). Critics are tables; everything else is the recipes'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from rollwright.assembly import open_codec
from rollwright.batching import Segment
from rollwright.learner import Learner
from rollwright.models import load_model
from rollwright.offpolicy import WebRLObjective, WeightedLikelihood, imitate, outcome_steps, outcomes
from rollwright.outcome_model import OutcomeCard, answer_ids
from rollwright.outcome_text import Evidence, OutcomePrompt
from rollwright.recipes import digirl, filtered_bc, webrl
from rollwright.records import TokenRecord
from rollwright.replay import TurnTable, valid_turns
from rollwright.reward import score_group
from rollwright.rewards import outcome_model
from rollwright.store import TrajectoryStore
from rollwright.tiny import make_tiny_model, tiny_llama
from rollwright.training import Training
from rollwright.types import Group, Message, StopReason, Task, Trajectory, Turn
from rollwright.value_learner import ReadingLoss

VOCAB = 16
Numbers = NDArray[Any]


def episode(
    name: str,
    states: Sequence[int],
    *,
    won: bool,
    task: str = "t",
    then: int | None = None,
    actions: Sequence[int] = (),
) -> Trajectory:
    """One prompt of one id per state, one action of one id each; `then` is what stood there where a limit cut it."""
    said = actions or [1 + (state % 3) for state in states]
    turns = [
        Turn(prompt_ids=(state,), action_ids=(action,), action_logprobs=(-1.0,), text="")
        for state, action in zip(states, said, strict=True)
    ]
    return Trajectory(
        id=name,
        task=Task(id=task, split="train"),
        seed=0,
        turns=tuple(turns),
        stop_reason=StopReason.TERMINATED if then is None else StopReason.MAX_TURNS,
        success=won,
        next_prompt_ids=() if then is None else (then,),
    )


class Table:
    """A logit for every sequence and head, moved by plain gradient descent."""

    def __init__(self, heads: Mapping[str, int], *, rate: float = 5.0) -> None:
        self.heads, self.rate = heads, rate
        self.logits: dict[tuple[int, ...], Tensor] = {}

    def stack(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """[heads, n]"""
        start = torch.zeros(self.heads["v"])
        return torch.stack([self.logits.setdefault(tuple(ids), start.clone()) for ids in sequences], dim=1)

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        assert not slow, "these values are not bootstrapped"
        return {"v": self.stack(sequences)}

    def update(self, sequences: Sequence[Sequence[int]], loss: ReadingLoss) -> dict[str, float]:
        logits = self.stack(sequences).requires_grad_()
        mean = loss({"v": logits}, torch.arange(len(sequences))).mean()
        (gradient,) = torch.autograd.grad(mean, logits)
        for ids, column in zip(sequences, gradient.T, strict=True):
            self.logits[tuple(ids)] -= self.rate * column
        return {"loss": float(mean.detach())}

    def say(self, known: Mapping[int, float]) -> None:
        """Let these states have these probabilities, on every head."""
        for state, chance in known.items():
            logit = torch.logit(torch.tensor(chance, dtype=torch.float64)).clamp(-200, 200)
            self.logits[(state,)] = logit.float().expand(self.heads["v"]).clone()

    def save_state(self, folder: Path) -> None: ...

    def load_state(self, folder: Path) -> None: ...


class InTurn:
    """Draws that take one after the other: every batch is the uniform buffer itself."""

    def choice(self, items: Numbers, size: int) -> Numbers:
        return np.resize(items, size)


def learner_of(rate: float = 1e-2) -> Learner:
    return Learner(Accelerator(cpu=True), tiny_llama(VOCAB, hidden=32, layers=1), learning_rate=rate)


def weights_of(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.weights()}


def same(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., TrajectoryStore]:
    numbers = count()

    def store(*episodes: Trajectory) -> TrajectoryStore:
        made = TrajectoryStore(tmp_path / f"store {next(numbers)}")
        if episodes:
            made.append(episodes)
        return made

    return store


def run_of(store: TrajectoryStore, learner: Learner) -> Training:
    """What a recipe's learner reads of a run."""
    parts = SimpleNamespace(store=store, learner=learner, codec=None, next_step=0, attach=lambda part: None)
    return cast(Training, parts)


# DigiRL


Digirl = Callable[..., digirl.DigirlLearner]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, stored: Callable[..., TrajectoryStore]) -> Digirl:
    """(*episodes, settings of the algorithm, of its critics): the recipe's learner over a store of them."""

    def build(
        *episodes: Trajectory, critic_updates: int = 0, critic_batch: int = 1, max_turns: int = 4, **algorithm: Any
    ) -> digirl.DigirlLearner:
        def table(*args: Any, **more: Any) -> Table:
            return Table(args[4])

        monkeypatch.setattr(digirl, "open_turn_critic", table)
        fit = {"updates": critic_updates, "batch_size": critic_batch}
        config = digirl.DigirlConfig.model_validate(
            {
                "world": {"name": "w"},
                "rollout": {"max_turns": max_turns},
                "algorithm": {"actor_updates": 4, "batch_size": 6} | algorithm,
                "instruction_critic": fit,
                "step_critic": fit,
            }
        )
        made = digirl.DigirlLearner(run_of(stored(*episodes), learner_of()), config)
        made.phases.begin(0)
        assert made.phases.may_update()
        return made

    return build


def table_of(made: digirl.DigirlLearner, name: str) -> Table:
    return cast(Table, made.critics[name])


MIXED = (
    episode("a", [3, 4, 5], won=True, task="easy"),
    episode("b", [3, 5], won=False, task="easy"),
    episode("c", [6, 7, 4, 5], won=False, task="hard", then=5),
    episode("d", [6, 4], won=True, task="hard"),
    episode("e", [6, 7], won=False, task="hard", then=7),
)


@pytest.fixture
def no_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step passes the second filter."""
    monkeypatch.setattr(digirl.DigirlLearner, "horizon", property(lambda self: float("-inf")))


def cloned(made: digirl.DigirlLearner, **algorithm: Any) -> tuple[NDArray[np.int64], dict[str, Tensor]]:
    """The turns that the filtered BC recipe takes from the same table, and the policy that it ends with."""
    settings = filtered_bc.AlgorithmSettings.model_validate({"updates": 4, "batch_size": 6} | algorithm)
    turns, learner = filtered_bc.best(made.table, settings, first=0), learner_of()
    imitate(
        learner,
        made.table,
        turns,
        np.ones(len(turns)),
        updates=settings.updates,
        batch_size=settings.batch_size,
        draws=np.random.default_rng([0, 0]),
        loss=WeightedLikelihood(aggregation="token-mean"),
    )
    return turns, weights_of(learner)


def test_without_thresholds_digirl_is_behaviour_cloning(built: Digirl, no_threshold: None) -> None:
    """All trajectories, all of their steps, and then the very weights, bit by bit."""
    made = built(*MIXED, top_frac=1.0)
    begun = weights_of(made.run.learner)
    metrics = made.fit()
    turns, expected = cloned(made, top_frac=1.0)
    assert len(turns) == 13 and metrics["digirl/trajectories_kept_count"] == 5
    assert metrics["digirl/steps_kept_frac"] == 1.0
    assert same(weights_of(made.run.learner), expected) and not same(expected, begun)


@pytest.mark.parametrize(
    ("top_frac", "positive_only", "kept"), [(0.4, False, "ad"), (0.8, False, "abcde"), (0.8, True, "ad")]
)
def test_where_nothing_is_promised_digirl_is_filtered_behaviour_cloning(
    built: Digirl, no_threshold: None, top_frac: float, positive_only: bool, kept: str
) -> None:
    """V_instr = 0 leaves the outcome as the score; with more asked for than succeeded, failures come too."""
    made = built(*MIXED, top_frac=top_frac, positive_only=positive_only)
    table_of(made, "v_instruction").say({3: 0.0, 6: 0.0})
    metrics = made.fit()
    turns, expected = cloned(made, score="success", top_frac=top_frac, positive_only=positive_only)
    assert made.filter(valid_turns(made.table)).tolist() == turns.tolist()
    assert sorted({"abcde"[owner] for owner in made.table.owners()[turns]}) == list(kept)
    assert metrics["digirl/trajectories_kept_count"] == len(kept) and metrics["digirl/steps_kept_frac"] == 1.0
    assert same(weights_of(made.run.learner), expected)


def test_a_fitted_promise_leaves_no_surprise_on_average(built: Digirl, monkeypatch: pytest.MonkeyPatch) -> None:
    """E[A_instr | c] = 0 for every instruction: A_instr = r - V_instr(c), V_instr fitted by cross-entropy."""
    made = built(*MIXED, critic_updates=200, critic_batch=10)
    made.draws = cast(np.random.Generator, InTurn())
    turns = valid_turns(made.table)
    seen: list[Numbers] = []
    best = digirl.best_trajectories

    def watched(scores: Numbers, *args: Any, **more: Any) -> Numbers:
        seen.append(scores)
        return best(scores, *args, **more)

    monkeypatch.setattr(digirl, "best_trajectories", watched)
    made.filter(turns)
    made.fit_instructions(turns)
    kept = made.filter(turns)
    before, after = seen
    assert before.tolist() == [0.5, -0.5, -0.5, 0.5, -0.5], "all is promised one in two"
    assert after[:2].mean() == pytest.approx(0, abs=1e-5) and after[2:].mean() == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(after, [1 / 2, -1 / 2, -1 / 3, 2 / 3, -1 / 3], atol=1e-4)
    assert set(made.table.owners()[kept]) == {3}, "the success that was promised least"


def test_the_step_value_is_the_share_of_successes_of_a_state_wherever_in_the_episode_it_stands(built: Digirl) -> None:
    """State 8 comes first, second and last. Each transition shows both of its ends."""
    episodes = (
        episode("a", [8, 9], won=True),
        episode("b", [9, 8], won=False),
        episode("c", [10, 9, 8], won=False),
        episode("d", [8, 10, 9], won=True),
        episode("e", [8, 10], won=False, then=9),
        episode("f", [10, 10, 10, 8], won=True),
    )
    labels: dict[int, list[bool]] = {8: [], 9: [], 10: []}
    for one in episodes:
        shown = [turn.prompt_ids[0] for turn in one.turns]
        after = [*shown[1:], *one.next_prompt_ids]
        for state in (*shown, *after):
            labels[state].append(bool(one.success))
    made = built(*episodes, critic_updates=600, critic_batch=16)
    made.draws = cast(np.random.Generator, InTurn())
    turns = valid_turns(made.table)
    assert len(turns) == 16
    made.fit_steps(turns)
    critic = made.critics["v_step"]
    expected = {state: float(np.mean(seen)) for state, seen in labels.items()}
    assert 0 < expected[8] < 1 and len({round(value, 2) for value in expected.values()}) == 3
    values = critic.read([(8,), (9,), (10,)])["v"].sigmoid()
    wanted = torch.tensor(list(expected.values())).expand(2, 3)
    torch.testing.assert_close(values, wanted, rtol=0, atol=1e-2)
    steps = outcome_steps(critic, "v", made.table, turns, outcomes(made.table))
    along = torch.tensor([expected[t.prompt_ids[0]] for t in made.table.transitions(turns)])
    torch.testing.assert_close(steps.values, along, rtol=0, atol=1e-2)
    ends = [0.0, 0.0, 0.0, 0.0, expected[9], 0.0]  # of what follows; only the fifth was cut
    torch.testing.assert_close(steps.ends, torch.tensor(ends), rtol=0, atol=1e-2)


def test_where_everything_succeeds_the_surprising_trajectories_and_their_late_steps_are_kept(built: Digirl) -> None:
    """A constant V_step of 0.3 leaves A = w = 0.5^(H - h) before the end, 1 at the end; the threshold is 1/4."""
    won = [episode(f"e{k}", [3, 4, 5, 6], won=True, task="easy") for k in range(2)]
    won += [episode("rare", [7, 4, 5, 6], won=True, task="hard")]
    made = built(*won, top_frac=0.1)
    turns = valid_turns(made.table)
    table_of(made, "v_instruction").say({3: 0.6, 7: 0.6})
    assert made.filter(turns).tolist() == list(range(12)), "equal surprises: none is below the quantile"
    table_of(made, "v_instruction").say({3: 0.9, 7: 0.2})
    kept = made.filter(turns)
    assert kept.tolist() == [8, 9, 10, 11]
    table_of(made, "v_step").say({4: 0.3, 5: 0.3, 6: 0.3, 7: 0.3})
    assert made.weigh(kept).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_where_nothing_succeeds_positive_only_keeps_nothing_and_nothing_moves(built: Digirl) -> None:
    lost = [episode(f"e{k}", [3, 4], won=False) for k in range(3)]
    made = built(*lost)
    assert len(made.filter(valid_turns(made.table))) == 6, "equal disappointments are all among the best"
    careful = built(*lost, positive_only=True)
    begun = weights_of(careful.run.learner)
    assert not len(careful.filter(valid_turns(careful.table)))
    metrics = careful.fit()
    assert metrics == {"digirl/trajectories_kept_count": 0.0, "digirl/steps_kept_frac": 0.0}
    assert same(weights_of(careful.run.learner), begun) and careful.run.learner.step == 0


@pytest.mark.parametrize("form", ["paper", "released"])
def test_a_trajectory_of_one_step_is_kept_where_it_succeeded(built: Digirl, form: str) -> None:
    """Paper: w = 1, so A = 1; a failure has A = -V, or V(s') - V where a limit cut it. Values must not matter to the
    first."""
    made = built(
        episode("won", [3], won=True),
        episode("lost", [4], won=False),
        episode("cut", [5], won=False, then=6),
        episode("cut and better", [5], won=False, then=7),
        form=form,
        top_frac=1.0,
    )
    table_of(made, "v_step").say({3: 0.99, 4: 0.2, 5: 0.5, 6: 0.4, 7: 0.9})
    turns = valid_turns(made.table)
    assert made.filter(turns).tolist() == [0, 1, 2, 3]
    assert made.weigh(turns).tolist() == [1.0, 0.0, 0.0, 1.0]
    assert made.weigh(turns[2:3]).tolist() == [0.0], "alone as in company"


def test_no_turn_at_all_is_nothing_to_learn_and_no_error(built: Digirl) -> None:
    made = built(critic_updates=2, critic_batch=4)
    begun = weights_of(made.run.learner)
    none = np.zeros(0, np.int64)
    assert not len(made.filter(none)) and not len(made.weigh(none))
    assert made.fit() == {"digirl/trajectories_kept_count": 0.0, "digirl/steps_kept_frac": 0.0}
    assert same(weights_of(made.run.learner), begun)


@pytest.mark.parametrize("why", [StopReason.ENV_ERROR, StopReason.TIMEOUT])
def test_an_episode_that_never_had_a_turn_counts_for_nothing(built: Digirl, why: StopReason) -> None:
    """It stands between two others; neither filter may take a neighbour's first turn for its own."""
    blank = Trajectory(id="x", task=Task(id="t", split="train"), seed=0, turns=(), stop_reason=why, success=False)
    won, lost = episode("won", [3, 4], won=True), episode("lost", [6, 5], won=False)
    with_it, without = built(won, blank, lost, top_frac=0.5), built(won, lost, top_frac=0.5)
    found = []
    for made in (with_it, without):
        table_of(made, "v_instruction").say({3: 0.4, 6: 0.7})
        table_of(made, "v_step").say({3: 0.4, 4: 0.5, 5: 0.9, 6: 0.2})
        turns = valid_turns(made.table)
        found.append((turns.tolist(), made.filter(turns).tolist(), made.weigh(turns).tolist()))
        made.fit()
    assert found[0] == found[1] and found[0][0] == [0, 1, 2, 3] and found[0][1] == [0, 1]
    assert same(*(weights_of(made.run.learner) for made in (with_it, without)))


# WebRL: the loss

REFERENCE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
TOKENS = torch.tensor([1, 2, 3])
"""Three arms, of so many tokens: their log-probs lie spread over them."""


def arms_loss(logits: Tensor, advantages: Tensor, beta: float) -> Tensor:
    """E[loss] over arms drawn from the reference, by the recipe's objective."""
    index = torch.arange(3).repeat_interleave(TOKENS)

    def spread(logprobs: Tensor) -> Tensor:
        return (logprobs / TOKENS)[index]

    record = TokenRecord(
        mask=torch.ones(6, dtype=torch.bool),
        sequence_index=index,
        num_sequences=3,
        versions=torch.zeros(6, dtype=torch.long),
        weights=torch.ones(6),
        logprobs_sampled=torch.zeros(6),
        advantages=advantages[index],
        logprobs=spread(logits.log_softmax(dim=0)),
        logprobs_ref=spread(REFERENCE.log()),
    )
    losses = WebRLObjective(form="squared", beta=beta)(record).losses
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


# WebRL: the tie, the drift


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


STATES = range(8, 14)


def drift(store: TrajectoryStore, promised: Mapping[int, float], beta: float) -> float:
    """Mean KL(pi || pi_ref) over the states after one epoch of the recipe, over all actions of one token."""
    learner = learner_of(rate=3e-3)
    config = webrl.WebrlConfig.model_validate(
        {"world": {"name": "w"}, "algorithm": {"beta": beta, "epochs": 1, "batch_size": 8, "outcome": "verdict"}}
    )
    made = webrl.WebrlLearner(run_of(store, learner), config)
    cast(Table, made.critic).say(promised)
    made.phase.begin()
    made.labels, made.valid = outcomes(made.table), valid_turns(made.table)
    made.draws = np.random.default_rng(0)
    assert float(np.abs(made.advantages(made.valid)).min()) > 0
    made.fit_policy(made.valid)
    assert learner.step == len(made.valid) // 8
    every = [
        Segment(
            prompt_ids=(state,),
            action_ids=(action,),
            action_mask=(True,),
            logprobs_sampled=(0.0,),
            advantages=(0.0,),
            sequence=(state, action),
        )
        for state in STATES
        for action in range(VOCAB)
    ]
    now, before = (torch.cat(by.logprobs(every)).view(-1, VOCAB) for by in (learner, made.reference))
    torch.testing.assert_close(now.exp().sum(dim=1), torch.ones(len(now)))
    return float((now.exp() * (now - before)).sum(dim=1).mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_the_kl_to_the_reference_after_one_epoch_falls_with_beta(
    monkeypatch: pytest.MonkeyPatch, stored: Callable[..., TrajectoryStore], seed: int
) -> None:
    """Random advantages: random outcomes against random promises, in the paper's form of the loss."""
    draws = np.random.default_rng(seed)
    monkeypatch.setattr(webrl, "open_turn_critic", lambda *args, **more: Table(args[4]))
    played = [
        episode(f"e{k}", [int(draws.choice(STATES))], won=bool(draws.integers(2)), actions=[int(draws.integers(VOCAB))])
        for k in range(480)
    ]
    promised = {state: float(draws.uniform(0.1, 0.9)) for state in STATES}
    store = stored(*played)
    found = [drift(store, promised, beta) for beta in (0.1, 1.0, 10.0)]
    assert found[0] > 2 * found[1] > 4 * found[2] > 0, found
