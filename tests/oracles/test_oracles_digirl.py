"""DigiRL (arXiv:2406.11896) against what its formulas reduce to.

Without filters it is behaviour cloning, without promises filtered behaviour cloning, bit by bit. What each value
converges to, and what passes at the edges of both filters. Critics are tables, the rest the recipe's.
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

from rollwright.contracts.record import StopReason, Task, Trajectory
from rollwright.critics.critic_targets import HeadTargets, loss_of_heads, rows_of_heads
from rollwright.critics.outcome_values import outcome_steps, outcomes
from rollwright.critics.replay_updates import WeightedLikelihood, imitate
from rollwright.learner.learner import Learner
from rollwright.maths import outcome_loss
from rollwright.models.tiny_model import tiny_llama
from rollwright.recipes import digirl, filtered_bc
from rollwright.store.replay import valid_turns
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.loop import Training
from rollwright.training.replay_loop import learn_from_stored
from tests import builders

Numbers = NDArray[Any]
Digirl = Callable[..., digirl.Digirl]


def episode(name: str, states: Sequence[int], *, won: bool, task: str = "t", then: int | None = None) -> Trajectory:
    """One prompt of one id per state, one action of one id each; `then` is what stood there where a limit cut it."""
    turns = [builders.turn((state,), (1 + state % 3,)) for state in states]
    stop = StopReason.TERMINATED if then is None else StopReason.MAX_TURNS
    follows = () if then is None else (then,)
    return builders.episode(name, *turns, task=task, stop=stop, success=won, next_prompt_ids=follows)


class Table:
    """A logit for every sequence and head, moved by plain gradient descent."""

    def __init__(self, heads: Mapping[str, int]) -> None:
        self.heads = heads
        self.logits: dict[tuple[int, ...], Tensor] = {}

    def stack(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """[heads, n]"""
        start = torch.zeros(self.heads["v"])
        return torch.stack([self.logits.setdefault(tuple(ids), start.clone()) for ids in sequences], dim=1)

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        assert not slow, "these values are not bootstrapped"
        return {"v": self.stack(sequences)}

    def update(self, targets: HeadTargets) -> dict[str, float]:
        sequences, wanted = rows_of_heads(targets)
        logits = self.stack(sequences).requires_grad_()
        mean = loss_of_heads({"v": outcome_loss}, {"v": logits}, wanted).mean()
        (gradient,) = torch.autograd.grad(mean, logits)
        for ids, column in zip(sequences, gradient.T, strict=True):
            self.logits[tuple(ids)] -= 5.0 * column
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


def learner_of() -> Learner:
    return Learner(Accelerator(cpu=True), tiny_llama(16, hidden=32, layers=1), learning_rate=1e-2)


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


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, stored: Callable[..., TrajectoryStore]) -> Digirl:
    """(*episodes, settings of the algorithm, of its critics): the recipe's learner over a store of them."""

    def build(
        *episodes: Trajectory, critic_updates: int = 0, critic_batch: int = 1, max_turns: int = 4, **algorithm: Any
    ) -> digirl.Digirl:
        def table(*args: Any, **more: Any) -> Table:
            assert more["losses"] == {"v": outcome_loss}
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
        made = digirl.Digirl(run_of(stored(*episodes), learner_of()), config)
        made.phases.begin(0)
        assert made.phases.may_update()
        return made

    return build


def table_of(made: digirl.Digirl, name: str) -> Table:
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
    monkeypatch.setattr(digirl.Digirl, "horizon", property(lambda self: float("-inf")))


def cloned(made: digirl.Digirl, **algorithm: Any) -> tuple[NDArray[np.int64], dict[str, Tensor]]:
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
    metrics = learn_from_stored(made, 0, [], seed=0)
    turns, expected = cloned(made, top_frac=1.0)
    assert len(turns) == 13 and metrics["digirl/trajectories_kept_count"] == 5
    assert metrics["digirl/steps_kept_frac"] == 1.0
    assert same(weights_of(made.run.learner), expected) and not same(expected, begun)


@pytest.mark.parametrize(
    ("top_frac", "positive_only", "kept"), [(0.4, False, "ad"), (1.0, False, "abcde"), (0.8, True, "ad")]
)
def test_where_nothing_is_promised_digirl_is_filtered_behaviour_cloning(
    built: Digirl, no_threshold: None, top_frac: float, positive_only: bool, kept: str
) -> None:
    """V_instr = 0 leaves the outcome as the score. Where equals stand at the quantile, DigiRL alone keeps them all."""
    made = built(*MIXED, top_frac=top_frac, positive_only=positive_only)
    table_of(made, "v_instruction").say({3: 0.0, 6: 0.0})
    metrics = learn_from_stored(made, 0, [], seed=0)
    turns, expected = cloned(made, score="success", top_frac=top_frac, positive_only=positive_only)
    assert made.filter(valid_turns(made.table)).tolist() == turns.tolist()
    assert sorted({"abcde"[owner] for owner in made.table.owners()[turns]}) == list(kept)
    assert metrics["digirl/trajectories_kept_count"] == len(kept) and metrics["digirl/steps_kept_frac"] == 1.0
    assert same(weights_of(made.run.learner), expected)


def test_digirl_keeps_all_that_tie_with_the_quantile_and_filtered_cloning_a_share(built: Digirl) -> None:
    made = built(*MIXED, top_frac=0.8)
    table_of(made, "v_instruction").say({3: 0.0, 6: 0.0})
    owners = made.table.owners()
    assert set(owners[made.filter(valid_turns(made.table))]) == {0, 1, 2, 3, 4}
    settings = filtered_bc.AlgorithmSettings(score="success", top_frac=0.8)
    cloned_from = set(owners[filtered_bc.best(made.table, settings, first=0)])
    assert {0, 3} < cloned_from and len(cloned_from) == 4


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
    metrics = learn_from_stored(careful, 0, [], seed=0)
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
    assert learn_from_stored(made, 0, [], seed=0) == {
        "digirl/trajectories_kept_count": 0.0,
        "digirl/steps_kept_frac": 0.0,
    }
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
        learn_from_stored(made, 0, [], seed=0)
    assert found[0] == found[1] and found[0][0] == [0, 1, 2, 3] and found[0][1] == [0, 1]
    assert same(*(weights_of(made.run.learner) for made in (with_it, without)))
