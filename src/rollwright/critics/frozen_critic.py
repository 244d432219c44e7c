"""Critics whose body never learns: every sequence is read once, and an update is one of small heads.

For machines on which the body is what takes the time. What the heads can tell apart is what the body already tells
apart, so a body that has seen the task (the supervised policy's) is the better one.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rollwright.batching import PackedBatch, Segment
from rollwright.contracts import ConfigError
from rollwright.critics.critic_body import CriticBody, hidden_at_ends
from rollwright.critics.critic_learner import PackedReader
from rollwright.critics.critic_targets import (
    ColumnLoss,
    Columns,
    HeadLoss,
    HeadTargets,
    loss_of_heads,
    rows_of_heads,
)
from rollwright.critics.turn_critic import TurnCriticSettings, ValueHeads, readings
from rollwright.learner import OptimiserSettings, Ranks, adamw, finite_norm, require_finite
from rollwright.maths import polyak_update

_MOST_BYTES = 2**30
"""Of hidden states that are kept; the oldest go first."""


class Scaling(nn.Module):
    """Hidden numbers less their mean and over their deviation, once both are known.

    Of the hidden numbers of a transformer a few are a hundred times the others.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("factor", torch.ones(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, d] -> [N, d] less their mean and over their deviation."""
        return (hidden - self.shift) * self.factor

    @torch.no_grad()
    def fix(self, hidden: Tensor) -> None:
        """Take mean and deviation of these, [N, d]."""
        mean = hidden.mean(dim=0)
        spread = (hidden - mean).square().mean(dim=0)
        # A number that hardly varies is no signal: it is not blown up.
        # 1e-12 is for a body whose numbers do not vary at all.
        self.shift, self.factor = mean, (spread + 1e-4 * spread.mean() + 1e-12).rsqrt()


class FrozenCriticLearner:
    """As `CriticLearner`, with a body that is only read with; the slow copy is one of the heads alone.

    The heads see each hidden number less its mean and over its deviation, as they were before the first update.

    With several ranks each reads its share, and all train the same heads on the same numbers. Checkpoints hold the
    hidden states too: read again in other batches they would differ in their last bits.

    Args:
        body: what is read with.
        heads: float32 values out of hidden states, as `values_of` calls them.
        polyak: how far the slow heads follow at each step; None = no slow heads.
        packing: as for `PackedReader`; a body of another tokenizer is always padded.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        body: CriticBody,
        heads: nn.Module,
        optimiser: OptimiserSettings,
        *,
        polyak: float | None = None,
        name: str = "critic",
        **packing: Any,
    ) -> None:
        self.accelerator, self.ranks, self.name, self.step = accelerator, Ranks(accelerator), name, 0
        self.body, self._optimiser_settings, self._polyak = body, optimiser, polyak
        self._reader = PackedReader(accelerator, **packing | ({"layout": "padded"} if body.foreign else {}))
        # Not prepared: nothing of it is trained, so each rank runs it whole and by itself.
        body.module.requires_grad_(False).eval().to(accelerator.device)
        self.scaling = Scaling(body.width).to(accelerator.device)
        self.heads = heads.to(accelerator.device)
        # The body never moves, so fast and slow differ in their heads alone.
        self._slow = None if polyak is None else copy.deepcopy(self.heads).requires_grad_(False)
        self._optimizer = adamw(self.heads, optimiser)
        self._hidden: dict[bytes, Tensor] = {}

    def values_of(self, heads: Any, hidden: Tensor, segments: Sequence[Segment]) -> dict[str, Tensor]:
        """[N, d] scaled hidden states before the action tokens of these segments -> name -> [heads, N]."""
        values: dict[str, Tensor] = heads(hidden)
        return values

    @property
    def slow_heads(self) -> nn.Module:
        """The slow copy.

        Raises:
            ConfigError: there is none.
        """
        if self._slow is None:
            raise ConfigError(f"the {self.name} has no slow copy: make it with polyak")
        return self._slow

    @torch.no_grad()
    def read_tokens(self, segments: Sequence[Segment], *, slow: bool = False) -> dict[str, Tensor]:
        """Values of every action token, in the flat order. -> name of the head -> [heads, N] float32 on the CPU.

        Raises:
            ConfigError: there are no slow heads.
        """
        heads = self.slow_heads if slow else self.heads
        values = self.values_of(heads, self.scaling(self.states(segments)), segments)
        return {name: rows.cpu() for name, rows in values.items()}

    def update_tokens(self, segments: Sequence[Segment], targets: Columns, loss: ColumnLoss) -> dict[str, float]:
        """One optimiser step of the heads on the mean loss over all action tokens; then the slow heads follow.

        Args:
            targets, loss: as for `CriticLearner.update_tokens`.

        Returns:
            `<name>/loss` and `<name>/grad_norm`.

        Raises:
            NonFiniteUpdate: loss or gradient is not finite; nothing has moved.
        """
        settings, states = self._optimiser_settings, self.states(segments)
        if not self.step:  # for good; all heads still say `bias` everywhere
            # Over everything that was read so far, and not over the first batch alone.
            self.scaling.fix(torch.cat(list(self._hidden.values())).to(states.device))
        values = self.values_of(self.heads, self.scaling(states), segments)
        mean = loss(values, {name: column.to(states.device) for name, column in targets.items()}).mean()
        require_finite(mean, what=f"{self.name} loss", step=self.step, accelerator=self.accelerator)
        self._optimizer.zero_grad()
        # All ranks hold all states and step alike, so there is no gradient to reduce.
        mean.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.heads.parameters(), settings.max_grad_norm)
        # Checked before the step: weights that are NaN could not be taken back.
        length = finite_norm(float(norm), name=self.name, step=self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.rate(self.step)
        self._optimizer.step()
        self.step += 1
        if self._slow is not None and self._polyak is not None:
            polyak_update(list(self._slow.parameters()), list(self.heads.parameters()), polyak=self._polyak)
        return {f"{self.name}/loss": float(mean.detach()), f"{self.name}/grad_norm": length}

    @torch.no_grad()
    def states(self, segments: Sequence[Segment]) -> Tensor:
        """[N, d] hidden states before the action tokens; those of unknown segments are read together."""
        keys = [_key(segment) for segment in segments]
        # A dict: a segment that comes twice is read once.
        missing = {key: s for key, s in zip(keys, segments, strict=True) if key not in self._hidden}
        if missing:
            columns = self._reader.read(self._compute, list(missing.values()))["hidden"]  # [d, M]
            lengths = [len(segment.action_ids) for segment in missing.values()]
            # Cut by segment, so that each can be found and forgotten by itself.
            self._hidden.update(zip(missing, columns.T.contiguous().split(lengths), strict=True))
        states = torch.cat([self._hidden[key] for key in keys]).to(self.accelerator.device)
        # After the states were taken: a batch above the bound would otherwise lose what it needs now.
        self._forget_the_oldest()
        return states

    def _forget_the_oldest(self) -> None:
        over = sum(rows.nbytes for rows in self._hidden.values()) - _MOST_BYTES
        # A dict keeps the order of insertion: the first keys are the oldest.
        for key in list(self._hidden) if over > 0 else []:
            over -= self._hidden.pop(key).nbytes
            if over <= 0:
                return

    def _compute(self, packed: PackedBatch) -> dict[str, Tensor]:
        states = hidden_at_ends(self.body.module, packed, foreign=self.body.foreign)
        # [d, N], since `PackedReader` wants one column per token.
        return {"hidden": states[packed.slots].T}

    def save_state(self, folder: Path) -> None:
        """Heads, optimiser, step count and the hidden states, in `<name>.pt`. All ranks call with the same folder."""
        keys = np.frombuffer(b"".join(self._hidden), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        known = list(self._hidden.values())
        state = {
            "step": self.step,
            "heads": self.heads.state_dict(),
            "slow": None if self._slow is None else self._slow.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaling": self.scaling.state_dict(),
            # Copied: the array is a read-only view of the bytes, which torch warns about.
            "keys": torch.from_numpy(keys.copy()),
            "lengths": torch.tensor([len(rows) for rows in known], dtype=torch.long),
            "hidden": torch.cat(known) if known else torch.zeros(0, self.body.width),
        }
        if self.ranks.first:
            torch.save(state, folder / f"{self.name}.pt")
        self.ranks.wait()

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote into a run folder of the user's own."""
        # The hidden states stay on the CPU, where they are kept; heads and optimiser are copied to where theirs are.
        state = torch.load(folder / f"{self.name}.pt", map_location="cpu", weights_only=True)
        self.step = int(state["step"])
        self.heads.load_state_dict(state["heads"])
        if self._slow is not None:
            self._slow.load_state_dict(state["slow"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.scaling.load_state_dict(state["scaling"])
        keys = [bytes(row) for row in state["keys"].numpy()]
        self._hidden = dict(zip(keys, state["hidden"].split(state["lengths"].tolist()), strict=True))


class FrozenValueLearner(FrozenCriticLearner):
    """As `ValueLearner`: sequences of ids in, values at their last token out.

    Args:
        settings: which heads.
        losses: name of the head -> its loss; the squared error where left out.
        more: as for `FrozenCriticLearner`.
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
        self.losses = dict(losses or {})
        super().__init__(accelerator, body, ValueHeads(body.width, settings), optimiser, **more)

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        """Values at the end of every sequence. -> name of the head -> [heads, N] float32 on the CPU.

        Raises:
            ConfigError: there are no slow heads. ValueError: an empty sequence.
        """
        return self.read_tokens(readings(self.body.own_ids(sequences)), slow=slow)

    def update(self, targets: HeadTargets, *, weights: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """One optimiser step on the sum over the heads of the mean loss over their rows; as `ValueLearner.update`."""
        sequences, columns = rows_of_heads(targets, weights)
        return self.update_tokens(readings(self.body.own_ids(sequences)), columns, partial(loss_of_heads, self.losses))


_KEY_BYTES = 16


def _key(segment: Segment) -> bytes:
    """Stands for prompt and action: thousands of long tuples would take more room than their hidden states."""
    # The prompt's length is part: the same ids cut at another place are another segment.
    whole = np.asarray([len(segment.prompt_ids), *segment.prompt_ids, *segment.action_ids], dtype=np.int64)
    return hashlib.blake2b(whole.tobytes(), digest_size=_KEY_BYTES).digest()
