"""A lost box is a fault, which is done again and never a score; what a program does to itself is its own failure."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from rollwright.contracts.errors import EnvironmentFault
from rollwright.envs.code import synthesis
from rollwright.envs.code.judging import Case, Verdict, judge_cases, judge_tests
from rollwright.envs.code.repairs import repositories
from rollwright.envs.code.sandbox import BoxPool, ColdBox, Limits, WarmBox, pytest_packages, unavailable_reason
from rollwright.envs.code.sandbox.session import BoxLost

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]

LIMITS = Limits(wall_s=10.0, cpu_s=10, memory_mib=256, processes=2)
SLOW = "import time\ndef double(x):\n    time.sleep(0.4)\n    return 2 * x\n"
CASES = [Case(args=(n,), expected=2 * n) for n in (4, 9)]
TESTS = {"t": "def test_double():\n    assert double(4) == 8\n    assert double(9) == 18\n"}


def children(pid: int) -> list[int]:
    said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in said.split()]


class Killer:
    """Kills what `victim` finds in a box, some time after each of the first `times` runs began there."""

    def __init__(self, box: WarmBox, times: int, victim: Callable[[int], int]) -> None:
        self.box, self.left, self.victim, self.over = box, times, victim, False
        self.killed: list[int] = []
        self.thread = threading.Thread(target=self._work)

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over = True
        self.thread.join()

    def _work(self) -> None:
        while self.left and not self.over:
            process = self.box._process
            if process is None or self.box._runs == 0 or process.pid in self.killed:
                time.sleep(0.02)
                continue
            time.sleep(0.15)  # the run is under way by now
            with suppress(ProcessLookupError, IndexError):
                os.kill(self.victim(process.pid), signal.SIGKILL)
                self.killed.append(process.pid)
                self.left -= 1


VICTIMS = {"bubblewrap": lambda pid: pid, "zygote": lambda pid: children(pid)[0]}


def with_cases(box: WarmBox, other: WarmBox) -> Verdict:
    return judge_cases(box, SLOW, "double", CASES)[0]


def with_tests(box: WarmBox, other: WarmBox) -> Verdict:
    return judge_tests(box, other, program={"code": SLOW}, tests=TESTS, names=["double"])


def by_tests_in_it(box: WarmBox, other: WarmBox) -> Verdict:
    return judge_tests(other, box, program={"code": SLOW}, tests=TESTS, names=["double"])


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("judge", [with_cases, with_tests, by_tests_in_it])
def test_a_box_that_is_killed_from_outside_costs_no_verdict(judge: Callable, victim: str) -> None:
    with WarmBox(limits=LIMITS) as box, WarmBox(limits=LIMITS) as other:
        with Killer(box, 2, VICTIMS[victim]) as killer:
            verdict = judge(box, other)
        assert verdict.success and verdict.passed == verdict.total
        assert len(killer.killed) == 2 and box.started == 3


@pytest.mark.parametrize("judge", [with_cases, with_tests, by_tests_in_it])
def test_a_box_that_is_killed_every_time_is_a_fault_and_no_verdict(judge: Callable) -> None:
    with WarmBox(limits=LIMITS) as box, WarmBox(limits=LIMITS) as other:
        with Killer(box, 100, VICTIMS["bubblewrap"]), pytest.raises(EnvironmentFault, match="lost"):
            judge(box, other)
        assert judge(box, other).success  # and the next one is judged as ever


def test_pytest_in_a_box_that_is_killed_runs_again() -> None:
    shop = repositories.load("shop")
    pool = BoxPool(limits=repositories.LIMITS, preload=("pytest",), packages=pytest_packages())
    with pool.box() as box:
        box.start()
    with Killer(box, 1, VICTIMS["zygote"]) as killer:
        slow = {**shop.files, "conftest.py": "import time\ntime.sleep(1)\n"}
        report = repositories.run_tests(pool, shop, slow)
    assert report.passed >= 10 and not report.failed and not report.trouble and len(killer.killed) == 1
    pool.close()


def test_no_verdict_depends_on_the_thread_that_asked() -> None:
    """A pool of threads for each batch, as trainers have them: boxes that one of them started serve the next."""
    world = synthesis.build(families=["numbers"], tasks_per_family=60)
    tasks = world.tasks("train")[:60]

    def judge(task) -> bool:
        return world.judge(task, world.teacher(task)._right).success

    right = 0
    for start in range(0, 60, 10):
        with ThreadPoolExecutor(4) as threads:
            right += sum(threads.map(judge, tasks[start : start + 10]))
    assert right == 60
    boxes = world.boxes._idle
    assert 1 <= len(boxes) <= 4 and all(box.started == 1 for box in boxes)
    world.close()


def test_a_run_goes_on_when_the_thread_that_started_its_box_ends() -> None:
    with WarmBox(limits=LIMITS) as box:
        starter = threading.Thread(target=box.start)
        starter.start()
        starter.join()
        time.sleep(0.2)
        assert with_cases(box, box).success and box.started == 1


def test_one_box_serves_many_threads_one_after_the_other() -> None:
    with WarmBox(limits=LIMITS) as box:

        def double(n: int) -> list:
            calls = [{"op": "call", "target": "f", "args": [n]}]
            return box.run({"mode": "calls", "code": "def f(x): return 2 * x"}, calls)[0]

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(double, range(40)))
        assert found == [[{"loaded": True}, {"value": 2 * n}] for n in range(40)] and box.started == 1
        with box.open({"mode": "script", "code": ""}), pytest.raises(RuntimeError, match="under way"):
            box.run({"mode": "script", "code": ""})
        assert with_cases(box, box).success


def test_a_box_that_is_closed_during_a_run_is_lost_and_no_verdict() -> None:
    box = WarmBox(limits=LIMITS)
    with pytest.raises(BoxLost), box.open({"mode": "script", "code": "import time; time.sleep(5)"}) as session:
        threading.Timer(0.3, box.close).start()
        session.finish()
    assert with_cases(box, box).success
    box.close()


def test_a_fork_of_this_process_starts_boxes_of_its_own() -> None:
    with WarmBox(limits=LIMITS) as box:
        assert with_cases(box, box).success
        child = os.fork()
        if child == 0:
            try:
                code = 0 if with_cases(box, box).success else 1
            except BaseException:
                code = 2
            finally:
                os._exit(code)
        assert with_cases(box, box).success
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert with_cases(box, box).success and box.started == 1


def test_a_fork_in_the_middle_of_runs_waits_for_no_turn_of_its_parents() -> None:
    pool = BoxPool(limits=LIMITS, at_most=1)
    began = threading.Event()

    def hold() -> None:
        with pool.box():
            began.set()
            time.sleep(1.0)

    thread = threading.Thread(target=hold)
    thread.start()
    assert began.wait(60)
    if (pid := os.fork()) == 0:
        signal.alarm(30)  # ends a child that hangs
        with pool.box() as box:
            os._exit(0 if judge_cases(box, "def double(x): return 2 * x", "double", CASES)[0].success else 1)
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()
    pool.close()


def test_a_cold_box_that_is_killed_is_lost_and_one_that_kills_itself_has_failed() -> None:
    before = set(children(os.getpid()))

    def kill() -> None:
        for pid in set(children(os.getpid())) - before:
            with suppress(ProcessLookupError):  # ps, which listed itself
                os.kill(pid, signal.SIGKILL)

    timer = threading.Timer(1.0, kill)
    timer.start()
    with pytest.raises(BoxLost):
        ColdBox(limits=LIMITS).shell("sleep 9")
    timer.join()
    assert ColdBox(limits=LIMITS).shell("kill -9 $$").code == 128 + 9


SUICIDES = {
    "kill_itself": "import os\ndef double(x): os.kill(os.getpid(), 9)",
    "kill_all": "import os\ndef double(x): os.kill(-1, 9)",
    "segfault": "import ctypes\ndef double(x): ctypes.string_at(0)",
    "abort": "import os\ndef double(x): os.abort()",
    "exit": "import os\ndef double(x): os._exit(70)",
    "exit_at_load": "import os; os._exit(0)",
    "exec": "import os, sys\ndef double(x): os.execv(sys.executable, ['python', '-c', ''])",
    "close_all": "import os\ndef double(x): os.closerange(0, 64); return 2 * x",
    "memory": "def double(x): return bytearray(10**10)",
    "stack": "import ctypes, sys\nsys.setrecursionlimit(10**9)\ndef double(x): return double(x)",
    "processor": "def double(x):\n while True: pass",
    "stop": "import os\ndef double(x): os.kill(os.getpid(), 19)",
    "signals_to_the_zygote": "import os\nfor n in range(1, 65):\n try: os.kill(1, n)\n except OSError: pass",
    "interrupt_the_zygote": "import os, time\nos.kill(1, 2); time.sleep(0.1)",
    "interrupt_itself": "import os\ndef double(x): os.kill(os.getpid(), 2)",
}


@pytest.mark.parametrize("name", SUICIDES)
def test_a_program_that_ends_itself_has_failed_and_its_box_has_not(name: str) -> None:
    limits = Limits(wall_s=1.5, cpu_s=1, memory_mib=256)
    with WarmBox(limits=limits) as box, WarmBox(limits=limits) as other:
        verdicts = [judge_cases(box, SUICIDES[name], "double", CASES)[0]]
        verdicts += [judge_tests(box, other, program={"code": SUICIDES[name]}, tests=TESTS, names=["double"])]
        assert all(v.passed == 0 and v.message for v in verdicts)
        assert with_tests(box, other).success and box.started == other.started == 1
