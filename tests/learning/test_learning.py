"""It learns: SFT, GRPO and PPO by their own recipes, from fixed seeds, judged on held-out starts of the maze.

Mean return of the sampling policy over the test starts: the optimum is -6.8, the start is near -55. It is not taken
greedily: the most frequent move of walkers who are 85% random is the right one, so imitation alone would do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rollwright.contracts.errors import ConfigError, RollwrightError
from rollwright.evaluation import load_evaluation
from rollwright.models.loading import load_policy
from rollwright.recipes import grpo
from rollwright.run_io.tracking import read_metrics
from rollwright.training import run_recipe as start_as_script
from rollwright.view import diagnose

pytestmark = pytest.mark.slow
Launch = Callable[..., None]


def mean_return(run: Path, name: str) -> float:
    rows = load_evaluation(run / "eval" / f"{name}.json").rows
    return sum(row.total_return for row in rows) / len(rows)


def test_grpo_finds_the_way(launch: Launch, maze_walker: Path, tmp_path: Path) -> None:
    words = [f"run.folder={tmp_path}", f"model.path={maze_walker}", "evaluation.at_start=true"]
    launch("grpo.py", "text/maze_grpo.yaml", *words)
    assert mean_return(tmp_path, "start") < -40, "the start must not know the way already"
    assert mean_return(tmp_path, "final") >= -9
    assert (tmp_path / "report.html").exists()
    assert [finding.rule for finding in diagnose(tmp_path)] == [], "a shipped recipe that learns is healthy"
    load_policy(tmp_path / "policy")  # with its tokenizer: the next recipe starts from it
    assert list((tmp_path / "transcripts").glob("*.txt"))


def test_ppo_finds_the_way(run_recipe: Launch, maze_walker: Path, tmp_path: Path) -> None:
    run_recipe("ppo.py", "text/maze_ppo.yaml", f"run.folder={tmp_path}", f"model.path={maze_walker}")
    assert mean_return(tmp_path, "final") >= -9


@pytest.mark.usefixtures("at_root")
def test_a_stopped_run_goes_on_where_it_was(maze_walker: Path, tmp_path: Path) -> None:
    """Three steps in one go, and one, a stop, and two more: the same episodes, and weights as close as two whole runs.

    Which requests share a batch depends on timing, and with it the last bits of a log-prob: two undisturbed runs differ
    by 2e-5. A step moves weights by up to 1e-3, so a lost optimiser state would show.
    """
    small = ["recipes/text/maze_grpo.yaml", f"model.path={maze_walker}", "rollout.groups_per_step=3", "curriculum=band"]
    small += ["evaluation.seeds_per_task=1"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for run, steps in ((whole, 3), (parts, 1), (parts, 3)):
        grpo.main([*small, f"run.folder={run}", f"run.steps={steps}"])
    one, two = (load_file(run / "policy" / "model.safetensors") for run in (whole, parts))
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=2e-4) for name in one)
    rewards = [[row["reward/total_mean"] for row in _steps(run)] for run in (whole, parts)]
    assert rewards[0] == rewards[1] and len(rewards[0]) == 3
    with pytest.raises(ConfigError, match=r"other settings: learner\.learning_rate"):
        grpo.main([*small, f"run.folder={parts}", "learner.learning_rate=1e-4"])


def _steps(run: Path) -> list[dict]:
    return [row for row in read_metrics(run / "metrics.jsonl") if "reward/total_mean" in row]


@pytest.mark.usefixtures("at_root")
def test_bad_input_ends_the_command_with_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the file ends that is run as a script; `test_yaml_mistakes.py` starts one."""
    command = ["recipes/grpo.py", "recipes/text/maze_grpo.yaml", f"run.folder={tmp_path / 'run'}"]
    monkeypatch.setattr(sys, "argv", [*command, "rollout.grup_size=4"])
    with pytest.raises(SystemExit) as end:
        start_as_script(grpo.main)
    assert end.value.code != 0 and "Did you mean `group_size`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algorithm.gamma=0.9"], "gamma"),
        (["model.path=/nowhere/at/all"], "no model folder is there"),
        (["world.options.maze=labyrinth", "model.path=tiny"], "no maze is called"),
        (["world.name=text.mase"], r"text\.maze"),
    ],
)
def test_bad_input_is_a_clear_error_before_anything_is_trained(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises((RollwrightError, FileNotFoundError), match=message):
        grpo.main(["recipes/text/maze_grpo.yaml", f"run.folder={tmp_path / 'run'}", *words])
    assert not (tmp_path / "run" / "policy").exists()


def test_the_evaluation_json_has_one_row_per_episode(run_recipe: Launch, maze_walker: Path, tmp_path: Path) -> None:
    words = [f"folder={tmp_path}", f"model.path={maze_walker}", "engine=transformers", "engine.dtype=float32"]
    more = ["rollout.history=0", "rollout.max_action_tokens=4", "world.name=text.maze", "name=judged"]
    options = ["world.options.wording=compact", "evaluation.seeds_per_task=2", "evaluation.max_turns=5"]
    run_recipe("evaluate.py", "text/maze.yaml", *words, *more, *options)
    document = json.loads((tmp_path / "eval" / "judged.json").read_text())
    assert len(load_evaluation(tmp_path / "eval" / "judged.json").rows) == 5 * 2 and document["split"] == "validation"
