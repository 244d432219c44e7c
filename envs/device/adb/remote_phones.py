"""The backend over ADB: the same tasks and policies on a simulated phone behind a port, an emulator or a real phone.

On a simulated phone all of `Backend` is exact. On a real one (which has no command `rollwright`) these are the best
that ADB gives:

reset        HOME, and nothing else: your data is not overwritten. With `fill` it writes settings and files and inserts
             rows; what was there before stays, and providers of apps that are not installed are an error.
tree         `uiautomator dump`: seconds, and an error while the screen moves.
text         `input text`: ASCII on most phones.
rows         `content query` has no quotes: a value that holds `, name=` is split wrongly. All values are texts.
open_app     by package, or by the last part of a package name.
snapshot     an error; a real phone cannot be forked.
"""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Sequence

from rollwright.contracts import EnvironmentFault, EnvironmentUnavailable, MissingDependency

from ..apps import installed
from ..apps.storage import Row, Value
from ..backend import DELETE, CannotType
from ..handset.setup import Setup
from ..screen.tree import from_xml
from ..screen.widgets import Widget
from .client import Answer, DirectLink, Link, ServerLink
from .phone_files import SCRATCH
from .server import PhoneServer
from .shell import quote

HOLD_MS, SWIPE_MS = 700, 300
DUMP_ATTEMPTS = 3
_KEYS_AT_ONCE = 200
_STATE_FILE = f"{SCRATCH}/rollwright"
_SIZE = re.compile(r"(?:Override|Physical) size: (\d+)x(\d+)")
_FOCUS = re.compile(r"mCurrentFocus=Window\{\S+ \S+ ([^\s/}]+)/([^\s}]+)\}")
_ROW = re.compile(r"^Row: \d+ ", re.MULTILINE)
_FIELD = re.compile(r"(?:^|, )(\w+)=")


