"""Two processes under DeepSpeed ZeRO do what one process does: same episodes, same losses, same weights, same resume.

One launch per stage runs all its jobs (see zero_script.py): starting two processes costs most of the time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rollwright.contracts.errors import ConfigError
from rollwright.run_io.tracking import read_metrics
from rollwright.store.trajectory_store import TrajectoryStore

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 2e-6
SMALL = (
    *(
        "model.path=tiny",
        "model.tiny_hidden=32",
        "model.tiny_layers=1",
        "reward.name=zero_script:EvenIds",
        "learner.learning_rate=1e-4",
    ),
    *("rollout.groups_per_step=3", "rollout.group_size=4", "rollout.max_turns=4", "rollout.parallel_episodes=12"),
    "learner.token_budget=512",
    # Thousands of sampled tokens more would meet one whose draw lies within the last bits of two processes.
    *("evaluation.temperature=0", "evaluation.seeds_per_task=1", "evaluation.max_turns=4"),
)
GRPO, PPO = "recipes/text/maze_grpo.yaml", "recipes/text/maze_ppo.yaml"
PPO_ALONE = ("rollout.group_size=1", "rollout.groups_per_step=12", "learner.minibatches=2", "critic.clip_eps=0.5")
# In rounds what is computed together does not depend on timing: a resumed run can be the same to the last bit.
WITH_MODEL = ("critic.kind=model", "algorithm.kl_in_reward=0.1", "rollout.schedule=rounds", *PPO_ALONE)


def jobs(folder: Path) -> list[tuple[str, list[str]]]:
    """What one process and two do. Runs of few steps but the first: it is the one of the published tolerance."""

    def run(recipe: str, yaml: str, name: str, steps: int, *words: str) -> tuple[str, list[str]]:
        return recipe, [yaml, *SMALL, f"run.folder={folder / name}", f"run.steps={steps}", *words]

    return [
        run("grpo", GRPO, "grpo", 20),
        run("grpo", GRPO, "lora", 4, "model.lora_rank=4", "algorithm.kl_coef=0.1"),
        run("ppo", PPO, "ppo", 4, "run.checkpoint_every=3", *WITH_MODEL),
        ("back_to_checkpoint", [str(folder / "ppo"), str(folder / "cut"), "step_000004"]),
        run("ppo", PPO, "cut", 4, "run.checkpoint_every=3", *WITH_MODEL),
        run("ppo", PPO, "head", 3, "critic.kind=head", *PPO_ALONE),
        ("one_step", [str(folder)]),
        ("bad_batches", [str(folder)]),
    ]


def launch(folder: Path, todo: list[tuple[str, list[str]]], config: str = "") -> subprocess.CompletedProcess[str]:
    """Run jobs in one process, or in those of a launch configuration."""
    file = folder / "jobs.json"
    file.write_text(json.dumps(todo), encoding="utf-8")
    start = ["-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file", config] if config else []
    words = [sys.executable, *start, str(ROOT / "tests" / "learner" / "zero_script.py"), str(file)]
    inherited = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    environment = inherited | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1700)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the jobs."""
    folder = tmp_path_factory.mktemp("one")
    done = launch(folder, jobs(folder))
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """What two processes make of them under a ZeRO stage; launched once per stage."""
    made: dict[int, Path] = {}

    def get(stage: int) -> Path:
        if stage not in made:
            folder = tmp_path_factory.mktemp(f"zero{stage}")
            done = launch(folder, jobs(folder), f"accelerate_configs/cpu_zero{stage}.yaml")
            assert done.returncode == 0, done.stderr[-6000:]
            made[stage] = folder
        return made[stage]

    return get


def series(folder: Path, run: str, *names: str) -> dict[str, list[float]]:
    rows = [row for row in read_metrics(folder / run / "metrics.jsonl") if names[0] in row]
    return {name: [float(row[name]) for row in rows] for name in names}


def sampled(folder: Path, run: str) -> list[list[tuple[int, ...]]]:
    store = TrajectoryStore(folder / run / "trajectories", mode="read")
    return [[turn.action_ids for turn in t.turns] for t in store.iter_trajectories()]


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
stages = pytest.mark.parametrize("stage", [1, 2, 3])


