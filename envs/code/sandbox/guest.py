"""What a child of the zygote does: take a program from one descriptor, run it, answer through another.

Five ways, named by the first message's `mode`: "calls" (hold a program's names, answer calls to them), "judge" (run
trusted tests against a program that lives in another box), "script" (files and a command line), "pytest", "trusted"
(one call of a function of ours).
Standard library only.
"""

from __future__ import annotations

import builtins
import importlib
import io
import operator
import os
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from rollwright.envs.code.sandbox import plain, remote

MAX_MESSAGE = 300
"""Characters of an error's text that travel."""
TRUSTED: dict[str, types.ModuleType] = {}
"""Modules of ours by dotted name, imported before any run."""


def main(payload_fd: int, answers_fd: int) -> int:
    """Serve one run; returns the exit code."""
    inbox = os.fdopen(payload_fd, "rb")
    outbox = os.fdopen(answers_fd, "wb", buffering=0)
    order = plain.read_frame(inbox)
    if order is None:
        return 0
    modes = {"calls": serve_calls, "judge": judge, "script": run_script, "pytest": run_pytest, "trusted": call_trusted}
    status = modes[order["mode"]](order, inbox, outbox)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    return status


def _send(outbox: BinaryIO, message: Any) -> None:
    data = memoryview(plain.to_frame(message))
    while data:
        data = data[outbox.write(data) :]


def write_files(files: dict[str, str], folder: str = "/tmp") -> None:
    """Files by relative path."""
    for name, text in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _enter(order: dict[str, Any]) -> None:
    folder = order.get("folder", "/tmp")
    write_files(order.get("files", {}), folder)
    if order.get("files"):
        os.chdir(folder)
        sys.path.insert(0, folder)
        _forget({name.partition("/")[0].removesuffix(".py") for name in order["files"]})


def _forget(packages: set[str]) -> None:
    """Installed packages of these names that are imported already (pytest brings some) must not hide the files."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


# "calls": the program answers for itself


class _Holder:
    """The objects of a program that were handed out by number because they are no plain data."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self._objects: list[Any] = []

    def encode(self, value: Any) -> Any:
        return plain.encode(value, self._as_handle)

    def decode(self, data: Any) -> Any:
        return plain.decode(data, lambda found: self._objects[found["h"]])

    def _as_handle(self, value: Any) -> dict[str, Any]:
        self._objects.append(value)
        handle: dict[str, Any] = {"h": len(self._objects) - 1, "type": type(value).__name__}
        if isinstance(value, type) and issubclass(value, BaseException):
            handle["error"] = error_names(value)
        return handle

    def target(self, name: Any) -> Any:
        """A name of the program, or an object by number."""
        if isinstance(name, str):
            if name not in self.namespace:
                raise NameError(f"the program defines no {name!r}")
            return self.namespace[name]
        return self._objects[name]


def error_names(kind: type) -> list[str]:
    """The names of an exception class and its ancestors, nearest first."""
    return [cls.__name__ for cls in kind.__mro__ if cls is not object]


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "items": list,
    "len": len,
    "str": str,
    "item": operator.getitem,
    "setitem": operator.setitem,
    "delitem": operator.delitem,
    "enter": lambda target: type(target).__enter__(target),
    "exit": lambda target: type(target).__exit__(target, None, None, None),
}


def _do(holder: _Holder, order: dict[str, Any]) -> Any:
    """One operation on the program: import, call, or what an object is asked for."""
    op = order["op"]
    if op == "import":
        return importlib.import_module(order["name"])
    target = holder.target(order["target"])
    args = [holder.decode(item) for item in order.get("args", [])]
    if op == "call":
        return target(*args, **{key: holder.decode(value) for key, value in order.get("kwargs", {}).items()})
    return _OPERATIONS[op](target, *([order["name"]] if op == "getattr" else args))


def serve_calls(order: dict[str, Any], inbox: BinaryIO, outbox: BinaryIO) -> int:
    """Run the program's top level, then answer calls until there are no more."""
    namespace: dict[str, Any] = {"__name__": "program", "__builtins__": builtins}
    module = types.ModuleType("program")
    module.__dict__.update(namespace)
    sys.modules["program"] = sys.modules["__main__"] = module  # `doctest.testmod()` and the like ask for the latter
    try:
        _enter(order)
        exec(compile(order.get("code", ""), "<program>", "exec"), module.__dict__)
    except BaseException as error:
        _send(outbox, {"failed": _describe(error)})
        return 0
    _send(outbox, {"loaded": True})
    holder = _Holder(module.__dict__)
    while (message := plain.read_frame(inbox)) is not None:
        try:
            answer = {"value": holder.encode(_do(holder, message))}
        except BaseException as error:
            answer = {"failed": _describe(error)}
        _send(outbox, answer)
    return 0


