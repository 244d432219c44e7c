"""Satori on four questions whose first digit is often written wrong: it learns, restarts as it should, and resumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rollwright.contracts import ConfigError, Start, Timings, Trajectory
from rollwright.recipes import satori
from rollwright.run_io import read_metrics
from rollwright.store import TrajectoryStore

pytestmark = pytest.mark.slow
Run = Callable[..., None]
SIZE = ["rollout.groups_per_step=32", "evaluation.seeds_per_task=4", "run.transcripts_every=0"]


@pytest.fixture(scope="module")
def tuned(run_recipe: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that knows the form of the segments and few of the answers."""
    folder = tmp_path_factory.mktemp("reflection")
    run_recipe("collect.py", "text/reflection_collect.yaml", f"run.folder={folder / 'data'}")
    words = [f"data.stores=[{folder / 'data' / 'trajectories'}]", "model.tiny_layers=1"]
    run_recipe("sft.py", "text/reflection_sft.yaml", f"run.folder={folder / 'sft'}", *words)
    return folder / "sft" / "policy"


def episodes(run: Path) -> list[Trajectory]:
    store = TrajectoryStore(run / "trajectories", mode="read")
    return [
        replace(t, wall_s=0.0, turns=tuple(replace(u, timings=Timings()) for u in t.turns))
        for t in store.iter_trajectories()
    ]


def test_the_policy_learns_and_begins_where_it_should(run_recipe: Run, tuned: Path, tmp_path: Path) -> None:
    """From this seed, success in training goes from about a quarter to about two thirds in ten steps."""
    words = [f"run.folder={tmp_path}", f"model.path={tuned}", "run.steps=10", *SIZE]
    run_recipe("satori.py", "text/reflection_satori.yaml", *words)
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "starts/restart_frac" in row]
    success = [row["rollout/success_frac"] for row in rows]
    assert sum(success[:3]) / 3 < 0.35 and sum(success[-3:]) / 3 > 0.5
    played = [t for t in episodes(tmp_path) if t.task.split == "train"]
    kinds = Counter(t.start.kind for t in played)
    # Two groups in three from the second step on, at the latest.
    assert 120 < kinds["restart"] < 230 and kinds["initial"] + kinds["restart"] == 320
    for one in played:
        first = one.turns[0]
        forced = one.start.prefix_tokens
        assert forced == (1 if one.start.kind == "restart" else 0) and one.start.prefix_turns >= forced
        assert first.policy_mask == (False,) * forced + (True,) * (len(first.action_ids) - forced)
        assert not forced or first.text.startswith("reflect")
    # Evaluation never begins anywhere else.
    assert all(t.start == Start() for t in episodes(tmp_path) if t.task.split != "train")
    bonus = {t.turns[-1].rewards["bonus"] for t in played if t.turns}
    assert bonus == {-0.5, 0.0, 0.5}


def test_a_stopped_run_goes_on_with_the_same_bits(run_recipe: Run, tuned: Path, tmp_path: Path) -> None:
    words = [f"model.path={tuned}", "rollout.schedule=rounds", "run.checkpoint_every=1", *SIZE[1:]]
    words += ["rollout.groups_per_step=16", "evaluation.seeds_per_task=1"]
    for folder, steps in (("whole", 3), ("parts", 2), ("parts", 3)):
        run = [f"run.folder={tmp_path / folder}", f"run.steps={steps}"]
        run_recipe("satori.py", "text/reflection_satori.yaml", *words, *run)
    whole, parts = (
        {t.id: t for t in episodes(tmp_path / folder) if t.task.split == "train"} for folder in ("whole", "parts")
    )
    assert whole == parts and len(whole) == 48 and any(t.start.kind == "restart" for t in whole.values())
    one, two = (load_file(tmp_path / folder / "policy" / "model.safetensors") for folder in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reward.name=env"], "pays nothing for repairing"),
        (["starts=snapshots", "~starts.reflections"], "Satori restarts from its own episodes"),
        (["starts.reflections=['']"], "turns into no token"),
        (["starts.reflections=['reflect<|im_end|>']"], "that ends an action"),
        (["starts.frac=1.5"], "frac"),
        (["reward.options.beta=-1"], "beta is -1"),
        (["reward.options.path=/nowhere"], "no outcome model folder"),
        (["algorithm.kl_coef=0.1"], "keeps no reference"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_weights_are_loaded(
    at_root: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("rollwright.training.open_run.open_learner", loaded)
    start = ["recipes/text/reflection_satori.yaml", "model.path=tiny", f"run.folder={tmp_path / 'run'}"]
    with pytest.raises((ConfigError, FileNotFoundError), match=said):
        satori.main([*start, *words])
