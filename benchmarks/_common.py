"""What the benchmarks share: the machine line, medians over pairs, the result file and the final JSON line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def commit() -> str:
    """Short id of the checked-out commit, `+` where tracked files of the package differ from it."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../src", "../envs", "../recipes")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def versions(*packages: str) -> str:
    """`torch 2.13.0, trl 1.16.0`: of the packages that are installed."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def machine(*packages: str) -> str:
    """Cores, threads, load, commit and versions in one line; nothing that names the machine."""
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    threads = os.environ.get("OMP_NUM_THREADS", "one per core")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{platform.machine()}, {cores} cores, OpenMP threads {threads}, {load} at the end of the run (other work "
        f"included), {platform.system()}, Python {platform.python_version()}; commit {commit()}; {versions(*packages)}"
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
