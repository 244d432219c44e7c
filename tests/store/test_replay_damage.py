"""Replay from damaged and malformed shards: nothing wrong is learned, nothing else is lost, the index heals."""

from __future__ import annotations

import math
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollwright.contracts.errors import DataError, RunFolderError
from rollwright.contracts.record import Span, StopReason, Trajectory, Turn
from rollwright.store import store_checks, store_rows
from rollwright.store.replay import TurnTable
from rollwright.store.replay import replay_index as index
from rollwright.store.store_checks import TABLES
from rollwright.store.trajectory_store import Ref, TrajectoryStore
from tests import builders

Rows = list[dict[str, Any]]


def episode(name: int, num_turns: int) -> Trajectory:
    """An append-only episode with a reward and spans in every turn."""
    turns: list[Turn] = []
    prompt: tuple[int, ...] = (name, 7)
    for place in range(num_turns):
        spans = (Span(start=0, end=1, version=0, producer="forced"), Span(start=1, end=2, version=0))
        rewards = {"env": name + place / 4}
        turns.append(builders.turn(prompt, (place, 9), rewards, logprobs=(-1.0, -2.0), text="x", spans=spans))
        prompt = (*prompt, place, 9, name)
    ends = {"stop": StopReason.MAX_TURNS, "success": name % 2 == 0, "next_prompt_ids": (name, 1)}
    return builders.episode(str(name), *turns, task=f"task{name % 3}", seed=name, **ends)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test leaves an index in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards of four blocks with two trajectories each, of 1 to 3 turns."""
    monkeypatch.setattr(store_rows, "TURNS_PER_BLOCK", 4)
    store = TrajectoryStore(tmp_path / "store")
    for first in (0, 8):
        store.append([episode(first + i, (1, 3)[i % 2]) for i in range(8)], tag="x")
    return store.folder


def contents(table: TurnTable) -> dict[int, list[tuple[object, ...]]]:
    """By the seed of each trajectory all that an off-policy learner reads of its turns; checks the numbering."""
    found: dict[int, list[tuple[object, ...]]] = {}
    owners = table.owners()
    for t in table.transitions(range(len(table))):
        assert t.trajectory == owners[t.index]
        assert t.task == table.names["task"][table.trajectories["task"][t.trajectory]]
        assert t.index == table.trajectories["first_turn"][t.trajectory] + t.turn
        found.setdefault(int(table.trajectories["seed"][t.trajectory]), []).append(
            astuple(replace(t, index=0, trajectory=0))  # those two are numbers of this table
        )
    return found


def flip(path: Path, place: int, bits: int = 0xFF) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(bytes(content))


def footer_start(path: Path) -> int:
    content = path.read_bytes()
    return len(content) - 8 - int(struct.unpack("<I", content[-8:-4])[0])


def rewrite(folder: Path, change: Callable[[Rows, Rows], None], number: int = 0) -> None:
    """What a foreign writer with a bug leaves behind: changed rows, in the blocks and with the checksums of before."""
    paths = [folder / table / f"{number:06d}.parquet" for table in TABLES]
    rows = [pq.read_table(path, partitioning=None).to_pylist() for path in paths]
    sizes = [[g.num_rows for g in map(pq.read_metadata(path).row_group, range(4))] for path in paths]
    change(*rows)
    for path, table, parts, schema in zip(
        paths, rows, sizes, (store_checks.TRAJECTORY_SCHEMA, store_checks.TURN_SCHEMA), strict=True
    ):
        with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
            for size in [*parts[:-1], len(table)]:  # what was added or is missing shows in the last block
                block, table = table[:size], table[size:]
                writer.write_table(pa.Table.from_pylist(block, schema=schema))


@pytest.mark.parametrize(("table", "column"), [("turns", "action_ids"), ("trajectories", "total_reward")])
def test_a_flipped_byte_costs_the_trajectories_of_one_block(folder: Path, table: str, column: str) -> None:
    healthy = contents(TurnTable(shutil.copytree(folder, folder.with_name("copy"))))
    path = folder / table / "000000.parquet"
    group = pq.read_metadata(path).row_group(1)
    [chunk] = [c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.split(".")[0] == column]
    flip(path, chunk.data_page_offset + chunk.total_compressed_size - (chunk.total_compressed_size // 3), 0x01)
    for _ in range(2):  # an index that was built before says it too
        store = TrajectoryStore(folder, mode="read")
        kept = contents(TurnTable(store))
        assert kept == {seed: turns for seed, turns in healthy.items() if seed not in (2, 3)}
        assert [w for w in store.warnings if f"block 1 of {path}" in w] == store.warnings != []
    assert {t.seed for t in store.iter_trajectories()} == set(kept), "the store's own walk loses the same"


@pytest.mark.long
def test_flipped_bits_are_warned_of_and_what_is_kept_is_right(folder: Path, tmp_path: Path) -> None:
    healthy = contents(TurnTable(shutil.copytree(folder, tmp_path / "copy")))
    shutil.rmtree(tmp_path / "copy")
    draw = random.Random(0)
    outcomes = {"same": 0, "said": 0, "refused": 0}
    for number in range(60):
        broken = shutil.copytree(folder, tmp_path / "broken")
        path = broken / draw.choice(TABLES) / "000001.parquet"
        footer = footer_start(path)
        place = draw.randrange(4, footer) if number % 3 else draw.randrange(footer, path.stat().st_size - 8)
        flip(path, place, 1 << draw.randrange(8))
        try:
            store = TrajectoryStore(broken, mode="read")
            kept = contents(TurnTable(store))
        except DataError as error:
            assert str(path) in str(error)
            outcomes["refused"] += 1
        else:
            assert all(kept[seed] == healthy[seed] for seed in kept), (path, place)
            assert kept.keys() == healthy.keys() or path.name in str(store.warnings) or "shard 1" in str(store.warnings)
            assert set(range(8)) <= kept.keys(), "the other shard is whole"
            outcomes["said" if store.warnings else "same"] += 1
            list(store.iter_trajectories())
        shutil.rmtree(broken)
    assert outcomes["said"] > 20


def of_turn(column: str, value: object) -> Callable[[Rows, Rows], None]:
    """Changes the last turn of trajectory 3: row 7 of the turns."""
    return lambda trajectories, turns: turns[7].update({column: value})


def of_trajectory(column: str, value: object) -> Callable[[Rows, Rows], None]:
    return lambda trajectories, turns: trajectories[3].update({column: value})


SPAN = {"start": 0, "end": 3, "version": 0, "producer": "policy"}
ODD = [
    (of_turn("rewards", [{"name": "env", "value": math.nan}]), "row 7", "a reward is not finite"),
    (of_turn("rewards", [{"name": "env", "value": math.inf}]), "row 7", "a reward is not finite"),
    (of_trajectory("total_reward", math.inf), "row 3", "total_reward is not finite"),
    (of_trajectory("task_id", None), "row 3", "no value in the column task_id"),
    (of_trajectory("stop_reason", "exploded"), "row 3", "unknown stop reason"),
    (of_trajectory("task_split", "all"), "row 3", "unknown split"),
    (of_turn("action_logprobs", [-1.0]), "row 7", "log-probs"),
    (of_turn("action_ids", [1, None]), "row 7", "no value in the column action_ids"),
    (of_turn("prompt_new", None), "row 7", "no value in the column prompt_new"),
    (of_turn("prompt_shared", 10**6), "row 7", "prompt_shared exceeds"),
    (of_turn("prompt_shared", -1), "row 7", "prompt_shared exceeds"),
    (of_turn("turn", 0), "row 7", "out of order"),
    (of_turn("spans", [SPAN]), "row 7", "a span reaches beyond the action"),
    (of_turn("spans", [SPAN | {"end": 2, "producer": None}]), "row 7", "no value in the column spans"),
    (lambda _, turns: turns[7].update(prompt_shared=0, prompt_new=[]), "row 7", "an empty prompt"),
    (of_turn("action_logprobs", [-1.0, math.nan]), "row 7", "a log-prob above 0 or not a finite number"),
    (of_turn("action_logprobs", [-1.0, -math.inf]), "row 7", "a log-prob above 0 or not a finite number"),
    (of_turn("action_logprobs", [-1e300, -1.0]), "row 7", "a log-prob above 0 or not a finite number"),
    (of_turn("spans", [SPAN | {"end": 2, "producer": "forced"}]), "row 7", "a reward on a forced token"),
    (of_turn("spans", [SPAN | {"end": 1}]), "row 7", "a reward on a forced token"),
    (of_turn("action_logprobs", [0.5, -1.0]), "row 7", "a log-prob above 0 or not a finite number"),
    (of_turn("action_ids", [2, -9]), "row 7", "a negative token id"),
    (of_turn("prompt_new", [-1, 5]), "row 7", "a negative token id"),
    (of_trajectory("next_prompt_ids", [4, -4]), "row 3", "a negative token id"),
    (of_turn("finish", "burst"), "row 7", "an unknown finish"),
    (of_trajectory("origin", "heaven"), "row 3", "an unknown origin"),
    (of_turn("spans", [SPAN | {"end": 2, "producer": "nobody"}]), "row 7", "an unknown producer"),
    (of_turn("trajectory_id", "4"), "row 7", "a turn of another trajectory"),
    (of_trajectory("total_reward", 7.0), "row 3", "total_reward is not what its turns earned"),
]
UNLEARNED = [  # sound for a store, and nothing for replay, which has no weight per token
    (of_turn("policy_weights", [1.0, 0.0]), "row 7", "tokens that are not to be learned (policy weight 0)"),
]
SCORE = {"value": 1.0, "verifier": "v", "parts": [], "turn_parts": None, "message": ""}
STORE_ONLY = [  # of columns that the index does not hold
    (of_trajectory("score", SCORE | {"parts": [{"name": "a", "value": math.nan}]}), "score.parts holds nan"),
    (of_turn("values", [{"name": "v", "values": [1.0]}] * 2), "values holds a name twice: v, v"),
    (of_turn("env_rewards", [{"name": "e", "value": 1.0}] * 2), "env_rewards holds a name twice: e, e"),
    (of_turn("observed", [{"role": "oracle", "content": "x"}]), "role is 'oracle'; known are system, user, assistant"),
    (of_turn("values", [{"name": "v", "values": [math.nan]}]), "values holds nan"),
    (of_turn("env_rewards", [{"name": "env", "value": math.inf}]), "env_rewards holds inf"),
    (of_trajectory("task_params", "[1]"), "expected a JSON object"),
    (of_trajectory("temperature", math.nan), "temperature holds nan"),
    (of_trajectory("start", {"kind": "middle", "prefix_turns": 0, "source": ""}), "start.kind is 'middle'"),
]


@pytest.mark.parametrize(("change", "row", "reason"), ODD + UNLEARNED)
def test_an_odd_row_costs_its_trajectory(
    folder: Path, change: Callable[[Rows, Rows], None], row: str, reason: str
) -> None:
    healthy = contents(TurnTable(shutil.copytree(folder, folder.with_name("copy"))))
    rewrite(folder, change)
    store = TrajectoryStore(folder, mode="read")
    assert contents(TurnTable(store)) == {seed: turns for seed, turns in healthy.items() if seed != 3}
    [warning] = store.warnings
    assert warning.startswith(f"{row} of {folder}") and "its trajectory is passed over" in warning and reason in warning


@pytest.mark.parametrize(
    "change",
    [change for change, _, reason in ODD if reason != "an empty prompt"] + [change for change, _ in STORE_ONLY],
)
def test_the_store_refuses_such_a_row_by_its_place_and_walks_past_it(
    folder: Path, change: Callable[[Rows, Rows], None]
) -> None:
    rewrite(folder, change)
    store = TrajectoryStore(folder, mode="read")
    with pytest.raises(DataError, match=r"row 3 of .*trajectories/000000\.parquet is no usable trajectory"):
        store.read(Ref(0, 3))
    assert {t.seed for t in store.iter_trajectories()} == set(range(16)) - {3}
    assert len(store.warnings) == 1 and store.tags()["x"] in (15, 16)


@pytest.mark.parametrize(("change", "reason"), STORE_ONLY)
def test_what_no_index_holds_is_refused_where_it_is_read(
    folder: Path, change: Callable[[Rows, Rows], None], reason: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(DataError, match=reason):
        TrajectoryStore(folder, mode="read").read(Ref(0, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda trajectories, turns: (trajectories.clear(), turns.clear()),
        lambda trajectories, turns: (trajectories.pop(), turns.pop(), turns.pop()),
        lambda trajectories, turns: (trajectories.append(dict(trajectories[0])), turns.append(dict(turns[0]))),
    ],
    ids=["emptied", "cut", "repeated"],
)
def test_rows_that_a_tool_added_or_took_out_are_missed(folder: Path, change: Callable[[Rows, Rows], None]) -> None:
    """Under sound checksums, and whole trajectories at that: the mark of the shard names how many there were."""
    paths = [folder / table / "000000.parquet" for table in TABLES]
    tables = [pq.read_table(path, partitioning=None) for path in paths]
    rows = [table.to_pylist() for table in tables]
    change(*rows)
    for path, table, changed in zip(paths, tables, rows, strict=True):
        pq.write_table(pa.Table.from_pylist(changed, schema=table.schema), path)
    store = TrajectoryStore(folder, mode="read")
    assert {t.seed for t in store.iter_trajectories()} == set(range(8, 16)) == contents(TurnTable(store)).keys()
    assert len(store.warnings) == 1 and "rows were added or taken out" in store.warnings[0]


def test_turns_that_change_places_are_never_read_as_another_episode(folder: Path) -> None:
    healthy = {t.id: t for t in TrajectoryStore(folder, mode="read").iter_trajectories()}

    def change(_: Rows, turns: Rows) -> None:  # trajectories 1 and 3, of three turns each
        turns[1:4], turns[5:8] = turns[5:8], turns[1:4]

    rewrite(folder, change)
    store = TrajectoryStore(folder, mode="read")
    assert contents(TurnTable(store)).keys() == set(range(16)) - {1, 3}
    assert {t.id: t for t in store.iter_trajectories()} == {i: t for i, t in healthy.items() if i not in ("1", "3")}


def test_an_index_from_before_these_checks_is_built_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "INDEX_VERSION", 2)
    TurnTable(folder)
    monkeypatch.undo()
    meta = folder / "replay_index" / "000000" / "meta.json"
    assert '"version": 2' in meta.read_text()
    TurnTable(folder)
    assert '"version": 2' not in meta.read_text()


@pytest.mark.parametrize("surplus", [1, -1])
def test_turns_without_an_owner_cost_their_block(folder: Path, surplus: int) -> None:
    def change(_: Rows, turns: Rows) -> None:
        turns[-1:] = turns[-1:] * (1 + surplus)

    rewrite(folder, change)
    store = TrajectoryStore(folder, mode="read")
    assert contents(TurnTable(store)).keys() == set(range(16)) - {6, 7}
    reason = f"{4 + surplus} turns, its trajectories name 4"
    assert store.warnings == [f"block 3 of {folder}/turns/000000.parquet is damaged, passed over: {reason}"]
    assert {t.seed for t in store.iter_trajectories()} == set(range(16)) - {6, 7} and len(store.warnings) == 1


def test_many_odd_rows_are_one_warning_and_an_empty_table_says_why(folder: Path) -> None:
    shutil.rmtree(folder / "turns")
    (folder / "turns").mkdir()
    store = TrajectoryStore(folder)
    store.append([episode(i, 2) for i in range(8)])
    for table in TABLES:
        for number in (0, 1):
            (folder / table / f"{number:06d}.parquet").unlink(missing_ok=True)

    def spoil(_: Rows, turns: Rows) -> None:
        for turn in turns:
            turn["rewards"] = [{"name": "env", "value": math.nan}]

    rewrite(folder, spoil, number=2)
    with pytest.raises(DataError, match=r"(?s)no turn to replay.*\nrows 0, 1, 2 and 13 more of .*000002\.parquet"):
        TurnTable(folder)


def test_the_warnings_of_a_kept_index_name_the_store_where_it_is_now(folder: Path) -> None:
    rewrite(folder, of_trajectory("task_id", None))
    TurnTable(folder)
    moved = folder.rename(folder.with_name("moved"))
    store = TrajectoryStore(moved, mode="read")
    TurnTable(store)
    assert f"row 3 of {moved}/trajectories/000000.parquet" in store.warnings[0]


def lose(folder: Path) -> None:
    (folder / "turns.npy").unlink()


def cut(folder: Path) -> None:
    content = (folder / "ids.npy").read_bytes()
    (folder / "ids.npy").write_bytes(content[: len(content) - 8])


def empty(folder: Path) -> None:
    (folder / "mask.npy").write_bytes(b"")


def swap(folder: Path) -> None:
    np.save(folder / "logprobs.npy", np.zeros(3, np.float32))


def other_type(folder: Path) -> None:
    np.save(folder / "ids.npy", np.load(folder / "ids.npy").astype(np.int64))


def no_mapping(folder: Path) -> None:
    (folder / "meta.json").write_text("[]", encoding="utf-8")


def no_names(folder: Path) -> None:
    meta = folder / "meta.json"
    meta.write_text(meta.read_text(encoding="utf-8").replace('"names"', '"nomes"'), encoding="utf-8")


@pytest.mark.parametrize("damage", [lose, cut, empty, swap, other_type, no_mapping, no_names])
def test_an_index_with_a_part_missing_or_torn_is_built_anew(folder: Path, damage: Callable[[Path], None]) -> None:
    healthy = contents(TurnTable(folder))
    damage(folder / "replay_index" / "000001")
    assert contents(TurnTable(folder)) == healthy
    again = folder / "replay_index" / "000001" / "meta.json"
    built = again.stat().st_mtime_ns
    assert contents(TurnTable(folder)) == healthy and again.stat().st_mtime_ns == built, "and then it is kept"


def test_what_a_killed_build_left_is_cleared_away(folder: Path) -> None:
    left = folder / "replay_index" / "000000.tmp-1234567"
    left.mkdir(parents=True)
    TurnTable(folder)
    assert not left.exists() and (folder / "replay_index" / "000000").is_dir()


def test_a_store_that_cannot_be_written_is_indexed_in_the_users_cache(folder: Path, own_cache: Path) -> None:
    healthy = contents(TurnTable(folder))
    assert not own_cache.exists()
    shutil.rmtree(folder / "replay_index")
    (folder / "replay_index").write_text("")  # as good as a read-only mount, for root too
    assert contents(TurnTable(folder)) == healthy
    root = own_cache / "rollwright" / "replay_index"
    built = {path: path.stat().st_mtime_ns for path in root.glob("*/meta.json")}
    assert len(built) == 2 and root.stat().st_mode & 0o077 == 0
    assert contents(TurnTable(folder)) == healthy
    assert {path: path.stat().st_mtime_ns for path in root.glob("*/meta.json")} == built, "built once"


def test_a_cache_that_others_can_write_is_not_trusted(folder: Path, own_cache: Path, tmp_path: Path) -> None:
    (folder / "replay_index").write_text("")
    open_to_all = own_cache / "rollwright" / "replay_index"
    open_to_all.mkdir(parents=True)
    open_to_all.chmod(0o777)
    (tmp_path / "temporary").mkdir()
    assert len(TurnTable(folder)) == 32
    assert list(open_to_all.iterdir()) == []
    assert len(list((tmp_path / "temporary" / f"rollwright-replay-{os.getuid()}").glob("*/meta.json"))) == 2


def test_nowhere_to_write_an_index_is_said(folder: Path, own_cache: Path, tmp_path: Path) -> None:
    for path in (folder / "replay_index", own_cache, tmp_path / "temporary"):
        path.write_text("")
    with pytest.raises(RunFolderError, match=r"index of shard 0 of .* can be written nowhere .*XDG_CACHE_HOME"):
        TurnTable(folder)


def test_a_full_disk_leaves_nothing_behind(folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = np.save

    def full(path: Path, array: Any) -> None:
        if folder in path.parents:
            raise OSError(28, "No space left on device")
        save(path, array)

    monkeypatch.setattr(index.np, "save", full)
    assert len(TurnTable(folder)) == 32 and len(list(own_cache.rglob("meta.json"))) == 2
    assert [path.name for path in (folder / "replay_index").iterdir()] == [".lock"]


def test_a_shard_that_was_set_aside_meanwhile_is_named(folder: Path) -> None:
    reader = TrajectoryStore(folder, mode="read")
    TrajectoryStore(folder).rewind(1)
    with pytest.raises(DataError, match=r"000001\.parquet was there when its store was opened"):
        TurnTable(reader)
