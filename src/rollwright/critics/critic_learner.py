"""Off-policy critics in training: segments in, values out, one optimiser step per batch, Polyak targets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rollwright.batching import CostModel, Layout, PackedBatch, Segment, pack, pays_on
from rollwright.contracts import ConfigError
from rollwright.critics.critic_targets import ColumnLoss, Columns, HeadTargets
from rollwright.learner import (
    Averages,
    Optimisation,
    OptimiserSettings,
    Ranks,
    Share,
    WholeOptimisation,
    ZeroOptimisation,
    gathered,
    require_finite,
    set_training,
    share,
    zero_stage,
)
from rollwright.maths import polyak_update


class TurnValues(Protocol):
    """A critic of whole states and actions, whatever of it learns."""

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        """Values at the end of every sequence. -> name of the head -> [heads, N] float32 on the CPU."""

    def update(self, targets: HeadTargets, *, weights: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """One optimiser step on the sum of the heads' mean losses. -> `<name>/loss` and `<name>/grad_norm`."""

    def save_state(self, folder: Path) -> None:
        """Write what a checkpoint needs."""

    def load_state(self, folder: Path) -> None:
        """Continue from it."""


class TokenValues(Protocol):
    """A critic of action tokens, whatever of it learns."""

    @property
    def module(self) -> nn.Module:
        """The critic itself."""

    @property
    def slow(self) -> nn.Module:
        """Its slow copy. Raises ConfigError where there is none."""

    def read_tokens(self, segments: Sequence[Segment], *, slow: bool = False) -> dict[str, Tensor]:
        """Values of every action token, in the flat order. -> name of the head -> [heads, N] float32 on the CPU."""

    def update_tokens(self, segments: Sequence[Segment], targets: Columns, loss: ColumnLoss) -> dict[str, float]:
        """One optimiser step on the mean loss over all action tokens. -> `<name>/loss` and `<name>/grad_norm`."""

    def save_state(self, folder: Path) -> None:
        """Write what a checkpoint needs."""

    def load_state(self, folder: Path) -> None:
        """Continue from it."""


Computes = Callable[[PackedBatch], dict[str, Tensor]]
"""A packed micro-batch -> name -> [rows, N], one column per action token of it."""


class PackedReader:
    """Packs segments for one device and runs a module over them.

    Args:
        token_budget, layout: see `batching.pack`.
        autocast_dtype: bfloat16 computes in it; None as the weights are.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        *,
        token_budget: int = 4096,
        layout: Layout = "auto",
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        self.accelerator, self.ranks = accelerator, Ranks(accelerator)
        self.token_budget, self.layout, self.autocast_dtype = token_budget, layout, autocast_dtype

    @torch.no_grad()
    def read(self, computes: Computes, segments: Sequence[Segment], *, autocast: bool = True) -> dict[str, Tensor]:
        """What the module says of every action token, in the flat order. -> name -> [rows, N] float32 on the CPU."""
        mine = share(segments, rank=self.ranks.index, count=self.ranks.count)
        chosen = [segments[turn] for turn in mine.turns]
        packs = self.pack(chosen)
        total = sum(segment.num_tokens for segment in chosen)
        columns: dict[str, Tensor] = {}
        for number in range(max(self.ranks.gather(len(packs)))):  # sharded layers are gathered by all ranks together
            # A pack that is read again gives the same numbers in the same places.
            packed = packs[number % len(packs)]
            with self.autocast() if autocast else nullcontext():
                values = computes(packed)
            for name, rows in values.items():
                whole = columns.setdefault(name, torch.zeros(len(rows), total))
                whole[:, packed.entries.cpu()] = rows.float().cpu()
        return self._collect(columns, segments, mine)

    def _collect(self, columns: dict[str, Tensor], segments: Sequence[Segment], mine: Share) -> dict[str, Tensor]:
        """The columns of all ranks in the flat order of the whole batch."""
        # Its flat order is that of the whole batch already.
        if self.ranks.count == 1:
            return columns
        places = places_of(segments, mine)
        total = sum(segment.num_tokens for segment in segments)
        result = {name: torch.zeros(len(rows), total) for name, rows in columns.items()}
        for where, part in self.ranks.gather((places, columns)):
            for name, rows in part.items():
                result[name][:, where] = rows[:, : len(where)]  # a stand-in's columns belong nowhere
        return result

    def pack(self, segments: Sequence[Segment]) -> list[PackedBatch]:
        """Micro-batches on the accelerator's device."""
        # Where attention by blocks runs, branches do not pay for each other, so that sharing pays more often.
        costs = CostModel(dense=not pays_on(self.accelerator.device))
        packs = pack(segments, token_budget=self.token_budget, layout=self.layout, costs=costs)
        return [packed.to(self.accelerator.device) for packed in packs]

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that is computed in."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=self.autocast_dtype)


