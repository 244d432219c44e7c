"""Model folders are read whole or refused: every tensor has its place, and nobody asks for more than they are made for.

transformers fills what a checkpoint lacks with random numbers and drops what it does not know, with a line in a log.

What a model's configuration says that a learner, an engine or a layout may get wrong. For messages and decisions.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rollwright.contracts import ConfigError, MissingDependency, ModelNotFound

# Parts of names in `layer_types`: layers with such names keep a state from token to token.
_RECURRENT = ("conv", "linear", "mamba", "recurrent", "ssm", "lightning")
_RECURRENT_TYPES = ("mamba", "rwkv", "falcon_h1", "bamba", "zamba", "jamba", "recurrent_gemma", "xlstm")
_NOISE = ("dropout", "pdrop", "layerdrop", "jitter")


def facts_of(config: Any) -> list[str]:
    """One phrase for each thing by which this model differs from a plain transformer; empty for most."""
    text = config.get_text_config()
    facts = []
    for name, meaning in (
        ("attn_logit_softcapping", "attention scores are capped at"),
        ("final_logit_softcapping", "logits are capped at"),
        ("logits_scaling", "logits are divided by"),
        ("logit_scale", "logits are multiplied by"),
        ("attention_chunk_size", "attention looks back within chunks of"),
    ):
        value = getattr(text, name, None)
        if value and value != 1.0:
            facts.append(f"{meaning} {value} ({name})")
    if window := window_of(text):
        facts.append(f"attention looks back {window} tokens (sliding_window)")
    # BLOOM has no flag for it, and MPT keeps its own in a nested section.
    if getattr(text, "alibi", False) or text.model_type in ("bloom", "mpt"):
        facts.append("distances between tokens are added to attention scores (ALiBi)")
    if layers := recurrent_layers(text):
        facts.append(f"layers carry a state from token to token ({', '.join(layers)})")
    # Older configurations say `type` for `rope_type`.
    kinds = sorted({str(rope.get("rope_type", rope.get("type"))) for rope in rope_kinds(text)} - {"default", "None"})
    facts += [f"rotary positions of the kind {kind}" for kind in kinds]
    if experts := next((n for name in _EXPERTS if (n := getattr(text, name, None))), None):
        facts.append(f"{experts} experts, chosen by token: near ties may be decided differently")
    if getattr(text, "tie_word_embeddings", False):
        facts.append("the vocabulary head is the embedding (tie_word_embeddings)")
    noise = {k: v for k, v in vars(text).items() if any(n in k for n in _NOISE) and isinstance(v, float) and v > 0}
    facts += [f"{name}={value:g}" for name, value in sorted(noise.items())]
    return facts


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def window_of(config: Any) -> int | None:
    """How many tokens back the layers with the shortest memory look; None where all look at everything."""
    text = config.get_text_config()
    windows = [getattr(text, "attention_chunk_size", None)]
    layers = getattr(text, "layer_types", None)
    # A window may be written down and switched off (Qwen2); most models have no such switch.
    slides = any("sliding" in layer for layer in layers) if layers else getattr(text, "use_sliding_window", True)
    windows.append(getattr(text, "sliding_window", None) if slides else None)
    return min((int(window) for window in windows if window), default=None)


def recurrent_layers(config: Any) -> list[str]:
    """The kinds of layers that carry a state from token to token, or the model's own kind where it says no more."""
    text = config.get_text_config()
    layers = {kind for kind in getattr(text, "layer_types", None) or () if any(word in kind for word in _RECURRENT)}
    by_type = [text.model_type] if any(word in text.model_type for word in _RECURRENT_TYPES) else []
    return sorted(layers) or by_type


log = logging.getLogger(__name__)

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TOKENIZER = ("tokenizer", "special_tokens", "vocab", "merges", "added_tokens", "chat_template")
"""How the names of a tokenizer's files begin."""
_SHOWN = 4
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
"""Tables that older versions of transformers saved along with the weights, and that are computed today."""
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")


