"""The report and the transcripts: complete, readable, and safe against what pages and models write."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import (
    DataError,
    EngineFault,
    ReplayMismatch,
    RewardFault,
    RunFolderError,
    StageTimeout,
)
from rollwright.contracts.record import (
    Attachment,
    Branch,
    Group,
    Message,
    PlacedReward,
    SamplerMask,
    Score,
    Span,
    Start,
    StopReason,
    Task,
    Trajectory,
    Turn,
    WorldMark,
)
from rollwright.evaluation import EpisodeRow, Evaluation, save_evaluation
from rollwright.rollout import FaultLog
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.view import format_trajectory, report_page, write_report, write_transcripts
from rollwright.view.charts import MAX_POINTS, line_chart, thin
from rollwright.view.report_page import MAX_IMAGE_BYTES, Images
from tests import builders

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31mred"
VOID = ("meta", "img", "path", "circle", "polyline", "br")


class Page(HTMLParser):
    """Collects elements and text, and checks that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.seen}


def episode(name: str = "t0", *, foreign: str = "plain", **changes: Any) -> Trajectory:
    turn = builders.turn(
        reward={"env": 1.0, f"part{foreign}": -0.25},
        logprobs=-0.5,
        text=f"click {foreign}",
        observed=(Message(role="system", content=f"rules {foreign}"), Message(role="user", content=f"page {foreign}")),
        finish="length",
        terminated=True,
    )
    whole = builders.episode(name, turn, task="click", seed=5, success=True, policy="tiny", version=2)
    return replace(whole, **changes)


