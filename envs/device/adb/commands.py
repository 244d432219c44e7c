"""The programs of the phone's shell that touch, look and ask: `input`, `uiautomator`, `am`, `dumpsys`, `settings`, ...

Each is a function of the handset, its arguments and what it reads and writes, and gives the exit code. The wording of
what they print follows Android 11, as far as clients read it. Programs for files are in `programs.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..handset.setup import Setup
from ..handset.simulated_phone import Phone
from ..screen.drawing import to_png
from ..screen.tree import to_xml
from .phone_files import Files
from .shell import CommandError, Io, Program

DENSITY = 420
_SOURCES = ("touchscreen", "touchpad", "mouse", "keyboard", "default")
_MAX_PIXEL = 100_000


@dataclass(slots=True, kw_only=True)
class Handset:
    """A phone with what its ADB side keeps: files of the tools and properties."""

    phone: Phone
    serial: str
    files: Files = field(init=False)
    programs: dict[str, Program] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.files = Files(self.phone)

    def properties(self) -> dict[str, str]:
        """What `getprop` knows."""
        return {
            "ro.build.version.release": "11",
            "ro.build.version.sdk": "30",
            "ro.product.brand": "rollwright",
            "ro.product.cpu.abi": "x86_64",
            "ro.product.device": "phone",
            "ro.product.manufacturer": "Rollwright",
            "ro.product.model": "Phone",
            "ro.product.name": "phone",
            "ro.serialno": self.serial,
            "sys.boot_completed": "1",
            "persist.sys.timezone": "UTC",
        }

    def banner(self) -> bytes:
        """What the phone says when a host connects."""
        wanted = ("ro.product.name", "ro.product.model", "ro.product.device")
        known = "".join(f"{name}={self.properties()[name]};" for name in wanted)
        return f"device::{known}features=shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir".encode()


Command = Callable[[Handset, list[str], Io], int]


# Touching


def input_command(handset: Handset, args: list[str], io: Io) -> int:
    """`input tap|swipe|draganddrop|text|keyevent ...`"""
    if args and args[0] in _SOURCES:
        args = args[1:]
    if len(args) > 1 and args[0] == "-d":
        args = args[2:]
    match args:
        case ["tap", x, y]:
            handset.phone.tap(_pixel(x), _pixel(y))
        case ["swipe" | "draganddrop", x1, y1, x2, y2, *rest] if len(rest) < 2:
            duration = _pixel(rest[0]) if rest else 300
            handset.phone.swipe(_pixel(x1), _pixel(y1), _pixel(x2), _pixel(y2), duration)
        case ["text", *words] if words:
            handset.phone.text(" ".join(words).replace("%s", " "))
        case ["keyevent", *names]:
            names = [name for name in names if not name.startswith("--")]
            if not names or not all([handset.phone.key(name) for name in names]):
                raise CommandError(f"Error: Unknown keycode: {' '.join(names)}")
        case _:
            raise CommandError("Error: usage: input tap x y | swipe x1 y1 x2 y2 [ms] | text TEXT | keyevent CODE", 255)
    return 0


def _pixel(text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        raise CommandError(f"Error: Invalid arguments: {text!r} is no number", 255) from None
    if not -_MAX_PIXEL <= number <= _MAX_PIXEL:
        raise CommandError(f"Error: Invalid arguments: {text} is out of range", 255)
    return int(number)


def sleep(handset: Handset, args: list[str], io: Io) -> int:
    """`sleep SECONDS`: the phone's clock is virtual, so it moves on at once."""
    try:
        seconds = float(args[0].removesuffix("s"))
        handset.phone.wait(round(seconds * 1000))
    except (IndexError, ValueError, OverflowError):
        raise CommandError(f"sleep: not a number: {' '.join(args)}") from None
    return 0


# Looking


def uiautomator(handset: Handset, args: list[str], io: Io) -> int:
    """`uiautomator dump [--compressed] [FILE]`"""
    paths = [arg for arg in args[1:] if not arg.startswith("--")]
    if args[:1] != ["dump"] or len(paths) > 1:
        raise CommandError("Usage: uiautomator dump [--compressed] [file]")
    path = paths[0] if paths else "/sdcard/window_dump.xml"
    xml = to_xml(handset.phone.tree())
    if path in ("/dev/tty", "/dev/stdout", "/proc/self/fd/1"):
        io.out(xml)
    else:
        handset.files.write(path, xml.encode())
    io.out(f"UI hierchary dumped to: {path}\n")
    return 0


def screencap(handset: Handset, args: list[str], io: Io) -> int:
    """`screencap [-p] [FILE]`: PNG, also without -p."""
    paths = [arg for arg in args if not arg.startswith("-")]
    if args[:1] == ["-d"]:
        paths = paths[1:]
    png = to_png(handset.phone.screenshot(1.0))
    if paths:
        handset.files.write(paths[0], png)
    else:
        io.out(png)
    return 0


# Asking and changing data


