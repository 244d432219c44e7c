"""A prepared module with its optimiser, and the bookkeeping of an update: clipping, checks, averages, minibatches."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from rollwright.batching import TokenBatch
from rollwright.contracts import NonFiniteUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """AdamW with a linear warm-up, then a constant rate or one that falls to 0, and a bound on the gradient's norm.

    decay_steps: the rate falls linearly and reaches 0 after so many steps; 0 = it does not fall.
    """

    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0
    warmup_steps: int = 0
    decay_steps: int = 0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.max_grad_norm <= 0 or min(self.warmup_steps, self.decay_steps) < 0:
            raise ValueError(
                f"learning_rate and max_grad_norm must be positive, warmup_steps and decay_steps 0 or more, got {self}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0. A function of the step alone: nothing to restore."""
        # A run that goes on past decay_steps stays at 0 and does not become negative.
        left = max(0.0, 1.0 - step / self.decay_steps) if self.decay_steps else 1.0
        # Counted from 1 in the warm-up: step 0 already learns.
        return self.learning_rate * left * min(1.0, (step + 1) / max(1, self.warmup_steps))


class Optimisation(Protocol):
    """One trainable module with its optimiser. Made by the learner, for the policy and for each critic.

    name: in errors and metrics; module: as it was given; prepared: what must be called instead of it. A step is
    `begin`, then per micro-batch `backward` inside `accumulating`, then `clip` and `move`, or `drop`.
    """

    name: str
    module: nn.Module
    prepared: Any

    def begin(self, step: int) -> float:
        """Set and return the learning rate of this step."""

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch: gradients of all but the last may stay on their rank."""

    def backward(self, share: Tensor) -> None:
        """Add the gradient of one micro-batch's share of the loss."""

    def clip(self, step: int) -> None:
        """Raise `NonFiniteUpdate` if the norm is not finite, as far as that is known before `move`."""

    def move(self, step: int) -> float:
        """Step, and return the norm that the gradient had before it was clipped."""

    def drop(self) -> None:
        """Forget the gradient of a step that failed."""

    def state_dict(self) -> dict[str, Any]:
        """Trained parameters and optimiser state of an unsharded module, as live tensors: write or copy them."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""


class WholeOptimisation:
    """An `Optimisation` whose parameters are whole on every rank: one process, or DDP."""

    def __init__(self, accelerator: Accelerator, module: nn.Module, settings: OptimiserSettings, *, name: str) -> None:
        self.accelerator = accelerator
        self.module = module
        self.settings = settings
        self.name = name
        self._norm = 0.0
        self.prepared, self.optimizer = accelerator.prepare(module, adamw(module, settings))
        self.module.eval()

    def begin(self, step: int) -> float:
        """Set and return the learning rate of this step."""
        rate = self.settings.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Gradients of all micro-batches but the last stay on their rank."""
        # accelerate's optimiser steps and clears gradients only while this flag is set.
        self.accelerator.sync_gradients = last
        if last:
            yield
            return
        # DDP reduces in every backward pass unless told otherwise; one reduction per step is enough.
        with self.accelerator.no_sync(self.prepared):
            yield

    def backward(self, share: Tensor) -> None:
        """Add the gradient of one micro-batch's share of the loss."""
        self.accelerator.backward(share)

    def clip(self, step: int) -> None:
        """Scale the gradient to the allowed norm.

        Raises:
            NonFiniteUpdate: the norm is NaN or infinite; the weights are as before.
        """
        # accelerate's own function: under DDP and mixed precision it unscales and reduces before it measures.
        norm = self.accelerator.clip_grad_norm_(trained_parameters(self.module), self.settings.max_grad_norm)
        assert norm is not None
        self._norm = finite_norm(float(norm), name=self.name, step=step)

    def drop(self) -> None:
        """Forget the gradient of a step that failed."""
        # Between micro-batches accelerate's optimiser ignores zero_grad.
        self.accelerator.sync_gradients = True
        self.optimizer.zero_grad()

    def move(self, step: int) -> float:
        """Step, and return the norm that the gradient had before it was clipped."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self._norm

    def state_dict(self) -> dict[str, Any]:
        """Trained parameters and optimiser state of an unsharded module, as live tensors: write or copy them."""
        # With LoRA the frozen base is left out: a resumed run has it from the model that it starts with.
        weights = {n: p.detach() for n, p in self.module.named_parameters() if p.requires_grad}
        return {"weights": weights, "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the parameters are not those of this module.
        """
        mine = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        if set(mine) != set(state["weights"]):
            odd = sorted(set(mine) ^ set(state["weights"]))[:3]
            raise ValueError(f"the saved {self.name} has other trained parameters than this one, for example {odd}")
        for name, parameter in mine.items():
            # In place: the optimiser and DDP hold these very tensors.
            parameter.copy_(state["weights"][name])
        # The optimiser would go on in the very tensors it is given.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


