"""Runs as `rollwright view` follows them: metrics read on, episodes by an index, filters, and what a resume changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import ConfigError, DataError, StopReason
from rollwright.run_io import RunFolder, Tracker, held
from rollwright.store import TrajectoryStore
from rollwright.view.live.episode_query import EpisodeQuery
from rollwright.view.live.followed_run import FollowedRun, started_by
from rollwright.view.live.metric_columns import MAX_SPARK, MetricColumns
from rollwright.view.live.page_routes import json_answer
from rollwright.view.live.run_answers import run_answer, settings_diff, stage_seconds, task_answer
from rollwright.view.live.run_catalogue import RunCatalogue
from rollwright.view.live.token_strings import TokenStrings
from tests import builders
from tests.viewed_runs import maze_run, tokenizer_json


def followed(folder: Path) -> FollowedRun:
    run = FollowedRun(folder, "run")
    run.refresh()
    return run


def listed(run: FollowedRun, **asked: str) -> list[str]:
    """The ids of the episodes that a query lists."""
    return [row["id"] for row in run.episode_list(EpisodeQuery.of({"sort": "old", **asked}))["rows"]]


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> FollowedRun:
    folder = tmp_path_factory.mktemp("maze")
    maze_run(folder)
    return followed(folder)


def test_metrics_are_read_on_and_rows_of_one_step_are_merged(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, config_yaml="")
    tracker, columns = Tracker(run), MetricColumns(run.metrics)
    columns.refresh()
    assert columns.answer() == {"epoch": 0, "steps": [], "series": {}, "names": []}
    tracker.log(0, {"reward/total_mean": 1.0})
    tracker.log(1, {"eval/success_frac": 0.5})
    columns.refresh()
    tracker.log(1, {"reward/total_mean": float("nan")})
    with run.metrics.open("a") as file:
        file.write('{"step": 2, "reward/to')  # a line that is being written
    columns.refresh()
    assert columns.answer()["series"] == {"eval/success_frac": [None, 0.5], "reward/total_mean": [1.0, None]}
    with run.metrics.open("a") as file:
        file.write('tal_mean": 3.0}\n[1]\n{"step": "x"}\n')
    columns.refresh()
    assert columns.answer(["reward/total_mean", "none/such"], since=1) == {
        "epoch": 0,
        "steps": [1, 2],
        "series": {"reward/total_mean": [None, 3.0]},
        "names": ["eval/success_frac", "reward/total_mean"],
    }


def test_a_rewound_metrics_file_begins_a_new_epoch(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, config_yaml="")
    tracker, columns = Tracker(run), MetricColumns(run.metrics)
    tracker.log(0, {"reward/total_mean": 1.0})
    position = tracker.position
    tracker.log(1, {"reward/total_mean": 2.0})
    columns.refresh()
    tracker.rewind(position)
    tracker.log(1, {"reward/total_mean": 5.0})
    columns.refresh()
    assert columns.epoch == 1 and columns.answer()["series"]["reward/total_mean"] == [1.0, 5.0]


def test_a_spark_is_short_and_ends_with_the_last_value(tmp_path: Path) -> None:
    run = builders.run_of(tmp_path, metrics=({"reward/total_mean": float(step)} for step in range(500)))
    columns = MetricColumns(run.metrics)
    columns.refresh()
    spark = columns.spark("reward/total_mean")
    assert spark is not None and len(spark["values"]) <= MAX_SPARK
    assert (spark["first"], spark["last"], spark["values"][-1], spark["step"]) == (0.0, 499.0, 499.0, 499)
    assert columns.spark("none/such") is None


def test_filters_choose_what_they_name(maze: FollowedRun) -> None:
    everything = listed(maze, limit="500")
    assert len(everything) == maze.index.table.num_rows == len(set(everything))
    rows = {row["id"]: row for row in maze.episode_list(EpisodeQuery.of({"limit": "500"}))["rows"]}
    for asked, holds in (
        ({"task": "maze/1"}, lambda row: row["task"] == "maze/1"),
        ({"success": "no"}, lambda row: row["success"] is False),
        ({"stop": "max_turns", "step": "1"}, lambda row: row["stop"] == "max_turns" and row["step"] == 1),
        ({"split": "train", "tag": "step_2"}, lambda row: row["tag"] == "step_2"),
        ({"min_reward": "2.5", "max_reward": "3"}, lambda row: 2.5 <= row["reward"] <= 3),
        ({"fault": "yes"}, lambda row: row["is_fault"]),
    ):
        wanted = [name for name in everything if holds(rows[name])]
        assert listed(maze, limit="500", **asked) == wanted, asked
        assert wanted or asked == {"fault": "yes"}
    ordered = [row["reward"] for row in maze.episode_list(EpisodeQuery.of({"sort": "-reward"}))["rows"]]
    assert ordered == sorted(ordered, reverse=True)
    assert listed(maze, offset="2", limit="3") == everything[2:5]
    assert {"env", "format"} <= set(maze.episode_list(EpisodeQuery.of({}))["choices"]["channel"])


def test_a_query_that_cannot_be_is_refused_with_what_can(maze: FollowedRun) -> None:
    for asked in ({"success": "maybe"}, {"sort": "__class__"}, {"step": "1e9999"}, {"min_reward": "nan"}):
        with pytest.raises(ConfigError, match=f"`{next(iter(asked))}`"):
            EpisodeQuery.of(asked)


def test_channels_sum_over_an_episode_and_missing_ones_are_no_zero(tmp_path: Path) -> None:
    run = builders.run_of(
        tmp_path,
        builders.episode("pays", builders.turn(reward={"env": 1.0}), builders.turn(reward={"env": -0.25})),
        builders.episode("nothing", builders.turn(reward={"env": 0.0, "style": -1.0})),
        builders.episode("bare", builders.turn(), builders.turn(reward={"style": 2.0}, costs={"harm": 1.0})),
        builders.episode("empty"),
    )
    shown = followed(run.path)
    assert listed(shown, channel="env") == ["pays", "nothing"]
    assert listed(shown, channel="env", channel_sign="pos") == ["pays"]
    assert listed(shown, channel="env", channel_sign="zero") == ["nothing"]
    assert listed(shown, channel="style", channel_sign="neg") == ["nothing"]
    assert listed(shown, channel="harm") == ["bare"] and listed(shown, channel="none") == []


def test_text_is_found_in_observations_and_actions_and_is_no_pattern(tmp_path: Path) -> None:
    from rollwright.contracts import Message

    see = (Message(role="user", content="A [door] is closed"),)
    run = builders.run_of(
        tmp_path,
        builders.episode("sees", builders.turn(observed=see)),
        builders.episode("says", builders.turn(text="open DOOR"), builders.turn()),
        builders.episode("neither", builders.turn(text="wait")),
    )
    shown = followed(run.path)
    assert listed(shown, text="door") == ["sees", "says"]
    assert listed(shown, text="[door]") == ["sees"] and listed(shown, text=".*") == []
    answer = shown.episode_list(EpisodeQuery.of({"text": "door"}))
    assert (answer["searched"], answer["more"]) == (3, False)


def test_siblings_are_one_group(maze: FollowedRun) -> None:
    row = maze.episode_list(EpisodeQuery.of({"step": "1", "task": "maze/2"}))["rows"][0]
    group = maze.group(row["group"])
    assert group is not None and group["task"] == "maze/2" and group["informative"]
    assert sorted(member["member"] for member in group["rows"]) == [0, 1, 2, 3]
    assert maze.group("no such group") is None


def test_an_episode_has_its_tokens_as_strings_and_what_the_update_knew(maze: FollowedRun) -> None:
    row = maze.episode_list(EpisodeQuery.of({"step": "1"}))["rows"][0]
    episode = maze.episode(row["key"])
    assert episode is not None and episode["row"] == row
    seen: list[int] = []
    stored = TrajectoryStore(maze.folder.trajectories, mode="read")
    turns = next(t for t in stored.iter_trajectories(tag="step_1") if t.id == row["id"]).turns
    for turn, whole in zip(episode["turns"], turns, strict=True):
        prompt = seen[: turn["shared"]] + turn["prompt"]
        assert prompt == list(whole.prompt_ids) and turn["action"] == list(whole.action_ids)
        assert len(turn["log"]["advantages"]) == len(turn["action"]) and turn["log"]["advantages"][2] is None
        seen = prompt + turn["action"]
    assert episode["vocabulary"]["3"] == {"text": " north", "special": False}
    assert episode["vocabulary"]["0"]["special"] and set(episode["logged"]) >= {"advantages", "diffs", "entropies"}
    assert maze.episode("99.0") is None and maze.episode("../x") is None and maze.episode("0.-1") is None


def test_a_run_that_grows_is_followed_and_one_that_is_rewound_is_read_anew(tmp_path: Path) -> None:
    store = builders.store_of(tmp_path / "trajectories", builders.episode("0/0/0", builders.turn()), tag="step_0")
    run = followed(tmp_path)
    store.append([builders.episode("0/1/0", builders.turn())], tag="step_1")
    run.refresh()
    assert listed(run) == ["0/0/0", "0/1/0"]
    store.rewind(1)
    store.append([builders.episode("again", builders.turn())], tag="step_1")
    run.refresh()
    assert listed(run) == ["0/0/0", "again"]


def test_a_damaged_shard_costs_its_episodes_alone(tmp_path: Path) -> None:
    store = builders.store_of(tmp_path / "trajectories", builders.episode("one", builders.turn()))
    store.append([builders.episode("two", builders.turn())])
    (tmp_path / "trajectories" / "turns" / "000000.parquet").write_bytes(b"PAR1")
    run = followed(tmp_path)
    assert listed(run) == ["two"] and "shard 0" in " ".join(run.unreadable())


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("finished", "finished"), ("killed", "stopped"), ("KeyboardInterrupt", "stopped"), ("RuntimeError: x", "ill")],
)
def test_the_state_of_a_run_is_that_of_its_latest_start(tmp_path: Path, outcome: str, state: str) -> None:
    sessions = [{"id": "0", "outcome": "killed"}, {"id": "1", "outcome": outcome}]
    (tmp_path / "run.json").write_text(json.dumps({"sessions": sessions}))
    assert followed(tmp_path).state()[0] == state


def test_a_run_is_running_as_long_as_its_process_holds_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"sessions": [{"id": "0", "outcome": "running"}]}))
    run = FollowedRun(tmp_path, "run")
    with held(tmp_path):
        assert run.state() == ("running", "")
    assert run.state()[0] == "stopped"


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("grpo.py recipes/text/maze_grpo.yaml run.steps=3", ("grpo", "text/maze_grpo")),
        ("rollwright train ppo text/maze_ppo run.seed=1", ("ppo", "text/maze_ppo")),
        ("sft.py /home/me/own.yaml", ("sft", "own")),
        ("grpo.py /usr/lib/site-packages/rollwright/recipes/text/maze_grpo.yaml", ("grpo", "text/maze_grpo")),
        ("grpo.py run.steps=3", ("grpo", "")),
        ("", ("", "")),
    ],
)
def test_recipe_and_yaml_are_read_off_the_command(command: str, found: tuple[str, str]) -> None:
    assert started_by(command) == found


def test_runs_are_found_below_folders_and_keep_their_ids(tmp_path: Path) -> None:
    builders.run_of(tmp_path / "a b", metrics=[{"reward/total_mean": 1.0}])
    builders.run_of(tmp_path / "a_b", metrics=[{"reward/total_mean": 1.0}])
    builders.run_of(tmp_path / "deep" / "grpo", metrics=[{"reward/total_mean": 1.0}])
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a_b")
    catalogue = RunCatalogue([tmp_path, tmp_path / "deep" / "grpo"])
    names = {run.folder.path.relative_to(tmp_path.resolve()).as_posix(): run.name for run in catalogue.runs()}
    assert names == {"a b": "a_b", "a_b": "a_b-2", "deep/grpo": "deep_grpo"}
    with pytest.raises(DataError, match="there is no folder"):
        RunCatalogue([tmp_path / "gone"])


def test_tasks_have_their_success_with_an_interval_and_how_it_changed(maze: FollowedRun) -> None:
    rows = {(row["task"], row["evaluated"]): row for row in task_answer(maze)["rows"]}
    trained, judged = rows["maze/1", False], rows["maze/1", True]
    assert trained["first"]["value"] < trained["last"]["value"] == 1.0
    assert judged["first"]["value"] == 0.5 and judged["last"]["value"] == 1.0
    assert trained["success"]["low"] < trained["success"]["value"] < trained["success"]["high"]


def test_a_broken_episode_is_in_no_rate(tmp_path: Path) -> None:
    broke = builders.episode("b", task="t", stop=StopReason.ENV_ERROR, fault="gone")
    builders.run_of(tmp_path, builders.episode("a", builders.turn(), task="t", success=True), broke)
    [row] = task_answer(followed(tmp_path))["rows"]
    assert (row["episodes"], row["faults"], row["success"]["value"]) == (2, 1, 1.0)


def test_stages_by_hand() -> None:
    rows = [
        {"time/step_s": 5.0, "time/collect_s": 3.0, "time/update_s": 1.5},
        {"time/step_s": 5.0, "time/collect_s": 3.0, "time/evaluate_s": 2.0, "time/env_step_s": 9.0},
    ]
    assert stage_seconds(rows) == {"collect": 6.0, "update": 1.5, "evaluate": 2.0, "other": 2.5}


def test_settings_that_differ_are_listed(tmp_path: Path) -> None:
    for name, text in (("a", "run: {seed: 0, steps: 3}\nx: [1]\n"), ("b", "run: {seed: 1, steps: 3}\ny: null\n")):
        RunFolder.create(tmp_path / name, config_yaml=text)
    found = settings_diff(FollowedRun(tmp_path / "a", "a"), FollowedRun(tmp_path / "b", "b"))
    assert found["rows"] == [
        {"key": "run.seed", "a": 0, "b": 1},
        {"key": "x", "a": [1], "b": None},
        {"key": "y", "a": None, "b": None},
    ]
    assert found["same"] == 1


def byte_level(vocabulary: dict[str, int]) -> str:
    whole: dict[str, Any] = json.loads(tokenizer_json())
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    return json.dumps(whole | {"added_tokens": [], "model": model, "decoder": {"type": "ByteLevel"} | _BYTE_LEVEL})


_BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def test_tokens_of_a_byte_level_tokenizer_are_shown_by_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(byte_level({"Ġthe": 0, "Ċ": 1, "Ã¤": 2, "Ã": 3, "a": 4}))
    strings = TokenStrings(path)
    assert [strings.text_of(token) for token in range(6)] == [" the", "\n", "ä", "<0xC3>", "a", None]
    assert strings.text_of(-1) is None and strings.text_of(2**70) is None


def test_a_file_that_is_no_tokenizer_is_said(tmp_path: Path) -> None:
    builders.run_of(tmp_path, builders.episode("e", builders.turn()))
    assert "no tokenizer.json was found" in (followed(tmp_path).episode("0.0") or {})["tokenizer_note"]
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "tokenizer.json").write_text('{"model": 3}')
    shown = followed(tmp_path).episode("0.0") or {}
    assert "cannot be read" in shown["tokenizer_note"] and shown["vocabulary"] is None


def test_settings_that_json_has_no_word_for_are_text(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, config_yaml="day: 2026-12-01\nsome: !!set {a}\nodd: 2026-13-45\n")
    assert followed(tmp_path).settings() == {}, "a day that cannot be: nothing is believed of the file"
    (tmp_path / "config.yaml").write_text("day: 2026-12-01\nlist: [2026-12-01, .nan]\n3: {}\n")
    answer = json.loads(json_answer(run_answer(followed(tmp_path))).content)
    assert answer["settings"] == {"day": "2026-12-01", "list": ["2026-12-01", None], "3": {}}
