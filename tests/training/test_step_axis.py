"""One axis of steps for everything that is logged, and what trackers are told of the run. A real TensorBoard file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from accelerate import Accelerator

from rollwright.config import all_keys, build
from rollwright.recipes import grpo, ppo
from rollwright.recipes.grpo import GrpoConfig
from rollwright.run_io.tracking import RunFolder, hyperparameters, read_metrics
from rollwright.training.open_run import open_tracker
from rollwright.view.live.metric_columns import MetricColumns

STEPS = 3
SMALL = [
    *("world.name=text.bandit", "model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1"),
    *("engine=transformers", "engine.dtype=float32", "learner.precision=float32", f"run.steps={STEPS}"),
    *("rollout.max_action_tokens=2", "rollout.history=0", "rollout.groups_per_step=2", "rollout.group_size=2"),
    *("evaluation.seeds_per_task=1", "evaluation.every=1", "evaluation.at_start=true"),
    *("learner.epochs=2", "learner.minibatches=2", "run.trackers=[tensorboard]"),
]


class Monotonic:
    """A tracker like W&B's: what is logged below the highest step so far is refused."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.refused: list[int] = []

    def log(self, accelerator: Any, values: dict[str, float], step: int) -> None:
        (self.refused if self.steps and step < max(self.steps) else self.steps).append(step)


@pytest.fixture(scope="module", params=[grpo, ppo], ids=["grpo", "ppo"])
def finished(
    request: pytest.FixtureRequest, at_root: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Monotonic]:
    """A run with four optimiser steps to each of its own, and what a strict tracker made of it."""
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install tensorboard")
    folder, strict, log = tmp_path_factory.mktemp("axis") / "my_run", Monotonic(), Accelerator.log

    def both(self: Accelerator, values: dict[str, float], step: int | None = None, **more: Any) -> None:
        assert step is not None
        strict.log(self, values, step)
        log(self, values, step, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Accelerator, "log", both)
        request.param.main([*SMALL, f"run.folder={folder}"])
    return folder, strict


def test_no_tracker_is_ever_asked_to_go_back(finished: tuple[Path, Monotonic]) -> None:
    _, strict = finished
    assert strict.refused == []
    assert strict.steps == [0, 0, 1, 1, 2, 2, 3], "an evaluation, then the step that plays with what was judged"


def test_the_real_event_file_holds_training_and_evaluation_on_one_axis(finished: tuple[Path, Monotonic]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0] / "rollwright"))
    events.Reload()
    assert [event.step for event in events.Scalars("reward/total_mean")] == list(range(STEPS))
    assert [event.step for event in events.Scalars("eval/return_mean")] == list(range(STEPS + 1))


def test_the_metrics_file_and_the_report_agree(finished: tuple[Path, Monotonic]) -> None:
    rows = read_metrics(finished[0] / "metrics.jsonl")
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    columns = MetricColumns(finished[0] / "metrics.jsonl")
    columns.refresh()
    last = {name: columns.known(name)[-1][0] for name in ("eval/return_mean", "reward/total_mean")}
    assert last == {"eval/return_mean": STEPS, "reward/total_mean": STEPS - 1}


def test_trackers_get_the_whole_configuration(finished: tuple[Path, Monotonic]) -> None:
    [file] = (finished[0] / "rollwright").glob("*/hparams.yml")
    told = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert told["learner.epochs"] == 2 and told["world.name"] == "text.bandit" and told["run.folder"].endswith("my_run")
    assert "algorithm.advantage" in told and told["engine.urls"] == "[]" and len(told) > 100


def test_every_key_is_told_in_a_form_that_all_trackers_take() -> None:
    options = {"words": ["a", "b"], "pays": "a"}
    config = build(GrpoConfig, {"world": {"name": "text.bandit", "options": options}})
    told = hyperparameters(config)
    assert told["world.options.words"] == '["a", "b"]' and told["algorithm.max_length"] == "null"
    assert all(isinstance(value, bool | int | float | str) for value in told.values())
    missing = [key for key, _ in all_keys(GrpoConfig) if key not in told and not key.endswith("options")]
    assert not missing


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_trackers_that_name_runs_get_the_name_of_the_folder(tracker: str, tmp_path: Path) -> None:
    """Beside the real one above: neither of these two is installed everywhere."""
    told: dict[str, Any] = {}

    def init_trackers(project: str, **more: Any) -> None:
        told.update(more, project=project)

    accelerator = SimpleNamespace(init_trackers=init_trackers, is_main_process=True, log=lambda values, step: None)
    config = build(GrpoConfig, {"world": {"name": "text.bandit"}, "run": {"trackers": [tracker]}})
    folder = RunFolder(tmp_path / "third_try")
    open_tracker(folder, config, SimpleNamespace(accelerator=accelerator))  # type: ignore[arg-type]
    assert told["project"] == "rollwright" and told["init_kwargs"] == {tracker: {"name": "third_try"}}
    assert told["config"] == hyperparameters(config)
