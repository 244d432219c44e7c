"""What drives a phone: one protocol, so that the same tasks and policies run in process and over ADB.

`InProcess` is a `Phone` in this process. Input takes pixels of the display; `carry_out` in `phone_actions.py`
turns a policy's action into these calls, the same way for every backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .apps.storage import Row, Value
from .handset.setup import Setup
from .handset.simulated_phone import Phone
from .screen.drawing import to_png
from .screen.widgets import Widget

DELETE = "KEYCODE_DEL"


class CannotType(ValueError):
    """The phone does not take this text: Android's `input` knows only the keys of its keyboard."""


class DeviceState(Protocol):
    """What a task's verdict may read: the device's data, never its screen."""

    def rows(self, uri: str, where: str = "", args: Sequence[Value] = ()) -> list[Row]:
        """Rows of a content provider by `_id`. Raises KeyError or ValueError for what it cannot answer."""
        ...

    def setting(self, namespace: str, name: str) -> str | None:
        """The value of a setting; None where it has none."""
        ...

    def file(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        ...

    def files(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; empty where there is no such folder."""
        ...

    def activity(self) -> tuple[str, str]:
        """Package and activity in the foreground."""
        ...


class Backend(DeviceState, Protocol):
    """A phone that can be reset, seen and touched."""

    size: tuple[int, int]

    def reset(self, setup: Setup) -> None:
        """Start afresh with this setup."""
        ...

    def tree(self) -> Widget:
        """The screen as widgets with bounds in pixels. Read-only."""
        ...

    def tap(self, x: int, y: int) -> None:
        """Touch the display at a pixel."""
        ...

    def long_press(self, x: int, y: int) -> None:
        """Touch and hold."""
        ...

    def swipe(self, x1: int, y1: int, x2: int, y2: int) -> None:
        """Drag from the first point to the second."""
        ...

    def key(self, name: str) -> bool:
        """Press `KEYCODE_...`; False where the key is not known."""
        ...

    def erase(self, count: int) -> None:
        """Press delete so often."""
        ...

    def text(self, text: str) -> None:
        """Type into the field that has the focus. Raises CannotType for letters that the phone does not take."""
        ...

    def open_app(self, name: str) -> bool:
        """False where no app has that name."""
        ...

    def wait(self, ms: int) -> None:
        """Let milliseconds pass on the phone."""
        ...

    def screenshot(self, scale: float = 0.5) -> bytes:
        """The display as PNG."""
        ...

    def snapshot(self) -> bytes:
        """The whole state as bytes."""
        ...

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        ...

    def close(self) -> None:
        """Free what is held. May be called twice."""
        ...


class Phones(Protocol):
    """Where a world gets its backends from, if not from this process."""

    def take(self) -> Backend:
        """A phone that nobody else uses; closing the backend gives it back."""
        ...

    def close(self) -> None:
        """May be called twice."""
        ...


class InProcess:
    """The simulated phone, called directly: about a hundred microseconds a step."""

    def __init__(self) -> None:
        self.phone = Phone()
        self.size = self.phone.size

    def reset(self, setup: Setup) -> None:
        """Start the phone afresh with this setup."""
        self.phone.power_on(setup)

    def tree(self) -> Widget:
        """The window on top, laid out. Read-only."""
        return self.phone.tree()

    def tap(self, x: int, y: int) -> None:
        """Touch the display at a pixel."""
        self.phone.tap(x, y)

    def long_press(self, x: int, y: int) -> None:
        """Touch and hold."""
        self.phone.long_press(x, y)

    def swipe(self, x1: int, y1: int, x2: int, y2: int) -> None:
        """Drag from the first point to the second."""
        self.phone.swipe(x1, y1, x2, y2)

    def key(self, name: str) -> bool:
        """Press `KEYCODE_...`; False where the key is not known."""
        return self.phone.key(name)

    def erase(self, count: int) -> None:
        """Press delete so often."""
        for _ in range(count):
            self.phone.key(DELETE)

    def text(self, text: str) -> None:
        """Type into the field that has the focus; any letters."""
        self.phone.text(text)

    def open_app(self, name: str) -> bool:
        """Open an app by its name or package; False where there is none."""
        return self.phone.open_app(name)

    def wait(self, ms: int) -> None:
        """Let milliseconds pass on the phone's clock."""
        self.phone.wait(ms)

    def screenshot(self, scale: float = 0.5) -> bytes:
        """Raises MissingDependency where Pillow is not installed."""
        return to_png(self.phone.screenshot(scale))

    def rows(self, uri: str, where: str = "", args: Sequence[Value] = ()) -> list[Row]:
        """Rows of a content provider by `_id`."""
        return self.phone.store.rows(uri, where, args)

    def setting(self, namespace: str, name: str) -> str | None:
        """The value of a setting; None where it has none."""
        return self.phone.store.setting(namespace, name)

    def file(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            return self.phone.store.read_file(path)
        except FileNotFoundError:
            return None

    def files(self, folder: str) -> list[str]:
        """Names of the files directly in a folder; empty where there is no such folder."""
        try:
            return self.phone.store.list_folder(folder)[1]
        except FileNotFoundError:
            return []

    def activity(self) -> tuple[str, str]:
        """Package and activity in the foreground."""
        return self.phone.current_activity()

    def snapshot(self) -> bytes:
        """The whole state as bytes."""
        return self.phone.snapshot()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        self.phone.restore(state)

    def close(self) -> None:
        """The phone is kept until nobody refers to it any more: sqlite frees its memory then."""
