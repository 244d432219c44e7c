"""Drawing one token per row, with the log-prob of the distribution that was really drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rollwright.generation.engine import Sampling


def draw(logits: Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]) -> tuple[Tensor, Tensor]:
    """One token for each row, by inverting the cumulative distribution.

    `torch.multinomial` is tens of times slower on CPU, and it draws from one stream for all rows; here a row's token
    depends on its own logits and its own uniform number only, whatever else is in the batch.

    Args:
        logits: [B, V], any float type.
        samplings: B settings. Temperature 0 takes the most likely token and reports the unscaled softmax.
        uniforms: B numbers in [0, 1).

    Returns:
        token ids [B] int64; their natural log-probs [B] float32 after temperature, top-k and top-p.
    """
    rows = logits.float()
    temperatures = torch.tensor([s.temperature or 1.0 for s in samplings], device=rows.device)
    if (temperatures != 1.0).any():
        rows = rows / temperatures[:, None]
    for index, sampling in enumerate(samplings):
        if sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1.0):
            rows[index] = restrict(rows[index], top_k=sampling.top_k, top_p=sampling.top_p)
    logprobs = rows.log_softmax(-1)  # [B, V]
    # float32 sums over a large vocabulary are off by more than the rare tokens' own probability.
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
    # The last sum is not exactly 1, so the uniform numbers are scaled to it.
    draws = torch.tensor(uniforms, dtype=torch.float64, device=rows.device)[:, None] * cumulative[:, -1:]
    # A product that is rounded up to the sum would lie behind the last token that has a probability.
    draws = draws.minimum(torch.nextafter(cumulative[:, -1:], torch.zeros_like(draws)))
    # right=True takes the first sum above the draw: a token of probability 0 adds nothing and is never taken.
    ids = torch.searchsorted(cumulative, draws, right=True).squeeze(-1).clamp_(max=rows.shape[-1] - 1)
    if any(s.temperature == 0 for s in samplings):
        greedy = torch.tensor([s.temperature == 0 for s in samplings], device=rows.device)
        ids = torch.where(greedy, rows.argmax(-1), ids)
    return ids, logprobs.gather(-1, ids[:, None]).squeeze(-1)


def restrict(logits: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Set to -inf what lies outside the `top_k` likeliest tokens (0: no limit) or the nucleus of mass `top_p`.

    Args:
        logits: [V] after temperature.

    Sources: arXiv:1904.09751 (nucleus sampling).
    """
    ordered, order = logits.sort(descending=True)
    kept = torch.ones_like(ordered, dtype=torch.bool)
    if top_k > 0:
        kept[top_k:] = False
    if top_p < 1.0:
        mass = ordered.masked_fill(~kept, float("-inf")).softmax(-1)  # of what top-k has left, as in vLLM
        kept &= mass.cumsum(-1) - mass < top_p  # the token that crosses the border belongs to the nucleus
    kept[0] = True  # top_p 0 would leave no token at all
    return torch.full_like(logits, float("-inf")).scatter(0, order[kept], ordered[kept])
