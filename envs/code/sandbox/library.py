"""What of this machine a box shows: one Python, its standard library, and the shared libraries that these two load.

Nothing that is installed beside the library is there: no site-packages or dist-packages of any prefix, no programs, no
data of other packages. A benchmark's solutions that somebody installed for the whole machine are not to be imported.
"""

from __future__ import annotations

import functools
import glob
import json
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rollwright.contracts import EnvironmentUnavailable

_INSTALLED = ("site-packages", "dist-packages")
_TOOLS = ("/usr/bin", "/usr/sbin", "/usr/lib64", "/etc/alternatives")

# Asked of the interpreter itself: where its library lies, and which files are mapped once every extension is loaded.
# libgcc_s is loaded when a thread ends, libstdc++ by extensions of packages that a world names.
_LOOK = """
import ctypes, json, os, sys, sysconfig
folders = sorted({os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")})
files = [os.path.join(f, "lib-dynload", n) for f in folders for n in sorted(os.listdir(f + "/lib-dynload"))
         if n.endswith(".so") and not n.startswith(("_tkinter", "_test", "_xx", "xx"))
         ] if all(os.path.isdir(f + "/lib-dynload") for f in folders) else []
for file in [*files, "libgcc_s.so.1", "libstdc++.so.6"]:
    try: ctypes.CDLL(file)
    except OSError: pass
lines = [line.split(maxsplit=5) for line in open("/proc/self/maps")]
mapped = sorted({line[5].strip() for line in lines if len(line) == 6 and ".so" in line[5]} - set(files))
print(json.dumps({"folders": folders, "libraries": mapped, "cache_tag": sys.implementation.cache_tag}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """Folders of the standard library, real paths of shared libraries, and the tag of the Python's byte code."""

    folders: tuple[str, ...]
    libraries: tuple[str, ...]
    cache_tag: str


@functools.cache
def interpreter() -> str:
    """The Python that runs inside: this one, or the system's where the box's user could not read this one.

    Raises:
        EnvironmentUnavailable: there is no such Python.
    """
    own = os.path.realpath(sys.executable)
    for path in (own, "/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(path) and (os.getuid() != 0 or _readable_by_all(Path(os.path.realpath(path)))):
            return os.path.realpath(path)
    raise EnvironmentUnavailable(
        f"the sandbox drops root's rights, and {own} cannot be read without them: apt-get install python3, or start "
        "Rollwright as another user"
    )


def _readable_by_all(path: Path) -> bool:
    folders = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    return folders and bool(path.stat().st_mode & stat.S_IROTH)


@functools.cache
def library() -> Library:
    """Where the interpreter's parts lie.

    Raises:
        EnvironmentUnavailable: the interpreter does not start.
    """
    command = [interpreter(), "-I", "-S", "-c", _LOOK]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, check=False)
    if done.returncode != 0:
        raise EnvironmentUnavailable(f"the sandbox's Python, {interpreter()}, does not start: {done.stderr[-300:]}")
    found = json.loads(done.stdout)
    return Library(
        folders=tuple(found["folders"]), libraries=tuple(found["libraries"]), cache_tag=str(found["cache_tag"])
    )


@functools.cache
def mounts(*, tools: bool = False) -> tuple[str, ...]:
    """Arguments of bubblewrap that show the interpreter, its library and what it loads, all read-only.

    Args:
        tools: the shell too, with the machine's other programs and their shared libraries; no packages either way.
    """
    found = library()
    shown = list(found.folders)
    if tools:
        shown += [*filter(os.path.isdir, _TOOLS), *sorted({os.path.dirname(path) for path in found.libraries})]
    command = _links_of_the_root(tools)
    for folder in dict.fromkeys(shown):
        if not any(folder.startswith(f"{other}/") for other in shown):
            command += ["--ro-bind", folder, folder]
    files: dict[str, list[str]] = {}
    for path in (interpreter(), *found.libraries, *_loaders()):
        if not any(path.startswith(f"{folder}/") for folder in shown):
            files = _file(path) | files
    command += [word for words in files.values() for word in words]
    for path in _places_of_packages(shown):
        command += ["--size", "4096", "--tmpfs", path, "--remount-ro", path]
    outside = sorted({os.path.dirname(path) for path in found.libraries if not path.startswith(("/usr/lib", "/lib"))})
    return (*command, *(["--setenv", "LD_LIBRARY_PATH", ":".join(outside)] if outside else []))


def _links_of_the_root(tools: bool) -> list[str]:
    command: list[str] = []
    for name in ("/bin", "/lib", "/lib64", "/lib32", *(["/sbin"] if tools else [])):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif tools:
            command += ["--ro-bind-try", name, name]
    return command


def _places_of_packages(shown: Sequence[str]) -> list[str]:
    """Folders inside what is shown in which packages are installed: an empty one covers each."""
    found = {place for folder in shown for name in _INSTALLED for place in glob.glob(f"{folder}/**/{name}")}
    found |= {f"{folder}/{name}" for folder in shown for name in _INSTALLED}
    return sorted(path for path in found if os.path.isdir(path) and not os.path.islink(path))


def _loaders() -> list[str]:
    """The dynamic loader under the names by which programs ask for it, their folders resolved."""
    named = glob.glob("/lib*/ld-linux*.so.*") + glob.glob("/lib*/ld-musl*.so.*")
    return [os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) for path in named]


def _file(path: str) -> dict[str, list[str]]:
    """A file, and the links beside it that name it: programs ask for libz.so.1, the file is libz.so.1.2.13."""
    real, (folder, name) = os.path.realpath(path), os.path.split(path)
    found = {path: ["--ro-bind", real, path]}
    for entry in os.scandir(folder) if path == real else ():
        alike = entry.name.startswith(name.partition(".so")[0].rstrip("0123456789.-"))
        if alike and entry.is_symlink() and os.path.realpath(entry.path) == real:
            found[entry.path] = ["--symlink", name, entry.path]
    return found
