"""What the phone keeps: content providers, settings and files, all in one small sqlite database in memory.

One database means that a snapshot is one copy of a few pages: about 25 microseconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

Value = str | int | float | bytes | None
Row = dict[str, Value]

_SYSTEM_TABLES = """
CREATE TABLE settings (namespace TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (namespace, name));
CREATE TABLE files (path TEXT PRIMARY KEY, data BLOB NOT NULL, modified_ms INTEGER NOT NULL);
CREATE TABLE folders (path TEXT PRIMARY KEY);
"""
_INSIDE = "substr(path, 1, length(?) + 1) = ? || '/'"  # two parameters: the folder, twice
FOLDERS = ("/sdcard", "/sdcard/Documents", "/sdcard/Download", "/sdcard/Music", "/sdcard/Pictures")


class Store:
    """One phone's data. Made and owned by a `Phone`; the schema and the uris are those of its apps.

    Args:
        schema: `CREATE TABLE` statements of all apps.
        providers: from content uri to table.
    """

    def __init__(self, schema: str, providers: Mapping[str, str]) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=512)
        self._providers = dict(providers)
        # Small pages: 20 tables of a few rows each are then 40 kB to copy, not 160.
        self._db.execute("PRAGMA page_size = 1024")
        self._db.executescript(_SYSTEM_TABLES + schema)
        self._db.executemany("INSERT INTO folders VALUES (?)", [(path,) for path in FOLDERS])
        # The tables never change, so their columns are looked up once.
        self._known = {table: self._names(table) for table in self._providers.values()}
        self._empty = self._db.serialize()

    def clear(self) -> None:
        """As it was when made."""
        self._db.deserialize(self._empty)

    def save(self) -> bytes:
        """The whole database."""
        return self._db.serialize()

    def load(self, data: bytes) -> None:
        """Take up a database that `save` gave."""
        self._db.deserialize(data)

    def close(self) -> None:
        """Free the database."""
        self._db.close()

    # The apps' own access

    def query(self, sql: str, *args: Value) -> list[tuple[Value, ...]]:
        """Rows of a `SELECT`."""
        return self._db.execute(sql, args).fetchall()

    def execute(self, sql: str, *args: Value) -> int:
        """Carry out one statement; the id of the row it inserted, if it did."""
        return int(self._db.execute(sql, args).lastrowid or 0)

    # Content providers

    def uris(self) -> list[str]:
        """All content uris, sorted."""
        return sorted(self._providers)

    def rows(self, uri: str, where: str = "", args: Sequence[Value] = ()) -> list[Row]:
        """Rows of a provider by `_id`, each a map from column to value.

        Args:
            where: a condition in SQL, such as `name = ?`; empty for all rows.

        Raises:
            KeyError: no provider has that uri.
            ValueError: the condition cannot be read.
        """
        table, row_id = self._table(uri)
        conditions = ([f"({where})"] if where else []) + ([f"_id = {row_id}"] if row_id is not None else [])
        clause = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        try:
            cursor = self._db.execute(f"SELECT * FROM {table}{clause} ORDER BY _id", tuple(args))
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise ValueError(f"cannot query {uri} where {where!r}: {error}") from error

    def insert(self, uri: str, values: Mapping[str, Value]) -> int:
        """Add a row; the id it got.

        Raises:
            KeyError: no provider has that uri.
            ValueError: a column does not exist, or a value does not fit.
        """
        table, _ = self._table(uri)
        names = self._columns(table, values)
        marks = ", ".join("?" for _ in names)
        columns = f"({', '.join(names)}) VALUES ({marks})" if names else "DEFAULT VALUES"
        try:
            return int(self._db.execute(f"INSERT INTO {table} {columns}", tuple(values.values())).lastrowid or 0)
        except sqlite3.Error as error:
            raise ValueError(f"cannot insert into {uri}: {error}") from error

    def update(self, uri: str, values: Mapping[str, Value], where: str = "", args: Sequence[Value] = ()) -> int:
        """Change rows; how many. Raises as `rows` and `insert`."""
        table, row_id = self._table(uri)
        changes = ", ".join(f"{name} = ?" for name in self._columns(table, values))
        if not changes:
            raise ValueError(f"an update of {uri} needs at least one column")
        return self._change(f"UPDATE {table} SET {changes}", (*values.values(), *args), where, row_id)

    def delete(self, uri: str, where: str = "", args: Sequence[Value] = ()) -> int:
        """Remove rows; how many. Raises as `rows`."""
        table, row_id = self._table(uri)
        return self._change(f"DELETE FROM {table}", tuple(args), where, row_id)

    def _change(self, statement: str, values: tuple[Value, ...], where: str, row_id: int | None) -> int:
        conditions = ([f"({where})"] if where else []) + ([f"_id = {row_id}"] if row_id is not None else [])
        clause = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        try:
            return self._db.execute(statement + clause, values).rowcount
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise ValueError(f"cannot carry out {statement + clause!r}: {error}") from error

    def _table(self, uri: str) -> tuple[str, int | None]:
        """The table of a uri, and the row where the uri ends in its id."""
        if uri in self._providers:
            return self._providers[uri], None
        base, _, last = uri.rstrip("/").rpartition("/")
        if last.isdecimal() and last.isascii() and base in self._providers:
            return self._providers[base], int(last)
        raise KeyError(f"no content provider has the uri {uri!r}; there are: {', '.join(self.uris())}")

    def _names(self, table: str) -> frozenset[str]:
        return frozenset(str(row[1]) for row in self._db.execute(f"PRAGMA table_info({table})"))

    def _columns(self, table: str, values: Iterable[str]) -> list[str]:
        known = self._known[table]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ValueError(f"{table} has no column {unknown[0]!r}; it has: {', '.join(sorted(known))}")
        return list(values)

    # Settings

    def setting(self, namespace: str, name: str) -> str | None:
        """The value, or None where none is set."""
        found = self._db.execute("SELECT value FROM settings WHERE namespace = ? AND name = ?", (namespace, name))
        row = found.fetchone()
        return None if row is None else str(row[0])

    def settings(self, namespace: str) -> dict[str, str]:
        """All settings of a namespace (`system`, `secure` or `global`), by name."""
        found = self.query("SELECT name, value FROM settings WHERE namespace = ? ORDER BY name", namespace)
        return {str(name): str(value) for name, value in found}

    def put_setting(self, namespace: str, name: str, value: str) -> None:
        """Write a setting."""
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?, ?)", (namespace, name, value))

    def delete_setting(self, namespace: str, name: str) -> bool:
        """Whether there was one."""
        change = self._db.execute("DELETE FROM settings WHERE namespace = ? AND name = ?", (namespace, name))
        return change.rowcount > 0

    # Files: absolute paths, no `..`, no trailing slash

    def read_file(self, path: str) -> bytes:
        """Raises FileNotFoundError (also for a folder)."""
        found = self._db.execute("SELECT data FROM files WHERE path = ?", (path,)).fetchone()
        if found is None:
            raise FileNotFoundError(f"{path}: No such file or directory")
        return bytes(found[0])

    def write_file(self, path: str, data: bytes, now_ms: int) -> None:
        """Write a file whole.

        Raises:
            FileNotFoundError: its folder does not exist.
            IsADirectoryError: the path is a folder.
        """
        if self.is_folder(path):
            raise IsADirectoryError(f"{path}: Is a directory")
        folder = path.rpartition("/")[0]
        if not self.is_folder(folder):
            raise FileNotFoundError(f"{folder}: No such file or directory")
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", (path, data, now_ms))

    def delete_file(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it. Raises FileNotFoundError."""
        files = self._db.execute(f"DELETE FROM files WHERE path = ? OR {_INSIDE}", (path, path, path)).rowcount
        folders = self._db.execute(f"DELETE FROM folders WHERE path = ? OR {_INSIDE}", (path, path, path)).rowcount
        if not files + folders:
            raise FileNotFoundError(f"{path}: No such file or directory")

    def move_file(self, path: str, target: str) -> None:
        """Rename a file. Raises as `read_file` and `write_file`."""
        modified = self.stat_file(path)[1]
        data = self.read_file(path)
        self.write_file(target, data, modified)
        if target != path:
            self._db.execute("DELETE FROM files WHERE path = ?", (path,))

    def make_folder(self, path: str) -> None:
        """Raises FileNotFoundError (no parent) or FileExistsError."""
        if self.is_folder(path) or self.query("SELECT 1 FROM files WHERE path = ?", path):
            raise FileExistsError(f"{path}: File exists")
        if not self.is_folder(path.rpartition("/")[0]):
            raise FileNotFoundError(f"{path}: No such file or directory")
        self._db.execute("INSERT INTO folders VALUES (?)", (path,))

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of that path."""
        return bool(self._db.execute("SELECT 1 FROM folders WHERE path = ?", (path,)).fetchone())

    def stat_file(self, path: str) -> tuple[int, int]:
        """Size in bytes and time of the last change in ms. Raises FileNotFoundError."""
        found = self.query("SELECT length(data), modified_ms FROM files WHERE path = ?", path)
        if not found:
            raise FileNotFoundError(f"{path}: No such file or directory")
        return int(found[0][0] or 0), int(found[0][1] or 0)

    def list_folder(self, path: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files directly in `path`, sorted. Raises FileNotFoundError."""
        if not self.is_folder(path):
            raise FileNotFoundError(f"{path}: No such file or directory")
        found = []
        for table in ("folders", "files"):
            paths = [str(row[0]) for row in self.query(f"SELECT path FROM {table} WHERE {_INSIDE}", path, path)]
            found.append(sorted(p[len(path) + 1 :] for p in paths if "/" not in p[len(path) + 1 :]))
        return found[0], found[1]