def set_training(prepared: nn.Module, training: bool, *, dropout: bool = False) -> None:
    """Training mode for an update, or evaluation mode.

    Transformers compute in an update what they compute when they sample and score: no dropout, no dropped layers, no
    noise in a router, unless `dropout` asks for what their configuration names. The dropout of a LoRA adapter is a key
    of its own and stays on. Our own heads and the wrappers of a distributed run are in training mode.
    """
    prepared.train(training)
    if not training or dropout:
        return
    # Only the transformer goes back to evaluation mode: our heads and the wrappers of a distributed run do not.
    for module in prepared.modules():
        if isinstance(module, PreTrainedModel):
            module.eval()
    for name, module in prepared.named_modules():
        if "lora_dropout" in name.split("."):
            module.train()


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Those that have a gradient; with LoRA the adapter's alone."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def adamw(module: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """The optimiser of a module's trained parameters."""
    return torch.optim.AdamW(
        trained_parameters(module),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )


def finite_norm(norm: float, *, name: str, step: int) -> float:
    """The norm, if it is one.

    Raises:
        NonFiniteUpdate: it is NaN or infinite.
    """
    if not math.isfinite(norm):
        raise NonFiniteUpdate(
            f"step {step}: the gradient norm of the {name} is {norm}; the optimiser has not moved. Look for "
            "infinite advantages or log-probs, or lower the learning rate"
        )
    return norm


def require_finite(share: Tensor, *, what: str, step: int, accelerator: Accelerator) -> None:
    """All ranks stop together if the loss of any of them is not finite.

    Raises:
        NonFiniteUpdate: it is NaN or infinite; the optimiser has not moved.
    """
    share = share.detach()
    # A rank that stopped alone would leave the others waiting in their next collective call.
    broken = accelerator.reduce((~share.isfinite()).float(), reduction="sum")
    if float(broken) > 0:
        raise NonFiniteUpdate(
            f"step {step}: the {what} is {float(share):g} on rank {accelerator.process_index} (not finite on "
            f"{int(broken)} of {accelerator.num_processes}); the optimiser has not moved. Look for non-finite "
            "advantages, returns or log-probs in this batch"
        )


@dataclass(slots=True)
class Averages:
    """Sums and counts of metrics over micro-batches; `reduce` adds ranks and divides."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def add(self, pairs: Mapping[str, tuple[Tensor | float, Tensor | float]]) -> None:
        """Count in the sums and counts of a micro-batch, by name of the metric."""
        for name, (total, count) in pairs.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(total)
            self.counts[name] = self.counts.get(name, 0.0) + float(count)

    def reduce(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean of every metric over all ranks, which must have added the same names. 0 where nothing was counted."""
        # Sorted, so that a row of the table is the same metric on every rank.
        names = sorted(self.sums)
        # Sums and counts travel apart: a mean of ranks' means would weigh a rank with few tokens too much.
        table = torch.tensor([[self.sums[n], self.counts[n]] for n in names], dtype=torch.float64)
        if accelerator.num_processes > 1:
            table = accelerator.reduce(table.to(accelerator.device), reduction="sum").cpu()
        return {name: float(total / max(count, 1e-30)) for name, (total, count) in zip(names, table, strict=True)}


def split_minibatches(batch: TokenBatch, count: int, order: random.Random) -> list[TokenBatch]:
    """Shuffle whole sequences into `count` parts of like size; fewer if there are fewer sequences; one is not shuffled.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"an update needs at least one minibatch, got {count}")
    # One gradient does not depend on the order, and a batch that is not cut keeps its groups.
    if count == 1:
        return [batch]
    turns_of: dict[int, list[int]] = {}
    for turn, sequence in enumerate(batch.trajectory_index.tolist()):
        turns_of.setdefault(sequence, []).append(turn)
    names = list(turns_of)
    # Sequences and not turns: a sequence that is cut would count in the mean over sequences of two steps.
    order.shuffle(names)
    # Every count-th sequence: parts differ by one sequence at most, and no part is empty unless there are too few.
    parts = [[turn for name in names[k::count] for turn in turns_of[name]] for k in range(count)]
    return [batch.select_turns(part) for part in parts if part]
