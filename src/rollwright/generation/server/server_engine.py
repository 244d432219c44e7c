"""Engine "vllm_server": one or more vLLM servers behind the engine contract.

One thread of its own runs an event loop with all HTTP traffic and one supervising task per replica. Requests come
from any other loop; weights come from the learner's thread. A request whose server dies is asked again, of another
replica or of the same one after its restart; a turn that was answered is never asked twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from rollwright.contracts import EngineFault, RollwrightError
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.server.replica import Replica, Supervision, UpdateMode
from rollwright.generation.server.request_routing import Router, session_of
from rollwright.generation.server.server_client import (
    ForeignVersion,
    ServerFailed,
    ServerLost,
    as_version,
    open_session,
)
from rollwright.generation.server.server_process import ServerProcess
from rollwright.generation.server.weight_transport import UPDATE_S, AdapterTransport, Staged, Transport
from rollwright.generation.threaded_engine import check_request

if TYPE_CHECKING:
    from torch import Tensor

    from rollwright.models import Adapter

logger = logging.getLogger(__name__)
T = TypeVar("T")
_ATTEMPTS_5XX = 3  # a request that fails every server it meets must not go round until request_s has passed
_RETRY_S = 0.5  # time for the supervision to see that the server is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the engine does with its servers.

    Args:
        served_name: the model's name at the servers.
        biases: added to the logits of ids that nobody can decode.
        request_s: limit of one action, retries and restarts included.
        update_mode: requests under way at a weight update go on afterwards under the new weights with their keys and
            values computed anew ("keep"), or are finished first ("wait").
    """

    served_name: str
    context_length: int
    vocab_size: int
    biases: dict[int, float] | None = None
    stop_token_ids: tuple[int, ...] = ()
    request_s: float = 170.0
    update_mode: UpdateMode = "keep"
    supervision: Supervision = field(default_factory=Supervision)


