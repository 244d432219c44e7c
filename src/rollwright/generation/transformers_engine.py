"""The engine without vLLM: a transformers model, continuous batching, keys and values kept while a request runs.

New requests are prefilled in buckets of similar length (equal prompts once) and then join the running batch, padded on
the left. Slower than vLLM, exact in float32, and able to sample from the learner's own model object.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rollwright.contracts import EngineFault
from rollwright.generation.cache_check import check_cache
from rollwright.generation.engine import Perturb
from rollwright.generation.kv_cache import KVRows, gather
from rollwright.generation.threaded_engine import Request, ThreadedEngine
from rollwright.generation.token_sampler import draw
from rollwright.models import without_unknown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SPARE = 0.1  # padding of a joined cache, so that somewhat longer rows can take the place of finished ones
_BUCKET_RATIO = 0.7  # a prompt joins a prefill whose longest prompt is at most 1 / 0.7 times as long


class TransformersEngine(ThreadedEngine):
    """Engine "transformers".

    Args:
        model: a causal language model. `load_weights` copies into it where the engine owns it.
        owns_weights: False shares the learner's model: nothing is ever copied, `load_weights` only counts the version.
            The learner must then be idle while requests run, and puts its model back into training mode itself.
        max_batch: rows that are decoded together.
        seed: of requests that bring none; together with the request's id it fixes their draws.

    Raises:
        ConfigError: the model's rows cannot be sampled with kept keys and values.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        owns_weights: bool = True,
        context_length: int | None = None,
        stop_token_ids: tuple[int, ...] = (),
        max_batch: int = 64,
        seed: int = 0,
        gather_s: float = 0.002,
    ) -> None:
        # In evaluation mode, since dropout would make the two computations that are compared differ.
        check_cache(model.eval())
        length = int(context_length or model.config.max_position_embeddings)
        backend = self._rows = TransformersBackend(
            model, owns_weights=owns_weights, max_batch=max_batch, seed=seed, stop_token_ids=stop_token_ids
        )
        super().__init__(
            "transformers",
            backend,
            context_length=length,
            vocab_size=int(model.config.vocab_size),
            stop_token_ids=stop_token_ids,
            gather_s=gather_s,
        )

    def perturb(self, change: Perturb | None) -> None:
        """Change the logits of every next token from here on; see `PerturbedEngine.perturb`."""
        self._rows.perturb = change


