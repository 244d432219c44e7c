"""Checkpoints: whole or not at all, the newest kept, broken ones passed over, a full disk loses nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from rollwright.contracts.errors import RunFolderError
from rollwright.run_io.checkpoint import Checkpoints, seal_fault, sealed


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


def test_one_changed_character_of_the_state_is_noticed(tmp_path: Path) -> None:
    """Each digit of it: a step, a place in a file, a count, the digest of a file, the seal itself."""
    checkpoints = Checkpoints(tmp_path, keep=9)
    checkpoints.save(11, writer("old"), {"stored": 7})
    path = checkpoints.save(12, writer("new"), {"stored": 14, "logged": 3096, "curriculum": {"seen": [1.5, 2]}})
    text = (path / "state.json").read_text()
    digits = [place for place, letter in enumerate(text) if letter.isdigit()]
    draw = random.Random(0)
    for place in digits + draw.sample(range(len(text)), 60):
        other = draw.choice([c for c in "0123456789x" if c != text[place]])
        (path / "state.json").write_text(text[:place] + other + text[place + 1 :])
        found = checkpoints.latest()
        assert found is not None and found.step == 11, (place, text[place], other)
    (path / "state.json").write_text(text)
    found = checkpoints.latest()
    assert found is not None and found.step == 12 and found.state["curriculum"] == {"seen": [1.5, 2]}


def test_a_checkpoint_from_before_there_were_seals_is_read(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(3, writer("w"), {"version": 3})
    state = json.loads((path / "state.json").read_text())
    plain = {key: value for key, value in state.items() if key not in ("seal", "sealed")}
    (path / "state.json").write_text(json.dumps(plain))
    found = Checkpoints(tmp_path).latest()
    assert found is not None and found.state["version"] == 3
    (path / "state.json").write_text(json.dumps(plain | {"step": 4}))
    assert Checkpoints(tmp_path).latest() is None, "and there the folder's name says which step it is"


def test_a_seal_says_what_was_sealed_and_not_how_it_was_written() -> None:
    document = sealed({"a": (1, 2), "b": {"x": float("nan"), "y": "\ud800"}})
    assert seal_fault(json.loads(json.dumps(document, indent=2, sort_keys=True))) == ""
    assert seal_fault({"a": 1}) == "", "an older document has none"
    for change in ({"a": [1, 3]}, {"sealed": False}, {"seal": "0"}, {"new": 1}):
        assert seal_fault(document | change)
    for lost in ("seal", "sealed"):
        assert seal_fault({key: value for key, value in document.items() if key != lost})


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "3", "", "\0"])
def test_a_state_that_is_no_state_is_passed_over(tmp_path: Path, content: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, lambda folder: None, {"a": 1})
    newest = checkpoints.save(2, lambda folder: None, {"a": 2})
    (newest / "state.json").write_text(content)
    found = checkpoints.latest()
    assert found is not None and (found.step, found.state["a"]) == (1, 1)
