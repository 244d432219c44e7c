"""Whether a model can be sampled from with keys and values that are kept: padded rows, then token after token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rollwright.contracts import ConfigError
from rollwright.generation.kv_cache import KVRows
from rollwright.models import facts_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_DIFFERENCE, MEAN_DIFFERENCE_LOW = 5e-3, 0.1  # nats: the largest in float32, the mean in bfloat16 and float16


@torch.no_grad()
def check_cache(model: PreTrainedModel) -> float:
    """Compare log-probs by cached keys and values with those of the model's forward on whole sequences.

    Returns:
        The difference in nats: the largest in float32, the mean in lower precision.

    Raises:
        ConfigError: it is more than rounding, or the model takes no such cache.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    first = min(5, vocabulary - 1)
    # Two lengths, so that the shorter row is padded on the left as it is in an engine's batches.
    rows = [
        [first + (3 * k + k * k + n) % (vocabulary - first) for k in range(length)] for n, length in ((0, 23), (7, 9))
    ]
    try:
        cached = _cached(model, rows)
        plain = torch.cat([_plain(model, row) for row in rows])
    except Exception as error:  # a model that takes no such arguments fails in a way of its own
        raise ConfigError(_refusal(model, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")) from error
    # A NaN compares as False with any limit and would pass.
    gaps = (cached - plain).abs().nan_to_num(float("inf"))
    precise = next(model.parameters()).dtype in (torch.float32, torch.float64)
    gap, limit = (float(gaps.max()), MAX_DIFFERENCE) if precise else (float(gaps.mean()), MEAN_DIFFERENCE_LOW)
    if gap > limit:
        raise ConfigError(_refusal(model, f"log-probs are off by {gap:.3g} nats, at most {limit:g} is rounding"))
    return gap


def _cached(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """[rows * 3, V] log-probs after all but the last two tokens, read together, and after each of these."""
    kv = KVRows.empty(len(rows), model.config.get_text_config().num_hidden_layers)
    # One prefill of the unequal rows, then two decoding steps of one token each, as an engine reads them.
    steps = [[row[:-2] for row in rows], [row[-2:-1] for row in rows], [row[-1:] for row in rows]]
    logits = [kv.read(model, step, logits_to_keep=1).logits[:, -1].float() for step in steps]
    return torch.stack(logits, dim=1).flatten(0, 1).log_softmax(-1)  # row after row, as `plain` is


def _plain(model: PreTrainedModel, row: Sequence[int]) -> Tensor:
    """[3, V] the same by one forward pass."""
    ids = torch.tensor([row], device=next(model.parameters()).device)
    logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits[0, -3:].float().log_softmax(-1)


def _refusal(model: PreTrainedModel, what: str) -> str:
    facts = facts_of(model.config)
    named = f"; its configuration says: {'; '.join(facts)}" if facts else ""
    return (
        f"`engine.name=transformers` cannot sample from {type(model).__name__}: with kept keys and values its rows are "
        f"not computed as whole sequences are ({what}){named}. Use `engine.name=vllm`, or another model"
    )
