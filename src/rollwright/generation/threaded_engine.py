"""What the local engines share: one thread that owns the model, requests from any event loop, no silent hang.

The thread repeats `backend.step()` while anything is unfinished, and takes in new requests before every step, so that
a follow-up turn joins the running batch at once. A failure of the backend fails every waiting request with
`EngineFault` and marks the engine as broken; later requests fail at once instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from rollwright.contracts import ContextOverflow, EngineFault, RollwrightError, Span
from rollwright.generation.engine import Ask, Generation, Sampling

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

Event = tuple[Literal["add", "abort", "forget", "close"], "Request | None"]


@dataclass(eq=False, kw_only=True)
class Request:
    """One action in the making. Owned by the engine's thread once it has been handed over."""

    request_id: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Generation]
    arrived: float = field(default_factory=time.monotonic)
    started: float | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    cached_tokens: int = 0

    def start(self) -> None:
        """The request has its place in the batch; called again after a weight update, when nothing changes."""
        if self.started is None:
            self.started = time.monotonic()

    def append(self, token_id: int, logprob: float, version: int) -> None:
        """Add a sampled token."""
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        self.versions.append(version)

    def finish(self, reason: Literal["stop", "length"]) -> None:
        """Hand the generation to whoever awaits it."""
        now, started = time.monotonic(), self.started or self.arrived
        generation = Generation(
            token_ids=tuple(self.token_ids),
            logprobs=tuple(self.logprobs),
            finish_reason=reason,
            spans=version_spans(self.versions),
            cached_tokens=self.cached_tokens,
            wait_s=started - self.arrived,
            generate_s=now - started,
        )
        self._settle(generation, None)

    def fail(self, error: Exception) -> None:
        """End the request with an error, for whoever waits for it."""
        self._settle(None, error)

    def _settle(self, generation: Generation | None, error: Exception | None) -> None:
        def settle() -> None:
            if self.future.done():  # cancelled while the answer was on its way
                return
            if error is not None:
                self.future.set_exception(error)
            elif generation is not None:
                self.future.set_result(generation)

        with contextlib.suppress(RuntimeError):  # the caller's event loop is closed: nobody waits any more
            # A future may be settled only on the thread of its own loop.
            self.loop.call_soon_threadsafe(settle)


