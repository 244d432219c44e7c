"""Off-policy critics in training: segments in, values out, one optimiser step per batch, Polyak targets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rollwright.batching import Layout, Segment
from rollwright.contracts import ConfigError
from rollwright.critics.critic_body import CriticBody
from rollwright.critics.packed_reader import PackedReader, places_of
from rollwright.critics.turn_critic import TurnCritic, TurnCriticSettings, readings
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

Readings = Mapping[str, Tensor]
"""Name of the head -> [heads, N] float32."""

ReadingLoss = Callable[[Readings, Tensor], Tensor]
"""(values of n action tokens with gradient, their places [n] in the flat order) -> one loss per token [n]."""


class TurnValues(Protocol):
    """A critic of whole states and actions, whatever of it learns."""

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        """Values at the end of every sequence. -> name of the head -> [heads, N] float32 on the CPU."""

    def update(self, sequences: Sequence[Sequence[int]], loss: ReadingLoss) -> dict[str, float]:
        """One optimiser step on the mean loss over all sequences. -> `<name>/loss` and `<name>/grad_norm`."""

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

    def update_tokens(self, segments: Sequence[Segment], loss: ReadingLoss) -> dict[str, float]:
        """One optimiser step on the mean loss over all action tokens. -> `<name>/loss` and `<name>/grad_norm`."""

    def save_state(self, folder: Path) -> None:
        """Write what a checkpoint needs."""

    def load_state(self, folder: Path) -> None:
        """Continue from it."""


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
            self._slow = copy.deepcopy(critic).requires_grad_(False).eval().to(accelerator.device)
        # What ZeRO-3 shards need not fit on one device before.
        critic = critic if self._zero_stage == 3 else critic.to(accelerator.device)
        self._fast = self._optimisation(critic, optimiser)

    def _optimisation(self, critic: nn.Module, settings: OptimiserSettings) -> Optimisation:
        if not self._zero_stage:
            return WholeOptimisation(self.accelerator, critic, settings, name=self.name)
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
        module = self.slow if slow else self._fast.prepared
        return self._reader.read(module, segments, autocast=self._casts(slow=slow))

    def update_tokens(self, segments: Sequence[Segment], loss: ReadingLoss) -> dict[str, float]:
        """One optimiser step on the mean loss over all action tokens; then the slow copy follows.

        Args:
            loss: called once per micro-batch; targets are found by the places it is given.

        Returns:
            `<name>/loss` and `<name>/grad_norm`.

        Raises:
            NonFiniteUpdate: loss or gradient is not finite; nothing has moved.
        """
        mine, averages = share(segments, rank=self.ranks.index, count=self.ranks.count), Averages()
        total = sum(len(segment.action_ids) for segment in segments)
        self._fast.begin(self.step)
        set_training(self._fast.prepared, True)
        try:
            self._backward(mine, places_of(segments, mine), total, loss, averages)
            self._fast.clip(self.step)
            norm = self._fast.move(self.step)
        except BaseException:
            self._fast.drop()
            raise
        finally:
            set_training(self._fast.prepared, False)
        self.step += 1
        self._follow()
        return {f"{self.name}/loss": sum(self.ranks.gather(averages.sums["loss"])), f"{self.name}/grad_norm": norm}

    def _backward(self, mine: Share, places: Tensor, total: int, loss: ReadingLoss, averages: Averages) -> None:
        """Add up the gradient of this rank's tokens; ranks with less to do go along with nothing."""
        packs = self._reader.pack(mine.segments)
        rounds, idle = max(self.ranks.gather(len(packs))), not mine.indices
        places = torch.zeros(len(mine.segments[0].action_ids), dtype=torch.long) if idle else places
        places = places.to(self.accelerator.device)
        for number in range(rounds):
            packed, counts = packs[number % len(packs)], not idle and number < len(packs)
            with self._fast.accumulating(number == rounds - 1):
                with self._reader.autocast() if self._casts() else nullcontext():
                    values = self._fast.prepared(packed)
                losses = loss(values, places[packed.entries])
                # Every head takes part in the graph, the unused ones with 0: distributed training waits for all.
                unused = torch.stack([rows.sum() * 0.0 for rows in values.values()]).sum()
                mean = losses.sum() / total * float(counts)
                require_finite(mean, what=f"{self.name} loss", step=self.step, accelerator=self.accelerator)
                self._fast.backward(mean * self.ranks.count + unused)  # gradients are averaged over the ranks
            averages.add({"loss": (float(mean.detach()), 0.0)})

    def _follow(self) -> None:
        if self._slow is None or self._polyak is None:
            return
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


class ValueLearner(CriticLearner):
    """A critic of whole states and actions (see `turn_critic`): sequences of ids in, values at their last token out.

    Args:
        body: what it reads with, trained with the heads.
        settings: which heads.
        more: as for `CriticLearner`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        body: CriticBody,
        settings: TurnCriticSettings,
        optimiser: OptimiserSettings,
        **more: Any,
    ) -> None:
        self.body = body
        apart = {"layout": "padded"} if body.foreign else {}
        super().__init__(accelerator, TurnCritic(body, settings), optimiser, **more | apart)

    def read(self, sequences: Sequence[Sequence[int]], *, slow: bool = False) -> dict[str, Tensor]:
        """Values at the end of every sequence. -> name of the head -> [heads, N] float32 on the CPU.

        Raises:
            ConfigError: there is no slow copy. ValueError: an empty sequence.
        """
        distinct: dict[tuple[int, ...], int] = {}
        places = [distinct.setdefault(ids, len(distinct)) for ids in self.body.own_ids(sequences)]
        values = self.read_tokens(readings(list(distinct)), slow=slow)
        return {name: rows[:, places] for name, rows in values.items()}

    def update(self, sequences: Sequence[Sequence[int]], loss: ReadingLoss) -> dict[str, float]:
        """One optimiser step on the mean loss over all sequences; places are their numbers. See `update_tokens`."""
        return self.update_tokens(readings(self.body.own_ids(sequences)), loss)