@dataclass(eq=False)
class SamplingRow:
    """One request in the batch: its own random stream and how it may end."""

    request: Request
    stream: random.Random
    stops: frozenset[int]

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and what was sampled so far."""
        return (*self.request.prompt_ids, *self.request.token_ids)

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.request.prompt_ids) + len(self.request.token_ids)


class TransformersBackend:
    """The batch: rows that wait for their prefill, rows that are being decoded, and the latter's keys and values."""

    def __init__(
        self, model: PreTrainedModel, *, owns_weights: bool, max_batch: int, seed: int, stop_token_ids: tuple[int, ...]
    ) -> None:
        self.model: Any = model
        self.owns_weights, self.max_batch, self.seed = owns_weights, max_batch, seed
        self.stop_token_ids = stop_token_ids
        self.waiting: list[SamplingRow] = []
        self.running: list[SamplingRow | None] = []  # None: finished, its keys and values not yet thrown away
        self.kv: KVRows | None = None
        self.perturb: Perturb | None = None

    def add(self, request: Request) -> None:
        """Put a request into the queue."""
        seed = request.sampling.seed
        # `Random` hashes a text by SHA-512, not by hash(), which Python salts anew in every process.
        stream = random.Random(seed if seed is not None else f"{self.seed}:{request.request_id}")
        stops = frozenset(request.sampling.stop_token_ids or self.stop_token_ids)
        self.waiting.append(SamplingRow(request, stream, stops))

    def abort(self, request: Request) -> None:
        """Take a request out of the queue or the batch."""
        self.waiting = [row for row in self.waiting if row.request is not request]
        self._release(row for row in self.running if row and row.request is request)

    def step(self, version: int) -> list[Request]:
        """Prefill one bucket where there is room for it, else decode one token of every running row."""
        active = sum(row is not None for row in self.running)
        room = self.max_batch - active
        if not active:
            # A batch starts without padding or rows of the last one: equal batches then give equal bits.
            self.running, self.kv = [], None
            self.model.eval()  # dropout would make the sampled distribution another one than the reported
        with torch.inference_mode():
            if self.waiting and room > 0:
                return self._prefill(self._next_bucket(room), version)
            return self._decode(version) if active else []

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], unfinished: int) -> None:
        """Copy new weights into the model."""
        if not self.owns_weights:
            if unfinished:
                # EngineFault, since nothing was changed: any other exception would break the engine.
                raise EngineFault(
                    f"{unfinished} requests are unfinished while the shared model is being updated; an engine that "
                    "samples during updates must own its weights (owns_weights=True)"
                )
            return
        # Unfinished rows start over from their ids: their keys and values belong to the old weights.
        self.waiting = [row for row in self.running if row] + self.waiting  # the older ones go first
        self.running, self.kv = [], None
        copy_weights(self.model, weights)

    def forget(self) -> None:
        """Nothing outlives its request."""

    def close(self) -> None:
        """Let the model and its keys and values go."""
        self.waiting, self.running, self.kv = [], [], None
        self.model = None

    def _next_bucket(self, room: int) -> list[SamplingRow]:
        """Rows of similar length, the longest-waiting row's bucket first."""
        length = self.waiting[0].length
        near: list[SamplingRow] = []
        passed: list[SamplingRow] = []
        for row in self.waiting:
            if len(near) == room:
                break
            (near if _BUCKET_RATIO * length <= row.length <= length / _BUCKET_RATIO else passed).append(row)
        self.waiting = passed + self.waiting[len(near) + len(passed) :]  # rows of other lengths keep their places
        return near

    def _prefill(self, rows: list[SamplingRow], version: int) -> list[Request]:
        prompts = list(dict.fromkeys(row.ids for row in rows))  # the rows of a group share their prompt
        where = {prompt: index for index, prompt in enumerate(prompts)}
        kv = KVRows.empty(len(prompts), self.model.config.num_hidden_layers)
        logits = self._forward(prompts, kv)  # [number of prompts, V]
        index = torch.tensor([where[row.ids] for row in rows])
        seen: set[tuple[int, ...]] = set()
        for row in rows:
            row.request.start()
            # Equal prompts are read once, for the first of them; the others find it.
            row.request.cached_tokens = len(row.ids) if row.ids in seen else 0
            seen.add(row.ids)
        finished = self._sample(rows, logits[index.to(logits.device)], version)
        gone = {id(request) for request in finished}
        staying = [i for i, row in enumerate(rows) if id(row.request) not in gone]
        if staying:
            self._join([rows[i] for i in staying], kv, index[staying].tolist())
        return finished

    def _join(self, rows: list[SamplingRow], kv: KVRows, taken: list[int]) -> None:
        """Take in rows that have been read; `taken` says which row of `kv` is whose. Finished rows make place."""
        free = [i for i, row in enumerate(self.running) if row is None][: len(rows)]
        if self.kv is not None and len(free) == len(rows) and self.kv.replace(free, kv, taken):
            for slot, row in zip(free, rows, strict=True):
                self.running[slot] = row
            return
        active = [i for i, row in enumerate(self.running) if row]
        if self.kv is not None and active:
            self.kv = gather([(self.kv, active), (kv, taken)], spare=_SPARE)
        else:
            self.kv = kv if taken == list(range(len(kv.lengths))) else kv.select(taken)  # no copy where all rows stay
        self.running = [*(row for row in self.running if row), *rows]

    def _decode(self, version: int) -> list[Request]:
        assert self.kv is not None
        # Finished rows are computed along with the others; dropping them copies the cache, so they are dropped in lots.
        if sum(row is not None for row in self.running) <= 0.75 * len(self.running):
            self._compact()
        last = [[row.request.token_ids[-1] if row else 0] for row in self.running]  # 0: nobody reads that row's logits
        logits = self._forward(last, self.kv)
        active = [i for i, row in enumerate(self.running) if row]
        rows = [row for row in self.running if row]
        finished = self._sample(rows, logits if len(rows) == len(last) else logits[active], version)
        gone = {id(request) for request in finished}
        self._release(row for row in rows if id(row.request) in gone)
        return finished

    def _release(self, rows: Iterable[SamplingRow]) -> None:
        """These rows are done; their keys and values stay until others take the place or the batch is compacted."""
        for row in list(rows):
            index = self.running.index(row)
            self.running[index] = None
            if self.kv is not None:
                self.kv.lengths[index] = 0  # its slots are masked, and it no longer sets the width of the cache

    def _compact(self) -> None:
        """Drop the keys and values of finished rows."""
        active = [i for i, row in enumerate(self.running) if row]
        if len(active) < len(self.running):
            self.kv = self.kv.select(active) if self.kv is not None and active else None
            self.running = [row for row in self.running if row]

    def _forward(self, sequences: Sequence[Sequence[int]], kv: KVRows) -> Tensor:
        """[B, V] logits of the next token; the new tokens join each row's keys and values."""
        # Of the last position alone: a prefill's logits at all T positions would be [B, T, V].
        logits: Tensor = kv.read(self.model, sequences, logits_to_keep=1).logits[:, -1]
        return logits

    def _sample(self, rows: list[SamplingRow], logits: Tensor, version: int) -> list[Request]:
        # Checked before -inf is put in on purpose below. A NaN would not stop the draw: it would give some token.
        if not logits.isfinite().all():
            raise FloatingPointError("the model's logits are not finite: check the last update")
        if self.perturb is not None:
            logits = self.perturb([row.ids for row in rows], logits)
        logits = without_unknown(self.model, logits)
        # One number of a row's own stream per token, so that its draws do not depend on its company.
        ids, logprobs = draw(logits, [row.request.sampling for row in rows], [row.stream.random() for row in rows])
        finished = []
        for row, token, logprob in zip(rows, ids.tolist(), logprobs.tolist(), strict=True):
            request = row.request
            request.append(token, logprob, version)
            stopped = token in row.stops
            if stopped or len(request.token_ids) >= request.sampling.max_tokens:
                request.finish("stop" if stopped else "length")
                finished.append(request)
        return finished


def copy_weights(model: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    """Copy full weights into a model, by name; tied weights may come once or twice.

    Raises:
        ValueError: a name is unknown, a shape differs, or a parameter got no value.
    """
    # Tied weights are one parameter under two names: both are accepted, and either one counts as its value.
    owned = dict(model.named_parameters(remove_duplicate=False))
    missing = {id(parameter): name for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, value in weights:
            target = owned.get(name)
            if target is None or target.shape != value.shape:
                expected = "no such parameter" if target is None else f"shape {tuple(target.shape)}"
                raise ValueError(f"weight {name!r} of shape {tuple(value.shape)}: the engine's model has {expected}")
            target.copy_(value)
            missing.pop(id(target), None)
    if missing:
        raise ValueError(f"the update left out {len(missing)} parameters, among them {sorted(missing.values())[:3]}")
