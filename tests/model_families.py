"""Tiny random models of many families, for tests and for docs/models.md (scripts/write_models.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

VOCAB, WINDOW, POSITIONS = 97, 16, 256
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 32,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}
Prefixes = Literal["shared", "window", "state", "distances"]


@dataclass(frozen=True)
class Family:
    """A model type and what is expected of it.

    prefixes: "shared", or why they cannot be: a "window", a "state" from token to token, "distances" in the scores.
    cached: whether the transformers engine can sample from it.
    """

    kind: str
    words: dict[str, Any] = field(default_factory=dict)
    prefixes: Prefixes = "shared"
    cached: bool = True


FAMILIES: dict[str, Family] = {
    "Llama": Family("llama"),
    "Llama, tied": Family("llama", {"tie_word_embeddings": True}),
    "Mistral": Family("mistral", {"sliding_window": None}),
    "Mistral, window": Family("mistral", {"sliding_window": WINDOW}, "window"),
    "Mixtral": Family("mixtral", {"num_local_experts": 4, "sliding_window": None}),
    "Qwen2": Family("qwen2"),
    "Qwen2-MoE": Family("qwen2_moe", {**_MOE, "shared_expert_intermediate_size": 32}),
    "Qwen3": Family("qwen3", {"head_dim": 32}),
    "Qwen3-MoE": Family("qwen3_moe", {**_MOE, "head_dim": 32}),
    "Qwen3-Next": Family("qwen3_next", {**_MOE, **_DELTA, "shared_expert_intermediate_size": 32}, "state", False),
    "Qwen3.5": Family("qwen3_5_text", _DELTA, "state", False),
    "Gemma": Family("gemma", {"head_dim": 32}),
    "Gemma 2": Family("gemma2", {"head_dim": 32, "sliding_window": 4096}),
    "Gemma 2, window": Family("gemma2", {"head_dim": 32, "sliding_window": WINDOW}, "window"),
    "Gemma 3": Family("gemma3_text", {"head_dim": 32, **_SLIDING}, "window"),
    "Phi": Family("phi", {"num_key_value_heads": 2}),
    "Phi-3, Phi-4": Family("phi3"),
    "SmolLM3": Family("smollm3"),
    "OLMo 2": Family("olmo2"),
    "OLMo 3": Family("olmo3", _SLIDING, "window"),
    "GPT-2": Family("gpt2", {"n_positions": POSITIONS}),
    "GPT-NeoX": Family("gpt_neox"),
    "OPT": Family("opt", {"ffn_dim": 64, "word_embed_proj_dim": 64}),
    "Falcon": Family("falcon", {"new_decoder_architecture": False, "multi_query": True}),
    "Falcon, ALiBi": Family("falcon", {"new_decoder_architecture": False, "alibi": True}, "distances"),
    "BLOOM": Family("bloom", {"n_head": 2, "n_layer": 2}, "distances"),
    "MPT": Family("mpt", {"d_model": 64, "n_heads": 2, "n_layers": 2, "max_seq_len": POSITIONS}, "distances"),
    "StableLM": Family("stablelm"),
    "StarCoder2": Family("starcoder2", {"sliding_window": None}),
    "Granite": Family("granite", {"logits_scaling": 8.0, "attention_multiplier": 0.5}),
    "Granite 4, hybrid": Family(
        "granitemoehybrid",
        {
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 4,
            "mamba_d_head": 32,
            "mamba_n_groups": 1,
            "mamba_d_state": 8,
            "num_local_experts": 0,
            "shared_intermediate_size": 64,
        },
        "state",
        False,
    ),
    "Cohere": Family("cohere", {"logit_scale": 0.0625}),
    "Cohere 2": Family("cohere2", _SLIDING, "window"),
    "GLM-4": Family("glm4", {"head_dim": 32}),
    "Nemotron": Family("nemotron"),
    "DeepSeek-V3": Family(
        "deepseek_v3",
        {
            "num_key_value_heads": 2,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16,
            "v_head_dim": 32,
            "first_k_dense_replace": 1,
        },
    ),
    "GPT-OSS": Family(
        "gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32, **_SLIDING}, "window"
    ),
    "LFM2": Family("lfm2", {"layer_types": ["conv", "full_attention"]}, "state", False),
    "Mamba": Family("mamba", {"state_size": 4}, "state", False),
}


def build(family: Family, **words: Any) -> Any:
    """The model with weights fixed by a seed, under the attention that `models.load_model` would choose."""
    from transformers import AutoConfig, AutoModelForCausalLM

    import rollwright.batching.prefix_tree  # noqa: F401  makes "sdpa_tree" known to transformers

    config = AutoConfig.for_model(family.kind, **(_COMMON | family.words | words))
    for attention in ("sdpa_tree", "sdpa", "eager"):
        torch.manual_seed(0)
        try:
            return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
        except (KeyError, ValueError) as error:
            reason = error
    raise reason
