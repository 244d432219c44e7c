"""How trusted tests use a program that lives in another box: stand-ins for its names, objects, modules and errors.

Only plain data and numbers of objects cross the border, and a test compares plain data in its own process. An object of
the program may be called, and asked for its attributes and items: what it gives is looked at like any other answer. It
is never asked for a decision (is it equal, less, true, the same hash; what is the difference to the value expected):
whoever asks has failed, whatever the test makes of the error. Nor may it stand where plain data belong: where the
program as it should be gives a number, an object with a number's methods is a wrong answer.
Standard library only.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from rollwright.envs.code.sandbox import plain

Ask = Callable[[dict[str, Any]], dict[str, Any]]
MAX_ANCESTORS = 20


class Refused(TypeError):
    """The test asked the program for a decision, or the program gave an object in place of plain data, or ended."""


class Far:
    """The program on the other side.

    Args:
        ask: sends an operation, gives the answer.
        objects: the places (`module.name().attribute`) at which the program may give objects; None for all. Everywhere
            else it has to give plain data.
    """

    def __init__(self, ask: Ask, objects: Iterable[str] | None = ()) -> None:
        self._ask = ask
        self._objects = None if objects is None else frozenset(objects)
        self._errors: dict[tuple[str, ...], type[BaseException]] = {}
        self.seen: set[str] = set()
        self.refused = ""
        self.decoding = False

    def name(self, name: str) -> FarObject:
        """A name of the program's top level."""
        return FarObject(self, name, name, name)

    def do(self, op: str, place: str, **fields: Any) -> Any:
        """One operation; its value, or its error raised. `place` says where the value comes from.

        Raises:
            Refused: the program has ended, or gave an object where plain data belong.
        """
        answer = self._ask({"op": op, **fields})
        if "ended" in answer:
            self.refuse(f"the program has ended: {answer['ended']}")
        if "value" not in answer:
            failed = answer.get("failed") or {}
            raise self.error_class(failed.get("names") or ["Exception"])(failed.get("text", ""))
        self.decoding = True
        try:
            return plain.decode(answer["value"], lambda handle: self._stand_in(handle, place))
        finally:
            self.decoding = False

    def refuse(self, why: str) -> NoReturn:
        """The running test has failed, whatever it does with the error."""
        self.refused = self.refused or why
        raise Refused(why)

    def error_class(self, names: Sequence[Any]) -> type[BaseException]:
        """A class for an error of the program: the built-in one, or a copy of its name and ancestry.

        An error that would end a loop of the test in silence becomes a RuntimeError, as in a generator (PEP 479).
        """
        key = tuple(str(name)[:100] for name in names[:MAX_ANCESTORS])
        known = getattr(builtins, key[0], None) if key else Exception
        if isinstance(known, type) and issubclass(known, Exception):
            return RuntimeError if issubclass(known, (StopIteration, StopAsyncIteration)) else known
        if key not in self._errors:
            self._errors[key] = type(key[0], (self.error_class(key[1:]),), {}) if key[1:] else Exception
        return self._errors[key]

    def encode(self, value: Any) -> Any:
        """Plain data for the other side; objects of ours become handles."""
        return plain.encode(value, _as_handle)

    def _stand_in(self, handle: dict[str, Any], place: str) -> Any:
        kind = str(handle.get("type", "object"))[:60]
        if self._objects is not None and place not in self._objects:
            self.refuse(f"{place} gave an object of the type {kind}, where plain data belong")
        self.seen.add(place)
        if "error" in handle:
            return self.error_class(handle["error"])
        return FarObject(self, int(handle["h"]), kind, place)


def _as_handle(value: Any) -> Any:
    if isinstance(value, FarObject) and isinstance(value._target, int):
        return {"h": value._target}
    raise plain.NotPlain(f"a test can hand over plain data and the program's own objects, not {type(value).__name__}")


class FarObject:
    """An object of the program. What is asked of it is asked there, and comes back as a copy."""

    __slots__ = ("_far", "_kind", "_place", "_target")

    def __init__(self, far: Far, target: str | int, kind: str, place: str) -> None:
        for name, value in zip(self.__slots__, (far, kind, place, target), strict=True):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return self._far.do("getattr", f"{self._place}.{name}", target=self._target, name=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._do("setattr", name, value)

    def __delattr__(self, name: str) -> None:
        self._do("delattr", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sent = {key: self._far.encode(value) for key, value in kwargs.items()}
        return self._do("call", *args, kwargs=sent, place=f"{self._place}()")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._do("items", place=f"{self._place}[]"))

    def __len__(self) -> int:
        return int(self._do("len"))

    def __contains__(self, item: Any) -> bool:
        return any(item is other or item == other for other in self)

    def __getitem__(self, key: Any) -> Any:
        return self._do("item", key, place=f"{self._place}[]")

    def __setitem__(self, key: Any, value: Any) -> None:
        self._do("setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        self._do("delitem", key)

    def __str__(self) -> str:
        return str(self._do("str"))

    def __repr__(self) -> str:
        return f"<{self._kind} of the program>"

    def __hash__(self) -> int:
        if not self._far.decoding:  # a set of objects may arrive; to look for one in it is to compare
            self._far.refuse(f"the test asks for the hash of an object of the program ({self._kind})")
        return hash(self._target)

    def __enter__(self) -> Any:
        return self._do("enter", place=f"{self._place}.__enter__()")

    def __exit__(self, *error: object) -> None:
        self._do("exit")

    def _do(self, op: str, *args: Any, place: str = "", **fields: Any) -> Any:
        sent = [self._far.encode(value) for value in args]
        return self._far.do(op, place or f"{op}({self._place})", target=self._target, args=sent, **fields)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(self: FarObject, *args: Any) -> NoReturn:
        far: Far = self._far
        far.refuse(f"the test leaves {name} to an object of the program ({self._kind}); it must give plain data")

    return refuse


_BINARY = "add sub mul truediv floordiv mod divmod pow matmul lshift rshift and or xor"
_DECISIONS = (
    "eq ne lt le gt ge bool index int float complex bytes round trunc floor ceil abs neg pos invert instancecheck "
    "subclasscheck next anext await aiter reversed length_hint format reduce_ex copy deepcopy fspath buffer"
)
for _name in [*_DECISIONS.split(), *(p + n for n in _BINARY.split() for p in ("", "r", "i"))]:
    setattr(FarObject, f"__{_name}__", _refusal(f"__{_name}__"))


class _FarModule(types.ModuleType):
    """A module of the program, imported there when it is imported here."""

    def __init__(self, far: Far, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # every module may have submodules, as far as this side knows
        self.__dict__["_far"] = far.do("import", name, name=name)

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
