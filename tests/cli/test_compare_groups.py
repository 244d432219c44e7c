"""`rollwright compare` over groups of runs: its words, its files, its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rollwright import cli
from rollwright.contracts import StopReason, episode_seed
from rollwright.evaluation import EpisodeRow, Evaluation, save_evaluation
from tests import builders


def save(folder: Path, rate: float, seed: int, name: str = "final") -> None:
    draws = np.random.default_rng(seed)
    rows = tuple(
        EpisodeRow(
            task=f"t{task}",
            seed=episode_seed("test", task, index),
            attempt=0,
            success=bool(draws.random() < rate),
            total_return=0.0,
            num_turns=2,
            stop_reason=StopReason.TERMINATED,
        )
        for task in range(6)
        for index in range(15)
    )
    evaluation = Evaluation(
        name=name, split="test", policy="tiny", version=1, temperature=1.0, rows=rows, sampling={}
    )  # fmt: skip
    save_evaluation(evaluation, folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for n in range(3):
        for name, rate in (("a", 0.3), ("b", 0.7)):
            save(root / f"{name}{n}", rate, 10 * n + (name == "b"))
            (root / f"{name}{n}" / "config.yaml").write_text(f"learner:\n  loss: {name}_loss\n")
    scores = [0.6, 0.5, 0.4, 0.3]
    metrics = [{"reward/total_mean": 0.5 + n / 10, "eval/success_frac": score} for n, score in enumerate(scores)]
    builders.run_of(root / "gamed", metrics=metrics)
    for name, rate in (("start", 0.6), ("final", 0.3)):
        save(root / "gamed", rate, 1, name)
    return root


def test_named_groups_a_pattern_a_picture_and_a_table(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot, table = tmp_path / "x.svg", tmp_path / "x.csv"
    words = [f"base={runs / 'a0'},{runs / 'a1'},{runs / 'a2'}", f"new={runs}/b*"]
    assert cli.main(["compare", *words, "--plot", str(plot), "--csv", str(table)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1].startswith("new is better than base: +0.")
    assert "IQM" in shown and "family: m = 1" in shown
    assert plot.read_text().startswith("<svg") and len(table.read_text().splitlines()) == 1 + 2 * 3 * 6


def test_runs_are_grouped_by_a_configuration_key(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(runs / name) for name in ("a0", "b0", "a1", "b1")]
    assert cli.main(["compare", *folders, "--group-by", "learner.loss", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [group["name"] for group in document["groups"]] == ["learner.loss=a_loss", "learner.loss=b_loss"]
    assert [group["runs"] for group in document["groups"]] == [["a0", "a1"], ["b0", "b1"]]


def test_the_first_word_is_the_baseline_whatever_its_form(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(runs / "a0"), f"new={runs}/b*", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [group["name"] for group in document["groups"]] == ["a0", "new"]


def test_one_run_alone_is_its_start_against_its_end_with_alarms(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(runs / "gamed")]) == 0
    shown = capsys.readouterr().out
    assert "start is better than final: +0." in shown
    assert "alarm, gamed: over the last 4 evaluations the training reward went from 0.500 to 0.800" in shown
    assert shown.count("no evaluation on the validation split (splits found: test)") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{a0}"], "a0 alone is compared by its evaluations start and final, but it has: final"),
        (["=x", "{a0}"], "'=x' names no group: write NAME=RUN"),
        (["x={a0}", "x={b0}"], "the group 'x' is named twice"),
        (["x={a0}", "y={a0},{a1}"], "is named twice: a run belongs to one group"),
        (["{a0}", "{a0}"], "is named twice: a run belongs to one group"),
        (["x={a0},{a0}", "y={b0}"], "is named twice: a run belongs to one group"),
        (["x=,", "{a0}"], "the group 'x' holds no run"),
        (["x={a0},{a1}"], "one group only (x): name a second run or group"),
        (["x={root}/nothing*", "{a0}"], "no run matches"),
        (["{a0}", "{b0}", "--group-by", "learner.los"], "has no key 'los' there; keys: loss"),
        (["{a0}", "{b0}", "--plot", "x.png"], "give the file a name that ends in .svg"),
        (["{a0}", "{b0}", "--csv", "/nowhere/x.csv"], "/nowhere/x.csv cannot be written"),
        (["{a0}", "{b0}", "--scorer", "x"], "--scorer has no meaning for final.json"),
    ],
)
def test_wrong_words_are_one_paragraph_and_exit_2(
    runs: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"root": runs} | {name: runs / name for name in ("a0", "a1", "b0")}
    assert cli.main(["compare", *(word.format(**places) for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
