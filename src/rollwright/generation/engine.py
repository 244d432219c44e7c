"""The engine contract: ids in, ids out. Every engine that can be trained against keeps it to the letter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from rollwright.contracts import EngineFault, RollwrightError, SamplerMask, Span

if TYPE_CHECKING:
    from torch import Tensor

    from rollwright.models import Adapter

# `Tensor` is quoted: this line runs at import, where only type checkers know that name.
Perturb = Callable[[Sequence[tuple[int, ...]], "Tensor"], "Tensor"]
"""(ids of B rows so far, logits [B, V]) -> logits [B, V]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to sample one action. Training uses top_p 1 and top_k off: the learner knows the full softmax only.

    `temperature` 0 is greedy; its log-probs are those of the unscaled softmax. `seed` fixes this request's draws.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 32
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What was sampled. `token_ids` include the stop token where one was sampled (`finish_reason` "stop").

    `logprobs[i]` is the natural log-prob of `token_ids[i]` under the distribution actually sampled from.
    `sampler_mask` says what an engine was allowed to write where it was not allowed everything.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    spans: tuple[Span, ...]
    sampler_mask: SamplerMask | None = None
    cached_tokens: int = 0
    wait_s: float = 0.0
    generate_s: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def scripted(self) -> bool:
        """A script, a person or a data set wrote it, not a model that samples."""
        return any(span.producer in ("dataset", "teacher", "human") for span in self.spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request of a batch that is handed over as a whole."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    request_id: str


class WeightSource(Protocol):
    """Full (gathered) parameters, one at a time, under their Hugging Face names. Every rank iterates in lockstep."""

    def __iter__(self) -> Iterable[tuple[str, Tensor]]: ...  # type: ignore[override]


class Engine(Protocol):
    """A generation engine. `version` counts the weight updates it has received; every token carries it.

    `context_length` is the largest number of prompt plus action tokens.
    """

    name: str
    version: int
    context_length: int

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        """Sample one action.

        Raises:
            EngineFault: generation failed.
            ContextOverflow: the prompt leaves no room for `max_tokens` (checked before anything is queued).
        """
        ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Replace the weights and drop every cached prefix: cached keys and values belong to the old policy."""
        ...

    def close(self) -> None:
        """Free memory, threads and processes. Idempotent."""
        ...


# isinstance() looks for the names of these members, not for their types: a user's engine need not inherit.
@runtime_checkable
class AdapterEngine(Engine, Protocol):
    """An engine that can be given a LoRA adapter alone; `takes_adapters` says whether it wants that."""

    @property
    def takes_adapters(self) -> bool:
        """Whether a LoRA adapter alone is sent instead of merged weights."""
        ...

    def load_adapter(self, adapter: Adapter, *, version: int) -> None:
        """As `load_weights`: from here on tokens are sampled with this adapter."""
        ...


@runtime_checkable
class ReportingEngine(Protocol):
    """An engine whose parts can be lost without an episode noticing (`vllm_server`).

    report: is told of each loss, on a thread of the engine's.
    """

    report: Callable[[EngineFault], None] | None


@runtime_checkable
class PerturbedEngine(Engine, Protocol):
    """An engine whose logits can be changed before it samples."""

    def perturb(self, change: Perturb | None) -> None:
        """Change the logits of every next token from here on (ILQL's decoding); None takes the change back.

        Log-probs are those of the changed distribution. Call it while no request is unfinished.

        Raises:
            ConfigError: this engine could, but not as it is set up here.
        """
        ...


@runtime_checkable
class TimedEngine(Protocol):
    """An engine that tells what its time goes into."""

    def work_seconds(self) -> tuple[float, float]:
        """Seconds since it was made in which it computed: prompts (prefill), and further tokens (decode).

        A step that does both counts as prefill.
        """
        ...


@runtime_checkable
class BatchEngine(Engine, Protocol):
    """An engine that takes a batch as a whole: which requests are computed together is then no matter of timing."""

    async def generate_together(self, asks: Sequence[Ask]) -> list[Generation | RollwrightError]:
        """Answer all of them, from a state that holds nothing of earlier requests.

        The same asks in the same order under the same weights give the same bits on the same machine.

        Returns:
            One answer per ask, in order; an error where that one could not be answered.
        """
        ...
