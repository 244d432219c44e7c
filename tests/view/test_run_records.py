"""A record of runs: what is found, filtered, sorted, grouped over seeds, plotted and exported."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from rollwright.cli import main
from rollwright.contracts import DataError, StopReason, episode_seed
from rollwright.evaluation import EpisodeRow, Evaluation, save_evaluation
from rollwright.maths.statistics import interquartile_mean
from rollwright.view import query_runs, read_records
from rollwright.view.records.run_conditions import parse_condition
from rollwright.view.records.run_plot import group_curves
from tests.builders import run_of

TASKS = ("left", "right")


def one_run(folder: Path, preset: str, seed: int, rates: Sequence[Sequence[int]], rate: float = 1e-4) -> Path:
    """A finished run: success rising by step, and for each task the outcomes of its last evaluation."""
    settings = {"algorithm": {"preset": preset}, "run": {"seed": seed, "steps": 4}, "world": {"name": "text.maze"}}
    settings["learner"] = {"learning_rate": rate}
    rows = [
        {"rollout/success_frac": 0.1 * step + 0.01 * seed, "reward/total_mean": float(step), "time/step_s": 2.0}
        for step in range(4)
    ]
    run = run_of(folder, metrics=rows, config=yaml.safe_dump(settings))
    session = {"outcome": "finished", "command": "grpo.py text/maze_grpo", "commit": {"id": "0123456789"}}
    totals = {"wall_s": 90.0, "tokens_sampled": 1000 + seed, "episodes": 64}
    (run.path / "run.json").write_text(json.dumps({"sessions": [session], "totals": totals}))
    episodes = tuple(
        EpisodeRow(
            task=task,
            seed=episode_seed("test", task, n),
            attempt=0,
            success=bool(won),
            total_return=float(won),
            num_turns=3,
            stop_reason=StopReason.TERMINATED,
        )
        for task, outcomes in zip(TASKS, rates, strict=True)
        for n, won in enumerate(outcomes)
    )
    evaluation = Evaluation(
        name="final", split="test", policy="p", version=4, temperature=0.0, rows=episodes, sampling={}
    )
    save_evaluation(evaluation, run.path)
    return run.path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of grpo, two of dr_grpo."""
    folder = tmp_path_factory.mktemp("runs")
    of_grpo = ([[1, 1, 0, 0], [1, 0, 0, 0]], [[1, 1, 1, 0], [1, 0, 0, 0]], [[1, 1, 1, 1], [0, 0, 0, 0]])
    for seed, wins in enumerate(of_grpo):
        one_run(folder / "grpo" / str(seed), "grpo", seed, wins)
    for seed, wins in enumerate(([[1, 1, 1, 1], [1, 1, 1, 0]], [[1, 1, 1, 1], [1, 1, 1, 1]])):
        one_run(folder / "dr_grpo" / str(seed), "dr_grpo", seed, wins)
    return folder


def test_every_kind_of_name_has_its_value(runs: Path) -> None:
    record = next(record for record in read_records([runs]) if record.name == "grpo/1")
    assert [record.value(key) for key in ("recipe", "config", "world", "method", "state", "commit")] == [
        *("grpo", "text/maze_grpo", "text.maze", "grpo", "finished", "01234567")
    ]
    assert [record.value(key) for key in ("step", "steps", "seed", "tokens", "minutes")] == [4, 4, 1, 1001, 1.5]
    assert record.value("success") == pytest.approx(0.5)  # of the tasks' rates 3/4 and 1/4
    assert record.value("eval/final/return_mean") == pytest.approx(0.5)
    assert record.value("learner.learning_rate") == 1e-4
    assert record.value("rollout/success_frac") == pytest.approx(0.31)
    assert record.value("rollout/success_frac:first") == pytest.approx(0.01)
    assert record.value("rollout/success_frac:mean") == pytest.approx(0.16)
    assert record.value("spent.episodes") == 64
    assert record.value("no.such.key") is None


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (["algorithm.preset=dr_grpo"], ["dr_grpo/0", "dr_grpo/1"]),
        (["algorithm.preset!=dr_grpo", "run.seed>=1"], ["grpo/1", "grpo/2"]),
        (["success > 0.8"], ["dr_grpo/0", "dr_grpo/1"]),
        (["name~GRPO/0"], ["dr_grpo/0", "grpo/0"]),
        (["learner.learning_rate=1e-4", "seed=2"], ["grpo/2"]),
        (["rollout/success_frac:max<0.305"], ["dr_grpo/0", "grpo/0"]),
    ],
)
def test_conditions_select_runs(runs: Path, where: list[str], names: list[str]) -> None:
    assert [record.name for record in query_runs([runs], where=where).records] == names


def test_runs_are_sorted_by_several_names_and_the_ones_without_a_value_come_last(runs: Path, tmp_path: Path) -> None:
    found = query_runs([runs], sort=["-success", "name"]).records
    assert [record.name for record in found] == ["dr_grpo/1", "dr_grpo/0", "grpo/1", "grpo/2", "grpo/0"]
    run_of(tmp_path / "bare", metrics=[{"a/b_count": 1.0}])
    found = query_runs([runs / "grpo" / "0", tmp_path], sort=["success"]).records
    assert [record.name for record in found] == ["0", "bare"]


