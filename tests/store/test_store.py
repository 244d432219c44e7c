"""Trajectories on disk: exact round trip, damaged shards, a full disk, random access."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollwright.contracts.errors import DataError, RunFolderError
from rollwright.contracts.record import (
    PRODUCERS,
    SPLITS,
    START_KINDS,
    Attachment,
    Branch,
    ImagePart,
    Message,
    PlacedReward,
    SamplerMask,
    Score,
    Span,
    Start,
    StopReason,
    Task,
    TextPart,
    Timings,
    Trajectory,
    Turn,
    WorldMark,
)
from rollwright.store import store_checks, store_rows, turn_rows
from rollwright.store.trajectory_store import Ref, TrajectoryStore
from tests import builders

# Every code point, lone surrogates too: page text is not always valid Unicode.
texts = st.text(st.characters(), max_size=12)
floats = st.floats(allow_nan=False, allow_infinity=False)
rewards = st.floats(min_value=-1e29, max_value=1e29)
named = st.dictionaries(texts, rewards, max_size=3)
ids = st.lists(st.integers(0, 2**31 - 1), max_size=8).map(tuple)
small = st.integers(-1, 1000)
json_values = st.recursive(
    st.none() | st.booleans() | floats | texts | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    image = st.builds(ImagePart, sha256=st.just("0f" * 32), media_type=st.just("image/webp"))
    parts = draw(st.lists(st.builds(TextPart, text=texts) | image, max_size=3).map(tuple))
    content = "\n".join(part.text for part in parts if isinstance(part, TextPart)) if parts else draw(texts)
    return Message(role=draw(st.sampled_from(["system", "user", "assistant"])), content=content, parts=parts)


def placed(paid: dict[str, float], length: int) -> st.SearchStrategy[tuple[PlacedReward, ...]]:
    if not paid or not length:
        return st.just(())
    names, positions = st.sampled_from(sorted(paid)), st.integers(0, length - 1)
    return st.lists(st.builds(PlacedReward, position=positions, name=names, value=rewards), max_size=3).map(tuple)


def masks(action: tuple[int, ...]) -> st.SearchStrategy[SamplerMask]:
    kept = st.none() | st.tuples(*(ids.map(lambda more, chosen=chosen: (chosen, *more)) for chosen in action))
    raw = st.none() | st.lists(floats, min_size=len(action), max_size=len(action)).map(tuple)
    return st.builds(SamplerMask, mask_id=st.text(min_size=1, max_size=5), kept_ids=kept, raw_logprobs=raw)


@st.composite
def turn_records(draw: st.DrawFn, seen: tuple[int, ...] = ()) -> Turn:
    action = draw(ids)
    logprobs = draw(st.lists(st.floats(min_value=-1e29, max_value=0.0), min_size=len(action), max_size=len(action)))
    producer = draw(st.sampled_from([producer for producer in PRODUCERS if producer != "forced"]))
    spans = (Span(start=0, end=len(action), version=draw(small), producer=producer),) if action else ()
    digest = st.just("0f" * 32)
    attachment = st.builds(Attachment, sha256=digest, media_type=st.just("image/png"), path=st.none() | texts)
    paid = draw(named)
    weights = st.none() | st.lists(st.floats(0.0, 10.0), min_size=len(action), max_size=len(action)).map(tuple)
    return Turn(
        prompt_ids=draw(st.sampled_from([seen, seen[: len(seen) // 2], ()])) + draw(ids),
        action_ids=action,
        action_logprobs=tuple(logprobs),
        text=draw(texts),
        kind=draw(st.sampled_from(["act", "act", "plan", "summary"])),
        observed=tuple(draw(st.lists(messages(), max_size=3))),
        spans=draw(st.sampled_from([spans, ()])),
        finish=draw(st.sampled_from(["stop", "length"])),
        rewards=paid,
        rewards_at=draw(placed(paid, len(action))),
        env_rewards=draw(st.none() | named),
        costs=draw(named),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        values=draw(st.dictionaries(texts, st.lists(floats, max_size=4).map(tuple), max_size=2)),
        policy_weights=draw(weights),
        value_weights=draw(weights),
        kl_weights=draw(weights),
        sampler_mask=draw(st.none() | masks(action)),
        state_key=draw(texts),
        attempt=draw(st.integers(0, 5)),
        attachments=tuple(draw(st.lists(attachment, max_size=2))),
        timings=Timings(engine_wait_s=draw(floats), generate_s=draw(floats), env_s=draw(floats)),
    )


@st.composite
def trajectory_records(draw: st.DrawFn) -> Trajectory:
    turns: list[Turn] = []
    for _ in range(draw(st.integers(0, 4))):
        seen = turns[-1].prompt_ids + turns[-1].action_ids if turns else ()
        turns.append(draw(turn_records(seen)))
    turn_parts = st.none() | st.lists(named, max_size=3).map(tuple)
    score = st.builds(
        Score, value=st.none() | floats, verifier=texts, parts=named, turn_parts=turn_parts, message=texts
    )
    inside = st.builds(PlacedReward, position=st.integers(0, 9), name=texts, value=rewards)
    at = st.lists(st.lists(inside, max_size=2).map(tuple), max_size=3).map(tuple)
    placing = st.builds(
        Score, value=floats, verifier=texts, turn_parts=st.lists(named, max_size=3).map(tuple), turn_parts_at=at
    )
    params = st.dictionaries(texts, json_values, max_size=3)
    length = st.integers(0, 1000)
    start = st.builds(Start, kind=st.sampled_from(START_KINDS), prefix_turns=length, prefix_tokens=length, source=texts)
    branch = st.builds(Branch, parent=texts.filter(bool), turn=st.integers(0, len(turns)), token=length)
    return Trajectory(
        id=draw(texts),
        task=Task(id=draw(texts), split=draw(st.sampled_from(SPLITS)), params=draw(params)),
        seed=draw(st.integers(0, 3 * 10**8)),
        turns=tuple(turns),
        stop_reason=draw(st.sampled_from(StopReason)),
        success=draw(st.none() | st.booleans()),
        score=draw(st.none() | score | placing),
        origin=draw(st.sampled_from(["policy", "scripted", "human", "teacher", "log"])),
        policy=draw(texts),
        version=draw(small),
        world=draw(st.none() | st.builds(WorldMark, name=texts, version=texts, fingerprint=texts)),
        start=draw(start),
        branch=draw(st.none() | branch),
        temperature=draw(floats),
        has_actions=draw(st.booleans()),
        fault=draw(texts),
        retries=draw(small),
        wall_s=draw(floats),
        next_prompt_ids=draw(ids),
    )


def episode(name: str = "t0", num_turns: int = 2, **changes: Any) -> Trajectory:
    """An append-only episode: each prompt is the last prompt, the last action, and three new ids."""
    turns: list[Turn] = []
    prompt = tuple(range(100, 120))
    for index in range(num_turns):
        action = (7, 8 + index)
        turns.append(builders.turn(prompt, action, logprobs=(-0.5, -0.25), text=f"act {index}"))
        prompt = prompt + action + (1, 2, index)
    task = Task(id="maze", split="train", params={"size": 3})
    return dataclasses.replace(builders.episode(name, *turns, task=task, seed=1), **changes)


@pytest.mark.long
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trajectories=st.lists(trajectory_records(), min_size=1, max_size=4))
def test_what_is_written_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, trajectories: list[Trajectory]):
    store = TrajectoryStore(tmp_path_factory.mktemp("store"))
    store.append(trajectories, tag="x\ud800")
    again = TrajectoryStore(store.folder, mode="read")
    assert list(again.iter_trajectories()) == trajectories
    assert list(again.iter_trajectories(tag="x\ud800")) == trajectories
    assert (len(again), again.turn_count) == (len(trajectories), sum(len(t.turns) for t in trajectories))
    assert again.warnings == []


@pytest.mark.parametrize(
    ("record", "schema", "derived"),
    [
        (Trajectory, store_checks.TRAJECTORY_SCHEMA, {"turns": "num_turns", "task": "task_id"}),
        (Turn, store_checks.TURN_SCHEMA, {"prompt_ids": "prompt_new"}),
        (Score, store_checks.TRAJECTORY_SCHEMA.field("score").type, {}),
        (Start, store_checks.TRAJECTORY_SCHEMA.field("start").type, {}),
        (Timings, store_checks.TURN_SCHEMA.field("timings").type, {}),
        (Span, store_checks.TURN_SCHEMA.field("spans").type.value_type, {}),
        (Message, store_checks.TURN_SCHEMA.field("observed").type.value_type, {}),
        (Attachment, store_checks.TURN_SCHEMA.field("attachments").type.value_type, {"content": "sha256"}),
        (SamplerMask, store_checks.TURN_SCHEMA.field("sampler_mask").type, {}),
        (PlacedReward, store_checks.TURN_SCHEMA.field("rewards_at").type.value_type, {}),
        (WorldMark, store_checks.TRAJECTORY_SCHEMA.field("world").type, {}),
        (Branch, store_checks.TRAJECTORY_SCHEMA.field("branch").type, {}),
    ],
)
def test_every_field_of_the_record_has_a_column(record: type, schema: Any, derived: dict[str, str]):
    """A field added to the record and forgotten here would be lost in silence."""
    columns = {schema.field(i).name for i in range(len(schema) if hasattr(schema, "names") else schema.num_fields)}
    names = {derived.get(field.name, field.name) for field in dataclasses.fields(record)}
    assert names <= columns


@given(
    common=st.lists(st.integers(0, 3)).map(tuple),
    left=st.lists(st.integers(0, 3)).map(tuple),
    right=st.lists(st.integers(0, 3)).map(tuple),
)
def test_shared_prefix_equals_the_plain_loop(common: tuple[int, ...], left: tuple[int, ...], right: tuple[int, ...]):
    a, b = common + left, common + right
    expected = 0
    while expected < min(len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert turn_rows.common_length(a, b) == expected


def test_a_growing_history_is_stored_once():
    rows = turn_rows.turn_rows(episode(num_turns=50))
    # 20 ids at the start, then 3 new ids a turn; 50 whole prompts would be 20 * 50 + 5 * (0 + ... + 49) = 7125
    assert sum(len(row["prompt_new"]) for row in rows) == 20 + 49 * 3
    assert [row["prompt_shared"] for row in rows[:3]] == [0, 22, 27]


def test_a_windowed_context_shares_only_what_it_shares():
    first = Turn(prompt_ids=(1, 2, 3), action_ids=(4,), action_logprobs=(-1.0,), text="")
    second = Turn(prompt_ids=(1, 9), action_ids=(), action_logprobs=(), text="")
    rows = turn_rows.turn_rows(episode(turns=(first, second)))
    assert [(row["prompt_shared"], row["prompt_new"]) for row in rows] == [(0, (1, 2, 3)), (1, (9,))]


def test_filters_and_random_access_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_rows, "TURNS_PER_BLOCK", 5)
    store = TrajectoryStore(tmp_path)
    first = [episode(f"a{i}", num_turns=i % 4, success=i % 2 == 0) for i in range(9)]
    store.append(first, tag="it0")
    store.append([episode("b0", origin="teacher"), episode("b1", task=Task(id="web", split="test"))], tag="it1")
    assert pq.read_metadata(tmp_path / "turns" / "000000.parquet").num_row_groups > 2
    store = TrajectoryStore(tmp_path, mode="read")
    assert [t.id for t in store.iter_trajectories(tag="it1")] == ["b0", "b1"]
    assert [t.id for t in store.iter_trajectories(origin="teacher")] == ["b0"]
    assert [t.id for t in store.iter_trajectories(split="test")] == ["b1"]
    assert [t.id for t in store.iter_trajectories(task="maze", where=lambda row: bool(row["success"]))] == [
        "a0", "a2", "a4", "a6", "a8",
    ]  # fmt: skip
    assert store.tags() == {"it0": 9, "it1": 2}
    assert [store.read(Ref(0, row)) for row in reversed(range(9))] == first[::-1]
    with pytest.raises(DataError, match="shard 0, row 9"):
        store.read(Ref(0, 9))


def test_a_walk_holds_one_block_and_not_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_rows, "TURNS_PER_BLOCK", 4)
    TrajectoryStore(tmp_path).append([episode(f"a{i}") for i in range(40)])
    store = TrajectoryStore(tmp_path, mode="read")
    most = 0
    for _ in store.iter_trajectories():
        assert store._cache is not None
        most = max(most, sum(map(len, store._cache[2])))
    assert most == 4


def test_datasets_reads_both_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets")
    store = TrajectoryStore(tmp_path / "store")
    score = Score(value=1.0, verifier="v", parts={"a": 0.5}, turn_parts=({"env": 1.0}, {}))
    store.append([episode("a", score=score)])
    store.append([episode("b", num_turns=3)])
    for table, rows in (("trajectories", 2), ("turns", 5)):
        files = str(tmp_path / "store" / table / "*.parquet")
        loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.num_rows == rows
    assert loaded[4]["action_logprobs"] == [-0.5, -0.25]


@pytest.mark.parametrize("table", ["trajectories", "turns"])
@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.99])
def test_a_half_written_shard_is_passed_over(tmp_path: Path, table: str, keep: float):
    store = TrajectoryStore(tmp_path)
    for name in "abc":
        store.append([episode(name)])
    path = tmp_path / table / "000001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    again = TrajectoryStore(tmp_path)
    assert [t.id for t in again.iter_trajectories()] == ["a", "c"]
    assert len(again.warnings) == 1 and "shard 1" in again.warnings[0]
    assert again.append([episode("d")]) == 3  # the damaged number is never taken again: nothing is overwritten
    assert [t.id for t in again.iter_trajectories()] == ["a", "c", "d"]


def test_a_kill_between_the_two_renames_leaves_no_half_shard(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    store.append([episode("a")])
    store.append([episode("b")])
    (tmp_path / "trajectories" / "000001.parquet").unlink()
    again = TrajectoryStore(tmp_path)
    assert [t.id for t in again.iter_trajectories()] == ["a"]
    assert "no file in trajectories" in again.warnings[0]
    assert again.append([episode("c")]) == 2


def test_a_flipped_byte_costs_one_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_rows, "TURNS_PER_BLOCK", 2)
    TrajectoryStore(tmp_path).append([episode(name) for name in "abc"])
    path = tmp_path / "turns" / "000000.parquet"
    column = pq.read_metadata(path).row_group(1).column(1)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start + column.total_compressed_size - 2] ^= 0xFF
    path.write_bytes(bytes(content))
    store = TrajectoryStore(tmp_path, mode="read")
    assert [t.id for t in store.iter_trajectories()] == ["a", "c"]
    assert len(store.warnings) == 1 and "block 1" in store.warnings[0]


def test_another_schema_version_is_refused(tmp_path: Path):
    TrajectoryStore(tmp_path).append([episode()])
    path = tmp_path / "turns" / "000000.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.replace_schema_metadata({store_checks.VERSION_KEY: b"99"}), path)
    with pytest.raises(DataError, match=r"version 99.*reads versions 2 and 3"):
        TrajectoryStore(tmp_path)


def stored_otherwise(folder: Path, table: str, change: Any) -> None:
    path = folder / table / "000000.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.drop_columns(["rewards"]), "turns/000000.parquet lacks the columns rewards"),
        (lambda t: t.rename_columns([n.replace("turn", "tusn") for n in t.column_names]), "lacks the columns turn"),
        (lambda t: t.set_column(1, "turn", t["turn"].cast("int32")), "column .*turn: int32.* expected .*turn: int64"),
    ],
)
def test_a_shard_with_other_columns_is_passed_over(tmp_path: Path, change: Any, reason: str):
    store = TrajectoryStore(tmp_path)
    store.append([episode("a")])
    store.append([episode("b")])
    stored_otherwise(tmp_path, "turns", change)
    again = TrajectoryStore(tmp_path, mode="read")
    assert [t.id for t in again.iter_trajectories()] == ["b"]
    assert len(again.warnings) == 1 and re.search(f"shard 0 .*{reason}", again.warnings[0])


def test_a_shard_from_before_env_rewards_were_kept_is_read(tmp_path: Path):
    TrajectoryStore(tmp_path).append([episode("a")])
    stored_otherwise(tmp_path, "turns", lambda table: table.drop_columns(["env_rewards"]))
    again = TrajectoryStore(tmp_path, mode="read")
    assert list(again.iter_trajectories()) == [episode("a")] and again.warnings == []


def test_flipped_bits_in_a_footer_are_a_warning_or_a_data_error(tmp_path: Path):
    TrajectoryStore(tmp_path).append([episode("a"), episode("b")])
    path = tmp_path / "trajectories" / "000000.parquet"
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    draw = random.Random(3)
    lost = 0
    for _ in range(60):
        flipped = bytearray(content)
        flipped[draw.randrange(footer, len(content) - 8)] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(flipped))
        try:
            store = TrajectoryStore(tmp_path, mode="read")
            read = list(store.iter_trajectories())
        except DataError as error:  # bits of the version
            assert "schema version" in str(error)
        else:
            assert read == [episode("a"), episode("b")] or (read == [] and store.warnings)
            lost += not read
    assert lost > 10


def test_a_foreign_parquet_file_is_refused(tmp_path: Path):
    TrajectoryStore(tmp_path)
    pq.write_table(store_checks.TURN_SCHEMA.empty_table().replace_schema_metadata(None), tmp_path / "x.parquet")
    for table in ("turns", "trajectories"):
        (tmp_path / table / "000000.parquet").write_bytes((tmp_path / "x.parquet").read_bytes())
    with pytest.raises(DataError, match="version none"):
        TrajectoryStore(tmp_path)


def test_params_that_are_not_json_write_nothing(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    with pytest.raises(DataError, match=r"'odd'.*must be JSON"):
        store.append([episode(task=Task(id="odd", split="train", params={"x": object()}))])
    assert list(tmp_path.glob("*/*")) == []


def test_a_misspelt_path_is_an_error_and_not_a_new_store(tmp_path: Path):
    with pytest.raises(DataError, match="no trajectory store"):
        TrajectoryStore(tmp_path / "nothing", mode="read")
    assert not (tmp_path / "nothing").exists()


def test_an_unwritable_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be created"):
        TrajectoryStore(tmp_path / "file" / "store")


FULL_DISK = """
    import json, resource, sys
    from pathlib import Path
    from rollwright.contracts.errors import RunFolderError
    from rollwright.store.trajectory_store import TrajectoryStore
    from rollwright.contracts.record import StopReason, Task, Trajectory, Turn
    import random

    def episode(name, length):
        draw = random.Random(name)
        ids = tuple(draw.randrange(50000) for _ in range(length))
        turn = Turn(prompt_ids=ids, action_ids=(), action_logprobs=(), text="")
        return Trajectory(id=name, task=Task(id="t", split="train"), seed=0, turns=(turn,),
                          stop_reason=StopReason.TERMINATED)

    folder = Path(sys.argv[1])
    store = TrajectoryStore(folder)
    store.append([episode("small", 10)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))   # the kernel then refuses as a full disk does
    try:
        store.append([episode("big", 100_000)])
    except RunFolderError as error:
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        store.append([episode("next", 10)])
        print(json.dumps({"error": str(error), "files": files}))
