"""One run per folder: a second start is refused while the owner lives, and takes over when it is dead."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rollwright.contracts.errors import RunFolderError
from rollwright.run_io import run_lock
from rollwright.run_io.run_lock import NAME, Owner, RunLock, held
from rollwright.run_io.tracking import RunFolder

HOLDER = """
    import sys, time
    from rollwright.run_io.run_lock import held
    with held(sys.argv[1]):
        print("held", flush=True)
        time.sleep(600)
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder's lock."""
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start_holder(tmp_path)
    yield process
    process.kill()
    process.wait()


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != NAME}


def test_a_second_start_is_refused_before_anything_is_touched(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    before = everything(tmp_path)
    refused = pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on .*name another run.folder")
    with refused, RunFolder.opened(tmp_path, config_yaml="seed: 2\n"):
        pass
    assert everything(tmp_path) == before and sorted(p.name for p in tmp_path.iterdir()) == [*sorted(before), NAME]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_dead_owner_is_taken_over(tmp_path: Path, end: signal.Signals) -> None:
    process = start_holder(tmp_path)
    process.send_signal(end)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)  # dead, and nobody has waited for it yet: its id is still in the table
    with held(tmp_path) as lock:
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
        lock.require()
    process.wait()
    assert not (tmp_path / NAME).exists()


def write_owner(folder: Path, **changes: object) -> None:
    (folder / NAME).write_text(json.dumps(asdict(replace(Owner.this_process(), **changes))))  # type: ignore[arg-type]


def test_another_process_under_the_owners_id_is_not_the_owner(tmp_path: Path) -> None:
    write_owner(tmp_path, pid=os.getppid(), started="1")
    with held(tmp_path):
        pass
    started = run_lock._started(os.getppid())
    write_owner(tmp_path, pid=os.getppid(), started=started)
    with pytest.raises(RunFolderError, match=f"process {os.getppid()}"), held(tmp_path):
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heart that beats ten times a second, and counts as still after two seconds."""
    monkeypatch.setattr(run_lock, "BEAT_S", 0.1)
    monkeypatch.setattr(run_lock, "STALE_S", 2.0)


@pytest.mark.parametrize("place", ["host", "boot", "namespace"])
def test_an_owner_elsewhere_is_believed_while_its_heart_beats(quick: None, tmp_path: Path, place: str) -> None:
    write_owner(tmp_path, **{place: "elsewhere"})
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.05):
            os.utime(tmp_path / NAME)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(RunFolderError, match=rf"another machine.*delete .*{NAME}"), held(tmp_path):
            pass
    finally:
        over.set()
        thread.join()
    with held(tmp_path):  # it has fallen silent
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_an_owner_elsewhere_that_gives_its_lock_back_is_not_waited_for(quick: None, tmp_path: Path) -> None:
    write_owner(tmp_path, host="elsewhere")
    threading.Timer(0.2, (tmp_path / NAME).unlink).start()
    with held(tmp_path) as lock:
        lock.require()


def test_an_owner_that_lost_its_folder_is_stopped(tmp_path: Path) -> None:
    with held(tmp_path) as lock:
        write_owner(tmp_path, host="elsewhere")
        with pytest.raises(RunFolderError, match=r"taken over by process .* on elsewhere .*this one stops"):
            lock.require()
    assert "elsewhere" in (tmp_path / NAME).read_text(), "and does not give back what is not its own"


def test_the_heart_beats_for_its_own_lock_only(quick: None, tmp_path: Path) -> None:
    with held(tmp_path):
        os.utime(tmp_path / NAME, (0, 0))
        while (tmp_path / NAME).stat().st_mtime == 0:
            time.sleep(0.02)
        write_owner(tmp_path, host="elsewhere")
        os.utime(tmp_path / NAME, (0, 0))
        time.sleep(0.5)
        assert (tmp_path / NAME).stat().st_mtime == 0


def test_one_process_may_open_a_folder_twice_and_its_forks_give_nothing_back(tmp_path: Path) -> None:
    with held(tmp_path) as outer:
        with held(tmp_path):
            pass
        assert (tmp_path / NAME).exists()
        if (child := os.fork()) == 0:
            outer.release()
            os._exit(0)
        os.waitpid(child, 0)
        assert (tmp_path / NAME).exists()
    assert not (tmp_path / NAME).exists()


@pytest.mark.long
def test_of_many_that_start_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    script = """
        import sys, time
        from rollwright.contracts.errors import RunFolderError
        from rollwright.run_io.run_lock import held
        sys.stdin.readline()
        try:
            with held(sys.argv[1]):
                print("held", flush=True)
                sys.stdin.readline()
        except RunFolderError:
            print("refused", flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    others = [subprocess.Popen(command, **pipes) for _ in range(6)]  # type: ignore[call-overload]
    for other in others:
        other.stdin.write("go\n")
        other.stdin.flush()
    said = [other.stdout.readline() for other in others]
    for other in others:
        other.communicate("\n")
    assert sorted(said) == ["held\n"] + ["refused\n"] * 5


@pytest.mark.parametrize("content", ['{"host": "a", "pi', "[" * 100_000, "\0" * 4096, '{"host": ["a"]}', "3"])
def test_a_lock_that_cannot_be_read_counts_as_held_elsewhere(quick: None, tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began > 0.5, "it was watched until it had been still for long enough"


def test_the_owner_is_named_without_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["recipes/grpo.py", "engine.urls=[http://user:secret@host]"])
    with held(tmp_path):
        text = (tmp_path / NAME).read_text()
    assert "grpo.py" in text and "secret" not in text


def test_a_taken_over_lock_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_owner(tmp_path, pid=2**22 + 1, started="7")
    with caplog.at_level(logging.INFO), held(tmp_path):
        assert "taken over from process" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFolderError, match="cannot be written"):
        RunLock.take(tmp_path / "file" / "run")


def test_a_second_run_in_a_folder_is_refused_and_touches_nothing(
    run_recipe: Callable[..., None], tmp_path: Path
) -> None:
    commands = {
        "grpo.py": ["text/maze_grpo.yaml", "model.path=tiny", f"run.folder={tmp_path}"],
        "sft.py": ["text/maze_sft.yaml", "model.path=tiny", f"run.folder={tmp_path}"],
        "collect.py": ["text/maze_collect.yaml", "model.path=tiny", "collect.per_task=1", f"run.folder={tmp_path}"],
        "evaluate.py": ["text/maze.yaml", "model.path=tiny", f"folder={tmp_path}"],
    }
    owner = start_holder(tmp_path)
    try:
        for recipe, words in commands.items():
            with pytest.raises(RunFolderError, match=f"in use by process {owner.pid}"):
                run_recipe(recipe, *words)
            assert everything(tmp_path) == {}, recipe
    finally:
        owner.kill()
        owner.wait()
