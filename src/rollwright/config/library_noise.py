"""What other libraries print unasked: silenced in one place, before they are imported; `-v` shows all of it.

Loading bars, deprecation warnings, and notes about NUMA, Gloo, OpenMP and compilers say nothing that a user of a run
could act on, and hide what does. Our own warnings, those of a user's own code and all errors stay.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence

DEBUG = "ROLLWRIGHT_DEBUG"
"""The environment variable that asks for everything, as `-v` does."""
VERBOSE_WORDS = frozenset({"-v", "--verbose"})
_LIBRARIES = (
    *("accelerate", "datasets", "deepspeed", "huggingface_hub", "peft", "pydantic", "ray", "torch", "torchvision"),
    *("transformers", "trl", "triton", "vllm"),
)
_LOGGERS = ("DeepSpeed", "datasets", "huggingface_hub", "torch.distributed.elastic", "vllm")
_SILENT: Mapping[str, str] = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers asks this one too, for its bars of every part
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",  # bars that ask nobody else, such as those of reading a GGUF file
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",  # Gloo, NUMA and autograd notes of the C++ side
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
# What shows the progress of a download.
_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")


def wants_everything(words: Sequence[str] | None = None) -> bool:
    """Whether tracebacks and the notes of other libraries were asked for, by `-v`, `--verbose` or ROLLWRIGHT_DEBUG=1.

    Args:
        words: of the command line; None is this process's own.
    """
    given = sys.argv[1:] if words is None else words
    return bool(VERBOSE_WORDS & set(given)) or os.environ.get(DEBUG, "") not in ("", "0")


def noise_variables(*, verbose: bool, downloads: bool = False) -> dict[str, str]:
    """Environment variables that tell libraries how much to say; processes that are started later inherit them.

    Args:
        downloads: the user lets models be fetched, which takes minutes: bars stay, as nothing else shows the progress.
    """
    if verbose:
        return {"VLLM_LOGGING_LEVEL": "INFO"}
    return {name: value for name, value in _SILENT.items() if not (downloads and name in _BARS)}


def silence_libraries() -> None:
    """Silence, in this process, the notes that no environment variable silences: warnings and loggers of libraries.

    Warnings are told by the module that they are raised for, so a user's own deprecation warnings stay.
    """
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning):
        # The pattern is matched from the start of the module's name; its end keeps `ray` from hiding `rayon`.
        warnings.filterwarnings("ignore", category=category, module=rf"({'|'.join(_LIBRARIES)})(\.|$)")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    loaded = sys.modules.get("transformers.utils.logging")  # in a notebook, say: it reads no variable any more
    if loaded is not None and os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "0") != "0":
        loaded.disable_progress_bar()
