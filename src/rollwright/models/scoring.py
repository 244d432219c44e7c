"""Log-probabilities of action tokens from packed batches, without ever keeping logits of every position.

The transformer body runs over the packed rows; hidden states are gathered at the positions that predict an action
token, each once; the vocabulary head then runs over them in chunks that are recomputed in the backward pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rollwright.batching import TREE_ATTENTION, PackedBatch, pays_on, plan_rows
from rollwright.contracts import ConfigError
from rollwright.models.model_files import window_of
from rollwright.models.vocabulary import marked, without_unknown

CHUNK = 256
"""Positions per chunk of the vocabulary head: 256 x 49,152 float32 logits are 50 MB."""

VocabularyTerm = Callable[[Tensor, Tensor], Tensor]
"""Places [n] of action tokens among those of the micro-batch, and their tempered logits [n, V] -> [n] numbers."""


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, taken out of a PEFT wrapper where there is one.

    Raises:
        ConfigError: neither a transformers model nor a PEFT model around one.
    """
    inner = model if isinstance(model, PreTrainedModel) else getattr(model, "get_base_model", lambda: None)()
    if not isinstance(inner, PreTrainedModel):
        raise ConfigError(f"expected a transformers model or a PEFT model around one, got {type(model).__name__}")
    return inner


def body_of(model: nn.Module) -> PreTrainedModel:
    """The transformer without its vocabulary head; a PEFT adapter on it stays in place."""
    inner = causal_lm(model)
    return getattr(inner, inner.base_model_prefix)


def next_token_logits(model: nn.Module, hidden: Tensor) -> Tensor:
    """[..., H] last hidden states -> [..., V] logits: the vocabulary head, and what some models do to its output."""
    inner = causal_lm(model)
    logits: Tensor = inner.get_output_embeddings()(hidden)
    config = inner.config.get_text_config()
    if divisor := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / divisor
    # Only a number: the configuration of MPT may hold a word here.
    if isinstance(factor := getattr(config, "logit_scale", None), float):  # Cohere
        logits = logits * factor
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
        logits = torch.tanh(logits / cap) * cap
    return logits


def body_hidden(body: PreTrainedModel, packed: PackedBatch, *, blocks: bool = False) -> Tensor:
    """[B, T, H] last hidden states of the transformer body over packed rows.

    Args:
        blocks: compute attention by blocks even where a dense mask is cheaper, to compare the two.

    Raises:
        ConfigError: the attention implementation cannot express a tree.
    """
    output = body(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        attention_mask=_mask_for(body, packed),
        use_cache=False,
        **_blocks_for(body, packed, always=blocks),
    )
    return output.last_hidden_state


def _blocks_for(body: PreTrainedModel, packed: PackedBatch, *, always: bool) -> dict[str, Any]:
    """The plan that lets attention skip what no query sees; without it, or where it is not read, the mask does."""
    config = body.config
    if not (packed.branching and config._attn_implementation == TREE_ATTENTION and pays_on(packed.input_ids.device)):
        return {}
    rows = plan_rows(packed.subtree_ends, width=config.get_text_config().hidden_size, always=always)
    return {} if rows is None else {"tree_rows": rows}