@stages
@pytest.mark.parametrize(("run", "steps"), [("grpo", 20), ("lora", 4), ("ppo", 4), ("head", 3)])
def test_two_processes_sample_and_learn_as_one(
    alone: Path, sharded: Callable[[int], Path], stage: int, run: str, steps: int
) -> None:
    together = sharded(stage)
    assert sampled(together, run) == sampled(alone, run)
    names = ["optim/loss", "optim/grad_norm"]
    names += ["critic/loss", "critic/grad_norm"] if run in ("ppo", "head") else []
    expected, found = series(alone, run, *names), series(together, run, *names)
    assert len(expected["optim/loss"]) == steps
    assert any(abs(loss) > 1e-4 for loss in expected["optim/loss"]), "nothing was learned, so nothing was compared"
    for name in names:
        assert found[name] == pytest.approx(expected[name], rel=TOLERANCE, abs=TOLERANCE), name


@stages
def test_minibatches_that_leave_a_rank_without_work_move_the_same_way(
    alone: Path, sharded: Callable[[int], Path], stage: int
) -> None:
    expected, found = (torch.load(f / "steps.pt", weights_only=True) for f in (alone, sharded(stage)))
    for mine, theirs in zip(found[0], expected[0], strict=True):
        compared = [name for name in theirs if not name.startswith("batch/")]  # how it is packed differs
        assert {n: mine[n] for n in compared} == pytest.approx({n: theirs[n] for n in compared}, rel=1e-5, abs=1e-6)
    for mine, theirs in zip(found[1:3], expected[1:3], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@stages
def test_a_step_that_failed_leaves_nothing_behind(sharded: Callable[[int], Path], stage: int) -> None:
    assert (sharded(stage) / "bad_batches_passed").exists()


@stages
def test_the_export_is_the_policy_in_the_common_format(sharded: Callable[[int], Path], stage: int) -> None:
    folder = sharded(stage)
    state: dict[str, torch.Tensor] = torch.load(folder / "steps.pt", weights_only=True)[3]
    loaded = AutoModelForCausalLM.from_pretrained(folder / "exported").state_dict()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name
    assert (folder / "lora" / "policy" / "model.safetensors").exists()  # merged: a plain folder too


@stages
def test_a_resumed_run_is_the_run_that_was_not_cut(sharded: Callable[[int], Path], stage: int) -> None:
    folder = sharded(stage)
    whole, cut = (load_file(folder / run / "policy" / "model.safetensors") for run in ("ppo", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert sampled(folder, "cut") == sampled(folder, "ppo")
    assert list((folder / "cut" / "trajectories" / "superseded").glob("*"))  # the last step was played again


@stages
def test_ranks_part_before_python_ends(sharded: Callable[[int], Path], stage: int) -> None:
    # Gloo's threads abort a process that ends while they hold a tensor: about every second time with three ranks and
    # calls that nobody waited for.
    assert [(sharded(stage) / f"joined_{rank}").read_text() for rank in (0, 1)] == ["False", "False"]


@stages
def test_only_the_first_rank_writes_what_all_share(sharded: Callable[[int], Path], stage: int) -> None:
    run = sharded(stage) / "grpo"
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl") if "optim/loss" in row] == list(range(20))
    tags = TrajectoryStore(run / "trajectories", mode="read").tags()
    assert tags["step_0"] == 12 and not list(run.glob("config.*.yaml")) and (run / "report.html").exists()


def test_another_number_of_processes_is_refused_with_the_way_out(
    sharded: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rollwright.recipes import grpo

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(ROOT)
    folder = sharded(3)
    words = [*jobs(folder)[0][1], "run.steps=21"]
    with pytest.raises(ConfigError, match=r"written by 2 processes and 1 were started.*model\.path=.*policy"):
        grpo.main(words)


def test_a_rank_that_dies_ends_the_run(tmp_path: Path) -> None:
    done = launch(tmp_path, [("die", [str(tmp_path)])], "accelerate_configs/cpu_zero2.yaml")
    waited_s = time.time() - (tmp_path / "died").stat().st_mtime
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr and "local_rank: 1" in done.stderr
    # It was the launcher, seconds later on a quiet machine, and not the process group's timeout of ten minutes.
    assert waited_s < 300
