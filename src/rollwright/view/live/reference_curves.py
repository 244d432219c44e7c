"""Package data that the page shows beside a run: what a metric means, and how the shipped recipe usually learns."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any


def reference_of(shipped: str) -> str | None:
    """The name of the reference curve for a shipped YAML such as `text/maze_grpo`; None where there is none."""
    return shipped if shipped in _curves() else None


def reference_answer(name: str) -> dict[str, Any] | None:
    """A reference curve by its name: mean over seeds with an interval, by step. None where there is none."""
    found: dict[str, Any] | None = _curves().get(name)
    return found


def metric_notes() -> dict[str, dict[str, str]]:
    """Metric -> its formula, its healthy range and what a bad value means, as docs/metrics.md has them."""
    found: dict[str, dict[str, str]] = _read("metrics.json")
    return found


def _curves() -> dict[str, Any]:
    found: dict[str, Any] = _read("curves.json")
    return found


@cache
def _read(name: str) -> Any:
    # Files of the package do not change while it runs, hence the cache.
    file = resources.files("rollwright.view") / "reference" / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
