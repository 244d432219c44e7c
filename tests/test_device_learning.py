"""It learns to use the phone: SFT on a careless player, then GRPO, from fixed seeds, judged on held-out phones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rollwright.evaluation import load_evaluation
from rollwright.statistics import wilson_interval

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def launch(recipe: str, settings: str, *words: str) -> None:
    """Start a recipe as a user does."""
    command = [sys.executable, f"recipes/{recipe}", f"recipes/device/{settings}", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr[-4000:]


def successes(run: Path, name: str) -> tuple[int, int]:
    rows = load_evaluation(run / "eval" / f"{name}.json").rows
    return sum(row.success is True for row in rows), len(rows)


def test_grpo_learns_the_settings_of_the_phone(tmp_path: Path) -> None:
    sft, grpo = tmp_path / "sft", tmp_path / "grpo"
    launch("sft.py", "phone_sft.yaml", f"run.folder={sft}")
    words = [f"model.path={sft / 'policy'}", "evaluation.at_start=true"]
    launch("grpo.py", "phone_grpo.yaml", f"run.folder={grpo}", *words)
    start, final = (wilson_interval(*successes(grpo, name)) for name in ("start", "final"))
    assert start.high < final.low, f"held-out success {start} before, {final} after"
