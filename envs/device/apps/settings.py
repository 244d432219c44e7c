"""Settings: network, bluetooth, sound, display, battery, location, system. All state lies in the settings."""

from __future__ import annotations

from ..screen import widgets as w
from .app import App, Handler, Ui

DEFAULTS: dict[str, dict[str, str]] = {
    "global": {
        "airplane_mode_on": "0",
        "auto_time": "1",
        "bluetooth_on": "0",
        "device_name": "Rollwright phone",
        "low_power": "0",
        "mobile_data": "1",
        "wifi_on": "1",
        "wifi_ssid": "Home",
        "zen_mode": "0",
    },
    "system": {
        "accelerometer_rotation": "0",
        "font_scale": "1.0",
        "screen_brightness": "128",
        "screen_off_timeout": "60000",
        "time_12_24": "24",
        "vibrate_when_ringing": "0",
        "volume_alarm": "5",
        "volume_music": "5",
        "volume_ring": "5",
        "ringtone": "Harp",
    },
    "secure": {
        "location_mode": "3",
        "lock_screen_show_notifications": "1",
        "ui_night_mode": "1",
        "language": "English",
        "timezone": "UTC",
    },
}
"""What a new phone has, by namespace."""

NETWORKS = ("Home", "Office", "Library", "Cafe", "Guest")
TIMEOUTS = {"15 seconds": 15_000, "30 seconds": 30_000, "1 minute": 60_000, "2 minutes": 120_000, "5 minutes": 300_000}
FONT_SIZES = {"Small": "0.85", "Default": "1.0", "Large": "1.15", "Largest": "1.3"}
RINGTONES = ("Harp", "Bell", "Chime", "Waves", "Piano")
LANGUAGES = ("English", "German", "French", "Spanish", "Italian")
TIMEZONES = ("UTC", "London", "Berlin", "New York", "Tokyo")
MAX_VOLUME, BRIGHTNESS_STEPS = 10, (0, 64, 128, 191, 255)

_PAGES = (
    ("network", "Network", "Wi-Fi, mobile data, airplane mode"),
    ("bluetooth", "Bluetooth", "Devices near you"),
    ("sound", "Sound", "Volume, vibration, Do Not Disturb"),
    ("display", "Display", "Dark theme, font size, brightness"),
    ("battery", "Battery", "Battery saver"),
    ("location", "Location", "Apps that use your place"),
    ("notifications", "Notifications", "On the lock screen"),
    ("system", "System", "Language, date and time"),
    ("about", "About phone", "Name, version"),
)


def main(ui: Ui) -> w.Widget:
    """The list of pages."""
    rows = [w.item(title, detail=detail, on_tap=_opens(ui, page)) for page, title, detail in _PAGES]
    return w.screen(w.toolbar("Settings"), w.scroll("list", *rows))


def _opens(ui: Ui, page: str) -> Handler:
    return lambda: ui.go(page)


def _is_on(ui: Ui, namespace: str, name: str, on: str = "1") -> bool:
    return ui.setting(namespace, name) == on


def _toggle(ui: Ui, title: str, namespace: str, name: str, *, on: str = "1", off: str = "0") -> w.Widget:
    now_on = _is_on(ui, namespace, name, on)
    return w.switch(title, now_on, lambda: ui.put(namespace, name, off if now_on else on), rid=name)


def _page(title: str, *rows: w.Widget) -> w.Widget:
    return w.screen(w.toolbar(title), w.scroll("list", *rows))


def network(ui: Ui) -> w.Widget:
    """Wi-Fi with its networks, mobile data, airplane mode."""
    rows = [
        _toggle(ui, "Wi-Fi", "global", "wifi_on"),
        _toggle(ui, "Mobile data", "global", "mobile_data"),
        _toggle(ui, "Airplane mode", "global", "airplane_mode_on"),
    ]
    if _is_on(ui, "global", "wifi_on"):
        current = ui.setting("global", "wifi_ssid")
        rows += [_network_row(ui, name, name == current) for name in NETWORKS]
    return _page("Network", *rows)


def _network_row(ui: Ui, name: str, connected: bool) -> w.Widget:
    return w.item(
        name, detail="Connected" if connected else "Saved", on_tap=lambda: ui.put("global", "wifi_ssid", name)
    )


def bluetooth(ui: Ui) -> w.Widget:
    """The switch, and the name that others see."""
    rows = [_toggle(ui, "Bluetooth", "global", "bluetooth_on")]
    name = ui.setting("global", "device_name")
    rows.append(w.label(f"Visible as {name}" if _is_on(ui, "global", "bluetooth_on") else "Bluetooth is off"))
    return _page("Bluetooth", *rows)


