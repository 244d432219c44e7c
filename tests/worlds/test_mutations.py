"""Stores and run folders harmed in more than 500 ways: a clear error, the same data as before, or it is said.

Never other data in silence. Each harm is drawn from a seed and done to a real run of a tiny model, or to a copy of one
of its pieces: reading a piece takes milliseconds where a whole resumed run takes a second.
"""

from __future__ import annotations

import json
import logging
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rollwright.contracts.errors import ConfigError, DataError
from rollwright.contracts.record import Trajectory
from rollwright.evaluation import load_evaluation
from rollwright.rollout import Journal
from rollwright.run_io.checkpoint import Checkpoints
from rollwright.run_io.tracking import read_metrics
from rollwright.store.replay import TurnTable
from rollwright.store.store_checks import TABLES
from rollwright.store.trajectory_store import TrajectoryStore

MAZE = ["world.options.maze=umaze", "model.tiny_hidden=32", "model.tiny_layers=1"]
SMALL = ["engine=transformers", "engine.dtype=float32", "learner.precision=float32", "rollout.schedule=rounds"]
SMALL += ["rollout.groups_per_step=2", "rollout.group_size=4", "rollout.max_turns=4", "evaluation.max_turns=2"]
SMALL += ["evaluation.seeds_per_task=1", "evaluation.every=2", "run.checkpoint_every=1", "run.keep_checkpoints=3"]
SMALL += ["run.transcripts_every=0", "learner.learning_rate=1e-2", MAZE[0]]
Verdicts = Counter[str]
Draw = random.Random


