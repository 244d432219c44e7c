"""Programs that try to leave the box, to outlive it, to eat the machine, or to forge a verdict. None may succeed.

Each program prints ESCAPED where its attack worked; the tests then look at the outcome and at the machine besides.
"""

# ruff: noqa: E501  (attack programs keep their own lines)
from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollwright.envs.code.judging import Case, judge_cases, judge_tests
from rollwright.envs.code.sandbox import ColdBox, Limits, WarmBox, unavailable_reason

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]

LIMITS = Limits(wall_s=2.0, cpu_s=2, memory_mib=256, processes=8, file_mib=4, output_kib=32, disk_mib=8)
SECRET = "a secret of the host"

# What a syscall gives: the number is x86_64's, or aarch64's where they differ.
CALL = """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(x86, arm, *args):
    number = x86 if platform.machine() == "x86_64" else arm
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
"""

# The kernel's interfaces: each call must fail.
KERNEL = {
    "ptrace": "call(101, 117, 0, 0, 0, 0)",
    "ptrace_attach_init": "call(101, 117, 16, 1, 0, 0)",
    "mount": "call(165, 40, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "umount": "call(166, 39, b'/tmp', 2)",
    "pivot_root": "call(155, 41, b'/tmp', b'/tmp')",
    "chroot": "call(161, 51, b'/tmp')",
    "unshare_user": "call(272, 97, 0x10000000)",
    "unshare_mount": "call(272, 97, 0x20000)",
    "setns": "call(308, 268, 0, 0)",
    "clone_new_user": "call(56, 220, 0x10000011, 0, 0, 0, 0)",
    "clone3": "call(435, 435, 0, 0)",
    "keyctl": "call(250, 219, 0, -3, 0, 0, 0)",
    "add_key": "call(248, 217, b'user', b'x', b'y', 1, -3)",
    "bpf": "call(321, 280, 0, 0, 0)",
    "io_uring": "call(425, 425, 1, ctypes.create_string_buffer(120))",
    "userfaultfd": "call(323, 282, 0)",
    "perf_event_open": "call(298, 241, ctypes.create_string_buffer(120), 0, -1, -1, 0)",
    "memfd": "call(319, 279, b'x', 0)",
    "shared_memory": "call(29, 194, 0, 1 << 20, 0o1777)",
    "message_queue": "call(68, 186, 0, 0o1777)",
    "process_vm_read": "call(310, 270, 1, 0, 0, 0, 0, 0)",
    "pidfd_getfd": "call(438, 438, call(434, 434, 1, 0), 0, 0)",
    "prlimit_of_init": "call(302, 261, 1, 7, ctypes.create_string_buffer(16), 0)",
    "priority_of_all": "call(141, 140, 2, 0, 19)",
    "open_by_handle": "call(304, 265, 0, 0, 0)",
    "reboot": "call(169, 142, 0xfee1dead, 672274793, 0x1234567, 0)",
    "kexec": "call(246, 104, 0, 0, 0, 0)",
    "load_module": "call(313, 273, 0, b'', 0)",
    "set_host_name": "call(170, 161, b'owned', 5)",
    "set_clock": "call(227, 112, 0, ctypes.create_string_buffer(16))",
    "kernel_log": "call(103, 116, 3, ctypes.create_string_buffer(64), 64)",
    "swap": "call(167, 224, b'/tmp/x', 0)",
    "personality": "call(135, 92, 0x0040000)",
    "i386_calls": "call(0x40000000 | 39, 10_000)",
}

