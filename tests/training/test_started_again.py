"""The same command once more, on the same folder: nothing is there twice, nothing that changed goes unnoticed."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.errors import ConfigError, DataError, MissingDependency, RunFolderError
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training import inputs
from rollwright.training.inputs import fingerprints, weights_digest

TINY = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "world.options.maze=umaze"]
RUN = ["engine=transformers", "engine.dtype=float32", "learner.precision=float32", "rollout.schedule=rounds"]
RUN += ["rollout.groups_per_step=2", "rollout.group_size=2", "rollout.max_turns=3", "evaluation.max_turns=3"]
RUN += ["evaluation.seeds_per_task=1", "run.checkpoint_every=1", "run.transcripts_every=0", "run.steps=2"]
SFT = ["data.per_task=3", "sft.max_steps=1", "sft.precision=float32"]
EVAL = ["engine=transformers", "evaluation.seeds_per_task=2", "evaluation.max_turns=3", "rollout.max_turns=3"]

Recipe = Callable[..., None]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> Counter[str]:
    store = TrajectoryStore(folder / "trajectories", mode="read")
    assert store.warnings == []
    return Counter(t.id for t in store.iter_trajectories())


def actions(folder: Path) -> list[Any]:
    return [[turn.action_ids for turn in t.turns] for t in TrajectoryStore(folder / "trajectories").iter_trajectories()]


@pytest.mark.long
def test_sft_started_again_holds_its_demonstrations_once(
    run_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*TINY, *SFT, f"run.folder={tmp_path}"]
    run_recipe("sft.py", "text/maze_sft.yaml", *words)
    first, played = names(tmp_path), actions(tmp_path)
    weights = (tmp_path / "policy" / "model.safetensors").read_bytes()
    run_recipe("sft.py", "text/maze_sft.yaml", *words)
    assert set(first.values()) == {1} and names(tmp_path) == first and actions(tmp_path) == played
    assert (tmp_path / "policy" / "model.safetensors").read_bytes() == weights
    assert f"{len(played)} demonstrations of an earlier start are set aside" in caplog.text
    run_recipe("sft.py", "text/maze_sft.yaml", *words, "data.per_task=4")
    assert len(names(tmp_path)) == len(first) * 4 // 3, "other settings: theirs, and not those of before as well"


def test_sft_does_not_set_a_collection_aside(run_recipe: Recipe, tmp_path: Path) -> None:
    run_recipe("collect.py", "text/maze_collect.yaml", *TINY, "collect.by=teacher", "collect.per_task=1",
               f"run.folder={tmp_path}")  # fmt: skip
    before = names(tmp_path)
    with pytest.raises(RunFolderError, match=r"not demonstrations of an SFT run .*name another run\.folder"):
        run_recipe("sft.py", "text/maze_sft.yaml", *TINY, *SFT, f"run.folder={tmp_path}")
    assert names(tmp_path) == before


def test_a_collection_whose_settings_are_gone_says_so(
    run_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*TINY, "collect.by=teacher", "collect.per_task=1", f"run.folder={tmp_path}"]
    run_recipe("collect.py", "text/maze_collect.yaml", *words)
    assert "no config.yaml" not in caplog.text
    with pytest.raises(ConfigError, match="begun with other settings"):
        run_recipe("collect.py", "text/maze_collect.yaml", *words, "run.seed=1")
    (tmp_path / "config.yaml").unlink()
    run_recipe("collect.py", "text/maze_collect.yaml", *words)
    assert "holds episodes but no config.yaml" in caplog.text


def test_a_misspelt_store_is_refused_and_not_made(at_root: None, tmp_path: Path) -> None:
    from rollwright.recipes import sft

    with pytest.raises(DataError, match="no trajectory store"):
        sft.read([str(tmp_path / "misspelt")])
    assert not (tmp_path / "misspelt").exists()


def test_an_evaluation_made_again_holds_its_episodes_once(
    run_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*TINY, *EVAL, f"folder={tmp_path}"]
    for name in ("a", "b", "a", "a"):
        run_recipe("evaluate.py", "text/maze.yaml", *words, f"name={name}")
    tags = TrajectoryStore(tmp_path / "trajectories", mode="read").tags()
    assert tags["eval_a"] == tags["eval_b"] == len(names(tmp_path)) > 0
    assert caplog.text.count("the evaluation 'a' of an earlier start is replaced: another `name` keeps both") == 2


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [("sft", "text/maze_sft"), ("return_conditioned", "text/maze_return"), ("outcome", "text/maze_outcome"),
     ("reward_pairs", "text/maze_reward"), ("inverse_dynamics", "text/maze_inverse"), ("demo", "")],
)  # fmt: skip
def test_a_missing_trainer_is_said_before_anything_is_played_or_read(
    run_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, settings: str
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)  # as if it were not installed
    module = __import__(f"rollwright.recipes.{recipe}", fromlist=["main"])
    monkeypatch.setattr(module, "recipe_config", lambda cls, argv, **_: made(cls, tmp_path / "run"))
    for reads in ("read", "read_cases"):
        if hasattr(module, reads):
            monkeypatch.setattr(module, reads, lambda *_: pytest.fail("stores were read first"))
    with pytest.raises(MissingDependency, match=r"uses TRL .*pip install 'rollwright\[trl\]'"):
        module.main([])
    assert not (tmp_path / "run").exists()


def made(cls: type[Any], folder: Path) -> Any:
    """Settings of a recipe that read nothing from the disk."""
    parts: dict[str, Any] = {"run": {"folder": str(folder)}} if "run" in cls.model_fields else {"folder": str(folder)}
    if "world" in cls.model_fields:
        parts["world"] = {"name": "text.maze"}
    return cls.model_validate(parts)


@pytest.fixture(scope="module")
def sft_policy(run_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    run_recipe("sft.py", "text/maze_sft.yaml", *TINY, *SFT, f"run.folder={folder}")
    return folder / "policy"


@pytest.mark.long
def test_start_weights_that_were_trained_anew_are_noticed(
    run_recipe: Recipe, sft_policy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [f"model.path={sft_policy}", TINY[-1], *RUN, f"run.folder={tmp_path}"]
    run_recipe("grpo.py", "text/maze_grpo.yaml", *words)
    before = everything(tmp_path)
    run_recipe("sft.py", "text/maze_sft.yaml", *TINY, *SFT, "sft.max_steps=3", f"run.folder={sft_policy.parent}")
    with pytest.raises(ConfigError, match=r"other weights than those that model\.path names now.*run\.resume=never"):
        run_recipe("grpo.py", "text/maze_grpo.yaml", *words, "run.steps=3")
    assert {k: v for k, v in everything(tmp_path).items() if "config" not in k} == {
        k: v for k, v in before.items() if "config" not in k
    }
    caplog.clear()
    run_recipe("grpo.py", "text/maze_grpo.yaml", *words, "run.steps=3", "run.resume=never")
    assert "run.resume is 'never': the run begins at step 0. What lies there is set aside" in caplog.text


def test_a_finished_run_says_that_it_is_finished(
    run_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*TINY, *RUN, f"run.folder={tmp_path}"]
    run_recipe("grpo.py", "text/maze_grpo.yaml", *words)
    first = names(tmp_path)
    assert "is finished" not in caplog.text
    run_recipe("grpo.py", "text/maze_grpo.yaml", *words)
    assert "is finished: its 2 steps are done." in caplog.text and "raise run.steps (now 2)" in caplog.text
    assert names(tmp_path) == first
    caplog.clear()
    run_recipe("grpo.py", "text/maze_grpo.yaml", *words, "run.steps=3")
    assert "is finished" not in caplog.text and names(tmp_path) > first


def weights(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    return folder


@pytest.mark.parametrize("whole_bytes", [1 << 40, 0])
def test_a_digest_of_weights_changes_with_them(
    tmp_path: Path, whole_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "BLOCK_BYTES", 16)
    monkeypatch.setattr(inputs, "BLOCKS", 8)
    content = bytes(range(256)) * 4
    first = weights_digest(weights(tmp_path / "a", content), whole_bytes=whole_bytes)
    assert weights_digest(weights(tmp_path / "b", content), whole_bytes=whole_bytes) == first
    for other in (content + b"\0", content[:-1] + b"\0", b"\1" + content[1:], bytes(b ^ 1 for b in content)):
        assert weights_digest(weights(tmp_path / "b", other), whole_bytes=whole_bytes) != first
    assert weights_digest(tmp_path / "nothing") != first


def test_what_else_the_settings_name_is_told_apart_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The store that is learned from, the model of a reward, a file of tasks; a cache that grows is let alone."""
    start, judge = (weights(tmp_path / name, name.encode()) for name in ("start", "judge"))
    TrajectoryStore(tmp_path / "store")
    (tmp_path / "cache").mkdir()
    (tmp_path / "tasks.json").write_text("[]")
    settings = {
        "model": {"path": str(start)},
        "reward": {"options": {"path": str(judge), "cache": str(tmp_path / "cache")}},
        "replay": {"stores": [str(tmp_path / "store")]},
        "world": {"name": "text.maze", "options": {"tasks": str(tmp_path / "tasks.json")}},
        "run": {"folder": str(tmp_path)},
    }
    before = fingerprints(settings, start, skip=("run.",))
    kinds = {key: value.split(":")[0] for key, value in before.items()}
    assert kinds == {"model.path": "weights", "reward.options.path": "weights", "replay.stores[0]": "store",
                     "world.options.tasks": "file"}  # fmt: skip
    (tmp_path / "cache" / "x").write_text("1")
    assert fingerprints(json.loads(json.dumps(settings)), start, skip=("run.",)) == before
    weights(judge, b"another")
    (tmp_path / "tasks.json").write_text("[1]")
    (tmp_path / "store" / "turns" / "000000.parquet").write_bytes(b"x" * 9999)
    after = fingerprints(settings, start, skip=("run.",))
    assert {key for key in after if after[key] != before[key]} == set(kinds) - {"model.path"}


@pytest.mark.long
def test_a_store_that_has_grown_is_said_on_resume(
    run_recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    collected = [
        "text/maze_collect.yaml",
        *TINY,
        "collect.by=random",
        "collect.per_task=4",
        "world.options.max_turns=4",
    ]
    run_recipe("collect.py", *collected, f"run.folder={data}")
    words = [*TINY, *RUN[:4], "run.checkpoint_every=1", "run.steps=2", "evaluation.seeds_per_task=1",
             "evaluation.max_turns=2", f"run.folder={tmp_path / 'run'}"]  # fmt: skip
    words += [f"replay.stores=['{data / 'trajectories'}']"]
    run_recipe("filtered_bc.py", "text/maze_filtered.yaml", *words)
    stored = TrajectoryStore(data / "trajectories")
    stored.append(list(stored.iter_trajectories())[:1], tag="more")
    with caplog.at_level(logging.WARNING):
        run_recipe("filtered_bc.py", "text/maze_filtered.yaml", *words, "run.steps=3")
    assert "what replay.stores[0] names is not what it was" in caplog.text
