"""The apps of the simulated phone, one file each, and the ground that they stand on.

`app.py` says what an app is and what it needs of the phone, `storage.py` holds the data of all apps; `installed()`
gives the apps. May import the screen; knows no phone, which runs the apps and not the other way round.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from .app import App

NAMES = (
    "launcher",
    "browser",
    "calendar",
    "clock",
    "contacts",
    "dialer",
    "files",
    "mail",
    "messages",
    "notes",
    "settings",
    "shop",
    "tasks",
)
"""Modules of this package that hold an `APP`. The launcher comes first."""


@cache
def installed() -> tuple[App, ...]:
    """All apps, in the order of the launcher."""
    return tuple(import_module(f".{name}", __name__).APP for name in NAMES)