def _mask_for(body: PreTrainedModel, packed: PackedBatch) -> Tensor | None:
    mask = packed.attention_mask()
    if mask is None:
        return None
    config = body.config
    window = window_of(config)
    # A window counts places in the row, so it would count tokens of other branches.
    if window and packed.input_ids.shape[1] > window:
        raise ConfigError(
            f"rows of {packed.input_ids.shape[1]} tokens exceed the model's sliding window of {window}, which a prefix "
            "tree does not follow: use layout 'padded'"
        )
    implementation = config._attn_implementation
    if implementation in ("sdpa", TREE_ATTENTION):
        return mask
    if implementation == "eager":
        dtype = next(body.parameters()).dtype
        # Eager attention adds its mask to the scores. With -inf, a query that sees nothing would become NaN.
        return torch.zeros(mask.shape, device=mask.device, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    raise ConfigError(
        f"attention {implementation!r} takes no 4-D mask: load the model with 'sdpa', or use layout 'padded'"
    )


class TokenScorer(nn.Module):
    """A causal LM that scores action tokens; its forward is the only way the learner runs the policy.

    Everything happens inside one forward, so that DDP and DeepSpeed see each use of a parameter.
    """

    def __init__(self, model: nn.Module, *, temperature: float = 1.0, chunk: int = CHUNK) -> None:
        super().__init__()
        if temperature <= 0:
            raise ConfigError(f"temperature is {temperature}; the learner needs the positive one the sampler used")
        self.model = model
        self.temperature = temperature
        self.chunk = chunk

    def forward(
        self, packed: PackedBatch, with_entropy: bool = False, blocks: bool = False, term: VocabularyTerm | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor] | tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Score the action tokens of a micro-batch; `blocks` is for `body_hidden`.

        Args:
            term: what a loss over the whole vocabulary makes of each token's logits, chunk by chunk.

        Returns:
            logprobs [N], entropy [N] in nats or None, and hidden [U, H] at `packed.gather`; with a term, its [N] too.
        """
        hidden = body_hidden(body_of(self.model), packed, blocks=blocks)
        hidden = hidden.reshape(-1, hidden.shape[-1])[packed.gather]  # [U, H]
        logprobs, entropy, found = self._score(hidden, packed, with_entropy, term)
        return (logprobs, entropy, hidden) if found is None else (logprobs, entropy, hidden, found)

    def _score(
        self, hidden: Tensor, packed: PackedBatch, with_entropy: bool, term: VocabularyTerm | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        # In order of their positions, so that each chunk's tokens are one slice.
        order = torch.argsort(packed.slots, stable=True)
        slots, targets = packed.slots[order], packed.targets[order]
        # Counted from the end, so that the last chunk is a full one: see `_chunk`. Turns of which nobody chose a token
        # leave one empty chunk, so that the graph hangs together.
        edges = [0, *(sorted(range(len(hidden), 0, -self.chunk)) or [0])]
        bounds = torch.searchsorted(slots, slots.new_tensor(edges)).tolist()
        scores, entropies, terms = [], [], []
        for index, (start, end) in enumerate(itertools.pairwise(edges)):
            part = slice(bounds[index], bounds[index + 1])
            last = end == len(hidden)
            # Tokens are sorted by position here, so each chunk says which of the micro-batch's tokens it holds.
            here = None if term is None else partial(term, order[part])
            score, entropy, found = self._chunk(
                hidden[start:end], slots[part] - start, targets[part], with_entropy, here, last=last
            )
            scores.append(score)
            entropies.append(entropy)
            terms.append(found)
        # The inverse permutation: callers want the order of the batch.
        back = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
        whole = torch.cat(entropies)[back] if with_entropy else None
        return torch.cat(scores)[back], whole, None if term is None else torch.cat(terms)[back]

    def _chunk(
        self,
        hidden: Tensor,
        slots: Tensor,
        targets: Tensor,
        with_entropy: bool,
        term: Callable[[Tensor], Tensor] | None,
        *,
        last: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # The backward pass starts with the last chunk and needs the logits of one chunk at a time anyway: keeping this
        # one costs no memory at the peak, and saves its recomputation.
        if torch.is_grad_enabled() and not last:
            return checkpoint(self._head, hidden, slots, targets, with_entropy, term, use_reentrant=False)
        return self._head(hidden, slots, targets, with_entropy, term)

    def logits(self, hidden: Tensor) -> Tensor:
        """[C, H] last hidden states -> [C, V] logits of the tempered distribution; -inf where no token is known."""
        logits = without_unknown(causal_lm(self.model), next_token_logits(self.model, hidden))
        # A log-softmax over the vocabulary needs float32; float64 stays as it is.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.temperature != 1.0:  # a pass over the vocabulary saved
            logits = logits / self.temperature
        return logits

    def _head(
        self,
        hidden: Tensor,
        slots: Tensor,
        targets: Tensor,
        with_entropy: bool,
        term: Callable[[Tensor], Tensor] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[C, H] -> log-prob of `targets` [n] at row `slots` [n], entropy and term there (each [n], or empty)."""
        logits = self.logits(hidden)  # [C, V]
        logprobs = logits.log_softmax(dim=-1)
        never, terms = marked(causal_lm(self.model)), logprobs
        if with_entropy and never is not None:
            terms = logprobs.index_fill(-1, never, 0.0)  # adds 0 to the entropy, where -inf would make it NaN
        entropy = -(terms.exp() * terms).sum(dim=-1)[slots] if with_entropy else logprobs.new_empty(0)
        found = logprobs.new_empty(0) if term is None else term(logits[slots])
        return logprobs[slots, targets], entropy, found


@torch.no_grad()
def check_head(model: nn.Module) -> None:
    """Body and head called one after the other must be the whole model (some scale or cap their logits in between).

    Raises:
        ConfigError: they are not, so that log-probs would be wrong.
    """
    inner = causal_lm(model)
    device = next(inner.parameters()).device
    ids = torch.tensor([[1, 2, 3]], device=device) % inner.config.vocab_size
    whole = inner(input_ids=ids, use_cache=False).logits
    parts = next_token_logits(inner, body_of(inner)(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(whole, parts, rtol=1e-2, atol=1e-2):
        raise ConfigError(
            f"{type(inner).__name__} changes its logits after the vocabulary head (largest difference "
            f"{(whole - parts).abs().max():.3g}): such models are not supported by the learner"
        )


def last_hidden_at(hidden: Tensor, mask: Tensor) -> Tensor:
    """Hidden state at the last real token of each row, whatever side the padding is on.

    Args:
        hidden: [B, T, H].
        mask: [B, T] bool, true at real tokens.

    Returns:
        [B, H]; the gradient flows to those positions only.

    Raises:
        ValueError: shapes disagree, or a row has no real token.
    """
    if hidden.shape[:2] != mask.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)} and mask {tuple(mask.shape)} disagree in [B, T]")
    real = mask.bool()
    if not bool(real.any(dim=1).all()):
        raise ValueError(f"rows {(~real.any(dim=1)).nonzero().flatten().tolist()} hold no real token")
    index = torch.arange(mask.shape[1], device=mask.device)
    # -1 is below every index, so padding is never the last token.
    last = torch.where(real, index, -1).max(dim=1).values
    return hidden[torch.arange(len(last), device=mask.device), last]
