"""The engine of the small sites: a router over plain functions, and one sqlite database per episode.

A site is a schema, a table of routes and a function that fills the database from a seed. A `Server` answers requests to
one site with one database; it knows no browser and no policy. Nothing reads a clock: "today" is a row of the database.
"""

from __future__ import annotations

import posixpath
import random
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from .markup import Html, document

Method = Literal["GET", "POST"]

MAX_REDIRECTS = 4
_PLACE = re.compile(r"<(\w+)>")
_BASE_SCHEMA = "create table meta (key text primary key, value text);"


class NotFound(Exception):
    """What was asked for is not there: the visitor gets a page that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer to be shown."""

    title: str
    body: Html


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Go there instead; `note` is shown on top of the next page, once."""

    to: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, as a handler sees it."""

    db: sqlite3.Connection
    parts: Mapping[str, str]
    fields: Mapping[str, str]

    def text(self, name: str) -> str:
        """A field with its blanks squeezed; empty where it is missing."""
        return " ".join(self.fields.get(name, "").split())

    def number(self, name: str, default: int = 0) -> int:
        """A field or a part of the path as a whole number; the default where it is none."""
        value = self.parts.get(name, self.fields.get(name, ""))
        return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else default

    def one(self, sql: str, *values: object) -> sqlite3.Row:
        """The first row.

        Raises:
            NotFound: there is none.
        """
        row: sqlite3.Row | None = self.db.execute(sql, values).fetchone()
        if row is None:
            raise NotFound
        return row

    def all(self, sql: str, *values: object) -> list[sqlite3.Row]:
        """All rows."""
        return self.db.execute(sql, values).fetchall()

    def write(self, sql: str, *values: object) -> int:
        """Change something; returns the id of a new row."""
        return self.db.execute(sql, values).lastrowid or 0

    def meta(self, key: str) -> str:
        """A fact about this episode's world, such as `user` or `today`."""
        return str(self.one("select value from meta where key = ?", key)["value"])


Handler = Callable[[Call], Page | Redirect]
Fill = Callable[[sqlite3.Connection, random.Random, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method, a path with `<places>`, and the function that answers."""

    method: Method
    path: str
    handler: Handler

    def match(self, path: str) -> dict[str, str] | None:
        """The places of the path, or None where the path is another."""
        found = re.fullmatch(_PLACE.sub(r"(?P<\1>[^/]+)", self.path), path)
        return found.groupdict() if found else None


def get(path: str, handler: Handler) -> Route:
    """A page to look at."""
    return Route(method="GET", path=path, handler=handler)


def post(path: str, handler: Handler) -> Route:
    """Something to be done."""
    return Route(method="POST", path=path, handler=handler)


@dataclass(frozen=True, kw_only=True)
class Site:
    """One site. `watched`: queries whose rows together are the state that success is judged by."""

    name: str
    title: str
    schema: str
    routes: tuple[Route, ...]
    menu: tuple[tuple[str, str], ...]
    fill: Fill
    watched: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The name in the address: ends in .test, which never resolves."""
        return f"{self.name}.test"


def url(path: str, **fields: object) -> str:
    """A path with a query, encoded the way links on the pages are."""
    query = urlencode([(key, str(value)) for key, value in fields.items()])
    return f"{quote(path)}?{query}" if query else quote(path)


def canonical(address: str, host: str) -> str | None:
    """Path and query of an address on `host` in one spelling, so that browsers need not tidy it; None for elsewhere."""
    try:
        whole = re.match(r"([a-z]+:)?//", address, re.IGNORECASE) is not None
        parts = urlsplit(address if whole else f"//{host}/{address.removeprefix(host).lstrip('/')}")
    except ValueError:
        return None
    if parts.netloc != host or parts.scheme not in ("", "http"):
        return None
    path = posixpath.normpath("/" + unquote(parts.path).replace("\\", "/").lstrip("/"))
    return url(path, **_fields(parts.query))


def _fields(query: str) -> dict[str, str]:
    return dict(parse_qsl(query, keep_blank_values=True))


def connect() -> sqlite3.Connection:
    """An empty database in memory. One thread at a time uses it, not always the same one."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    return db


def populate(site: Site, rng: random.Random, size: int) -> sqlite3.Connection:
    """A new database of the site, filled by chance of `rng` alone."""
    db = connect()
    db.executescript(_BASE_SCHEMA + site.schema)
    db.execute("begin")
    site.fill(db, rng, size)
    db.execute("commit")
    return db


def state_of(site: Site, db: sqlite3.Connection) -> list[list[tuple[object, ...]]]:
    """The watched rows, each query's sorted: equal states give equal lists."""
    return [sorted((tuple(row) for row in db.execute(sql)), key=repr) for sql in site.watched]


class Server:
    """Answers requests to one site. One per episode; whoever makes it may replace `db` by an earlier copy."""

    def __init__(self, site: Site, db: sqlite3.Connection) -> None:
        self.site = site
        self.db = db
        self.address = ""
        self.html = ""
        self.visits = 0
        self.writes = 0
        self._note = ""

    def keep_note(self) -> None:
        """Show the note of the last page again: the visitor has not seen it, but is sent there."""
        self._leave_note(self._note)

    def open(self, method: str, address: str, body: str = "") -> str:
        """Answer one request with a whole page. Redirects are followed here; `address` then is the page's own.

        Args:
            address: path and query.
            body: of a POST, form-encoded.
        """
        for _ in range(MAX_REDIRECTS):
            path, _, query = address.partition("?")
            self.writes += method == "POST"
            answer = self._answer(method, unquote(path), _fields(body if method == "POST" else query))
            if isinstance(answer, Page):
                self.address = canonical(address, self.site.host) or "/"
                self.visits += 1
                self._note = self._take_note()
                self.html = document(self.site.title, self.site.menu, answer.title, answer.body, self._note)
                return self.html
            self._leave_note(answer.note)
            # A redirect is followed by GET and without a body, as browsers do after a form.
            method, address, body = "GET", answer.to, ""
        raise RuntimeError(f"{self.site.name}: more than {MAX_REDIRECTS} redirects, the last one to {address}")

    def _answer(self, method: str, path: str, fields: Mapping[str, str]) -> Page | Redirect:
        for route in self.site.routes:
            parts = route.match(path) if route.method == method else None
            if parts is not None:
                try:
                    return route.handler(Call(db=self.db, parts=parts, fields=fields))
                except NotFound:
                    break
        return Page(title="Not found", body=Html("<p>There is no such page.</p>"))

    def _leave_note(self, note: str) -> None:
        if note:
            self.db.execute("insert or replace into meta values ('note', ?)", (note,))

    def _take_note(self) -> str:
        row = self.db.execute("delete from meta where key = 'note' returning value").fetchone()
        return str(row["value"]) if row else ""
