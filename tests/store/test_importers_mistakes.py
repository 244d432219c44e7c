"""Files with seeded mistakes: each costs its row or its episode, with the reason, and the counts add up."""

from __future__ import annotations

import copy
import json
import random
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import FORMATS
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import tiny_tokenizer
from rollwright.store.importers import load_format
from rollwright.store.importers.into_store import UNEXPECTED, import_episodes, import_tasks
from rollwright.store.importers.log_records import Report
from rollwright.store.trajectory_store import TrajectoryStore

_LOGS, _TASKS, _CHAT = (
    runpy.run_path(str(Path(__file__).with_name(f"test_importers{name}.py"))) for name in ("_logs", "_tasks", "")
)
aitw, gym, said, SESSION, LMRL, DONE = (_LOGS[k] for k in ("aitw", "gym", "said", "SESSION", "LMRL", "DONE"))
MBPP, HUMANEVAL, SWE, BEFORE, diff = (_TASKS[k] for k in ("MBPP", "HUMANEVAL", "SWE", "BEFORE", "diff"))
TALK, WITH_TOOLS, TOOLS, USER, ANSWER = (_CHAT[k] for k in ("TALK", "WITH_TOOLS", "TOOLS", "USER", "ANSWER"))
CONTROL = {
    "episode_id": 7,
    "goal": "Open the clock.",
    "actions": ['{"action_type":"open_app","app_name":"Clock"}', {"action_type": "click", "x": 3, "y": 4}],
    "step_instructions": ["open the app", "tap alarm"],
    "screenshot_widths": [100, 100, 100],
    "screenshot_heights": [200, 200, 200],
}
MINARI = {
    "observations": [[0], [1], [2]],
    "actions": [1, 0],
    "rewards": [0, 0.5],
    "terminations": [False, False],
    "truncations": [False, True],
}
TYPED = {"results/action_type": [3], "results/type_action": ["hello"]}
HUMAN, GPT = {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}
REPAIR = SWE | {"files": BEFORE}
EPISODES = ("messages", "sharegpt", "lmrl-gym", "gymnasium", "openenv", "aitw", "android-control")

GOOD: dict[str, list[list[Any]]] = {
    "messages": [[{"messages": TALK, "reward": 1, "success": True}], [{"messages": WITH_TOOLS, "tools": TOOLS}]],
    "sharegpt": [[{"conversations": [HUMAN, GPT]}], [{"conversations": [HUMAN, GPT], "system": "short"}]],
    "lmrl-gym": [[row] for row, *_ in LMRL.values()],
    "gymnasium": [[gym(0, 1), gym(1, 1)], [MINARI]],
    "openenv": [SESSION],
    "aitw": [[aitw(0, 2), aitw(1, 2, **DONE)], [aitw(0, 1, **TYPED, episode_id=["e2"])]],
    "android-control": [[CONTROL]],
    "mbpp": [[MBPP], [MBPP | {"task_id": 11}]],
    "humaneval": [[HUMANEVAL]],
    "swe-bench": [[REPAIR]],
}


@pytest.fixture(scope="module")
def codec() -> ChatCodec:
    return ChatCodec(tiny_tokenizer(["Is it alive? No. {action_type: click}"], kind="bpe", vocab_size=300))


def run(form: str, path: Path, codec: ChatCodec | None, into: Path | None) -> Report:
    chosen = load_format(form)
    return import_tasks(path, chosen, into) if chosen.tasks else import_episodes(path, chosen, codec, into)


def written(path: Path, units: list[list[Any]]) -> Path:
    rows = [row if isinstance(row, bytes) else json.dumps(row).encode() for unit in units for row in unit]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(row + b"\n" for row in rows))
    return path


def without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


def talk(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages)} | columns


def share(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"conversations": list(messages)} | columns


def answer(**changes: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None} | changes


def call(arguments: Any, name: Any = "f") -> dict[str, Any]:
    return answer(tool_calls=[{"type": "function", "function": {"name": name, "arguments": arguments}}])


def repair(**changes: Any) -> dict[str, Any]:
    return REPAIR | changes


EMPTY_PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
DEEP = b"[" * 100_000
WORD, CAR = (LMRL[name][0] for name in ("a word that was found", "a car that was bought"))
WALK, GAME, MOVES = (LMRL[name][0] for name in ("a walk", "a game of Wordle", "moves"))
ADDED = diff({}, {"shop/more.py": "x = 1\n"})
GONE = "--- a/shop/price.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
TESTS_MOVED = {"FAIL_TO_PASS": ["test/test_price.py::test_two"]}

