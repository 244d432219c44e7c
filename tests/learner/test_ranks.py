"""How a batch is cut for the ranks, the guards at start and resume, and the launch configurations that ship."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from hypothesis import given
from hypothesis import strategies as st

from rollwright.batching.packing import Segment
from rollwright.contracts.errors import ConfigError
from rollwright.learner.ranks import Ranks, go_on_alone, open_accelerator, share
from rollwright.learner.zero import check_checkpoint
from rollwright.rollout.rank_spread import SpreadCollector

CONFIGS = Path(__file__).resolve().parents[2] / "accelerate_configs"

# name: kind, processes, machines, ZeRO stage, runs on the CPU, where optimiser states lie
EXPECTED = {
    "cpu": (DistributedType.NO, 1, 1, None, True, None),
    "cpu_zero1": (DistributedType.DEEPSPEED, 2, 1, 1, True, "none"),
    "cpu_zero2": (DistributedType.DEEPSPEED, 2, 1, 2, True, "none"),
    "cpu_zero3": (DistributedType.DEEPSPEED, 2, 1, 3, True, "none"),
    "single_gpu": (DistributedType.NO, 1, 1, None, False, None),
    "ddp": (DistributedType.MULTI_GPU, 8, 1, None, False, None),
    "zero2": (DistributedType.DEEPSPEED, 8, 1, 2, False, "none"),
    "zero3": (DistributedType.DEEPSPEED, 8, 1, 3, False, "none"),
    "zero3_offload": (DistributedType.DEEPSPEED, 8, 1, 3, False, "cpu"),
    "multi_node_zero3": (DistributedType.DEEPSPEED, 16, 2, 3, False, "none"),
}


def segment(sequence: int, length: int) -> Segment:
    ids = tuple(range(length))
    return Segment(
        prompt_ids=(1,),
        action_ids=ids,
        sequence=sequence,
    )


def test_every_launch_configuration_is_expected() -> None:
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_launch_configuration_says_what_its_name_says(name: str) -> None:
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))  # refuses unknown keys
    deepspeed = config.deepspeed_config
    # Under DeepSpeed `use_cpu` would switch DeepSpeed off: there no GPU is shown instead.
    on_cpu = config.use_cpu or config.gpu_ids == "-1"
    found = (config.distributed_type, config.num_processes, config.num_machines)
    found += (deepspeed.get("zero_stage"), on_cpu, deepspeed.get("offload_optimizer_device"))
    assert found == EXPECTED[name]
    assert config.mixed_precision == "no"  # master weights stay float32; `learner.precision` decides the rest
    if deepspeed:
        assert deepspeed["gradient_accumulation_steps"] == 1  # it would divide a loss that has its denominator already
        assert not config.use_cpu
        assert deepspeed["offload_param_device"] == deepspeed["offload_optimizer_device"]


def test_a_batch_is_cut_by_whole_sequences_into_neighbours_of_like_size() -> None:
    # Tokens per sequence with its prompt: 3, 3, 6, 4 + 4 (two turns), 2; half of 22 lies inside the third.
    batch = [segment(0, 2), segment(1, 2), segment(2, 5), segment(3, 3), segment(3, 3), segment(4, 1)]
    assert share(batch, rank=0, count=2).own == [0, 1, 2]
    assert share(batch, rank=1, count=2).own == [3, 4, 5]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), count=st.integers(1, 5))
def test_every_segment_lies_in_exactly_one_share(lengths: list[int], count: int) -> None:
    batch = [segment(i // 2, length) for i, length in enumerate(lengths)]
    shares = [share(batch, rank=rank, count=count) for rank in range(count)]
    assert sorted(i for part in shares for i in part.own) == list(range(len(batch)))
    for part in shares:  # a rank without work still has something to run, and nothing to learn from it
        assert part.turns
        assert bool(part.own) == (not part.idle)


def test_one_process_keeps_its_batch_as_it_is() -> None:
    batch = [segment(1, 2), segment(0, 3)]
    assert share(batch, rank=0, count=1).own == [0, 1]
    ranks = Ranks(open_accelerator())
    assert ranks.spread([3, 4], lambda items: [2 * i for i in items]) == [6, 8]
    assert (ranks.gather(7), ranks.of_first(8), ranks.first, ranks.count) == ([7], 8, True, 1)


@pytest.mark.parametrize(("players", "expected"), [("each", [3, 2, 2]), ("first", [7, 0, 0])])
def test_a_progress_bar_counts_what_its_rank_plays(players: str, expected: list[int]) -> None:
    collector, found = object.__new__(SpreadCollector), []
    for rank in range(3):
        vars(collector).update(_ranks=SimpleNamespace(index=rank, count=3, first=rank == 0), _players=players)
        found.append(collector.played_here(7))
    assert found == expected


def test_of_several_processes_one_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert go_on_alone("a test")
    for rank, expected in (("1", False), ("0", True)):
        for name, value in (("WORLD_SIZE", "2"), ("RANK", rank), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, value)
        assert go_on_alone("a test") is expected
    assert open_accelerator().num_processes == 1  # nothing is left that would make it look for the other


@pytest.mark.long
def test_a_launch_config_that_keeps_deepspeed_out_is_named() -> None:
    """In a process of its own: accelerate's state is global."""
    program = "from rollwright.learner.ranks import open_accelerator; open_accelerator()"
    words = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **words}, capture_output=True, text=True)
    assert done.returncode and "left it out because of ACCELERATE_USE_CPU=true" in done.stderr


@pytest.mark.parametrize(
    ("saved", "now"), [((3, 2), (3, 4)), ((3, 2), (2, 2)), ((0, 1), (1, 2)), ((2, 2), (0, 1))], ids=str
)
def test_a_sharded_state_is_refused_by_another_world(saved: tuple[int, int], now: tuple[int, int]) -> None:
    state = {"zero_stage": saved[0], "processes": saved[1]} if saved[0] else {}
    with pytest.raises(ConfigError, match=r"begin a new run\.folder from the exported policy"):
        check_checkpoint(state, zero_stage=now[0], processes=now[1], where=Path("x"))


def test_a_sharded_state_fits_its_own_world_and_a_whole_state_any() -> None:
    check_checkpoint({"zero_stage": 3, "processes": 2}, zero_stage=3, processes=2, where=Path("x"))
    check_checkpoint({}, zero_stage=0, processes=8, where=Path("x"))


def test_neither_the_launcher_nor_an_earlier_trainer_decides_on_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's trainers leave theirs to every accelerator that is made later in the process."""
    AcceleratorState._reset_state()  # what the tests before this one left
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert Accelerator(cpu=True).mixed_precision == "bf16"
    layer, row = torch.nn.Linear(4, 4), torch.full((1, 4), 1 + 2**-12)  # bfloat16 would round it
    exact = layer(row)
    assert torch.equal(open_accelerator().prepare(layer)(row), exact)
