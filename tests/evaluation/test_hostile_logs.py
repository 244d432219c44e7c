"""Logs of others that are odd, torn or made to do harm: an evaluation, or an error of one paragraph."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import DataError
from rollwright.evaluation import Evaluation, read_any_evaluation
from rollwright.evaluation.foreign.log_reading import NOT_SAID, temperature_of


def inspect_log(path: Path, *, head: dict[str, Any] | None = None, **sample: Any) -> Path:
    header = {"version": 2, "status": "success", "eval": {"task": "t", "model": "m", **(head or {})}}
    usual = {"id": 1, "epoch": 1, "input": "q", "target": "a", "scores": {"s": {"value": "C"}}, "completed": True}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps(header))
        archive.writestr("samples/1_epoch_1.json", json.dumps({**usual, **sample}))
    return path


def read(path: Path) -> Evaluation:
    return read_any_evaluation(path).evaluation


@pytest.mark.parametrize("odd", [{"messages": 5}, {"messages": {"a": 1}}, {"limit": 5}, {"turn_count": 10**400}])
def test_an_odd_field_that_no_score_needs_is_left_alone(tmp_path: Path, odd: dict[str, Any]) -> None:
    assert [row.success for row in read(inspect_log(tmp_path / "a.eval", **odd)).rows] == [True]


@pytest.mark.parametrize("odd", [{"epoch": True}, {"epoch": 10**400}, {"epoch": 0}, {"id": [1]}])
def test_an_id_or_epoch_that_is_none_is_refused(tmp_path: Path, odd: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="expected an id and 1, 2"):
        read(inspect_log(tmp_path / "a.eval", **odd))


def test_half_a_character_can_be_printed(tmp_path: Path) -> None:
    found = read(inspect_log(tmp_path / "a.eval", head={"model": "\ud800"}, id="\ud800"))
    assert found.policy == "?" and [row.task for row in found.rows] == ["t/?"]
    found = read(inspect_log(tmp_path / "b.eval", id="\N{GRINNING FACE}"))
    assert [row.task for row in found.rows] == ["t/\N{GRINNING FACE}"]


def test_a_temperature_is_a_finite_number_or_not_said() -> None:
    assert temperature_of(0) == 0.0 and temperature_of(0.7) == 0.7
    for value in (None, "1", [1], -1, float("nan"), float("inf"), 10**400):
        assert temperature_of(value) == NOT_SAID


@pytest.mark.parametrize("ending", ["eval", "jsonl", "csv", "json"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"samples_a.{ending}")
    with pytest.raises(DataError, match="expected a file"):
        read(tmp_path / f"samples_a.{ending}")


def test_an_empty_log_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "samples_a.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no sample: it is empty"):
        read(tmp_path / "samples_a.jsonl")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("task,seed,score,score\na,1,1,0\n")
    with pytest.raises(DataError, match="two columns 'score'"):
        read(tmp_path / "a.csv")
