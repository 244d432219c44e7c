"""Critics of whole states and whole actions: values read at the last token of a sequence of ids.

One module holds any number of named heads over one transformer body: V(s) is read at the last token of the prompt,
Q(s, a) at the last token of the action, the instruction's value at the last token of the first prompt. Ensembles are
several heads of one name. What a head is trained on is the caller's loss (`values`), not a property of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rollwright.batching import PackedBatch, Segment
from rollwright.critics.critic_body import CriticBody, hidden_at_ends


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCriticSettings:
    """Shape of a turn-level critic.

    heads: name -> how many of it (2 for double Q, 5 to 10 for an ensemble with subset-min).
    width: of the heads' hidden layer; 0 = linear heads. layer_norm: before it, for high update ratios (WSRL).
    bias: where all values start; near the mean return it spares the first updates a long way.
    """

    heads: Mapping[str, int] = field(default_factory=lambda: {"v": 2})
    width: int = 256
    layer_norm: bool = False
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not self.heads or any(count < 1 for count in self.heads.values()):
            raise ValueError(f"a turn critic needs at least one head of each name, got {dict(self.heads)}")


class ValueHeads(nn.ModuleDict):
    """Named ensembles of value heads. Every head begins by predicting `bias` everywhere: its last layer is zero."""

    def __init__(self, width: int, settings: TurnCriticSettings) -> None:
        counts = settings.heads.items()
        super().__init__({name: nn.ModuleList(_head(width, settings) for _ in range(n)) for name, n in counts})

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        """[U, d] hidden states -> name -> [heads, U] float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return {name: torch.stack([head(hidden)[:, 0] for head in heads]) for name, heads in self._named()}

    def _named(self) -> list[tuple[str, nn.ModuleList]]:
        return [(name, heads) for name, heads in self.items() if isinstance(heads, nn.ModuleList)]


class TurnCritic(nn.Module):
    """A transformer body of its own, and named ensembles of value heads."""

    def __init__(self, body: CriticBody, settings: TurnCriticSettings) -> None:
        super().__init__()
        self.body, self._foreign = body.module, body.foreign
        self.heads = ValueHeads(body.width, settings)

    def forward(self, packed: PackedBatch) -> dict[str, Tensor]:
        """Name -> [heads, N] float32 values at the end of each of the micro-batch's N sequences (see `reading`)."""
        values = self.heads(hidden_at_ends(self.body, packed, foreign=self._foreign))
        return {name: rows[:, packed.slots] for name, rows in values.items()}


def _head(width: int, settings: TurnCriticSettings) -> nn.Sequential:
    inner = settings.width or width
    last = nn.Linear(inner, 1)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, settings.bias)
    if not settings.width:
        return nn.Sequential(last)
    norm = [nn.LayerNorm(inner)] if settings.layer_norm else []
    return nn.Sequential(nn.Linear(width, inner), *norm, nn.SiLU(), last)


def reading(ids: Sequence[int], *, owner: int) -> Segment:
    """One place to read values at: the last of these ids.

    The packed batch predicts a dummy token after them, so equal prefixes of different readings (a state, and the same
    state with an action behind it) are forwarded once.

    Raises:
        ValueError: no ids.
    """
    if not ids:
        raise ValueError("a value is read at the last token of a sequence, and this sequence is empty")
    return Segment(
        prompt_ids=tuple(ids),
        action_ids=(int(ids[-1]),),
        action_mask=(True,),
        logprobs_sampled=(0.0,),
        advantages=(0.0,),
        sequence=owner,
    )


def readings(sequences: Sequence[Sequence[int]]) -> list[Segment]:
    """One `reading` per sequence."""
    return [reading(ids, owner=place) for place, ids in enumerate(sequences)]
