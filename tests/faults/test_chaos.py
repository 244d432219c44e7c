"""Some cells of the chaos benchmark: runs that are harmed, and what their files must say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_harmed_runs_end_in_faults_or_clear_stops(tmp_path: Path) -> None:
    words = ["--harms", "garbage", "reward_exception", "sync_stall", "--staleness", "0", "--folder", str(tmp_path)]
    command = [sys.executable, "benchmarks/chaos.py", "--json", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cells"] == 4 and found["completed"] == 4
    assert found["silent_stops"] == found["faults_scored"] == found["episodes_lost"] == 0
    assert found["faults_recorded"] > 10
    kinds = [
        {json.loads(line)["kind"] for line in (run / "run" / "faults.jsonl").read_text().splitlines()}
        for run in sorted(tmp_path.glob("process_0_*"))
        if run.is_dir()
    ]
    for seen, expected in zip(kinds, ("environment", "environment", "reward", "ours"), strict=True):
        assert expected in seen
