"""`rollwright audit` as a user meets it: exit codes, files, and mistakes in the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollwright.cli.commands import main
from rollwright.store import TrajectoryStore
from tests import builders

WORLD = "tests.checks.planted_worlds:SheetWorld"
UNTAUGHT = "tests.checks.planted_worlds:Untaught"
BROKEN = "tests.checks.planted_worlds:MostlyYes"


def audit(*words: object) -> int:
    """The exit code, whichever way the command leaves."""
    try:
        return main(["audit", *map(str, words)])
    except SystemExit as left:
        return int(left.code or 0)


@pytest.mark.slow
def test_a_fit_world_leaves_0_and_its_json_serves_a_later_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "audit.json"
    assert audit(WORLD, "--tasks", 90, "--json", file) == 0
    said = capsys.readouterr().out
    assert "\nFIT:" in said and "another process: behaviour" in said and "early stop" in said
    told = json.loads(file.read_text())
    assert told["verdict"] == "fit" and told["identity"]["name"] == "sheet"
    assert {row["policy"] for row in told["panel"]} > {"golden", "null", "forger", "injection"}
    assert [row["template"] for row in told["templates"]] == ["reverse", "sum", "twofold"]
    assert audit("tests.checks.planted_worlds:OtherWording", "--quick", "--before", file) == 1
    assert "behaviour changed since the earlier audit" in capsys.readouterr().out


@pytest.mark.parametrize(("world", "code", "said"), [(BROKEN, 1, "UNFIT"), (UNTAUGHT, 3, "CANNOT TELL")])
def test_the_exit_code_tells_unfit_from_undecided(world, code, said, capsys: pytest.CaptureFixture[str]):
    assert audit(world, "--quick") == code
    assert f"\n{said}:" in capsys.readouterr().out


def test_headroom_is_read_from_a_store_and_a_reward_takes_the_place_of_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = TrajectoryStore(tmp_path / "store")
    for task in ("a", "b"):
        episodes = [builders.episode(f"{task}{i}", builders.turn(), task=task, success=True) for i in range(4)]
        store.append(episodes)
    assert audit(WORLD, "--quick", "--episodes", tmp_path / "store", "--reward", "success") == 1
    said = capsys.readouterr().out
    assert "reward success on world" in said and "0.00 of the tasks have both results" in said
    assert "all solved 2/2" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["text.mase"], "text.maze"),
        (["text.maze", "mze=1"], "mze"),
        ([WORLD, "--before", "nothing.json"], "nothing.json"),
        ([WORLD, "--reward", "sucess"], "success"),
        ([WORLD, "--tasks", "0"], "--tasks"),
        ([WORLD, "--episodes", "nowhere"], "nowhere"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-",
)
def test_a_mistake_is_one_paragraph_and_exit_code_2(words, said, capsys: pytest.CaptureFixture[str]):
    assert audit(*words) == 2
    told = capsys.readouterr()
    assert said in told.err and "Traceback" not in told.err and not told.out


def test_the_behaviour_digest_alone_is_printed_on_one_line(capsys: pytest.CaptureFixture[str]):
    assert audit(WORLD, "--behaviour") == 0
    assert len(capsys.readouterr().out.strip()) == 16