"""


def test_a_full_disk_says_what_is_safe(tmp_path: Path):
    command = [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": path()})
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert "The 1 trajectories of the 1 shards written before are safe" in answer["error"]
    assert answer["files"] == ["trajectories/000000.parquet", "turns/000000.parquet"]  # no temporary file stays behind
    assert [t.id for t in TrajectoryStore(tmp_path, mode="read").iter_trajectories()] == ["small", "next"]


def path() -> str:
    """The import path of this process: the child runs the code under test, installed or not."""
    return os.pathsep.join(sys.path)


def test_a_failed_rename_takes_back_the_other_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = TrajectoryStore(tmp_path)
    store.append([episode("a")])
    rename = Path.rename

    def fails_for_trajectories(self: Path, target: Path) -> Path:
        if target.parent.name == "trajectories":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_trajectories)
    with pytest.raises(RunFolderError, match="No space left"):
        store.append([episode("b")])
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["000000.parquet"] * 2


def test_rewind_sets_later_shards_aside_and_loses_none(tmp_path: Path):
    store = TrajectoryStore(tmp_path)
    store.append([episode("a")])
    position = store.position
    store.append([episode("b")])
    store.append([episode("c")])
    resumed = TrajectoryStore(tmp_path)
    assert resumed.rewind(position) == 2
    assert resumed.append([episode("b2")]) == position
    assert resumed.rewind(position) == 1
    assert [t.id for t in resumed.iter_trajectories()] == ["a"]
    kept = [pq.read_table(p, columns=["id"], partitioning=None) for p in tmp_path.glob("superseded/*/trajectories/*")]
    assert sorted(t["id"][0].as_py() for t in kept) == ["b", "b2", "c"]


def shard(folder: Path, number: int) -> list[Path]:
    return [folder / table / f"{number:06d}.parquet" for table in ("trajectories", "turns")]


def unmarked(folder: Path) -> None:
    """A store as older releases wrote it: no mark says which two files belong together."""
    for path in folder.glob("*/*.parquet"):
        table = pq.read_table(path, partitioning=None)
        metadata = {k: v for k, v in table.schema.metadata.items() if k != store_checks.PAIR_KEY}
        pq.write_table(table.replace_schema_metadata(metadata), path)


@pytest.fixture(params=["marked", "unmarked"])
def four_shards(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Four shards of one trajectory each; two of them have one name, as evaluations of one run do."""
    store = TrajectoryStore(tmp_path / "store")
    for name, length in (("same", 2), ("b", 2), ("same", 3), ("d", 2)):
        store.append([episode(name, num_turns=length)])
    if request.param == "unmarked":
        unmarked(store.folder)
    return store.folder


