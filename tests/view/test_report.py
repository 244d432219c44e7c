"""The report and the transcripts: complete, readable, and safe against what pages and models write."""

from __future__ import annotations

import hashlib
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
from rollwright.view.live.followed_run import FollowedRun
from rollwright.view.report_page import MAX_IMAGE_BYTES, MAX_STEPS, Images
from tests import builders

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[31mred"
VOID = ("meta", "img", "link", "br")


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


def frozen(page: Path) -> dict[str, Any]:
    """The answers that a report carries, by their address behind `api/run/ID`; those of no run by the whole one."""
    [content] = re.findall(
        r'<script type="application/json" id="frozen">(.*?)</script>', page.read_text(encoding="utf-8")
    )
    answers: dict[str, Any] = json.loads(content)["answers"]
    [run] = answers["api/runs"]["runs"]
    return {address.removeprefix(f"api/run/{run['id']}"): answer for address, answer in answers.items()}


def test_the_report_holds_the_whole_run(tmp_path: Path):
    answers = frozen(write_report(run_folder(tmp_path)))
    assert answers["/metrics"]["series"]["reward/total_mean"] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert answers[""]["config_text"] == "model: plain\n"
    assert [evaluation["name"] for evaluation in answers[""]["evaluations"]] == ["start", "final"]
    assert any("final" in line and "start" in line for line in answers[""]["progress"])
    assert answers["/faults"]["rows"] == [{"count": 3, "kind": "", "what": "env_error", "where": "clickplain"}]
    won = next(a for a in answers.values() if isinstance(a, dict) and a.get("row", {}).get("id") == "won")
    [turn] = won["turns"]
    assert [message["content"] for message in turn["observed"]] == ["rules plain", "page plain"]
    assert turn["text"] == "click plain" and turn["rewards"] == {"env": 1.0, "partplain": -0.25}
    assert turn["outcome"] == "reward env +1, partplain -0.25, terminated, action cut at its token limit"
    lost = next(row for row in answers["/episodes"]["rows"] if row["id"] == "lost")
    assert lost["fault"] == "died plain" and lost["is_fault"] and lost["channels"] == ["env", "partplain"]


def test_the_report_counts_every_kind_of_fault_that_a_run_writes(tmp_path: Path) -> None:
    log = FaultLog(tmp_path / "faults.jsonl")
    for reason in StopReason:
        if reason.is_fault:
            log.record(episode("lost", stop_reason=reason, fault="gone"), attempt=0)
    errors = (RewardFault("away"), ReplayMismatch("another page"), EngineFault("lost"), StageTimeout("long"))
    for error in (*errors, DataError("torn"), RuntimeError("odd")):
        log.note(error, subject=f"subject of {type(error).__name__}", group="g", episodes=2)
    with (tmp_path / "faults.jsonl").open("a") as file:
        file.write('{"kind": "reward", "group": "an older line", "fault": "RewardFault: x"}\n{"torn')
    found = frozen(write_report(tmp_path))["/faults"]
    rows = [(row["kind"], row["what"], row["where"]) for row in found["rows"]]
    for error in errors:
        assert any(row[1:] == (type(error).__name__, f"subject of {type(error).__name__}") for row in rows)
    for row in (
        ("environment", "env_error", "click"),
        ("engine", "engine_error", "click"),
        ("ours", "aborted", "click"),
    ):
        assert row in rows
    assert ("reward", "RewardFault", "an older line") in rows
    assert found["total"] == 3 + len(errors) + 3, "the torn line alone is left out"


def test_foreign_text_cannot_leave_the_data(tmp_path: Path):
    attack = f"</script>{ATTACK}<!--\u2028"
    path = write_report(run_folder(tmp_path, foreign=attack))
    text = path.read_text(encoding="utf-8")
    harmless = write_report(run_folder(tmp_path / "harmless")).read_text(encoding="utf-8")
    assert [tag for tag, _ in Page(text).seen] == [tag for tag, _ in Page(harmless).seen]
    assert not any(name.startswith("on") for _, attrs in Page(text).seen for name in attrs)
    assert "<script>alert" not in text and "\u2028" not in text and "\x1b" not in text
    won = next(a for a in frozen(path).values() if isinstance(a, dict) and a.get("row", {}).get("id") == "won")
    assert won["turns"][0]["text"] == f"click {attack}", "it is there as it was, as data"


def test_the_report_fetches_nothing(tmp_path: Path):
    text = write_report(run_folder(tmp_path)).read_text(encoding="utf-8")
    page = Page(text)
    assert not [attrs for _, attrs in page.seen if (attrs.get("src") or attrs.get("href") or "data:")[:5] != "data:"]
    assert not re.search(r"@import|url\(", "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL)))
    [policy] = [attrs["content"] for _, attrs in page.seen if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "'unsafe-inline'" not in policy.split("style-src")[0]


def test_pictures_are_embedded_from_the_store_alone(tmp_path: Path):
    png = b"\x89PNG\r\n\x1a\npicture"
    contents = {"good": png, "page": b"<svg onload='alert(1)'/>", "large": png + bytes(MAX_IMAGE_BYTES)}
    names = {what: hashlib.sha256(content).hexdigest() for what, content in contents.items()}
    folder = tmp_path / "trajectories" / "attachments"
    folder.mkdir(parents=True)
    for what, content in contents.items():
        (folder / f"{names[what]}.png").write_bytes(content)
    (tmp_path / "secret.png").write_bytes(png)
    (folder / f"{'a' * 64}.png").symlink_to(tmp_path / "secret.png")
    shown = [*names.values(), "a" * 64, "b" * 64, "../../secret"]
    attachments = tuple(Attachment(sha256=name, media_type="image/png", path=None) for name in shown)
    turn = Turn(prompt_ids=(), action_ids=(), action_logprobs=(), text="", attachments=attachments)
    TrajectoryStore(tmp_path / "trajectories").append([episode(turns=(turn,))])
    answers = frozen(write_report(tmp_path))
    pictures = {address: answer for address, answer in answers.items() if "attachment" in address}
    assert pictures == {f"/attachment/{names['good']}": "data:image/png;base64,iVBORw0KGgpwaWN0dXJl"}


def test_the_pictures_of_a_report_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_page, "MAX_PAGE_BYTES", 250)
    folder = tmp_path / "trajectories" / "attachments"
    folder.mkdir(parents=True)
    (folder / f"{'a' * 64}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(92))  # 100 bytes
    images = Images(FollowedRun(tmp_path, "run"))
    assert [bool(images.address("a" * 64)) for _ in range(4)] == [True, True, False, False]


def test_an_empty_run_folder_still_has_a_report(tmp_path: Path):
    answers = frozen(write_report(tmp_path))
    assert answers["/metrics"]["steps"] == [] and answers["/episodes"]["rows"] == []


def test_damaged_parts_become_notes(tmp_path: Path):
    run = run_folder(tmp_path)
    (run / "eval" / "broken.json").write_text("{")
    TrajectoryStore(run / "trajectories").append([episode("late")])
    (run / "trajectories" / "turns" / "000001.parquet").write_bytes(b"PAR1")
    answers = frozen(write_report(run))
    notes = " ".join(answers[""]["notes"])
    assert "broken.json cannot be read" in notes and "shard 1" in notes
    assert {row["id"] for row in answers["/episodes"]["rows"]} == {"won", "lost"}


def test_replays_show_the_latest_success_and_failure_of_each_task(tmp_path: Path):
    store = TrajectoryStore(tmp_path / "trajectories")
    store.append([episode(f"early{i}") for i in range(3)])
    other = Task(id="drag", split="train")
    store.append([episode("late"), episode("missed", success=False), episode("other", task=other)])

    def shown(count: int) -> list[str]:
        return [row["id"] for row in frozen(write_report(tmp_path, num_replays=count))["/episodes"]["rows"]]

    assert shown(24) == ["other", "missed", "late"]
    assert shown(1) == ["other"] and shown(0) == []


def test_a_long_run_is_thinned_and_keeps_its_last_step(tmp_path: Path) -> None:
    run = builders.run_of(tmp_path, metrics=[])
    lines = (f'{{"step": {step}, "reward/total_mean": {step / 3}}}\n' for step in range(2 * MAX_STEPS + 1))
    run.metrics.write_text("".join(lines))
    found = frozen(write_report(tmp_path))["/metrics"]
    assert len(found["steps"]) <= MAX_STEPS and found["steps"][-1] == 2 * MAX_STEPS
    assert found["series"]["reward/total_mean"][-1] == pytest.approx(2 * MAX_STEPS / 3, rel=1e-6)


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
