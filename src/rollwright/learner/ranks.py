"""The processes of one run: how they join, how they share work, and how a batch is cut for them.

Every rank runs the same recipe and holds the same groups and the same batch; they part where the time goes: each plays
its share of the episodes with an engine of its own, and takes its share of every optimiser step. Only the first rank
writes. With one process all of this is the identity.
"""

from __future__ import annotations

import atexit
import hashlib
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, InitProcessGroupKwargs, broadcast_object_list, gather_object

from rollwright.batching import Segment, TokenBatch
from rollwright.contracts import ConfigError

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


def open_accelerator(*, timeout_s: float = 1800.0, log_with: Sequence[str] = (), project_dir: str = "") -> Accelerator:
    """Join the processes that `accelerate launch` or torchrun started; with one process there is nothing to join.

    Args:
        timeout_s: how long a rank waits for the others in a collective call before it gives up. It must be longer than
            the difference between the fastest and the slowest rank's episodes of one step.

    Raises:
        ConfigError: the processes did not join.
    """
    launched, on_cpu = "LOCAL_RANK" in os.environ, not torch.cuda.is_available()
    # Without a named backend accelerate starts DeepSpeed on a CPU as N processes that do not know of each other; and
    # without `cpu` it joins the processes of torchrun but leaves their gradients apart.
    backend = "gloo" if launched and on_cpu else None
    # The learner casts by `learner.precision` alone. A precision of the launcher's, or one that an earlier trainer of
    # this process left behind (TRL's SFT does), would be laid over it.
    AcceleratorState._reset_state()
    if under_deepspeed() and on_cpu:
        _spare_the_compiler()
    accelerator = Accelerator(
        mixed_precision="no",
        cpu=on_cpu and not under_deepspeed(),
        log_with=list(log_with) or None,
        project_dir=project_dir or None,
        kwargs_handlers=[InitProcessGroupKwargs(backend=backend, timeout=timedelta(seconds=timeout_s))],
    )
    check_world(accelerator)
    # Once, however often an accelerator is opened in this process.
    atexit.unregister(_leave)
    atexit.register(_leave)
    if under_deepspeed():
        if accelerator.state.deepspeed_plugin is None:
            raise ConfigError(
                "DeepSpeed was asked for (ACCELERATE_USE_DEEPSPEED=true), but accelerate left it out because of "
                "ACCELERATE_USE_CPU=true in the environment: unset it, and leave `use_cpu: false` in the launch config"
            )
        # DeepSpeed calls torch by old names, several times in each layer; a user can do nothing about it.
        warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
        # As long as this object lives transformers shards every model it loads under ZeRO-3, the engine's included.
        # Here models are loaded whole, and the learner shards what it trains.
        accelerator.state.deepspeed_plugin.dschf = None
    return accelerator


def _leave() -> None:
    """Part from the other processes while Python still stands.

    Gloo's threads may hold the tensors of their last call; one that lets go of them while the interpreter is taken down
    aborts the process, and the launcher takes a run that is done for one that failed. After an error the launcher ends
    all ranks anyway, and parting could wait for one that is gone.
    """
    if torch.distributed.is_initialized() and getattr(sys, "last_value", None) is None:
        torch.distributed.destroy_process_group()


def _spare_the_compiler() -> None:
    """On a CPU the first start of DeepSpeed compiles, for minutes, an all-reduce that only its inference uses."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}  # name of an extension: whether it can be built here


def under_deepspeed() -> bool:
    """Whether `accelerate launch` was given a DeepSpeed configuration."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def go_on_alone(what: str) -> bool:
    """For a recipe that runs in one process: of several that were started the first goes on, as if started alone.

    Must be called before anything has joined the processes. The launcher takes the early end of the others as success.

    Returns:
        Whether this process is the one that goes on.
    """
    started, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if started == 1:
        return True
    if rank > 0:
        return False
    log.warning("%s runs in one process: %d were started, the first goes on and the others end", what, started)
    # accelerate reads these: left in place, they would make it wait for the processes that have ended.
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_DEEPSPEED"):
        os.environ.pop(name, None)
    return True


