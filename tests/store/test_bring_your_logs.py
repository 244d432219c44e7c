"""docs/bring_your_logs.md does what it says: its file, its commands, its output, its format."""

from __future__ import annotations

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from rollwright.cli.commands import main
from rollwright.contracts import FORMATS
from rollwright.models.tiny_model import make_tiny_model
from rollwright.store.trajectory_store import TrajectoryStore

PAGE = (Path(__file__).parents[2] / "docs" / "bring_your_logs.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return make_tiny_model(folder, texts=["What is 2 + 2? 4 Rain in Paris?"], tokenizer="bpe", hidden=32, layers=1)


def test_the_example_imports_shows_exports_and_trains(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, training, *_ = blocks("bash")
    (tmp_path / "talks.jsonl").write_text(blocks("json")[0], encoding="utf-8")
    said = []
    with monkeypatch.context() as there:
        there.chdir(tmp_path)
        for line in commands.replace("smollm2", str(model)).splitlines():
            program, *words = shlex.split(line)
            assert program == "rollwright" and main(words) == 0
            said.append(capsys.readouterr().out)
    assert said[0].startswith("4 rows read, 2 used, 2 left out") and said[0].endswith("would be written\n")
    assert said[1].strip() == blocks("text")[0].strip()
    assert len((tmp_path / "left_out.jsonl").read_text().splitlines()) == 2
    rows = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in blocks("json")[0].splitlines()[:2]]
    assert [row["messages"] for row in rows] == [row["messages"] for row in given]

    words = training.split("rollwright train sft")[1].replace("smollm2", str(model)).split()
    words = [
        word.replace("[talks]", f"[{tmp_path / 'talks'}]").replace("runs/talks", f"{tmp_path / 'run'}")
        for word in words
    ]
    import_module("rollwright.recipes.sft").main([*words, "sft.max_steps=1", "sft.precision=float32"])
    assert (tmp_path / "run" / "policy" / "config.json").exists()


def test_the_format_of_your_own_is_used_and_its_surprises_are_counted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_logs.py").write_text(blocks("python")[0], encoding="utf-8")
    good = {"question": "What is 2 + 2?", "answer": "4", "rating": 5}
    rows = [good, good | {"rating": 9}, good | {"rating": [1]}, good | {"answer": None}, good | {"rating": "5"}]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["my_logs:CHATS", str(tmp_path / "chats.jsonl"), "--into", str(tmp_path / "chats"), "--model", str(model)]
    assert main(["import", *words]) == 0
    assert "5 rows read, 1 used, 4 left out" in capsys.readouterr().out
    (found,) = TrajectoryStore(tmp_path / "chats", mode="read").iter_trajectories()
    assert found.success and found.total_reward == 1.0 and found.turns[0].text == "4"


def test_the_page_lists_every_format() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE) == list(FORMATS)
