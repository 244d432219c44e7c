"""The token log: read back as it was written, whole or absent, and set aside by a resumed run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rollwright.store import TokenColumns, TokenLog


def columns(*turns: tuple[str, int, int, list[int]], **given: list[float]) -> TokenColumns:
    """One entry per turn: trajectory, number, action ids, places of its scored tokens."""
    places = [place for *_, positions in turns for place in positions]
    size = len(places)
    known = {
        "positions": np.array(places),
        "advantages": np.linspace(-1, 1, size, dtype=np.float32),
        "diffs": np.zeros(size, np.float32),
        "masks": np.ones(size, np.bool_),
    }
    return TokenColumns(
        trajectory_ids=[name for name, *_ in turns],
        turns=[number for _, number, *_ in turns],
        num_ids=[length for *_, length, _ in turns],
        counts=[len(positions) for *_, positions in turns],
        columns=known | {name: np.array(values, np.float32) for name, values in given.items()},
    )


def test_columns_come_back_by_turn_with_a_place_for_every_action_id(tmp_path: Path) -> None:
    log = TokenLog(tmp_path)
    log.write(3, [columns(("a", 0, 3, [0, 2]), ("a", 1, 2, []), ("b\ud800", 0, 1, [0]), entropies=[0.5, math.nan, 2])])
    found = log.read(3)
    assert found["a", 0]["advantages"] == [-1.0, None, 0.0] and found["a", 0]["masks"] == [1, None, 1]
    assert found["a", 0]["entropies"] == [0.5, None, None], "a number that is not finite is none"
    assert found["a", 1]["diffs"] == [None, None]
    assert found["b\ud800", 0]["advantages"] == [1.0] and found["b\ud800", 0]["weights"] is None
    assert all(turn["step"] == 3 for turn in found.values())


def test_parts_of_a_step_lie_in_one_file_which_a_second_write_replaces(tmp_path: Path) -> None:
    log = TokenLog(tmp_path)
    log.write(0, [])
    assert log.steps() == []
    log.write(0, [columns(("a", 0, 1, [0])), columns(("b", 0, 1, [0]))])
    assert set(log.read(0)) == {("a", 0), ("b", 0)} and log.steps() == [0]
    log.write(0, [columns(("c", 0, 1, [0]))])
    assert set(TokenLog(tmp_path).read(0)) == {("c", 0)}


def test_a_resumed_run_sets_later_steps_aside(tmp_path: Path) -> None:
    log = TokenLog(tmp_path)
    for step in range(4):
        log.write(step, [columns((f"first {step}", 0, 1, [0]))])
    assert log.rewind(2) == 2 and log.steps() == [0, 1]
    log.write(2, [columns(("second 2", 0, 1, [0]))])
    assert set(log.read(2)) == {("second 2", 0)}
    assert log.rewind(1) == 2 and log.rewind(1) == 0
    aside = sorted(path.relative_to(log.folder).as_posix() for path in log.folder.glob("superseded/*/*"))
    assert len(aside) == 4, "nothing is deleted"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_a_damaged_file_costs_its_step_alone(tmp_path: Path, content: bytes) -> None:
    log = TokenLog(tmp_path)
    for step in range(2):
        log.write(step, [columns(("a", 0, 1, [0]))])
    (log.folder / "step_000000.parquet").write_bytes(content)
    assert log.read(0) == {} and log.read(1) and log.read(7) == {}


def test_a_full_disk_costs_the_file_and_not_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "token_log").write_text("in the way")
    log = TokenLog(tmp_path)
    log.write(0, [columns(("a", 0, 1, [0]))])
    log.write_tokenizer("{}")
    assert caplog.text.count("could not be") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["token_log"]