def sound(ui: Ui) -> w.Widget:
    """Volumes, vibration, Do Not Disturb, the ringtone."""
    return _page(
        "Sound",
        *_stepper(ui, "Media volume", "volume_music", range(MAX_VOLUME + 1)),
        *_stepper(ui, "Ring volume", "volume_ring", range(MAX_VOLUME + 1)),
        *_stepper(ui, "Alarm volume", "volume_alarm", range(MAX_VOLUME + 1)),
        _toggle(ui, "Vibrate for calls", "system", "vibrate_when_ringing"),
        _toggle(ui, "Do Not Disturb", "global", "zen_mode"),
        _choice(ui, "Ringtone", "system", "ringtone", {name: name for name in RINGTONES}),
    )


def _stepper(ui: Ui, title: str, name: str, steps: range | tuple[int, ...]) -> list[w.Widget]:
    """A number of the `system` settings with a button for less and one for more."""
    ladder = list(steps)
    value = int(ui.setting("system", name, "0")) if ui.setting("system", name).isdecimal() else 0
    at = min(range(len(ladder)), key=lambda i: abs(ladder[i] - value))

    def to(index: int) -> Handler:
        return lambda: ui.put("system", name, str(ladder[min(max(index, 0), len(ladder) - 1)]))

    text = w.label(f"{title}: {at * 100 // (len(ladder) - 1)}%", rid=name, weight=4)
    less = w.icon(f"{title} down", to(at - 1), rid=f"{name}_down")
    more = w.icon(f"{title} up", to(at + 1), rid=f"{name}_up")
    return [w.row(text, less, more)]


def _choice(ui: Ui, title: str, namespace: str, name: str, values: dict[str, str]) -> w.Widget:
    current = ui.setting(namespace, name)
    shown = next((option for option, value in values.items() if value == current), current)
    menu = ui.spinner(name, title, shown, list(values), lambda option: ui.put(namespace, name, values[option]))
    return w.row(w.label(title), menu)


def display(ui: Ui) -> w.Widget:
    """Brightness, dark theme, rotation, timeout, font size."""
    return _page(
        "Display",
        *_stepper(ui, "Brightness", "screen_brightness", BRIGHTNESS_STEPS),
        _toggle(ui, "Dark theme", "secure", "ui_night_mode", on="2", off="1"),
        _toggle(ui, "Auto-rotate screen", "system", "accelerometer_rotation"),
        _choice(ui, "Screen timeout", "system", "screen_off_timeout", {k: str(v) for k, v in TIMEOUTS.items()}),
        _choice(ui, "Font size", "system", "font_scale", FONT_SIZES),
    )


def battery(ui: Ui) -> w.Widget:
    """The level, and the battery saver."""
    return _page("Battery", w.label("Battery level: 76%"), _toggle(ui, "Battery saver", "global", "low_power"))


def location(ui: Ui) -> w.Widget:
    """The switch."""
    return _page("Location", _toggle(ui, "Use location", "secure", "location_mode", on="3"))


def notifications(ui: Ui) -> w.Widget:
    """What is shown on the lock screen."""
    return _page(
        "Notifications",
        _toggle(ui, "Notifications on lock screen", "secure", "lock_screen_show_notifications"),
        _toggle(ui, "Do Not Disturb", "global", "zen_mode"),
    )


def system(ui: Ui) -> w.Widget:
    """Language, time, time zone."""
    return _page(
        "System",
        _choice(ui, "Language", "secure", "language", {name: name for name in LANGUAGES}),
        _toggle(ui, "Set time automatically", "global", "auto_time"),
        _toggle(ui, "Use 24-hour format", "system", "time_12_24", on="24", off="12"),
        _choice(ui, "Time zone", "secure", "timezone", {name: name for name in TIMEZONES}),
    )


def about(ui: Ui) -> w.Widget:
    """The phone's name and its facts."""
    name = ui.setting("global", "device_name")

    def edit() -> None:
        ui.frame.fields["device_name_edit"] = name
        ui.show("rename")

    return _page(
        "About phone",
        w.item("Device name", detail=name, on_tap=edit),
        w.item("Model", detail="RW-1"),
        w.item("Android version", detail="15"),
        w.item("Serial number", detail="RW0042"),
    )


def rename(ui: Ui) -> w.Widget:
    """Asks for the phone's name."""

    def save() -> None:
        name = ui.value("device_name_edit").strip()
        if name:
            ui.put("global", "device_name", name)
            ui.dismiss()

    return w.dialog(
        "Device name",
        ui.field("device_name_edit", "Device name", on_enter=save),
        w.row(w.button("Cancel", ui.dismiss, rid="button2"), w.button("OK", save, rid="button1")),
    )


APP = App(
    name="Settings",
    package="org.rollwright.settings",
    screens={
        "main": main,
        "network": network,
        "bluetooth": bluetooth,
        "sound": sound,
        "display": display,
        "battery": battery,
        "location": location,
        "notifications": notifications,
        "system": system,
        "about": about,
    },
    dialogs={"rename": rename},
    colour="#455a64",
)
