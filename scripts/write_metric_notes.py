"""Writes what docs/metrics.md says of each metric as package data, which `rollwright view` shows beside the curves."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "docs" / "metrics.md"
TARGET = ROOT / "src" / "rollwright" / "view" / "reference" / "metrics.json"
_NAME = re.compile(r"`([^`]+)`")


def notes(page: str) -> dict[str, dict[str, str]]:
    """Metric -> its formula, its healthy range and what a bad value means, from the tables of the page."""
    found = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == 4:
            names, text, healthy, bad = cells
            for name in _NAME.findall(names):
                found[name] = {"text": _plain(text), "healthy": _plain(healthy), "bad": _plain(bad)}
    return found


def _plain(cell: str) -> str:
    return cell.replace("`", "").replace("\\|", "|")


def main() -> None:
    """Writes the file."""
    found = notes(SOURCE.read_text(encoding="utf-8"))
    TARGET.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {TARGET.name}: {len(found)} metrics")


if __name__ == "__main__":
    main()
