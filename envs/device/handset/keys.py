"""Android's key codes, as far as a phone without a hardware keyboard needs them."""

from __future__ import annotations

_NAMES = {
    "HOME": 3,
    "BACK": 4,
    "DPAD_UP": 19,
    "DPAD_DOWN": 20,
    "DPAD_LEFT": 21,
    "DPAD_RIGHT": 22,
    "VOLUME_UP": 24,
    "VOLUME_DOWN": 25,
    "POWER": 26,
    "COMMA": 55,
    "PERIOD": 56,
    "TAB": 61,
    "SPACE": 62,
    "ENTER": 66,
    "DEL": 67,
    "MINUS": 69,
    "SLASH": 76,
    "AT": 77,
    "MENU": 82,
    "ESCAPE": 111,
    "FORWARD_DEL": 112,
    "MOVE_HOME": 122,
    "MOVE_END": 123,
    "NUMPAD_ENTER": 160,
    "APP_SWITCH": 187,
    "SLEEP": 223,
    "WAKEUP": 224,
}
_NAMES |= {str(digit): 7 + digit for digit in range(10)}
_NAMES |= {chr(ord("A") + i): 29 + i for i in range(26)}
_KNOWN = frozenset(_NAMES.values())
_TYPED = {55: ",", 56: ".", 62: " ", 69: "-", 76: "/", 77: "@"}
_TYPED |= {7 + digit: str(digit) for digit in range(10)}
_TYPED |= {29 + i: chr(ord("a") + i) for i in range(26)}


def key_code(key: int | str) -> int | None:
    """The number of a key given as a number, as digits, or as a name with or without `KEYCODE_`; None if unknown.

    Digits are the number of the key, as on Android's command line: `"4"` is BACK, `"KEYCODE_4"` the digit.
    """
    if isinstance(key, int):
        return key if key in _KNOWN else None
    name = key.strip().upper()
    if name.isdecimal() and name.isascii() and len(name) < 6:
        return int(name) if int(name) in _KNOWN else None
    return _NAMES.get(name.removeprefix("KEYCODE_"))


def typed_by(code: int) -> str:
    """What the key types into a field; empty for keys that type nothing."""
    return _TYPED.get(code, "")
