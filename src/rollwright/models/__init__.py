"""Language models: where they come from, how text becomes tokens, what a forward pass gives.

Lives here: the section `model` and what a run starts from (`starting_model`), weights, tokenizers and tiny models
(`loading`, `model_files`, `tiny_model`, `adapters`), chat text to tokens (`codec`, `chat_template`, `vocabulary`),
log-probs of packed rows (`scoring`), and the check that our forward pass is the model's own (`model_check`).
May import: batching and what stands above it.
"""

from rollwright.models.adapters import Adapter, adapter_of, adapter_off, is_adapted, merged, merged_parameters
from rollwright.models.chat_template import day_of_run, keep_day
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import (
    Dtype,
    Precision,
    cache_folder,
    embedded_is_there,
    load_model,
    load_policy,
    load_tokenizer,
    require_embedded,
    resolve_model,
    resolve_precision,
    with_lora,
)
from rollwright.models.model_check import check_model
from rollwright.models.model_files import (
    base_of,
    config_of,
    context_within,
    facts_of,
    is_adapter,
    load_whole,
    positions_of,
    require_positions,
)
from rollwright.models.scoring import (
    TokenScorer,
    VocabularyTerm,
    body_hidden,
    body_of,
    causal_lm,
    check_head,
    last_hidden_at,
    next_token_logits,
)
from rollwright.models.starting_model import ModelSettings, open_codec, policy_folder
from rollwright.models.tiny_model import make_tiny_model, tiny_tokenizer
from rollwright.models.vocabulary import (
    biases_against,
    mark,
    marked,
    padding_text,
    rows_of,
    unknown_ids,
    without_unknown,
)

__all__ = [
    "Adapter",
    "ChatCodec",
    "Dtype",
    "ModelSettings",
    "Precision",
    "TokenScorer",
    "VocabularyTerm",
    "adapter_of",
    "adapter_off",
    "base_of",
    "biases_against",
    "body_hidden",
    "body_of",
    "cache_folder",
    "causal_lm",
    "check_head",
    "check_model",
    "config_of",
    "context_within",
    "day_of_run",
    "embedded_is_there",
    "facts_of",
    "is_adapted",
    "is_adapter",
    "keep_day",
    "last_hidden_at",
    "load_model",
    "load_policy",
    "load_tokenizer",
    "load_whole",
    "make_tiny_model",
    "mark",
    "marked",
    "merged",
    "merged_parameters",
    "next_token_logits",
    "open_codec",
    "padding_text",
    "policy_folder",
    "positions_of",
    "require_embedded",
    "require_positions",
    "resolve_model",
    "resolve_precision",
    "rows_of",
    "tiny_tokenizer",
    "unknown_ids",
    "with_lora",
    "without_unknown",
]