def _describe(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)[:MAX_MESSAGE]
    except BaseException:
        text = "an error that cannot be printed"
    return {"names": error_names(type(error)), "text": text.encode("utf-8", "replace").decode(), "where": _where(error)}


def _where(error: BaseException) -> str:
    """The last line of the program itself that the error passed."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(("<program>", "/tmp"))]
    return f"{frames[-1].filename.removeprefix('/tmp/')}, line {frames[-1].lineno}" if frames else ""


# "judge": trusted tests, the program is in another box


def judge(order: dict[str, Any], inbox: BinaryIO, outbox: BinaryIO) -> int:
    """Run every test of trusted sources, by label, against the far program; send one verdict per test."""
    far = remote.Far(lambda message: _ask(message, inbox, outbox), order["objects"])
    _forget(set(order.get("packages", [])))
    remote.install(far, order.get("packages", []))
    verdicts: dict[str, str] = {}
    for label, source in order["tests"].items():
        space: dict[str, Any] = {"__name__": label, **{name: far.name(name) for name in order.get("names", [])}}
        # A program that cannot be imported fails here, say.
        if wrong := _verdict(far, lambda: exec(compile(source, f"<{label}>", "exec"), space)):  # noqa: B023
            verdicts[label] = wrong
            continue
        for name, test in list(space.items()):
            if name.startswith("test") and callable(test):
                verdicts[f"{label}::{name}"] = _verdict(far, test)
    _send(outbox, {"verdicts": verdicts, "objects": sorted(far.seen)})
    return 0


def _verdict(far: remote.Far, test: Callable[[], Any]) -> str:
    """Empty where the test passed, else what was wrong."""
    far.refused = ""
    try:
        test()
        wrong = far.refused
    except BaseException as error:
        wrong = far.refused or f"{type(error).__name__}: {error}"
    return wrong[:MAX_MESSAGE].encode("utf-8", "replace").decode()


def _ask(message: dict[str, Any], inbox: BinaryIO, outbox: BinaryIO) -> dict[str, Any]:
    _send(outbox, {"ask": message})
    answer = plain.read_frame(inbox)
    if answer is None:
        raise ConnectionError("the program has ended")
    return answer  # type: ignore[no-any-return]


# "trusted": a function of ours that looks at foreign text


def call_trusted(order: dict[str, Any], inbox: BinaryIO, outbox: BinaryIO) -> int:
    """Call one function of a trusted module on plain data, answer with what it gives."""
    try:
        function = getattr(TRUSTED[order["module"]], order["function"])
        answer = {"value": plain.encode(function(*[plain.decode(item) for item in order["args"]]))}
    except BaseException as error:
        answer = {"failed": _describe(error)}
    _send(outbox, answer)
    return 0


# "script" and "pytest": a process of its own, whose output is all that is wanted


def run_script(order: dict[str, Any], inbox: BinaryIO, outbox: BinaryIO) -> int:
    """Run `code` as a main program; an uncaught error is printed as Python would, exit code 1."""
    _enter(order)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["program", *order.get("args", [])]
    try:
        exec(compile(order["code"], "<program>", "exec"), module.__dict__)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        lines = traceback.format_exc().splitlines(keepends=True)
        sys.stderr.write("".join(line for line in lines if "/box/" not in line))
        return 1
    return 0


class _Outcomes:
    """A pytest plug-in: what became of every test, with the line that failed."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.found[report.nodeid] = (crash.message if crash else str(report.longrepr))[:MAX_MESSAGE] or "failed"
        elif report.when == "call":
            self.found.setdefault(report.nodeid, "" if report.passed else "skipped")

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.found[report.nodeid or "collection"] = str(report.longrepr)[-MAX_MESSAGE:]


def run_pytest(order: dict[str, Any], inbox: BinaryIO, outbox: BinaryIO) -> int:
    """Run pytest in the files' folder; the outcomes are feedback, not a verdict: the program shares this process."""
    import pytest

    _enter(order)
    outcomes = _Outcomes()
    printed, sys.stdout = sys.stdout, io.StringIO()
    try:
        code = pytest.main(
            ["-q", "-x", *order.get("args", [])] if order.get("first") else [*order.get("args", [])], plugins=[outcomes]
        )
    finally:
        text, sys.stdout = sys.stdout.getvalue(), printed
    _send(outbox, {"outcomes": outcomes.found, "code": int(code), "text": text[-4000:]})
    return 0
