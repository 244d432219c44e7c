"""Two processes under DDP, with different numbers of micro-batches, take the step that one process takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
import torch
from accelerate import Accelerator
from rollwright.batching import Segment, TokenBatch
from rollwright.learner.learner import Learner
from rollwright.learner.objective import PolicyObjective
from rollwright.learner.policy_losses import Reinforce
from rollwright.models.tiny_model import tiny_llama

def turn(k):
    return Segment(prompt_ids=(1, 2, k), action_ids=tuple(range(5, 6 + k)), sequence=k)

accelerator = Accelerator(cpu=True)
learner = Learner(accelerator, tiny_llama(32, hidden=32).double(), learning_rate=1e-2, token_budget=9)
gains = torch.arange(7).repeat_interleave(torch.arange(1, 8)) - 2.0
mine = TokenBatch.of([turn(k) for k in range(7)], logprobs_sampled=torch.ones(28), advantages=gains)
metrics = learner.update(mine, PolicyObjective(loss=Reinforce(), correction="none", aggregation=sys.argv[2]))
if accelerator.is_main_process:
    state = learner.state_dict()["policy"]["optimizer"]["state"]
    moments = [state[k]["exp_avg"] for k in sorted(state)]
    torch.save([metrics["optim/loss"], accelerator.num_processes, moments], sys.argv[1])
"""


def one_step(folder: Path, ranks: int, aggregation: str) -> tuple[float, int, list[torch.Tensor]]:
    script, result = folder / "step.py", folder / f"{ranks}.pt"
    script.write_text(SCRIPT, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    command = [sys.executable, *launch, str(script), str(result), aggregation]
    environment = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    done = subprocess.run(
        command, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loss, processes, moments = torch.load(result, weights_only=True)
    return loss, processes, moments


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_two_ranks_take_the_step_of_one(tmp_path: Path, aggregation: str) -> None:
    alone = one_step(tmp_path, 1, aggregation)
    together = one_step(tmp_path, 2, aggregation)
    assert (alone[1], together[1]) == (1, 2)
    assert together[0] == pytest.approx(alone[0], rel=1e-6)
    for mine, theirs in zip(together[2], alone[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-9)