# (rows of one unit, why they are left out)
MISTAKES: dict[str, list[tuple[list[Any], str]]] = {
    "messages": [
        ([b"{"], "not JSON"),
        ([b'{"messages": NaN}'], "not JSON"),
        ([DEEP], "not JSON"),
        ([b'{"messages": "\xff"}'], "not UTF-8"),
        ([b"3"], "the row is not an object"),
        ([b'"text"'], "the row is not an object"),
        ([TALK], "the row has no `messages`"),
        ([{}], "the row has no `messages`"),
        ([share(HUMAN, GPT)], "the row has no `messages`"),
        ([{"messages": "hello"}], "`messages` is not a list"),
        ([{"messages": 3}], "`messages` is not a list"),
        ([{"messages": []}], "`messages` is empty"),
        ([talk("hello")], "a message is not an object"),
        ([talk(USER, None)], "a message is not an object"),
        ([talk(USER, {"role": "bot", "content": "x"})], "an unknown role"),
        ([talk(USER, {"content": "x"})], "an unknown role"),
        ([talk(USER, {"role": ["user"], "content": "x"})], "an unknown role"),
        ([talk(USER)], "no message of the assistant"),
        ([talk(ANSWER)], "nothing stands before the first answer"),
        ([talk({"role": "system", "content": "x"}, ANSWER)], "nothing stands before the first answer"),
        ([talk(USER, answer())], "a message without content"),
        ([talk(USER, answer(content=""))], "an empty message"),
        ([talk(USER, answer(content=" \n"))], "an empty message"),
        ([talk({"role": "user", "content": ""}, ANSWER)], "an empty message"),
        ([talk(USER, answer(content=5))], "a message's content is not text"),
        ([talk(USER, answer(content={"text": "x"}))], "a message's content is not text"),
        ([talk(EMPTY_PICTURE, ANSWER)], "a message with a part that is not text"),
        ([talk({"role": "user", "content": ["x"]}, ANSWER)], "a part of a message is not an object"),
        ([talk({"role": "user", "content": [{"type": "text"}]}, ANSWER)], "a part's text is not text"),
        (
            [talk(USER, answer(content="no", refusal="I will not"))],
            "a message with a refusal or audio in place of text",
        ),
        ([talk(USER, answer(content="b", weight=0.5))], "a message's weight is neither 0 nor 1"),
        ([talk(USER, answer(content="b", weight=0), reward=1)], "a reward on an answer of weight 0"),
        ([talk(USER, answer(tool_calls="f()"))], "`tool_calls` is not a list"),
        ([talk(USER, answer(tool_calls=["f"]))], "a tool call is not an object"),
        ([talk(USER, call("{torn"))], "the arguments of a tool call are not JSON"),
        ([talk(USER, call({"a": 1, "b": None}))], "an object of arguments with null in it: write it as JSON text"),
        (
            [talk(USER, ANSWER, tools=[{"name": "f", "a": {"b": None}}])],
            "an object of tools with null in it: write it as JSON text",
        ),
        ([talk(USER, call("[1]"))], "the arguments of a tool call is not an object"),
        ([talk(USER, call(None))], "the arguments of a tool call is not an object"),
        ([talk(USER, call("{}", name=None))], "a tool call without a name"),
        (
            [talk(USER, answer(tool_calls=[{"type": "code", "function": {"name": "f"}}]))],
            "a tool call of another type than function",
        ),
        ([talk(USER, ANSWER, tools="{torn")], "`tools` is not JSON"),
        ([talk(USER, ANSWER, tools={"name": "f"})], "`tools` is not a list"),
        ([talk(USER, ANSWER, tools=["f"])], "a tool is not an object"),
        ([talk(USER, ANSWER, reward="1")], "`reward` is not a number"),
        ([talk(USER, ANSWER, reward=True)], "`reward` is not a number"),
        (
            [json.dumps(talk(USER, ANSWER, reward=0)).replace(": 0}", ": 1e999}").encode()],
            "`reward` is not a finite number",
        ),
        ([talk(USER, ANSWER, rewards=[1, 2])], "another number of `rewards` than of answers"),
        ([talk(USER, ANSWER, rewards=[])], "`rewards` is empty"),
        ([talk(USER, ANSWER, rewards=[None])], "a reward is not a number"),
        ([talk(USER, ANSWER, rewards=[1], reward=1)], "both `reward` and `rewards`"),
        ([talk(USER, ANSWER, success="yes")], "`success` is neither true nor false"),
        ([talk(USER, ANSWER, split="exam")], "`split` is none of train, validation, test"),
        ([talk(USER, ANSWER, task_id=[1])], "an id is not text"),
        ([talk(USER, ANSWER, id={"a": 1})], "an id that is neither text nor a whole number"),
        ([{"chosen": "a", "rejected": "b"}], "a preference of two texts without a `prompt`"),
        ([{"prompt": "q", "chosen": "a"}], "`rejected` is not a list"),
        ([{"prompt": "q", "chosen": [ANSWER], "rejected": []}], "`rejected` is empty"),
        ([{"prompt": 5, "chosen": "a", "rejected": "b"}], "`prompt` is not a list"),
    ],
    "sharegpt": [
        ([talk(USER, ANSWER)], "the row has no `conversations`"),
        ([share(HUMAN, {"from": "alien", "value": "x"})], "an unknown role"),
        ([share(HUMAN, {"from": "gpt"})], "a message without content"),
        ([share(HUMAN, {"from": "gpt", "value": 7})], "a message's content is not text"),
        ([share(GPT, HUMAN)], "nothing stands before the first answer"),
        ([share(HUMAN, {"from": "function_call", "value": "f()"})], "a function call that is not JSON"),
        ([share(HUMAN, {"from": "function_call", "value": "3"})], "a tool call is not an object"),
        ([share(HUMAN, {"from": "function_call", "value": '{"arguments": {}}'})], "a tool call without a name"),
        (
            [share({"from": "system", "value": "x"}, HUMAN, GPT, system="y")],
            "both a `system` column and a system message",
        ),
        ([share(HUMAN, GPT, system=3)], "a message's content is not text"),
    ],
    "lmrl-gym": [
        ([{"other": 1}], "a row of no task of LMRL-Gym"),
        ([without(WORD, "correct")], "`correct` is neither true nor false"),
        ([WORD | {"lines": []}], "`lines` is empty"),
        ([WORD | {"lines": ["Is it red? Maybe."]}], "a line that is not a yes-or-no question"),
        ([WORD | {"lines": ["Yes."]}], "a line that is not a yes-or-no question"),
        ([WORD | {"word": []}], "`word` is not text"),
        ([CAR | {"lines": [{"role": "Cat", "text": "x"}]}], "an unknown role"),
        ([CAR | {"lines": [{"role": "Buyer", "text": "x"}]}], "an episode without an action"),
        (
            [CAR | {"output": {"car_bought": True, "msrp": 0, "buy_price": 1}}],
            "an `output` without a decision or a list price",
        ),
        ([CAR | {"output": {"car_bought": True, "msrp": 9, "buy_price": None}}], "`buy_price` is not a number"),
        ([CAR | {"buyer_info": {"budget": "high"}}], "`budget` is not a number"),
        ([WALK | {"rewards": [0, 1]}], "`text_history`, `rewards` and `dones` of unequal length"),
        ([WALK | {"rewards": [1, 0, 0, 0]}], "a reward on a text that is not an action"),
        ([WALK | {"text_history": ["a"], "rewards": [0], "dones": [1]}], "an episode without an action"),
        ([GAME | {"sequence": [["a", 0], ["b"]]}], "an entry of `sequence` that is not [text, is_action]"),
        ([GAME | {"reward": [0]}], "`sequence` and `reward` of unequal length"),
        ([[MOVES[1], MOVES[0]]], "a step after the end"),
        ([[MOVES[0] | {"action": ""}]], "an empty action"),
        ([[MOVES[0] | {"state": 5}]], "`state` is not text"),
    ],
    "gymnasium": [
        ([without(gym(0, 0), "episode")], "a row without `episode`"),
        ([gym(1, 1, episode="late")], "the steps of an episode do not run 0, 1, 2, ..."),
        ([gym(0, 2, episode="gap"), gym(2, 2, episode="gap")], "the steps of an episode do not run 0, 1, 2, ..."),
        ([gym(0, 1, episode="twice"), gym(0, 0, episode="twice")], "the steps of an episode do not run 0, 1, 2, ..."),
        ([gym(0, 9, episode="open")], "an episode without an end: neither terminated nor truncated"),
        ([gym(0, 0, episode="on"), gym(1, 1, episode="on")], "an episode that goes on after its end"),
        ([without(gym(0, 0, episode="x"), "action")], "a step without `observation` or `action`"),
        ([without(gym(0, 0, episode="y"), "truncated")], "a step without `terminated` and `truncated`"),
        ([gym(0, 0, episode="z", reward=None)], "`reward` is not a number"),
        ([gym(0, 0, episode="w", observation=None)], "an observation is missing"),
        ([gym(0, 0, episode="v", action="")], "an action is empty"),
        ([gym(0, 0, episode=3)], "its id was there before"),
        ([MINARI | {"rewards": [0]}], "columns of an episode of unequal length"),
        ([MINARI | {"actions": []}], "`actions` is empty"),
    ],
    "openenv": [
        ([said("reset", episode="a")], "a session that does not begin with a reset and what it shows, or has no step"),
        (
            [row | {"episode": "b"} for row in SESSION[1:]],
            "a session that does not begin with a reset and what it shows, or has no step",
        ),
        ([row | {"episode": "c"} for row in SESSION[:5]], "a message without its answer"),
        ([row | {"episode": "d"} for row in (*SESSION[:2], SESSION[3], SESSION[2])], "messages out of order"),
        ([said("dance", episode="e")], "an unknown `type` of message"),
        (
            [row | {"episode": "f"} for row in (*SESSION[:4], *SESSION[4:6], *SESSION[2:4])],
            "an episode that goes on after its end",
        ),
    ],
    "aitw": [
        ([without(aitw(0, 1), "episode_id")], "a step without `episode_id`"),
        ([aitw(1, 2, episode_id="b")], "the steps of an episode do not run from 0 to episode_length - 1"),
        ([aitw(0, 2, episode_id="c")], "the steps of an episode do not run from 0 to episode_length - 1"),
        ([aitw(0, 1, episode_id="d", **{"results/action_type": [99]})], "a malformed action"),
        ([aitw(0, 1, episode_id="e", **{"results/yx_touch": [3.0, 0.5]})], "a touch outside the screen"),
        (
            [aitw(0, 1, episode_id="f", **{"image/ui_annotations_positions": []})],
            "a screen without annotations, or with unequal numbers of them",
        ),
        ([aitw(0, 1, episode_id="g", goal_info=[" "])], "an episode without a goal"),
        ([aitw(0, 1, episode_id="h", **{"image/width": [0]})], "a screen without a size"),
    ],
    "android-control": [
        ([CONTROL | {"episode_id": 8, "actions": ['{"action_type": "fly"}', "{}"]}], "a malformed episode"),
        ([CONTROL | {"episode_id": 9, "step_instructions": ["one"]}], "a malformed episode"),
        ([CONTROL | {"episode_id": 10, "goal": None}], "a text is not text"),
        (
            [CONTROL | {"episode_id": 11, "screens": ["a"]}],
            "an episode without steps, or with another number of screens",
        ),
        ([without(CONTROL, "episode_id")], "a step without `episode_id`"),
    ],
    "mbpp": [
        ([MBPP | {"task_id": "a"}], "`task_id` is not a whole number of 0 or more"),
        ([MBPP | {"task_id": 20, "code": "def add(:"}], "the solution is not Python"),
        ([MBPP | {"task_id": 21, "code": None}], "`code` is not text"),
        ([MBPP | {"task_id": 22, "test_list": []}], "`test_list` is empty"),
        ([MBPP | {"task_id": 23, "test_list": ["assert ("]}], "a test is not Python"),
        ([MBPP | {"task_id": 24, "test_list": ["assert other(1) == 2"]}], "a test that calls nothing of the solution"),
        ([MBPP | {"task_id": 25, "test_setup_code": "import ("}], "the tests' setup is not Python"),
        ([MBPP], "its id was there before"),
    ],
    "humaneval": [
        (
            [HUMANEVAL | {"task_id": "a", "entry_point": "second"}],
            "`prompt` does not begin the function of `entry_point`",
        ),
        ([HUMANEVAL | {"task_id": "b", "canonical_solution": "    return ("}], "the solution is not Python"),
        ([HUMANEVAL | {"task_id": "c", "test": "x = 1"}], "`test` does not define check(candidate)"),
        ([HUMANEVAL | {"task_id": 5}], "`task_id` is not text"),
    ],
    "swe-bench": [
        (
            [without(REPAIR, "files")],
            "the row holds no `files`, and no folder of repositories is named (--repositories)",
        ),
        ([repair(patch="hello")], "the patch is not a unified diff"),
        ([repair(patch=SWE["patch"][:-30])], "the patch ends within a change"),
        ([repair(patch=SWE["patch"].replace("prices[1:]", "prices[2:]"))], "the patch does not apply"),
        ([repair(patch=ADDED)], "the fix is of a file that is not a Python source of the repository"),
        ([repair(patch=SWE["patch"] + GONE)], "the fix is of a file that is not a Python source of the repository"),
        ([repair(test_patch=GONE)], "the patch deletes or renames a file"),
        ([repair(FAIL_TO_PASS="[torn")], "`FAIL_TO_PASS` is not JSON"),
        ([repair(FAIL_TO_PASS=[])], "`FAIL_TO_PASS` is empty"),
        ([repair(**TESTS_MOVED)], "a test of `FAIL_TO_PASS` in no file under tests/ that the test patch leaves"),
        (
            [repair(FAIL_TO_PASS=["tests/test_price.py::Test::test_two"])],
            "a test of `FAIL_TO_PASS` that is not a function without arguments",
        ),
        ([repair(files={"../../etc/passwd": "x"})], "a path that leaves the repository"),
        ([repair(files={"shop/price.py": 3})], "a file is not text"),
        ([repair(problem_statement=None)], "`problem_statement` is not text"),
    ],
}


