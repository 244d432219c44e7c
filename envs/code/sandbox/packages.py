"""The folder of a box: our modules that run inside, and the packages that a world asks for by name.

Copies, or links to the files: a box's user may not even look into the place where they are installed.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import importlib.metadata
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from rollwright.contracts import ConfigError, EnvironmentUnavailable, MissingDependency
from rollwright.envs.code.sandbox.library import interpreter, library
from rollwright.envs.code.sandbox.seccomp import seccomp_filter

_HERE = "rollwright.envs.code.sandbox."
_GUESTS = tuple(_HERE + name for name in ("zygote", "guest", "plain", "remote"))
_PYTEST = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli")
_lock = threading.Lock()
_PREFIX, _IN_USE = "rollwright-box-", "in_use"


def pytest_packages() -> tuple[str, ...]:
    """The names under which pytest and what it needs are installed here: some of them only some Pythons need.

    Raises:
        MissingDependency: pytest is not installed.
    """
    if importlib.util.find_spec("pytest") is None:
        raise MissingDependency(
            "this code world runs pytest in the sandbox, and it is not installed: pip install pytest"
        )
    return tuple(name for name in _PYTEST if importlib.util.find_spec(name) is not None)


@functools.cache
def _root() -> Path:
    """A folder of this process, marked as in use for as long as the process lives."""
    clear_up_after_the_dead()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    _own(folder)
    folder.chmod(0o755)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # a fork that ends must leave its parent's folder
        shutil.rmtree(folder, ignore_errors=True)


def _own(folder: Path) -> None:
    """Mark a folder as that of a running process: the lock is gone with the last of those that hold it open."""
    mark = folder / "being_locked"
    held = os.open(mark, os.O_CREAT | os.O_RDWR)  # never closed
    fcntl.flock(held, fcntl.LOCK_EX)
    mark.rename(folder / _IN_USE)


def clear_up_after_the_dead() -> None:
    """Remove the folders of processes that were killed: they could not do it themselves."""
    for mark in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_IN_USE}"):
        with contextlib.suppress(OSError):
            if not _is_ours(mark):
                continue
            with mark.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where somebody still holds it
                shutil.rmtree(mark.parent, ignore_errors=True)


def _is_ours(mark: Path) -> bool:
    """A plain file in a folder of this user: everybody may write into /tmp, and to open a pipe of theirs has no end."""
    folder = mark.parent.lstat()
    return stat.S_ISREG(mark.lstat().st_mode) and stat.S_ISDIR(folder.st_mode) and folder.st_uid == os.getuid()


def support_folder(packages: Sequence[str] = (), trusted: Sequence[str] = ()) -> Path:
    """A folder that any user can read: the modules that run inside, the filter, and the packages under `site`.

    Args:
        packages: top-level names that programs may import, besides the standard library.
        trusted: dotted names of our own modules whose functions may be called inside.

    Raises:
        MissingDependency: a package is not installed.
        EnvironmentUnavailable: a package's binaries were made for another Python than the box's.
        ConfigError: a trusted module is no file of Python source.
    """
    with _lock:
        return _folder_of(tuple(packages), tuple(trusted))


@functools.cache
def _folder_of(packages: tuple[str, ...], trusted: tuple[str, ...]) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_root()))
    # The same dotted names as outside; without the packages' own __init__ files, which would import the host's half.
    for module in (*_GUESTS, *trusted):
        target = folder / Path(*module.split(".")).with_suffix(".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_source(module), target)
        target.chmod(0o644)
    (folder / "filter.bpf").write_bytes(seccomp_filter())
    (folder / "filter.bpf").chmod(0o644)
    for package in packages:
        _copy_package(package, folder / "site")
    _copy_metadata(packages, folder / "site")
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o755)
    if packages:  # a zygote may write no byte code; most of it was copied and is only looked at
        command = [interpreter(), "-I", "-S", "-m", "compileall", "-q", str(folder / "site")]
        subprocess.run(command, capture_output=True, check=False)
    return folder


def _show(source: str, target: str) -> None:
    """A link to a file that everybody may read, which is many times faster than a copy; else a copy."""
    if os.stat(source).st_mode & stat.S_IROTH:
        with contextlib.suppress(OSError):  # another file system, or a kernel that protects links
            os.link(source, target)
            return
    shutil.copy2(source, target)
    os.chmod(target, 0o644)


def _copy_metadata(packages: Sequence[str], target: Path) -> None:
    """The versions of the packages' distributions, which some of them ask for; no entry points, which name plug-ins."""
    known = importlib.metadata.packages_distributions() if packages else {}
    for name in sorted({name for package in packages for name in known.get(package, [])}):
        found = importlib.metadata.distribution(name)
        if text := found.read_text("METADATA"):
            folder = target / f"{name.replace('-', '_')}-{found.version}.dist-info"
            folder.mkdir(exist_ok=True)
            (folder / "METADATA").write_text(text, encoding="utf-8")
            (folder / "METADATA").chmod(0o644)


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py") or spec.submodule_search_locations:
        raise ConfigError(f"the sandbox is to hold the module {module!r}, which is no single file of Python source")
    return spec.origin


def _copy_package(name: str, target: Path) -> None:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MissingDependency(
            f"a code world needs the package {name!r} in the sandbox, and it is not installed: pip install it, or "
            "install rollwright[code]"
        )
    target.mkdir(exist_ok=True)
    if not spec.submodule_search_locations:
        _show(spec.origin, str(target / Path(spec.origin).name))
        return
    source = Path(spec.origin).parent
    for folder in (source, source.with_name(f"{name}.libs")):  # the second holds what a wheel brings to link with
        if folder.is_dir():
            shutil.copytree(folder, target / folder.name, copy_function=_show, dirs_exist_ok=True)
    native = any(path.name.endswith(tuple(EXTENSION_SUFFIXES)) for path in (target / name).rglob("*.so"))
    if native and library().cache_tag != sys.implementation.cache_tag:
        raise EnvironmentUnavailable(
            f"the sandbox's Python, {interpreter()}, cannot load the binaries of {name!r}, made for "
            f"{sys.implementation.cache_tag}: install a system Python of the same version"
        )
