"""The sandbox beside the attacks: where it is refused, unsafe mode, the filter's program, plain data, how runs end."""

from __future__ import annotations

import errno
import math
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwright.contracts.errors import EnvironmentUnavailable
from rollwright.envs.code.judging import same
from rollwright.envs.code.sandbox import BoxPool, ColdBox, Limits, NotPlain, WarmBox, box, packages, unavailable_reason
from rollwright.envs.code.sandbox.plain import decode, encode, split_frames, to_frame
from rollwright.envs.code.sandbox.seccomp import AARCH64, X86_64, seccomp_filter

boxed = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose kernel allows no user namespaces."""
    monkeypatch.setattr(box, "_probe", lambda: "user namespaces are refused")
    monkeypatch.setattr(box.shutil, "which", lambda name: f"/usr/bin/{name}")


def test_without_user_namespaces_nothing_is_run(refused: None) -> None:
    for make in (WarmBox, ColdBox):
        with pytest.raises(EnvironmentUnavailable, match="user namespaces are refused"):
            make()


def test_unsafe_runs_with_limits_and_a_warning(refused: None, caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(wall_s=1.0, cpu_s=1, memory_mib=512, output_kib=4)
    with WarmBox(unsafe=True, limits=limits) as warm:
        assert "WITHOUT a sandbox" in caplog.text and not warm.boxed
        answers, ended = warm.run(
            {"mode": "calls", "code": "def f(x): return -x"}, [{"op": "call", "target": "f", "args": [3]}]
        )
        assert answers[1] == {"value": -3} and ended.outcome == "done"
        assert warm.run({"mode": "script", "code": "import time; time.sleep(60)"})[1].outcome == "timeout"
        assert warm.run({"mode": "script", "code": "while True: print('x' * 999)"})[1].outcome == "output"
        assert "MemoryError" in warm.run({"mode": "script", "code": "x = 'x' * 10**10"})[1].output
    assert ColdBox(unsafe=True, limits=limits).shell("cat a; exit 3", files={"a": "hello"}).code == 3


def decide(program: bytes, arch: int, number: int, args: tuple[int, ...] = (0,) * 6) -> int:
    """What the kernel would do with a call: classic BPF, interpreted."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *args)
    code = [struct.unpack("<HBBI", program[i : i + 8]) for i in range(0, len(program), 8)]
    held, at = 0, 0
    while True:
        kind, if_true, if_false, k = code[at]
        at += 1
        if kind == 0x20:
            (held,) = struct.unpack_from("<I", data, k)
        elif kind == 0x06:
            return k
        else:
            hit = {0x15: held == k, 0x45: bool(held & k), 0x35: held >= k}[kind]
            at += if_true if hit else if_false


ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


@pytest.mark.parametrize(("name", "table"), [("x86_64", X86_64), ("aarch64", AARCH64)])
def test_the_filter_decides_as_meant(name: str, table) -> None:
    program, numbers = seccomp_filter(name), table.numbers

    def verdict(call: str, *args: int) -> int:
        return decide(program, table.audit_arch, numbers[call], (*args, *(0,) * (6 - len(args))))

    calls = (
        "ptrace mount keyctl bpf io_uring_setup userfaultfd unshare setns socket perf_event_open memfd_create "
        "process_vm_writev pidfd_getfd open_by_handle_at"
    )
    for call in calls.split():
        assert verdict(call) == EPERM, call
    assert verdict("clone3") == ENOSYS
    assert [verdict("clone", flags) for flags in (17, 0x3D0F00, 0x10000011, 0x20000)] == [ALLOW, ALLOW, EPERM, EPERM]
    assert [verdict("prlimit64", pid) for pid in (0, 1)] == [ALLOW, EPERM]
    assert [verdict("socketpair", family) for family in (1, 2, 16)] == [ALLOW, EPERM, EPERM]
    assert [verdict("ioctl", 0, request) for request in (0x5401, 0x5412)] == [ALLOW, EPERM]
    write = 1 if name == "x86_64" else 64
    assert decide(program, table.audit_arch, write) == ALLOW
    assert decide(program, 0x40000003, write) == KILL  # i386, or arm: other numbers
    assert name == "aarch64" or decide(program, table.audit_arch, write | 0x40000000) == KILL


