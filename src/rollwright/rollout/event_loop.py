"""One event loop in a thread of its own: environments such as browsers live on it for the whole run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from rollwright.contracts import StalledRollout

T = TypeVar("T")
log = logging.getLogger(__name__)
_BEAT_S = 0.25


class LoopThread:
    """An asyncio loop that outlives single calls. `run` blocks the caller and re-raises what the coroutine raised.

    Args:
        blocked_s: how long a single callback may block the loop (an environment that runs inline and hangs). Beyond it
            everything that waits for the loop fails with `StalledRollout`, which shows where the loop stands.
    """

    def __init__(self, name: str = "rollout-loop", *, blocked_s: float = 60.0) -> None:
        self.blocked_s = blocked_s
        self._loop = asyncio.new_event_loop()
        self._beats = 0
        self._waiting: set[Future[Any]] = set()
        self._stalled: StalledRollout | None = None
        self._closed = False
        self._loop.call_soon(self._beat)
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name=f"{name}-watch", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result.

        Raises:
            StalledRollout: something blocks the loop.
        """
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt in the caller must not leave episodes running behind it
            raise

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it without waiting; cancelling the future cancels the coroutine."""
        if self._stalled:
            coroutine.close()
            raise self._stalled
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def close(self) -> None:
        """Stop the loop and end its thread; one that is blocked is left to the process's end. Idempotent."""
        if self._loop.is_closed() or (self._closed and self._stalled):
            return
        self._closed = True
        patience_s = 1.0 if self._stalled else 10.0
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result(timeout=patience_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=patience_s)
        if not self._thread.is_alive():
            self._loop.close()

    def _beat(self) -> None:
        self._beats += 1
        self._loop.call_later(_BEAT_S, self._beat)

    def _watch(self) -> None:
        """Counts its own short sleeps, not the clock: a machine that was suspended is no hang."""
        seen, still = -1, 0
        while not self._closed:
            time.sleep(_BEAT_S)
            still = 0 if self._beats != seen else still + 1
            seen = self._beats
            if still * _BEAT_S > self.blocked_s and self._stalled is None:
                self._fail()
                return

    def _fail(self) -> None:
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)[-6:]) if frame else ""
        self._stalled = StalledRollout(
            f"the event loop of the rollouts has been blocked for {self.blocked_s:.0f} s: an environment that declares "
            f'execution "inline" hangs, or an "async" one blocks. It stands at:\n{stack}Declare execution "thread", '
            "where a call that hangs is abandoned and its episode retried"
        )
        log.error("%s", self._stalled)
        for future in list(self._waiting):
            try:
                future.set_exception(self._stalled)
            except InvalidStateError:
                continue


async def _end_others() -> None:
    """Cancel what still runs and let it clean up: a loop that is closed over it would leave it half done."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=5.0)