def test_there_are_a_hundred_mistakes_and_more_in_every_format() -> None:
    assert sum(map(len, MISTAKES.values())) >= 100 and MISTAKES.keys() == GOOD.keys() == FORMATS.keys()


@pytest.mark.parametrize("form", FORMATS)
def test_each_mistake_costs_its_rows_and_nothing_else(form: str, codec: ChatCodec, tmp_path: Path) -> None:
    good, bad = GOOD[form], MISTAKES[form]
    units = [*good, *(rows for rows, _ in bad)]
    order = random.Random(form).sample(range(len(good), len(units)), len(bad))
    mixed = [*good, *(units[at] for at in order)]  # the good ones first: of two with one id the first one counts
    report = run(form, written(tmp_path / "log.jsonl", mixed), codec if form in EPISODES else None, tmp_path / "out")
    expected = Counter(why for rows, why in bad for _ in rows)
    assert report.left_out == expected
    assert report.read == sum(map(len, mixed)) and report.used == sum(map(len, good))
    alone = run(
        form, written(tmp_path / "b" / "log.jsonl", good), codec if form in EPISODES else None, tmp_path / "good"
    )
    assert not alone.left_out and (alone.records, alone.turns) == (report.records, report.turns)
    assert contents(form, tmp_path / "out") == contents(form, tmp_path / "good")
    said_of = str(report)
    assert all(f"left out: {why}, such as " in said_of for why in expected)


