"""The home screen: every app, by name."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Ui

_PER_ROW = 3


def main(ui: Ui) -> w.Widget:
    """Clock, date, and an icon for each app."""
    names = [name for name in ui.phone.apps if name != "Launcher"]
    rows = []
    for start in range(0, len(names), _PER_ROW):
        icons = [_icon(ui, name) for name in names[start : start + _PER_ROW]]
        icons += [w.label("")] * (_PER_ROW - len(icons))
        rows.append(w.row(*icons, height=330))
    clock = w.label(ui.now.strftime("%H:%M"), rid="clock", style="big", height=220)
    date = w.label(ui.now.strftime("%A, %-d %B"), rid="date", height=100)
    return w.screen(clock, date, *rows)


def _icon(ui: Ui, name: str) -> w.Widget:
    view = w.label(name, rid="icon", style="icon")
    view.clickable = view.focusable = True
    view.on_tap = lambda: ui.launch(name)
    return view


APP = App(name="Launcher", package="org.rollwright.launcher", screens={"main": main}, colour="#20303c")