def test_an_unknown_machine_has_no_filter() -> None:
    with pytest.raises(EnvironmentUnavailable, match="sparc"):
        seccomp_filter("sparc")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.complex_numbers()
    | st.fractions()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.builds(range, st.integers(-9, 9), st.integers()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(inner, max_size=4).map(deque)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.sets(st.integers(), max_size=4)
        | st.frozensets(st.text(), max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_plain_data_come_back_as_they_were(value: object) -> None:
    (travelled,) = split_frames(bytearray(to_frame(encode(value))))
    assert repr(decode(travelled)) == repr(value) or decode(travelled) == value or same(decode(travelled), value)


def test_what_is_no_plain_data_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    for value in (object(), len, loop, {1: object()}):
        with pytest.raises(NotPlain):
            encode(value)
    for data in ({"q": 1}, {"d": [[[], 1]]}, {"i": "z"}, {}, {"s": [[]]}, {"b": "zz"}, {"c": [1]}):
        with pytest.raises(NotPlain):
            decode(data)
    assert same(decode(encode(math.nan)), math.nan) and not same(1, True) and not same([1], (1,))


def test_sets_of_equal_hashes_and_endless_fractions_are_refused_at_once() -> None:
    """Each would take the reader minutes: 50,000 integers with one hash, a fraction of numbers of a megabit."""
    alike = [{"i": hex(n * (2**61 - 1))} for n in range(1, 50_001)]
    hostile = [{"s": alike}, {"z": alike}, {"d": [[item, 1] for item in alike]}, {"s": [{"t": [i]} for i in alike]}]
    hostile += [
        {"n": [{"i": hex(3**10**6)}, {"i": hex(2**10**6 + 1)}]},
        {"n": [1, 0]},
        {"m": "1" * 10**6},
        {"m": "x"},
        {"m": "sNaN"},
    ]
    hostile += [{"r": [0, 9, 0]}, {"r": [0.5]}, {"q": 3}, {"n": [True, 2]}]
    began = time.process_time()
    for data in hostile:
        with pytest.raises(NotPlain):
            decode(data)
    assert time.process_time() - began < 10
    assert len(decode(encode({n * (2**61 - 1) for n in range(100)}))) == 100  # few of them are honest


@pytest.mark.parametrize("wrong", [{"wall_s": 0.0}, {"memory_mib": -1}, {"wall_s": float("inf")}, {"disk_mib": 0}])
def test_limits_must_mean_something(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


class TestInTheBox:
    pytestmark = boxed

    @pytest.mark.parametrize(
        ("code", "outcome", "said"),
        [
            ("print(1)", "done", "finished"),
            ("raise SystemExit(4)", "exit", "exit code 4"),
            ("import os; os.kill(os.getpid(), 9)", "signal", "killed by SIGKILL"),
            ("import time; time.sleep(99)", "timeout", "out of time"),
            ("print('x' * 10**6)", "output", "too much output"),
        ],
    )
    def test_how_a_run_ended(self, code: str, outcome: str, said: str) -> None:
        with WarmBox(limits=Limits(wall_s=2.0, processes=2)) as warm:
            _, ended = warm.run({"mode": "script", "code": code})
            assert (ended.outcome, ended.said) == (outcome, said)

    def test_a_box_is_replaced_after_its_runs_and_when_it_died(self) -> None:
        with WarmBox(runs_per_box=2) as warm:
            order = {"mode": "script", "code": "print(5)"}
            assert [warm.run(order)[1].output for _ in range(5)] == ["5\n"] * 5
            assert warm.started == 3
            assert warm._process is not None
            warm._process.kill()
            warm._process.wait()
            assert warm.run(order)[1].output == "5\n" and warm.started == 4

    def test_runs_are_repeatable(self) -> None:
        code = "import random; print({'a', 'b', 'c', 'd'}, hash('x'))"
        with WarmBox() as one, WarmBox() as other:
            said = {b.run({"mode": "script", "code": code})[1].output for b in (one, one, other)}
        assert len(said) == 1

    def test_a_pool_keeps_its_boxes_and_ends_them(self) -> None:
        pool = BoxPool(at_most=1)
        with pool.pair() as (one, other):
            one.start()
            other.start()
            processes = [one._process, other._process]
        with pool.pair() as again:
            assert {*again} == {one, other} and all(p.poll() is None for p in processes)
            pool.close()
        assert all(p.poll() is not None for p in processes)

    def test_a_burst_waits_for_the_boxes_there_are(self) -> None:
        pool, seen = BoxPool(at_most=3), set()
        under_way, most, lock = 0, 0, threading.Lock()

        def judge(i: int) -> str:
            nonlocal under_way, most
            with pool.box() as box:
                with lock:
                    under_way, most = under_way + 1, max(most, under_way + 1)
                seen.add(box)
                said = box.run({"mode": "script", "code": f"print({i})"})[1].output
                with lock:
                    under_way -= 1
            return said

        with ThreadPoolExecutor(24) as threads:
            assert list(threads.map(judge, range(24))) == [f"{i}\n" for i in range(24)]
        assert most == 3 == len(seen) == sum(box.started for box in seen)
        pool.close()


KILLED = """
import os, signal
from rollwright.envs.code.sandbox import packages
print(packages.support_folder(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_the_killed_leave_behind_is_cleared_up_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    left, alive = Path(done.stdout.strip()), tmp_path / "rollwright-box-alive"
    left = left.parent
    assert left.parent == tmp_path and left.is_dir(), done.stderr
    alive.mkdir()
    packages._own(alive)
    packages.clear_up_after_the_dead()
    assert alive.exists() and not left.exists()


def test_a_pipe_of_somebody_else_in_tmp_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any user of the machine may make one there, and opening it would wait for a writer for ever."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "rollwright-box-x").mkdir()
    os.mkfifo(tmp_path / "rollwright-box-x" / "in_use")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "in_use").write_text("")
    (tmp_path / "rollwright-box-link").symlink_to(tmp_path / "real")
    thread = threading.Thread(target=packages.clear_up_after_the_dead, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive() and (tmp_path / "real" / "in_use").exists()
