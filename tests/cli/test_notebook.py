"""Rollwright from Python: handles of run folders, errors as exceptions, and a real run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rollwright
from rollwright.cli.launching import notebook
from rollwright.contracts import ConfigError, DataError, RollwrightError
from tests.cli.test_cli import save, store

RAN = "import sys; print({said!r}); sys.exit({code})"


def stand_in(monkeypatch: pytest.MonkeyPatch, *, said: str, code: int) -> list[list[str]]:
    """In place of a recipe a child that says this and ends so; -> the commands that were asked for."""
    asked: list[list[str]] = []
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> object:
        asked.append(command)
        return real([sys.executable, "-c", RAN.format(said=said, code=code)], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(notebook.subprocess, "Popen", popen)
    return asked


def test_words_and_settings_reach_the_recipe_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = stand_in(monkeypatch, said="step 1 of 3", code=0)
    settings = {"run.steps": 3, "world.options": {"wording": "compact"}, "model.path": tmp_path, "run.resume": False}
    run = rollwright.train("grpo", "text/maze_grpo", "run.steps=9", folder=tmp_path / "run", settings=settings)
    assert run.folder == tmp_path / "run"
    assert asked[0][1:] == [
        *("-m", "rollwright.cli", "train", "grpo", "text/maze_grpo", "run.steps=9", "run.steps=3"),
        'world.options={"wording": "compact"}',
        f"model.path={tmp_path}",
        "run.resume=false",
        f"run.folder={tmp_path / 'run'}",
    ]
    assert capsys.readouterr().out == "step 1 of 3\n"


@pytest.mark.parametrize(
    ("said", "code", "kind", "message"),
    [
        ("run: here\nrollwright: unknown key `x`.\nKeys here: y.", 2, ConfigError, "unknown key `x`.\nKeys here: y."),
        ("rollwright, rank 1: the loss is NaN", 1, RollwrightError, "the loss is NaN"),
        ("rollwright: interrupted", 130, KeyboardInterrupt, "interrupted"),
        ("Killed", 137, RollwrightError, "the run ended with exit code 137"),
    ],
)
def test_a_run_that_fails_raises_what_it_said(
    said: str, code: int, kind: type[BaseException], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, said=said, code=code)
    with pytest.raises(kind) as found:
        rollwright.train("sft", folder=tmp_path, quiet=True)
    assert str(found.value) == message


def test_a_run_hands_out_what_its_folder_holds(tmp_path: Path) -> None:
    run = rollwright.Run(tmp_path)
    assert run.metrics() == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward/total_mean": 0.5}\n{"step": 2, "rew')
    assert run.metrics() == [{"step": 1, "reward/total_mean": 0.5}]
    store(tmp_path / "trajectories")
    assert [episode.id for episode in run.episodes()] == ["a", "b", "c"]
    assert [episode.id for episode in run.episodes(task="click", tag="step_0")] == ["a"]
    save(tmp_path, "start", "0000")
    with pytest.raises(DataError, match="no evaluation 'final'; it has: start"):
        run.evaluation()
    save(tmp_path, "final", "1111")
    found = rollwright.compare(run.evaluation("start"), run)
    assert found.success is not None and found.success.interval.point == 1.0
    assert rollwright.compare(tmp_path / "eval" / "start.json", str(tmp_path)).success == found.success
    assert run.report() == tmp_path / "report.html"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, rollwright; count = len([m for m in sys.modules if m.startswith('rollwright')]);"
        "rollwright.train, rollwright.Run;"
        "print(count, [m for m in ('torch', 'numpy', 'pydantic', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        rollwright.trian  # noqa: B018
    assert set(dir(rollwright)) == set(rollwright.__all__)


@pytest.mark.slow
def test_ten_lines_train_judge_and_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the README, with few steps."""
    monkeypatch.chdir(tmp_path)
    sft = rollwright.train(
        "sft", "text/maze_sft", "sft.max_steps=20", folder="runs/sft", settings={"data.per_task": 2}, quiet=True
    )
    run = rollwright.train(
        "grpo",
        "text/maze_grpo",
        "run.steps=2",
        folder="runs/grpo",
        settings={
            "model.path": sft.folder / "policy",
            "evaluation.at_start": True,
            "evaluation.seeds_per_task": 2,
            "evaluation.max_turns": 10,
            "rollout.max_turns": 10,
        },
        quiet=True,
    )
    assert [row["step"] for row in run.metrics() if "optim/grad_norm" in row] == [0, 1]
    assert next(iter(run.episodes())).turns
    assert "start" in rollwright.compare(run.evaluation("start"), run.evaluation("final")).verdict()
    with pytest.raises(ConfigError, match="Did you mean `steps`"):
        rollwright.train("grpo", "text/maze_grpo", "run.setps=2", folder="runs/other", quiet=True)
    assert not Path("runs/other").exists()
