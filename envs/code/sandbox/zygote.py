"""Process 1 of a warm box: forks one child per run, kills everything that the run left behind, reports how it ended.

Orders come over a socket that every child closes first. The data of a run (program, arguments, answers) pass through
descriptors that arrive with the order and that this process never reads, so its memory, of which every child is a copy,
holds nothing of any earlier run. As process 1 it cannot be killed from inside the box; being non-dumpable, it cannot be
looked into; and once it has killed all processes but itself and reaped them, nothing of the run is left.

It runs under a Python that has no Rollwright installed: standard library only.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 4, 22, 38, 2
STOP = b"stop"
THEIRS = ("/tmp", "/dev/pts", "/dev/pts/ptmx")
"""What belongs to the box's user on a file system that can be written: a program may lock the next one out of it."""
MANY_FILES = 2000
"""Above this many names in /tmp a new box is cheaper than tidying."""


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def main(control_fd: int, filter_path: str, modules: list[str], trusted: list[str]) -> None:
    """Serve orders until the other side hangs up."""
    libc = ctypes.CDLL(None, use_errno=True)
    boxed = os.getpid() == 1
    code = Path(filter_path).read_bytes() if boxed else b""
    if boxed:
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    from rollwright.envs.code.sandbox import guest

    sys.path.append(str(Path(filter_path).parent / "site"))
    for module in modules:
        importlib.import_module(module)
    guest.TRUSTED.update({name: importlib.import_module(name) for name in trusted})
    if boxed:
        _handle_no_signal()
    gc.collect()
    gc.freeze()  # a child that collects must not copy every page of the parent
    control = socket.socket(fileno=control_fd)
    control.send(b'{"ready":true}')
    untouched = _rights()
    while order := _receive(control):
        message, fds = order
        report = _serve(message, fds, control, libc, code, guest)
        report["tidy"] = not boxed or (_tidy() and _rights() == untouched)
        control.send(json.dumps(report).encode())


def _handle_no_signal() -> None:
    """Its children can send process 1 those signals alone that it handles, as Python does SIGINT: it handles none."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_IGN)


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next order and its descriptors: where to read the program, write answers, print.

    A stop that lies here was sent to a run that had ended by then: it must not touch the next one.
    """
    fds = array.array("i")
    body = STOP
    while body == STOP:
        body, extra, _, _ = control.recvmsg(65536, socket.CMSG_SPACE(3 * fds.itemsize))
    for level, kind, content in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return (json.loads(body), list(fds)) if body else None


def _serve(
    message: dict[str, Any], fds: list[int], control: socket.socket, libc: Any, code: bytes, guest: Any
) -> dict[str, Any]:
    """One run, from fork to an empty box."""
    if len(fds) != 3:
        return {"run": message.get("run"), "refused": True}
    boxed, limits = os.getpid() == 1, message["limits"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    began, begins = os.pipe()
    child = os.fork()
    if child == 0:
        _become_child(fds, begins, limits, libc, code, guest, boxed)
    for fd in (*fds, begins):
        os.close(fd)
    timed_out = _wait(child, control, limits["wall_s"])
    status = _kill_all(child, boxed)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    has_begun = os.read(began, 1) == b"1"  # all who could write are dead: there is something to read, or the end
    os.close(began)
    return {
        "run": message["run"],
        "began": has_begun,
        "status": status,
        "timeout": timed_out,
        "wall_s": time.monotonic() - started,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    }


def _wait(child: int, control: socket.socket, wall_s: float) -> bool:
    """Until the first process has ended (false), the time is up (true), or the other side says stop (false)."""
    handle = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.register(control, select.POLLIN)
        ready = poll.poll(wall_s * 1000)
        if any(fd == control.fileno() for fd, _ in ready):
            control.recv(65536)  # whatever it says, it means stop
        return not ready
    finally:
        os.close(handle)


def _kill_all(child: int, boxed: bool) -> int:
    """End every process of the run; returns the wait status of the first one."""
    status: int | None = None
    if not boxed:  # no namespace of our own: only the child's group is ours to kill
        _kill_quietly(-child)
        return os.waitpid(child, 0)[1]
    # The first process may have ended by itself: take its status before anything is killed.
    done, found = os.waitpid(child, os.WNOHANG)
    status = found if done else None
    while True:
        _kill_quietly(-1)  # all but this process; a fork that is under way is caught by the kernel
        try:
            done, found = os.waitpid(-1, 0)
        except ChildProcessError:
            return status if status is not None else signal.SIGKILL
        status = found if done == child else status


def _kill_quietly(target: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(target, signal.SIGKILL)


def _rights() -> list[tuple[int, list[str]]]:
    """Mode and extended attributes (lists of access rights among them) of what is the box's user's."""
    found = []
    for path in filter(os.path.exists, THEIRS):
        try:
            attributes = sorted(os.listxattr(path))
        except OSError:  # a file system that has none
            attributes = []
        found.append((os.stat(path).st_mode, attributes))
    return found


def _tidy() -> bool:
    """Empty /tmp. False where there is so much, or it resists so well, that the box had better be replaced."""
    seen = 0
    try:
        for _, folders, files in os.walk("/tmp"):
            seen += len(folders) + len(files)
            if seen > MANY_FILES:
                return False
        for entry in os.scandir("/tmp"):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    except (OSError, RecursionError):
        return False
    return True


def _become_child(
    fds: list[int], begins: int, limits: dict[str, Any], libc: Any, code: bytes, guest: Any, boxed: bool
) -> NoReturn:
    """Give up everything that is the zygote's, then run the program.

    What fails before `begins` is told is the machine's fault, what comes after it the program's doing.
    """
    status = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (fds[2], 1), (fds[2], 2)):
            os.dup2(source, target)
        _close_others({0, 1, 2, fds[0], fds[1], begins})
        _limit(limits, boxed)
        if boxed:
            _filter(libc, code)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("rollwright", "__main__")]:
            del sys.modules[name]
        support = os.path.dirname(os.path.abspath(__file__)).partition("/rollwright/envs")[0]
        sys.path[:] = ["", *(path for path in sys.path if path != support)]
        os.write(begins, b"1")
        os.close(begins)
        status = guest.main(fds[0], fds[1])
    except BaseException:
        os.write(2, traceback.format_exc()[-2000:].encode())
    finally:
        os._exit(status)


def _close_others(kept: set[int]) -> None:
    last = -1
    for fd in [*sorted(kept), 65536]:
        if fd > last + 1:  # an empty range means "to the end" to the kernel
            os.closerange(last + 1, fd)
        last = fd


def _limit(limits: dict[str, Any], boxed: bool) -> None:
    mib = 2**20
    wanted = {
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_AS: limits["memory_mib"] * mib,
        resource.RLIMIT_FSIZE: limits["file_mib"] * mib,
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
    }
    if boxed:  # counted per user namespace, so this process and the child are all there is at this point
        wanted[resource.RLIMIT_NPROC] = 2 + limits["processes"]
    for which, value in wanted.items():
        resource.setrlimit(which, (int(value), int(value)))


def _filter(libc: Any, code: bytes) -> None:
    held = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(held))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused the system call filter")
