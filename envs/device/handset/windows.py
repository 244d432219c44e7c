"""What a phone shows: the app's screen while it loads and after, a dialog above it, a notice above all.

Each function gives a window of widgets that are laid out on the display.
"""

from __future__ import annotations

from ..apps.app import Platform, Ui
from ..screen import widgets as w
from . import interruptions


def popup(phone: Platform) -> w.Widget:
    """The notice or the question that has come up."""
    return _laid_out(phone, interruptions.popup_window(phone), "android")


def top(phone: Platform, ui: Ui) -> w.Widget:
    """The open dialog or menu, else the app's screen."""
    screen = _screen(phone, ui)
    name = ui.frame.dialog
    if name.startswith("menu:"):
        screen = ui.menu(name.removeprefix("menu:"))
    elif name and ui.frame.ready_ms <= phone.now_ms:
        screen = phone.app.dialogs[name](ui)
    return _laid_out(phone, screen, phone.app.package)


def below(phone: Platform, ui: Ui) -> w.Widget:
    """The app's own screen, also where a dialog lies above it."""
    return _laid_out(phone, _screen(phone, ui), phone.app.package)


def _screen(phone: Platform, ui: Ui) -> w.Widget:
    if ui.frame.ready_ms > phone.now_ms:
        bar = w.Widget("ProgressBar", desc="Loading", resource_id="progress", height=200)
        return w.screen(w.toolbar(phone.app.name), bar)
    if phone.app.permission and phone.permission() == "denied":
        return interruptions.denied_screen(phone)
    return phone.app.screens[ui.frame.screen](ui)


def _laid_out(phone: Platform, root: w.Widget, package: str) -> w.Widget:
    root.package = package
    if phone.message and root.style != "dialog":
        root.children.append(w.label(phone.message, rid="snackbar_text", style="small", height=110))
    return w.lay_out(root, phone.frame.scroll)
