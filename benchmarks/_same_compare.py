"""What two runs left behind, compared bit by bit: tensors, episodes, lines of metrics. It reads files only.

Something that only the newer side has is no difference: it is listed as added. What the clock says is left out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file

CLOCK = ("time/", "ledger/")
"""Areas of metrics that are seconds, or shares of them."""
Tensors = dict[str, torch.Tensor]
Row = dict[str, Any]


@dataclass
class Difference:
    """How many of one kind differ, of how many, where first, and what is new."""

    of: int = 0
    count: int = 0
    first: str = ""
    added: set[str] = field(default_factory=set)
    moved: int = 0
    """Tensors that are the same and lie at another place."""

    def note(self, where: str) -> None:
        self.count += 1
        self.first = self.first or where


def compare_runs(old: Path, new: Path, *, names: Mapping[str, str] | None = None) -> dict[str, Difference]:
    """The three comparisons of two run folders.

    Args:
        names: what a metric or a column of the old side is called on the new one.
    """
    names = names or {}
    return {
        "tensors": compare_tensors(run_tensors(old), run_tensors(new)),
        "episodes": compare_rows(episodes(old), episodes(new), names),
        "metrics": compare_rows(metric_lines(old), metric_lines(new), names),
    }


def run_tensors(run: Path) -> Tensors:
    """Every tensor of the final policy and of the last checkpoint (critics, optimisers), by file and place."""
    found: Tensors = {}
    for path in sorted((run / "policy").glob("*.safetensors")):
        found |= {f"policy/{name}": tensor for name, tensor in load_file(path).items()}
    last = max((run / "checkpoints").glob("step_*"), default=None)
    for path in sorted(last.rglob("*")) if last else ():
        if path.suffix == ".pt":
            _walk(torch.load(path, weights_only=True), path.stem, found)
        elif path.suffix == ".safetensors":
            found |= {f"{path.stem}/{name}": tensor for name, tensor in load_file(path).items()}
    return found


def _walk(value: Any, place: str, found: Tensors) -> None:
    if isinstance(value, torch.Tensor):
        found[place] = value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _walk(inner, f"{place}/{key}", found)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _walk(inner, f"{place}/{index}", found)


def compare_tensors(old: Tensors, new: Tensors) -> Difference:
    """Bit by bit. A tensor that is gone is looked for among the new ones: if it lies elsewhere it has moved."""
    result = Difference(of=len(old))
    elsewhere = Counter(_content(tensor) for place, tensor in new.items() if place not in old)
    for place, tensor in old.items():
        if place not in new and elsewhere[_content(tensor)]:
            elsewhere[_content(tensor)] -= 1
            result.moved += 1
        elif place not in new or _content(new[place]) != _content(tensor):
            result.note(place)
    result.added = {f"{count} tensors" for count in [elsewhere.total()] if count}
    return result


def _content(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], bytes]:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return str(tensor.dtype), tuple(tensor.shape), raw.numpy().tobytes()


def metric_lines(run: Path) -> list[Row]:
    """The lines of metrics.jsonl without what the clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if not _is_clock(name)} for row in rows]


def _is_clock(name: str) -> bool:
    return name.startswith(CLOCK) or name.endswith("_s") or name == "timings"


def episodes(run: Path) -> list[Row]:
    """Every stored episode with its turns as one row, in the order in which they were stored."""
    store = run / "trajectories"
    turns: dict[tuple[str, str], list[Row]] = {}
    for shard, row in _rows(store / "turns"):
        turns.setdefault((shard, row["trajectory_id"]), []).append(row)
    return [row | {"turns": turns.get((shard, row["id"]), [])} for shard, row in _rows(store / "trajectories")]


def _rows(folder: Path) -> list[tuple[str, Row]]:
    found = []
    for path in sorted(folder.glob("*.parquet")):
        found += [(path.stem, row) for row in pq.read_table(path).to_pylist()]
    return found


def compare_rows(old: Sequence[Row], new: Sequence[Row], names: Mapping[str, str]) -> Difference:
    """Row by row at the same number; a row that is there on one side only differs."""
    result = Difference(of=len(old))
    for number in range(max(len(old), len(new))):
        if number >= min(len(old), len(new)):
            result.note(f"row {number} is only on the {'old' if number < len(old) else 'new'} side")
            continue
        found = unlike(old[number], new[number], names, result.added)
        if found:
            result.note(f"row {number}, {found}")
    return result


def unlike(old: Any, new: Any, names: Mapping[str, str], added: set[str], place: str = "") -> str:
    """The first place where two values differ, with both; empty where none does.

    Args:
        added: takes the names that only the new side has.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        renamed = {names.get(key, key): value for key, value in old.items() if not _is_clock(key)}
        here = f"{place}." if place else ""
        added |= {f"{here}{key}" for key in new if key not in renamed and not _is_clock(key)}
        gone = [key for key in renamed if key not in new]
        if gone:
            return f"{here}{gone[0]} is gone"
        found = (unlike(value, new[key], names, added, f"{here}{key}") for key, value in renamed.items())
        return next((text for text in found if text), "")
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = (unlike(a, b, names, added, place) for a, b in zip(old, new, strict=True))
        return next((text for text in found if text), "")
    same = type(old) is type(new) and (old == new or _both_nan(old, new))
    return "" if same else f"{place}: {_short(old)} and {_short(new)}"


def _both_nan(old: Any, new: Any) -> bool:
    return isinstance(old, float) and math.isnan(old) and math.isnan(new)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
