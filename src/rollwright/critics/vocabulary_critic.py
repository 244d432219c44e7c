"""Token-level Q over the whole vocabulary, with V: the critic of ILQL and of Monte-Carlo returns (LMRL-Gym).

At the position before an action token the heads say what each token of the vocabulary is worth there, and what the
state is worth. Acting adds beta * Q to the logits of a frozen policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rollwright.batching import PackedBatch, Segment
from rollwright.critics.critic_body import cut_to, policy_body
from rollwright.critics.frozen_critic import FrozenCriticLearner
from rollwright.generation import KVRows
from rollwright.models import body_hidden, causal_lm, mark, marked, without_unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyQSettings:
    """`q_heads` heads over the vocabulary (2 for ILQL, 1 for Monte-Carlo), hidden `width`, where all values start."""

    q_heads: int = 2
    width: int = 256
    bias: float = 0.0


class VocabularyHeads(nn.Module):
    """Q heads over the vocabulary and one V head.

    The last layers are zero, so that acting with a new critic is acting with the policy. Ids that the policy `never`
    says [K] are no actions: the conservative term leaves them out.
    """

    def __init__(self, width: int, vocabulary: int, settings: VocabularyQSettings, never: Tensor | None = None) -> None:
        super().__init__()
        # A buffer that checkpoints leave out: it follows from the policy's tokenizer.
        mark(self, never)
        shape = settings.width, vocabulary, settings.bias
        self.q = nn.ModuleList(_head(width, *shape) for _ in range(settings.q_heads))
        self.v = _head(width, settings.width, 1, settings.bias)

    def forward(self, hidden: Tensor, tokens: Tensor, slots: Tensor | None = None) -> dict[str, Tensor]:
        """[U, d] states, [N] the token taken, [N] the state it was taken in (each its own where left out) -> "q"
        [heads, N] of that token, "v" [1, N], "cql" [heads, N], see `values.conservative_loss`."""
        slots = torch.arange(len(tokens), device=tokens.device) if slots is None else slots
        # The heads stay in float32: beta multiplies what Q is off by.
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.float()
            tables = torch.stack([head(hidden) for head in self.q])  # [heads, U, V]
            q = tables[:, slots, tokens]
            # The loss's sum over the vocabulary is made once per position: many tokens share one.
            cql = without_unknown(self, tables).logsumexp(dim=-1)[:, slots] - q
            return {"q": q, "cql": cql, "v": self.v(hidden)[slots, 0][None]}

    def smallest_q(self, hidden: Tensor) -> Tensor:
        """[B, d] hidden states -> [B, V] the smallest head's Q of each next token."""
        # The smallest: a token that one head overrates must not be acted on.
        return torch.stack([head(hidden.float()) for head in self.q]).min(dim=0).values


class VocabularyQ(nn.Module):
    """A transformer without a head, and Q and V on its hidden states. Trained as a whole, unless made of frozen parts.

    Args:
        body: whose output has `last_hidden_state`.
        scaling: what the heads see of it; None = the hidden states themselves.
    """

    def __init__(self, body: nn.Module, heads: VocabularyHeads, scaling: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.heads = body, heads
        self.scaling = scaling or nn.Identity()

    def forward(self, packed: PackedBatch) -> dict[str, Tensor]:
        """Of the N action tokens, see `VocabularyHeads`."""
        hidden = body_hidden(self.body, packed)  # type: ignore[arg-type]
        hidden = hidden.reshape(-1, hidden.shape[-1])[packed.gather]
        values: dict[str, Tensor] = self.heads(self.scaling(hidden), packed.targets, packed.slots)
        return values

    @torch.no_grad()
    def next_token_q(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """[B, V] the smallest head's Q of each next token after each sequence."""
        rows = _Reading(self.body)
        return self.smallest_q(rows.read([tuple(ids) for ids in sequences]))

    def smallest_q(self, hidden: Tensor) -> Tensor:
        """[B, d] hidden states of the body -> [B, V]."""
        return self.heads.smallest_q(self.scaling(hidden.float()))


def vocabulary_q(policy: nn.Module, settings: VocabularyQSettings, *, depth: float = 1.0) -> VocabularyQ:
    """A new critic that begins with a copy of the policy's own layers, the lower `depth` of them."""
    inner = causal_lm(policy)
    size = inner.config.get_text_config().vocab_size
    body = cut_to(policy_body(policy), depth)
    return VocabularyQ(body.module, VocabularyHeads(body.width, size, settings, marked(inner)))


class FrozenVocabularyLearner(FrozenCriticLearner):
    """Heads over the vocabulary on a body that never learns; what acts is made of the same parts."""

    heads: VocabularyHeads

    def values_of(self, heads: Any, hidden: Tensor, segments: Sequence[Segment]) -> dict[str, Tensor]:
        """Of the tokens that were taken, see `VocabularyHeads`."""
        # All action ids: segments come without masks here (see `token_steps`).
        tokens = torch.tensor([token for segment in segments for token in segment.action_ids], device=hidden.device)
        # One hidden state per token is cached, so each stands for itself and no slots are needed.
        values: dict[str, Tensor] = heads(hidden, tokens)
        return values

    @property
    def module(self) -> VocabularyQ:
        """The critic as it acts."""
        # Made of the very parts that train, so that acting follows every update without a copy.
        return VocabularyQ(self.body.module, self.heads, self.scaling)

    @property
    def slow(self) -> VocabularyQ:
        """The slow copy as it acts.

        Raises:
            ConfigError: there is none.
        """
        return VocabularyQ(self.body.module, self.slow_heads, self.scaling)  # type: ignore[arg-type]


def _head(width: int, inner: int, out: int, bias: float) -> nn.Sequential:
    last = nn.Linear(inner, out)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), last)