def check_world(accelerator: Accelerator) -> None:
    """Every started process must take part.

    Without a communication backend accelerate falls back to one process on each rank, silently, and all train alone.

    Raises:
        ConfigError: accelerate sees another number of processes than were started, or will not share gradients.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise ConfigError(
            f"{started} processes were started but accelerate joined {accelerator.num_processes}: on CPU under "
            'DeepSpeed pass kwargs_handlers=[InitProcessGroupKwargs(backend="gloo")] to the Accelerator, or make it '
            "with rollwright.learner.ranks.open_accelerator"
        )
    if started > 1 and accelerator.distributed_type == DistributedType.NO:
        raise ConfigError(
            f"{started} processes were started and joined, but accelerate would not average their gradients: make the "
            "Accelerator with cpu=True, or with rollwright.learner.ranks.open_accelerator"
        )


class Ranks:
    """The processes of a run, seen from one of them. Made by the learner."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.index: int = accelerator.process_index
        self.count: int = accelerator.num_processes

    @property
    def first(self) -> bool:
        """Whether this rank writes and speaks."""
        return self.index == 0

    def own(self, path: Path) -> Path:
        """The file of that name which this rank alone writes: `faults.jsonl`, `faults_rank1.jsonl`, ..."""
        return path if self.first else path.with_stem(f"{path.stem}_rank{self.index}")

    def wait(self) -> None:
        """Return when all ranks have come here."""
        self._accelerator.wait_for_everyone()

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """The first rank runs the body alone; the others run it when it is done, and find what it wrote."""
        with self._accelerator.main_process_first():
            yield

    def gather(self, value: Item) -> list[Item]:
        """`value` of every rank, by rank, on every rank."""
        # accelerate joins the lists of all ranks: a list of one keeps each value whole, whatever it is.
        return [value] if self.count == 1 else list(gather_object([value]))

    def of_first(self, value: Item) -> Item:
        """The first rank's `value`, on every rank."""
        if self.count == 1:
            return value
        box: list[Any] = [value]
        broadcast_object_list(box)
        return box[0]  # type: ignore[no-any-return]

    def spread(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
        """One result per item, in order, on every rank; each rank works on every `count`-th of them."""
        if self.count == 1:
            return list(work(items))
        # Strided: what is dearer at one end of the list is spread over all ranks.
        mine = list(work(items[self.index :: self.count]))
        results: list[Any] = [None] * len(items)
        for rank, part in enumerate(self.gather(mine)):
            results[rank :: self.count] = part
        return results

    def require_same(self, batch: TokenBatch) -> None:
        """All ranks must have been given the same batch: each takes its own share of it.

        Raises:
            ConfigError: they were not.
        """
        if self.count == 1:
            return
        # Nothing would fail otherwise: each rank would train on its share of another batch.
        digests = self.gather(_digest(batch))
        if len(set(digests)) > 1:
            raise ConfigError(
                f"the ranks were given different batches (digests {', '.join(digests)}): give every rank the whole "
                "batch, in the same order; the learner cuts it by itself"
            )


def _digest(batch: TokenBatch) -> str:
    """A short name of a batch: the ids of every turn, in order, and the advantages and returns of every token."""
    sums = hashlib.sha256()
    for segment in batch.segments:
        sums.update(repr((*segment.prompt_ids, *segment.action_ids)).encode())
    for column in (batch.advantages, batch.returns):
        sums.update(repr(None if column is None else column.tolist()).encode())
    return sums.hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one rank does of a batch: the numbers of its turns, or of a stand-in if there are none for it.

    idle: whether it runs a stand-in, whose results belong nowhere.
    """

    turns: list[int]
    idle: bool

    @property
    def own(self) -> list[int]:
        """The turns whose results count."""
        return [] if self.idle else self.turns


def share(segments: Sequence[Segment], *, rank: int, count: int) -> Share:
    """The part of rank `rank` of `count`: whole sequences, neighbours together, about the same number of tokens each.

    Neighbours share their prompts, which are forwarded once. Every sequence lies in exactly one share. A rank for which
    nothing is left gets the shortest turn as a stand-in: it has to take part in each collective call.
    """
    if count == 1:
        return Share(turns=list(range(len(segments))), idle=False)
    owners = _owners(segments, count)
    turns = [i for i, segment in enumerate(segments) if owners[segment.sequence] == rank]
    if turns:
        return Share(turns=turns, idle=False)
    # The cheapest one will do: it is forwarded and counts nowhere.
    shortest = min(range(len(segments)), key=lambda i: len(segments[i].prompt_ids) + len(segments[i].action_ids))
    return Share(turns=[shortest], idle=True)


def _owners(segments: Sequence[Segment], count: int) -> dict[Hashable, int]:
    """Sequence -> rank: the token count is cut into `count` equal parts, a sequence goes where its middle lies."""
    sizes: dict[Hashable, int] = {}
    for segment in segments:
        size = len(segment.prompt_ids) + len(segment.action_ids)
        sizes[segment.sequence] = sizes.get(segment.sequence, 0) + size
    ends = list(itertools.accumulate(sizes.values()))
    total = ends[-1] if ends else 1
    middles = (end - size / 2 for end, size in zip(ends, sizes.values(), strict=True))
    # A middle lies strictly below the total, so no sequence goes to a rank that does not exist.
    return {name: int(count * middle / total) for name, middle in zip(sizes, middles, strict=True)}
