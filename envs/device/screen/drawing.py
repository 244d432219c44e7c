"""A picture of the phone, drawn by Pillow when somebody asks for one. No step pays for it otherwise."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from rollwright.contracts import MissingDependency

from . import widgets as w

if TYPE_CHECKING:
    from PIL.Image import Image

_INK, _GREY, _PAPER, _LINE, _ACCENT = "#202124", "#5f6368", "#ffffff", "#dadce0", "#1a73e8"
_DARK = {_INK: "#e8eaed", _GREY: "#9aa0a6", _PAPER: "#202124", _LINE: "#3c4043"}
_SIZES = {"big": 110, "title": 50, "body": 42, "small": 34, "icon": 34}


def draw_display(
    top: w.Widget,
    below: w.Widget | None,
    *,
    colours: Mapping[str, str],
    app: str,
    dark: bool,
    now_ms: int,
    scale: float,
) -> Image:
    """The display as an RGB image of `scale` times 1080x2400 pixels.

    Args:
        top: the window on top, laid out.
        below: what lies behind a dialog, laid out; None where `top` is no dialog.
        colours: of each app, by its name: toolbars and icons have it.
        app: the app in the foreground.
        dark: whether the dark theme is on.
        now_ms: what the clock in the status bar shows, in milliseconds since 1970.
        scale: within (0, 1].

    Raises:
        MissingDependency: Pillow is not installed.
        ValueError: the scale is not within (0, 1].
    """
    if not 0 < scale <= 1:
        raise ValueError(f"scale must lie in (0, 1], got {scale}")
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingDependency("a screenshot needs Pillow: pip install rollwright[device]") from error
    image = Image.new("RGB", (round(w.WIDTH * scale), round(w.HEIGHT * scale)), _DARK[_PAPER] if dark else _PAPER)
    brush = _Brush(ImageDraw.Draw(image), scale, dark, app, colours)
    if below is not None:
        brush.window(below)
        image.paste(Image.new("RGB", image.size, "#000000"), mask=Image.new("L", image.size, 110))
    brush.window(top)
    brush.bars(now_ms)
    return image


def to_png(image: Image) -> bytes:
    """PNG, lightly compressed: a screen is mostly flat colour."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


