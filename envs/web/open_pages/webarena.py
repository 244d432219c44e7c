"""Task files in WebArena's format, checked when they are loaded: one bad task costs itself, not the file.

A file is a JSON list, a single task, or JSON Lines; a byte-order mark is read over. Everything in it is data. A task
that could not be played or judged as it says is left out with its id and the reason: a placeholder without an address,
a login that is not there, an evaluator that is not known, a page that no episode may reach.

Source of the format: WebArena, arXiv:2307.13854.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rollwright.contracts import SPLITS, ConfigError, Task

from .evaluators import alternatives, check_evaluation, references

log = logging.getLogger(__name__)

PLACEHOLDERS = ("SHOPPING", "SHOPPING_ADMIN", "REDDIT", "GITLAB", "WIKIPEDIA", "MAP", "HOMEPAGE")
"""WebArena's names of its own sites: `__SHOPPING__` in a task stands for the address of the shop."""

_KEYS = ("task_id", "start_url", "intent", "eval")
_PLACEHOLDER = re.compile(r"__([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)__")
_BLANK = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_COOKIE = ("name", "value", "domain", "path")
_MAX_TOLD = 5


@dataclass(frozen=True, kw_only=True)
class TaskFile:
    """What a file holds: the tasks, the origins that they need, and a sentence for each task that is left out."""

    tasks: tuple[Task, ...]
    origins: tuple[str, ...]
    refused: tuple[str, ...]


def read_task_file(
    path: str, *, sites: Mapping[str, str], origins: Sequence[str], ignore_logins: bool = False
) -> TaskFile:
    """Read a task file; the tasks that are left out are logged.

    Args:
        path: JSON (a list of tasks, or one task) or JSON Lines.
        sites: addresses by placeholder: `SHOPPING` stands for `__SHOPPING__`.
        origins: what may be reached besides the start pages.
        ignore_logins: play the tasks without their `storage_state` and `require_login`.

    Raises:
        ConfigError: the file cannot be read, holds no task that can be played, or `sites` is no mapping to addresses.
    """
    known = _checked_sites(sites)
    tasks: dict[tuple[str, str], Task] = {}
    refused: list[str] = []
    for place, entry in _entries(Path(path)):
        try:
            task = _task(place, _filled(entry, known), Path(path).parent, ignore_logins)
            if (task.split, task.id) in tasks:
                raise ConfigError(f"task {task.id}: an earlier task of the split {task.split} has this task_id")
            tasks[task.split, task.id] = task
        except ConfigError as error:
            refused.append(str(error))
    reached = tuple(dict.fromkeys([*(origin_of(task.params["start_url"]) for task in tasks.values()), *origins]))
    playable = []
    for task in tasks.values():
        unreached = _unreached(task, reached)
        refused.extend([unreached] if unreached else [])
        playable.extend([] if unreached else [task])
    _tell(path, refused, len(playable))
    return TaskFile(tasks=tuple(playable), origins=reached, refused=tuple(refused))