class VLLMServerEngine:
    """An `Engine` over servers. Blocks until all of them serve; ends what it started in `close`.

    Args:
        servers: for each replica its URL, or what starts it (port and secret served name to process).

    Raises:
        EngineFault: a server does not come up, or is not the one we mean; the message has the end of its log.
        MissingDependency: aiohttp is not installed.
    """

    name = "vllm_server"

    def __init__(
        self, servers: Sequence[str | Callable[[int, str], ServerProcess]], transport: Transport, options: Options
    ) -> None:
        self.version, self.context_length, self.options = 0, options.context_length, options
        self._transport, self._current = transport, Staged(version=0, content=None)
        self._router = Router(len(servers))
        self._broken: EngineFault | None = None
        self._closed = False
        self.report: Callable[[EngineFault], None] | None = None
        """Where a lost server is written down, also one that nobody was asking anything; called on another thread."""
        self._replicas: list[Replica] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-vllm_server", daemon=True)
        self._thread.start()
        try:
            self._run(self._open(servers))
            self._run(self._all_ready())
        except BaseException:  # Ctrl-C too: servers that were started must not outlive the constructor
            self.close()
            raise

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        """Sample one action; see `Engine.generate`. Cancelling the call takes the request out of its server's batch."""
        self._check_alive()
        check_request(
            self.name, prompt_ids, sampling, context_length=self.context_length, vocab_size=self.options.vocab_size
        )
        wanted = replace(sampling, stop_token_ids=sampling.stop_token_ids or self.options.stop_token_ids)
        asked = self._generate(tuple(prompt_ids), wanted, request_id)
        # A cancelled call is cancelled on the engine's loop too, which closes the connection to the server.
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked, self._loop))

    def load_weights(self, weights: Iterable[tuple[str, Tensor]], *, version: int) -> None:
        """Give every server new weights: stage, pause, deliver, clear the prefix cache, resume.

        A server that is down gets them when it is up again, before it serves.

        Raises:
            EngineFault: the weights are not the model's, or a server refused them: the engine is broken then.
        """
        self._load(lambda: self._transport.stage(weights, version=version), version)

    def load_adapter(self, adapter: Adapter, *, version: int) -> None:
        """As `load_weights`, for a LoRA adapter (engine.lora_sync=adapter)."""
        transport = self._transport
        if not isinstance(transport, AdapterTransport):
            raise EngineFault("this engine takes whole weights; set engine.lora_sync=adapter to hand it adapters")
        self._load(lambda: transport.stage_adapter(adapter, version=version), version)

    @property
    def takes_adapters(self) -> bool:
        """Whether updates are `load_adapter`'s rather than `load_weights`'s."""
        return isinstance(self._transport, AdapterTransport)

    @property
    def urls(self) -> list[str]:
        """Where the servers are now; a restarted one has a new port."""
        return [replica.client.url for replica in self._replicas]

    def close(self) -> None:
        """End supervision, sessions and our servers; delete staged weights. Waiting requests fail. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):
            self._run(self._shut(), timeout_s=120.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=30.0)
        if not self._thread.is_alive():
            self._loop.close()
        # Last: a server that still lives may be reading the files.
        self._transport.close()

    # The learner's thread.

    def _load(self, stage: Callable[[], Staged], version: int) -> None:
        self._check_alive()
        try:
            # On the caller's thread, where the other learner ranks take part in gathering the parameters.
            staged = stage()
        except (ValueError, OSError) as error:  # nothing has been sent: the servers go on as they are
            raise EngineFault(f"the weights of version {version} cannot be staged: {error}") from error
        try:
            self._run(self._update(staged))
        except EngineFault as error:
            self._broken = EngineFault(f"the update to version {version} failed: {error}. Make a new engine")
            raise self._broken from error
        self.version = version

    def _run(self, work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def _check_alive(self) -> None:
        if self._broken:
            raise self._broken
        if self._closed:
            raise EngineFault(f"engine {self.name} is closed")

    # Everything below runs on the engine's loop.

    async def _open(self, servers: Sequence[str | Callable[[int, str], ServerProcess]]) -> None:
        self._session = open_session()
        self._replicas = [
            Replica(
                index,
                session=self._session,
                supervision=self.options.supervision,
                weights=self,
                served_name=self.options.served_name,
                context_length=self.context_length,
                url=server if isinstance(server, str) else "",
                start=None if isinstance(server, str) else server,
                report=self._note,
            )
            for index, server in enumerate(servers)
        ]
        self._tasks = [asyncio.create_task(replica.run()) for replica in self._replicas]

    def _note(self, fault: EngineFault) -> None:
        try:
            if self.report is not None and not self._closed:
                self.report(fault)
        except (OSError, RollwrightError) as error:  # a full disk must not end the supervision
            logger.warning("%s; it could not be written down: %s", fault, error)

    async def _shut(self) -> None:
        # The supervision goes first: it would start again what is ended below.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(replica.stop() for replica in self._replicas))
        await self._session.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _all_ready(self) -> None:
        """Raises the failure of the first replica that has one."""
        while not all(replica.ready for replica in self._replicas):
            if failed := [replica.failure for replica in self._replicas if replica.failure]:
                raise failed[0]
            await self._change()

    async def _change(self) -> None:
        """Wait until some replica comes up, goes down or is given up."""
        waits = [asyncio.ensure_future(replica.changed.wait()) for replica in self._replicas]
        try:
            # The time limit is for `give`, which waits for an update: no replica's event tells of one.
            await asyncio.wait(waits, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            for replica in self._replicas:
                replica.changed.clear()

    async def _generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, request_id: str) -> Generation:
        """Ask until a server has answered, within `request_s`."""
        faults: list[EngineFault] = []
        try:
            async with asyncio.timeout(self.options.request_s):
                while True:
                    replica = await self._ready_replica(session_of(request_id))
                    try:
                        # A new id for each try: the same server may still be at work on the last one.
                        return await self._ask(replica, prompt_ids, sampling, f"{request_id}#{len(faults)}")
                    except (ServerLost, ServerFailed, ForeignVersion) as error:
                        logger.warning("request %s is asked again: %s", request_id, error)
                        faults.append(error)
                        replica.suspect(str(error))
                        await asyncio.sleep(_RETRY_S)
                    if sum(isinstance(fault, ServerFailed) for fault in faults) >= _ATTEMPTS_5XX:
                        raise EngineFault(f"request {request_id} failed {len(faults)} times, last: {faults[-1]}")
        except TimeoutError as error:
            last = f"; last fault: {faults[-1]}" if faults else ""
            raise EngineFault(
                f"request {request_id} had no answer within {self.options.request_s:g} s (engine.request_s), "
                f"{len(faults)} servers having failed it{last}"
            ) from error

    async def _ready_replica(self, session: str) -> Replica:
        """The episode's replica, or another that may be asked; waits for one.

        Raises:
            EngineFault: all replicas are given up.
        """
        while True:
            if ready := [replica.index for replica in self._replicas if replica.ready]:
                return self._replicas[self._router.choose(session, ready)]
            if all(replica.failure for replica in self._replicas):
                raise EngineFault(f"no server is left: {self._replicas[0].failure}")
            await self._change()

    async def _ask(
        self, replica: Replica, prompt_ids: tuple[int, ...], sampling: Sampling, request_id: str
    ) -> Generation:
        """One request to one server; given up as soon as the server is."""
        # An update may come in mid-action: tokens may then be of this version or of any up to the newest.
        before = replica.version
        client, gone = replica.client, asyncio.ensure_future(replica.gone.wait())
        call = asyncio.ensure_future(
            client.generate(
                prompt_ids,
                sampling,
                request_id=request_id,
                model=replica.model,
                session_id=session_of(request_id.rpartition("#")[0]),
                biases=self.options.biases,
            )
        )
        try:
            await asyncio.wait((call, gone), return_when=asyncio.FIRST_COMPLETED)
            if not call.done():  # an answer that came in the same moment counts
                raise ServerLost(f"{replica.name} was given up while it worked on request {request_id}")
            generation = call.result()
        finally:
            call.cancel()
            gone.cancel()
        self._check_versions(replica, generation, oldest=before)
        return generation

    def _check_versions(self, replica: Replica, generation: Generation, *, oldest: int) -> None:
        versions = [span.version for span in generation.spans]
        if not oldest <= min(versions) <= max(versions) <= replica.version:
            raise ForeignVersion(
                f"{replica.name} sampled from weights of version {versions}, but it was given {replica.version}: "
                "it was restarted, or something else updates it"
            )

    async def give(self, replica: Replica) -> None:
        """The current weights for a server that has just come up (`replica.Weights`)."""
        while True:
            current = self._current
            if current.content is None and current.version:
                await self._change()  # its weights cannot be sent a second time: it waits for the next update
                continue
            await self._exchange(replica, current)
            if current is self._current:  # else an update came meanwhile, and this server has missed it
                return

    async def _exchange(self, replica: Replica, staged: Staged) -> None:
        """New weights for one server, between two tokens of its requests."""
        # Requests to the base model cannot go on under the first adapter: they ask for another model.
        first_adapter = self.takes_adapters and replica.model == replica.served_name
        mode = "wait" if first_adapter else self.options.update_mode
        await replica.client.post("/pause", query={"mode": mode}, timeout_s=UPDATE_S)
        if staged.content is None:
            await self._transport.begin(replica.client)
        else:
            replica.model = await self._transport.deliver(replica.client, staged) or replica.served_name
        replica.version = as_version(await replica.client.version())
        if replica.version != staged.version:
            raise EngineFault(f"{replica.name} reports version {replica.version}, expected {staged.version}")
        # Cached keys and values belong to the old weights, those of running requests too: they are computed anew.
        answer = await replica.client.post(
            "/reset_prefix_cache", query={"reset_running_requests": "true"}, timeout_s=UPDATE_S
        )
        if not (answer or {}).get("success"):
            raise EngineFault(f"{replica.name} did not clear its prefix cache: old keys would mix with new weights")
        # Not in a `finally`: a server that failed on the way must stay paused, for its weights may be mixed.
        await replica.client.post("/resume", timeout_s=UPDATE_S)

    async def check(self, replica: Replica) -> None:
        """Does the server have what it was given? (`replica.Weights`)"""
        found = as_version(await replica.client.version())
        if found != replica.version:
            raise ForeignVersion(
                f"{replica.name} has weights of version {found}, but it was given {replica.version}: it was restarted "
                "by somebody else, or something else updates it"
            )

    async def _update(self, staged: Staged) -> None:
        """All servers at once; each gets its requests back as soon as it has the weights."""
        # Before any server is told, so that one that comes up in these moments is given the new weights.
        self._current = staged
        await asyncio.gather(*(self._update_one(replica, staged) for replica in self._replicas))
        living = [replica for replica in self._replicas if not replica.failure]
        if not living:
            raise EngineFault(f"no server is left: {self._replicas[0].failure}")
        if not self._transport.keeps:
            self._current = replace(staged, content=None)  # frees the copies on the learner's GPU
        elif all(replica.version == staged.version for replica in living):
            self._transport.settle(staged.version)

    async def _update_one(self, replica: Replica, staged: Staged) -> None:
        if not replica.ready:  # it gets them when it comes up
            return
        async with replica.control:
            try:
                await self._exchange(replica, staged)
            except (ServerLost, ServerFailed) as error:
                if isinstance(error, ServerFailed) and await replica.survived():
                    raise  # the update itself is wrong: the next server would fail it too
                # Nobody knows how far it came: its restart brings the weights.
                replica.condemn(f"lost in a weight update: {error}")
