"""Turn critics under DeepSpeed: two processes fit them, and their slow copies follow, as in one process.

Everything of a stage happens in one launch (see zero_critics_script.py): starting two processes costs most of the time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 2e-6
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def launch(folder: Path, config: str = "") -> Path:
    """Train in one process, or in those of a launch configuration."""
    start = ["-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file", config] if config else []
    words = [sys.executable, *start, str(ROOT / "tests" / "critics" / "zero_critics_script.py"), str(folder)]
    inherited = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    environment = inherited | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    # The first use of DeepSpeed on a machine compiles its communication: minutes.
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launch(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """What two processes make of it under a ZeRO stage; launched once per stage."""
    made: dict[int, Path] = {}

    def get(stage: int) -> Path:
        if stage not in made:
            made[stage] = launch(tmp_path_factory.mktemp(f"zero{stage}"), f"accelerate_configs/cpu_zero{stage}.yaml")
        return made[stage]

    return get


def read(folder: Path, policy: str) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(folder / policy / "run.pt", weights_only=True)
    return saved


@pytest.mark.parametrize(("stage", "policy"), [(1, "whole"), (1, "lora"), (2, "whole"), (2, "lora"), (3, "whole")])
def test_two_processes_fit_critics_as_one(alone: Path, sharded: Callable[[int], Path], stage: int, policy: str) -> None:
    expected, found = read(alone, policy), read(sharded(stage), policy)
    losses = [row["archer/loss"] for row in expected["rows"]]
    assert len(losses) == 5 and losses[-1] < 0.97 * losses[0], "nothing was learned, so nothing was compared"
    names = [name for name in expected["rows"][0] if name.endswith(("/loss", "/grad_norm"))]
    assert len(names) == 12  # of five critics and the policy
    for mine, theirs in zip(found["rows"], expected["rows"], strict=True):
        assert {n: mine[n] for n in names} == pytest.approx({n: theirs[n] for n in names}, rel=TOLERANCE, abs=TOLERANCE)
    assert found["weights"].keys() == expected["weights"].keys()
    for name, tensor in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], tensor, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_resumed_run_fits_its_critics_as_if_it_had_not_been_cut(
    alone: Path, sharded: Callable[[int], Path], stage: int
) -> None:
    run = read(sharded(stage) if stage else alone, "whole")
    assert run["resumed_rows"] == run["rows"][3:]
    assert not [n for n, tensor in run["weights"].items() if not torch.equal(tensor, run["resumed_weights"][n])]


def test_the_slow_copy_has_moved_part_of_the_way(alone: Path) -> None:
    weights = read(alone, "whole")["weights"]
    fast, slow = (weights[f"archer.{kind}.heads.q.0.0.weight"] for kind in ("fast", "slow"))
    assert 1e-4 < float((fast - slow).abs().max()) < 0.1