def test_an_older_store_without_marks_is_read_whole(four_shards: Path) -> None:
    store = TrajectoryStore(four_shards, mode="read")
    assert [t.id for t in store.iter_trajectories()] == ["same", "b", "same", "d"] and store.warnings == []


@pytest.mark.parametrize(("one", "two"), [(0, 1), (0, 2), (1, 3)])
def test_files_that_change_shards_are_never_read_as_pairs(four_shards: Path, one: int, two: int) -> None:
    a, b = (shard(four_shards, number)[1] for number in (one, two))
    a.rename(b.with_suffix(".x"))
    b.rename(a)
    b.with_suffix(".x").rename(b)
    store = TrajectoryStore(four_shards, mode="read")
    healthy = {0: "same", 1: "b", 2: "same", 3: "d"}
    kept = [name for number, name in healthy.items() if number not in (one, two)]
    assert [t.id for t in store.iter_trajectories()] == kept
    assert all(any(str(number) in warning for warning in store.warnings) for number in (one, two))


def test_the_turns_of_another_run_are_not_taken(tmp_path: Path) -> None:
    """Two runs of one seed give their episodes the same names: the name alone would not tell."""
    ours, theirs = TrajectoryStore(tmp_path / "a"), TrajectoryStore(tmp_path / "b")
    for store, word in ((ours, "left"), (theirs, "right")):
        turn = Turn(prompt_ids=(1,), action_ids=(2,), action_logprobs=(-1.0,), text=word)
        store.append([episode("0/0/0", turns=(turn,))])
    shard(theirs.folder, 0)[1].replace(shard(ours.folder, 0)[1])
    again = TrajectoryStore(ours.folder, mode="read")
    assert len(again) == 0 and "not written together" in again.warnings[0]


