"""One event loop in a thread of its own: environments such as browsers live on it for the whole run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """An asyncio loop that outlives single calls. `run` blocks the caller and re-raises what the coroutine raised."""

    def __init__(self, name: str = "rollout-loop") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt in the caller must not leave episodes running behind it
            raise

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it without waiting; cancelling the future cancels the coroutine."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Stop the loop and end its thread. Idempotent."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10.0)
        if not self._thread.is_alive():
            self._loop.close()
