"""A phone in the process: apps on a display of widgets, data in sqlite, a clock of its own.

The interface, which every way of driving the phone shares (the in-process backend, the ADB transport):

Display     `size` (1080, 2400); `tree()` the `Widget` tree of the window on top: class name, text, description,
            resource id, hint, package, states, bounds in pixels. Resource ids are bare (`save`); a dump writes
            `package:id/save`. The tree of an open dialog is the dialog alone. Reading costs no time.
            `screenshot(scale)` a Pillow image, drawn on demand.
Input       `tap(x, y)`, `long_press(x, y)`, `double_tap(x, y)`, `swipe(x1, y1, x2, y2)` (a swipe of less than
            24 pixels is a tap, one that stays for 500 ms or more a long press), `key(code)` with Android's
            number or name (`4`, `"KEYCODE_BACK"`), `text(str)` into the focused field, `open_app(name or package)`,
            `wait(ms)`. Input that hits nothing changes nothing. No input raises, whatever its values; `open_app`
            and `key` return False for what they do not know.
Time        virtual: `now_ms`. Each touch, HOME, BACK, ENTER, `open_app` takes `STEP_MS`; typing takes none; `wait`
            takes what it is told. Nothing else moves the clock.
Data        `store`: `rows/insert/update/delete(uri, ...)` of content providers (`store.uris()` lists them),
            `setting/settings/put_setting/delete_setting(namespace, ...)`, `read_file/write_file/list_folder/...`.
            After a change from outside call `invalidate()`. `write_file(path, data)`, `read_file(path)` also here.
            `power_on(setup)` starts the phone afresh with a `Setup`, which is plain JSON (`Setup.from_json`).
State       `current_activity()` gives package and activity. `snapshot()` gives bytes, `restore(bytes)` takes up any
            phone's: exact, chance included.
Chance      pop-ups, permission questions and slow loads, by `Setup.distractors` and `Setup.seed`: drawn by a hash of
            the seed and the number of touches so far, so equal input gives equal screens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..apps import installed
from ..apps.app import App, Frame, Ui
from ..apps.settings import DEFAULTS
from ..apps.storage import Store
from ..screen import widgets as w
from ..screen.drawing import draw_display
from . import interruptions, windows
from .keys import key_code, typed_by
from .setup import Distractors, Setup

if TYPE_CHECKING:
    from PIL.Image import Image

STEP_MS = 1000
HOLD_MS, SLOP_PX = 500, 24
MAX_FIELD_CHARS = 2000
_SNAPSHOT = b"rollwright-phone-1\n"


class Phone:
    """One phone, with all apps. Not safe for use by several threads at once."""

    size = (w.WIDTH, w.HEIGHT)

    def __init__(self, setup: Setup | None = None) -> None:
        self.apps: dict[str, App] = {app.name: app for app in installed()}
        schema = "".join(app.schema for app in self.apps.values())
        providers = {uri: table for app in self.apps.values() for uri, table in app.providers.items()}
        self.store = Store(schema, providers)
        self._tree: w.Widget | None = None
        self._ui: Ui | None = None
        self._typing = ""
        self.power_on(setup or Setup())

    def power_on(self, setup: Setup) -> None:
        """Forget everything and start with the data of `setup`.

        Raises:
            KeyError, ValueError, OSError: data that does not fit a provider or a path.
        """
        self.now_ms = setup.now_ms
        self.stacks: dict[str, list[Frame]] = {}
        self.foreground = "Launcher"
        self.popup: dict[str, str] = {}
        self.message = ""
        self.touches = 0
        self.distractors: Distractors = setup.distractors
        self.seed = setup.seed
        self.store.clear()
        self._fill(setup)
        self.show_app("Launcher")
        self.invalidate()

    def _fill(self, setup: Setup) -> None:
        for settings in (DEFAULTS, setup.settings):
            for namespace, values in settings.items():
                for name, value in values.items():
                    self.store.put_setting(namespace, name, value)
        for uri, rows in setup.rows.items():
            for row in rows:
                self.store.insert(uri, row)
        for path, text in setup.files.items():
            self._make_folders(path.rpartition("/")[0])
            self.store.write_file(path, text.encode(), setup.now_ms)

    def _make_folders(self, path: str) -> None:
        if path and not self.store.is_folder(path):
            self._make_folders(path.rpartition("/")[0])
            self.store.make_folder(path)

    # The display

    def tree(self) -> w.Widget:
        """The window on top, laid out. Treat it as read-only: it is kept until something changes."""
        if self._tree is None:
            if self.popup:
                self._tree = windows.popup(self)
            else:
                self._ui = self._make_ui()
                self._tree = windows.top(self, self._ui)
        return self._tree

    def screenshot(self, scale: float = 0.5) -> Image:
        """The display as a Pillow image of `scale` times 1080x2400.

        Raises:
            MissingDependency: Pillow is not installed.
            ValueError: the scale is not within (0, 1].
        """
        top = self.tree()
        return draw_display(
            top,
            self.screen_below() if top.style == "dialog" else None,
            colours={app.name: app.colour for app in self.apps.values()},
            app=self.foreground,
            dark=self.store.setting("secure", "ui_night_mode") == "2",
            now_ms=self.now_ms,
            scale=scale,
        )

    def screen_below(self) -> w.Widget:
        """The app's own screen, also where a dialog lies above it: what a picture shows behind the dialog."""
        return windows.below(self, self._make_ui())

    def current_activity(self) -> tuple[str, str]:
        """Package and activity, such as `("org.rollwright.contacts", ".MainActivity")`."""
        screen = self.frame.screen
        return self.app.package, f".{''.join(part.capitalize() for part in screen.split('_'))}Activity"

    def invalidate(self) -> None:
        """Draw the screen anew at the next look. To be called after a change of the store from outside."""
        self._tree = self._ui = None
        self._typing = ""

    @property
    def app(self) -> App:
        """The app in the foreground."""
        return self.apps[self.foreground]

    @property
    def frame(self) -> Frame:
        """The frame of the screen in the foreground."""
        return self.stacks[self.foreground][-1]

    def _make_ui(self) -> Ui:
        return Ui(self, self.app, self.frame)

    # Input

    def tap(self, x: float, y: float) -> None:
        """Touch the display at a pixel."""
        self._touch(x, y, long=False)

    def long_press(self, x: float, y: float) -> None:
        """Touch and hold; where nothing listens to that, it is a tap."""
        self._touch(x, y, long=True)

    def double_tap(self, x: float, y: float) -> None:
        """Two taps at one place."""
        self.tap(x, y)
        self.tap(x, y)

    def swipe(self, x1: float, y1: float, x2: float, y2: float, duration_ms: float = 300) -> None:
        """Drag from the first point to the second: the content follows the finger."""
        if abs(x2 - x1) < SLOP_PX and abs(y2 - y1) < SLOP_PX:
            return self._touch(x1, y1, long=duration_ms >= HOLD_MS)
        root = self.tree()
        moved = [v for v in root.walk() if v.scrollable and _inside(v.bounds, x1, y1)]
        if moved and abs(y2 - y1) >= abs(x2 - x1):
            view = moved[-1]
            page = view.bounds[3] - view.bounds[1]
            wanted = view.offset + int(max(-page, min(y1 - y2, page)))
            self.frame.scroll[view.resource_id] = max(0, min(wanted, view.content_height - page))
        self._pass_time(STEP_MS)
        return None

    def key(self, code: int | str) -> bool:
        """Press a key by Android's number or name. False where the key is not known."""
        number = key_code(code)
        if number is None:
            return False
        if number in (3, 4, 66, 111, 160):
            self.message = ""
            actions = {3: self._home, 4: self._back, 111: self._back}
            actions.get(number, self._enter)()
            self._pass_time(STEP_MS)
        elif number == 67:
            self._edit(lambda text: text[:-1])
        elif letters := typed_by(number):
            self.text(letters)
        return True

    def text(self, text: str) -> bool:
        """Type into the focused field, at its end. False where no field has the focus."""
        clean = "".join(letter for letter in text if letter.isprintable())
        return self._edit(lambda old: (old + clean)[:MAX_FIELD_CHARS])

    def open_app(self, name: str) -> bool:
        """Open an app by its name in the launcher (any case) or its package. False where there is none."""
        wanted = name.strip().casefold()
        for app in self.apps.values():
            if wanted in (app.name.casefold(), app.package):
                self.message = ""
                if not self._popup_blocks():
                    self.show_app(app.name)
                self._pass_time(STEP_MS)
                return True
        return False

    def wait(self, ms: int = STEP_MS) -> None:
        """Let time pass: up to one day."""
        self.now_ms += max(0, min(int(ms), 86_400_000))
        self.invalidate()

    def _touch(self, x: float, y: float, *, long: bool) -> None:
        hit = w.widget_at(self.tree(), int(x), int(y))
        self.message = ""
        if hit is not None and hit.enabled:
            handler = hit.on_long_press if long and hit.on_long_press else hit.on_tap
            if handler is not None:
                handler()
        self._pass_time(STEP_MS)

    def _pass_time(self, ms: int) -> None:
        self.now_ms += ms
        self.touches += 1
        if not self.popup:
            self.popup = interruptions.notice(self.distractors, self.seed, self.touches)
        self.invalidate()

    def _edit(self, change: Callable[[str], str]) -> bool:
        if self.popup or not self.frame.focus or self.frame.ready_ms > self.now_ms:
            return False
        rid = self.frame.focus
        # Between two letters nothing else happens, so the field is looked for once and not per letter.
        if self._typing != rid and not any(view.editable and view.focused for view in self.tree().walk()):
            return False
        self.frame.fields[rid] = change(self.frame.fields.get(rid, ""))
        self.invalidate()
        self._typing = rid
        return True

    def _enter(self) -> None:
        rid = self.frame.focus
        self.tree()
        ui = self._ui
        if self.popup or not rid or ui is None:
            return
        if rid in ui.multiline:
            self.frame.fields[rid] = (self.frame.fields.get(rid, "") + "\n")[:MAX_FIELD_CHARS]
        elif rid in ui.on_enter:
            ui.on_enter[rid]()
        else:
            self.frame.focus = ""

    def _home(self) -> None:
        if not self._popup_blocks():
            self.foreground = "Launcher"
            self.stacks["Launcher"] = [Frame()]

    def _back(self) -> None:
        if self.popup:
            if self.popup["kind"] == "notice":
                self.popup = {}
        elif self.frame.dialog:
            self.frame.dialog, self.frame.dialog_args, self.frame.focus = "", {}, ""
        elif self.foreground != "Launcher":
            self.pop(1)

    def _popup_blocks(self) -> bool:
        """A notice goes away with the app it covers; a permission question has to be answered first."""
        if self.popup.get("kind") == "notice":
            self.popup = {}
        return bool(self.popup)

    # What apps do

    def push(self, screen: str, args: dict[str, Any]) -> None:
        """Open a screen of the app in the foreground."""
        self.frame.focus = ""
        self.stacks[self.foreground].append(Frame(screen=screen, args=args, ready_ms=self._ready_ms()))

    def pop(self, screens: int = 1) -> None:
        """Close screens of the app in the foreground; past its first one lies the launcher."""
        stack = self.stacks[self.foreground]
        del stack[max(len(stack) - screens, 0) :]
        if not stack:
            del self.stacks[self.foreground]
            self.foreground = "Launcher"
            self.stacks.setdefault("Launcher", [Frame()])

    def show_app(self, name: str, screen: str = "", args: dict[str, Any] | None = None) -> None:
        """Bring an app to the foreground where it was left, or at `screen`."""
        self.foreground = name
        fresh = name not in self.stacks
        stack = self.stacks.setdefault(name, [Frame(ready_ms=self._ready_ms())])
        if screen:
            stack.append(Frame(screen=screen, args=args or {}))
        app = self.apps[name]
        if fresh and app.permission and self.distractors != "none" and not self.permission():
            self.popup = interruptions.question(app)

    def _ready_ms(self) -> int:
        """When a screen opened now will have loaded. One that loads at once is ready already."""
        if self.foreground == "Launcher":
            return 0
        steps = interruptions.loading_steps(self.distractors, self.seed, self.touches)
        return self.now_ms + steps * STEP_MS if steps else 0

    # Permissions

    def permission(self) -> str:
        """What the app in the foreground was told: `granted`, `denied`, or empty where nobody asked yet."""
        return self.store.setting("permission", self.app.package) or ""

    def grant(self, answer: str) -> None:
        """Answer the question of the app in the foreground."""
        self.store.put_setting("permission", self.app.package, answer)
        self.popup = {}

    # Files, for those who do not want to name the time

    def read_file(self, path: str) -> bytes:
        """As `Store.read_file`."""
        return self.store.read_file(path)

    def write_file(self, path: str, data: bytes) -> None:
        """As `Store.write_file`, dated now."""
        self.store.write_file(path, data, self.now_ms)
        self.invalidate()

    # Snapshots

    def snapshot(self) -> bytes:
        """The whole state: a line of JSON for the screens, then the database."""
        stacks = {name: [frame.as_json() for frame in stack] for name, stack in self.stacks.items()}
        # The order of the keys is part of nothing, so plain insertion order will do.
        head = [self.now_ms, stacks, self.foreground, self.popup, self.message]
        head += [self.touches, self.distractors, self.seed]
        return _SNAPSHOT + json.dumps(head).encode() + b"\n" + self.store.save()

    def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot.

        Raises:
            ValueError: these are not the bytes of a phone's snapshot.
        """
        if not state.startswith(_SNAPSHOT):
            raise ValueError("these bytes are no snapshot of a phone; use what `snapshot()` gave")
        line, _, database = state[len(_SNAPSHOT) :].partition(b"\n")
        head = json.loads(line)
        self.now_ms, stacks, self.foreground, self.popup, self.message = head[:5]
        self.touches, self.distractors, self.seed = head[5:]
        self.stacks = {name: [Frame(*frame) for frame in stack] for name, stack in stacks.items()}
        self.store.load(database)
        self.invalidate()

    def close(self) -> None:
        """Free the database. The phone cannot be used any more."""
        self.store.close()


def _inside(box: w.Box, x: float, y: float) -> bool:
    return box[0] <= x < box[2] and box[1] <= y < box[3]
