"""Starting a box's process from a thread that lives as long as this process does.

`bwrap --die-with-parent` kills the box when the *thread* that started it ends (PR_SET_PDEATHSIG in prctl(2)): a box
that was started by a worker of a thread pool would be gone with that pool, in the middle of somebody else's run.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

_Order = tuple[Sequence[str], dict[str, Any], "Future[subprocess.Popen[bytes]]"]


class _Starter:
    """One daemon thread; it ends with the process, and so do the boxes."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self, command: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="rollwright-boxes", daemon=True)
                self._thread.start()
        started: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((command, options, started))
        return started.result()

    def _serve(self) -> None:
        while True:
            command, options, started = self._orders.get()
            try:
                process: Any = subprocess.Popen(command, **options)
                started.set_result(process)
            except BaseException as error:
                started.set_exception(error)


_starter = _Starter()


def _after_fork() -> None:
    global _starter
    _starter = _Starter()  # a fork has none of its parent's threads


os.register_at_fork(after_in_child=_after_fork)


def popen(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen(command, **options)` for a process that must outlive the calling thread.

    Raises:
        OSError: as Popen does.
    """
    return _starter.start(command, options)