def load_whole(auto: Any, folder: str | Path, *, new: Sequence[str] = (), spare: bool = False, **words: Any) -> Any:
    """`auto.from_pretrained(folder)`, if each of the model's tensors comes from the folder and each of the folder's is
    one of the model's.

    Args:
        auto: a transformers class.
        new: names, or beginnings of names, of tensors that the folder need not have: a head that is yet to be trained.
        spare: whether the folder may hold more, such as a head that is not wanted here.
        words: further arguments of `from_pretrained`.

    Raises:
        ModelNotFound: tensors are missing, too many, or have other shapes; their names are told.
    """
    model, found = auto.from_pretrained(
        folder,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # counted below, with names, where transformers points to its log
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        **words,
    )
    mismatched = [f"{name} {tuple(file)} where {tuple(own)} is wanted" for name, file, own in found["mismatched_keys"]]
    shapes = {entry.split(" ", 1)[0] for entry in mismatched}
    missing = [name for name in found["missing_keys"] if name not in shapes and not name.startswith(tuple(new) or "\0")]
    surplus = [] if spare else [name for name in found["unexpected_keys"] if not name.endswith(_BUFFERS)]
    faults = [
        _named("it lacks", missing),
        _named("it holds unknown", surplus),
        _named("other shapes:", mismatched),
        "; ".join(map(str, found.get("error_msgs") or ())),
    ]
    if any(faults):
        raise ModelNotFound(
            f"the weights in {folder} are not those of a {type(model).__name__} as its config.json describes it: "
            f"{'; '.join(filter(None, faults))}. Copy all *.safetensors files and config.json from one and the same "
            "model, or save it again with save_pretrained"
        )
    return model


def _named(what: str, names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} {', '.join(names[:_SHOWN])}{more} ({len(names)} in all)" if names else ""


def require_positions(folder: str | Path, context_length: int, *, key: str = "engine.max_context") -> None:
    """A model is asked for no longer sequences than it can read. Nothing but config.json is opened.

    Raises:
        ConfigError: it has fewer positions, or would compute a sequence otherwise once it is that long.
    """
    config = config_of(folder)
    longest, why = positions_of(config)
    if longest is not None and context_length > longest:
        raise ConfigError(
            f"`{key}={context_length}`, but the model in {folder} takes {longest} tokens{why}: set `{key}` to "
            f"{longest} or less, or use a model with a longer context"
        )


def context_within(folder: str | Path, context_length: int) -> int:
    """`context_length`, or what the model takes where that is less."""
    longest, _ = positions_of(config_of(folder))
    return context_length if longest is None else min(context_length, longest)


