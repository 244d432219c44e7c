"""Logs of benchmarks and environments: LMRL-Gym, AITW, AndroidControl, Gymnasium, OpenEnv; rewards and ends by hand."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.cli.commands import main
from rollwright.contracts import FORMATS
from rollwright.contracts.record import StopReason, Trajectory
from rollwright.envs.device.phone_actions import parse_action
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import tiny_tokenizer
from rollwright.store.importers import load_format
from rollwright.store.importers.into_store import import_episodes
from rollwright.store.importers.log_records import Report
from rollwright.store.importers.tfrecord import example
from rollwright.store.trajectory_store import TrajectoryStore

TURN = StopReason.MAX_TURNS
END = StopReason.TERMINATED


@pytest.fixture(scope="module")
def codec() -> ChatCodec:
    return ChatCodec(tiny_tokenizer(["Is it alive? No. {action_type: click}"], kind="bpe", vocab_size=300))


def take(codec: ChatCodec, tmp_path: Path, form: str, rows: Sequence[Any] | Path) -> tuple[Report, list[Trajectory]]:
    path = rows if isinstance(rows, Path) else tmp_path / "log.jsonl"
    if not isinstance(rows, Path):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    report = import_episodes(path, load_format(form), codec, tmp_path / "store")
    assert report.read == report.used + report.left_out.total()
    return report, list(TrajectoryStore(tmp_path / "store", mode="read").iter_trajectories())


BUYER = {"personality": "polite", "preferred_brands": "a Ford", "preferred_type": "truck", "budget": 30000}
SALE = [("Seller", "Hello."), ("Buyer", "A truck?"), ("Seller", "Yes."), ("Seller", "25,000."), ("Buyer", "Fine.")]
TALK = [{"role": role, "text": text} for role, text in SALE]
LMRL: dict[str, tuple[Any, list[str], list[float], StopReason, bool | None]] = {
    "a word that was found": (
        {"word": ["cat"], "lines": ["Is it alive? Yes.", "Is it a cat? Yes."], "correct": True},
        ["Is it alive?", "Is it a cat?"],
        [-1.0, 0.0],
        END,
        True,
    ),
    "a word that was not, after two": (
        {"word": "cat", "lines": ["Is it alive? No.", "Is it red? No"], "correct": False},
        ["Is it alive?", "Is it red?"],
        [-1.0, -1.0],
        TURN,
        False,
    ),
    "a word that was not, after twenty": (
        {"word": "cat", "lines": ["Is it red? No."] * 20, "correct": False},
        ["Is it red?"] * 20,
        [-1.0] * 20,
        END,
        False,
    ),
    # 25000 / ((30000 + 20000) / 2)
    "a car that was bought": (
        {"buyer_info": BUYER, "lines": TALK, "output": {"car_bought": True, "msrp": 20000, "buy_price": 25000}},
        ["Hello.", "Yes. 25,000."],
        [0.0, 1.0],
        END,
        True,
    ),
    # -(30000 - 20000) / 20000
    "a car that was not": (
        {"buyer_info": BUYER, "lines": TALK, "output": {"car_bought": False, "msrp": 20000, "buy_price": None}},
        ["Hello.", "Yes. 25,000."],
        [0.0, -0.5],
        END,
        False,
    ),
    "a talk that was cut": ({"buyer_info": BUYER, "lines": TALK}, ["Hello.", "Yes. 25,000."], [0.0, 0.0], TURN, None),
    "a walk": (
        {"text_history": ["at 1", "left\n", "at 2", "up\n"], "rewards": [0, -1, 0, 0], "dones": [0, 0, 0, 1]},
        ["left", "up"],
        [-1.0, 0.0],
        END,
        None,
    ),
    "a game of Wordle": (
        {
            "sequence": [["Wordle:", 0], ["c r a n e", 1], ["b b y g g", 0], ["s l a t e", 1]],
            "reward": [-1, 0, 0],
            "done": 1,
        },
        ["c r a n e", "s l a t e"],
        [-1.0, 0.0],
        END,
        None,
    ),
    "moves": (
        [
            {"state": "a", "action": "e 4", "reward": 0, "done": False},
            {"state": "b", "action": "d 5", "reward": 1, "done": True},
        ],
        ["e 4", "d 5"],
        [0.0, 1.0],
        END,
        None,
    ),
    "a lone step": ({"state": "walls left", "action": "move right"}, ["move right"], [0.0], END, None),
}


@pytest.mark.parametrize("name", LMRL)
def test_lmrl_gym_with_the_rewards_of_the_benchmark(name: str, codec: ChatCodec, tmp_path: Path) -> None:
    row, actions, rewards, stop, success = LMRL[name]
    _, (found,) = take(codec, tmp_path, "lmrl-gym", [row])
    assert [turn.text for turn in found.turns] == actions and found.rewards == rewards
    assert (found.stop_reason, found.success) == (stop, success) and found.learnable
    assert (found.turns[-1].terminated, found.turns[-1].truncated) == (stop is END, stop is TURN)


def test_questions_about_one_word_are_attempts_at_one_task(codec: ChatCodec, tmp_path: Path) -> None:
    rows = [LMRL["a word that was found"][0], LMRL["a word that was not, after two"][0]]
    _, found = take(codec, tmp_path, "lmrl-gym", rows)
    assert {t.task.id for t in found} == {"cat"} and len({t.id for t in found}) == 2
    assert found[0].turns[1].observed[0].content == "Yes."


def aitw(step: int, length: int, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "episode_id": ["e1"],
        "step_id": [step],
        "episode_length": [length],
        "goal_info": ["open settings"],
        "image/width": [100],
        "image/height": [200],
        "results/action_type": [4],
        "results/yx_touch": [0.25, 0.5],
        "results/yx_lift": [0.25, 0.5],
        "results/type_action": [""],
        "image/ui_annotations_positions": [0.2, 0.4, 0.1, 0.2],
        "image/ui_annotations_text": ["Settings"],
        "image/ui_annotations_ui_types": ["TEXT"],
    }
    return row | changes


DONE = {"results/action_type": [10], "results/yx_touch": [-1.0, -1.0], "results/yx_lift": [-1.0, -1.0]}


def as_example(row: dict[str, list[Any]]) -> bytes:
    """The same written by hand: what TensorFlow would."""

    def field(number: int, body: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(body)) + body

    def varint(value: int) -> bytes:
        value &= (1 << 64) - 1
        found = b""
        while value > 127:
            found, value = found + bytes([value & 127 | 128]), value >> 7
        return found + bytes([value])

    entries = b""
    for name, values in row.items():
        if isinstance(values[0], str):
            feature = field(1, b"".join(field(1, value.encode()) for value in values))
        elif isinstance(values[0], float):
            feature = field(2, field(1, struct.pack(f"<{len(values)}f", *values)))
        else:
            feature = field(3, field(1, b"".join(map(varint, values))))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def as_tfrecord(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    found = b""
    for row in rows:
        body = as_example(row)
        found += struct.pack("<Q", len(body)) + b"crc." + body + b"crc."
    path.write_bytes(gzip.compress(found))
    return path


def test_an_example_reads_as_it_was_written() -> None:
    row = {"a": ["x", "yé"], "f": [0.5, -2.0], "i": [0, 127, 128, -1, 2**62]}
    assert example(as_example(row)) == row | {"a": [b"x", "yé".encode()]}
    for bad in (b"\xff", b"\x0a\x05\x0a", b"\x0b"):
        with pytest.raises((ValueError, IndexError)):
            example(bad)


@pytest.mark.parametrize("as_file", ["jsonl", "tfrecord"])
def test_aitw_by_steps_as_actions_of_the_phone(as_file: str, codec: ChatCodec, tmp_path: Path) -> None:
    rows = [aitw(0, 2), aitw(1, 2, **DONE), aitw(0, 1, episode_id=["e2"])]
    given = as_tfrecord(tmp_path / "general-00000-of-00321", rows) if as_file == "tfrecord" else rows
    report, (one, two) = take(codec, tmp_path, "aitw", given)
    assert report.used == 3 and report.records == 2
    first = one.turns[0]
    assert first.observed[0].content == "Task: open settings\nTEXT 'Settings' at 50 50"
    click = parse_action(first.text)
    assert (click.action_type, click.x, click.y) == ("click", 50, 50)
    assert json.loads(one.turns[1].text) == {"action_type": "status", "goal_status": "complete"}
    assert (one.success, two.success) == (True, None)


def test_android_control_by_its_instructions(codec: ChatCodec, tmp_path: Path) -> None:
    row = {
        "episode_id": 7,
        "goal": "Open the clock.",
        "actions": ['{"action_type":"open_app","app_name":"Clock"}', {"action_type": "click", "x": 3, "y": 4}],
        "step_instructions": ["open the app", "tap alarm"],
        "screenshot_widths": [100, 100, 100],
        "screenshot_heights": [200, 200, 200],
    }
    _, (found,) = take(codec, tmp_path, "android-control", [row])
    assert [turn.observed[0].content for turn in found.turns] == [
        "Task: Open the clock.\nStep: open the app",
        "Step: tap alarm",
    ]
    assert json.loads(found.turns[1].text) == {"action_type": "click", "x": 3, "y": 4}
    assert found.id == "log/7"


def gym(step: int, last: int, **changes: Any) -> dict[str, Any]:
    row = {"episode": 3, "step": step, "observation": f"at {step}", "action": "right", "reward": float(step)}
    return row | {"terminated": step == last, "truncated": False} | changes


def test_gymnasium_by_steps_and_by_episodes(codec: ChatCodec, tmp_path: Path) -> None:
    whole = {
        "id": "whole",
        "observations": [[0, 1], [1, 1], [2, 1]],
        "actions": [1, 0],
        "rewards": [0, 0.5],
        "terminations": [False, False],
        "truncations": [False, True],
    }
    rows = [gym(0, 1, task="lake", seed=5), gym(1, 1, action=2), whole]
    _, (one, two) = take(codec, tmp_path, "gymnasium", rows)
    assert [turn.text for turn in one.turns] == ["right", "2"] and one.rewards == [0.0, 1.0]
    assert (one.task.id, one.seed, one.stop_reason) == ("lake", 5, END)
    assert [turn.observed[0].content for turn in two.turns] == ["[0, 1]", "[1, 1]"]
    assert two.stop_reason is TURN and two.rewards == [0.0, 0.5]


def said(kind: str, data: Any = None, episode: str = "s") -> dict[str, Any]:
    return {"episode": episode, "type": kind, "data": data}


SESSION = [
    said("reset", {"seed": 1}),
    said("observation", {"observation": {"text": "hello"}, "reward": None, "done": False}),
    said("step", {"message": "say hi"}),
    said("error", {"message": "say it louder", "code": "INVALID"}),
    said("step", {"message": "HI", "metadata": {}}),
    said("observation", {"observation": {"text": "bye"}, "reward": 1.5, "done": True}),
    said("close"),
]


def test_openenv_by_messages(codec: ChatCodec, tmp_path: Path) -> None:
    _, (found,) = take(codec, tmp_path, "openenv", SESSION)
    assert [turn.text for turn in found.turns] == ["say hi", "HI"] and found.rewards == [0.0, 1.5]
    assert [turn.observed[0].content for turn in found.turns] == ['{"text": "hello"}', "say it louder"]
    assert found.stop_reason is END


def test_every_format_is_listed_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    for name in FORMATS:
        assert load_format(name).says
    with pytest.raises(SystemExit):
        main(["import", "--help"])
    shown = "".join(capsys.readouterr().out.split())
    assert all(name in shown for name in FORMATS)
