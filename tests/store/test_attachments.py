"""The pictures of a store: whole or absent, each once, nothing that is no picture, found again after a move."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import (
    Attachment,
    EnvReward,
    RunFolderError,
    StopReason,
    Task,
    Trajectory,
    Turn,
    attach_picture,
)
from rollwright.store import TrajectoryStore, attachments, score_store

PNG = b"\x89PNG\r\n\x1a\n"


def episode(name: str, *pictures: Attachment) -> Trajectory:
    turn = Turn(prompt_ids=(1,), action_ids=(2,), action_logprobs=(-1.0,), text="x", attachments=pictures)
    task = Task(id="t", split="train")
    return Trajectory(id=name, task=task, seed=1, turns=(turn,), stop_reason=StopReason.TERMINATED)


def pictures_of(folder: Path) -> list[list[Attachment]]:
    store = TrajectoryStore(folder, mode="read")
    return [list(t.turns[0].attachments) for t in store.iter_trajectories()]


def test_equal_pictures_are_one_file_wherever_they_come_from(tmp_path: Path) -> None:
    kept = attach_picture(PNG + b"one", tmp_path / "shots")
    store = TrajectoryStore(tmp_path / "store")
    store.append([episode("a", attach_picture(PNG + b"one"), kept), episode("b", attach_picture(PNG + b"two"))])
    store.append([episode("c", attach_picture(PNG + b"one"))])
    files = {file.name: file.read_bytes() for file in (tmp_path / "store" / "attachments").iterdir()}
    assert files == {f"{hashlib.sha256(c).hexdigest()}.png": c for c in (PNG + b"one", PNG + b"two")}
    assert store.warnings == []
    moved = (tmp_path / "store").rename(tmp_path / "moved")
    [[one, two], [three], [four]] = pictures_of(moved)
    assert one == two == four != three and one.content is None
    assert one.path == str(moved / "attachments" / f"{kept.sha256}.png")


def test_a_copy_of_a_store_takes_the_pictures_along(tmp_path: Path) -> None:
    source = TrajectoryStore(tmp_path / "a")
    source.append([episode("a", attach_picture(PNG + b"one"))])
    score_store(source, TrajectoryStore(tmp_path / "b"), EnvReward())
    [[picture]] = pictures_of(tmp_path / "b")
    assert picture.path is not None and Path(picture.path).read_bytes() == PNG + b"one"
    assert Path(picture.path).parent == tmp_path / "b" / "attachments"


SOUND = attach_picture(PNG + b"sound")


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (replace(SOUND, content=PNG + b"another"), "its content has another hash"),
        (replace(SOUND, media_type="image/jpeg"), "its content is no image/jpeg"),
        (replace(SOUND, content=None), "nowhere to be read"),
        (replace(SOUND, content=None, path="/dev/null"), "nowhere to be read"),
        (replace(SOUND, content=None, path="a\x00b"), "nowhere to be read"),
        (attach_picture(PNG + bytes(100)), "has 108 bytes, a picture may have 50"),
        (attach_picture(PNG + bytes(30)), "may have 3e\\+01 bytes together"),
        (replace(SOUND, media_type="image/svg+xml"), ""),
        (replace(SOUND, sha256="../../escape"), ""),
    ],
)
def test_what_is_no_sound_picture_stays_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Attachment, reason: str
) -> None:
    monkeypatch.setattr(attachments, "MAX_PICTURE_BYTES", 50)
    monkeypatch.setattr(attachments, "MAX_STORE_BYTES", 30)
    store = TrajectoryStore(tmp_path / "store")
    store.append([episode("a", picture)])
    assert list(tmp_path.rglob("*.png")) + list(tmp_path.rglob("*.jpg")) + list(tmp_path.rglob("*svg*")) == []
    [[back]] = pictures_of(tmp_path / "store")
    assert back == picture and back.content is None  # the turn still says which picture it saw
    assert (len(store.warnings) == 1 and re.search(reason, store.warnings[0])) or not reason


def test_a_row_cannot_name_a_file_outside_of_its_store(tmp_path: Path) -> None:
    """A foreign store may say anything of where its pictures lie; only the name that we give is completed."""
    for path in ("attachments/../../etc/x.png", "/etc/passwd", f"attachments/{SOUND.sha256}.jpg"):
        store = TrajectoryStore(tmp_path / hashlib.sha256(path.encode()).hexdigest())
        store.append([episode("a", replace(SOUND, content=None, path=path))])
        [[back]] = pictures_of(store.folder)
        assert back.path == path


@pytest.mark.timeout(60)
def test_a_copy_of_a_foreign_store_waits_for_no_pipe_that_a_row_names(tmp_path: Path) -> None:
    """Nobody writes into the pipe: opened as a file it would hold the copy for ever."""
    pipe, other = tmp_path / "pipe.png", tmp_path / "other.png"
    os.mkfifo(pipe)
    other.write_bytes(PNG + b"other")
    named = [episode(str(k), replace(SOUND, content=None, path=str(path))) for k, path in enumerate((pipe, other))]
    store = TrajectoryStore(tmp_path / "copy")
    store.append(named)
    assert "nowhere to be read" in store.warnings[0] and "another hash" in store.warnings[1]


@pytest.mark.parametrize("name", ["fsync", "rename"])
def test_a_full_disk_leaves_no_half_picture_and_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    store = TrajectoryStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os if name == "fsync" else Path, name, full)
        with pytest.raises(RunFolderError, match="No space left"):
            store.append([episode("a", SOUND)])
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
    assert store.append([episode("a", SOUND)]) == 0 and len(list((tmp_path / "attachments").iterdir())) == 1
