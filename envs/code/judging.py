"""Verdicts on programs: expected values stay out of the box, trusted tests run in another box than the program.

A program can say nothing but what its functions returned. With cases, the comparison is made here, outside any box, on
plain data. With tests, the tests run in a box of their own and reach the program through the host; the verdict comes
from that box, over a channel that the program's box does not have.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollwright.envs.code.sandbox import plain
from rollwright.envs.code.sandbox.limits import Limits
from rollwright.envs.code.sandbox.session import Ended
from rollwright.envs.code.sandbox.warm import WarmBox, retried

FLOAT_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call and what it must return. Both are plain data."""

    args: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How many checks a program passed; `message` says what the first failure was, without the expected value.

    `objects` lists the places at which a program that was judged by tests gave objects of its own classes.
    """

    passed: int
    total: int
    message: str = ""
    failures: Mapping[str, str] | None = None
    objects: frozenset[str] = frozenset()

    @property
    def frac(self) -> float:
        """Share of checks passed, 0 where there was none."""
        return self.passed / self.total if self.total else 0.0

    @property
    def success(self) -> bool:
        """Whether all passed, of one or more."""
        return self.total > 0 and self.passed == self.total


def judge_cases(
    box: WarmBox, code: str, name: str, cases: Sequence[Case], *, limits: Limits | None = None
) -> tuple[Verdict, list[Any]]:
    """Call the program's function `name` on every case.

    Returns:
        The verdict, and for each case what came back: ("value", v), ("failed", text) or None where nothing did.

    Raises:
        EnvironmentFault: the box could not be started, or was lost at every try.
    """
    calls = [{"op": "call", "target": name, "args": [plain.encode(a) for a in case.args]} for case in cases]
    answers, ended = box.run({"mode": "calls", "code": code}, calls, limits=limits)
    if not answers or "loaded" not in _mapping(answers[0]):
        reason = describe_failure(_mapping(answers[0])) if answers else ended.said
        return Verdict(passed=0, total=len(cases), message=reason), [None] * len(cases)
    returned = [_returned(answer) for answer in answers[1 : 1 + len(cases)]]
    returned += [None] * (len(cases) - len(returned))
    right = [r is not None and r[0] == "value" and same(r[1], c.expected) for r, c in zip(returned, cases, strict=True)]
    return Verdict(
        passed=sum(right), total=len(cases), message=_first_wrong(name, cases, returned, right, ended)
    ), returned


def _mapping(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {}


def _returned(answer: Any) -> tuple[str, Any] | None:
    answer = _mapping(answer)
    if "value" in answer:
        try:
            return "value", plain.decode(answer["value"])
        except plain.NotPlain:
            return "failed", "returned something that is no plain data"
    return "failed", describe_failure(answer)


def describe_failure(answer: Mapping[str, Any]) -> str:
    """`ZeroDivisionError: division by zero (line 3)` from what the guest sent, whatever that is."""
    failed = _mapping(answer.get("failed"))
    names = failed.get("names")
    name = str(names[0])[:60] if isinstance(names, list) and names else "error"
    where = str(failed.get("where") or "")[:80].removeprefix("<program>, ")
    text = f"{name}: {str(failed.get('text', ''))[:200]}".rstrip(": ")
    return clean_text(text + (f" ({where})" if where else ""))


def _first_wrong(
    name: str, cases: Sequence[Case], returned: Sequence[tuple[str, Any] | None], right: Sequence[bool], ended: Ended
) -> str:
    for case, got, fine in zip(cases, returned, right, strict=True):
        if fine:
            continue
        call = f"{name}({', '.join(map(short, case.args))})"
        if got is None:
            return f"{call}: {ended.said}"
        return f"{call} returned {short(got[1])}, which is wrong" if got[0] == "value" else f"{call}: {got[1]}"
    return ""


def clean_text(text: str) -> str:
    """Text that can be encoded: lone surrogates, which a model or a program may produce, become question marks."""
    return text.encode("utf-8", "replace").decode()


def short(value: Any, limit: int = 80) -> str:
    """`repr`, cut."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of more than 4300 digits
        return "a value that is too long to be shown"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def same(found: Any, expected: Any) -> bool:
    """Equal, and of the same kind all the way down; floats within 1e-9, NaN equal to NaN."""
    try:
        return _same(found, expected)
    except (RecursionError, OverflowError):  # nested without end; a whole number beyond all floats
        return False


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float) and type(found) in (int, float):
        if math.isnan(expected) or math.isinf(expected):
            return repr(float(found)) == repr(expected)
        return math.isclose(found, expected, rel_tol=FLOAT_TOLERANCE, abs_tol=FLOAT_TOLERANCE)
    if type(found) is not type(expected):
        return False
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(_same, found, expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(_same(found[key], value) for key, value in expected.items())
    return bool(found == expected)


def judge_tests(
    program_box: WarmBox,
    judge_box: WarmBox,
    *,
    program: Mapping[str, Any],
    tests: Mapping[str, str],
    names: Sequence[str] = (),
    packages: Sequence[str] = (),
    limits: Limits | None = None,
    objects: Collection[str] | None = (),
    trusted: bool = True,
) -> Verdict:
    """Run trusted tests (functions called `test...`) against a program that lives in another box.

    Args:
        program: the first message to the program's box: `code`, or `files`.
        tests: Python sources by label, trusted. They may use what `names` and `packages` name.
        names: names of the program's top level that the tests use.
        packages: top-level packages of the program that the tests import.
        objects: the places at which the program may give objects of its own classes, as a verdict on a right program
            lists them; everywhere else plain data are expected. None allows all: for that right program only.
        trusted: false for tests of a policy. They may then do nothing with the program but call the names.

    Raises:
        EnvironmentFault: a box could not be started, or was lost at every try.
    """
    limits = limits or program_box.limits
    order = {
        "mode": "judge",
        "tests": dict(tests),
        "names": list(names),
        "packages": list(packages),
        "objects": None if objects is None else sorted(objects),
    }
    judge_limits = Limits(wall_s=2 * limits.wall_s + 10, cpu_s=60, memory_mib=1024, answers_kib=8192)
    asked = _Asked(program=program, order=order, names=names, trusted=trusted)
    return retried(lambda: _judge_once(program_box, judge_box, asked, limits, judge_limits if trusted else limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What both boxes are told at first, and what the tests may do."""

    program: Mapping[str, Any]
    order: Mapping[str, Any]
    names: Sequence[str]
    trusted: bool


def _judge_once(
    program_box: WarmBox, judge_box: WarmBox, asked: _Asked, limits: Limits, judge_limits: Limits
) -> Verdict:
    judge_box.start()  # its start is no part of the program's time
    with program_box.open({"mode": "calls", **asked.program}, limits=limits) as far:
        first = _mapping(far.receive())
        if "loaded" not in first:
            reason = describe_failure(first) if first else far.finish().said
            return Verdict(passed=0, total=1, message=reason)
        with judge_box.open(asked.order, limits=judge_limits) as judge:
            while True:
                said = _mapping(judge.receive())
                if "ask" not in said:
                    return _verdict_of(said, judge.finish())
                if not asked.trusted and not _is_plain_call(said["ask"], asked.names):
                    judge.send({"failed": {"names": ["AttributeError"], "text": "the function can be called, no more"}})
                    continue
                far.send(said["ask"])
                judge.send(_mapping(far.receive()) or {"ended": far.finish().said})


def _is_plain_call(asked: Any, names: Sequence[str]) -> bool:
    asked = _mapping(asked)
    return asked.get("op") == "call" and isinstance(asked.get("target"), str) and asked["target"] in names


def _verdict_of(said: Mapping[str, Any], ended: Ended) -> Verdict:
    """Tests that come to no end have met something that they cannot digest, so they have failed."""
    if not isinstance(said.get("verdicts"), dict):
        return Verdict(passed=0, total=1, message=f"the tests did not come to an end: {ended.said}")
    found = {clean_text(str(name)): clean_text(str(text)) for name, text in said["verdicts"].items()}
    failures = {name: text for name, text in found.items() if text}
    message = next((f"{name}: {text}" for name, text in failures.items()), "")
    objects = said.get("objects")
    objects = frozenset(map(str, objects)) if isinstance(objects, list) else frozenset()
    passed = len(found) - len(failures)
    return Verdict(passed=passed, total=len(found), message=message, failures=failures, objects=objects)
