"""Right programs in odd but valid styles: each is judged right, and none needs a new box."""

# ruff: noqa: E501  (programs keep their own lines)
from __future__ import annotations

from collections.abc import Iterator

import pytest

from rollwright.envs.code.judging import Case, judge_cases, judge_tests
from rollwright.envs.code.sandbox import Limits, WarmBox, unavailable_reason

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]

LIMITS = Limits(wall_s=20.0, cpu_s=5, memory_mib=256, file_mib=1, output_kib=16, answers_kib=256, disk_mib=1)
CASES = [Case(args=(n,), expected=[n, n * 2, "é"]) for n in (1, 5, -3)]
TESTS = {
    "t": "def test():\n    assert f(1) == [1, 2, 'é'] and f(-3) == [-3, -6, 'é']\n    assert isinstance(f(5), list)"
}
STYLES = {
    'lambda': "f = lambda x: [x, x*2, 'é']",
    'class_call': "class F:\n    def __call__(self, x): return [x, x*2, 'é']\nf = F()",
    'partial': "from functools import partial\ndef g(k, x): return [x, x*k, 'é']\nf = partial(g, 2)",
    'lru': "from functools import lru_cache\n@lru_cache(None)\ndef f(x): return [x, 2*x, 'é']",
    'dataclass': "from __future__ import annotations\nfrom dataclasses import dataclass, field\n@dataclass(slots=True, order=True)\nclass P:\n    a: int\n    b: list[int] = field(default_factory=list)\ndef f(x):\n    p = P(x, [2*x]); return [p.a, *p.b, 'é']",
    'namedtuple': "from typing import NamedTuple\nclass Q(NamedTuple):\n    a: int\ndef f(x): return list(Q(x)) + [x*2, 'é']",
    'generator': "def g(x):\n    yield x\n    yield from (2*x,)\n    yield 'é'\ndef f(x): return list(g(x))",
    'recursion': "def r(n): return 0 if n == 0 else 1 + r(n-1)\ndef f(x):\n    r(900); return [x, x*2, 'é']",
    'noise': "print('hello'*50)\ndef f(x):\n    print('é', x); import sys; print('err', file=sys.stderr); return [x, x*2, 'é']",
    'main': "import sys\ndef f(x): return [x, x*2, 'é']\ndef main():\n    print(f(int(sys.argv[1])))\nif __name__ == '__main__':\n    sys.exit(main())",
    'unicode': "def f(größe):\n    π = 2\n    return [größe, größe*π, 'é']",
    'enum': "from enum import IntEnum\nclass E(IntEnum):\n    T = 2\ndef f(x): return [x, E.T*x, 'é']",
    'list_subclass': "class L(list): pass\ndef f(x): return L([x, x*2, 'é'])",
    'userstr': "class S(str): pass\ndef f(x): return [x, x*2, S('é')]",
    'asyncio': "import asyncio\nasync def a(x):\n    await asyncio.sleep(0); return [x, x*2, 'é']\ndef f(x): return asyncio.run(a(x))",
    'subproc_guard': "try:\n    import numpy as np\nexcept ImportError:\n    np = None\ndef f(x): return [x, x*2, 'é']",
    'closure_counter': "calls = 0\ndef f(x):\n    global calls; calls += 1; return [x, x*2, 'é']",
    'mutable': "cache = {}\ndef f(x): return cache.setdefault(x, [x, 2*x, 'é'])",
    'random': "import random\ndef f(x):\n    random.seed(x); a=[x, x*2, 'é']; random.shuffle(a); return sorted(a, key=lambda v: (isinstance(v,str), 0 if v==x else 1))",
    'file_tmp': "import tempfile, json\ndef f(x):\n    with tempfile.TemporaryFile('w+') as h:\n        json.dump([x,x*2,'é'], h); h.seek(0); return json.load(h)",
    'exec': 'exec(\'def f(x):\\n    return [x, x*2, "é"]\')',
    'match': "def f(x):\n    match x:\n        case int(): return [x, x*2, 'é']",
    'walrus': "def f(x): return [x, (y := x*2), 'é'] if True else y",
    'exc': "def f(x):\n    try:\n        raise StopIteration(x)\n    except StopIteration as e:\n        return [e.value, 2*e.value, 'é']",
    'sys_recursion': "import sys\nsys.setrecursionlimit(10000)\ndef r(n): return 0 if n == 0 else 1 + r(n-1)\ndef f(x):\n    r(5000); return [x, x*2, 'é']",
    'cpu': "def f(x):\n    s=0\n    for i in range(1500000): s+=i\n    return [x, x*2, 'é']",
    'signal': "import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nsignal.signal(signal.SIGTERM, lambda *a: None)\ndef f(x): return [x, x*2, 'é']",
    'typing': "from typing import *\nT = TypeVar('T')\ndef f(x: 'int') -> List[Union[int, str]]: return cast(List, [x, x*2, 'é'])",
    'abc': "from abc import ABC, abstractmethod\nclass A(ABC):\n    @abstractmethod\n    def g(self, x): ...\nclass B(A):\n    def g(self, x): return [x, x*2, 'é']\nf = B().g",
    'staticm': "class K:\n    @staticmethod\n    def f(x): return [x, x*2, 'é']\nf = K.f",
    'crlf': "def f(x):\r\n    return [x, x*2, 'é']\r\n",
    'doctest': "import doctest\ndef f(x):\n    '''\n    >>> f(1)\n    [1, 2, 'é']\n    '''\n    return [x, x*2, 'é']\ndoctest.testmod()",
    'pickle': "import pickle, copy\nclass P:\n    def __init__(s, x): s.x=x\ndef f(x):\n    p = pickle.loads(pickle.dumps(P(x))); return [copy.deepcopy(p).x, 2*x, 'é']",
    'log': "import logging\nlogging.basicConfig(level=10)\ndef f(x):\n    logging.debug('x'); return [x, x*2, 'é']",
    'decimal_ctx': "from decimal import *\ngetcontext().prec=5\ndef f(x): return [int(Decimal(x)), x*2, 'é']",
    'unittest': "import unittest\ndef f(x): return [x, x*2, 'é']\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(1)[0], 1)\nif __name__=='__main__': unittest.main()",
    'assertion': "def f(x): return [x, x*2, 'é']\nassert f(2) == [2, 4, 'é']",
    'input': "def f(x): return [x, x*2, 'é']\ntry:\n    input()\nexcept EOFError: pass",
    'hash_seed': "def f(x): return [x, 2*x, ''.join(set('é'))]",
}  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[WarmBox, WarmBox]]:
    with WarmBox(limits=LIMITS) as program, WarmBox(limits=LIMITS) as tests:
        yield program, tests
        assert program.started == tests.started == 1


@pytest.mark.parametrize("name", STYLES)
def test_a_right_program_is_right_in_any_style(pair: tuple[WarmBox, WarmBox], name: str) -> None:
    program, tests = pair
    verdict, _ = judge_cases(program, STYLES[name], "f", CASES)
    assert verdict.success, verdict.message
    verdict = judge_tests(program, tests, program={"code": STYLES[name]}, tests=TESTS, names=["f"])
    assert verdict.success, verdict.message
    wrong = judge_tests(
        program,
        tests,
        program={"code": STYLES[name] + "\ng = f\ndef f(x): return g(x)[::-1]"},
        tests=TESTS,
        names=["f"],
    )
    assert not wrong.success