@pytest.mark.parametrize("text", ["success", "success>high", "=1", "__import__('os').system>1", "", "success>"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"not a condition|not a number"):
        parse_condition(text)


def test_a_condition_is_compared_as_text_and_never_run(runs: Path) -> None:
    with pytest.raises(DataError, match="none of the 5 runs"):
        query_runs([runs], where=["name=__import__('os').getcwd()"])


def test_a_group_has_the_interquartile_mean_over_seeds_and_tasks(runs: Path) -> None:
    table = query_runs([runs], group_by=["algorithm.preset"], columns=["success", "spent.tokens_sampled"])
    rows = {row["algorithm.preset"]: row for row in json.loads(table.json())}
    grpo = rows["grpo"]
    assert grpo["seeds"] == 3
    scores = [[0.5, 0.25], [0.75, 0.25], [1.0, 0.0]]
    assert grpo["success iqm"] == pytest.approx(interquartile_mean(scores))
    assert grpo["success mean"] == pytest.approx(2.75 / 6)
    assert grpo["success low"] < grpo["success iqm"] < grpo["success high"]
    assert grpo["spent.tokens_sampled mean"] == 1001


def test_one_run_has_no_interval_over_seeds(runs: Path) -> None:
    table = query_runs([runs], where=["name=grpo/0"], group_by=["algorithm.preset"], columns=["reward"])
    (row,) = json.loads(table.json())
    assert (row["reward iqm"], row["reward low"], row["reward high"]) == (3.0, None, None)


def test_a_group_of_unlike_settings_is_said(runs: Path, tmp_path: Path) -> None:
    one_run(tmp_path / "other", "grpo", 3, [[1, 0], [0, 0]], rate=1e-3)
    text = query_runs([runs / "grpo", tmp_path], group_by=["algorithm.preset"]).text()
    assert "also differ in learner.learning_rate" in text
    assert "also differ" not in query_runs([runs / "grpo"], group_by=["algorithm.preset"]).text()


def test_a_misspelt_name_is_an_error_with_the_nearest_one(runs: Path, tmp_path: Path) -> None:
    for question in ({"sort": ["-sucess"]}, {"where": ["algorithm.prest=grpo"]}, {"columns": ["rollout/succes_frac"]}):
        with pytest.raises(DataError, match="Did you mean"):
            query_runs([runs], **question)
    with pytest.raises(DataError, match="no run folder lies"):
        query_runs([tmp_path])
    with pytest.raises(DataError, match="there is no folder"):
        query_runs([tmp_path / "absent"])


def test_csv_and_plot_are_written_and_hold_what_the_runs_hold(runs: Path, tmp_path: Path) -> None:
    table, plot = tmp_path / "t.csv", tmp_path / "p.svg"
    words = ["--where", "algorithm.preset=grpo", "--csv", str(table), "--plot", str(plot)]
    assert main(["runs", str(runs), *words]) == 0
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [row["name"] for row in rows] == ["grpo/0", "grpo/1", "grpo/2"]
    assert float(rows[1]["success"]) == pytest.approx(0.5)
    names = [element.tag.rpartition("}")[2] for element in ElementTree.parse(plot).iter()]
    assert (names.count("polyline"), names.count("polygon")) == (3, 0)
    main(["runs", str(runs), "--group-by", "algorithm.preset", "--plot", str(plot), "--metric", "reward/total_mean"])
    names = [element.tag.rpartition("}")[2] for element in ElementTree.parse(plot).iter()]
    assert (names.count("polyline"), names.count("polygon")) == (2, 2)


def test_a_band_is_students_interval_and_a_share_stays_within_0_and_1(runs: Path) -> None:
    groups = query_runs([runs], where=["algorithm.preset=dr_grpo"], group_by=["recipe"]).groups
    (curve,) = group_curves(groups, "rollout/success_frac")
    # Step 2: 0.20 and 0.21; half the width is 12.706 * 0.00707 / sqrt(2) = 0.0635.
    assert curve.values[2] == pytest.approx(0.205)
    assert (curve.low[2], curve.high[2]) == pytest.approx((0.205 - 0.06353, 0.205 + 0.06353), abs=1e-4)
    assert curve.low[0] == 0.0, "0.005 - 0.0635 would be no share"


def test_the_name_of_a_run_is_text_in_a_plot_and_on_a_terminal(tmp_path: Path) -> None:
    one_run(tmp_path / "<script>\x1b[31m", "grpo", 0, [[1], [0]])
    table = query_runs([tmp_path])
    svg = table.plot("rollout/success_frac")
    assert "<script>" not in svg
    ElementTree.fromstring(svg)
    assert "\x1b" not in svg + table.text()


def test_errors_of_the_command_end_with_code_2(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(runs), "--where", "success"]) == 2
    assert "write NAME=VALUE" in capsys.readouterr().err
    assert main(["runs", str(runs), "--csv", str(tmp_path / "no" / "t.csv")]) == 2
    assert main(["runs", str(runs), "--plot", str(tmp_path / "p.svg"), "--metric", "no/such_frac"]) == 2
