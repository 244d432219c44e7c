"""What the benchmarks share: the machine line, medians over pairs, the result file and the final JSON line."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollwright.config import usable_cores
from rollwright.run_io import machine_facts

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """Short id of the checked-out commit, `+` where the code differs from it; "unknown" for an installed package."""
    found = machine_facts.commit()
    return "unknown" if found is None else found["id"][:8] + ("+" if found["dirty"] else "")


def versions(*packages: str) -> str:
    """`torch 2.13.0, trl 1.16.0`: of the packages that are installed."""
    return ", ".join(f"{name} {version}" for name, version in machine_facts.package_versions(packages).items())


def machine(*packages: str) -> str:
    """Cores, threads, load, commit and versions in one line; nothing that names the machine."""
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    threads = os.environ.get("OMP_NUM_THREADS", "one per core")
    return (
        f"{platform.machine()}, {usable_cores()} cores, OpenMP threads {threads}, {load} at the end of the run "
        f"(other work included), {platform.system()}, Python {platform.python_version()}; commit {commit()}; "
        f"{versions(*packages)}"
    )


def command() -> str:
    """How this run was started, without the machine's own paths."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats get three significant digits."""

    def cell(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) and value < 100 else str(value)

    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def publish(name: str, text: str, summary: dict[str, Any], *, as_json: bool, keep: bool = True) -> None:
    """Print the report; `keep` writes it to `results/<name>.md`; with `as_json` the last line is the summary."""
    print(text)
    if keep:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps({"benchmark": name, **summary}), flush=True)