# The rest: each prints ESCAPED where it got what it wanted.
PROGRAMS = {
    "network_tcp": "import socket; s = socket.create_connection(('1.1.1.1', 53), 1); print('ESCAPED')",
    "network_udp": "import socket; socket.socket(2, 2).sendto(b'x', ('8.8.8.8', 53)); print('ESCAPED')",
    "network_name": "import socket; socket.getaddrinfo('example.org', 80); print('ESCAPED')",
    "network_http": "import urllib.request as u; u.urlopen('http://127.0.0.1/', timeout=1); print('ESCAPED')",
    "loopback": "import socket; socket.create_connection(('127.0.0.1', {port}), 1); print('ESCAPED')",
    "loopback_v6": "import socket; socket.create_connection(('::1', {port}), 1); print('ESCAPED')",
    "netlink": "import socket; socket.socket(16, 3, 0); print('ESCAPED')",
    "raw_socket": "import socket; socket.socket(17, 3); print('ESCAPED')",
    "unix_socket": "import socket; socket.socket(socket.AF_UNIX); print('ESCAPED')",
    "abstract_socket": "import socket; socket.socket(1).connect('\\0rollwright'); print('ESCAPED')",
    "read_passwd": "print('ESCAPED', open('/etc/passwd').read())",
    "read_shadow": "print('ESCAPED', open('/etc/shadow').read())",
    "read_secret": "print('ESCAPED', open('{secret}').read())",
    "read_home": "import os; print('ESCAPED' if os.path.exists('{home}') else 'none')",
    "read_checkout": "import os; print('ESCAPED' if os.path.exists('{checkout}') else 'none')",
    "read_environment": "import os; print('ESCAPED' if '{secret_word}' in str(os.environ) else 'none')",
    "proc_init_root": "import os; print('ESCAPED', os.listdir('/proc/1/' + 'root'))",
    "proc_self_mem": "open('/proc/self/mem', 'r+b'); print('ESCAPED')",
    "proc_init_fd": "import os; os.listdir('/proc/1/fd'); print('ESCAPED')",
    "proc_sysrq": "open('/proc/sysrq-trigger', 'w').write('h'); print('ESCAPED')",
    "proc_core_pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x'); print('ESCAPED')",
    "sys_cgroup": "import os; os.mkdir('/sys/fs/cgroup/pids/x'); print('ESCAPED')",
    "write_usr": "open('/usr/lib/python3/owned.py', 'w'); print('ESCAPED')",
    "write_box": "open('/box/filter.bpf', 'w'); print('ESCAPED')",
    "write_root": "open('/owned', 'w'); print('ESCAPED')",
    "write_dev": "open('/dev/owned', 'w'); print('ESCAPED')",
    "write_dev_shm": "open('/dev/shm/owned', 'w').write('x' * 10**6); print('ESCAPED')",
    "write_through_link": "import os; os.symlink('/usr/owned', '/tmp/l'); open('/tmp/l', 'w'); print('ESCAPED')",
    "read_through_link": "import os; os.symlink('{secret}', '/tmp/l'); print('ESCAPED', open('/tmp/l').read())",
    "dot_dot": "print('ESCAPED', open('/tmp/../../..{secret}').read())",
    "hard_link": "import os; os.link('/usr/bin/env', '/tmp/env'); print('ESCAPED')",
    "device_node": "import os, stat; os.mknod('/tmp/d', 0o600 | stat.S_IFBLK, os.makedev(8, 0)); print('ESCAPED')",
    "raw_disk": "open('/dev/sda', 'rb'); print('ESCAPED')",
    "kernel_memory": "open('/dev/mem', 'rb'); print('ESCAPED')",
    "become_root": "import os; os.setuid(0); print('ESCAPED')",
    "set_groups": "import os; os.setgroups([0]); print('ESCAPED')",
    "set_uid_program": (
        "import os, shutil; shutil.copy('/usr/bin/id', '/tmp/i'); os.chown('/tmp/i', 0, 0); print('ESCAPED')"
    ),
    "sudo": (
        "import subprocess as s\ndone = s.run(['su', '-c', 'id'], capture_output=True)\n"
        "print('ESCAPED' if done.returncode == 0 else 'no')"
    ),
    "raise_limits": (
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY)); print('ESCAPED')"
    ),
    "raise_processes": "import resource as r; r.setrlimit(r.RLIMIT_NPROC, (4000, 4000)); print('ESCAPED')",
    "kill_init": "import os, time; os.kill(1, 9); time.sleep(0.2); raise SystemExit('still here')",
    "stop_init": "import os; os.kill(1, 19); raise SystemExit('still here')",
    "kill_all": "import os; os.kill(-1, 9)",
    "kill_parent_group": "import os; os.killpg(os.getpgid(os.getppid()) or 1, 9)",
    "steal_descriptors": (
        "import os\nfor fd in range(3, 300):\n try: os.write(fd, b'{{\"run\": 1, \"status\": 0}}')\n except OSError: pass"
    ),
    "memory": "x = []\nwhile True: x.append(bytearray(10**7))",
    "memory_map": "import mmap; m = mmap.mmap(-1, 10**9); print('ESCAPED')",
    "recursion": "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "big_number": "print('ESCAPED', len(str(7 ** 7 ** 9)))",
    "disk": "f = open('/tmp/x', 'wb')\nwhile True: f.write(b'x' * 10**6); f.flush()",
    "disk_many_files": (
        "import itertools\nfor i in itertools.count(): open(f'/tmp/{{i}}', 'wb').write(b'x' * 10**6)"
    ),
    "sparse_file": "f = open('/tmp/x', 'wb'); f.truncate(10**12); print('ESCAPED')",
    "deep_folders": "import os\nwhile True: os.mkdir('d'); os.chdir('d')",
    "unreadable_folder": "import os; os.makedirs('/tmp/a/b'); open('/tmp/a/b/c', 'w'); os.chmod('/tmp/a/b', 0)",
    "open_files": "x = [open('/dev/null') for _ in range(10_000)]; print('ESCAPED')",
    "pipes": "import os; x = [os.pipe() for _ in range(10_000)]; print('ESCAPED')",
    "fork_bomb": "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
    "thread_bomb": (
        "import threading, time\nfor _ in range(1000): threading.Thread(target=time.sleep, args=(9,)).start()\n"
        "print('ESCAPED')"
    ),
    "spawn_many": "import subprocess as s; x = [s.Popen(['sleep', '9']) for _ in range(100)]; print('ESCAPED')",
    "output_flood": "while True: print('x' * 10**6)",
    "error_flood": "import sys\nwhile True: sys.stderr.write('x' * 10**6)",
    "flood_by_child": "import os\nif os.fork(): os.wait()\nelse:\n while True: os.write(1, b'x' * 10**5)",
    "endless_loop": "while True: pass",
    "sleep": "import time; time.sleep(3600)",
    "ignore_signals": "import signal, time\nfor s in range(1, 32):\n try: signal.signal(s, signal.SIG_IGN)\n except OSError: pass\n"
    "time.sleep(3600)",
    "stop_itself": "import os; os.kill(os.getpid(), 19)",
    "stuck_in_c": "import re; re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "daemon": (
        "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        "time.sleep(1); open('/tmp/daemon', 'w').write('alive'); time.sleep(3600)"
    ),
    "daemon_holds_pipes": "import os, time\nif os.fork() == 0:\n os.setsid(); time.sleep(3600)",
    "timer_and_exec": "import os; os.execv('/bin/sh', ['sh', '-c', 'sleep 3600 & exec sleep 3600'])",
}  # fmt: skip


