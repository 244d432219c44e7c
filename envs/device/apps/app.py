"""What an app is, what its screens can do, and what both need of a phone: the ground that all apps stand on.

A screen is a function from a `Ui` to a tree of widgets. It keeps nothing: it reads the phone's store and its own
frame (a few JSON values: where it is, what was typed, which dialog is open), so the phone can rebuild it at any time
and a snapshot needs no code. What a widget does when it is tapped is a function that changes store or frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from ..screen import widgets as w
from .storage import Store, Value

Handler = w.Handler
Screen = Callable[["Ui"], w.Widget]


@dataclass(frozen=True, kw_only=True)
class App:
    """One app: its name in the launcher, its tables, its screens.

    `schema`: `CREATE TABLE` statements; every table has `_id INTEGER PRIMARY KEY`. `providers`: content uri to table.
    `screens` and `dialogs` by name; the screen `main` comes first. `permission`: what it asks for when first opened,
    empty for nothing.
    """

    name: str
    package: str
    screens: Mapping[str, Screen]
    dialogs: Mapping[str, Screen] = field(default_factory=dict)
    schema: str = ""
    providers: Mapping[str, str] = field(default_factory=dict)
    permission: str = ""
    colour: str = "#3367d6"


@dataclass(slots=True)
class Frame:
    """One screen on an app's back stack. JSON values only."""

    screen: str = "main"
    args: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    scroll: dict[str, int] = field(default_factory=dict)
    focus: str = ""
    dialog: str = ""
    dialog_args: dict[str, Any] = field(default_factory=dict)
    ready_ms: int = 0

    def as_json(self) -> list[Any]:
        """The values in the order of the fields."""
        return [getattr(self, name) for name in self.__slots__]


class Platform(Protocol):
    """What apps and windows need of the phone that they run on."""

    apps: dict[str, App]
    store: Store
    now_ms: int
    popup: dict[str, str]
    message: str

    @property
    def app(self) -> App:
        """The app in the foreground."""
        ...

    @property
    def frame(self) -> Frame:
        """The frame of the screen in the foreground."""
        ...

    def push(self, screen: str, args: dict[str, Any]) -> None:
        """Open a screen of the app in the foreground."""
        ...

    def pop(self, screens: int = 1) -> None:
        """Close screens of the app in the foreground; past its first one lies the launcher."""
        ...

    def show_app(self, name: str, screen: str = "", args: dict[str, Any] | None = None) -> None:
        """Bring an app to the foreground where it was left, or at `screen`."""
        ...

    def permission(self) -> str:
        """What the app in the foreground was told: `granted`, `denied`, or empty where nobody asked yet."""
        ...

    def grant(self, answer: str) -> None:
        """Answer the question of the app in the foreground."""
        ...