@cache
def _font(pixels: int) -> Any:
    from PIL import ImageFont

    for name in ("DejaVuSans.ttf", "Roboto-Regular.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, pixels)
        except OSError:
            continue
    return ImageFont.load_default(pixels)


class _Brush:
    """Draws widgets of one picture."""

    def __init__(self, draw: Any, scale: float, dark: bool, app: str, colours: Mapping[str, str]) -> None:
        self._draw = draw
        self._scale = scale
        self._dark = dark
        self._colour = colours[app]
        self._colours = colours

    def window(self, root: w.Widget) -> None:
        if root.style == "dialog":
            self._box(root.bounds, _PAPER, radius=40)
        for widget in root.walk():
            self._widget(widget)

    def bars(self, now_ms: int) -> None:
        minutes = now_ms // 60_000
        self._box((0, 0, w.WIDTH, w.STATUS_BAR), self._colour)
        self._text((40, 22), f"{minutes // 60 % 24:02}:{minutes % 60:02}", 38, "#ffffff")
        top = w.HEIGHT - w.NAVIGATION_BAR
        self._box((0, top, w.WIDTH, w.HEIGHT), _PAPER)
        self._box((w.WIDTH // 2 - 160, top + 70, w.WIDTH // 2 + 160, top + 82), _GREY, radius=6)

    def _widget(self, view: w.Widget) -> None:
        left, top, right, bottom = view.bounds
        middle = (top + bottom) // 2
        match view.class_name:
            case "Button":
                self._box((left + 16, top + 16, right - 16, bottom - 16), _ACCENT if view.enabled else _LINE, radius=40)
                self._centred(view.bounds, view.text, 38, "#ffffff", bold=view.selected)
            case "ImageButton":
                self._box((left + 24, top + 24, right - 24, bottom - 24), _LINE, radius=30)
                self._centred(view.bounds, view.desc, 26, _INK)
            case "EditText":
                line = _ACCENT if view.focused else _GREY
                self._frame((left + 24, top + 12, right - 24, bottom - 12), line, 5 if view.focused else 2)
                shown = "•" * len(view.text) if view.password else view.text
                self._text((left + 50, top + 42), shown or view.hint, 40, _INK if shown else _GREY)
            case "Spinner":
                self._frame((left + 24, top + 12, right - 24, bottom - 12), _GREY, 2)
                self._text((left + 50, middle - 24), f"{view.text}  ▾", 40, _INK)
            case "Switch" | "CheckBox" | "RadioButton":
                self._text((left + 48, middle - 24), view.text, 42, _INK)
                self._tick(view, right, middle)
            case "ProgressBar":
                self._text((left + 400, middle - 24), "Loading …", 42, _GREY)
            case "TextView":
                self._label(view)
            case "LinearLayout":
                if view.style == "toolbar":
                    self._box(view.bounds, self._colour)
                elif view.clickable:
                    self._box((left + 40, bottom - 2, right, bottom), _LINE)

    def _tick(self, view: w.Widget, right: int, middle: int) -> None:
        if view.class_name == "Switch":
            self._box(
                (right - 180, middle - 32, right - 60, middle + 32), _ACCENT if view.checked else _LINE, radius=32
            )
            knob = right - 118 if view.checked else right - 176
            self._box((knob, middle - 28, knob + 56, middle + 28), "#ffffff", radius=28)
            return
        round_off = 26 if view.class_name == "RadioButton" else 8
        box = (right - 112, middle - 26, right - 60, middle + 26)
        self._box(box, _ACCENT if view.checked else _PAPER, radius=round_off)
        self._frame(box, _ACCENT if view.checked else _GREY, 4)

    def _label(self, view: w.Widget) -> None:
        left, top, right, bottom = view.bounds
        size = _SIZES.get(view.style, 42)
        if view.style == "icon" and view.text:
            middle = (left + right) // 2
            self._box((middle - 75, top + 30, middle + 75, top + 180), self._colours.get(view.text, _GREY), radius=40)
            self._centred((middle - 75, top + 30, middle + 75, top + 180), view.text[:1], 80, "#ffffff")
            self._centred((left, top + 190, right, top + 260), view.text, size, _INK)
        elif view.style == "big":
            self._centred(view.bounds, view.text, size, _INK)
        else:
            in_toolbar = view.resource_id == "toolbar_title"
            at = (top + bottom - size) // 2 if view.style == "title" else top + 20
            for number, line in enumerate(self._wrapped(view.text, right - left - 80, size)):
                colour = "#ffffff" if in_toolbar else _GREY if view.style == "small" else _INK
                self._text((left + 48, at + number * 56), line, size, colour)

    def _wrapped(self, text: str, width: int, size: int) -> list[str]:
        per_line = max(int(width / (size * 0.56)), 8)
        lines = []
        for line in text.split("\n"):
            lines += [line[i : i + per_line] for i in range(0, max(len(line), 1), per_line)]
        return lines

    # Primitives, in pixels of the display

    def _ink(self, colour: str) -> str:
        return _DARK.get(colour, colour) if self._dark else colour

    def _scaled(self, box: w.Box) -> list[float]:
        left, top, right, bottom = (side * self._scale for side in box)
        return [left, top, max(right - 1, left), max(bottom - 1, top)]

    def _box(self, box: w.Box, colour: str, radius: int = 0) -> None:
        self._draw.rounded_rectangle(self._scaled(box), radius * self._scale, fill=self._ink(colour))

    def _frame(self, box: w.Box, colour: str, width: int) -> None:
        line = max(round(width * self._scale), 1)
        self._draw.rounded_rectangle(self._scaled(box), 12 * self._scale, outline=self._ink(colour), width=line)

    def _text(self, at: tuple[int, int], text: str, size: int, colour: str) -> None:
        place = (at[0] * self._scale, at[1] * self._scale)
        self._draw.text(place, text[:200], fill=self._ink(colour), font=_font(max(round(size * self._scale), 6)))

    def _centred(self, box: w.Box, text: str, size: int, colour: str, bold: bool = False) -> None:
        middle = ((box[0] + box[2]) / 2 * self._scale, (box[1] + box[3]) / 2 * self._scale)
        font = _font(max(round(size * self._scale), 6))
        width = 1 if bold else 0
        self._draw.text(middle, text[:60], fill=self._ink(colour), font=font, anchor="mm", stroke_width=width)
