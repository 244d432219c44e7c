"""An evaluation says which world it was played in, and a comparison says where two worlds are not alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import DataError, StopReason, Task, Trajectory, Turn, WorldMark, episode_seed
from rollwright.evaluation import Evaluation, compare, format_comparison, load_evaluation, save_evaluation
from rollwright.evaluation.evaluation_record import record_evaluation

MAZE = WorldMark(name="text.maze", version="0.1.0", fingerprint="0123456789abcdef")


def played(world: WorldMark | None, *, name: str = "x") -> Evaluation:
    return record_evaluation([episode(index, world) for index in range(6)], name=name, split="test")


def episode(index: int, world: WorldMark | None, **more: Any) -> Trajectory:
    turn = Turn(prompt_ids=(1,), action_ids=(2,), action_logprobs=(-1.0,), text="x")
    return Trajectory(
        id=str(index),
        task=Task(id=f"t{index % 2}", split="test"),
        seed=episode_seed("test", index),
        turns=(turn,),
        stop_reason=StopReason.TERMINATED,
        success=index % 3 == 0,
        world=world,
        **more,
    )


def test_the_world_stands_in_the_head_and_comes_back(tmp_path: Path) -> None:
    found = played(MAZE)
    assert (found.world, found.world_version, found.world_fingerprint) == ("text.maze", "0.1.0", "0123456789abcdef")
    path = save_evaluation(found, tmp_path)
    assert load_evaluation(path) == found
    assert json.loads(path.read_text())["world_fingerprint"] == "0123456789abcdef"


def test_a_file_from_before_evaluations_named_their_world_is_read(tmp_path: Path) -> None:
    path = save_evaluation(played(None), tmp_path)
    document = json.loads(path.read_text())
    kept = {k: v for k, v in document.items() if not k.startswith("world") and k not in ("seal", "sealed")}
    path.write_text(json.dumps(kept))
    assert load_evaluation(path) == played(None) and load_evaluation(path).world == ""


@pytest.mark.parametrize(
    ("other", "said", "refused"),
    [
        (replace(MAZE, version="0.2.0"), "text.maze version 0.2.0, built as 01234567", False),
        (replace(MAZE, fingerprint="f" * 16), "text.maze version 0.1.0, built as ffffffff", True),
        (replace(MAZE, name="text.lock"), "text.lock version 0.1.0", True),
    ],
)
def test_unlike_worlds_are_said_and_other_rules_refused(other: WorldMark, said: str, refused: bool) -> None:
    both = played(MAZE), played(other)
    if refused:
        with pytest.raises(DataError, match=r"was played in .*--across-versions"):
            compare(*both, name_a="then", name_b="now")
    found = compare(*both, name_a="then", name_b="now", across_versions=refused)
    [warning] = found.warnings
    assert "then was played in text.maze version 0.1.0, built as 01234567, now in " in warning and said in warning
    assert "the worlds are not alike" in format_comparison(found)
    assert "; across versions: then in text.maze version 0.1.0" in found.verdict() and said in found.verdict()


def test_another_list_of_tasks_is_refused_where_the_world_is_known() -> None:
    short = record_evaluation([episode(index, MAZE) for index in (0, 2, 4)], name="x", split="test")
    with pytest.raises(DataError, match=r"only A has one task \(t1\).*Evaluate both in the same world"):
        compare(played(MAZE), short)
    found = compare(played(MAZE), short, across_versions=True)
    assert found.num_pairs == 3 and any("only A has one task (t1), left out" in said for said in found.warnings)


def test_of_equal_worlds_nothing_is_said_and_of_an_unknown_one_that_it_is_unknown() -> None:
    assert compare(played(MAZE), played(MAZE)).warnings == ()
    [warning] = compare(played(MAZE), played(None), name_b="old").warnings
    assert warning == "old does not say which world it was played in, so the worlds may differ"
    assert compare(played(None), played(None)).warnings == ()


def test_episodes_of_two_worlds_are_no_evaluation() -> None:
    mixed = [episode(0, MAZE), episode(1, replace(MAZE, version="9"))]
    with pytest.raises(DataError, match="mixes worlds"):
        record_evaluation(mixed, name="x", split="test")
    lost = replace(mixed[1], stop_reason=StopReason.ENV_ERROR, success=None)
    assert record_evaluation([mixed[0], lost], name="x", split="test").world_version == "0.1.0"
