"""Task templates of the app Settings: switches, choices, networks, volume, brightness, the phone's name."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import ClassVar

from rollwright.contracts import Split

from ..apps.settings import (
    BRIGHTNESS_STEPS,
    DEFAULTS,
    FONT_SIZES,
    LANGUAGES,
    NETWORKS,
    RINGTONES,
    TIMEOUTS,
    TIMEZONES,
)
from ..backend import DeviceState
from ..handset.contents import Data, some_words
from .template import Difficulty, Hands, Params, Template


class Toggle(Template):
    """Turn one switch on or off."""

    difficulty: Difficulty = "easy"  # type: ignore[misc]
    complexity = 1.0

    def __init__(
        self, name: str, thing: str, page: str, key: tuple[str, str], split: Split, values: tuple[str, str] = ("0", "1")
    ) -> None:
        self.name, self.split = f"settings_{name}", split  # type: ignore[misc]
        self.goal = f"Turn {{way}} {thing[0].lower() + thing[1:] if thing[1:2].islower() else thing} in the settings."  # type: ignore[misc]
        self._title, self._page, self._key, self._values = thing, page, key, values

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw on or off, and put the switch into the other state."""
        on = rng.random() < 0.5
        data.put(*self._key, self._values[not on])
        return {"way": "on" if on else "off", "on": on}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The setting has the value that the goal names."""
        return state.setting(*self._key) == self._values[bool(p["on"])]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the page of the settings and bring the switch into its state."""
        yield from hands.open("Settings")
        yield from hands.tap(self._page)
        yield from hands.set(self._title, p["on"])

    def near(self, p: Params) -> Params:
        """The other state of the same switch."""
        return {**p, "on": not p["on"]}


