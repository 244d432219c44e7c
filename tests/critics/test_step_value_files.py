"""A value model in a folder: it says there what it said in its run, whatever of it was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from rollwright.contracts import Task
from rollwright.contracts.errors import ConfigError
from rollwright.critics.critic_body import policy_body
from rollwright.critics.frozen_critic import FrozenValueLearner
from rollwright.critics.step_value import StepValue, StepValueFit, SuccessChance, ValueRows
from rollwright.critics.step_value_files import load_step_value, save_step_value
from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner
from rollwright.learner.optimisation import OptimiserSettings
from rollwright.models import load_tokenizer
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model

STATES = ((5, 6, 7), (5, 6, 8, 9), (11,))
FIT = StepValueFit(width=32, second_width=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=["some words to make a vocabulary of"], hidden=32, layers=2, context_length=64, seed=0)
    return path


def opened(folder: Path, *, frozen: bool) -> StepValue:
    torch.manual_seed(0)
    policy, _ = load_policy(folder, "float32")
    shape = TurnCriticSettings(heads={"v": 1}, width=FIT.width, deeper=(FIT.second_width,))
    kind = FrozenValueLearner if frozen else ValueLearner
    learner = kind(Accelerator(), policy_body(policy), shape, OptimiserSettings(learning_rate=1e-2))
    return StepValue(learner, updates=4, batch_size=3)


@pytest.mark.parametrize("frozen", [False, True])
def test_what_was_saved_says_the_same(folder: Path, tmp_path: Path, frozen: bool) -> None:
    value, tokenizer = opened(folder, frozen=frozen), load_tokenizer(folder)
    save_step_value(value, FIT, tmp_path / "new", tokenizer=load_tokenizer(folder))
    with pytest.raises(ConfigError, match="was never fitted"):
        load_step_value(tmp_path / "new", tokenizer)
    rows = ValueRows(states=STATES, targets=torch.tensor([1.0, -1.0, 0.5]), counts=torch.ones(3))
    value.fit(rows, draws=np.random.default_rng(0))
    save_step_value(value, FIT, tmp_path / "value", tokenizer=load_tokenizer(folder))
    again = load_step_value(tmp_path / "value", tokenizer)
    torch.testing.assert_close(again.read(STATES), value.read(STATES), atol=1e-6, rtol=0)
    (tmp_path / "value" / "head.pt").unlink()
    with pytest.raises(ConfigError, match="no value model that can be read"):
        load_step_value(tmp_path / "value", tokenizer)


def test_a_policy_of_another_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    save_step_value(opened(folder, frozen=False), FIT, tmp_path / "value", tokenizer=load_tokenizer(folder))
    make_tiny_model(tmp_path / "other", texts=["entirely different"], hidden=32, layers=2, context_length=64, seed=0)
    with pytest.raises(ConfigError, match="fitted to another tokenizer"):
        load_step_value(tmp_path / "value", load_tokenizer(tmp_path / "other"))


def test_a_search_is_told_the_chance_of_success(folder: Path) -> None:
    value, task = opened(folder, frozen=True), Task(id="t", split="train")
    with pytest.raises(ConfigError, match="before it was fitted"):
        SuccessChance(value)(task, (), STATES[0])
    rows = ValueRows(states=STATES, targets=torch.tensor([1.0, -1.0, 0.5]), counts=torch.ones(3))
    value.fit(rows, draws=np.random.default_rng(0))
    asks = [(task, (), STATES[0]), (task, (), ()), (task, (), STATES[1])]
    first, lost, second = SuccessChance(value).values(asks)
    said = value.read(STATES[:2]).tolist()
    assert [first, second] == pytest.approx([(1 + one) / 2 for one in said])
    assert lost == 0.0, "where no prompt fits, nobody can act"