def evaluation(name: str, version: int, outcomes: str, task: str = "click") -> Evaluation:
    rows = [
        EpisodeRow(
            task=f"{task}{index % 2}",
            seed=episode_seed("test", index // 2),
            attempt=0,
            success=letter == "1",
            total_return=float(letter),
            num_turns=2,
            stop_reason=StopReason.TERMINATED,
        )
        for index, letter in enumerate(outcomes)
    ]
    return Evaluation(
        name=name, split="test", policy="tiny", version=version, temperature=0.0, rows=tuple(rows), sampling={}
    )


def run_folder(path: Path, foreign: str = "plain") -> Path:
    lost = episode("lost", foreign=foreign, success=None, stop_reason=StopReason.ENV_ERROR, fault=f"died {foreign}")
    run = builders.run_of(
        path,
        episode("won", foreign=foreign),
        lost,
        metrics=[{"reward/total_mean": i / 10, "policy/odd": math.nan} for i in range(5)],
        config=f"model: {foreign}\n",
    )
    with run.metrics.open("a") as file:
        file.write('{"step": 5, "rew')  # a kill tore the last line
    line = {"stop_reason": "env_error", "task": f"click{foreign}"}
    (path / "faults.jsonl").write_text((json.dumps(line) + "\n") * 3)
    save_evaluation(evaluation("start", 0, "00000000", task=f"click{foreign}"), path)
    save_evaluation(evaluation("final", 9, "11011011", task=f"click{foreign}"), path)
    return path


def test_the_report_shows_the_whole_run(tmp_path: Path):
    path = write_report(run_folder(tmp_path))
    page = Page(path.read_text(encoding="utf-8"))
    for expected in ("reward/total_mean: 0.4", "env_error", "model: plain", "page plain", "click plain", "died plain"):
        assert expected in page.text
    assert "final is better than start" in page.text or "cannot tell final from start" in page.text
    assert page.text.index("start:") < page.text.index("final:")  # the earlier weights first
    assert "reward env +1, partplain -0.25, terminated, action cut at its token limit" in page.text
    points = [attrs["points"] for tag, attrs in page.seen if tag == "polyline"]
    assert len(points) == 1 and points[0] is not None and len(points[0].split()) == 5


def test_the_report_counts_every_kind_of_fault_that_a_run_writes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = FaultLog(tmp_path / "faults.jsonl")
    for reason in StopReason:
        if reason.is_fault:
            log.record(episode("lost", stop_reason=reason, fault="gone"), attempt=0)
    errors = (RewardFault("away"), ReplayMismatch("another page"), EngineFault("lost"), StageTimeout("long"))
    for error in (*errors, DataError("torn"), RuntimeError("odd")):
        log.note(error, subject=f"subject of {type(error).__name__}", group="g", episodes=2)
    with (tmp_path / "faults.jsonl").open("a") as file:
        file.write('{"kind": "reward", "group": "an older line", "fault": "RewardFault: x"}\n{"torn')
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    for error in errors:
        assert f"{type(error).__name__}subject of {type(error).__name__}" in page.text
    for words in ("environmentenv_errorclick", "engineengine_errorclick", "oursabortedclick", "an older line"):
        assert words in page.text
    assert caplog.text.count("no fault record") == 1, "the torn line alone"


def test_foreign_text_stays_text(tmp_path: Path):
    path = write_report(run_folder(tmp_path, foreign=ATTACK))
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags() and "img" not in page.tags()
    assert not any(name.startswith("on") for _, attrs in page.seen for name in attrs)
    assert page.text.count("<script>alert(1)</script>") >= 5  # shown, as text
    assert "\x1b" not in page.text.replace("model: " + ATTACK, "")


def test_the_report_fetches_nothing(tmp_path: Path):
    html = write_report(run_folder(tmp_path)).read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|<link|<script|<iframe", html)
    assert "default-src 'none'" in html


def test_screenshots_are_embedded_from_the_run_folder_only(tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    png = b"\x89PNG\r\n\x1a\npicture"
    (run / "shot.png").write_bytes(png)
    (run / "page.png").write_bytes(b"<svg onload='alert(1)'/>")
    (run / "large.png").write_bytes(png + bytes(MAX_IMAGE_BYTES))
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    attachments = tuple(
        Attachment(sha256="", media_type=media, path=where)
        for media, where in (
            ("image/png", "shot.png"),
            ("image/png", "../secret.png"),
            ("image/png", str(tmp_path / "secret.png")),
            ("image/svg+xml", "shot.png"),
            ("image/jpeg", "shot.png"),
            ("image/png", "page.png"),
            ("image/png", "large.png"),
            ("image/png", "gone.png"),
            ("image/png", None),
        )
    )
    turn = Turn(prompt_ids=(), action_ids=(), action_logprobs=(), text="", attachments=attachments)
    TrajectoryStore(run / "trajectories").append([episode(turns=(turn,))])
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert [attrs["src"] for tag, attrs in page.seen if tag == "img"] == ["data:image/png;base64,iVBORw0KGgpwaWN0dXJl"]


def test_the_pictures_of_a_report_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(92)  # 100 bytes
    monkeypatch.setattr(report_page, "MAX_PAGE_BYTES", 250)
    (tmp_path / "shot.png").write_bytes(png)
    images = Images(tmp_path)
    shot = Attachment(sha256="", media_type="image/png", path="shot.png")
    assert [bool(images.uri(shot)) for _ in range(4)] == [True, True, False, False]


def test_an_empty_run_folder_still_has_a_report(tmp_path: Path):
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "No metrics yet." in page.text and "No trajectories yet." in page.text


def test_damaged_parts_become_notes(tmp_path: Path):
    run = run_folder(tmp_path)
    (run / "eval" / "broken.json").write_text("{")
    TrajectoryStore(run / "trajectories").append([episode("late")])
    (run / "trajectories" / "turns" / "000001.parquet").write_bytes(b"PAR1")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "broken.json cannot be read" in page.text and "shard 1" in page.text
    assert "click plain" in page.text


def test_replays_show_the_latest_success_and_failure_of_each_task(tmp_path: Path):
    store = TrajectoryStore(tmp_path / "trajectories")
    store.append([episode(f"early{i}") for i in range(3)])
    other = Task(id="drag", split="train")
    store.append([episode("late"), episode("missed", success=False), episode("other", task=other)])
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert re.findall(r"--- (\w+):", page.text) == ["late", "missed", "other"]
    page = Page(write_report(tmp_path, num_replays=1).read_text(encoding="utf-8"))
    assert re.findall(r"--- (\w+):", page.text) == ["other"]


def test_a_missing_run_folder_and_an_unwritable_one_are_named(tmp_path: Path):
    with pytest.raises(DataError, match="no run folder"):
        write_report(tmp_path / "nothing")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(RunFolderError, match=r"report\.html cannot be written"):
        write_report(tmp_path)


def test_a_transcript_by_hand():
    first = Turn(
        prompt_ids=(1,),
        action_ids=(2,),
        action_logprobs=(-1.0,),
        text="8",
        observed=(Message(role="user", content="Guess.\nFrom 1 to 16."),),
    )
    second = Turn(prompt_ids=(1,), action_ids=(), action_logprobs=(), text="", rewards={"env": 1.0}, terminated=True)
    score = Score(value=1.0, verifier="judge", message="well done")
    found = format_trajectory(episode(turns=(first, second), score=score))
    assert found.splitlines() == [
        "--- t0: task click, seed 5, by tiny version 2: terminated, success, return 1, 2 turns",
        "turn 0",
        "  user:",
        "    Guess.",
        "    From 1 to 16.",
        "  action:",
        "    8",
        "turn 1",
        "  action:",
        "    (empty)",
        "  -> reward env +1, terminated",
        "judge says: well done",
    ]


def test_a_transcript_says_what_is_unusual_about_an_episode():
    wrote = (Span(start=0, end=1, version=-1, producer="human"),)
    turn = Turn(
        prompt_ids=(1,),
        action_ids=(2,),
        action_logprobs=(-1.0,),
        text="8",
        kind="plan",
        attempt=1,
        spans=wrote,
        rewards={"env": 1.0},
        rewards_at=(PlacedReward(position=0, name="env", value=0.25),),
        costs={"har\x1bm": 0.5},
        policy_weights=(0.0,),
        kl_weights=(1.0,),
        sampler_mask=SamplerMask(mask_id="top"),
        attachments=(Attachment(sha256="ab", media_type="image/png", path="x/ab.png"),),
    )
    found = format_trajectory(
        episode(
            turns=(turn,),
            world=WorldMark(name="text.maze", version="3", fingerprint="f00"),
            start=Start(kind="guide_prefix", prefix_turns=2, prefix_tokens=5, source="g"),
            branch=Branch(parent="p", turn=1, token=4),
        )
    )
    assert found.splitlines()[1:] == [
        "world text.maze, version 3, built as f00",
        "began at a guide prefix, after 2 turns and 5 tokens of g",
        "branched off from p at turn 1, token 4",
        "turn 0 (plan, attempt 1)",
        "  picture: x/ab.png",
        "  action:",
        "    8",
        "  -> reward env +1, env +0.25 at token 0, cost har\\x1bm 0.5, written by human, sampled under mask top, "
        "tokens weighed in policy, KL",
    ]


def test_transcripts_hold_no_terminal_commands_and_any_text(tmp_path: Path):
    foreign = "\x1b]0;title\x07 \u202e \ud800 漢字 ß\ttab"
    task = Task(id="click", split="train")
    group = Group(id=f"g{foreign}", task=task, seed=5, trajectories=(episode(foreign=foreign), episode("t1")))
    path = write_transcripts([group, group], tmp_path / "deep" / "step_00000.txt")
    text = path.read_text(encoding="utf-8")
    assert "\x1b" not in text and "\u202e" not in text and "漢字 ß\ttab" in text
    assert text.count("=== group") == 2 and text.count("--- t1") == 2
    assert [p.name for p in path.parent.iterdir()] == ["step_00000.txt"]


def test_transcripts_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        write_transcripts([], tmp_path / "file" / "x.txt")


def test_charts_place_points_and_survive_odd_values():
    assert line_chart([]) == "" and line_chart([(0.0, float("nan"))]) == ""
    flat = line_chart([(0, 2.0), (10, 2.0)])
    ys = {pair.split(",")[1] for pair in re.findall(r'points="([^"]+)"', flat)[0].split()}
    assert len(ys) == 1
    rising = re.findall(r'points="([^"]+)"', line_chart([(0, 0.0), (10, 1.0)]))[0].split()
    (x0, y0), (x1, y1) = (tuple(map(float, pair.split(","))) for pair in rising)
    assert x0 < x1 and y0 > y1  # up is up: the y axis of SVG points down


def test_thinning_keeps_every_spike():
    points = [(float(i), 0.0) for i in range(10_000)]
    points[4321] = (4321.0, 9.0)
    points[777] = (777.0, -9.0)
    kept = thin(points)
    assert len(kept) <= MAX_POINTS + 2 and points[4321] in kept and points[777] in kept and kept[-1] == points[-1]
    assert kept == sorted(kept)
