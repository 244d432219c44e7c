"""SCoRe in two runs: stage II alone needs the base of stage I, and with it computes what one run would."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rollwright.contracts import ConfigError
from rollwright.learner import require_stage_base
from rollwright.recipes import score
from rollwright.run_io import read_metrics

YAML = "recipes/text/attempts_score.yaml"
SMALL = [
    "rollout.groups_per_step=2",
    "rollout.group_size=4",
    "evaluation.seeds_per_task=2",
    "run.transcripts_every=0",
    "rollout.schedule=rounds",
]
STAGE_TWO = ["algorithm.stage_one_steps=0", "run.steps=2"]


def curve(run: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if name.startswith(("attempts/", "policy/", "optim/"))}
        for row in read_metrics(run / "metrics.jsonl")
    ]


def test_stage_two_alone_is_held_near_the_base_that_it_names(at_root: None, tmp_path: Path) -> None:
    first = tmp_path / "first"
    one = ["model.path=tiny", "model.tiny_hidden=32", "algorithm.stage_one_steps=1", "run.steps=1"]
    score.main([YAML, *SMALL, *one, f"run.folder={first}"])
    went_on = [YAML, *SMALL, *STAGE_TWO, f"model.path={first / 'policy'}"]
    with pytest.raises(ConfigError, match="1 steps of stage I, and this run has none") as refused:
        score.main([*went_on, f"run.folder={tmp_path / 'second'}"])
    assert f"algorithm.base={first / 'tiny_model'}" in str(refused.value)
    assert not (tmp_path / "second").exists(), "refused before anything is opened"

    # The tiny model earned nothing, so its policy is still its base: another base has to be told from it.
    base = shutil.copytree(first / "tiny_model", tmp_path / "base")
    moved = {name: tensor * 1.1 for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(moved, base / "model.safetensors", metadata={"format": "pt"})
    score.main([*went_on, f"algorithm.base={base}", f"run.folder={tmp_path / 'based'}"])
    seen = curve(tmp_path / "based")[0]
    assert seen["attempts/stage"] == 2 and abs(seen["attempts/kl_first"]) > 0.01

    # From its own base a run computes the same whether it keeps a copy or names it.
    alone = [YAML, *SMALL, *STAGE_TWO, f"model.path={first / 'tiny_model'}"]
    score.main([*alone, f"run.folder={tmp_path / 'kept'}"])
    score.main([*alone, f"algorithm.base={first / 'tiny_model'}", f"run.folder={tmp_path / 'named'}"])
    assert curve(tmp_path / "kept") == curve(tmp_path / "named")
    assert curve(tmp_path / "kept")[0]["attempts/kl_first"] == 0


def test_a_base_that_is_no_model_is_refused_before_anything_is_loaded(at_root: None, tmp_path: Path) -> None:
    words = ["model.path=tiny", f"run.folder={tmp_path / 'run'}", f"algorithm.base={tmp_path}"]
    with pytest.raises(ConfigError, match="is no folder of a model"):
        score.main([YAML, *words])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "written",
    ["", "algorithm: 3", "- a list", "algorithm: {stage_one_steps: 0}\nmodel: {path: x}", "not: [yaml", "\0"],
)
def test_policies_of_other_runs_need_no_base(tmp_path: Path, written: str) -> None:
    (tmp_path / "config.yaml").write_text(written)
    require_stage_base(str(tmp_path / "policy"), "", stage_one_steps=0)


def test_checkpoints_of_stage_one_are_known_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("algorithm: {stage_one_steps: 5}\nmodel: {path: /models/base}\n")
    check: Callable[..., None] = require_stage_base
    with pytest.raises(ConfigError, match=r"algorithm\.base=/models/base"):
        check(str(tmp_path / "checkpoints" / "step_000005"), "", stage_one_steps=0)
    check(str(tmp_path / "policy"), "", stage_one_steps=3)
    check(str(tmp_path / "policy"), "smollm2", stage_one_steps=0)
