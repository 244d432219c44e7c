"""How trusted tests use a program that lives in another box: stand-ins for its names, objects, modules and errors.

Only plain data and numbers of objects cross the border. A test compares what it got in its own process, so nothing that
the program defines can answer for the comparison, unless the test compares two of the program's own objects.
Standard library only.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rollwright.envs.code.sandbox import plain

Ask = Callable[[dict[str, Any]], dict[str, Any]]


class Far:
    """The program on the other side."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._errors: dict[tuple[str, ...], type[BaseException]] = {}

    def name(self, name: str) -> FarObject:
        """A name of the program's top level."""
        return FarObject(self, name, name)

    def do(self, op: str, **fields: Any) -> Any:
        """One operation; its value, or its error raised."""
        answer = self._ask({"op": op, **fields})
        if "value" in answer:
            return plain.decode(answer["value"], self._stand_in)
        failed = answer.get("failed") or {}
        raise self.error_class(failed.get("names") or ["Exception"])(failed.get("text", ""))

    def error_class(self, names: Sequence[str]) -> type[BaseException]:
        """A class for an error of the program: the built-in one, or a copy of its name and ancestry."""
        key = tuple(str(name) for name in names)
        known = getattr(builtins, key[0], None) if key else Exception
        if isinstance(known, type) and issubclass(known, Exception):
            return known
        if key not in self._errors:
            self._errors[key] = type(key[0], (self.error_class(key[1:]),), {}) if key[1:] else Exception
        return self._errors[key]

    def encode(self, value: Any) -> Any:
        return plain.encode(value, _as_handle)

    def _stand_in(self, handle: dict[str, Any]) -> Any:
        if "error" in handle:
            return self.error_class(handle["error"])
        return FarObject(self, int(handle["h"]), str(handle.get("type", "object")))


def _as_handle(value: Any) -> Any:
    if isinstance(value, FarObject) and isinstance(value._target, int):
        return {"h": value._target}
    raise plain.NotPlain(f"a test can hand over plain data and the program's own objects, not {type(value).__name__}")


class FarObject:
    """An object of the program. Whatever is done to it is done there."""

    def __init__(self, far: Far, target: str | int, kind: str) -> None:
        self._far, self._target, self._kind = far, target, kind

    def __getattr__(self, name: str) -> Any:
        return self._far.do("getattr", target=self._target, name=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method("", args, kwargs)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._far.do("items", target=self._target))

    def __len__(self) -> int:
        return int(self._method("__len__"))

    def __getitem__(self, key: Any) -> Any:
        return self._method("__getitem__", (key,))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._method("__setitem__", (key, value))

    def __contains__(self, item: Any) -> bool:
        return self._method("__contains__", (item,)) is True

    def __eq__(self, other: object) -> bool:
        return self._method("__eq__", (other,)) is True

    def __lt__(self, other: Any) -> bool:
        return self._method("__lt__", (other,)) is True

    def __hash__(self) -> int:
        return int(self._method("__hash__"))

    def __str__(self) -> str:
        return str(self._method("__str__"))

    def __repr__(self) -> str:
        return f"<{self._kind} of the program>"

    def __enter__(self) -> Any:
        return self._method("__enter__")

    def __exit__(self, *error: object) -> None:
        self._method("__exit__", (None, None, None))

    def _method(self, name: str, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        sent = {
            "target": self._target,
            "args": [self._far.encode(value) for value in args],
            "kwargs": {key: self._far.encode(value) for key, value in (kwargs or {}).items()},
        }
        return self._far.do("method", name=name, **sent) if name else self._far.do("call", **sent)


class _FarModule(types.ModuleType):
    """A module of the program, imported there when it is imported here."""

    def __init__(self, far: Far, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # every module may have submodules, as far as this side knows
        self.__dict__["_far"] = far.do("import", name=name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["_far"], name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the program's packages on the other side."""

    def __init__(self, far: Far, packages: Sequence[str]) -> None:
        self._far, self._packages = far, tuple(packages)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _FarModule(self._far, spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """It ran over there."""


def install(far: Far, packages: Sequence[str]) -> None:
    """Let `import` find `packages` in the far program."""
    if packages:
        sys.meta_path.insert(0, _Finder(far, packages))