class _Reading:
    """A body that reads growing sequences: what it read last time is not read again where one token was added."""

    def __init__(self, body: nn.Module) -> None:
        self._body = body
        self._weights = -1
        self._rows: dict[tuple[int, ...], int] = {}
        self._kv: KVRows | None = None

    def read(self, sequences: Sequence[tuple[int, ...]]) -> Tensor:
        """[B, d] the hidden state after each sequence."""
        self._forget_older_weights()
        # A batch may ask for one state several times, such as siblings at their first token.
        distinct = list(dict.fromkeys(sequences))
        grown = [ids for ids in distinct if ids[:-1] in self._rows]
        fresh = [ids for ids in distinct if ids[:-1] not in self._rows]
        rows, kv, self._rows, self._kv = self._rows, self._kv, {}, None  # forgotten, should what follows fail
        hidden, caches = [], []
        if grown and kv is not None:
            caches.append(self._grown(grown, rows, kv))
            # Padding stands on the left, so the last column is each row's last token.
            hidden.append(caches[-1].read(self._body, [ids[-1:] for ids in grown]).last_hidden_state[:, -1])
        if fresh:
            caches.append(KVRows.empty(len(fresh), self._body.config.num_hidden_layers))  # type: ignore[union-attr, arg-type]
            hidden.append(caches[-1].read(self._body, fresh).last_hidden_state[:, -1])
        self._kv = caches[0] if len(caches) == 1 else caches[0].join(caches[1])
        self._rows = {ids: row for row, ids in enumerate([*grown, *fresh])}
        return torch.cat(hidden)[[self._rows[ids] for ids in sequences]]

    def _forget_older_weights(self) -> None:
        """Keys and values of other weights are worth nothing. In-place updates are counted by torch."""
        weights = sum(parameter._version for parameter in self._body.parameters())
        if weights != self._weights:
            self._weights, self._rows, self._kv = weights, {}, None

    def _grown(self, sequences: Sequence[tuple[int, ...]], rows: dict[tuple[int, ...], int], kv: KVRows) -> KVRows:
        """The rows that these sequences continue, in their order."""
        chosen = [rows[ids[:-1]] for ids in sequences]
        # Nobody came or went: no copy of the cache is made.
        return kv if chosen == list(range(len(rows))) else kv.select(chosen)


class Perturbation:
    """logits + beta * Q: how a Q over the vocabulary acts through a frozen policy. V would cancel in the softmax."""

    def __init__(self, *, critic: VocabularyQ, beta: float) -> None:
        self.critic, self.beta = critic, beta
        self._reading = _Reading(critic.body)

    @torch.no_grad()
    def __call__(self, sequences: Sequence[Sequence[int]], logits: Tensor) -> Tensor:
        """[B, V] logits after these sequences -> perturbed logits."""
        hidden = self._reading.read([tuple(ids) for ids in sequences])
        # float32: with a beta of 16 the sums are too large for bfloat16 to tell tokens apart.
        return logits.float() + self.beta * self.critic.smallest_q(hidden).to(logits.device)