def contents(form: str, out: Path) -> list[Any]:
    if form in EPISODES:
        return list(TrajectoryStore(out, mode="read").iter_trajectories())
    return [json.loads(line) for line in out.read_text().splitlines()]


ODD: list[Any] = [None, True, False, 0, -1, 2.5, 1e308, 10**400, "", " ", "\ud83d", "x" * 300]
ODD += [[], {}, [None], [[]], {"": None}, {"role": "user"}, "{", "../../etc", "\x00", "def f(", {"content": [1]}, [{}]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def spoilt(row: Any, draws: random.Random) -> Any:
    """The row with one value of it replaced by an odd one, or taken out."""
    row = copy.deepcopy(row)
    *path, last = draws.choice(list(places(row)))
    inner = row
    for key in path:
        inner = inner[key]
    if draws.random() < 0.25:
        del inner[last]
    else:
        inner[last] = draws.choice(ODD)
    return row


@pytest.mark.parametrize("form", FORMATS)
def test_no_odd_value_anywhere_breaks_an_import_or_is_written_as_none(
    form: str, codec: ChatCodec, tmp_path: Path
) -> None:
    draws, units = random.Random(form), []
    for number in range(400):
        unit = copy.deepcopy(draws.choice(GOOD[form]))
        at = draws.randrange(len(unit))
        unit[at] = spoilt(unit[at], draws)
        for row in unit:
            for key in ("episode", "episode_id"):  # apart from its neighbours
                if isinstance(row, dict) and isinstance(row.get(key), str | int | list) and row[key] not in ODD:
                    row[key] = f"{number}"
        units.append(unit)
    path = written(tmp_path / "odd.jsonl", units)
    report = run(form, path, codec if form in EPISODES else None, tmp_path / "out")
    assert report.read == sum(map(len, units)) == report.used + report.left_out.total()
    assert 0 < report.left_out.total() < report.read and UNEXPECTED not in report.left_out, report
    if form in EPISODES:
        store = TrajectoryStore(tmp_path / "out", mode="read")
        found = list(store.iter_trajectories())
        assert len(found) == report.records and store.warnings == []
        texts = [turn.text for t in found for turn in t.turns] + [
            m.content for t in found for u in t.turns for m in u.observed
        ]
        assert all(text.strip() and text.encode() for text in texts)
        assert Counter(text for text in texts if "None" in text).keys() <= {"None"}, (
            "only where the file says so itself"
        )
    else:
        tasks = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        assert len(tasks) == report.records == len({task["id"] for task in tasks})
