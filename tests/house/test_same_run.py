"""Two runs are the same, or they are not: every kind of difference is found, and what is no difference is not."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def same() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_same_compare", ROOT / "benchmarks" / "_same_compare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_same_compare"] = module
    spec.loader.exec_module(module)
    return module


def a_run(folder: Path, change: Change = lambda parts: None) -> Path:
    """A run folder of two episodes, two lines of metrics and three tensors, after a change to these."""
    turn = {"trajectory_id": "a", "text": "go", "action_logprobs": [-0.5, -1 / 3], "timings": {"env_s": 0.1}}
    parts: dict[str, Any] = {
        "trajectories": [
            {"id": "a", "total_reward": 1.0, "wall_s": 0.3},
            {"id": "b", "total_reward": 0.0, "wall_s": 1},
        ],
        "turns": [turn, turn | {"text": "on"}, turn | {"trajectory_id": "b"}],
        "metrics": [{"step": 0, "optim/loss": 0.5, "time/step_s": 1.5}, {"step": 1, "optim/loss": math.nan}],
        "policy": {"w": torch.tensor([1.0, 2.0])},
        "learner": {"model": {"w": torch.tensor([1.0, 2.0])}, "moments": [{"m": torch.tensor([0.0])}], "step": 3},
    }
    change(parts)
    for kind in ("trajectories", "turns"):
        (folder / "trajectories" / kind).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(parts[kind]), folder / "trajectories" / kind / "000000.parquet")
    for older in ("step_000001", "step_000003"):
        (folder / "checkpoints" / older).mkdir(parents=True)
    (folder / "policy").mkdir()
    save_file(parts["policy"], folder / "policy" / "model.safetensors")
    torch.save(parts["learner"], folder / "checkpoints" / "step_000003" / "learner.pt")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in parts["metrics"]))
    return folder


def compared(same: ModuleType, folder: Path, change: Change, **more: Any) -> dict[str, Any]:
    return same.compare_runs(a_run(folder / "old"), a_run(folder / "new", change), **more)


def counts(found: dict[str, Any]) -> tuple[int, int, int]:
    return found["tensors"].count, found["episodes"].count, found["metrics"].count


def of_the_clock(parts: dict[str, Any]) -> None:
    parts["trajectories"][0]["wall_s"] = 7.0
    parts["turns"] = [row | {"timings": {"env_s": 9.0}} for row in parts["turns"]]
    parts["metrics"][0] |= {"time/step_s": 3.5, "ledger/learner_wait_s": 1.0}


def test_what_the_clock_says_is_no_difference(same: ModuleType, tmp_path: Path) -> None:
    found = compared(same, tmp_path, of_the_clock)
    assert counts(found) == (0, 0, 0)
    assert [found[kind].of for kind in ("tensors", "episodes", "metrics")] == [3, 2, 2]
    assert not any(difference.added or difference.first for difference in found.values())


CHANGES: dict[str, tuple[Change, tuple[int, int, int], str]] = {
    "a log-prob in its last bit": (
        lambda p: p["turns"].__setitem__(1, p["turns"][1] | {"action_logprobs": [-0.5, math.nextafter(-1 / 3, 0)]}),
        (0, 1, 0),
        "row 0, turns.action_logprobs",
    ),
    "a turn less": (lambda p: p["turns"].pop(), (0, 1, 0), "row 1, turns"),
    "a turn in another episode": (
        lambda p: p["turns"].__setitem__(1, p["turns"][1] | {"trajectory_id": "b"}),
        (0, 2, 0),
        "row 0, turns",
    ),
    "an episode less": (lambda p: p["trajectories"].pop(), (0, 1, 0), "row 1 is only on the old side"),
    "a column less": (lambda p: [row.pop("total_reward") for row in p["trajectories"]], (0, 2, 0), "is gone"),
    "a metric": (lambda p: p["metrics"][0].update({"optim/loss": 0.25}), (0, 0, 1), "row 0, optim/loss: 0.5 and 0.25"),
    "a metric that is a number again": (lambda p: p["metrics"][1].update({"optim/loss": 0.0}), (0, 0, 1), "nan and"),
    "a metric less": (lambda p: p["metrics"][0].pop("optim/loss"), (0, 0, 1), "row 0, optim/loss is gone"),
    "a line more": (lambda p: p["metrics"].append({"step": 2}), (0, 0, 1), "row 2 is only on the new side"),
    "the sign of a zero": (lambda p: p["learner"]["moments"][0].update(m=-torch.zeros(1)), (1, 0, 0), "moments/0/m"),
    "another precision": (lambda p: p["policy"].update(w=p["policy"]["w"].double()), (1, 0, 0), "policy/w"),
    "a tensor less": (lambda p: p["learner"].pop("moments"), (1, 0, 0), "learner/moments/0/m"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_kind_of_difference_is_found_and_named(what: str, same: ModuleType, tmp_path: Path) -> None:
    change, expected, where = CHANGES[what]
    found = compared(same, tmp_path, change)
    assert counts(found) == expected
    assert where in next(difference.first for difference in found.values() if difference.first)


def test_what_only_the_new_side_has_is_listed_and_not_counted(same: ModuleType, tmp_path: Path) -> None:
    def add(parts: dict[str, Any]) -> None:
        parts["turns"] = [row | {"kind": "act"} for row in parts["turns"]]
        parts["metrics"][0]["cost/total_mean"] = 1.0
        parts["learner"]["ema"] = torch.ones(1)

    found = compared(same, tmp_path, add)
    assert counts(found) == (0, 0, 0)
    assert [found[kind].added for kind in ("tensors", "episodes", "metrics")] == [
        {"1 tensors"},
        {"turns.kind"},
        {"cost/total_mean"},
    ]


def test_a_tensor_at_another_place_has_moved_and_must_be_the_same(same: ModuleType, tmp_path: Path) -> None:
    def move(parts: dict[str, Any]) -> None:
        parts["learner"]["optimiser"] = {"m": parts["learner"].pop("moments")[0]["m"]}

    found = compared(same, tmp_path, move)["tensors"]
    assert (found.count, found.moved, found.added) == (0, 1, set())
    spoilt = compared(same, tmp_path / "spoilt", lambda p: (move(p), p["learner"]["optimiser"]["m"].add_(1)))["tensors"]
    assert (spoilt.count, spoilt.moved, spoilt.added) == (1, 0, {"1 tensors"})


def test_a_name_that_changed_is_followed(same: ModuleType, tmp_path: Path) -> None:
    def rename(parts: dict[str, Any]) -> None:
        parts["metrics"][0]["loss/mean"] = parts["metrics"][0].pop("optim/loss")
        parts["metrics"][1]["loss/mean"] = parts["metrics"][1].pop("optim/loss")

    assert counts(compared(same, tmp_path, rename, names={"optim/loss": "loss/mean"})) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_working_tree_computes_what_it_computes(tmp_path: Path) -> None:
    """The whole way: two installations, a taught policy, a collected store, an online and an offline method."""
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("needs the repository: the working tree is what git knows of it")
    words = [".", ".", "--only", "grpo,ilql", "--folder", str(tmp_path), "--json"]
    command = [sys.executable, "benchmarks/same_run.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["differences"] == {"tensors": 0, "episodes": 0, "metrics": 0} and not found["failed"]
    assert found["compared"]["grpo"]["episodes"] > 70 and found["compared"]["ilql"]["tensors"] > 100
