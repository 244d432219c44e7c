"""Starting bubblewrap: what the box can see, under which user it runs, and whether this machine can do it at all."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib.util
import itertools
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from rollwright.envs.code.sandbox.limits import Limits
from rollwright.envs.code.sandbox.seccomp import seccomp_filter
from rollwright.errors import EnvironmentUnavailable, MissingDependency

log = logging.getLogger(__name__)

INSIDE = "/box"
"""Where the box sees the files of this package that run in it."""
_GUESTS = ("zygote.py", "guest.py", "plain.py", "remote.py")
_PYTEST = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli")
_PREFIX, _IN_USE = "rollwright-box-", "in_use"
_FIRST_UID = 700_000_000
_counter = itertools.count()


def unavailable_reason() -> str:
    """Why untrusted code cannot be boxed here, with what to do; empty where it can."""
    try:
        seccomp_filter()
        interpreter()
    except (EnvironmentUnavailable, MissingDependency) as error:
        return str(error)
    return _probe()


def is_available() -> bool:
    """Whether programs can be boxed on this machine."""
    return not unavailable_reason()


def require() -> None:
    """Raise where there is no sandbox.

    Raises:
        MissingDependency: bubblewrap is not installed.
        EnvironmentUnavailable: the kernel or a container policy refuses what the box is made of.
    """
    seccomp_filter()
    interpreter()
    if reason := _probe():
        raise (MissingDependency if not shutil.which("bwrap") else EnvironmentUnavailable)(reason)


@functools.cache
def _probe() -> str:
    if sys.platform != "linux":
        return f"the code sandbox needs Linux namespaces; this is {sys.platform}"
    if not shutil.which("bwrap"):
        return "the code sandbox needs bubblewrap, which is not installed: apt-get install bubblewrap"
    command = [*bwrap_command(Limits()), "/usr/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 0:
        return ""
    return (
        f"bubblewrap cannot make a box here ({done.stderr.strip()[:200] or 'no message'}): user namespaces are refused."
        " Allow them (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0, or a container "
        "started with user namespaces), or set `unsafe: true` to run untrusted code without a sandbox"
    )


@functools.cache
def interpreter() -> str:
    """The Python that runs inside: this one, or the system's where the box's user could not read this one.

    Raises:
        EnvironmentUnavailable: there is no such Python.
    """
    own = os.path.realpath(sys.executable)
    for path in (own, "/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(path) and (os.getuid() != 0 or _readable_by_all(Path(os.path.realpath(path)))):
            return path
    raise EnvironmentUnavailable(
        f"the sandbox drops root's rights, and {own} cannot be read without them: apt-get install python3, or start "
        "Rollwright as another user"
    )


def _readable_by_all(path: Path) -> bool:
    folders = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    return folders and bool(path.stat().st_mode & stat.S_IROTH)


def bwrap_command(limits: Limits, *, support: Path | None = None, seccomp_fd: int | None = None) -> list[str]:
    """The command line up to the program that is to run.

    Everything that can be written is a tmpfs of `disk_mib` at /tmp: the rest of the tree, /dev and the root included,
    is read-only. No /proc: without it there is nothing to learn of other processes.
    """
    command = [*_drop_root(), "bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    if _bwrap_version() >= (0, 8):
        command.append("--disable-userns")
    command += ["--cap-drop", "ALL", "--clearenv", "--hostname", "box", "--as-pid-1"]
    for name, value in _variables().items():
        command += ["--setenv", name, value]
    command += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        command += _system_folder(f"/{name}")
    prefix = os.path.realpath(sys.base_prefix)
    if interpreter() == os.path.realpath(sys.executable) and not prefix.startswith("/usr"):
        command += ["--ro-bind", prefix, prefix]
    command += ["--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--size", str(limits.disk_mib * 2**20), "--tmpfs", "/tmp"]
    if support is not None:
        command += ["--ro-bind", str(support), INSIDE]
    command += ["--remount-ro", "/", "--chdir", "/tmp"]
    if seccomp_fd is not None:
        command += ["--seccomp", str(seccomp_fd)]
    return [*command, "--"]


def _variables() -> dict[str, str]:
    # Hashes of text must not change from run to run: the order of a set is part of an observation.
    return {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "TMPDIR": "/tmp"}


def _system_folder(path: str) -> list[str]:
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind-try", path, path]


def _drop_root() -> list[str]:
    """As root: an own user for each box. Limits on processes do not bind root, and what is not root reads nothing."""
    if os.getuid() != 0:
        return []
    uid = str(_FIRST_UID + (os.getpid() * 1000 + next(_counter) % 1000) % 1_000_000_000)
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


@functools.cache
def _bwrap_version() -> tuple[int, ...]:
    said = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(part) for part in said.split()[-1].split(".") if part.isdigit()) if said.split() else (0,)


def _own(folder: Path) -> None:
    """Mark a folder as that of a running process: the lock is gone with the last of those that hold it open."""
    mark = folder / "being_locked"
    held = os.open(mark, os.O_CREAT | os.O_RDWR)  # never closed
    fcntl.flock(held, fcntl.LOCK_EX)
    mark.rename(folder / _IN_USE)


def clear_up_after_the_dead() -> None:
    """Remove the folders of processes that were killed: they could not do it themselves."""
    for mark in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_IN_USE}"):
        with contextlib.suppress(OSError), mark.open("rb") as file:  # another user's, or somebody still holds it
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent, ignore_errors=True)


@functools.cache
def support_folder() -> Path:
    """A folder that any user can read: the modules that run inside, the filter, pytest where it is installed."""
    clear_up_after_the_dead()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    _own(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # The same dotted names as outside; without the packages' own __init__ files, which would import the host's half.
    package = folder / "rollwright" / "envs" / "code" / "sandbox"
    package.mkdir(parents=True)
    for name in _GUESTS:
        shutil.copy(Path(__file__).with_name(name), package / name)
    (folder / "filter.bpf").write_bytes(seccomp_filter())
    for name in _PYTEST:
        _copy_package(name, folder / "site")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def _copy_package(name: str, target: Path) -> None:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return
    if found.submodule_search_locations:
        shutil.copytree(Path(found.origin).parent, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(exist_ok=True)
        shutil.copy(found.origin, target)


def environment() -> dict[str, str]:
    """For programs that run without a box: nothing of ours."""
    return _variables() | {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