def origin_of(address: str) -> str:
    """`http://host:port` of an address; empty where it has none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") and parts.netloc else ""


def read_storage_state(path: Path) -> dict[str, Any]:
    """Cookies and local storage, as Playwright saves them.

    Raises:
        ConfigError: the file cannot be read, or is something else. Its content, which is a secret, is not shown.
    """
    try:
        state = json.loads(_text(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise ConfigError(f"storage_state {path} cannot be read: {reason}") from error
    parts = [state.get(key) for key in ("cookies", "origins")] if isinstance(state, dict) else []
    if not any(parts) or not all(isinstance(part, list | None) for part in parts):
        raise ConfigError(
            f"storage_state {path} must be an object with lists of cookies and origins, as Playwright saves"
        )
    if not all(_is_cookie(cookie) for cookie in parts[0] or []) or not all(
        _is_storage(part) for part in parts[1] or []
    ):
        raise ConfigError(f"storage_state {path} has a cookie without name, value, domain and path, or a nameless item")
    return {"cookies": parts[0] or [], "origins": parts[1] or []}


def _is_cookie(cookie: Any) -> bool:
    return isinstance(cookie, dict) and all(isinstance(cookie.get(key), str) for key in _COOKIE)


def _is_storage(part: Any) -> bool:
    if not isinstance(part, dict) or not origin_of(str(part.get("origin"))):
        return False
    items = part.get("localStorage")
    return isinstance(items, list) and all(
        isinstance(item, dict) and all(isinstance(item.get(key), str) for key in ("name", "value")) for item in items
    )


def _tell(path: str, refused: Sequence[str], playable: int) -> None:
    for reason in refused:
        log.warning("web.open_web leaves out of %s: %s", path, reason)
    if not playable:
        more = [f"and {len(refused) - _MAX_TOLD} more"] if len(refused) > _MAX_TOLD else []
        told = "; ".join([*refused[:_MAX_TOLD], *more]) or "it is empty"
        raise ConfigError(f"web.open_web: {path} holds no task that can be played: {told}")


def _text(path: Path) -> str:
    raw = path.read_bytes()
    return raw.decode(json.detect_encoding(raw))


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Each entry with a name for its place; a line of JSON Lines that cannot be read is an entry that is None."""
    try:
        text = _text(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"web.open_web cannot read its task file {path}: {error}") from error
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield from _lines(path, text, error)
        return
    if not isinstance(whole, list | dict) or not whole:
        raise ConfigError(f"web.open_web: {path} must hold a list of tasks")
    for number, entry in enumerate(whole if isinstance(whole, list) else [whole], start=1):
        yield f"number {number}", entry


def _lines(path: Path, text: str, error: Exception) -> Iterator[tuple[str, Any]]:
    """JSON Lines: the first line that is not blank must be an object, or the file is broken JSON."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    entries = [(f"in line {number}", _object(line)) for number, line in lines]
    if not any(isinstance(entry, dict) for _, entry in entries):
        raise ConfigError(f"web.open_web cannot read its task file {path}: {error}") from error
    yield from entries


def _object(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _checked_sites(sites: Any) -> dict[str, str]:
    """The addresses by upper-case name, without a slash at the end."""
    if not isinstance(sites, Mapping):
        raise ConfigError(f"web.open_web: sites must map names to addresses, got {sites!r}")
    for name, address in sites.items():
        if not isinstance(address, str) or not origin_of(address):
            raise ConfigError(f"web.open_web: sites.{name} must be an http address, got {address!r}")
    return {str(name).strip("_").upper(): address.rstrip("/") for name, address in sites.items()}


def _filled(value: Any, sites: Mapping[str, str]) -> Any:
    """The value with the address of each named site in all of its texts."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: sites.get(found[1], found[0]), value)
    if isinstance(value, list):
        return [_filled(item, sites) for item in value]
    return {key: _filled(item, sites) for key, item in value.items()} if isinstance(value, dict) else value


def _task(place: str, entry: Any, folder: Path, ignore_logins: bool) -> Task:
    if not isinstance(entry, dict):
        raise ConfigError(f"the task {place} is no object of JSON")
    name = entry.get("task_id")
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise ConfigError(f"the task {place}: task_id must be a number or a text, got {name!r}")
    missing = [key for key in _KEYS if key not in entry]
    if missing:
        raise ConfigError(f"task {name}: the keys {', '.join(missing)} are missing")
    if (split := entry.get("split", "train")) not in SPLITS:
        raise ConfigError(f"task {name}: split must be one of {', '.join(SPLITS)}, got {split!r}")
    start = _start_url(name, entry["start_url"])
    intent = _intent(name, entry)
    check_evaluation(str(name), entry["eval"])
    _check_placeholders(name, start, intent, entry["eval"])
    if entry.get("geolocation"):
        raise ConfigError(f"task {name}: geolocation is not known here, got {entry['geolocation']!r}")
    params = {"start_url": start, "intent": intent, "eval": entry["eval"]}
    if not ignore_logins and (login := _login(name, entry, folder)):
        params["storage_state"] = login
    return Task(id=str(name), split=split, params=params)


