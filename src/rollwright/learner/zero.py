"""DeepSpeed ZeRO: one engine per trained module, and a frozen module sharded beside them.

Each module has an engine of its own, so that it has its own gradient norm, its own clipping and its own steps: a critic
may be fitted while the policy stands still. An engine is driven directly, since accelerate's `backward` knows only the
first one that was prepared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from rollwright.contracts import ConfigError
from rollwright.learner.optimisation import OptimiserSettings, adamw, finite_norm

_TAG = "state"  # DeepSpeed keeps many states in one folder, each under a tag; here there is one


def zero_stage(accelerator: Accelerator) -> int:
    """0 without DeepSpeed, else the ZeRO stage: 1 shards optimiser states, 2 gradients too, 3 parameters too."""
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return 0
    return int(accelerator.state.deepspeed_plugin.zero_stage)


class InPrecision(nn.Module):
    """Runs a module under autocast from within: DeepSpeed switches off what is set around its engine."""

    def __init__(self, module: nn.Module, device_type: str, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.module = module
        self._device_type, self._dtype = device_type, dtype

    def forward(self, *inputs: Any) -> Any:
        """What the module gives, computed in the precision."""
        with torch.autocast(self._device_type, dtype=self._dtype, enabled=self._dtype is not None):
            return self.module(*inputs)


class ZeroOptimisation:
    """One trainable module with its DeepSpeed engine. The same contract as `optimisation.Optimisation`.

    Args:
        apart: keep it out of what accelerate saves and loads; `save` and `load` are for it then.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        settings: OptimiserSettings,
        *,
        name: str,
        autocast_dtype: torch.dtype | None = None,
        apart: bool = False,
    ) -> None:
        self.accelerator, self.module, self.settings, self.name = accelerator, module, settings, name
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        # One config serves all engines: each module writes its own norm into it before its engine is made.
        config["gradient_clipping"] = settings.max_grad_norm
        _complete(config, accelerator)
        # accelerate remembers the first engine for a `backward` that is not used here, and warns of a second.
        accelerator.deepspeed_engine_wrapped = None
        wrapped = InPrecision(module, accelerator.device.type, autocast_dtype)
        self.prepared, self.optimizer = accelerator.prepare(wrapped, adamw(module, settings))
        if apart:  # else accelerate would write it, and put back only what was there when a run was resumed
            accelerator._models.remove(self.prepared)
        self._last = True
        self.module.eval()

    def begin(self, step: int) -> float:
        """Set and return the learning rate of this step."""
        rate = self.settings.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Around forward and backward of a micro-batch: whether the next `move` may follow it."""
        self._last = last
        # DeepSpeed would count micro-batches against a fixed number; here it differs from step to step.
        self.prepared.set_gradient_accumulation_boundary(last)
        yield

    def backward(self, share: Tensor) -> None:
        """Add the gradient of one micro-batch's share of the loss."""
        self.prepared.backward(share)

    def clip(self, step: int) -> None:
        """Nothing yet: DeepSpeed clips inside its step, which is `move`."""

    def move(self, step: int) -> float:
        """Clip, step, and return the norm that the gradient had.

        Raises:
            NonFiniteUpdate: the norm is NaN or infinite; DeepSpeed has thrown the step away and nothing has moved.
        """
        self.prepared.step()
        # Of the gradient before it was clipped; known only after the step.
        norm = float(self.prepared.get_global_grad_norm())
        # DeepSpeed's own name for a norm that is not finite is -1.
        return finite_norm(norm if norm >= 0 else math.inf, name=self.name, step=step)

    def drop(self) -> None:
        """Forget the gradient of a step that failed, micro-batches that were already reduced included."""
        optimizer = self.prepared.optimizer
        self.prepared.zero_grad()
        optimizer.zero_grad()  # stage 3 begins its sums anew
        if zero_stage(self.accelerator) < 3:
            for sums in (optimizer.averaged_gradients, optimizer.all_grad_tensors):
                # None makes these stages begin anew at the next backward pass.
                sums.update(dict.fromkeys(sums))

    def save(self, folder: Path) -> None:
        """Write weights and optimiser into `folder`/name, each rank its part. All ranks call with the same folder."""
        # `load` names the tag, so nobody reads DeepSpeed's file `latest`.
        self.prepared.save_checkpoint(str(folder / self.name), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Continue from what as many ranks wrote under the same stage with `save`.

        Raises:
            ConfigError: there is nothing.
        """
        found, _ = self.prepared.load_checkpoint(str(folder / self.name), tag=_TAG)
        if found is None:
            raise ConfigError(
                f"{folder} holds no state of the {self.name}: it was written by another recipe or version"
            )

    def state_dict(self) -> dict[str, Any]:
        """Not to be had in one piece: the learner saves and loads the engines through accelerate."""
        raise ConfigError("the state of a ZeRO learner lies on all ranks: use Learner.save_state, not state_dict")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `state_dict`."""
        raise ConfigError("the state of a ZeRO learner lies on all ranks: use Learner.load_state")


def shard_frozen(accelerator: Accelerator, module: nn.Module, autocast_dtype: torch.dtype | None) -> nn.Module:
    """A module that is only run, sharded like the policy under ZeRO-3; under lower stages every rank keeps it whole."""
    wrapped = InPrecision(module, accelerator.device.type, autocast_dtype)
    if zero_stage(accelerator) < 3:
        return wrapped.to(accelerator.device).eval()
    import deepspeed

    # A copy: the engines of trained modules are still to be made from the plugin's own.
    config = copy.deepcopy(accelerator.state.deepspeed_plugin.deepspeed_config)
    _complete(config, accelerator)
    config["zero_optimization"].pop("offload_optimizer", None)  # there is no optimiser
    engine, *_ = deepspeed.initialize(model=wrapped, config=config)
    engine.eval()
    return engine  # type: ignore[no-any-return]


def check_checkpoint(state: Mapping[str, Any], *, zero_stage: int, processes: int, where: Path) -> None:
    """A sharded state fits the number of processes and the stage that wrote it, and no other.

    Raises:
        ConfigError: this run has another; the message names the ways on.
    """
    # A state that was not sharded names neither of the two.
    saved, now = (state.get("zero_stage", 0), state.get("processes", 1)), (zero_stage, processes)
    if saved == now or saved[0] == now[0] == 0:  # a whole state fits any number of processes
        return
    named = "one process or DDP" if not saved[0] else f"{saved[1]} processes under ZeRO-{saved[0]}"
    raise ConfigError(
        f"the checkpoint {where} was written by {named}, this run has "
        + (f"{processes} under ZeRO-{zero_stage}" if zero_stage else f"{processes} without ZeRO")
        + ". Optimiser states are cut for the run that wrote them: go on with that number of processes and that "
        "configuration; or begin a new run.folder from the exported policy (model.path=<run folder>/policy, written "
        "at the end of a run), whose optimiser starts afresh"
    )


_BUCKETS = ("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size")
_CPU_BUCKET = 2**24
"""Elements of DeepSpeed's communication buffers. Its own 5e8 are 2 GB for each engine and rank, and on a CPU every rank
shares one memory."""


def _complete(config: dict[str, Any], accelerator: Accelerator) -> None:
    """What DeepSpeed asks for and this learner decides by itself: micro-batches are made by token budget."""
    config["train_micro_batch_size_per_gpu"] = 1
    config["gradient_accumulation_steps"] = 1  # a divisor of the loss; the loss here has its denominator already
    # DeepSpeed refuses to start unless this is micro-batch size times accumulation steps times ranks.
    config["train_batch_size"] = accelerator.num_processes
    config["zero_allow_untested_optimizer"] = True
    # Never: the run prints its own lines.
    config["steps_per_print"] = 2**31 - 1
    if accelerator.device.type == "cpu":
        config["zero_force_ds_cpu_optimizer"] = False  # torch's AdamW needs no compiler
        for bucket in _BUCKETS:
            config["zero_optimization"].setdefault(bucket, _CPU_BUCKET)
