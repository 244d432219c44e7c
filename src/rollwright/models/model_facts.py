"""What a model's configuration says that a learner, an engine or a layout may get wrong. For messages and decisions."""

from __future__ import annotations

from typing import Any

from rollwright.models.model_files import rope_kinds

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
    if getattr(text, "alibi", False) or text.model_type in ("bloom", "mpt"):
        facts.append("distances between tokens are added to attention scores (ALiBi)")
    if layers := recurrent_layers(text):
        facts.append(f"layers carry a state from token to token ({', '.join(layers)})")
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
    slides = any("sliding" in layer for layer in layers) if layers else getattr(text, "use_sliding_window", True)
    windows.append(getattr(text, "sliding_window", None) if slides else None)
    return min((int(window) for window in windows if window), default=None)


def recurrent_layers(config: Any) -> list[str]:
    """The kinds of layers that carry a state from token to token, or the model's own kind where it says no more."""
    text = config.get_text_config()
    layers = {kind for kind in getattr(text, "layer_types", None) or () if any(word in kind for word in _RECURRENT)}
    by_type = [text.model_type] if any(word in text.model_type for word in _RECURRENT_TYPES) else []
    return sorted(layers) or by_type
