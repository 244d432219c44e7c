"""Checkpoints: whole or not at all, the newest kept, broken ones passed over, a full disk loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwright.checkpoint import Checkpoints
from rollwright.errors import RunFolderError


def writer(text: str):
    return lambda folder: (folder / "weights").write_text(text)


def test_the_newest_complete_one_is_found_and_old_ones_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 10):
        checkpoints.save(step, writer(f"w{step}"), {"version": step})
    found = checkpoints.latest()
    assert found is not None and found.step == 10 and found.state["version"] == 10
    assert (found.path / "weights").read_text() == "w10"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000002", "step_000010"]


def test_half_written_ones_are_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("good"), {})
    (tmp_path / "step_000002").mkdir()  # killed before state.json
    torn = tmp_path / "step_000003"
    torn.mkdir()
    (torn / "state.json").write_text('{"step": 3, "cur')
    found = checkpoints.latest()
    assert found is not None and found.step == 1


def test_damaged_ones_are_passed_over_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path, keep=9)
    for step in range(1, 5):
        checkpoints.save(step, writer(f"weights {step}"), {})
    weights = [tmp_path / f"step_{step:06d}" / "weights" for step in range(5)]
    weights[4].write_text("weights")  # truncated
    weights[3].write_text("wEights 3")  # as long, and not what was written
    weights[2].unlink()
    found = checkpoints.latest()
    assert found is not None and found.step == 1
    for said in ("7 bytes, expected 9", "does not hold what was written", "weights is missing"):
        assert said in caplog.text


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, writer("old"), {})
    (tmp_path / "step_000001").rename(tmp_path / "step_000001.replaced")
    (tmp_path / ".writing_step_000001").mkdir()
    found = checkpoints.latest()
    assert found is not None and found.step == 1 and (found.path / "weights").read_text() == "old"
    checkpoints.save(1, writer("new"), {})
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]


def test_a_run_that_begins_anew_does_not_find_the_old_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(40, writer("old"), {})
    assert checkpoints.set_aside() == 1 and checkpoints.latest() is None
    checkpoints.save(5, writer("new"), {})
    found = checkpoints.latest()
    assert found is not None and found.step == 5
    assert checkpoints.set_aside() == 1 and checkpoints.set_aside() == 0
    kept = sorted(str(p.relative_to(tmp_path)) for p in (tmp_path / "superseded").glob("*/*"))
    assert kept == ["superseded/0000/step_000040", "superseded/0001/step_000005"]


def test_other_ranks_write_their_part_and_nothing_else(tmp_path: Path) -> None:
    waits: list[str] = []
    main = Checkpoints(tmp_path, wait=lambda: waits.append("main"))
    (tmp_path / ".writing_step_000001").mkdir()
    other = Checkpoints(tmp_path, is_main=False, wait=lambda: waits.append("other"))
    other.save(1, lambda folder: (folder / "part_1").write_text("1"), {})
    assert other.latest() is None and waits == ["other"] * 3
    main.save(1, writer("all"), {})
    assert waits[3:] == ["main"] * 3


def test_a_failed_write_leaves_earlier_ones_and_no_litter(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("good"), {})

    def full(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunFolderError, match="Earlier checkpoints are untouched"):
        checkpoints.save(2, full, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, writer("old"), {})
    checkpoints.save(1, writer("new"), {})
    assert (tmp_path / "step_000001" / "weights").read_text() == "new"


def test_nothing_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent").latest() is None
