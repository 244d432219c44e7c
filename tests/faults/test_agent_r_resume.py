"""An Agent-R run that is killed in its search, its replays and its updates ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_kills_between_search_and_imitation_change_nothing(tmp_path: Path) -> None:
    """Two kills here; `benchmarks/results/resume_agent_r.md` has ten."""
    words = ["--kills", "2", "--steps", "3", "--json", "--folder", str(tmp_path)]
    command = [sys.executable, "benchmarks/resume_agent_r.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500, env={**os.environ})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == 2 and found["differences"] == 0
    assert found["compared"]["trajectories"] >= 30 and found["compared"]["state"] >= 20