def _start_url(name: Any, start: Any) -> str:
    if isinstance(start, str) and "|AND|" in start.upper():
        raise ConfigError(f"task {name}: start_url joins several pages by |AND|; an episode here starts with one page")
    if isinstance(start, str) and (found := _PLACEHOLDER.search(start)):
        raise ConfigError(_unfilled(name, "start_url", found[1]))
    if not isinstance(start, str) or not origin_of(start):
        raise ConfigError(f"task {name}: start_url must be an http address, got {start!r}")
    return start


def _intent(name: Any, entry: Mapping[str, Any]) -> str:
    """What is asked for, with the blanks of its template filled."""
    intent, values = entry["intent"], entry.get("instantiation_dict")
    if not isinstance(intent, str) or not intent.strip():
        raise ConfigError(f"task {name}: intent must be a text, got {intent!r}")
    given = {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}
    for blank in _BLANK.findall(intent):
        if not isinstance(given.get(blank), str | int | float):
            raise ConfigError(
                f"task {name}: intent has the blank {{{{{blank}}}}}, which instantiation_dict does not fill"
            )
    return _BLANK.sub(lambda found: str(given[found[1]]), intent)


def _check_placeholders(name: Any, start: str, intent: str, evaluation: Mapping[str, Any]) -> None:
    """Refuse what is left of them: in addresses any, elsewhere (a locator may name variables so) WebArena's own."""
    for key, text in references(evaluation):
        for found in _PLACEHOLDER.findall(text):
            if key in ("reference_url", "url") or found in PLACEHOLDERS:
                raise ConfigError(_unfilled(name, key, found))
    for found in _PLACEHOLDER.findall(intent):
        if found in PLACEHOLDERS:
            raise ConfigError(_unfilled(name, "intent", found))


def _unfilled(name: Any, key: str, placeholder: str) -> str:
    return f"task {name}: {key} has the placeholder __{placeholder}__; give its address as sites: {{{placeholder}: http://...}}"


def _login(name: Any, entry: Mapping[str, Any], folder: Path) -> str:
    """Path of the saved login, from the task file's folder or from the working directory; empty where none is asked."""
    given = entry.get("storage_state")
    if not given:
        if entry.get("require_login"):
            raise ConfigError(f"task {name}: require_login without a storage_state: there is no login to begin with")
        return ""
    if not isinstance(given, str):
        raise ConfigError(f"task {name}: storage_state must be a path, got {given!r}")
    found = next((path for path in (folder / given, Path(given)) if path.is_file()), None)
    if found is None:
        raise ConfigError(
            f"task {name}: storage_state {given} is neither in {folder} nor in the working directory; log in once and "
            "save it with Playwright, or set ignore_logins where the sites need no login"
        )
    try:
        read_storage_state(found)
    except ConfigError as error:
        raise ConfigError(f"task {name}: {error}") from error
    return str(found)


def _unreached(task: Task, origins: Sequence[str]) -> str:
    """Why the task's verdict lies on a page that no episode may reach; empty where it does not."""
    for key, text in references(task.params["eval"]):
        if key == "url" and text not in ("", "last"):
            if not origin_of(text):
                return f"task {task.id}: program_html has url: {text!r}; expected an http address or last"
            places = [origin_of(text)]
        else:
            places = [origin_of(one) for one in alternatives(text)] if key == "reference_url" else []
        if places and all(place and place not in origins for place in places):
            return f"task {task.id}: {key} {text} lies on a site that is not among the origins {', '.join(origins)}"
    return ""
