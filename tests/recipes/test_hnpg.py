"""HNPG's recipe: targets and loss of the hybrid critic by number, both sets of states in the actor, whole runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from rollwright.batching import TokenBatch, join_batches
from rollwright.batching.credit import flatten
from rollwright.contracts.errors import ConfigError, DataError
from rollwright.contracts.record import Group, StopReason
from rollwright.critics.critic_targets import loss_of_heads, rows_of_heads
from rollwright.critics.fresh_actions import FreshValues
from rollwright.evaluation import load_evaluation
from rollwright.recipes import collect, hnpg
from rollwright.recipes.hnpg import AlgorithmSettings, Hnpg, whitened
from rollwright.run_io.tracking import read_metrics
from rollwright.store.replay import Transition
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders
from tests.token_batches import SpelledTurn, batch_of


def group(*rewards: float, stop: StopReason = StopReason.TERMINATED, follows: tuple[int, ...] = ()) -> Group:
    turns = [builders.turn((5, 6), (7,), reward) for reward in rewards]
    return builders.group(builders.episode("e", *turns, stop=stop, next_prompt_ids=follows))


def hybrid(value: float = 4.0, **settings: Any) -> Any:
    """The recipe's object without run and model: every fresh action is worth `value`."""
    made = SimpleNamespace(
        algorithm=AlgorithmSettings(**settings),
        config=SimpleNamespace(run=SimpleNamespace(seed=0)),
        values=worth(value),
        fresh=SimpleNamespace(begin=lambda step: None),
    )
    return made


def worth(value: float) -> FreshValues:
    """Every fresh action is worth so much."""
    critic = SimpleNamespace(read=lambda acted, slow: {"q": torch.full((1, len(acted)), value)})
    fresh = lambda prompts: [SimpleNamespace(token_ids=(7,)) for _ in prompts]  # noqa: E731
    return FreshValues(cast(Any, critic), cast(Any, fresh), samples=2)


def logged(reward: float, *, follows: tuple[int, ...] = (), truncated: bool = False) -> Transition:
    return Transition(
        prompt_ids=(5,),
        action_ids=(7,),
        action_mask=(True,),
        logprobs=(0.0,),
        reward=reward,
        next_prompt_ids=follows,
        terminated=not follows,
        truncated=truncated,
        return_to_go=0.0,
        trajectory_return=0.0,
        success=None,
        task="t",
        turn=0,
        turns_left=0,
        trajectory=0,
        index=0,
    )


def test_own_turns_are_worth_what_was_still_earned() -> None:
    made = hybrid(gamma=0.5)
    Hnpg.draw(made, 0, [group(1.0, 2.0, 4.0)])
    assert made.returns.tolist() == [3.0, 4.0, 4.0] and made.own.turns == flatten([group(1.0, 2.0, 4.0)]).turns
    Hnpg.draw(made, 0, [group(1.0, 2.0, stop=StopReason.MAX_TURNS, follows=(9,))])
    assert made.returns.tolist() == [3.0, 4.0], "a limit is no end: 2 + 0.5 * 4 follow"
    ends = hybrid(gamma=0.5, truncated_end=True)
    Hnpg.draw(ends, 0, [group(1.0, 2.0, stop=StopReason.MAX_TURNS, follows=(9,))])
    assert ends.returns.tolist() == [2.0, 2.0]


def test_logged_turns_look_one_step_ahead() -> None:
    batch = [logged(1.0, follows=(5, 6)), logged(1.0), logged(1.0, follows=(9,), truncated=True)]
    assert worth(4.0).targets(batch, gamma=0.5).tolist() == [3.0, 1.0, 3.0]
    assert worth(4.0).targets(batch, gamma=0.5, truncated_end=True).tolist() == [3.0, 1.0, 1.0]
    assert worth(4.0).targets([], gamma=1.0).tolist() == []


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 1.0), (1.0, 1.0 + 4.0), (0.5, 1.0 + 2.0)])
def test_the_loss_is_the_two_means(weight: float, expected: float) -> None:
    """Own errors 1 and 1, logged ones 2, 2, 2, whatever the micro-batches are."""
    made, asked = hybrid(offline_weight=weight), []
    made.config.critic = SimpleNamespace(updates=1, batch_size=2)
    made.own, made.returns = SimpleNamespace(turns=[builders.turn((5, 6), (7,), 0.0)] * 2), torch.tensor([1.0, -1.0])
    made.draws = SimpleNamespace(integers=lambda high, size: [0, 1])
    made.sample = lambda size: [logged(0.0)] * 3
    made.values = SimpleNamespace(targets=lambda batch, **_: torch.tensor([2.0, -2.0, 2.0])[: len(batch)])
    made.critic = SimpleNamespace(update=lambda rows, weights: asked.append(rows_of_heads(rows, weights)) or {})
    Hnpg.fit(made)
    ((sequences, columns),) = asked
    size = len(sequences)
    assert size == (5 if weight else 2)
    parts = [torch.tensor([size - 1, 0]), torch.arange(1, size - 1)]
    total = 0.0
    for places in parts:
        part = {name: column[..., places] for name, column in columns.items()}
        total += float(loss_of_heads({}, {"q": torch.zeros(1, len(places))}, part).sum())
    assert total / size == pytest.approx(expected)


