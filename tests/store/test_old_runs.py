"""A run whose store is of version 2 goes on, as it is or upgraded, and comes to the same weights and episodes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollwright.contracts import Timings, Trajectory
from rollwright.recipes import grpo
from rollwright.store import TABLES, TrajectoryStore, shard_files, upgrade_store
from rollwright.store.store_checks import SCHEMAS, VERSION_KEY

SETTINGS = [
    "world.name=text.bandit",
    "model.path=tiny",
    "model.tiny_hidden=32",
    "model.tiny_layers=1",
    "engine=transformers",
    "engine.dtype=float32",
    "learner.precision=float32",
    "learner.learning_rate=0.01",
    "rollout.schedule=rounds",
    "rollout.groups_per_step=1",
    "rollout.group_size=4",
    "rollout.max_action_tokens=2",
    "evaluation.seeds_per_task=1",
    "run.checkpoint_every=1",
]


def train(folder: Path, steps: int) -> None:
    grpo.main([*SETTINGS, f"run.folder={folder}", f"run.steps={steps}"])


def as_version_2(store: Path) -> None:
    """What the earlier release wrote: the same rows and marks, without the columns that came later."""
    for table, old in zip(TABLES, SCHEMAS["2"], strict=True):
        for path in shard_files(store / table).values():
            found = pq.read_table(path, partitioning=None)
            metadata = {**found.schema.metadata, VERSION_KEY: b"2"}
            rows = pa.Table.from_pylist(found.to_pylist(), schema=old.with_metadata(metadata))
            pq.write_table(rows, path)


def outcome(folder: Path) -> tuple[bytes, list[Trajectory]]:
    """The weights, and the episodes without their seconds and without the world, which old rows do not name."""
    store = TrajectoryStore(folder / "trajectories", mode="read")
    episodes = [
        replace(t, wall_s=0.0, world=None, turns=tuple(replace(turn, timings=Timings()) for turn in t.turns))
        for t in store.iter_trajectories()
    ]
    assert store.warnings == []
    return (folder / "policy" / "model.safetensors").read_bytes(), episodes


def test_a_run_with_an_old_store_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path / "begun", steps=1)
    as_version_2(tmp_path / "begun" / "trajectories")
    ends = []
    for name in ("as it was", "upgraded"):
        folder = shutil.copytree(tmp_path / "begun", tmp_path / name)
        if name == "upgraded":
            assert upgrade_store(folder / "trajectories").written >= 4
        caplog.clear()
        train(folder, steps=2)
        assert "resumed from" in caplog.text and "goes on without them" not in caplog.text
        ends.append(outcome(folder))
    train(tmp_path / "straight", steps=2)
    assert ends[0] == ends[1]
    assert ends[0] == outcome(tmp_path / "straight")
