"""Verifiers for code: patch similarity by the published numbers, static quality, mathematics, hidden tests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwright.checks.reward_check import check_reward
from rollwright.config.components import create
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Group, Task
from rollwright.rewards import patch_similarity as ps
from rollwright.rewards import static_quality as sq
from tests import builders


def block(path: str, search: str, replacement: str) -> str:
    return f"```python\n### {path}\n<<<<<<< SEARCH\n{search}\n=======\n{replacement}\n>>>>>>> REPLACE\n```"


def answer(*blocks: str, thought: str = "hm") -> str:
    return f"<think>\n{thought}\n</think>\n<solution>\n" + "\n".join(blocks) + "\n</solution>"


def group_of(texts: list[str], params: dict) -> Group:
    task = Task(id="t", split="train", params=params)
    members = [
        builders.episode(str(i), builders.turn(logprobs=0.0, text=text), task=task) for i, text in enumerate(texts)
    ]
    return builders.group(*members)


OLD = {"a.py": "def f(x):\n    return x+1\n", "b.py": "y = 1\n"}
NEW = {"a.py": "def f(x):\n    return x+2\n"}
RIGHT = block("a.py", "    return x+1", "    return x+2")


def test_perfect_edits_earn_one_and_unrelated_files_nothing() -> None:
    both = {"a.py": NEW["a.py"], "b.py": "y = 2\n"}
    assert ps.patch_reward(answer(RIGHT, block("b.py", "y = 1", "y = 2")), OLD, both) == (1.0, "")
    assert ps.patch_reward(answer(block("c.py", "", "z = 1")), OLD, NEW)[0] == 0.0


def test_the_published_number_for_one_wrong_character() -> None:
    # Both diffs have 58 characters, 57 of which match in order: 2 * 57 / 116.
    value, _ = ps.patch_reward(answer(block("a.py", "    return x+1", "    return x+3")), OLD, NEW)
    assert value == pytest.approx(114 / 116, abs=1e-12)


def test_the_mean_is_over_the_union_of_paths() -> None:
    both = {"a.py": NEW["a.py"], "b.py": "y = 2\n"}
    value, _ = ps.patch_reward(answer(block("b.py", "y = 1", "y = 2"), block("c.py", "", "z = 1")), OLD, both)
    assert value == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (answer(RIGHT).replace("</solution>", ""), "tag"),
        (answer(RIGHT, thought=" "), "thought"),
        (answer(RIGHT) + "<think>", "tag"),
        (answer("no block"), "no block"),
        (answer(block("a.py", "x", "x")), "identical"),
        (answer(block("a.py", "return y", "return z")), "not found"),
        (answer(block("a.py", "return x+1", "q")), "not found"),  # not at a line's start
        (answer(block("a.py", "", "q")), "not found"),
    ],
)
def test_a_broken_format_earns_minus_one(text: str, why: str) -> None:
    value, wrong = ps.patch_reward(text, OLD, NEW)
    assert value == -1.0 and wrong.startswith(why)


def test_edits_follow_each_other() -> None:
    files = {"a.py": "a\n"}
    first, second = block("a.py", "a", "b"), block("a.py", "b", "c")
    assert ps.patch_reward(answer(first, second), files, {"a.py": "c\n"}) == (1.0, "")
    assert ps.patch_reward(answer(second, first), files, {"a.py": "c\n"})[0] == -1.0


def test_every_occurrence_is_replaced_and_a_search_may_end_within_a_line() -> None:
    assert ps.apply_edits({"a": "x = 1\ny\nx = 12\n"}, {"a": [("x = 1", "z")]}) == {"a": "z\ny\nz2\n"}
    with pytest.raises(ps.FormatError, match="2 times"):
        ps.apply_edits({"a": "x = 1\ny\nx = 12\n"}, {"a": [("x = 1", "z")]}, must_be_unique=True)


def test_no_change_on_both_sides_is_one_and_white_space_at_the_end_no_change() -> None:
    assert ps.similarity({}, {}) == 1.0
    assert ps.patch_reward(answer(block("b.py", "y = 1\n", "y = 1")), OLD, NEW)[0] in (0.0, -1.0)


def test_the_variant_on_diffs() -> None:
    one = "--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-a\n+b\n"
    two = "--- a/n.py\n+++ b/n.py\n@@ -1 +1 @@\n-c\n+d\n"
    assert [ps.diff_reward(one, one), ps.diff_reward(one, two), ps.diff_reward(one, one + two)] == [1.0, 0.0, 0.5]
    assert ps.diff_reward("no diff", one) == 0.0


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6), st.sampled_from(["a", "b", "c", "d"]))
def test_the_reward_is_one_only_for_the_true_result(lines: list[str], new: str) -> None:
    before = {"m": "".join(f"{line}\n" for line in lines)}
    oracle = {"m": before["m"].replace("a\n", "z\n")}
    value, _ = ps.patch_reward(answer(block("m", "a", new)), before, oracle)
    assert value == -1.0 or 0.0 <= value <= 1.0
    after = before["m"].replace("a\n", f"{new}\n")
    if value != -1.0 and oracle["m"] != before["m"]:
        assert (value == 1.0) == (after.splitlines() == oracle["m"].splitlines())


CLEAN = "def test_add_two_numbers():\n    assert add(1, 2) == 3\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CLEAN, {}),
        (CLEAN + "    assert add(1, 2) == 3\n", {"no_duplicate_assertion": 0}),
        (CLEAN + "    assert  add(1,2)==3\n", {"no_duplicate_assertion": 0}),
        ("def test_add():\n    x = add(1, 2)\n", {"assertion": 0, "descriptive_name": 0}),
        ("def test_add_sums():\n    if True:\n        assert add(1,2)==3\n", {"no_conditional": 0}),
        ("def test_add_sums():\n    assert [i for i in add([1], [2])] == [1, 2]\n", {}),
        ("def test_nothing_at_all():\n    # assert add\n    pass\n", {"assertion": 0, "focal_call": 0}),
        ("def test1():\n    assert add(1, 2)\n", {"descriptive_name": 0}),
        ("def test_add_raises():\n    with pytest.raises(ValueError):\n        add('x', 1)\n", {}),
    ],
)
def test_static_properties(source: str, expected: dict[str, int]) -> None:
    found = sq.properties(source, "add")
    assert {name: found[name] for name in sq.DEFAULT} == {**dict.fromkeys(sq.DEFAULT, 1), **expected}


def test_what_is_no_test_has_no_good_property() -> None:
    for source in ("def test_add(:", "", "x = 1", "def add(): pass"):
        assert set(sq.properties(source, "add").values()) == {-1}


def test_an_assertion_must_be_about_the_focal_call() -> None:
    empty = "def test_add_runs_through():\n    add(1, 2)\n    assert True\n"
    named = "def test_add_runs_through():\n    total = add(1, 2)\n    assert total == 3\n"
    assert [sq.properties(s, "add")["focal_assertion"] for s in (empty, named)] == [0, 1]
    smelly = "def test_a_b():\n    try:\n        print(add(1))\n    except E:\n        pass\n"
    assert sq.properties(smelly, "add") == {
        **dict.fromkeys(sq.PROPERTIES, 0), "focal_call": 1, "descriptive_name": 1, "no_duplicate_assertion": 1,
        "no_conditional": 1,
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("said", "gold", "right"),
    [
        ("The answer is $\\boxed{\\frac{1}{2}}$.", "0.5", True),
        ("so 7 + 5 = 12", "12", True),
        ("I get 13", "12", False),
        ("$x = \\sqrt{8}$", "$2\\sqrt{2}$", True),
        ("", "12", False),
    ],
)
def test_mathematics_is_compared_by_value(said: str, gold: str, right: bool) -> None:
    pytest.importorskip("math_verify")
    (score,) = create("rewards", "maths").score(group_of([said], {"answer": gold}))
    assert score.value == float(right)


def test_all_keep_the_reward_contract() -> None:
    pytest.importorskip("math_verify")
    check_reward(create("rewards", "patch_similarity"), [group_of([answer(RIGHT), "x"], {"files": OLD, "oracle": NEW})])
    texts = [CLEAN, "x", f"```python\n{CLEAN}```"]
    check_reward(create("rewards", "static_quality"), [group_of(texts, {"focal": "add"})])
    check_reward(create("rewards", "maths"), [group_of(["12", "x"], {"answer": "12"})])
    for name in ("patch_similarity", "static_quality", "maths"):
        assert create("rewards", name).score(group_of(["x"], {}))[0].value is None


@pytest.mark.parametrize("options", [{"properties": []}, {"properties": ["beauty"]}, {"properties": ["assertion"] * 2}])
def test_unknown_properties_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        create("rewards", "static_quality", options)


def test_only_worlds_that_judge_text_can_be_the_verifier() -> None:
    with pytest.raises(ConfigError, match="judges no"):
        create("rewards", "unit_tests", {"world": "text.maze"})


@pytest.mark.sandbox
def test_hidden_tests_judge_stored_episodes() -> None:
    from rollwright.envs.code.sandbox import unavailable_reason

    if unavailable_reason():
        pytest.skip(unavailable_reason())
    params = {"family": "numbers", "steps": [["negate", None]], "start": 0}
    group = group_of(["def f(x): return -x", "def f(x): return x"], params)
    assert [s.value for s in create("rewards", "unit_tests").score(group)] == [1.0, 0.0]
