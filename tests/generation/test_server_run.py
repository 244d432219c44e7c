"""A whole run on a vLLM server, learned by two ranks under ZeRO-3: every update reaches the server, nothing is left."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rollwright.run_io.tracking import read_metrics
from rollwright.store.trajectory_store import TrajectoryStore

ROOT = Path(__file__).resolve().parents[2]
STEPS = 3

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]


def words(folder: Path) -> list[str]:
    return [
        "recipes/text/maze_grpo.yaml",
        f"run.folder={folder}",
        f"run.steps={STEPS}",
        "run.parity_checks=0",
        *("model.path=tiny", "model.tiny_hidden=64", "reward.name=zero_script:EvenIds"),
        *("engine=vllm_server", "engine.max_context=512", "engine.kv_cache_gib=0.25"),
        *("rollout.groups_per_step=3", "rollout.group_size=4", "rollout.max_turns=4", "rollout.env_call_s=120"),
        *("evaluation.seeds_per_task=1", "evaluation.max_turns=2"),
    ]


def test_every_update_of_a_sharded_policy_reaches_the_server(tmp_path: Path) -> None:
    run, jobs = tmp_path / "run", tmp_path / "jobs.json"
    jobs.write_text(json.dumps([["grpo", words(run)]]), encoding="utf-8")
    start = ["-m", "accelerate.commands.launch", "--main_process_port", "0"]
    start += ["--config_file", "accelerate_configs/cpu_zero3.yaml", "tests/learner/zero_script.py", str(jobs)]
    inherited = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    environment = inherited | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, *start], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1700
    )
    assert done.returncode == 0, done.stderr[-6000:]

    rows = [row for row in read_metrics(run / "metrics.jsonl") if "optim/loss" in row]
    assert len(rows) == STEPS and all(row["optim/grad_norm"] > 1e-3 for row in rows), "something must have been learned"
    assert all(row["engine/parity_max"] < 1e-3 for row in rows)
    played = TrajectoryStore(run / "trajectories", mode="read")
    for step in range(STEPS):
        turns = [turn for t in played.iter_trajectories(tag=f"step_{step}") for turn in t.turns]
        assert {span.version for turn in turns for span in turn.spans} == {step}, "each step is sampled by its weights"
    log = (run / "servers" / "server_0.log").read_text(encoding="utf-8")
    servers = {int(pid) for pid in re.findall(r"pid=(\d+)", log)}
    assert servers and not [pid for pid in servers if Path(f"/proc/{pid}/exe").exists()], "servers end with the run"
