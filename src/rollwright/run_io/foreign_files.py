"""Files of a run folder that somebody else may have made: nothing is waited for, and nothing grows without end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

MAX_SETTINGS = 200_000
"""Settings of one tree: a few lines of YAML whose parts name each other can stand for billions."""
_BAD_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError)


def open_regular(path: Path) -> BinaryIO:
    """A file opened for reading bytes.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device: a pipe without a writer would be waited for.
    """
    try:
        # Without O_NONBLOCK the open of a pipe that has no writer blocks for ever; regular files ignore the flag.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    # The descriptor is asked and not the path, as the path may name another file by now.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device; expected a file", str(path))
    return os.fdopen(descriptor, "rb")


def settings_tree(text: str) -> dict[str, Any]:
    """The settings in a YAML text.

    Raises:
        ValueError: it is no YAML, no mapping, or more than `MAX_SETTINGS` settings once its parts are put in place.
    """
    try:
        found = yaml.safe_load(text)
    except _BAD_YAML as error:  # PyYAML lets slip what its own constructors raise, such as KeyError of `!!bool x`
        raise ValueError(f"no YAML that can be read ({type(error).__name__}: {error})") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"expected settings by name, found a {type(found).__name__}")
    waiting: list[Any] = [found]
    # YAML aliases may even put a part into itself: only a bound on the walk is sure to end it.
    for _ in range(MAX_SETTINGS):
        if not waiting:
            return found
        part = waiting.pop()
        waiting += part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple | set) else ()
    raise ValueError(f"more than {MAX_SETTINGS:,} settings")
