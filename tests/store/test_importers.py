"""Logs from elsewhere: what is in them arrives, what is malformed is left out and counted, an export gives it back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.cli.commands import main
from rollwright.contracts.errors import RunFolderError
from rollwright.contracts.record import StopReason, Trajectory
from rollwright.methods.outcome_data import read_cases
from rollwright.methods.pair_fit import pairs_of
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import make_tiny_model, tiny_tokenizer
from rollwright.store.importers import into_store, load_format
from rollwright.store.importers.into_store import import_episodes
from rollwright.store.importers.log_records import Report
from rollwright.store.importers.messages_out import message_lines
from rollwright.store.replay import TurnTable
from rollwright.store.trajectory_store import TrajectoryStore

TEXTS = ["hello world, what is 2 + 2? It is 4. You are terse. <tool_call> <tool_response> weather in Paris"]
TALK = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "and 3 + 3?"},
    {"role": "assistant", "content": "6"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
WITH_TOOLS = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "weather in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "c1"},
    {"role": "assistant", "content": "It rains."},
]
USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.fixture(scope="module")
def codec() -> ChatCodec:
    return ChatCodec(tiny_tokenizer(TEXTS, kind="bpe", vocab_size=400))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), texts=TEXTS, tokenizer="bpe", hidden=32, layers=1)


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def take(codec: ChatCodec, path: Path, folder: Path, form: str = "messages") -> tuple[Report, list[Trajectory]]:
    report = import_episodes(path, load_format(form), codec, folder)
    assert report.read == report.used + report.left_out.total()
    store = TrajectoryStore(folder, mode="read")
    found = list(store.iter_trajectories())
    assert store.warnings == []
    return report, found


def test_a_conversation_becomes_turns_in_the_ids_of_the_model(codec: ChatCodec, tmp_path: Path) -> None:
    report, (trajectory,) = take(codec, lines(tmp_path / "talk.jsonl", [{"messages": TALK}]), tmp_path / "s")
    assert (report.read, report.used, report.records, report.turns) == (1, 1, 1, 2)
    assert [turn.text for turn in trajectory.turns] == ["4", "6"]
    first, second = trajectory.turns
    assert [m.content for m in first.observed] == ["You are terse.", "What is 2 + 2?"]
    assert second.prompt_ids[: len(first.prompt_ids + first.action_ids)] == first.prompt_ids + first.action_ids
    template = codec.tokenizer.apply_chat_template(TALK, tokenize=False)
    shown = codec.tokenizer.decode(second.prompt_ids + second.action_ids)
    assert template.startswith(shown), "word for word what the model's own template makes of it"
    assert trajectory.origin == "log" and trajectory.success is None and trajectory.learnable
    assert all(turn.action_mask == (True,) * len(turn.action_ids) for turn in trajectory.turns)


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def folder_of_datasets(path: Path, rows: list[dict[str, Any]]) -> Path:
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(rows), "test": Dataset.from_list(rows[:1])}).save_to_disk(str(path))
    return path


def packed(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def marked(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\ufeff" + "\r\n".join(json.dumps(row) for row in rows), "utf-8")
    return path


def whole(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"data": rows}), "utf-8")
    return path


def folder_of_files(path: Path, rows: list[dict[str, Any]]) -> Path:
    (path / "deep").mkdir(parents=True)
    lines(path / "a.jsonl", rows[:1])
    parquet(path / "deep" / "b.parquet", rows[1:])
    (path / "README.md").write_text("no rows")
    return path


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "a.jsonl": lines,
    "a.json": whole,
    "a.parquet": parquet,
    "a.jsonl.gz": packed,
    "marked.jsonl": marked,
    "folder": folder_of_files,
    "data_sets": folder_of_datasets,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_episodes(name: str, codec: ChatCodec, tmp_path: Path) -> None:
    rows = [{"messages": TALK, "success": True, "reward": 0.5}, {"messages": WITH_TOOLS, "success": False, "reward": 0}]
    report, found = take(codec, WRITERS[name](tmp_path / name, rows), tmp_path / "s")
    assert not report.left_out
    train = [t for t in found if t.task.split == "train"]
    assert len(found) == len(train) + (name == "data_sets") == report.read
    assert [t.success for t in train] == [True, False]
    assert [t.rewards for t in train] == [[0.0, 0.5], [0.0, 0.0]]
    call = train[1].turns[0].text
    assert call == '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    assert train[1].turns[1].observed[0].content == "<tool_response>\nrain\n</tool_response>"
    assert "None" not in str([turn.text for t in found for turn in t.turns])


ROUND = {
    "plain": {"messages": TALK},
    "tools": {"messages": WITH_TOOLS, "tools": TOOLS},
    "tools without a system message": {"messages": WITH_TOOLS[1:], "tools": TOOLS},
    "content beside a call": {"messages": [USER, {"role": "assistant", "content": "so", "tool_calls": [CALL]}]},
    "rewards": {"messages": TALK, "rewards": [0.25, -1.0], "success": True, "split": "test", "task_id": "sum"},
    "not trained on": {"messages": [USER, ANSWER | {"weight": 0}, USER, ANSWER]},
    "no last answer": {"messages": [*TALK, USER]},
    "what looks like a call": {"messages": [USER, {"role": "assistant", "content": '<tool_call>{"a": 1}</tool_call>'}]},
    "languages": {
        "messages": [{"role": "user", "content": "¿Qué? 日本語 👋"}, {"role": "assistant", "content": "é 👋"}]
    },
    "code": {"messages": [USER, {"role": "assistant", "content": "def f(x):\n    return  x\n"}]},
}


@pytest.mark.parametrize("name", ROUND)
def test_an_export_gives_back_what_was_imported(name: str, codec: ChatCodec, tmp_path: Path) -> None:
    _, (trajectory,) = take(codec, lines(tmp_path / "a.jsonl", [ROUND[name]]), tmp_path / "s")
    (line,) = message_lines(trajectory)
    assert {key: line[key] for key in ROUND[name]} == ROUND[name]
    again = lines(tmp_path / "b.jsonl", [line])
    _, (second,) = take(codec, again, tmp_path / "t")
    assert second.turns == trajectory.turns and second.task.id == trajectory.task.id


def test_weight_0_is_shown_and_not_learned_from(codec: ChatCodec, tmp_path: Path) -> None:
    _, (trajectory,) = take(codec, lines(tmp_path / "a.jsonl", [ROUND["not trained on"]]), tmp_path / "s")
    assert [any(turn.action_mask) for turn in trajectory.turns] == [False, True]


def test_parts_of_text_and_thoughts_arrive_and_halves_of_an_emoji_are_made_whole(
    codec: ChatCodec, tmp_path: Path
) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}
    thinks = {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}
    half = {"role": "assistant", "content": "hi \ud83d"}
    _, found = take(
        codec, lines(tmp_path / "a.jsonl", [{"messages": [parts, thinks]}, {"messages": [USER, half]}]), tmp_path / "s"
    )
    assert found[0].turns[0].observed[0].content == "one two"
    assert found[0].turns[0].text == "<think>\n2 and 2\n</think>\n\n4"
    assert found[1].turns[0].text == "hi \ufffd"


def test_sharegpt_with_its_system_column_and_its_calls(codec: ChatCodec, tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "weather in Paris?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Paris"}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    row = {"conversations": talk, "system": "You are terse.", "tools": json.dumps(TOOLS)}
    _, (trajectory,) = take(codec, lines(tmp_path / "a.jsonl", [row]), tmp_path / "s", "sharegpt")
    (line,) = message_lines(trajectory)
    assert line["tools"] == TOOLS and [m["role"] for m in line["messages"]] == [m["role"] for m in WITH_TOOLS]
    assert line["messages"][0] == WITH_TOOLS[0]
    assert line["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Paris"}'


def test_a_preference_becomes_a_success_and_a_failure_of_one_task(codec: ChatCodec, tmp_path: Path) -> None:
    rows = [
        {"prompt": "Say a.", "chosen": "a", "rejected": "b"},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER | {"content": "no"}]},
        {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER | {"content": "no"}]},
        {"prompt": "a", "chosen": [USER, ANSWER], "rejected": [USER, ANSWER | {"content": "no"}]},
    ]
    report, found = take(codec, lines(tmp_path / "a.jsonl", rows), tmp_path / "s")
    assert report.used == 4 and report.records == len(found) == 8
    for better, worse in zip(found[::2], found[1::2], strict=True):
        assert better.task.id == worse.task.id and (better.success, worse.success) == (True, False)
        assert (better.total_reward, worse.total_reward) == (1.0, 0.0) and len(better.turns) == 1
        assert better.turns[0].prompt_ids == worse.turns[0].prompt_ids


def test_preferences_and_rewards_reach_those_who_learn_from_them(codec: ChatCodec, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "Say a.", "chosen": "a", "rejected": "b"}]
    rows += [{"messages": TALK, "rewards": [0.5, -1.0], "success": False}]
    take(codec, lines(tmp_path / "a.jsonl", rows), tmp_path / "s")
    cases = read_cases([str(tmp_path / "s")])
    assert pairs_of(cases, per_case=1, seed=0) == [(0, 1)]
    table = TurnTable(str(tmp_path / "s"))
    assert len(table) == 4 and table.trajectories["total_reward"].tolist() == [1.0, 0.0, -0.5]
    assert table.trajectories["learnable"].all() and table.trajectories["train"].all()


REFUSES = (
    "{%- for m in messages -%}{%- if loop.index0 > 0 and m.role == messages[loop.index0 - 1].role -%}"
    "{{ raise_exception('roles must alternate') }}{%- endif -%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
FORGETS = (
    "{%- for m in messages -%}<|im_start|>{{ m.role }}\n"
    "{{ m.content if m.role != 'assistant' or loop.last else m.content.split('</think>')[-1] }}<|im_end|>\n"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)


def codec_with(template: str) -> ChatCodec:
    tokenizer = tiny_tokenizer(TEXTS, kind="bpe", vocab_size=400)
    tokenizer.chat_template = template
    return ChatCodec(tokenizer)


def test_a_conversation_that_the_template_refuses_is_left_out_with_its_words(tmp_path: Path) -> None:
    rows = [{"messages": [USER, USER, ANSWER]}, {"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER, ANSWER]}]
    report, found = take(codec_with(REFUSES), lines(tmp_path / "a.jsonl", rows), tmp_path / "s")
    assert report.left_out == {"the model's chat template refuses the conversation": 2} and len(found) == 1
    assert "roles must alternate" in str(report)


def test_a_template_that_rewrites_history_shows_each_turn_what_it_would_show(tmp_path: Path) -> None:
    codec = codec_with(FORGETS)
    assert not codec.is_prefix_preserving()
    talk = [USER, ANSWER | {"content": "<think>\nhm\n</think>\n\nfirst"}, USER, ANSWER]
    _, (found,) = take(codec, lines(tmp_path / "a.jsonl", [{"messages": talk}]), tmp_path / "s")
    shown = codec.tokenizer.apply_chat_template(talk[:3], tokenize=False, add_generation_prompt=True)
    assert codec.tokenizer.decode(found.turns[1].prompt_ids) == shown and "hm" not in shown
    assert "hm" in found.turns[0].text, "the thought is learned where it was written"
    assert message_lines(found)[0]["messages"] == talk


def test_the_same_import_again_adds_nothing_and_a_dry_run_writes_nothing(codec: ChatCodec, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"messages": TALK}, {"messages": TALK, "id": "named"}])
    dry = import_episodes(path, load_format("messages"), codec, None)
    assert dry.used == 2 and sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl"]
    take(codec, path, tmp_path / "s")
    report, found = take(codec, path, tmp_path / "s")
    assert report.left_out == {"the store holds it already": 2} and len(found) == 2


def test_an_import_that_was_stopped_goes_on_where_it_was(
    codec: ChatCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lines(tmp_path / "a.jsonl", [{"messages": [USER, ANSWER | {"content": str(n)}]} for n in range(7)])
    monkeypatch.setattr(into_store, "SHARD", 2)
    whole, append = TrajectoryStore.append, iter(range(3))

    def fails_the_third_time(self: TrajectoryStore, batch: Any, *, tag: str = "") -> Any:
        assert (self.folder / "run.lock").exists(), "held against other processes"
        if next(append) == 2:
            raise RunFolderError("the disk is full")
        return whole(self, batch, tag=tag)

    with monkeypatch.context() as full, pytest.raises(RunFolderError):
        full.setattr(TrajectoryStore, "append", fails_the_third_time)
        take(codec, path, tmp_path / "s")
    assert not (tmp_path / "s" / "run.lock").exists()
    report, found = take(codec, path, tmp_path / "s")
    assert report.left_out == {into_store.ALREADY: 4} and report.used == 3
    assert [t.turns[0].text for t in found] == [str(n) for n in range(7)] and len({t.id for t in found}) == 7


def test_played_episodes_are_exported_faults_marked(codec: ChatCodec, tmp_path: Path) -> None:
    from dataclasses import replace

    _, (log,) = take(codec, lines(tmp_path / "a.jsonl", [{"messages": TALK}]), tmp_path / "s")
    played = replace(log, origin="policy", stop_reason=StopReason.ENV_ERROR)
    (line,) = message_lines(played)
    assert line["messages"] == TALK and line["stop_reason"] == "env_error"
    fresh = [replace(turn, prompt_ids=codec.encode_start(turn.observed)) for turn in log.turns]
    windowed = message_lines(replace(log, origin="policy", turns=tuple(fresh)))
    assert [len(line["messages"]) for line in windowed] == [3, 2] and len({line["id"] for line in windowed}) == 2


def test_the_commands_import_train_and_export(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run_recipe: Callable[..., None]
) -> None:
    path = lines(tmp_path / "talk.jsonl", [{"messages": TALK}, {"messages": WITH_TOOLS, "tools": TOOLS}, "{torn"])
    store = tmp_path / "store"
    words = ["import", "messages", str(path), "--into", str(store), "--model", str(model), "--demonstrations"]
    assert main([*words, "--left-out", str(tmp_path / "left.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "3 rows read, 2 used, 1 left out" in said and "left out: not JSON, such as" in said and "line 3" in said
    assert main(words) == 0 and "0 used, 3 left out" in capsys.readouterr().out
    assert json.loads((tmp_path / "left.jsonl").read_text())["place"] == "line 3"
    data = [f"data.stores=[{store}]", f"model.path={model}", "sft.max_steps=2", "sft.precision=float32"]
    run_recipe("sft.py", "text/maze.yaml", *data, f"run.folder={tmp_path / 'run'}")
    assert (tmp_path / "run" / "policy" / "model.safetensors").stat().st_size
    capsys.readouterr()
    assert main(["export", str(store), "--as", "messages", "--out", str(tmp_path / "out.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["messages"] for row in rows] == [TALK, WITH_TOOLS]


def test_what_a_command_lacks_is_said_and_nothing_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    path, into = lines(tmp_path / "a.jsonl", [{"messages": TALK}]), tmp_path / "s"
    bad = lines(tmp_path / "bad.jsonl", [{"message": TALK}])
    for words, expected in [
        (["messages", path, "--into", into], "--model"),
        (["messages", path], "--into"),
        (["messages", bad, "--into", into, "--model", model], "none of the 1 rows"),
        (["messages", tmp_path / "none.jsonl", "--into", into, "--model", model], "there is no file"),
        (["mbpp", bad, "--into", into], "none of the 1 rows"),
        (["mbpp", path, "--dry-run", "--model", model], "are about episodes"),
        (["messages", path, "--dry-run", "--repositories", tmp_path], "is for swe-bench"),
        (["massages", path, "--dry-run"], "known are messages, sharegpt"),
        (["messages", tmp_path / "none.jsonl", "--dry-run"], "there is no file"),
        (["messages", tmp_path, "--dry-run", "--model", tmp_path / "none"], "no model folder"),
        (["messages", bad, "--dry-run"], "none of the 1 rows"),
        (["nobody.there:X", path, "--dry-run"], "cannot be loaded"),
    ]:
        assert main(["import", *map(str, words)]) == 2
        assert expected in capsys.readouterr().err
        assert not into.exists()
    assert main(["export", str(tmp_path)]) == 2
    assert "holds no trajectory store" in capsys.readouterr().err