class Backend(Protocol):
    """What an engine does. Every method is called by one thread at a time."""

    def add(self, request: Request) -> None:
        """Take a request; its tokens come from later steps."""
        ...

    def abort(self, request: Request) -> None:
        """Forget a request that nobody waits for."""
        ...

    def step(self, version: int) -> list[Request]:
        """One round of work; returns the requests it finished (they have been told)."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], unfinished: int) -> None:
        """Take new weights; no step runs meanwhile."""
        ...

    def forget(self) -> None:
        """Drop what is kept of finished requests (cached prefixes). Called while nothing is unfinished."""
        ...

    def close(self) -> None:
        """Give back memory and processes."""
        ...


class ThreadedEngine:
    """An `Engine` over a `Backend`. Lives until `close`; safe to use from several event loops.

    Args:
        context_length: the most prompt and action tokens of one request.
        vocab_size: prompt ids lie below it; vLLM would read beyond its embedding without a word, or die of it.
        stop_token_ids: used where a request names none.
        gather_s: how long an idle engine waits for company after the first request of a batch.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        *,
        context_length: int,
        vocab_size: int,
        stop_token_ids: tuple[int, ...] = (),
        gather_s: float = 0.002,
    ) -> None:
        self.name, self.version, self.context_length = name, 0, context_length
        self.vocab_size, self.stop_token_ids, self.gather_s = vocab_size, stop_token_ids, gather_s
        self._backend = backend
        self._inbox: queue.SimpleQueue[list[Event]] = queue.SimpleQueue()  # what stands in one list arrives together
        self._unfinished: dict[int, Request] = {}
        self._turnstile = threading.Condition()
        self._claims, self._stepping = 0, False
        self._broken: EngineFault | None = None
        self._closed = False
        self._work = (0.0, 0.0)
        # daemon: a model that is stuck in a step must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"engine-{name}", daemon=True)
        self._thread.start()

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        """Sample one action; see `Engine.generate`. Cancelling the call takes the request out of the batch."""
        request = self._request(Ask(prompt_ids=tuple(prompt_ids), sampling=sampling, request_id=request_id))
        self._inbox.put([("add", request)])
        try:
            return await request.future
        except asyncio.CancelledError:
            self._inbox.put([("abort", request)])
            raise

    async def generate_together(self, asks: Sequence[Ask]) -> list[Generation | RollwrightError]:
        """Answer a batch that the engine takes in before its next step, whole; see `BatchEngine.generate_together`."""
        answers: dict[int, Generation | RollwrightError] = {}
        requests: dict[int, Request] = {}
        for index, ask in enumerate(asks):
            try:
                requests[index] = self._request(ask)
            except (EngineFault, ContextOverflow) as error:
                answers[index] = error
        # One list is taken in as a whole: the batch cannot be cut in two by the timing of a step.
        self._inbox.put([("forget", None), *(("add", request) for request in requests.values())])
        futures = [request.future for request in requests.values()]
        try:
            # The failure of one request is its own answer; the others must still be awaited.
            settled = await asyncio.gather(*futures, return_exceptions=True)
        except asyncio.CancelledError:
            self._inbox.put([("abort", request) for request in requests.values()])
            raise
        for index, answer in zip(requests, settled, strict=True):
            if not isinstance(answer, Generation | RollwrightError):
                raise answer
            answers[index] = answer
        return [answers[index] for index in range(len(asks))]

    def _request(self, ask: Ask) -> Request:
        self._check(ask.prompt_ids, ask.sampling)
        loop = asyncio.get_running_loop()
        return Request(
            request_id=ask.request_id,
            prompt_ids=ask.prompt_ids,
            sampling=ask.sampling,
            loop=loop,
            future=loop.create_future(),
        )

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Replace the weights between two steps; runs on the caller's thread, where its collectives belong.

        Unfinished requests go on under the new weights with their keys and values computed anew; the spans of their
        tokens say which weights each was sampled from.

        Raises:
            EngineFault: the weights do not fit, or the engine is broken or closed.
        """
        self._check_alive()
        with self._exclusive():
            try:
                for request in [held for held in self._unfinished.values() if held.future.cancelled()]:
                    self._admit("abort", request)  # word of it may not have arrived yet
                self._backend.load_weights(weights, len(self._unfinished))
            except EngineFault:
                raise  # the backend refused before it changed anything: the engine stays usable
            except Exception as error:
                raise self._break(f"loading the weights of version {version} failed: {error!r}", error) from error
            self.version = version

    def close(self) -> None:
        """End the thread and free the model. Waiting requests fail. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._inbox.put([("close", None)])
        self._thread.join(timeout=60.0)
        if self._thread.is_alive():
            # The thread still uses the model, so it must not be freed here.
            logger.warning("engine %s did not end within 60 s; its thread is left to the process's end", self.name)
            return
        self._backend.close()

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep the engine's thread out. A plain lock would starve the caller: the thread retakes it at once."""
        with self._turnstile:
            self._claims += 1
            self._turnstile.wait_for(lambda: not self._stepping)
        try:
            yield
        finally:
            with self._turnstile:
                self._claims -= 1
                self._turnstile.notify_all()

    def _run(self) -> None:
        while self._take_requests():
            with self._turnstile:
                self._turnstile.wait_for(lambda: not self._claims)
                self._stepping = True
            try:
                self._round()
            finally:
                with self._turnstile:
                    self._stepping = False
                    self._turnstile.notify_all()
        self._fail_all(EngineFault(f"engine {self.name} was closed while the request was waiting"))

    def _take_requests(self) -> bool:
        """Move what has arrived into `_arrivals`; blocks while there is nothing to do. False when told to close."""
        self._arrivals: list[Event] = []
        deadline = 0.0  # long past: while something runs, newcomers are taken in without a wait
        if not self._unfinished:
            self._arrivals += self._inbox.get()
            deadline = time.monotonic() + self.gather_s
        while True:
            left = deadline - time.monotonic()
            try:
                self._arrivals += self._inbox.get(timeout=left) if left > 0 else self._inbox.get_nowait()
            except queue.Empty:
                break
        if any(kind == "close" for kind, _ in self._arrivals):
            for kind, request in self._arrivals:
                if kind == "add" and request is not None:
                    self._unfinished[id(request)] = request  # so that `_fail_all` tells it of the end
            return False
        return True

    def _round(self) -> None:
        try:
            for kind, request in self._arrivals:
                if request is not None:
                    self._admit(kind, request)
                elif kind == "forget" and not self._unfinished:  # vLLM's cache cannot be cleared while requests run
                    self._backend.forget()
            if self._unfinished:
                self._step()
        except Exception as error:  # whatever the model or the engine's library raised: nobody may wait for ever
            self._break(f"generation failed: {error!r}", error)

    def _step(self) -> None:
        # A backend calls `start` inside its step: one that starts requests is a prefill, any other a decoding step.
        before, new = time.monotonic(), [held for held in self._unfinished.values() if held.started is None]
        for request in self._backend.step(self.version):
            self._unfinished.pop(id(request), None)
        seconds, (prefill, decode) = time.monotonic() - before, self._work
        began = any(request.started is not None for request in new)
        self._work = (prefill + seconds, decode) if began else (prefill, decode + seconds)

    def work_seconds(self) -> tuple[float, float]:
        """Seconds of steps in which a request began (prefill), and of the others (decode)."""
        return self._work

    def _admit(self, kind: str, request: Request) -> None:
        if kind == "abort":
            if self._unfinished.pop(id(request), None):
                self._backend.abort(request)
        elif self._broken:
            request.fail(self._broken)
        elif not request.future.cancelled():
            try:
                self._backend.add(request)
            except ValueError as error:  # this request is wrong, the engine is not
                request.fail(EngineFault(f"engine {self.name} refused request {request.request_id}: {error}"))
            else:
                self._unfinished[id(request)] = request

    def _break(self, what: str, cause: Exception) -> EngineFault:
        logger.error("engine %s: %s", self.name, what, exc_info=cause)
        self._broken = EngineFault(f"engine {self.name}: {what}. The engine takes no more requests; make a new one")
        self._broken.__cause__ = cause  # later calls raise it on other threads, where nothing else names the cause
        self._fail_all(self._broken)
        return self._broken

    def _fail_all(self, error: EngineFault) -> None:
        # Emptied as well: the thread must not step a broken backend again, nor tell a request twice.
        waiting, self._unfinished = list(self._unfinished.values()), {}
        for request in waiting:
            request.fail(error)

    def _check_alive(self) -> None:
        if self._broken:
            raise self._broken
        if self._closed or not self._thread.is_alive():
            raise EngineFault(f"engine {self.name} is closed")

    def _check(self, prompt_ids: tuple[int, ...], sampling: Sampling) -> None:
        self._check_alive()
        check_request(self.name, prompt_ids, sampling, context_length=self.context_length, vocab_size=self.vocab_size)