def config_of(folder: str | Path) -> Any:
    """The configuration of a model folder.

    Raises:
        ModelNotFound: it cannot be read.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = str(error).strip().splitlines()[0][:300]
        raise ModelNotFound(f"{folder} holds no model whose config.json transformers can read: {first}") from error


def positions_of(config: Any) -> tuple[int | None, str]:
    """Tokens that a model reads, None where nothing limits them; and the reason where it is not the plain number.

    YaRN and linear scaling read `factor` times as many. LongRoPE changes the frequencies of all positions once a
    sequence is longer than what it was first trained on: an engine, which has the first part in its cache by then, and
    a learner, which has not, would compute two different models.
    """
    text = config.get_text_config()
    longest = next((int(n) for name in _POSITIONS if (n := getattr(text, name, None))), None)
    for rope in rope_kinds(text):
        kind, factor = rope.get("rope_type", rope.get("type")), float(rope.get("factor") or 1.0)
        first = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None)
        if kind == "longrope" and first:
            return int(first), f" (LongRoPE: beyond {int(first)} it switches to other frequencies)"
        if kind == "yarn" and first and longest:
            # The configurations of YaRN models may give the length before the scaling or after it.
            longest = max(longest, int(int(first) * factor))
        if kind == "linear" and longest:
            longest = int(longest * factor)
    return longest, ""


def rope_kinds(config: Any) -> list[dict[str, Any]]:
    """The rotary embeddings that a configuration names: one, or one for each kind of layer."""
    # Before transformers 5 the name was `rope_scaling`.
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if not isinstance(rope, dict):
        return []
    # Models with two kinds of layers, such as Gemma 3, have one dictionary for each.
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return nested or [rope]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter and no model of its own."""
    return (folder / ADAPTER_CONFIG).exists() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """Name or folder of the model that an adapter was trained on.

    Raises:
        ModelNotFound: the adapter does not say so, or has no weights in safetensors.
    """
    import json

    try:
        words = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = str(words.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelNotFound(f"{folder / ADAPTER_CONFIG} cannot be read: {error}") from error
    if not base:
        raise ModelNotFound(
            f"{folder} holds an adapter that does not name its model: write the folder or hub name of the model into "
            f"base_model_name_or_path of {ADAPTER_CONFIG}"
        )
    if not (folder / ADAPTER_WEIGHTS).exists():
        raise ModelNotFound(
            f"{folder} holds an adapter without {ADAPTER_WEIGHTS} (pickled weights are not read): save it again with "
            "save_pretrained of the package peft"
        )
    if Path(base).resolve() == folder.resolve():
        raise ModelNotFound(f"{folder} holds an adapter that names itself as its model: write the model's folder there")
    # Hub names look like relative paths, so the adapter's folder counts only if a model is there.
    inside = folder / base
    return str(inside) if not Path(base).is_absolute() and (inside / "config.json").exists() else base


def merged_name(folder: Path, base: Path) -> str:
    """A name that changes with the adapter and with the model below it."""
    sums = hashlib.sha256(str(base.resolve()).encode())
    for path in (folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS, base / "config.json"):
        sums.update(hashlib.sha256(path.read_bytes()).digest())
    # Base weights may be many gigabytes: sizes and times stand for their content.
    for path in sorted(base.glob("*.safetensors")):
        sums.update(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return f"merged-{folder.resolve().name}-{sums.hexdigest()[:16]}"


def write_merged(folder: Path, base: Path, target: Path) -> None:
    """Add an adapter to its model and write the sum, with its tokenizer, as a plain model folder in float32.

    Raises:
        ModelNotFound: the adapter does not fit the model, or is of a kind that cannot be added to weights.
        MissingDependency: peft is not installed.
    """
    import shutil

    import torch
    from transformers import AutoModelForCausalLM

    try:
        from peft import PeftConfig, PeftModelForCausalLM
    except ImportError as error:
        raise MissingDependency(
            f"{folder} is an adapter, which needs the package peft: pip install 'rollwright[peft]'"
        ) from error
    log.info("adding the adapter in %s to %s; the sum lies in %s from now on", folder, base, target)
    # In float32, since a low-precision weight rounds small updates away.
    model = load_whole(AutoModelForCausalLM, base, dtype=torch.float32)
    try:
        adapted = PeftModelForCausalLM(model, PeftConfig.from_pretrained(folder))
        # `load_adapter` returns what does not fit; `PeftModel.from_pretrained` only warns of it.
        result = adapted.load_adapter(str(folder), "default", is_trainable=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        first = " ".join(str(error).split())[:400]
        raise ModelNotFound(f"the adapter in {folder} does not fit the model in {base}: {first}") from error
    faults = [_named("it lacks", result.missing_keys), _named("it holds unknown", result.unexpected_keys)]
    if any(faults):
        raise ModelNotFound(
            f"the adapter in {folder} does not fit the model in {base}: {'; '.join(filter(None, faults))}"
        )
    # Prompt tuning and its kind add inputs, and there is nothing to add to the weights.
    if not hasattr(adapted, "merge_and_unload"):
        raise ModelNotFound(
            f"the adapter in {folder} is of a kind ({adapted.peft_config['default'].peft_type}) that is no change of "
            "weights: use a LoRA adapter"
        )
    adapted.merge_and_unload().save_pretrained(target)
    for source in (base, folder):  # the adapter's own tokenizer wins
        for file in source.iterdir():
            if file.name.startswith(_TOKENIZER):
                shutil.copyfile(file, target / file.name)