def test_whitening_leaves_out_tokens_that_nobody_chose() -> None:
    """(1, 3) has the mean 2 and the unbiased variance 2; a forced token between them is not a third number."""
    turn = SpelledTurn(
        prompt_ids=(5,), action_ids=(7, 8, 9), mask=(True, False, True), advantages=(1.0, 0.0, 3.0), sequence=0
    )
    found = whitened(batch_of([turn]))
    assert found.advantages.tolist() == pytest.approx([-(2**-0.5), 2**-0.5])


def test_both_sets_share_one_scale() -> None:
    def tokens(*advantages: float) -> TokenBatch:
        turn = SpelledTurn(prompt_ids=(1,), action_ids=(2,) * len(advantages), advantages=advantages, sequence=0)
        return batch_of([turn])

    found = whitened(join_batches([tokens(1.0, 1.0), tokens(4.0)]))
    flat = found.advantages.numpy()
    assert flat.mean() == pytest.approx(0, abs=1e-6) and flat.std(ddof=1) == pytest.approx(1, abs=1e-4)
    assert flat[0] == flat[1] < 0 < flat[2], "and the sets stay sequences of their own"
    assert found.sequence_index.tolist() == [0, 0, 1]


SMALL = [
    "recipes/text/maze_hnpg.yaml",
    "model.path=tiny",
    "model.tiny_hidden=32",
    "model.tiny_layers=1",
    "world.options.maze=umaze",
    "run.steps=2",
    "rollout.groups_per_step=3",
    "rollout.max_turns=6",
    "algorithm.samples=2",
    "algorithm.logged_states=5",
    "critic.updates=2",
    "critic.batch_size=6",
    "evaluation.seeds_per_task=1",
    "evaluation.max_turns=6",
]


@pytest.mark.slow
def test_runs_with_and_without_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    data, words = tmp_path / "data", ["model.path=tiny", "world.options.maze=umaze", "collect.per_task=4"]
    small = ["model.tiny_hidden=32", "model.tiny_layers=1", "world.options.teacher_stays=false"]
    collect.main(["recipes/text/maze_collect.yaml", *words, *small, f"run.folder={data}"])
    hnpg.main([*SMALL, f"run.folder={tmp_path / 'both'}", f"replay.stores=[{data / 'trajectories'}]"])
    none = ["replay.stores=[]", "algorithm.offline_weight=0", "algorithm.logged_states=0"]
    hnpg.main([*SMALL, f"run.folder={tmp_path / 'own'}", *none])
    for name in ("both", "own"):
        rows = [row for row in read_metrics(tmp_path / name / "metrics.jsonl") if "critic/loss" in row]
        assert len(rows) == 2 and all(row["critic/target_mean"] < 0 for row in rows)
        assert load_evaluation(tmp_path / name / "eval" / "final.json").rows
    with pytest.raises(ConfigError, match="name a store, or set both to 0"):
        hnpg.main([*SMALL, f"run.folder={tmp_path / 'x'}", "replay.stores=[]"])
    flat = TrajectoryStore(tmp_path / "flat")
    flat.append([group(0.0, 0.0).trajectories[0]])
    with pytest.raises(DataError, match="no reward at all"):
        hnpg.main([*SMALL, f"run.folder={tmp_path / 'y'}", f"replay.stores=[{tmp_path / 'flat'}]"])
