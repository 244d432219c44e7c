"""The browser as a process: which one to start, what it can reach, and how nothing of it outlives us.

Each pool has a watchdog process (`watchdog.py`) that ends what the pool started when we are gone, even after a kill -9.

A browser needs no network: pages come from files or through the routes of `page.py`, and Playwright talks over a pipe.
Where the machine allows it, the browser runs in an empty network namespace, so that nothing in it (WebRTC, web sockets,
workers, prefetching, what a later version brings) reaches any host or the loopback. The flags close the known ways a
second time, and are all there is where the machine has no namespaces.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from rollwright.contracts import MissingDependency

from . import watchdog

log = logging.getLogger(__name__)

BROWSER_VARIABLE = "ROLLWRIGHT_CHROMIUM"
CLOSE_S = 5.0
"""How long a page or a browser may take to close before it is given up."""
CANDIDATES = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Besides the routing rule, which sees no web sockets: no name resolves, no proxy answers.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
    # WebRTC would send its own datagrams past the proxy.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
)

UNDRAWN = ("--disable-threaded-compositing", "--disable-threaded-animation")
"""Keep the browser from painting frames that nobody looks at: half the CPU time of an episode.

Such pages have no screenshots, and the browser's own mouse waits in them for a frame that never comes."""


def find_browser() -> str | None:
    """The Chromium to start: `ROLLWRIGHT_CHROMIUM`, the headless shell, a full Chromium; None means Playwright's own.

    The headless shell has twice the throughput of the full browser and a third of its memory.

    Raises:
        MissingDependency: the variable names a program that is not there.
    """
    chosen = os.environ.get(BROWSER_VARIABLE)
    if chosen:
        if shutil.which(chosen) is None:
            raise MissingDependency(f"{BROWSER_VARIABLE}={chosen} is no program; unset it or give a Chromium's path")
        return shutil.which(chosen)
    return next((path for name in CANDIDATES if (path := shutil.which(name))), None)


@functools.cache
def network_cut() -> tuple[str, ...]:
    """The command that starts a program in an empty network namespace; empty where the machine allows none.

    A root that may do so keeps its rights over files; another user becomes the root of a namespace of his own.
    """
    unshare = shutil.which("unshare")
    for flags in (("--net",), ("--map-root-user", "--net")) if unshare else ():
        command = (str(unshare), *flags, "--")
        try:
            done = subprocess.run([*command, "true"], capture_output=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return command
    log.info("no network namespace on this machine: the browser's own flags alone keep its pages off the network")
    return ()


def starter(program: str, folder: Path) -> str:
    """A script, written to `folder`, that starts the browser without a network; or the browser, without namespaces."""
    cut = network_cut()
    if not cut:
        return program
    script = folder / "start-browser"
    script.write_text(f'#!/bin/sh\nexec {shlex.join([*cut, program])} "$@"\n', encoding="utf-8")
    script.chmod(0o700)
    return str(script)


class Watchdog:
    """Kills every process that carries `mark` once our process is gone. One per browser pool."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(12)
        self.artifacts = Path(tempfile.mkdtemp(prefix="rollwright-browser-"))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, self.mark, str(self.artifacts)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a signal to our process group must not take the watchdog with it
            cwd="/",
        )

    def environment(self, browser: str) -> dict[str, str | float | bool]:
        """The environment to start a browser with; `browser` marks this one among those of the pool."""
        return {**os.environ, watchdog.MARK: self.mark, watchdog.ONE: browser}

    def close(self) -> None:
        """Let the watchdog end; what is left of our browsers is killed by it at once."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=watchdog.GRACE_S + 10)
        except subprocess.TimeoutExpired:
            log.warning("the browser watchdog (pid %d) did not end; killing it", self._process.pid)
            self._process.kill()


class Browser:
    """One Chromium process with its count of pages and episodes."""

    def __init__(self, handle: Any, *, draws: bool, mark: str) -> None:
        self.handle = handle
        self.mark = mark
        self.draws = draws
        self.pages = 0
        self.episodes = 0
        self.retired = False

    async def close(self) -> None:
        """Close it; one that does not obey is killed."""
        if await closes_quietly(self.handle.close()):
            return
        killed = await asyncio.to_thread(watchdog.kill_browser, self.mark)
        if killed:
            log.warning("a browser did not close within %g s; %d processes were killed", CLOSE_S, killed)


async def closes_quietly(call: Awaitable[Any]) -> bool:
    """Close something that may be gone already; False where it did not say that it has closed."""
    try:
        await asyncio.wait_for(call, CLOSE_S)
    except Exception as error:
        log.debug("while closing: %s", first_line(error))
        return False
    return True


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message: Playwright's messages carry whole call logs."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
