"""The apps of the simulated phone, one file each."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
