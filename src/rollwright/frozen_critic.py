"""A turn-level critic whose body never learns: every sequence is read once, and an update is one of small heads.

For machines on which the body is what takes the time. What the heads can tell apart is what the body already tells
apart, so a body that has seen the task (the supervised policy's) is the better one.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from rollwright.batching import PackedBatch
from rollwright.critic_body import CriticBody, Ids, hidden_at_ends
from rollwright.errors import ConfigError
from rollwright.optimisation import OptimiserSettings, adamw, finite_norm, require_finite
from rollwright.packed_reader import PackedReader
from rollwright.ranks import Ranks
from rollwright.turn_critic import TurnCriticSettings, ValueHeads, readings
from rollwright.value_learner import ReadingLoss
from rollwright.values import polyak_update

_MOST_BYTES = 2**30
"""Of hidden states that are kept; the oldest go first."""


class FrozenValueLearner:
    """As `ValueLearner`, with a body that is only read with; the slow copy is one of the heads alone.

    The heads see each hidden number less its mean and over its deviation, as they were before the first update.

    With several ranks each reads its share, and all train the same heads on the same numbers. Checkpoints hold the
    hidden states too: read again in other batches they would differ in their last bits.

    Args:
        body: what is read with.
        settings: which heads.
        polyak: how far the slow heads follow at each step; None = no slow heads.
        packing: as for `PackedReader`; a body of another tokenizer is always padded, heads are float32.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        body: CriticBody,
        settings: TurnCriticSettings,
        optimiser: OptimiserSettings,
        *,
        polyak: float | None = None,
        name: str = "critic",
        **packing: Any,
    ) -> None:
        self.accelerator, self.ranks, self.name, self.step = accelerator, Ranks(accelerator), name, 0
        self.body, self._optimiser_settings, self._polyak = body, optimiser, polyak
        self._reader = PackedReader(accelerator, **packing | ({"layout": "padded"} if body.foreign else {}))
        body.module.requires_grad_(False).eval().to(accelerator.device)
        self.heads = ValueHeads(body.width, settings).to(accelerator.device)
        self._slow = None if polyak is None else copy.deepcopy(self.heads).requires_grad_(False)
        self._optimizer = adamw(self.heads, optimiser)
        self._hidden: dict[bytes, Tensor] = {}
        # Of the hidden numbers of a transformer a few are a hundred times the others.
        self._scale = torch.tensor([[0.0], [1.0]], device=accelerator.device).expand(2, body.width)

    @torch.no_grad()
    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        """Values at the end of every sequence. -> name of the head -> [heads, N] float32 on the CPU.

        Raises:
            ConfigError: there are no slow heads. ValueError: an empty sequence.
        """
        heads = self._slow if slow else self.heads
        if heads is None:
            raise ConfigError(f"the {self.name} has no slow copy: make it with polyak")
        return {name: rows.cpu() for name, rows in heads(self._scaled(self._states(sequences))).items()}

    def update(self, sequences: Sequence[Sequence[int]], loss: ReadingLoss) -> dict[str, float]:
        """One optimiser step of the heads on the mean loss over all sequences; places are their numbers.

        Returns:
            `<name>/loss` and `<name>/grad_norm`.

        Raises:
            NonFiniteUpdate: loss or gradient is not finite; nothing has moved.
        """
        settings, states = self._optimiser_settings, self._states(sequences)
        if not self.step:
            self._fix_scale()
        mean = loss(self.heads(self._scaled(states)), torch.arange(len(states), device=states.device)).mean()
        require_finite(mean, what=f"{self.name} loss", step=self.step, accelerator=self.accelerator)
        self._optimizer.zero_grad()
        mean.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.heads.parameters(), settings.max_grad_norm)
        length = finite_norm(float(norm), name=self.name, step=self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = settings.rate(self.step)
        self._optimizer.step()
        self.step += 1
        if self._slow is not None and self._polyak is not None:
            polyak_update(list(self._slow.parameters()), list(self.heads.parameters()), tau=self._polyak)
        return {f"{self.name}/loss": float(mean.detach()), f"{self.name}/grad_norm": length}

    @torch.no_grad()
    def _states(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """[N, d] hidden states at the ends; those that are not known yet are read together."""
        keyed = [(_key(ids), ids) for ids in self.body.own_ids(sequences)]
        missing = {key: ids for key, ids in keyed if key not in self._hidden}
        if missing:
            columns = self._reader.read(self._compute, readings(list(missing.values())))["hidden"]  # [d, M]
            self._hidden.update(zip(missing, columns.T.contiguous(), strict=True))
        states = torch.stack([self._hidden[key] for key, _ in keyed]).to(self.accelerator.device)
        for key in list(islice(self._hidden, max(0, len(self._hidden) - _MOST_BYTES // (4 * self.body.width)))):
            del self._hidden[key]
        return states

    @torch.no_grad()
    def _fix_scale(self) -> None:
        """For good, by what has been read before the first update (when all heads still say `bias` everywhere)."""
        known = torch.stack(list(self._hidden.values())).to(self.accelerator.device)
        mean = known.mean(dim=0)
        spread = (known - mean).square().mean(dim=0)
        # A number that hardly varies is no signal: it is not blown up.
        self._scale = torch.stack([mean, (spread + 1e-4 * spread.mean() + 1e-12).rsqrt()])

    def _scaled(self, states: Tensor) -> Tensor:
        return (states - self._scale[0]) * self._scale[1]

    def _compute(self, packed: PackedBatch) -> dict[str, Tensor]:
        states = hidden_at_ends(self.body.module, packed, foreign=self.body.foreign)
        return {"hidden": states[packed.slots].T}

    def save_state(self, folder: Path) -> None:
        """Heads, optimiser, step count and the hidden states, in `<name>.pt`. All ranks call with the same folder."""
        keys = np.frombuffer(b"".join(self._hidden), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        known = torch.stack(list(self._hidden.values())) if self._hidden else torch.zeros(0, self.body.width)
        state = {
            "step": self.step,
            "heads": self.heads.state_dict(),
            "slow": None if self._slow is None else self._slow.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scale": self._scale.cpu().clone(),
            "keys": torch.from_numpy(keys.copy()),
            "hidden": known,
        }
        if self.ranks.first:
            torch.save(state, folder / f"{self.name}.pt")
        self.ranks.wait()

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote into a run folder of the user's own."""
        state = torch.load(folder / f"{self.name}.pt", map_location="cpu", weights_only=True)
        self.step = int(state["step"])
        self.heads.load_state_dict(state["heads"])
        if self._slow is not None:
            self._slow.load_state_dict(state["slow"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scale = state["scale"].to(self.accelerator.device)
        keys = [bytes(row) for row in state["keys"].numpy()]
        self._hidden = dict(zip(keys, state["hidden"], strict=True))


_KEY_BYTES = 16


def _key(ids: Ids) -> bytes:
    """Stands for the sequence: thousands of long tuples would take more room than their hidden states."""
    return hashlib.blake2b(np.asarray(ids, dtype=np.int64).tobytes(), digest_size=_KEY_BYTES).digest()
