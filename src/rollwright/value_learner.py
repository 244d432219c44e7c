"""A turn-level critic in training: readings in, values out, one optimiser step per batch, Polyak targets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rollwright.batching import Layout, PackedBatch, Segment, pack
from rollwright.errors import ConfigError
from rollwright.optimisation import Averages, Optimisation, OptimiserSettings, WholeOptimisation, require_finite
from rollwright.ranks import Ranks, Share, share
from rollwright.turn_critic import TurnCritic, TurnCriticSettings, reading
from rollwright.values import polyak_update
from rollwright.zero import ZeroOptimisation, zero_stage

Readings = Mapping[str, Tensor]
"""Name of the head -> [heads, N] float32."""

ReadingLoss = Callable[[Readings, Tensor], Tensor]
"""(values of n readings with gradient, their places [n] in the batch) -> one loss per reading [n]."""


class ValueLearner:
    """A critic with its optimiser, and its slow copy where targets are bootstrapped.

    With several ranks each calls every method with the same arguments and gets the same answer. The slow copy is kept
    whole on every rank, so it is refused under ZeRO-3, where the fast one is not whole anywhere.

    Args:
        policy: the model whose body the critic starts from; it is copied, never trained here.
        polyak: how far the slow copy follows at each step; None = no slow copy.
        token_budget, layout: see `batching.pack`.
        autocast_dtype: bfloat16 computes the body in it; heads stay in float32.

    Raises:
        ConfigError: a slow copy under ZeRO-3.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        policy: nn.Module,
        settings: TurnCriticSettings,
        optimiser: OptimiserSettings,
        *,
        polyak: float | None = None,
        token_budget: int = 4096,
        layout: Layout = "auto",
        autocast_dtype: torch.dtype | None = None,
        name: str = "critic",
    ) -> None:
        self.accelerator, self.ranks, self.name, self.step = accelerator, Ranks(accelerator), name, 0
        self._token_budget, self._layout, self._polyak = token_budget, layout, polyak
        self._zero_stage = zero_stage(accelerator)
        self._autocast_dtype = autocast_dtype
        if polyak is not None and self._zero_stage == 3:
            raise ConfigError(
                "a critic with Polyak targets needs its weights whole on each rank: use ZeRO-1 or ZeRO-2 for it"
            )
        critic = TurnCritic(policy, settings).to(accelerator.device)
        self._slow = copy.deepcopy(critic).requires_grad_(False).eval() if polyak is not None else None
        self._fast = self._optimisation(critic, optimiser)

    def _optimisation(self, critic: TurnCritic, settings: OptimiserSettings) -> Optimisation:
        if not self._zero_stage:
            return WholeOptimisation(self.accelerator, critic, settings, name=self.name)
        return ZeroOptimisation(self.accelerator, critic, settings, name=self.name, autocast_dtype=self._autocast_dtype)

    @torch.no_grad()
    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        """Values at the end of every sequence. -> name of the head -> [heads, N] float32 on the CPU.

        Args:
            slow: by the slow copy, for targets.

        Raises:
            ConfigError: there is no slow copy. ValueError: an empty sequence.
        """
        if slow and self._slow is None:
            raise ConfigError(f"the {self.name} has no slow copy: make it with polyak")
        module = self._slow if slow else self._fast.prepared
        assert module is not None
        mine = self._share(sequences)
        found: dict[int, dict[str, Tensor]] = {}
        packs = self._pack(mine.segments)
        for number in range(max(self.ranks.gather(len(packs)))):  # sharded layers are gathered by all ranks together
            packed = packs[number % len(packs)]
            with self._autocast():
                values = module(packed)
            for column, place in enumerate(packed.entries.tolist()):
                found[place] = {name: rows[:, column].float().cpu() for name, rows in values.items()}
        whole: dict[int, dict[str, Tensor]] = {}
        for part in self.ranks.gather({index: found[k] for k, index in enumerate(mine.indices)}):
            whole |= part
        rows = [whole[index] for index in range(len(sequences))]
        return {name: torch.stack([row[name] for row in rows], dim=1) for name in rows[0]}

    def update(self, sequences: Sequence[Sequence[int]], loss: ReadingLoss) -> dict[str, float]:
        """One optimiser step on the mean loss over all readings; then the slow copy follows.

        Args:
            loss: called once per micro-batch; targets are found by the places it is given.

        Returns:
            `<name>/loss` and `<name>/grad_norm`.

        Raises:
            NonFiniteUpdate: loss or gradient is not finite; nothing has moved.
        """
        mine, averages = self._share(sequences), Averages()
        self._fast.begin(self.step)
        self._fast.prepared.train(True)
        try:
            self._backward(mine, len(sequences), loss, averages)
            self._fast.clip(self.step)
            norm = self._fast.move(self.step)
        except BaseException:
            self._fast.drop()
            raise
        finally:
            self._fast.prepared.train(False)
        self.step += 1
        self._follow()
        return {f"{self.name}/loss": sum(self.ranks.gather(averages.sums["loss"])), f"{self.name}/grad_norm": norm}

    def _backward(self, mine: Share, total: int, loss: ReadingLoss, averages: Averages) -> None:
        """Add up the gradient of this rank's readings; ranks with less to do go along with nothing."""
        places = torch.tensor(mine.indices or [0], device=self.accelerator.device)
        packs = self._pack(mine.segments)
        rounds = max(self.ranks.gather(len(packs)))
        for number in range(rounds):
            packed, counts = packs[number % len(packs)], bool(mine.indices) and number < len(packs)
            with self._fast.accumulating(number == rounds - 1):
                with self._autocast():
                    values = self._fast.prepared(packed)
                losses = loss(values, places[packed.entries])
                # Every head takes part in the graph, the unused ones with 0: distributed training waits for all.
                unused = torch.stack([rows.sum() * 0.0 for rows in values.values()]).sum()
                mean = losses.sum() / total * float(counts)
                require_finite(mean, what=f"{self.name} loss", step=self.step, accelerator=self.accelerator)
                self._fast.backward(mean * self.ranks.count + unused)  # gradients are averaged over the ranks
            averages.add({"loss": (float(mean.detach()), 0.0)})

    def _follow(self) -> None:
        if self._slow is not None and self._polyak is not None:
            polyak_update(self._slow.parameters(), self._fast.module.parameters(), tau=self._polyak)

    def _share(self, sequences: Sequence[Sequence[int]]) -> Share:
        readings: list[Segment] = [reading(ids, owner=k) for k, ids in enumerate(sequences)]
        return share(readings, rank=self.ranks.index, count=self.ranks.count)

    def _pack(self, segments: Sequence[Segment]) -> list[PackedBatch]:
        packs = pack(segments, token_budget=self._token_budget, layout=self._layout)
        return [packed.to(self.accelerator.device) for packed in packs]

    def _autocast(self) -> AbstractContextManager[object]:
        if self._autocast_dtype is None or self._zero_stage:
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=self._autocast_dtype)

    def save_state(self, folder: Path) -> None:
        """Fast and slow weights, optimiser and step count of an unsharded critic, in `<name>.pt`.

        Under DeepSpeed the fast critic is one of accelerate's engines, which the policy's learner saves; here only the
        slow copy and the step are written.
        """
        state: dict[str, Any] = {"step": self.step, "slow": None if self._slow is None else self._slow.state_dict()}
        if not self._zero_stage:
            state["fast"] = self._fast.state_dict()
        if self.ranks.first:
            torch.save(state, folder / f"{self.name}.pt")
        self.ranks.wait()

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote into a run folder of the user's own."""
        state = torch.load(folder / f"{self.name}.pt", map_location=self.accelerator.device, weights_only=True)
        self.step = int(state["step"])
        if not self._zero_stage:
            self._fast.load_state_dict(state["fast"])
        if self._slow is not None:
            self._slow.load_state_dict(state["slow"])