class CriticLearner:
    """A critic with its optimiser, and its slow copy where targets are bootstrapped.

    The critic is any module that maps a packed micro-batch to named values of its action tokens. With several ranks
    each calls every method with the same arguments and gets the same answer. The slow copy is kept whole on every rank;
    under ZeRO-3, where the fast one is not, it follows parameter by parameter.

    Args:
        critic: its forward takes a `PackedBatch` and returns name -> [heads, N].
        polyak: how far the slow copy follows at each step; None = no slow copy.
        token_budget, layout: see `batching.pack`.
        autocast_dtype: bfloat16 computes the body in it; heads stay in float32.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        critic: nn.Module,
        optimiser: OptimiserSettings,
        *,
        polyak: float | None = None,
        token_budget: int = 4096,
        layout: Layout = "auto",
        autocast_dtype: torch.dtype | None = None,
        name: str = "critic",
    ) -> None:
        self.accelerator, self.ranks, self.name, self.step = accelerator, Ranks(accelerator), name, 0
        self._polyak, self._zero_stage = polyak, zero_stage(accelerator)
        self._reader = PackedReader(
            accelerator, token_budget=token_budget, layout=layout, autocast_dtype=autocast_dtype
        )
        self._slow = None
        if polyak is not None:
            # Copied before the critic is wrapped or sharded.
            self._slow = copy.deepcopy(critic).requires_grad_(False).eval().to(accelerator.device)
        # What ZeRO-3 shards need not fit on one device before.
        critic = critic if self._zero_stage == 3 else critic.to(accelerator.device)
        self._fast = self._optimisation(critic, optimiser)

    def _optimisation(self, critic: nn.Module, settings: OptimiserSettings) -> Optimisation:
        if not self._zero_stage:
            return WholeOptimisation(self.accelerator, critic, settings, name=self.name)
        # apart: this class writes its own state, and accelerate would write the engine a second time.
        return ZeroOptimisation(
            self.accelerator, critic, settings, name=self.name, autocast_dtype=self._reader.autocast_dtype, apart=True
        )

    @property
    def module(self) -> nn.Module:
        """The critic itself, as it was given."""
        return self._fast.module

    @property
    def slow(self) -> nn.Module:
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

        Args:
            slow: by the slow copy, for targets.

        Raises:
            ConfigError: there is no slow copy.
        """
        # The slow copy is never wrapped: it has no gradient to share between ranks.
        module = self.slow if slow else self._fast.prepared
        return self._reader.read(module, segments, autocast=self._casts(slow=slow))

    def update_tokens(self, segments: Sequence[Segment], targets: Columns, loss: ColumnLoss) -> dict[str, float]:
        """One optimiser step on the mean loss over all action tokens; then the slow copy follows.

        Args:
            targets: a column of N entries, in the flat order, for everything that the loss reads besides values.
            loss: called once per micro-batch, with the columns at its tokens.

        Returns:
            `<name>/loss` and `<name>/grad_norm`.

        Raises:
            NonFiniteUpdate: loss or gradient is not finite; nothing has moved.
        """
        mine, averages = share(segments, rank=self.ranks.index, count=self.ranks.count), Averages()
        total = sum(segment.num_tokens for segment in segments)
        self._fast.begin(self.step)
        set_training(self._fast.prepared, True)
        try:
            own, places = [segments[turn] for turn in mine.turns], places_of(segments, mine)
            self._backward(own, places, total, targets, loss, averages)
            self._fast.clip(self.step)
            norm = self._fast.move(self.step)
        # Ctrl-C included: the gradient of a step that was given up must not leak into the next one.
        except BaseException:
            self._fast.drop()
            raise
        finally:
            set_training(self._fast.prepared, False)
        self.step += 1
        self._follow()
        # Added and not averaged: each rank's number is its share of the mean.
        return {f"{self.name}/loss": sum(self.ranks.gather(averages.sums["loss"])), f"{self.name}/grad_norm": norm}

    def _backward(
        self,
        mine: Sequence[Segment],
        places: Tensor,
        total: int,
        targets: Columns,
        loss: ColumnLoss,
        averages: Averages,
    ) -> None:
        """Add up the gradient of this rank's tokens; ranks with less to do go along with nothing."""
        packs = self._reader.pack(mine)
        rounds, idle = max(self.ranks.gather(len(packs))), not len(places)
        # An idle rank's stand-in needs some columns to run on; it counts with 0.
        places = torch.zeros(mine[0].num_tokens, dtype=torch.long) if idle else places
        device = self.accelerator.device
        places, columns = places.to(device), {name: column.to(device) for name, column in targets.items()}
        for number in range(rounds):
            packed, counts = packs[number % len(packs)], not idle and number < len(packs)
            with self._fast.accumulating(number == rounds - 1):
                with self._reader.autocast() if self._casts() else nullcontext():
                    values = self._fast.prepared(packed)
                # From the flat order of this rank's turns to that of the whole batch, which the targets have.
                here = places[packed.entries]
                losses = loss(values, {name: column[..., here] for name, column in columns.items()})
                # Every head takes part in the graph, the unused ones with 0: distributed training waits for all.
                unused = torch.stack([rows.sum() * 0.0 for rows in values.values()]).sum()
                # `total` counts the tokens of all ranks, so the shares add up to the mean over all of them.
                mean = losses.sum() / total * float(counts)
                require_finite(mean, what=f"{self.name} loss", step=self.step, accelerator=self.accelerator)
                self._fast.backward(mean * self.ranks.count + unused)  # gradients are averaged over the ranks
            averages.add({"loss": (float(mean.detach()), 0.0)})

    def _follow(self) -> None:
        if self._slow is None or self._polyak is None:
            return
        # One parameter at a time: under ZeRO-3 the fast critic is never whole at once.
        for target, source in zip(self._slow.parameters(), self._fast.module.parameters(), strict=True):
            with gathered([source]):
                polyak_update([target], [source], polyak=self._polyak)

    def _casts(self, *, slow: bool = False) -> bool:
        return slow or not self._zero_stage  # DeepSpeed's engines have their precision inside

    def save_state(self, folder: Path) -> None:
        """Fast and slow weights, optimiser and step count, in `<name>.pt`.

        Under DeepSpeed the fast critic and its optimiser lie beside it in the folder `<name>`, cut as the ranks hold
        them. All ranks call with the same folder.
        """
        # The slow copy is whole on every rank, also where the fast critic is sharded.
        state: dict[str, Any] = {"step": self.step, "slow": None if self._slow is None else self._slow.state_dict()}
        if isinstance(self._fast, ZeroOptimisation):
            self._fast.save(folder)
        else:
            state["fast"] = self._fast.state_dict()
        if self.ranks.first:
            torch.save(state, folder / f"{self.name}.pt")
        self.ranks.wait()

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote into a run folder of the user's own."""
        state = torch.load(folder / f"{self.name}.pt", map_location=self.accelerator.device, weights_only=True)
        self.step = int(state["step"])
        if isinstance(self._fast, ZeroOptimisation):
            self._fast.load(folder)
        else:
            self._fast.load_state_dict(state["fast"])
        if self._slow is not None:
            self._slow.load_state_dict(state["slow"])


def places_of(segments: Sequence[Segment], mine: Share) -> Tensor:
    """[n] places of this rank's action tokens in the flat order of the whole batch."""
    lengths = torch.tensor([segment.num_tokens for segment in segments])
    # Scored tokens and not action ids: masked ones have no entry.
    starts = lengths.cumsum(0) - lengths
    parts = [torch.arange(int(starts[i]), int(starts[i] + lengths[i])) for i in mine.own]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
