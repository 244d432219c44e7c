"""Frames that a program or a policy's tests write by hand into the pipe of answers: none is a fault, none is costly."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from rollwright.envs.code import unit_tests
from rollwright.envs.code.judging import Case, Verdict, judge_cases, judge_tests
from rollwright.envs.code.sandbox import Limits, WarmBox, unavailable_reason

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(bool(unavailable_reason()), reason=unavailable_reason() or "available"),
]

WRITE = """
import json, os, struct, time
def frame(body):
    data = body.encode()
    return struct.pack("<I", len(data)) + data
def write(data):
    for fd in range(3, 64):
        try: os.write(fd, data)
        except OSError: pass
"""
PRIME = 2**61 - 1  # numbers that differ by it have one hash
ALIKE = [number * PRIME + 1 for number in range(1, 5000)]
VALUES = {
    "nan": "NaN",
    "infinity": "-Infinity",
    "overflow": "1e999",
    "long_number": "9" * 4300,
    "too_long_number": "9" * 5000,
    "surrogate": '"\\ud800"',
    "lists": "[" * 960 + "]" * 960,
    "tuples": '{"t":' * 480 + "[]" + "}" * 480,
    "handle": '{"h": 0}',
    "handle_of_text": '{"h": "x", "type": 3}',
    "error_class": '{"h": 0, "error": 7}',
    "unknown_tag": '{"x": [1]}',
    "no_value": "{}",
    "fractions_of_one_hash": json.dumps({"s": [{"n": [{"i": hex(n)}, 1]} for n in ALIKE]}),
    "decimals_of_one_hash": json.dumps({"s": [{"m": str(n)} for n in ALIKE]}),
    "ranges_of_one_hash": json.dumps({"s": [{"r": [0, {"i": hex(n)}, 1]} for n in ALIKE[:2500]]}),
    "keys_of_one_hash": json.dumps({"d": [[{"n": [{"i": hex(n)}, 1]}, 0] for n in ALIKE[:4000]]}),
    "tuples_of_one_hash": json.dumps({"z": [{"t": [{"n": [{"i": hex(n)}, 1]}]} for n in ALIKE[:4000]]}),
    "fraction_of_nothing": '{"n": [1, 0]}',
    "decimal_without_end": '{"m": "1e999999999"}',
    "range_without_end": '{"r": [0, {"i": "0xffffffffffffffffffff"}, 1]}',
}  # fmt: skip
BODIES = {
    **{name: f'{{"value": {value}}}' for name, value in VALUES.items()},
    "no_json": "{",
    "a_list": "[1]",
    "failed_text": '{"failed": "x"}',
    "failed_number": '{"failed": {"names": 3, "text": {"a": []}, "where": [1]}}',
    "failed_surrogate": '{"failed": {"names": ["\\ud800"], "text": "\\ud800"}}',
    "failed_without_names": '{"failed": {"names": [], "text": 1}}',
    "failed_end": '{"failed": {"names": ["SystemExit", "BaseException"], "text": ""}}',
    "ended": '{"ended": {}, "value": true}',
}
LIMITS = Limits(wall_s=2.0, cpu_s=2, memory_mib=256, answers_kib=1024)
TESTS = {"t": "def test(): assert double(2) == 4 and double(3) == 6"}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[WarmBox, WarmBox]]:
    with WarmBox(limits=LIMITS) as program, WarmBox(limits=LIMITS) as tests:
        yield program, tests


def verdicts(pair: tuple[WarmBox, WarmBox], code: str) -> list[Verdict]:
    found = [judge_cases(pair[0], code, "double", [Case(args=(2,), expected=4), Case(args=(3,), expected=6)])[0]]
    return [*found, judge_tests(*pair, program={"code": code}, tests=TESTS, names=["double"])]


@pytest.mark.parametrize("name", BODIES)
def test_a_frame_by_hand_is_a_wrong_answer_at_most(pair: tuple[WarmBox, WarmBox], name: str) -> None:
    began = time.thread_time()  # of this thread: it compares, and others of the process are busy with their own
    found = verdicts(pair, f"{WRITE}\ndef double(x):\n    write(frame({BODIES[name]!r}))\n    os._exit(0)\n")
    assert not any(verdict.success for verdict in found)
    assert time.thread_time() - began < 1.0, "the host compares the stranger's values for long"
    assert all(verdict.success for verdict in verdicts(pair, "def double(x): return 2 * x"))


@pytest.fixture(scope="module")
def world() -> Iterator[unit_tests.UnitTestsWorld]:
    made = unit_tests.build(families=["numbers"], num_mutants=1, tasks_per_family=1)
    yield made
    made.close()


ASKED = {
    "nan": '{"ask": {"op": "call", "target": "f", "args": [NaN]}}',
    "overflow": '{"ask": {"op": "call", "target": "f", "args": [-1e999]}}',
    "nested": '{"ask": {"op": "call", "target": "f", "args": [' + "[" * 900 + "]" * 900 + "]}}",
    "surrogate": '{"ask": {"op": "call", "target": "f", "args": ["\\ud800"]}}',
    "handle": '{"ask": {"op": "call", "target": "f", "args": [{"h": 0}], "kwargs": 3}}',
    "no_call": '{"ask": [1]}',
    "verdicts_of_lists": '{"verdicts": {"a": [1], "b": {}}, "objects": 3}',
    "places_that_are_none": '{"verdicts": {"a": ""}, "objects": [[1], {"a": 2}, null]}',
    "surrogate_verdict": '{"verdicts": {"\\ud800": ""}}',
}


@pytest.mark.parametrize("name", ASKED)
def test_a_frame_of_tests_by_hand_is_no_fault(world: unit_tests.UnitTestsWorld, name: str) -> None:
    (task,) = world.tasks("train")
    judged = world.judge(task, f"{WRITE}\ndef test_a():\n    write(frame({ASKED[name]!r}))\n    os._exit(0)\n")
    assert judged.parts == {"mutation": 0.0} and not judged.success
