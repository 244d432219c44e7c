"""Token-level Q over the whole vocabulary, with V: the critic of ILQL and of Monte-Carlo returns (LMRL-Gym).

At the position before an action token the heads say what each token of the vocabulary is worth there, and what the
state is worth. Acting adds beta * Q to the logits of a frozen policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rollwright.batching import PackedBatch
from rollwright.scoring import body_hidden, causal_lm, last_hidden_at
from rollwright.weights import copied_body


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyQSettings:
    """`q_heads` heads over the vocabulary (2 for ILQL, 1 for Monte-Carlo), hidden `width`, where all values start."""

    q_heads: int = 2
    width: int = 256
    bias: float = 0.0


class VocabularyQ(nn.Module):
    """A transformer body of its own, started from the policy's weights, with Q heads and one V head.

    The last layers are zero, so that acting with a new critic is acting with the policy.
    """

    def __init__(self, policy: nn.Module, settings: VocabularyQSettings) -> None:
        super().__init__()
        config = causal_lm(policy).config.get_text_config()
        self.body = copied_body(policy)
        width, vocabulary = config.hidden_size, config.vocab_size
        self.q = nn.ModuleList(_head(width, settings.width, vocabulary, settings.bias) for _ in range(settings.q_heads))
        self.v = _head(width, settings.width, 1, settings.bias)

    def forward(self, packed: PackedBatch) -> dict[str, Tensor]:
        """Of the N action tokens: "q" [heads, N] of the token taken, "v" [1, N], "cql" [heads, N], see `values`."""
        hidden = body_hidden(self.body, packed)
        hidden = hidden.reshape(-1, hidden.shape[-1])[packed.gather]
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.float()
            tables = torch.stack([head(hidden) for head in self.q])  # [heads, U, V]
            q = tables[:, packed.slots, packed.targets]
            # `values.conservative_loss`, its sum over the vocabulary made once per position: many tokens share one.
            cql = tables.logsumexp(dim=-1)[:, packed.slots] - q
            return {"q": q, "cql": cql, "v": self.v(hidden)[packed.slots, 0][None]}

    @torch.no_grad()
    def next_token_q(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """[B, V] the smallest head's Q of each next token after each sequence.

        Runs over whole sequences: no keys and values are kept from one token to the next.
        """
        device = next(self.parameters()).device
        longest = max(map(len, sequences))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in sequences], device=device)
        mask = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in sequences], device=device)
        # Padding on the right needs no attention mask: causal attention never looks ahead.
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        last = last_hidden_at(hidden, mask).float()
        return torch.stack([head(last) for head in self.q]).min(dim=0).values


def _head(width: int, inner: int, out: int, bias: float) -> nn.Sequential:
    last = nn.Linear(inner, out)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """logits + beta * Q: how a Q over the vocabulary acts through a frozen policy. V would cancel in the softmax."""

    critic: VocabularyQ
    beta: float

    def __call__(self, sequences: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
        """[B, V] logits after these sequences -> perturbed logits."""
        return logits.float() + self.beta * self.critic.next_token_q(sequences).to(logits.device)