class Choice(Template):
    """Choose another value from a closed list."""

    difficulty: Difficulty = "easy"  # type: ignore[misc]
    complexity = 1.4

    def __init__(
        self, name: str, title: str, page: str, key: tuple[str, str], values: dict[str, str], split: Split
    ) -> None:
        self.name, self.split = f"settings_{name}", split  # type: ignore[misc]
        self.goal = f"Set the {title.lower()} to {{option}} in the settings."  # type: ignore[misc]
        self._title, self._page, self._key, self._values = title, page, key, values

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw an option other than the one that a new phone has."""
        now = DEFAULTS[self._key[0]][self._key[1]]
        return {"option": rng.choice([option for option, value in self._values.items() if value != now])}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The setting has the value of the drawn option."""
        return state.setting(*self._key) == self._values[p["option"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the page of the settings and pick the option."""
        yield from hands.open("Settings")
        yield from hands.tap(self._page)
        yield from hands.pick(self._title, p["option"])

    def near(self, p: Params) -> Params:
        """Another option of the same list."""
        return {"option": next(option for option in self._values if option != p["option"])}


class JoinNetwork(Template):
    """Turn Wi-Fi on and connect to a named network."""

    name, split, difficulty, complexity = "settings_join_network", "train", "medium", 1.4
    goal = "Connect the phone to the Wi-Fi network {ssid}. Wi-Fi is off."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Turn Wi-Fi off, and draw a network other than the one that is known."""
        data.put("global", "wifi_on", "0")
        return {"ssid": rng.choice([name for name in NETWORKS if name != "Home"])}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """Wi-Fi is on and the named network is joined."""
        return (state.setting("global", "wifi_on"), state.setting("global", "wifi_ssid")) == ("1", p["ssid"])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Switch Wi-Fi on, which shows the networks, and tap the name."""
        yield from hands.open("Settings")
        yield from hands.tap("Network")
        yield from hands.set("Wi-Fi", True)
        yield from hands.tap(p["ssid"])

    def near(self, p: Params) -> Params:
        """Another network, which is not joined either."""
        return {"ssid": next(name for name in NETWORKS if name not in ("Home", p["ssid"]))}


class Stepper(Template):
    """Bring a number to its lowest or highest step."""

    complexity = 2.4
    difficulty: Difficulty = "medium"  # type: ignore[misc]

    def __init__(self, name: str, title: str, page: str, key: str, ladder: Sequence[int], split: Split) -> None:
        self.name, self.split = f"settings_{name}", split  # type: ignore[misc]
        self.goal = f"Set the {title.lower()} to the {{end}} in the settings."  # type: ignore[misc]
        self._title, self._page, self._key, self._ladder = title, page, key, list(ladder)

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Put the number somewhere in the middle, and draw an end."""
        # Neither end, so that there is something to do.
        data.put("system", self._key, str(self._ladder[len(self._ladder) // 2 + rng.randint(-1, 1)]))
        return {"end": rng.choice(("minimum", "maximum"))}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The setting stands on the first or the last step."""
        return state.setting("system", self._key) == str(self._ladder[0 if p["end"] == "minimum" else -1])

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Press less or more until the end is reached."""
        yield from hands.open("Settings")
        yield from hands.tap(self._page)
        wanted = f"{self._title}: {0 if p['end'] == 'minimum' else 100}%"
        while hands.find(wanted, role="p") is None:
            yield from hands.tap(f"{self._title} {'down' if p['end'] == 'minimum' else 'up'}")

    def near(self, p: Params) -> Params:
        """The other end."""
        return {"end": "maximum" if p["end"] == "minimum" else "minimum"}


class RenameDevice(Template):
    """Give the phone another name."""

    name, split, difficulty, complexity = "settings_device_name", "test", "medium", 1.6
    goal = "Change the device name to {name}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw a name of two words."""
        return {"name": some_words(rng).title()}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The phone has just that name."""
        return state.setting("global", "device_name") == p["name"]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the page about the phone and type the name into its dialog."""
        yield from hands.open("Settings")
        yield from hands.tap("About phone")
        yield from hands.tap("Device name", role="button")
        yield from hands.type("Device name", p["name"])
        yield from hands.tap("OK")

    def near(self, p: Params) -> Params:
        """A longer name that begins in the same way."""
        return {"name": p["name"] + " 2"}


class QuietNight(Template):
    """Bring three settings on two pages into their states."""

    name, split, difficulty, complexity = "settings_quiet_night", "train", "hard", 2.6
    goal = "Prepare the phone for the night: Do Not Disturb on, dark theme on, screen timeout {timeout}."

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw the screen timeout."""
        return {"timeout": rng.choice(["15 seconds", "30 seconds", "2 minutes"])}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """All three settings are as the goal names them."""
        timeout = state.setting("system", "screen_off_timeout")
        quiet, dark = state.setting("global", "zen_mode"), state.setting("secure", "ui_night_mode")
        return (quiet, dark, timeout) == ("1", "2", str(TIMEOUTS[p["timeout"]]))

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Set the sound first, then the two settings of the display."""
        yield from hands.open("Settings")
        yield from hands.tap("Sound")
        yield from hands.set("Do Not Disturb", True)
        yield from hands.back()
        yield from hands.tap("Display")
        yield from hands.set("Dark theme", True)
        yield from hands.pick("Screen timeout", p["timeout"])

    def near(self, p: Params) -> Params:
        """Another timeout, with the rest done."""
        return {"timeout": "5 minutes"}


class ReadVersion(Template):
    """Answer with a line of the page about the phone."""

    name, split, difficulty, complexity, question = "settings_serial", "validation", "easy", 1.0, True
    goal = "What is written under {title} on the page About phone?"
    _FACTS: ClassVar[dict[str, str]] = {"Model": "RW-1", "Android version": "15", "Serial number": "RW0042"}

    def prepare(self, rng: random.Random, data: Data) -> Params:
        """Draw which line is asked for."""
        return {"title": rng.choice(sorted(self._FACTS))}

    def success(self, state: DeviceState, p: Params, answer: str) -> bool:
        """The answer is what is written there, to the letter."""
        return answer.strip() == self._FACTS[p["title"]]

    def solve(self, hands: Hands, p: Params) -> Iterator[str]:
        """Open the page and read beside the title."""
        yield from hands.open("Settings")
        yield from hands.tap("About phone")
        yield from hands.seek(p["title"])
        yield from hands.answer(hands.beside(p["title"], 1))

    def near(self, p: Params) -> Params:
        """Another line of the same page."""
        return {"title": next(title for title in self._FACTS if title != p["title"])}


def _same(names: Sequence[str]) -> dict[str, str]:
    return {name: name for name in names}


TEMPLATES: tuple[Template, ...] = (
    Toggle("wifi", "Wi-Fi", "Network", ("global", "wifi_on"), "train"),
    Toggle("bluetooth", "Bluetooth", "Bluetooth", ("global", "bluetooth_on"), "train"),
    Toggle("mobile_data", "Mobile data", "Network", ("global", "mobile_data"), "train"),
    Toggle("airplane", "Airplane mode", "Network", ("global", "airplane_mode_on"), "validation"),
    Toggle("dark", "Dark theme", "Display", ("secure", "ui_night_mode"), "test", ("1", "2")),
    Toggle("rotate", "Auto-rotate screen", "Display", ("system", "accelerometer_rotation"), "train"),
    Toggle("battery_saver", "Battery saver", "Battery", ("global", "low_power"), "train"),
    Toggle("location", "Use location", "Location", ("secure", "location_mode"), "validation", ("0", "3")),
    Toggle("vibrate", "Vibrate for calls", "Sound", ("system", "vibrate_when_ringing"), "test"),
    Choice("ringtone", "Ringtone", "Sound", ("system", "ringtone"), _same(RINGTONES), "train"),
    Choice("language", "Language", "System", ("secure", "language"), _same(LANGUAGES), "validation"),
    Choice("time_zone", "Time zone", "System", ("secure", "timezone"), _same(TIMEZONES), "train"),
    Choice("font_size", "Font size", "Display", ("system", "font_scale"), FONT_SIZES, "test"),
    JoinNetwork(),
    Stepper("brightness", "Brightness", "Display", "screen_brightness", BRIGHTNESS_STEPS, "train"),
    Stepper("media_volume", "Media volume", "Sound", "volume_music", range(11), "validation"),
    RenameDevice(),
    QuietNight(),
    ReadVersion(),
)