class AdbBackend:
    """A phone behind a `Link`.

    Args:
        link: owned by this backend from now on.
        fill: whether `reset` writes the setup's data to a real phone.
        on_close: called once, when the backend is closed.

    Raises:
        EnvironmentFault: from every method, where the phone is gone or answers what no phone would.
    """

    def __init__(self, link: Link, *, fill: bool = False, on_close: Callable[[], None] | None = None) -> None:
        self._link, self._fill, self._on_close = link, fill, on_close
        self.simulated = link.shell("rollwright version").code == 0
        found = _SIZE.findall(self._out("wm size"))
        if not found:
            raise EnvironmentFault(f"`wm size` says nothing of a display: {self._out('wm size')[:200]!r}")
        # The override comes last and is what input and dumps go by.
        self.size = (int(found[-1][0]), int(found[-1][1]))
        self._packages: dict[str, str] | None = None

    # Beginning anew

    def reset(self, setup: Setup) -> None:
        """Start the phone afresh; a real one goes home and, where that was asked for, gets the task's data."""
        if self.simulated:
            self._link.push(_STATE_FILE, setup.as_json().encode())
            self._checked(f"rollwright power_on {_STATE_FILE}")
            return
        self._checked("input keyevent KEYCODE_HOME")
        if self._fill:
            self._write(setup)

    def _write(self, setup: Setup) -> None:
        for namespace, values in setup.settings.items():
            for name, value in values.items():
                self._checked(f"settings put {quote(namespace)} {quote(name)} {quote(value)}")
        for path, text in setup.files.items():
            self._checked(f"mkdir -p {quote(path.rpartition('/')[0])}")
            self._link.push(path, text.encode())
        for uri, rows in setup.rows.items():
            for row in rows:
                binds = " ".join(f"--bind {quote(_bind(name, value))}" for name, value in row.items())
                self._checked(f"content insert --uri {quote(uri)} {binds}")

    # Seeing

    def tree(self) -> Widget:
        """The screen as uiautomator dumps it."""
        for attempt in range(DUMP_ATTEMPTS):
            answer = self._link.shell("uiautomator dump /dev/tty")
            text = answer.out.decode(errors="replace")
            if "<hierarchy" in text:
                try:
                    return from_xml(text)
                except ValueError as error:
                    raise EnvironmentFault(f"the phone's dump cannot be read: {error}") from error
            # A real phone refuses while something moves.
            time.sleep(attempt)
        raise EnvironmentFault(f"the phone gave no dump of its screen: {(answer.err or answer.out)[:200]!r}")

    def screenshot(self, scale: float = 0.5) -> bytes:
        """Raises MissingDependency: a real phone's picture has to be scaled and Pillow is not installed."""
        if self.simulated:
            return self._checked(f"rollwright screencap {scale}").out
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingDependency("a screenshot needs Pillow: pip install rollwright[device]") from error
        picture = Image.open(io.BytesIO(self._checked("screencap -p").out)).convert("RGB")
        out = io.BytesIO()
        picture.resize((round(picture.width * scale), round(picture.height * scale))).save(out, "PNG", compress_level=1)
        return out.getvalue()

    # Touching

    def tap(self, x: int, y: int) -> None:
        """Touch the display at a pixel."""
        self._checked(f"input tap {int(x)} {int(y)}")

    def long_press(self, x: int, y: int) -> None:
        """Touch and hold."""
        self._checked(f"input swipe {int(x)} {int(y)} {int(x)} {int(y)} {HOLD_MS}")

    def swipe(self, x1: int, y1: int, x2: int, y2: int) -> None:
        """Drag from the first point to the second."""
        self._checked(f"input swipe {int(x1)} {int(y1)} {int(x2)} {int(y2)} {SWIPE_MS}")

    def key(self, name: str) -> bool:
        """Press `KEYCODE_...`; False where the key is not known."""
        if re.fullmatch(r"\w+", name.strip(), re.ASCII) is None:
            return False
        return self._link.shell(f"input keyevent {name.strip()}").code == 0

    def erase(self, count: int) -> None:
        """Many keys in one command: a field that the policy filled must not take a call for each of its letters."""
        for first in range(0, count, _KEYS_AT_ONCE):
            self._checked("input keyevent" + f" {DELETE}" * min(_KEYS_AT_ONCE, count - first))

    def text(self, text: str) -> None:
        """Android's own `input` fails at letters that are on no key; the rest of the text is then not typed."""
        clean = "".join(letter for letter in text if letter.isprintable())
        # `%s` is `input`'s word for a blank, so these two letters must not come together.
        for piece in re.split(r"(?<=%)(?=s)", clean):
            if piece:
                self._type(piece, f"input text {quote(piece.replace(' ', '%s'))}")

    def _type(self, piece: str, line: str) -> None:
        if piece.isascii():
            self._checked(line)
            return
        answer = self._link.shell(line)
        if answer.code or b"Exception" in answer.err:
            raise CannotType(f"the phone cannot type {piece[:60]!a}: keep to letters that are on its keyboard")

    def open_app(self, name: str) -> bool:
        """Open an app by its name or package; False where there is none."""
        package = self._package(name.strip().casefold())
        if package is None:
            return False
        return self._link.shell(f"monkey -p {package} -c android.intent.category.LAUNCHER 1").code == 0

    def _package(self, wanted: str) -> str | None:
        if self._packages is None:
            own = {app.name.casefold(): app.package for app in installed()} if self.simulated else {}
            listed = re.findall(r"^package:([\w.]+)\s*$", self._out("pm list packages"), re.MULTILINE)
            short = {} if self.simulated else {package.rpartition(".")[2].casefold(): package for package in listed}
            self._packages = {package: package for package in listed} | short | own
        return self._packages.get(wanted)

    def wait(self, ms: int) -> None:
        """A simulated phone's clock moves at once; a real phone takes its time."""
        self._checked(f"sleep {ms / 1000}")

    # What a verdict reads

    def rows(self, uri: str, where: str = "", args: Sequence[Value] = ()) -> list[Row]:
        """Rows of a content provider by `_id`."""
        if self.simulated:
            request = json.dumps({"uri": uri, "where": where, "args": list(args)})
            answer = self._link.shell(f"rollwright rows {quote(request)}")
            if answer.code:
                raise _error_of(answer)
            return [{name: _unhex(value) for name, value in row.items()} for row in json.loads(answer.out)]
        condition = f" --where {quote(_inlined(where, args))}" if where else ""
        answer = self._link.shell(f"content query --uri {quote(uri)}{condition}")
        text = answer.out.decode(errors="replace")
        if answer.code or text.startswith(("Error", "[ERROR]")) or "Exception" in answer.err.decode(errors="replace"):
            raise ValueError(f"cannot query {uri} where {where!r}: {(answer.err or answer.out)[:300]!r}")
        return parse_rows(text)

    def setting(self, namespace: str, name: str) -> str | None:
        """The value of a setting; None where it has none."""
        value = self._out(f"settings get {quote(namespace)} {quote(name)}").removesuffix("\n")
        return None if value == "null" else value

    def file(self, path: str) -> bytes | None:
        """The content of a file; None where there is none."""
        return self._link.pull(path)

    def files(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted."""
        return self._link.files(folder)

    def activity(self) -> tuple[str, str]:
        """Empty where no window has the focus, as while a real phone opens an app."""
        found = _FOCUS.search(self._out("dumpsys window"))
        if found is None:
            return "", ""
        package, activity = found.groups()
        return package, activity.removeprefix(package) if activity.startswith(package + ".") else activity

    # Forks

    def snapshot(self) -> bytes:
        """The state of a simulated phone; a real one has none."""
        self._needs_simulation("snapshot")
        return self._checked("rollwright snapshot").out

    def restore(self, state: bytes) -> None:
        """Take up the state of a simulated phone's snapshot."""
        self._needs_simulation("restored")
        self._link.push(_STATE_FILE, state)
        answer = self._link.shell(f"rollwright restore {_STATE_FILE}")
        if answer.code:
            raise _error_of(answer)

    def close(self) -> None:
        """May be called twice."""
        self._link.close()
        done, self._on_close = self._on_close, None
        if done is not None:
            done()

    def _needs_simulation(self, what: str) -> None:
        if not self.simulated:
            raise EnvironmentFault(f"a real phone cannot be {what}: use a simulated one, or play without forks")

    def _checked(self, line: str) -> Answer:
        answer = self._link.shell(line)
        if answer.code:
            said = (answer.err or answer.out).decode(errors="replace").strip()
            raise EnvironmentFault(f"the phone refused {line[:120]!r} (exit code {answer.code}): {said[:300]}")
        return answer

    def _out(self, line: str) -> str:
        return self._link.shell(line).out.decode(errors="replace").replace("\r\n", "\n")


def simulated_phone(server: PhoneServer) -> AdbBackend:
    """A fresh phone of `server`, reached over its port; closing the backend switches the phone off."""
    port = server.add()
    try:
        return AdbBackend(DirectLink(port), on_close=lambda: server.remove(port))
    except Exception:
        server.remove(port)
        raise


class AdbPhones:
    """The phones of a world: those with the given serials, or simulated ones as many as are asked for.

    Raises:
        EnvironmentUnavailable: from `take`, where all given phones are in use or one is not there.
    """

    def __init__(self, serial: str | Sequence[str] | None = None, *, fill: bool = False) -> None:
        self._serials = None if serial is None else [serial] if isinstance(serial, str) else list(serial)
        self._free = list(self._serials or ())
        self._fill = fill
        self._lock = threading.Lock()
        self._server: PhoneServer | None = None

    def take(self) -> AdbBackend:
        """A phone that nobody else uses; closing the backend gives it back."""
        if self._serials is None:
            with self._lock:
                self._server = self._server or PhoneServer()
            return simulated_phone(self._server)
        with self._lock:
            if not self._free:
                raise EnvironmentUnavailable(
                    f"all {len(self._serials)} phones are in use; list more under `serial`, or play fewer at a time"
                )
            serial = self._free.pop(0)
        try:
            return AdbBackend(ServerLink(serial), fill=self._fill, on_close=lambda: self._free.append(serial))
        except Exception:
            self._free.append(serial)
            raise

    def close(self) -> None:
        """Switch the simulated phones off. May be called twice."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.close()


def parse_rows(text: str) -> list[Row]:
    """The rows that `content query` printed; all values are texts, NULL is None.

    Values are not quoted there: a value may hold line ends, but not `, name=`.
    """
    rows: list[Row] = []
    for block in _ROW.split(text)[1:]:
        line = block.removesuffix("\n")
        names = list(_FIELD.finditer(line))
        ends = [name.start() for name in names[1:]] + [len(line)]
        values = [(name.group(1), line[name.end() : end]) for name, end in zip(names, ends, strict=True)]
        rows.append({name: None if value == "NULL" else value for name, value in values})
    return rows


def _bind(name: str, value: Value) -> str:
    match value:
        case None:
            return f"{name}:n:"
        case int():
            return f"{name}:l:{value}"
        case float():
            return f"{name}:d:{value}"
        case str():
            return f"{name}:s:{value}"
        case _:
            raise ValueError(f"`content insert` takes no {type(value).__name__}, as {name} has")


def _inlined(where: str, args: Sequence[Value]) -> str:
    """A condition with its values in place of the question marks: `content query` takes no values apart."""
    left = iter(args)

    def literal(_: re.Match[str]) -> str:
        value = next(left)
        return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"

    return re.sub(r"\?", literal, where)


def _unhex(value: object) -> Value:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value  # type: ignore[return-value]


def _error_of(answer: Answer) -> Exception:
    """The error that the simulated phone named."""
    text = answer.err.decode(errors="replace").strip()
    kind, _, message = text.partition(": ")
    kinds: dict[str, type[Exception]] = {"KeyError": KeyError, "ValueError": ValueError, "JSONDecodeError": ValueError}
    return kinds.get(kind, EnvironmentFault)(message or text)
