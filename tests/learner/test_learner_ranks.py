"""Two processes under DDP, with different numbers of micro-batches, take the step that one process takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rollwright.batching import Segment, TokenBatch
from rollwright.learner.update_step import global_token_weights

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


class OtherRank:
    """An accelerator whose other rank counted these tokens, sequences and rows; `seen` is what this one counts."""

    num_processes = 2

    def __init__(self, *counts: int) -> None:
        self.counts = torch.tensor(counts)
        self.seen: list[list[int]] = []

    def reduce(self, local: torch.Tensor, reduction: str) -> torch.Tensor:
        assert reduction == "sum"
        self.seen.append(local.tolist())
        return local + self.counts


def test_the_stand_in_of_an_idle_rank_is_no_row_of_the_constant_aggregation() -> None:
    """One sequence of three tokens and two ranks: each token weighs 1 / (1 * L), times the two ranks averaged over."""
    batch = TokenBatch.of([Segment(prompt_ids=(1, 2), action_ids=(5, 6, 7), sequence=0)])
    idle = batch.masked(torch.zeros(3, dtype=torch.bool))
    busy = global_token_weights(OtherRank(0, 0, 0), batch, "constant", 10.0)  # type: ignore[arg-type]
    torch.testing.assert_close(busy, torch.full((3,), 2 / 10.0))
    other = OtherRank(3, 1, 1)
    assert not global_token_weights(other, idle, "constant", 10.0, stand_in=True).any()  # type: ignore[arg-type]
    assert other.seen == [[0, 0, 0]], "with a row of its own here the denominator of all ranks would be doubled"


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean"])
def test_two_ranks_take_the_step_of_one(tmp_path: Path, aggregation: str) -> None:
    alone = one_step(tmp_path, 1, aggregation)
    together = one_step(tmp_path, 2, aggregation)
    assert (alone[1], together[1]) == (1, 2)
    assert together[0] == pytest.approx(alone[0], rel=1e-6)
    for mine, theirs in zip(together[2], alone[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-9)
