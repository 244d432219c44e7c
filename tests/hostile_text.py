"""Hostile text for tests: what a policy may write that no grammar foresees. Seeded, so that a failure repeats."""

from __future__ import annotations

import json
import random
from collections.abc import Callable


def depths(rng: random.Random) -> int:
    return rng.choice((1_000, 20_000))


def code_points(rng: random.Random, first: int, last: int) -> str:
    return "".join(chr(rng.randrange(first, last)) for _ in range(rng.randrange(1, 200)))


ODD_VALUES = (
    *(None, True, [], {}, "", -1, 0, 1.5, 2**63, 10**400, 1e308, -1e9, float("nan"), float("inf"), "x", "\ud800", "\0"),
    *("; reboot", "$(reboot)", "`id`", "| cat /etc/passwd", "'; DROP TABLE files; --", "%s%n", "-n", "é中🙂" * 400),
    *(
        "x" * 50_000,
        "../../../etc/passwd",
        "file:///etc/passwd",
        "KEYCODE_POWER",
        "\x1b[2J",
        "\u202e\u200b",
        [[[["x"]]]],
    ),
)
KINDS = ("click", "input_text", "swipe", "open_app", "keyboard_key", "answer", "status", "scroll", "long_press", None)


def odd_json(rng: random.Random) -> str:
    """An action of the phone's JSON form, with values that belong nowhere."""
    fields = ("index", "x", "y", "text", "direction", "keycode", "app_name", "goal_status", "clear_text", "nonsense")
    chosen = rng.sample(fields, rng.randrange(1, 6))
    return json.dumps({"action_type": rng.choice(KINDS), **{name: rng.choice(ODD_VALUES) for name in chosen}})


WORDS = (
    *(
        "go",
        "take",
        "put",
        "open",
        "close",
        "look",
        "type",
        "tap",
        "hold",
        "double",
        "swipe",
        "scroll",
        "answer",
        "deal",
    ),
    *(
        "deal",
        "guess",
        "edit",
        "test",
        "read",
        "search_code",
        "submit",
        "move",
        "up",
        "north",
        "1",
        "2",
        "0",
        "-1",
        "9" * 20,
    ),
    *("1e308", "nan", "²", "١", "Ⅷ", "e4", "O-O", "Kf3", "$20000", "is", "it", "a", "dog?"),
)
SHELL = (
    *("type 1 ; rm -rf /sdcard", "type 2 $(reboot)", "type 1 `id`", "type 3 \0", "type 1 \ud800", "open ; reboot"),
    *(
        "type 2 'a' \"b\" \\ | & > < * ? ! ~ #",
        "tap 1e308 1e308",
        "tap nan inf",
        "tap -1 -1",
        "tap 999999999 999999999",
    ),
    *("open \ud800", "answer \ud800", "swipe \0", "save", "look. save", "quit", "__import__('os')._exit(1)"),
    *("<answer>__import__('os')._exit(1)</answer>", "<answer>" + "9" * 100_000 + "</answer>", "{}{0.__class__}%s%n"),
    *("```python\nimport os\nos._exit(0)\n```", "```python\ndef f(x):\n    while True: pass\n```"),
    *("edit a.py\n<<<<<<< SEARCH\n\n=======\nx\n>>>>>>> REPLACE", "read ../../../etc/passwd 1 1", "test -p x; id"),
)
CODE = (
    "def test_a():\n    while True: pass",
    "def test_a():\n" + "    assert f(1) == f(1)\n" * 1_600,
    "def f(x): return " + "-" * 7_000 + "x",
    "assert " + "-" * 1_200 + "1",
    "def f(x):\n    while True: pass",
    "def f(x): return [0] * 10**11",
    "def f(x): print('x' * 10**8); return x",
    "class H:\n    def __hash__(self): return 1\n\ndef f(x): return {H() for _ in range(3000)}",
    "class L:\n    def __eq__(self, other): return True\n\ndef f(x): return L()",
    "edit shop/cart.py\n<<<<<<< SEARCH\n\n=======\nx = " + "-" * 7_000 + "1\n>>>>>>> REPLACE",
    "edit shop/cart.py\n<<<<<<< SEARCH\n    \n=======\n" + "    \n" * 500 + ">>>>>>> REPLACE",
    "search_code (a+)+$" + "a" * 5_000,
    "<answer>" + "9**" * 2_000 + "9</answer>",
    "<answer>" + "(x+y+z+w+v)**200" + "</answer>",
)
MAKERS: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: rng.choice(("a", "9", " ", "\n", "go ", "\ud800", "é", "🙂", "\0")) * rng.choice((10, 5_000, 200_000)),
    lambda rng: code_points(rng, 0, 0x20),
    lambda rng: code_points(rng, 0xD800, 0xE000),
    lambda rng: code_points(rng, 0, 0x110000),
    lambda rng: rng.choice("([{<-~\"'$`*") * depths(rng) + "1",
    lambda rng: "not " * depths(rng) + "x",
    lambda rng: '{"action_type": ' * depths(rng),
    lambda rng: "[" * (count := depths(rng)) + "]" * count,
    odd_json,
    lambda rng: rng.choice(SHELL),
    lambda rng: " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 30))),
    lambda rng: f"{rng.choice(WORDS)} {code_points(rng, 0x20, 0x3000)}",
)


def hostile(rng: random.Random, number: int) -> str:
    """The kinds in turn, so that each is played everywhere."""
    return MAKERS[number % len(MAKERS)](rng)


def hostile_code(rng: random.Random, number: int) -> str:
    """Programs in between."""
    return CODE[number // 2 % len(CODE)] if number % 2 else hostile(rng, number // 2)
