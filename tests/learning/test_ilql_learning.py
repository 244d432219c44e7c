"""ILQL with a network, by its own recipe: it joins walks that Monte-Carlo values and imitation cannot join.

Steps that say the same are grouped before the critic reads them; the first tests hold that to the loss of all steps.
Mean return over the test starts, sampled: the optimum is -6.8, the walks' own policy is near -75.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from rollwright.contracts.record import StopReason
from rollwright.critics.critic_learner import CriticLearner
from rollwright.critics.critic_targets import ColumnLoss
from rollwright.critics.token_q import implicit_loss, implicit_targets, token_q_loss
from rollwright.critics.token_steps import StoredSteps, TokenSteps, token_steps
from rollwright.critics.vocabulary_critic import VocabularyQ, VocabularyQSettings, vocabulary_q
from rollwright.evaluation import load_evaluation
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.maths.value_targets import conservative_loss
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.store.replay import TurnTable, valid_turns
from tests import builders
from tests.builders import turn

Run = Callable[..., None]


@pytest.fixture
def table(tmp_path: Path) -> TurnTable:
    """Two states, two actions; one action is paid differently from time to time, and two walks are cut in one state."""
    one, two = turn((5, 6), (7, 8), -1.0), turn((5, 9), (7, 3, 8), -2.0)
    lucky = turn((5, 6), (7, 8), 4.0)
    cut = {"stop": StopReason.MAX_TURNS, "next_prompt_ids": (5, 9)}
    return builders.table_of(
        tmp_path / "store",
        builders.episode("a", one, one, two, lucky),
        builders.episode("b", two, one, seed=1, **cut),
        builders.episode("c", lucky, seed=2, **cut),
    )


def critic(folder: Path, *, q_heads: int = 2) -> CriticLearner:
    """One whose values differ from place to place."""
    make_tiny_model(folder, texts=["a b c d e f g h i j k l"], hidden=32, layers=1, context_length=32, seed=0)
    torch.manual_seed(0)
    module = vocabulary_q(load_policy(folder, "float32")[0], VocabularyQSettings(q_heads=q_heads, width=16))
    for head in (*module.heads.q, module.heads.v):
        torch.nn.init.normal_(head[-1].weight)
    return CriticLearner(Accelerator(), module, OptimiserSettings(learning_rate=1e-2), polyak=0.5)


def test_grouped_steps_are_the_steps(table: TurnTable) -> None:
    turns = valid_turns(table)
    plain, grouped = token_steps(table, turns), StoredSteps.scan(table, turns).steps(turns)
    assert len(plain.segments) == 7 and len(grouped.segments) == 2 and len(grouped.readings) == 3
    assert torch.equal(grouped.rewards, plain.rewards) and torch.equal(grouped.index, plain.index)
    ids = [
        torch.tensor([token for segment in steps.segments for token in segment.action_ids])[steps.entries]
        for steps in (grouped, plain)
    ]
    assert torch.equal(*ids)
    assert float(grouped.weights.mean()) == pytest.approx(1.0)


def test_grouped_steps_pull_as_all_steps_do(table: TurnTable, tmp_path: Path) -> None:
    """The same step of the optimiser from every walk's tokens and from the distinct ones."""
    turns = valid_turns(table)

    def moved(steps: TokenSteps, method: str) -> torch.Tensor:
        learner = critic(tmp_path / "tiny")
        if method == "mc":
            targets = {"q": steps.per_entry(steps.returns(0.9)), "weights": steps.weights}
            loss: ColumnLoss = partial(token_q_loss, cql_weight=0.3)
        else:
            targets = implicit_targets(learner, steps, gamma=0.9)
            loss = partial(implicit_loss, cql_weight=0.3, expectile=0.8)
        norm = learner.update_tokens(steps.segments, targets, loss)["critic/grad_norm"]
        return torch.cat([torch.tensor([norm]), *(p.detach().flatten() for p in learner.slow.parameters())])

    for method in ("mc", "ilql"):
        plain = moved(token_steps(table, turns), method)
        assert torch.allclose(moved(StoredSteps.scan(table, turns).steps(turns), method), plain, atol=1e-5)


def test_the_conservative_term_is_that_of_the_whole_vocabulary(table: TurnTable, tmp_path: Path) -> None:
    learner, steps = critic(tmp_path / "tiny", q_heads=1), token_steps(table, np.arange(1))
    module, (segment,) = learner.module, steps.segments
    assert isinstance(module, VocabularyQ)
    before = [(*segment.prompt_ids, *segment.action_ids[:at]) for at in range(len(segment.action_ids))]
    exact = conservative_loss(module.next_token_q(before), torch.tensor(segment.action_ids))
    assert exact.min() > 0.1
    assert torch.allclose(learner.read_tokens(steps.segments)["cql"][0], exact, atol=1e-5)


@pytest.fixture(scope="module")
def walks(run_recipe: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `bc/policy`, which imitates walkers who stay in their part, and `data/trajectories`, their walks."""
    folder = tmp_path_factory.mktemp("walks")
    run_recipe("sft.py", "text/maze_sft.yaml", "world.options.teacher_stays=true", f"run.folder={folder / 'bc'}")
    words = [f"run.folder={folder / 'data'}", f"model.path={folder / 'bc' / 'policy'}"]
    run_recipe("collect.py", "text/maze_parts_collect.yaml", *words)
    return folder


def learned(run_recipe: Run, method: str, walks: Path, run: Path, *words: str) -> dict[str, float]:
    """Mean return of 30 sampled walks from the test starts, before ("start") and after ("final")."""
    stored = [f"replay.stores=[{walks / 'data' / 'trajectories'}]", f"model.path={walks / 'bc' / 'policy'}"]
    acting = ["evaluation.temperature=1", "evaluation.seeds_per_task=6"]
    run_recipe(f"{method}.py", f"text/maze_{method}.yaml", f"run.folder={run}", *stored, *acting, *words)
    files = {name: run / "eval" / f"{name}.json" for name in ("start", "final")}
    rows = {name: load_evaluation(file).rows for name, file in files.items() if file.exists()}
    return {name: sum(row.total_return for row in of) / len(of) for name, of in rows.items()}


@pytest.mark.slow
def test_a_network_joins_the_walks_by_ilql(run_recipe: Run, walks: Path, tmp_path: Path) -> None:
    returns = learned(run_recipe, "ilql", walks, tmp_path, "run.steps=14", "evaluation.at_start=true")
    assert returns["start"] < -55, f"{returns}: the walks' own policy must not know the way"
    assert returns["final"] >= -35, f"{returns}; the optimum is -6.8"


@pytest.mark.slow
def test_a_network_does_not_join_the_walks_by_their_returns(run_recipe: Run, walks: Path, tmp_path: Path) -> None:
    assert learned(run_recipe, "mc", walks, tmp_path, "run.steps=4")["final"] < -45
