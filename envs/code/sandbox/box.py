"""Starting bubblewrap: what the box can see, under which user it runs, and whether this machine can do it at all."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rollwright.contracts import EnvironmentUnavailable, MissingDependency
from rollwright.envs.code.sandbox.library import interpreter, mounts
from rollwright.envs.code.sandbox.limits import Limits
from rollwright.envs.code.sandbox.seccomp import seccomp_filter

log = logging.getLogger(__name__)

INSIDE = "/box"
"""Where the box sees the files of this package that run in it."""
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
    command = [*bwrap_command(Limits()), interpreter(), "-I", "-S", "-c", ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 0:
        return ""
    return (
        f"bubblewrap cannot make a box here ({done.stderr.strip()[:200] or 'no message'}): user namespaces are refused."
        " Allow them (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0, or a container "
        "started with user namespaces), or set `unsafe: true` to run untrusted code without a sandbox"
    )


def bwrap_command(
    limits: Limits, *, support: Path | None = None, seccomp_fd: int | None = None, tools: bool = False
) -> list[str]:
    """The command line up to the program that is to run.

    Of the machine there are the interpreter and its standard library; with `tools` the shell and other programs too.
    Everything that can be written is a tmpfs of `disk_mib` at /tmp: the rest of the tree, /dev and the root included,
    is read-only. No /proc: without it there is nothing to learn of other processes.
    """
    command = [*_drop_root(), "bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    if _bwrap_version() >= (0, 8):
        command.append("--disable-userns")
    command += ["--cap-drop", "ALL", "--clearenv", "--hostname", "box", "--as-pid-1"]
    for name, value in _variables().items():
        command += ["--setenv", name, value]
    command += [*mounts(tools=tools), "--dev", "/dev", "--remount-ro", "/dev"]
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


def environment() -> dict[str, str]:
    """For programs that run without a box: nothing of ours."""
    return _variables() | {"PATH": os.environ.get("PATH", "/usr/bin:/bin")}
