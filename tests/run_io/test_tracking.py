"""The run folder and the metrics file: refused early, appended whole, never torn by a full disk or a kill."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from rollwright.contracts.errors import RunFolderError
from rollwright.run_io.progress import Progress
from rollwright.run_io.tracking import RunFolder, Tracker, append_line, read_metrics


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs" / "one", config_yaml="seed: 1\n")


def test_create_makes_everything_a_run_writes_to(folder: RunFolder) -> None:
    assert folder.config.read_text() == "seed: 1\n"
    assert all(part.is_dir() for part in (folder.trajectories, folder.checkpoints, folder.evaluations))
    assert sorted(p.name for p in folder.path.iterdir()) == ["checkpoints", "config.yaml", "eval", "trajectories"]


def test_another_configuration_does_not_overwrite_the_first(folder: RunFolder) -> None:
    for text in ("seed: 1\n", "seed: 2\n", "seed: 3\n"):
        RunFolder.create(folder.path, config_yaml=text)
    kept = {p.name: p.read_text() for p in folder.path.glob("config*.yaml")}
    assert kept == {"config.1.yaml": "seed: 1\n", "config.2.yaml": "seed: 2\n", "config.yaml": "seed: 3\n"}


@pytest.mark.parametrize("place", ["/proc/rollwright", "a_file/run"])
def test_an_unwritable_folder_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("in the way")
    with pytest.raises(RunFolderError, match=f"the run folder {place} cannot be written: .*Name a folder"):
        RunFolder.create(place, config_yaml="")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "faults.jsonl", "trajectories", "eval"])
def test_a_part_of_the_wrong_kind_is_refused(name: str, tmp_path: Path) -> None:
    if "." in name:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("a file")
    with pytest.raises(RunFolderError, match="cannot be written"):
        RunFolder.create(tmp_path, config_yaml="run: {}\n")


def test_each_step_is_one_line(folder: RunFolder) -> None:
    tracker = Tracker(folder)
    tracker.log(1, {"optim/grad_norm": 2.5})
    tracker.log(2, {"optim/grad_norm": 1, "eval/web.click-test/success_frac": 0.5})
    assert folder.metrics.read_text().splitlines() == [
        '{"step": 1, "optim/grad_norm": 2.5}',
        '{"step": 2, "optim/grad_norm": 1.0, "eval/web.click-test/success_frac": 0.5}',
    ]


@pytest.mark.parametrize("name", ["loss", "Loss/mean", "policy loss/mean", "policy/", "/mean", ""])
def test_a_name_without_an_area_is_refused(folder: RunFolder, name: str) -> None:
    with pytest.raises(ValueError, match="area/what_unit"):
        Tracker(folder).log(1, {name: 1.0})
    assert not folder.metrics.exists()


@pytest.mark.parametrize("value", ["0.5", True, None, [1.0]])
def test_a_value_that_is_no_number_is_refused(folder: RunFolder, value: object) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        Tracker(folder).log(1, {"policy/loss_mean": value})  # type: ignore[dict-item]


def test_a_value_that_is_not_finite_stays_valid_json_and_is_said_once(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(folder)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2):
            tracker.log(step, {"policy/loss_mean": float("nan"), "optim/grad_norm": 1.0})
    assert [row["policy/loss_mean"] for row in read_metrics(folder.metrics)] == [None, None]
    assert len(caplog.records) == 1
    assert "policy/loss_mean is nan at step 1" in caplog.text


def test_only_the_first_rank_writes(folder: RunFolder) -> None:
    Tracker(folder, speaks=False).log(1, {"optim/grad_norm": 1.0})
    assert not folder.metrics.exists()


def test_others_hear_after_the_file_and_cannot_stop_the_run(folder: RunFolder) -> None:
    heard: list[tuple[dict[str, float], int, int]] = []

    def listener(values: dict[str, float], step: int) -> None:
        heard.append((values, step, len(read_metrics(folder.metrics))))
        if step == 2:
            raise ConnectionError("the tracking server is gone")

    tracker = Tracker(folder, also=listener)
    for step in (1, 2, 3):
        tracker.log(step, {"optim/grad_norm": 1.0})
    assert heard == [({"optim/grad_norm": 1.0}, 1, 1), ({"optim/grad_norm": 1.0}, 2, 2)]
    assert len(read_metrics(folder.metrics)) == 3


def test_a_line_torn_by_a_kill_does_not_swallow_the_next(folder: RunFolder) -> None:
    folder.metrics.write_text('{"step": 1, "optim/grad_norm": 1.0}\n{"step": 2, "opt')
    Tracker(folder).log(2, {"optim/grad_norm": 3.0})
    assert [(row["step"], row["optim/grad_norm"]) for row in read_metrics(folder.metrics)] == [(1, 1.0), (2, 3.0)]


def test_a_full_disk_is_a_clear_error_and_earlier_lines_stay_whole(folder: RunFolder) -> None:
    """The limit on file size is the kernel's own: it writes a part of the line first, exactly as a full disk does."""
    code = f"""
import resource
from pathlib import Path
from rollwright.contracts.errors import RunFolderError
from rollwright.run_io.tracking import RunFolder, Tracker
tracker = Tracker(RunFolder(Path({str(folder.path)!r})))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    for step in range(1, 9):
        tracker.log(step, {{"optim/grad_norm": 1.0}})
except RunFolderError as error:
    print(step, error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("3 the metrics of step 3 could not be written")
    assert "Safe on disk: all earlier steps" in run.stdout
    assert folder.metrics.read_text() == "".join(
        json.dumps({"step": step, "optim/grad_norm": 1.0}) + "\n" for step in (1, 2)
    )


def test_append_line_raises_where_the_device_is_full() -> None:
    with pytest.raises(OSError, match="No space left"):
        append_line(Path("/dev/full"), {"step": 1})


def test_progress_without_a_terminal_prints_plain_lines() -> None:
    stream = io.StringIO()
    with Progress("episodes", total=2, every_s=0.0, stream=stream) as progress:
        progress.advance(note="1 fault")
        progress.advance()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "episodes: 1/2 after 0 s, 1 fault"
    assert lines[-1] == "episodes: 2/2 after 0 s, 1 fault"
    assert "\x1b" not in stream.getvalue()


def test_progress_is_silent_on_the_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    stream = io.StringIO()
    with Progress("episodes", every_s=0.0, stream=stream) as progress:
        progress.advance()
    assert stream.getvalue() == ""


def test_progress_draws_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("episodes", total=3, stream=stream) as progress:
        progress.advance(3, note="done")
    assert "3/3" in stream.getvalue()
