"""What gets in a user's way: notices over the screen, permission questions, screens that take their time.

Everything is drawn by a hash of the phone's seed and the number of touches so far, so equal input gives equal screens
and a snapshot has no generator to keep.
"""

from __future__ import annotations

import zlib

from ..apps.app import App, Platform
from ..screen import widgets as w
from .setup import Distractors

_NOTICE_ONE_IN = {"none": 0, "some": 14, "many": 7}
_SLOW_ONE_IN = {"none": 0, "some": 6, "many": 3}
NOTICES = (
    ("Software update", "A new version is ready to install.", "Not now"),
    ("Battery", "Battery saver is recommended.", "Dismiss"),
    ("Rate this app", "Are you happy with this app?", "Later"),
    ("Storage", "Storage is almost full.", "Ignore"),
)


def _draw(seed: int, purpose: str, touches: int) -> int:
    return zlib.crc32(f"{seed}/{purpose}/{touches}".encode())


def notice(level: Distractors, seed: int, touches: int) -> dict[str, str]:
    """The notice that comes up after that touch; empty for none."""
    one_in = _NOTICE_ONE_IN[level]
    if not one_in or _draw(seed, "popup", touches) % one_in:
        return {}
    title, text, button = NOTICES[_draw(seed, "which", touches) % len(NOTICES)]
    return {"kind": "notice", "title": title, "text": text, "button": button}


def question(app: App) -> dict[str, str]:
    """The permission question of an app."""
    return {"kind": "permission", "title": f"Allow {app.name} to {app.permission}?"}


def loading_steps(level: Distractors, seed: int, touches: int) -> int:
    """How many touches' time a screen opened now takes to load: mostly none, else two or three."""
    one_in = _SLOW_ONE_IN[level]
    if not one_in or _draw(seed, "slow", touches) % one_in:
        return 0
    return 2 + _draw(seed, "how slow", touches) % 2


def popup_window(phone: Platform) -> w.Widget:
    """The window of the phone's notice or question."""
    popup = phone.popup
    if popup["kind"] == "permission":
        return w.dialog(
            popup["title"],
            w.button("Allow", lambda: phone.grant("granted"), rid="permission_allow_button"),
            w.button("Don't allow", lambda: phone.grant("denied"), rid="permission_deny_button"),
            rid="permission_dialog",
        )
    return w.dialog(
        popup["title"],
        w.label(popup["text"], rid="message"),
        w.button(popup["button"], phone.popup.clear, rid="popup_close"),
        rid="popup",
    )


def denied_screen(phone: Platform) -> w.Widget:
    """What an app shows that was refused what it needs."""
    return w.screen(
        w.toolbar(phone.app.name),
        w.label(f"{phone.app.name} needs permission to {phone.app.permission}."),
        w.button("Allow access", lambda: phone.grant("granted"), rid="allow_access"),
    )
