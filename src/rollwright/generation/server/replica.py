"""One replica: a server, whether it may be asked, and what is done when it dies, hangs or holds foreign weights."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rollwright.contracts import EngineFault
from rollwright.generation.server.server_client import ForeignVersion, ServerClient, ServerFailed, ServerLost
from rollwright.generation.server.server_process import ServerProcess, free_port, signal_name

logger = logging.getLogger(__name__)
UpdateMode = Literal["keep", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """Every wait on a server has an end. Seconds of wall clock.

    Args:
        start_s: from the start of a server to its first answer; a large model is loaded in it.
        stall_s: a server that does not answer a probe for so long is given up.
        poll_s: between two probes.
        restarts: how often one replica is started again.
    """

    start_s: float = 900.0
    stall_s: float = 60.0
    poll_s: float = 2.0
    restarts: int = 3


class Weights(Protocol):
    """What a server is given before it may serve: the engine's current weights."""

    async def give(self, replica: Replica) -> None:
        """Bring a server that has just come up to the current weights and version."""
        ...

    async def check(self, replica: Replica) -> None:
        """Raise `ForeignVersion` where the server has other weights than it was given."""
        ...


class Replica:
    """Made by the engine, lives on its event loop. `run` is the supervising task; `ready` says whether it may be asked.

    Args:
        start: makes the server's process for a port and a secret served name; None where the server is not ours.
        served_name: the model's name at the server.
        report: is told of each time the server is given up, requests or not.
    """

    def __init__(
        self,
        index: int,
        *,
        session: Any,
        supervision: Supervision,
        weights: Weights,
        served_name: str,
        context_length: int,
        url: str = "",
        start: Callable[[int, str], ServerProcess] | None = None,
        report: Callable[[EngineFault], None] = lambda fault: None,
    ) -> None:
        self.index, self.served_name, self.model = index, served_name, served_name
        self.version = 0
        self.failure: EngineFault | None = None
        self.restarts = 0
        self.control = asyncio.Lock()  # one conversation with the control plane at a time
        self.changed = asyncio.Event()  # set at every change of `ready` or `failure`; the engine clears it
        self.gone = asyncio.Event()  # this incarnation of the server has been given up
        self.gone.set()
        self.process: ServerProcess | None = None
        self.client = ServerClient(url or "http://127.0.0.1:0", session)
        self._session, self._supervision, self._weights = session, supervision, weights
        self._context_length, self._start, self._report = context_length, start, report
        self._suspected = asyncio.Event()
        self._suspicion = ""
        self._served = False
        self._condemned = ""
        self._port = 0

    @property
    def ready(self) -> bool:
        """Whether it has the current weights and may be asked."""
        return not self.gone.is_set()

    def suspect(self, why: str) -> None:
        """Something went wrong with a request: probe now, not at the next round."""
        self._suspicion = why
        self._suspected.set()

    def condemn(self, why: str) -> None:
        """Its state is unknown: give it up now, whatever it answers."""
        self._condemned = why
        self._suspected.set()

    async def run(self) -> None:
        """Start, watch, and start again, until cancelled or out of restarts."""
        while True:
            try:
                await self._come_up()
                self._set_ready(True)
                self._served = True
                why = await self._watch()
            except (ServerLost, ServerFailed) as error:
                # They are EngineFaults too, so they are caught first: these may pass, any other one is final.
                why, self._port = str(error), 0  # perhaps somebody else has taken the port
                if not self._served:  # it never came up: starting it again would change nothing
                    self._give_up(EngineFault(why))
                    return
            except EngineFault as error:
                self._give_up(error)
                return
            except Exception as error:  # a task that ended unseen would leave every request waiting
                logger.exception("%s: supervision failed", self.name)
                self._give_up(EngineFault(f"{self.name} cannot be supervised: {error!r}"))
                return
            self._set_ready(False)
            self._report(EngineFault(f"{self.name} was lost: {why}"))
            if self.restarts >= self._supervision.restarts:
                self._give_up(EngineFault(f"{self.name} is given up after {self.restarts} restarts. Last: {why}"))
                return
            self.restarts += 1
            logger.warning("%s: %s. Restart %d of %d", self.name, why, self.restarts, self._supervision.restarts)
            await self.stop()

    async def survived(self) -> bool:
        """After an error of its own: is the server still there? A dying one answers HTTP 500 first."""
        await asyncio.sleep(self._supervision.poll_s)
        try:
            self._check_process("after an error")
            await self.client.probe(self._supervision.stall_s)
        except (ServerLost, ServerFailed):
            return False
        return True

    @property
    def name(self) -> str:
        """What logs and errors call this server."""
        return f"server {self.index} ({self.client.url})"

    async def stop(self) -> None:
        """End our process, if there is one. Blocks a thread of its own, not the loop."""
        process, self.process = self.process, None
        if process is not None:
            await asyncio.to_thread(process.stop)

    async def _come_up(self) -> None:
        token = ""
        if self._start is not None:
            self._port = self._port or free_port()  # the same at a restart: other ranks know the server by its URL
            # The port may go to a foreign server in the meantime, which cannot know this name (see `check_served`).
            token = f"rollwright-{uuid.uuid4().hex}"
            self.process = self._start(self._port, token)
            self.client = ServerClient(f"http://127.0.0.1:{self._port}", self._session)
        # What was said against the last process is no reason to probe or to give up this one.
        self._suspected.clear()
        self._condemned = ""
        await self._until_healthy()
        # Before any weights are sent: a server that is not ours must keep its own.
        check_served(
            await self.client.served(),
            self.client.url,
            name=token or self.served_name,
            context_length=self._context_length,
        )
        # A new server has no adapter: until `give` has loaded one, only the base model's name is known there.
        self.model = self.served_name
        async with self.control:
            await self._weights.give(self)

    async def _until_healthy(self) -> None:
        """Wait for the first answer.

        Raises:
            ServerLost: our process ended, or the deadline passed.
        """
        deadline = time.monotonic() + self._supervision.start_s
        while True:
            self._check_process("while it started")
            try:
                await self.client.get("/health", timeout_s=10.0)
                return
            except (ServerLost, ServerFailed) as error:
                if time.monotonic() > deadline:
                    raise ServerLost(
                        f"{self.name} did not come up within {self._supervision.start_s:g} s: {error}.{self._log()}"
                    ) from error
            # A port that nobody listens on yet refuses at once: without a pause this loop would spin.
            await asyncio.sleep(min(0.5, self._supervision.poll_s))

    async def _watch(self) -> str:
        """Returns why the server must be given up."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._suspected.wait(), self._supervision.poll_s)
            self._suspected.clear()
            if self._condemned:
                return self._condemned
            try:
                # First the process, whose end explains an unanswered probe, and whose log has the reason.
                self._check_process("while it served")
                if not self.control.locked():  # in an update the engine is busy, and the update has its own deadlines
                    async with self.control:
                        await self.client.probe(self._supervision.stall_s)
                        await self._weights.check(self)
            except (ServerLost, ServerFailed, ForeignVersion) as error:
                return f"{error}" + (f" (after: {self._suspicion})" if self._suspicion else "")

    def _check_process(self, when: str) -> None:
        code = self.process.exit_code if self.process else None
        if code is not None:
            raise ServerLost(f"{self.name} ended {when} with {signal_name(code)}.{self._log()}")

    def _log(self) -> str:
        if self.process is None:
            return ""
        return f" The end of {self.process.log}:\n{self.process.tail()}"

    def _set_ready(self, ready: bool) -> None:
        if ready:
            self._suspicion = ""
            self.gone.clear()
        else:
            self.gone.set()
        self.changed.set()

    def _give_up(self, error: EngineFault) -> None:
        logger.error("%s", error)
        self.failure = error
        self._set_ready(False)


def check_served(models: list[dict[str, Any]], url: str, *, name: str, context_length: int) -> None:
    """Is this the server we mean?

    Raises:
        EngineFault: it serves another model, or takes shorter sequences than the run's.
    """
    found = next((model for model in models if model.get("id") == name), None)
    if found is None:
        names = ", ".join(str(model.get("id")) for model in models)
        raise EngineFault(
            f"server {url} serves {names or 'nothing'}, expected {name!r}: name another URL, start it with "
            f"--served-model-name {name}, or set engine.served_name"
        )
    # A longer context at the server does no harm: the engine checks each request against the run's own.
    longest = found.get("max_model_len")
    if longest is not None and int(longest) < context_length:
        raise EngineFault(
            f"server {url} takes {longest} tokens, but the run needs {context_length} (engine.max_context): start it "
            f"with --max-model-len {context_length}, or lower engine.max_context"
        )
