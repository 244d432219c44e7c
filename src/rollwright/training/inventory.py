"""What a run folder holds besides its checkpoints: counted into a checkpoint, and held against it by a resumed run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollwright.run_io import Checkpoints
from rollwright.store import TrajectoryStore


def counted(store: TrajectoryStore, metrics: Path) -> dict[str, Any]:
    """What is there now, for the checkpoint that is being written."""
    size = metrics.stat().st_size if metrics.exists() else 0
    # Both up to the present end, as a run that goes on appends to them.
    return {"store": store.census(store.position), "metrics": _digest_of_first(metrics, size)}


def lost_episodes(state: Mapping[str, Any], store: TrajectoryStore) -> str:
    """What the store lacks of what a checkpoint counted; "" where nothing, or where it did not count."""
    before = state.get("inventory", {}).get("store")
    now = store.census(int(state["stored"]))
    if before is None or before == now:
        return ""
    # The census also holds a digest of the shards, and that alone differs here.
    if (now["shards"], now["trajectories"]) == (before["shards"], before["trajectories"]):
        return f"{store.folder} holds as many shards as its checkpoint counted, but others: files were changed"
    return (
        f"{store.folder} holds {now['trajectories']} trajectories in {now['shards']} shards of the "
        f"{before['trajectories']} in {before['shards']} that its checkpoint counted: files are missing or damaged"
    )


def lost_metrics(state: Mapping[str, Any], metrics: Path) -> str:
    """The same for the lines of `metrics.jsonl`."""
    before, size = state.get("inventory", {}).get("metrics"), int(state["logged"])
    there = metrics.stat().st_size if metrics.exists() else 0
    if there < size:
        return f"{metrics} holds {there} of the {size} bytes that its checkpoint counted: earlier steps are missing"
    if before is not None and before != _digest_of_first(metrics, size):
        return f"{metrics} does not begin with the {size} bytes that its checkpoint counted: earlier lines were changed"
    return ""


def leftovers(store: TrajectoryStore, metrics: Path, checkpoints: Checkpoints) -> list[str]:
    """What an earlier start left in a folder whose run begins anew, in words."""
    found = []
    if store.position:
        found.append(f"{len(store)} stored trajectories")
    if metrics.exists() and metrics.stat().st_size:
        found.append(f"{len(metrics.read_bytes().splitlines())} lines of {metrics.name}")
    if names := checkpoints.leftovers():
        found.append(f"checkpoints that cannot be used ({_few(names)})")
    return found


def _few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _digest_of_first(path: Path, size: int) -> str:
    """Of the first `size` bytes of a file; of nothing where there is no file."""
    return hashlib.sha256(path.read_bytes()[:size] if path.exists() else b"").hexdigest()
