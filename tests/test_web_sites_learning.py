"""A tiny model from scratch learns an easy template of the mail site: supervised start, then GRPO, held-out starts."""

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
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    done = subprocess.run(
        [*command, f"recipes/{recipe}", f"recipes/{settings}", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.timeout(3600)
def test_grpo_improves_on_held_out_mail_boxes(tmp_path: Path) -> None:
    sft, grpo = tmp_path / "sft", tmp_path / "grpo"
    launch("sft.py", "web/sites_sft.yaml", f"run.folder={sft}")
    words = [f"run.folder={grpo}", f"model.path={sft / 'policy'}", "evaluation.at_start=true"]
    launch("grpo.py", "web/sites_grpo.yaml", *words)
    intervals = {}
    for name in ("start", "final"):
        rows = load_evaluation(grpo / "eval" / f"{name}.json").rows
        intervals[name] = wilson_interval(sum(bool(row.success) for row in rows), len(rows))
    assert intervals["final"].low > intervals["start"].high, intervals
    assert intervals["final"].point > 0.8
