"""Deadlines on the main thread: an interrupt first, the end of the process for what does not react."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from rollwright.contracts.errors import StageTimeout
from rollwright.run_io.deadlines import EXIT_STALLED, deadline


def test_a_stage_in_time_is_left_alone() -> None:
    with deadline("scoring", 30.0, setting="run.score_s"):
        pass
    time.sleep(0.05)


@pytest.mark.parametrize("how", ["sleep", "lock", "compute"])
def test_a_stage_that_hangs_is_interrupted_and_named(how: str) -> None:
    told: list[StageTimeout] = []
    said = r"the weight sync has taken longer than 0\.2 s \(run\.sync_s\)"
    limit = deadline("the weight sync", 0.2, setting="run.sync_s", report=told.append)
    with pytest.raises(StageTimeout, match=said), limit:
        if how == "sleep":
            time.sleep(30)
        elif how == "lock":
            threading.Event().wait(30)
        else:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                pass
    assert len(told) == 1


def test_a_users_interrupt_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), deadline("scoring", 30.0, setting="run.score_s"):
        raise KeyboardInterrupt


def test_an_error_of_the_stage_is_its_own() -> None:
    with pytest.raises(ValueError, match="mine"), deadline("scoring", 30.0, setting="run.score_s"):
        raise ValueError("mine")


def test_zero_is_no_limit_and_other_threads_have_none() -> None:
    with deadline("scoring", 0.0, setting="run.score_s"):
        time.sleep(0.05)
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with deadline("scoring", 0.01, setting="run.score_s"):
                time.sleep(0.2)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed


def test_what_does_not_react_is_ended_with_its_process() -> None:
    code = """
import time
from rollwright.run_io.deadlines import deadline
with deadline("the weight sync", 0.2, setting="run.sync_s", grace_s=0.3):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == EXIT_STALLED
    assert "the weight sync has taken longer" in done.stderr and "does not react" in done.stderr
    assert "Thread" in done.stderr


def test_a_run_in_the_background_is_interrupted_too() -> None:
    """`nohup ... &` starts a process with interrupts ignored."""
    code = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
from rollwright.run_io.deadlines import deadline
from rollwright.contracts.errors import StageTimeout
try:
    with deadline("the weight sync", 0.2, setting="run.sync_s"):
        time.sleep(30)
except StageTimeout:
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.stdout == "stopped\n", done.stderr