def settings(handset: Handset, args: list[str], io: Io) -> int:
    """`settings get|put|list|delete NAMESPACE [NAME] [VALUE]`"""
    if len(args) > 1 and args[0] == "--user":
        args = args[2:]
    store = handset.phone.store
    if len(args) > 1 and args[1] not in ("system", "secure", "global"):
        raise CommandError(f"Invalid namespace '{args[1]}'", 255)
    match args:
        case ["get", space, name]:
            value = store.setting(space, name)
            io.out(f"{'null' if value is None else value}\n")
        case ["put", space, name, value, *_]:
            store.put_setting(space, name, value)
            handset.phone.invalidate()
        case ["list", space]:
            io.out("".join(f"{name}={value}\n" for name, value in store.settings(space).items()))
        case ["delete", space, name]:
            io.out(f"Deleted {int(store.delete_setting(space, name))} rows\n")
            handset.phone.invalidate()
        case _:
            raise CommandError("Invalid command: settings get|put|list|delete NAMESPACE [NAME] [VALUE]", 255)
    return 0


_CONVERSIONS: dict[str, Callable[[str], str | int | float | None]] = {
    "s": str, "i": int, "l": int, "f": float, "d": float, "b": lambda text: int(text == "true"), "n": lambda text: None
}  # fmt: skip


def content(handset: Handset, args: list[str], io: Io) -> int:
    """`content query|insert|update|delete --uri URI [--where SQL] [--bind NAME:TYPE:VALUE]... [--projection A:B]`"""
    if not args:
        raise CommandError("usage: adb shell content [subcommand] [options]")
    action, options, values = args[0], *_content_options(args[1:])
    uri, where, store = options.get("--uri", ""), options.get("--where", ""), handset.phone.store
    try:
        match action:
            case "query":
                io.out(_as_rows(store.rows(uri, where), options.get("--projection", "")))
                return 0
            case "insert":
                store.insert(uri, values)
            case "update":
                store.update(uri, values, where)
            case "delete":
                store.delete(uri, where)
            case _:
                raise CommandError(f"[ERROR] Unsupported operation: {action}")
    except (KeyError, ValueError) as error:
        if isinstance(error, CommandError):
            raise
        raise CommandError(f"Error while accessing provider: {error.args[0]}") from error
    handset.phone.invalidate()
    return 0


def _content_options(args: list[str]) -> tuple[dict[str, str], dict[str, str | int | float | None]]:
    options: dict[str, str] = {}
    values: dict[str, str | int | float | None] = {}
    if len(args) % 2:
        raise CommandError(f"[ERROR] No value for: {args[-1]}")
    for name, value in zip(args[::2], args[1::2], strict=True):
        if name not in ("--uri", "--where", "--bind", "--projection", "--sort", "--user"):
            raise CommandError(f"[ERROR] Unsupported argument: {name}")
        if name != "--bind":
            options[name] = value
            continue
        column, _, rest = value.partition(":")
        kind, _, text = rest.partition(":")
        try:
            values[column] = _CONVERSIONS[kind](text)
        except (KeyError, ValueError):
            raise CommandError(f"[ERROR] Invalid binding: {value}; expected NAME:s|i|l|f|d|b|n:VALUE") from None
    return options, values


def _as_rows(rows: list[dict[str, str | int | float | bytes | None]], projection: str) -> str:
    if not rows:
        return "No result found.\n"
    names = projection.split(":") if projection else list(rows[0])
    unknown = [name for name in names if name not in rows[0]]
    if unknown:
        raise ValueError(f"Invalid column {unknown[0]}")
    lines = []
    for number, row in enumerate(rows):
        shown = ", ".join(f"{name}={_shown(row[name])}" for name in names)
        lines.append(f"Row: {number} {shown}\n")
    return "".join(lines)


def _shown(value: str | int | float | bytes | None) -> str:
    if value is None:
        return "NULL"
    return value.hex() if isinstance(value, bytes) else str(value)


# Our own: what no real phone has


def rollwright(handset: Handset, args: list[str], io: Io) -> int:
    """`rollwright version | power_on FILE | snapshot | restore FILE | rows JSON | screencap SCALE`

    What tests and training need beyond a real phone's commands; its presence tells that a phone is simulated.
    """
    phone = handset.phone
    try:
        match args:
            case ["version"]:
                io.out("1\n")
            case ["power_on", path]:
                phone.power_on(Setup.from_json(handset.files.read(path).decode()))
            case ["snapshot"]:
                io.out(phone.snapshot())
            case ["restore", path]:
                phone.restore(handset.files.read(path))
            case ["rows", request]:
                io.out(_rows_as_json(phone, json.loads(request)))
            case ["screencap", scale]:
                io.out(to_png(phone.screenshot(float(scale))))
            case _:
                raise CommandError(f"rollwright: usage: {(rollwright.__doc__ or '').splitlines()[0]}")
    except CommandError:
        raise
    except (KeyError, ValueError) as error:
        raise CommandError(f"{type(error).__name__}: {error.args[0]}") from error
    except (AttributeError, IndexError, RecursionError, TypeError, sqlite3.Error) as error:
        raise CommandError(f"ValueError: rollwright {args[0]} cannot use that: {error}") from error
    return 0


def _rows_as_json(phone: Phone, request: Mapping[str, str]) -> str:
    rows = phone.store.rows(request["uri"], request["where"], list(request["args"]))
    return json.dumps(rows, default=lambda value: {"hex": bytes(value).hex()})


COMMANDS: dict[str, Command] = {
    "content": content,
    "input": input_command,
    "rollwright": rollwright,
    "screencap": screencap,
    "settings": settings,
    "sleep": sleep,
    "uiautomator": uiautomator,
}
