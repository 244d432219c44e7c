"""Environment variables that must be set before torch and vLLM are first imported. Imports neither.

Recipes call `prepare_environment()` first thing. What the user has set stays as it is.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rollwright.config.library_noise import noise_variables, silence_libraries, wants_everything
from rollwright.config.loopback import own_interface

logger = logging.getLogger(__name__)


def prepare_environment(*, busy_processes: int = 1) -> dict[str, str]:
    """Set what is not set yet, and silence other libraries unless `-v` was given; returns what this call has set.

    Args:
        busy_processes: processes of this run that compute at the same time on this machine (learner ranks, engines of
            their own); they share the cores.

    A warning says so where torch is already imported: its thread pool has read the OpenMP variables by then.
    """
    verbose = wants_everything()
    wanted = {
        # Unset counts as offline: this call sets it to 1 below.
        **noise_variables(verbose=verbose, downloads=os.environ.get("HF_HUB_OFFLINE", "1") == "0"),
        **variables(busy_processes=busy_processes, cores=usable_cores(), gpu=has_gpu()),
        **own_interface(os.environ),
    }
    # What the user has set wins, also where it is an empty text.
    new = {name: value for name, value in wanted.items() if name not in os.environ}
    late = sorted(name for name in new if name.startswith("OMP_"))
    if late and "torch" in sys.modules:
        logger.warning(
            "torch was imported before %s could be set, so it does without: set it in the shell", ", ".join(late)
        )
    os.environ.update(new)
    if not verbose:
        silence_libraries()
    return new


def variables(*, busy_processes: int, cores: int, gpu: bool) -> Mapping[str, str]:
    """The variables and their values.

    OMP_WAIT_POLICY is PASSIVE: an engine has a thread of its own, and so OpenMP threads of its own. Were they to spin
    while they wait (ACTIVE, and at length the default too), they would take the cores from the learner, from a browser
    and from other ranks: up to ten times slower linear layers were measured.
    """
    if busy_processes < 1:
        raise ValueError(f"busy_processes counts this process too, so 1 or more; got {busy_processes}")
    values = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(max(1, cores // busy_processes)),
        "TOKENIZERS_PARALLELISM": "false",  # its threads and our forked workers do not mix
        "HF_HUB_OFFLINE": "1",  # nothing is fetched unless the user says so
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the learner hands over weights inside its own process
        # vLLM otherwise reports its use to a server of its authors.
        "VLLM_NO_USAGE_STATS": "1",
    }
    # DeepSpeed otherwise guesses the accelerator by what it can import.
    return values if gpu else {**values, "DS_ACCELERATOR": "cpu"}


def usable_cores() -> int:
    """Cores this process may run on."""
    # `cpu_count` counts cores that taskset, a container or a scheduler keeps from this process. macOS lacks the call.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether an NVIDIA device is there and not hidden; torch cannot be asked before the variables are set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and Path("/dev/nvidia0").exists()
