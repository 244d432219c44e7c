"""`--plan`: right arithmetic, parameters counted from headers, nothing loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rollwright.learner.learner_settings import LearnerSettings
from rollwright.models.starting_model import ModelSettings
from rollwright.rollout.rollout_settings import RolloutSettings
from rollwright.run_io.run_settings import RunSettings
from rollwright.training.loop_config import LoopConfig
from rollwright.training.open_world import WorldSettings
from rollwright.training.plan import parameter_count, plan_text


def test_the_arithmetic(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000, 500), "b": torch.zeros(7)}, tmp_path / "model.safetensors")
    config = LoopConfig(
        run=RunSettings(steps=10),
        model=ModelSettings(path=str(tmp_path)),
        world=WorldSettings(name="text.maze"),
        rollout=RolloutSettings(groups_per_step=3, group_size=4),
        learner=LearnerSettings(minibatches=2, epochs=3),
    )
    text = plan_text(config)
    assert "3 groups x 4 = 12 episodes" in text and "= 6 optimiser step(s)" in text and "120 episodes" in text
    assert parameter_count(tmp_path) == 500_007 and parameter_count(tmp_path / "absent") is None


def test_the_command_prints_it_and_ends(
    run_recipe: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run_recipe("grpo.py", "text/maze_grpo.yaml", f"run.folder={tmp_path}/run", "model.path=tiny", "--plan")
    shown = capsys.readouterr().out
    assert end.value.code == 0
    assert "8 groups x 8 = 64 episodes" in shown and "learning_rate" in shown
    assert not (tmp_path / "run").exists()