@pytest.fixture(scope="module")
def box() -> Iterator[WarmBox]:
    with WarmBox(limits=LIMITS) as one:
        yield one


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    """A port of this machine's own loopback that somebody listens on."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def secret() -> Iterator[Path]:
    """A file that every user of this machine could read."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(SECRET)
        file.flush()
        os.chmod(file.name, 0o644)
        yield Path(file.name)


def fits(box: WarmBox) -> bool:
    """The box still judges honest work rightly."""
    code, cases = "def f(x): return x + 1", [Case(args=(1,), expected=2)]
    return (
        judge_cases(box, code, "f", cases)[0].success
        and not judge_cases(box, "def f(x): return x", "f", cases)[0].success
    )


@pytest.mark.parametrize("name", KERNEL)
def test_kernel_interfaces_are_refused(box: WarmBox, name: str) -> None:
    code = f"{CALL}\nif ({KERNEL[name]}) >= 0: print('ESCAPED')\nelse: print('errno', ctypes.get_errno())"
    _, ended = box.run({"mode": "script", "code": code})
    assert "ESCAPED" not in ended.output and (ended.outcome == "done" or ended.outcome == "signal")
    assert "errno 1\n" in ended.output or name in ("clone3", "i386_calls")
    assert fits(box)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_box_holds(box: WarmBox, service: int, secret: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_HOST", SECRET)
    words = {"port": service, "secret": secret, "secret_word": SECRET, "home": Path.home(), "checkout": Path(__file__)}
    began = time.monotonic()
    _, ended = box.run({"mode": "script", "code": PROGRAMS[name].format(**words)})
    assert "ESCAPED" not in ended.output and SECRET not in ended.output
    assert len(ended.output) <= LIMITS.output_kib * 1024
    assert ended.wall_s < LIMITS.wall_s + 5 and time.monotonic() - began < 60
    assert fits(box)


COLD = ("loopback", "read_passwd", "read_home", "proc_init_root", "write_root", "disk", "output_flood", "fork_bomb",
        "memory", "sleep", "daemon", "kill_all", "daemon_holds_pipes", "write_dev_shm")  # fmt: skip


@pytest.mark.parametrize("name", COLD)
def test_the_cold_box_holds(service: int, secret: Path, name: str) -> None:
    words = {"port": service, "secret": secret, "secret_word": SECRET, "home": Path.home(), "checkout": Path(__file__)}
    code = PROGRAMS[name].format(**words)
    result = ColdBox(limits=LIMITS).run(["/usr/bin/python3", "-c", code])
    assert "ESCAPED" not in result.output and len(result.output) <= LIMITS.output_kib * 1024
    assert result.wall_s < LIMITS.wall_s + 30


@pytest.mark.parametrize("name", ["ptrace", "unshare_user", "bpf", "keyctl", "io_uring", "mount"])
def test_the_cold_box_has_the_filter(name: str) -> None:
    code = f"{CALL}\nif ({KERNEL[name]}) >= 0: print('ESCAPED')\nelse: print('errno', ctypes.get_errno())"
    assert ColdBox(limits=LIMITS).run(["/usr/bin/python3", "-c", code]).output == "errno 1\n"


# Forged verdicts. The task is to double a number; every program below returns something else, or nothing.
FORGERIES = {
    "always_equal": (
        "class E(int):\n def __eq__(self, o): return True\n __hash__ = int.__hash__\ndef double(x): return E(7)"
    ),
    "equal_object": "class E:\n def __eq__(self, o): return True\ndef double(x): return E()",
    "exit_zero": "import os\ndef double(x): os._exit(0)",
    "system_exit": "import sys\ndef double(x): sys.exit(0)",
    "exit_at_load": "import os; os._exit(0)",
    "patch_guest": (
        "import sys, gc\nfor m in list(sys.modules.values()):\n for n in list(vars(m)):\n"
        "  if n in ('same', 'judge', '_verdict', 'encode', 'plain'):\n   try: setattr(m, n, lambda *a, **k: True)\n"
        "   except Exception: pass\ndef double(x): return 7"
    ),
    "patch_frames": (
        "import sys\ndef double(x):\n f = sys._getframe()\n while f:\n  for k, v in list(f.f_locals.items()):\n"
        "   if 'expected' in k: return v\n   f.f_locals[k] = True\n  f = f.f_back\n return 7"
    ),
    "patch_builtins": (
        "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.sum = lambda *a: 99\n"
        "builtins.len = lambda *a: 1\ndef double(x): return 7"
    ),
    "forge_frames": (
        "import os, struct, json\nb = json.dumps({'loaded': True, 'value': True, 'passed': 9, 'verdicts': {'test': ''}})"
        ".encode()\nfor fd in range(3, 64):\n for _ in range(9):\n  try: os.write(fd, struct.pack('<I', len(b)) + b)\n"
        "  except OSError: break\ndef double(x): return 7"
    ),
    "forge_zygote": (
        "import os\nfor fd in range(3, 256):\n try: os.write(fd, b'{\"run\": \"0\", \"status\": 0, \"tidy\": true}')\n"
        " except OSError: pass\ndef double(x): return 7"
    ),
    "print_pass": "print('PASSED 3/3'); print('{\"passed\": 3}')\ndef double(x): return 7",
    "raise_odd": "class E(BaseException):\n def __str__(self): raise self\ndef double(x): raise E()",
    "search_memory": (
        "import gc\ndef double(x):\n for o in gc.get_objects():\n  if isinstance(o, dict) and 'expected' in o: return o['expected']\n"
        " return 7"
    ),
    "read_tests": (
        "import os\ndef double(x):\n for d, _, fs in os.walk('/tmp'):\n  for f in fs: return open(os.path.join(d, f)).read()\n return 7"
    ),
    "endless_answers": "def double(x):\n a = []\n a.append(a)\n return a",
    "huge_answer": "def double(x): return 'x' * 10**8",
    "deep_answer": "def double(x):\n a = []\n for _ in range(10**5): a = [a]\n return a",
    "odd_numbers": "def double(x): return float('nan')",
    "no_function": "x = 1",
    "not_python": "def double(x: return",
}  # fmt: skip
TEST = {
    "t": "def test_double():\n    assert double(4) == 8\n    assert double(9) == 18\n    assert type(double(1)) is int\n"
}


@pytest.mark.parametrize("name", FORGERIES)
def test_no_verdict_is_forged_with_cases(box: WarmBox, name: str) -> None:
    cases = [Case(args=(n,), expected=2 * n) for n in (4, 9, 21)]
    verdict, _ = judge_cases(box, FORGERIES[name], "double", cases)
    assert verdict.passed == 0 and verdict.message
    assert fits(box)


@pytest.mark.parametrize("name", FORGERIES)
def test_no_verdict_is_forged_with_tests(box: WarmBox, judge: WarmBox, name: str) -> None:
    verdict = judge_tests(box, judge, program={"code": FORGERIES[name]}, tests=TEST, names=["double"])
    assert verdict.passed == 0 and verdict.message
    assert judge_tests(
        box, judge, program={"code": "def double(x): return x * 2"}, tests=TEST, names=["double"]
    ).success


@pytest.fixture(scope="module")
def judge() -> Iterator[WarmBox]:
    with WarmBox(limits=LIMITS) as one:
        yield one


def test_nothing_of_one_run_is_seen_by_the_next(box: WarmBox) -> None:
    box.run({"mode": "script", "code": "open('/tmp/note', 'w').write('hello'); x = 'TRACE' + 'OF' + 'EARLIER'"})
    look = (
        "import gc, os\nfound = [o for o in gc.get_objects() if isinstance(o, dict) and any(v == 'TRACE' + 'OF' + "
        "'EARLIER' for v in list(o.values()) if isinstance(v, str))]\nprint(os.listdir('/tmp'), len(found))"
    )
    assert box.run({"mode": "script", "code": look})[1].output == "[] 0\n"


def test_a_stop_that_comes_too_late_harms_no_later_run(box: WarmBox) -> None:
    """What a run wrote can be read, and found too much, when the run is over for the box already."""
    assert fits(box)
    session = box.open({"mode": "script", "code": "print('done')"})
    with session:
        assert session.finish().outcome == "done"
        runs = box.started
        session._flood()
    assert all(fits(box) for _ in range(20)) and box.started == runs


def test_one_box_takes_all_this_without_being_replaced_often(box: WarmBox) -> None:
    runs = box.started
    for _ in range(20):
        box.run({"mode": "script", "code": "import os; os.fork()"})
    assert box.started - runs <= 1
