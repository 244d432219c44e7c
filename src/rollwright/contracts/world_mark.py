"""Which world an episode was played in: its version, and a fingerprint of how it was built.

Not to be confused with `Environment.fingerprint`, which names one state of one episode.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rollwright import __version__
from rollwright.contracts.environment import World
from rollwright.contracts.record import WorldMark

UNVERSIONED = "0"
MAX_FILE_BYTES = 64_000_000
_SHOWN_ONLY = frozenset({"screenshots", "screenshot_scale", "draw"})
"""Options that say what is kept of an episode and change nothing in it."""


@runtime_checkable
class Versioned(Protocol):
    """A world that says which version of its rules it plays by.

    Change it whenever the same actions in the same task could bring something else.
    """

    version: str


def version_of(world: World) -> str:
    """The version that a world states; that of Rollwright for a world of ours that states none; else "0"."""
    if isinstance(world, Versioned):
        return world.version
    return __version__ if type(world).__module__.startswith("rollwright.envs.") else UNVERSIONED


def world_mark(world: World, options: Mapping[str, Any] | None = None) -> WorldMark:
    """The world's name, its version (`version_of`) and its fingerprint.

    The fingerprint is a hash of the system prompt, the step limit and the options. An option that names a file counts
    by the file's content and one that names a folder or an address not at all: the same task file at another place
    makes the same world. Tasks are not asked for, which may take long: evaluations are paired by them anyway.

    Args:
        options: what the world was built with.
    """
    kept = {name: _content(value) for name, value in (options or {}).items() if name not in _SHOWN_ONLY}
    text = json.dumps([world.name, world.instructions, world.max_turns, kept], sort_keys=True, default=repr)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return WorldMark(name=world.name, version=version_of(world), fingerprint=digest)


def _content(option: Any) -> Any:
    """The option itself, or what the file holds that it names; None for another place."""
    if not isinstance(option, str):
        return option
    try:
        if Path(option).is_file() and Path(option).stat().st_size <= MAX_FILE_BYTES:
            return hashlib.sha256(Path(option).read_bytes()).hexdigest()
    except (OSError, ValueError):  # too long for a path, not to be read
        return option
    return None if "/" in option else option
