"""Other libraries are silent unless somebody asks; warnings of ours, of a user's code, and what a user set, stay."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from rollwright.config import library_noise
from rollwright.config.library_noise import noise_variables, silence_libraries, wants_everything


@pytest.mark.parametrize(
    ("words", "variable", "expected"),
    [
        (["a.yaml"], "", False),
        (["a.yaml"], "0", False),
        (["a.yaml"], "1", True),
        (["-v", "a.yaml"], "", True),
        (["a.yaml", "--verbose"], "0", True),
        (["run.folder=-v"], "", False),
    ],
)
def test_who_asks_for_everything(
    words: list[str], variable: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLWRIGHT_DEBUG", variable)
    assert wants_everything(words) is expected


@pytest.mark.parametrize(
    ("module", "category", "heard"),
    [
        ("torch.distributed.c10d", FutureWarning, False),
        ("vllm.triton_utils.dispatcher", FutureWarning, False),
        ("transformers", DeprecationWarning, False),
        ("trl.trainer.sft_trainer", UserWarning, False),
        ("torchlight", FutureWarning, True),
        ("my_world.torch_part", UserWarning, True),
        ("rollwright.envs.text.maze", UserWarning, True),
        ("torch.nn", RuntimeWarning, True),
    ],
)
def test_warnings_of_libraries_are_silent_and_those_of_others_are_not(
    module: str, category: type[Warning], heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = {name: logging.getLogger(name).level for name in library_noise._LOGGERS}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        silence_libraries()
        warnings.warn_explicit("look", category, "file.py", 1, module=module)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    assert bool(seen) is heard


def test_a_recipe_prepares_silence_and_keeps_what_the_user_has_set() -> None:
    code = "from rollwright.config import prepare_environment as p; print(sorted(p()))"
    env = {**{k: v for k, v in os.environ.items() if k not in noise_variables(verbose=False)}, "ROLLWRIGHT_DEBUG": ""}
    env["TRANSFORMERS_VERBOSITY"] = "info"
    quiet = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    loud = subprocess.run(
        [sys.executable, "-c", code, "-v"], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert "HF_HUB_DISABLE_PROGRESS_BARS" in quiet and "TRANSFORMERS_VERBOSITY" not in quiet
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in loud and "VLLM_LOGGING_LEVEL" in loud


def test_bars_stay_where_models_may_be_fetched() -> None:
    """A download takes minutes, and nothing else would show that it goes on."""
    offline, online = noise_variables(verbose=False), noise_variables(verbose=False, downloads=True)
    assert set(offline) - set(online) == {"HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"}