class Ui:
    """What a screen sees of the phone while it is built or tapped. One per screen and build; made by the phone."""

    def __init__(self, phone: Platform, app: App, frame: Frame) -> None:
        self.phone = phone
        self.app = app
        self.frame = frame
        self.on_enter: dict[str, w.Handler] = {}
        self.multiline: set[str] = set()
        self.menus: dict[str, tuple[Sequence[str], Callable[[str], None]]] = {}

    # Reading

    @property
    def args(self) -> dict[str, Any]:
        """What the screen was opened with."""
        return self.frame.args

    @property
    def state(self) -> dict[str, Any]:
        """What this screen remembers while it is open: the current tab, a choice not yet saved."""
        return self.frame.state

    @property
    def dialog_args(self) -> dict[str, Any]:
        """What the open dialog was opened with."""
        return self.frame.dialog_args

    @property
    def now(self) -> datetime:
        """The phone's clock, UTC."""
        return datetime.fromtimestamp(self.phone.now_ms / 1000, UTC)

    def query(self, sql: str, *args: Value) -> list[tuple[Any, ...]]:
        """Rows of the phone's database."""
        return self.phone.store.query(sql, *args)

    def one(self, sql: str, *args: Value) -> tuple[Any, ...] | None:
        """The first row, or None where there is none (any more)."""
        rows = self.query(sql, *args)
        return rows[0] if rows else None

    def setting(self, namespace: str, name: str, default: str = "") -> str:
        """The value of a setting, or `default` where it has none."""
        value = self.phone.store.setting(namespace, name)
        return default if value is None else value

    # Changing

    def execute(self, sql: str, *args: Value) -> int:
        """Change the phone's database; the id of the row that was inserted, 0 without one."""
        return self.phone.store.execute(sql, *args)

    def put(self, namespace: str, name: str, value: str) -> None:
        """Write a setting."""
        self.phone.store.put_setting(namespace, name, value)

    def go(self, screen: str, **args: Any) -> None:
        """Open another screen of this app on top."""
        self.phone.push(screen, args)

    def back(self, screens: int = 1) -> None:
        """Leave this screen."""
        self.phone.pop(screens)

    def launch(self, app: str, screen: str = "", **args: Any) -> None:
        """Open another app, at a screen of its own if one is named."""
        self.phone.show_app(app, screen, args)

    def show(self, dialog: str, **args: Any) -> None:
        """Open a dialog of this app."""
        self.frame.dialog, self.frame.dialog_args, self.frame.focus = dialog, args, ""

    def dismiss(self) -> None:
        """Close the dialog."""
        self.frame.dialog, self.frame.dialog_args, self.frame.focus = "", {}, ""

    def say(self, text: str) -> None:
        """A line at the bottom of the screen until the next touch."""
        self.phone.message = text

    # Widgets that keep their state in the frame

    def value(self, rid: str) -> str:
        """What stands in a text field."""
        return self.frame.fields.get(rid, "")

    def fill(self, **values: str) -> None:
        """Set text fields that were not touched yet: the values a form opens with."""
        for rid, value in values.items():
            self.frame.fields.setdefault(rid, value)

    def field(
        self,
        rid: str,
        hint: str,
        *,
        multiline: bool = False,
        password: bool = False,
        on_enter: w.Handler | None = None,
        weight: int = 1,
    ) -> w.Widget:
        """A text field. Touch gives it the focus; what is typed lands in `value(rid)`."""
        if on_enter is not None:
            self.on_enter[rid] = on_enter
        if multiline:
            self.multiline.add(rid)
        made = w.Widget("EditText", text=self.value(rid), hint=hint, resource_id=rid, clickable=True, focusable=True)
        made.on_tap = lambda: self.focus(rid)
        made.focused = self.frame.focus == rid
        made.password, made.weight = password, weight
        made.height = 360 if multiline else 144
        return made

    def focus(self, rid: str) -> None:
        """Give a text field the focus."""
        self.frame.focus = rid

    def spinner(self, rid: str, desc: str, value: str, options: Sequence[str], pick: Callable[[str], None]) -> w.Widget:
        """A closed list of choices; a tap opens it as a menu."""
        self.menus[rid] = (options, pick)
        made = w.Widget("Spinner", text=value, desc=desc, resource_id=rid, clickable=True, focusable=True, height=144)
        made.on_tap = lambda: self.show("menu:" + rid, title=desc)
        return made

    def menu(self, rid: str) -> w.Widget:
        """The opened menu of a spinner."""
        options, pick = self.menus.get(rid, ((), lambda _: None))

        def chosen(option: str) -> w.Handler:
            def act() -> None:
                self.dismiss()
                pick(option)

            return act

        rows = [w.button(option, chosen(option), rid="menu_item") for option in options]
        return w.dialog(self.dialog_args.get("title", ""), w.scroll("menu", *rows), rid="menu_dialog")


def confirm(question: str, yes: str, act: Callable[[Ui], None]) -> Screen:
    """A dialog with two buttons: Cancel, and `yes`, which carries out `act`."""

    def build_dialog(ui: Ui) -> w.Widget:
        def agreed() -> None:
            act(ui)

        buttons = w.row(w.button("Cancel", ui.dismiss, rid="button2"), w.button(yes, agreed, rid="button1"))
        return w.dialog(question, buttons)

    return build_dialog