def test_a_copied_shard_counts_once(four_shards: Path) -> None:
    for source, target in zip(shard(four_shards, 1), shard(four_shards, 4), strict=True):
        target.write_bytes(source.read_bytes())
    store = TrajectoryStore(four_shards, mode="read")
    assert [t.id for t in store.iter_trajectories()] == ["same", "b", "same", "d"]
    assert store.warnings == [f"shard 4 of {four_shards} is a copy of shard 1: passed over"]
    assert TrajectoryStore(four_shards).append([episode("e")]) == 5


def test_a_shard_that_is_gone_is_named_and_one_that_was_set_aside_is_not(four_shards: Path) -> None:
    for path in shard(four_shards, 1):
        path.unlink()
    store = TrajectoryStore(four_shards, mode="read")
    assert store.warnings == [f"{four_shards} lacks the shards 1: what they held is lost"]
    other = TrajectoryStore(four_shards.with_name("other"))
    for tag in "aba":
        other.append([episode(tag)], tag=tag)
    assert other.replace([episode("new")], tag="b") == 3 and other.replace([episode("newer")], tag="b") == 4
    again = TrajectoryStore(other.folder, mode="read")
    assert [t.id for t in again.iter_trajectories()] == ["a", "a", "newer"] and again.warnings == []


def test_a_reader_that_looks_again_opens_only_what_is_new(four_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = TrajectoryStore(four_shards, mode="read")
    TrajectoryStore(four_shards).append([episode("e")])
    opened: list[int] = []
    whole = TrajectoryStore._open
    monkeypatch.setattr(TrajectoryStore, "_open", lambda self, n: (opened.append(n), whole(self, n))[1])
    reader.rescan()
    assert opened == [4] and len(reader) == 5