@pytest.fixture(scope="module")
def start(run_recipe: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that has seen demonstrations: one that babbles earns the same everywhere and never moves."""
    folder = tmp_path_factory.mktemp("start")
    words = ["data.per_task=8", "sft.epochs=3", "sft.precision=float32", f"run.folder={folder}"]
    run_recipe("sft.py", "text/maze_sft.yaml", "model.path=tiny", *MAZE, *words)
    return folder / "policy"


@pytest.fixture(scope="module")
def train(run_recipe: Callable[..., None], start: Path) -> Callable[..., None]:
    """(folder, *words): a run of a second, or on from where the one in the folder stands."""
    common = ["text/maze_grpo.yaml", f"model.path={start}", *SMALL]
    return lambda folder, *words: run_recipe("grpo.py", *common, f"run.folder={folder}", *words)


@pytest.fixture(scope="module")
def run(train: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps with a checkpoint each. Nobody writes to it."""
    folder = tmp_path_factory.mktemp("run")
    train(folder, "run.steps=3")
    return folder


@pytest.fixture(scope="module")
def other_run(train: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same seed with other settings: its episodes have the names of the first one's."""
    folder = tmp_path_factory.mktemp("other")
    train(folder, "run.steps=1", "rollout.temperature=0.5")
    return folder


# Stores


def timeless(trajectory: Trajectory) -> tuple[Any, ...]:
    turns = [
        (t.prompt_ids, t.action_ids, t.action_logprobs, t.text, str(t.observed), t.spans, t.finish, str(t.rewards))
        for t in trajectory.turns
    ]
    return trajectory.id, trajectory.task.id, trajectory.seed, trajectory.stop_reason, trajectory.success, tuple(turns)


def episodes(store: TrajectoryStore) -> Counter[tuple[Any, ...]]:
    return Counter(timeless(trajectory) for trajectory in store.iter_trajectories())


def replayed(store: TrajectoryStore) -> Counter[tuple[Any, ...]]:
    """The turns as an off-policy learner gets them."""
    table = TurnTable(store, may_be_empty=True)
    return Counter(
        (t.prompt_ids, t.action_ids, t.action_mask, t.logprobs, t.reward, t.next_prompt_ids, t.return_to_go,
         t.trajectory_return, t.success, t.task, t.turn, t.turns_left)
        for t in table.transitions(range(len(table)))
    )  # fmt: skip


def files(folder: Path, number: int) -> list[Path]:
    return [folder / table / f"{number:06d}.parquet" for table in TABLES]


def swap(one: Path, two: Path) -> None:
    spare = one.with_suffix(".spare")
    one.rename(spare)
    two.rename(one)
    spare.rename(two)


def rewrite(folder: Path, number: int, change: Callable[[list[Any], list[Any]], None]) -> None:
    """Changed rows under sound checksums, as a tool with a bug leaves them; the files' own marks stay."""
    paths = files(folder, number)
    tables = [pq.read_table(path, partitioning=None) for path in paths]
    rows = [table.to_pylist() for table in tables]
    change(*rows)
    for path, table, changed in zip(paths, tables, rows, strict=True):
        pq.write_table(pa.Table.from_pylist(changed, schema=table.schema), path, write_page_checksum=True)


ODD_TURN: list[tuple[str, Any]] = [
    ("action_logprobs", lambda old: [math.nan] * len(old)),
    ("action_logprobs", lambda old: [0.7] * len(old)),
    ("action_logprobs", lambda old: old[:-1]),
    ("action_ids", lambda old: [-5] * len(old)),
    ("prompt_new", lambda old: [*old, -1]),
    ("spans", lambda old: [{"start": 0, "end": 99, "version": 0, "producer": "policy"}]),
    ("spans", lambda old: [{"start": -1, "end": 1, "version": 0, "producer": "policy"}]),
    ("spans", lambda old: [{"start": 0, "end": 1, "version": 0, "producer": "ghost"}]),
    ("finish", lambda old: "burst"),
    ("rewards", lambda old: [{"name": "env", "value": math.inf}]),
    ("rewards", lambda old: [{"name": "env", "value": 77.0}]),
    ("turn", lambda old: old + 1),
    ("prompt_shared", lambda old: old + 10**6),
    ("trajectory_id", lambda old: old + "x"),
    ("text", lambda old: None),
]
ODD_HEADER: list[tuple[str, Any]] = [
    ("stop_reason", lambda old: "exploded"),
    ("origin", lambda old: "heaven"),
    ("task_split", lambda old: "all"),
    ("total_reward", lambda old: old + 1.0),
    ("total_reward", lambda old: math.nan),
    ("num_turns", lambda old: old + 1),
    ("num_turns", lambda old: -1),
    ("next_prompt_ids", lambda old: [-1]),
    ("id", lambda old: old + "x"),
    ("task_id", lambda old: None),
]


def odd_turn(store: Path, draw: Draw, other: Path) -> None:
    column, change = draw.choice(ODD_TURN)

    def spoil(_: list[Any], turns: list[Any]) -> None:
        row = draw.choice([turn for turn in turns if turn["action_ids"]])
        row[column] = change(row[column])

    rewrite(store, draw.randrange(3), spoil)


def odd_header(store: Path, draw: Draw, other: Path) -> None:
    column, change = draw.choice(ODD_HEADER)

    def spoil(headers: list[Any], _: list[Any]) -> None:
        row = draw.choice(headers)
        row[column] = change(row[column])

    rewrite(store, draw.randrange(3), spoil)


def turns_change_places(store: Path, draw: Draw, other: Path) -> None:
    def spoil(_: list[Any], turns: list[Any]) -> None:
        one, two = draw.sample(range(len(turns)), 2)
        turns[one], turns[two] = turns[two], turns[one]

    rewrite(store, draw.randrange(3), spoil)


def a_turn_too_many_or_too_few(store: Path, draw: Draw, other: Path) -> None:
    def spoil(_: list[Any], turns: list[Any]) -> None:
        place = draw.randrange(len(turns))
        turns[place : place + 1] = draw.choice([[], [turns[place]] * 2])

    rewrite(store, draw.randrange(3), spoil)


def halves_change_shards(store: Path, draw: Draw, other: Path) -> None:
    one, two = draw.sample(range(3), 2)
    half = draw.randrange(2)
    swap(files(store, one)[half], files(store, two)[half])


def shards_change_numbers(store: Path, draw: Draw, other: Path) -> None:
    one, two = draw.sample(range(3), 2)
    for half in range(2):
        swap(files(store, one)[half], files(store, two)[half])


def a_shard_is_copied(store: Path, draw: Draw, other: Path) -> None:
    """Onto a new number or over another shard; all of it or a half."""
    source, target = draw.randrange(3), draw.choice([0, 1, 2, 3, 7])
    for half in draw.choice([(0, 1), (0,), (1,)]):
        if source != target:
            shutil.copyfile(files(store, source)[half], files(store, target)[half])


def a_half_of_another_run(store: Path, draw: Draw, other: Path) -> None:
    half = draw.randrange(2)
    shutil.copyfile(files(other, 0)[half], files(store, draw.randrange(3))[half])


def a_file_is_gone(store: Path, draw: Draw, other: Path) -> None:
    number = draw.randrange(2)  # of the last one only a checkpoint knows
    for half in draw.choice([(0, 1), (0,), (1,)]):
        files(store, number)[half].unlink()


def a_file_is_cut(store: Path, draw: Draw, other: Path) -> None:
    path = draw.choice(files(store, draw.randrange(3)))
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def a_bit_is_flipped(store: Path, draw: Draw, other: Path) -> None:
    path = draw.choice(files(store, draw.randrange(3)))
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


STORE_HARMS = [odd_turn, odd_turn, odd_header, turns_change_places, a_turn_too_many_or_too_few, halves_change_shards,
               shards_change_numbers, a_shard_is_copied, a_half_of_another_run, a_file_is_gone, a_file_is_cut,
               a_bit_is_flipped]  # fmt: skip


@pytest.fixture(scope="module")
def three_shards(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three shards of the run, with the index of each."""
    folder = tmp_path_factory.mktemp("store") / "store"
    shutil.copytree(run / "trajectories", folder)
    for path in folder.glob("*/*.parquet"):
        if int(path.stem) > 2:
            path.unlink()
    assert len(TurnTable(folder)) > 20
    return folder


@pytest.mark.parametrize("harm", STORE_HARMS, ids=lambda harm: harm.__name__)
def test_a_harmed_store_gives_no_other_data_in_silence(
    harm: Callable[[Path, Draw, Path], None], three_shards: Path, other_run: Path, tmp_path: Path
) -> None:
    healthy = [read(TrajectoryStore(three_shards, mode="read")) for read in (episodes, replayed)]
    verdicts: Verdicts = Counter()
    for number in range(24):
        store = shutil.copytree(three_shards, tmp_path / "store")
        harm(store, Draw(f"{harm.__name__}/{number}"), other_run / "trajectories")
        for read, expected in zip((episodes, replayed), healthy, strict=True):
            verdicts[verdict_of_store(store, read, expected)] += 1
        shutil.rmtree(store)
    assert verdicts["other"] == 0, verdicts
    assert verdicts["said"] + verdicts["error"] > 0 or harm is shards_change_numbers


def verdict_of_store(folder: Path, read: Callable[[TrajectoryStore], Counter[Any]], expected: Counter[Any]) -> str:
    """ "other": something that was not there before, or less than that, and nothing is said."""
    try:
        store = TrajectoryStore(folder, mode="read")
        found = read(store)
    except DataError as error:
        assert str(folder) in str(error)
        return "error"
    if found == expected:
        return "same"
    return "said" if found <= expected and store.warnings else "other"


# Checkpoints


def changed_character(path: Path, draw: Draw) -> None:
    text = path.read_text()
    places = (
        [place for place, letter in enumerate(text) if letter.isdigit()] if draw.random() < 0.7 else range(len(text))
    )
    place = draw.choice(places)
    letter = draw.choice([c for c in "0123456789" if c != text[place]])
    path.write_text(text[:place] + letter + text[place + 1 :])


def harm_checkpoints(folder: Path, draw: Draw) -> None:
    """One harm to one of the three; mostly to the newest."""
    checkpoint = folder / draw.choice(["step_000003"] * 4 + ["step_000002", "step_000001"])
    kind = draw.choice(
        ["character"] * 6 + ["file gone", "file cut", "byte", "renamed", "folder gone", "state of another"]
    )
    inner = draw.choice(sorted(path for path in checkpoint.rglob("*") if path.is_file()))
    if kind == "character":
        changed_character(checkpoint / "state.json", draw)
    elif kind == "file gone":
        inner.unlink()
    elif kind == "file cut":
        inner.write_bytes(inner.read_bytes()[:-1])
    elif kind == "byte":
        content = bytearray(inner.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        inner.write_bytes(bytes(content))
    elif kind == "renamed":
        checkpoint.rename(folder / f"step_{draw.randrange(4, 10):06d}")
    elif kind == "folder gone":
        shutil.rmtree(checkpoint)
    else:
        other = "step_000002" if checkpoint.name != "step_000002" else "step_000001"
        shutil.copyfile(folder / other / "state.json", checkpoint / "state.json")


def test_a_harmed_checkpoint_is_never_resumed_from(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = {found.step: found.state for found in Checkpoints(run / "checkpoints")._by_age()}
    assert sorted(whole) == [1, 2, 3]
    verdicts: Verdicts = Counter()
    for number in range(160):
        folder = shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
        harm_checkpoints(folder, Draw(f"checkpoint/{number}"))
        caplog.clear()
        found = Checkpoints(folder).latest()
        assert found is not None and found.path.name == f"step_{found.step:06d}"
        assert found.state == whole[found.step], number
        for name in found.state["files"]:
            assert (found.path / name).read_bytes() == (run / "checkpoints" / found.path.name / name).read_bytes()
        gone = not (folder / "step_000003").exists()  # a resumed run tells by its journal and metrics: see below
        verdicts["same" if found.step == 3 else "gone" if gone and not caplog.text else "said"] += 1
        assert found.step == 3 or gone or "passing it over" in caplog.text, number
        shutil.rmtree(folder)
    assert verdicts["said"] > 80


# Journals and evaluations


def test_a_harmed_journal_gives_no_other_answers(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    name = json.loads((run / "journal.jsonl").read_text().splitlines()[0])["run"]

    def answers() -> dict[str, Any]:
        journal = Journal(path, run=name)
        journal.load(after=3)
        return journal._known

    shutil.copyfile(run / "journal.jsonl", path)
    whole = answers()
    assert len(whole) >= 2
    fewer = 0
    for number in range(60):
        shutil.copyfile(run / "journal.jsonl", path)
        changed_character(path, Draw(f"journal/{number}"))
        found = answers()
        assert found.items() <= whole.items(), number
        fewer += found != whole
    assert fewer > 40


def test_a_harmed_evaluation_is_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "final.json"
    whole = load_evaluation(run / "eval" / "final.json")
    refused = 0
    for number in range(40):
        shutil.copyfile(run / "eval" / "final.json", path)
        changed_character(path, Draw(f"evaluation/{number}"))
        try:
            assert load_evaluation(path) == whole, number
        except DataError:
            refused += 1
    assert refused > 30


# Whole runs


def edit(path: Path, change: Callable[[str], str]) -> None:
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


RUN_HARMS: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda run: None,
    "the step in state.json": lambda run: edit(
        run / "checkpoints/step_000003/state.json", lambda text: text.replace('"step": 3', '"step": 4')
    ),
    "the place in the store in state.json": lambda run: edit(
        run / "checkpoints/step_000003/state.json", lambda text: text.replace('"stored": 4', '"stored": 3')
    ),
    "the newest checkpoint gone": lambda run: shutil.rmtree(run / "checkpoints/step_000003"),
    "all checkpoints gone": lambda run: shutil.rmtree(run / "checkpoints"),
    "all checkpoints damaged": lambda run: [flip(path) for path in run.glob("checkpoints/*/learner.pt")],
    "random numbers gone": lambda run: (run / "checkpoints/step_000003/random_00000.json").unlink(),
    "trajectories gone": lambda run: shutil.rmtree(run / "trajectories"),
    "a shard gone": lambda run: [path.unlink() for path in files(run / "trajectories", 1)],
    "the last shard gone": lambda run: [path.unlink() for path in files(run / "trajectories", 3)],
    "turns gone": lambda run: files(run / "trajectories", 1)[1].unlink(),
    "turns swapped": lambda run: swap(*(files(run / "trajectories", number)[1] for number in (0, 1))),
    "a shard copied over another": lambda run: [
        shutil.copyfile(*pair) for pair in zip(*(files(run / "trajectories", n) for n in (0, 1)), strict=True)
    ],
    "a shard copied behind the last": lambda run: [
        shutil.copyfile(*pair) for pair in zip(*(files(run / "trajectories", n) for n in (0, 9)), strict=True)
    ],
    "metrics gone": lambda run: (run / "metrics.jsonl").unlink(),
    "metrics edited": lambda run: edit(run / "metrics.jsonl", lambda text: text.replace("1", "2", 1)),
    "a line of metrics gone": lambda run: edit(run / "metrics.jsonl", lambda text: text.split("\n", 1)[1]),
    "journal edited": lambda run: edit(run / "journal.jsonl", lambda text: text.replace("[", "[7,", 1)),
    "journal gone": lambda run: (run / "journal.jsonl").unlink(),
    "evaluations gone": lambda run: shutil.rmtree(run / "eval"),
    "settings gone": lambda run: (run / "config.yaml").unlink(),
}


def results(folder: Path) -> dict[str, Any]:
    """What a run left behind, without what the clock says."""
    metrics = [
        {name: value for name, value in row.items() if not name.startswith("time/") and not name.endswith("_s")}
        for row in read_metrics(folder / "metrics.jsonl")
    ]
    stored = episodes(TrajectoryStore(folder / "trajectories", mode="read"))
    return {"metrics": metrics, "episodes": stored, "policy": (folder / "policy/model.safetensors").read_bytes()}


@pytest.fixture(scope="module")
def went_on(run: Path, train: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run comes to with a fourth step, when nobody harms it."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("on") / "run")
    train(folder, "run.steps=4")
    found = results(folder)
    assert found["policy"] != (run / "policy/model.safetensors").read_bytes(), "a run that learns"
    return found


@pytest.mark.parametrize("harm", RUN_HARMS)
def test_a_harmed_run_goes_on_alike_or_says_what_is_missing(
    harm: str,
    run: Path,
    went_on: dict[str, Any],
    train: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    RUN_HARMS[harm](folder)
    train(folder, "run.steps=4")
    found = results(folder)
    assert found["policy"] == went_on["policy"], "whatever is missing, what is learned is the same"
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and str(folder) in r.getMessage()]
    routine = f"resumed from {folder / 'checkpoints' / 'step_000003'}"
    unexpected = [message for message in said if not message.startswith(routine)]
    assert found == went_on or unexpected, "other data in silence"
    assert bool(unexpected) == (harm in SAID), unexpected


SAID = set(RUN_HARMS) - {"nothing", "journal gone", "evaluations gone", "settings gone"}


def test_a_run_with_other_start_weights_does_not_go_on(
    run: Path, start: Path, train: Callable[..., None], tmp_path: Path
) -> None:
    folder, weights = shutil.copytree(run, tmp_path / "run"), start / "model.safetensors"
    whole = weights.read_bytes()
    try:
        flip(weights)
        with pytest.raises(ConfigError, match=r"other weights than those that model\.path names now"):
            train(folder, "run.steps=4")
    finally:
        weights.write_bytes(whole)


def test_a_run_that_learns_from_its_own_store_refuses_to_lack_episodes(
    run_recipe: Callable[..., None], tmp_path: Path
) -> None:
    words = ["model.path=tiny", *MAZE, *SMALL, f"run.folder={tmp_path / 'run'}", "replay.stores=[]"]
    run_recipe("filtered_bc.py", "text/maze_filtered.yaml", *words, "run.steps=2")
    for path in files(tmp_path / "run" / "trajectories", 0):
        path.unlink()
    with pytest.raises(
        DataError, match=r"learns from its stored episodes .*put the files back, name another run\.folder"
    ):
        run_recipe("filtered_bc.py", "text/maze_filtered.yaml", *words, "run.steps=3")