def check_request(
    name: str, prompt_ids: tuple[int, ...], sampling: Sampling, *, context_length: int, vocab_size: int
) -> None:
    """Refuse what an engine cannot do before anything is queued.

    Raises:
        EngineFault: an empty prompt, ids beyond the vocabulary, no token wanted.
        ContextOverflow: prompt and action together are longer than the context.
    """
    if not prompt_ids:
        raise EngineFault("the prompt is empty: there is nothing to condition on")
    if not 0 <= min(prompt_ids) <= max(prompt_ids) < vocab_size:
        raise EngineFault(
            f"prompt ids run from {min(prompt_ids)} to {max(prompt_ids)}, but engine {name} knows 0 to "
            f"{vocab_size - 1}: the prompt was encoded by another tokenizer"
        )
    if sampling.max_tokens < 1:
        raise EngineFault(f"max_tokens must be 1 or more, got {sampling.max_tokens}")
    if len(prompt_ids) + sampling.max_tokens > context_length:
        raise ContextOverflow(
            f"the prompt has {len(prompt_ids)} tokens and max_tokens is {sampling.max_tokens}, but engine "
            f"{name} takes {context_length}: shorten the observation or raise the context length"
        )


def version_spans(versions: list[int]) -> tuple[Span, ...]:
    """Runs of equal weight versions, as spans over the tokens."""
    spans: list[Span] = []
    start = 0
    for end in range(1, len(versions) + 1):
        if end == len(versions) or versions[end] != versions[start]:
            spans.append(Span(start=start, end=end, version=versions[start]))
            start = end
    return tuple(spans)
