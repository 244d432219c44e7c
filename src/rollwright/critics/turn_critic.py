"""Critics of whole states and whole actions: values read at the last token of a sequence of ids.

One module holds any number of named heads over one transformer body: V(s) is read at the last token of the prompt,
Q(s, a) at the last token of the action, the instruction's value at the last token of the first prompt. Ensembles are
several heads of one name. What a head is trained on is the caller's loss (`values`), not a property of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rollwright.batching import PackedBatch, Segment
from rollwright.critics.critic_body import CriticBody, hidden_at_ends
from rollwright.critics.critic_learner import CriticLearner
from rollwright.critics.critic_targets import HeadLoss, HeadTargets, loss_of_heads, rows_of_heads
from rollwright.learner import OptimiserSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnCriticSettings:
    """Shape of a turn-level critic.

    heads: name -> how many of it (2 for double Q, 5 to 10 for an ensemble with subset-min).
    width: of the heads' hidden layer; 0 = linear heads. layer_norm: before it, for high update ratios (WSRL).
    bias: where all values start; near the mean return it spares the first updates a long way.
    deeper: widths of further hidden layers, after that of `width`; linear heads have none.
    """

    heads: Mapping[str, int] = field(default_factory=lambda: {"v": 2})
    width: int = 256
    layer_norm: bool = False
    bias: float = 0.0
    deeper: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.heads or any(count < 1 for count in self.heads.values()):
            raise ValueError(f"a turn critic needs at least one head of each name, got {dict(self.heads)}")
        if self.deeper and not self.width:
            raise ValueError(f"linear heads (width 0) have no further hidden layers, got {list(self.deeper)}")


class ValueHeads(nn.ModuleDict):
    """Named ensembles of value heads. Every head begins by predicting `bias` everywhere: its last layer is zero."""

    def __init__(self, width: int, settings: TurnCriticSettings) -> None:
        counts = settings.heads.items()
        super().__init__({name: nn.ModuleList(_head(width, settings) for _ in range(n)) for name, n in counts})

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        """[U, d] hidden states -> name -> [heads, U] float32."""
        # Heads stay in float32 inside the learner's autocast.
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
        # [heads, U] -> [heads, N]: one position may serve several readings.
        return {name: rows[:, packed.slots] for name, rows in values.items()}


def _head(width: int, settings: TurnCriticSettings) -> nn.Sequential:
    inner = settings.width or width
    last = nn.Linear(settings.deeper[-1] if settings.deeper else inner, 1)
    # Hidden layers differ, so the heads of an ensemble part as they learn; linear ones with one target stay alike.
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, settings.bias)
    if not settings.width:
        return nn.Sequential(last)
    norm = [nn.LayerNorm(inner)] if settings.layer_norm else []
    more: list[nn.Module] = []
    for before, after in pairwise((inner, *settings.deeper)):
        more += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(nn.Linear(width, inner), *norm, nn.SiLU(), *more, last)


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
        # Any id would do: it is never forwarded, and only the position before it is read.
        action_ids=(int(ids[-1]),),
        sequence=owner,
    )


def readings(sequences: Sequence[Sequence[int]]) -> list[Segment]:
    """One `reading` per sequence."""
    return [reading(ids, owner=place) for place, ids in enumerate(sequences)]


class ValueLearner(CriticLearner):
    """A critic of whole states and actions in training: sequences of ids in, values at their last token out.

    Args:
        body: what it reads with, trained with the heads.
        settings: which heads.
        losses: name of the head -> its loss; the squared error where left out.
        more: as for `CriticLearner`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        body: CriticBody,
        settings: TurnCriticSettings,
        optimiser: OptimiserSettings,
        *,
        losses: Mapping[str, HeadLoss] | None = None,
        **more: Any,
    ) -> None:
        self.body, self.losses = body, dict(losses or {})
        # A body that looks both ways would see the other branches of a shared row.
        apart = {"layout": "padded"} if body.foreign else {}
        super().__init__(accelerator, TurnCritic(body, settings), optimiser, **more | apart)

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        """Values at the end of every sequence. -> name of the head -> [heads, N] float32 on the CPU.

        Raises:
            ConfigError: there is no slow copy. ValueError: an empty sequence.
        """
        # Batches of a small world hold the same states many times: each is read once.
        distinct: dict[tuple[int, ...], int] = {}
        places = [distinct.setdefault(ids, len(distinct)) for ids in self.body.own_ids(sequences)]
        values = self.read_tokens(readings(list(distinct)), slow=slow)
        return {name: rows[:, places] for name, rows in values.items()}

    def update(self, targets: HeadTargets, *, weights: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """One optimiser step on the sum over the heads of the mean loss over their rows; see `update_tokens`.

        Args:
            targets: name of the head -> where it is read, and what it shall say there.
            weights: name of a head -> [n] what each of its rows counts; 1 where left out.
        """
        sequences, columns = rows_of_heads(targets, weights)
        return self.update_tokens(readings(self.body.own_ids(sequences)), columns, partial(loss_of_heads, self.losses))
