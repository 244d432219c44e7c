"""Run folders that somebody wants to do harm with, or that a crash left behind: each address answers, none hangs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rollwright.view import RunCatalogue
from rollwright.view.live import metric_columns
from rollwright.view.live.followed_run import FollowedRun
from rollwright.view.live.metric_columns import MetricColumns
from rollwright.view.live.page_routes import answer_to
from tests.viewed_runs import maze_run

ROW = '{"step": 0, "reward/total_mean": 1.0}\n'
LONG = "1" + "0" * 400
DOUBLED = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))
FILES: dict[str, str] = {
    "huge_number": f'{{"step": 0, "reward/total_mean": {LONG}}}\n',
    "huge_step": f'{{"step": {LONG}, "reward/total_mean": 1}}\n',
    "odd_rows": '\udcff\n{"step": 1, "a/b": NaN, "c/d": Infinity, "e/f": "x", "time/step_s": [1]}\nnull\n{"step": 2',
}
FACTS = {
    "odd_totals": {
        "sessions": [{"outcome": 5, "command": 7, "commit": "x", "hardware": 5, "packages": 3}],
        "totals": 5,
    },
    "odd_hardware": {"sessions": [{"hardware": {"gpus": 5}}], "totals": {"tokens": 10**400}},
    "odd_sessions": {"sessions": 5},
}
CONFIGS = {"doubled": DOUBLED, "in_itself": "a: &a {b: *a}\n", "bad_tag": "a: !!bool x\n", "nested": "[" * 3000}
PIPES = ("metrics.jsonl", "run.json", "config.yaml", "faults.jsonl", "eval/start.json")
WORDS = ("", "/metrics", "/tasks", "/faults", "/doctor", "/episodes", "/episode/0.0", "/group/x")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> RunCatalogue:
    root = tmp_path_factory.mktemp("hostile")

    def write(name: str, file: str, text: str) -> None:
        (root / name).mkdir()
        (root / name / "metrics.jsonl").write_text(ROW)
        (root / name / file).write_bytes(text.encode(errors="surrogateescape"))

    for name, text in FILES.items():
        write(name, "metrics.jsonl", text)
    for name, facts in FACTS.items():
        write(name, "run.json", json.dumps(facts))
    for name, text in CONFIGS.items():
        write(name, "config.yaml", text)
    for number, file in enumerate(PIPES):
        folder = root / f"pipe{number}"
        (folder / "eval").mkdir(parents=True)
        os.mkfifo(folder / file)
    (root / "device").mkdir()
    (root / "device" / "metrics.jsonl").symlink_to("/dev/zero")
    return RunCatalogue([root])


def test_each_address_of_each_hostile_run_answers(catalogue: RunCatalogue) -> None:
    runs = json.loads(answer_to(catalogue, "/api/runs").content)["runs"]
    assert len(runs) == len(FILES) + len(FACTS) + len(CONFIGS) + len(PIPES) + 1
    for run in runs:
        for word in WORDS:
            answer = answer_to(catalogue, f"/api/run/{run['id']}{word}")
            assert answer.status in (200, 404), (run["id"], word, answer.content)
            json.loads(answer.content, parse_constant=pytest.fail)


def test_a_line_longer_than_a_piece_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_columns, "PIECE_BYTES", 64)
    path = tmp_path / "metrics.jsonl"
    rows = [f'{{"step": {step}, "a/b": {step}}}\n' for step in range(10)]
    path.write_text("".join(rows[:5]) + "x" * 1000 + "\n" + "".join(rows[5:]) + '{"step": 10, "a/')
    columns = MetricColumns(path)
    columns.refresh()
    assert columns.column("a/b") == [*map(float, range(10))]
    with path.open("a") as file:
        file.write('b": 10}\n')
    columns.refresh()
    assert columns.steps[-1] == 10


@pytest.mark.parametrize("model", ["~nobody-of-this-name/x", "x" * 5000, "\0"])
def test_a_model_path_that_is_none_costs_the_strings_alone(tmp_path: Path, model: str) -> None:
    maze_run(tmp_path, config=json.dumps({"model": {"path": model}}))
    for file in tmp_path.rglob("tokenizer.json"):
        file.unlink()
    run = FollowedRun(tmp_path, "run")
    run.refresh()
    episode = run.episode("0.0")
    assert episode is not None and episode["vocabulary"] is None and "tokenizer.json" in episode["tokenizer_note"]


def test_an_address_with_too_many_words_is_refused(catalogue: RunCatalogue) -> None:
    assert answer_to(catalogue, "/api/runs?" + "a=1&" * 60).status == 400


def test_a_shard_that_goes_while_it_is_read_costs_the_new_episodes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maze_run(tmp_path)
    run = FollowedRun(tmp_path, "run")

    def gone(*_: object) -> None:
        raise FileNotFoundError(2, "it went")

    with monkeypatch.context() as patched:
        patched.setattr(run.index, "_tabulated", gone)
        run.refresh()
    assert run.index.table.num_rows == 0 and "it went" in run.unreadable()[0]
    run.refresh()
    assert run.index.table.num_rows > 0 and not run.unreadable()


def test_a_run_that_cannot_be_summarised_hides_no_other(
    catalogue: RunCatalogue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    odd, *others = catalogue.runs()
    monkeypatch.setattr(odd, "summary", lambda: 1 / 0)
    for _ in range(2):
        listed = json.loads(answer_to(catalogue, "/api/runs").content)["runs"]
        assert {run["id"] for run in listed} == {run.name for run in others}
    assert caplog.text.count("is left out: ZeroDivisionError") == 1


def test_pipes_in_place_of_episodes_and_token_logs_are_not_waited_for(tmp_path: Path) -> None:
    maze_run(tmp_path)
    shards = sorted((tmp_path / "trajectories" / "trajectories").glob("*.parquet"))
    for path in (shards[-1], *(tmp_path / "token_log").glob("*.parquet")):
        path.unlink()
        os.mkfifo(path)
    run = FollowedRun(tmp_path, "run")
    run.refresh()
    assert run.index.table.num_rows > 0 and run.unreadable()
    assert all(run.episode(row["key"]) is not None for row in run.rows_at([0, 1]))
