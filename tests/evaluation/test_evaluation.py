"""Evaluations: rows, figures with intervals, faults apart, pairing, verdicts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts.environment import episode_seed, split_of_seed
from rollwright.contracts.errors import ConfigError, DataError, RunFolderError
from rollwright.contracts.record import Span, StopReason, Task, Trajectory, Turn
from rollwright.evaluation import (
    EpisodeRow,
    Evaluation,
    compare,
    evaluate,
    evaluation_requests,
    format_comparison,
    format_side_by_side,
    format_table,
    held_out_seeds,
    load_evaluation,
    metrics,
    record_evaluation,
    save_evaluation,
    summarise,
)
from rollwright.generation.engine import Sampling
from rollwright.maths.statistics import wilson_interval
from rollwright.rollout.episode import EpisodeRequest
from tests import builders

TASKS = [Task(id=name, split="train") for name in ("alpha", "beta", "gamma")]


def played(request: EpisodeRequest, *, success: bool | None, **changes: Any) -> Trajectory:
    version = changes.pop("version", 3)
    turn = builders.turn(
        (1, 2),
        (3,),
        float(bool(success)),
        logprobs=-0.1,
        text="go",
        spans=(Span(start=0, end=1, version=version),),
    )
    whole = builders.episode(
        request.key,
        turn,
        task=request.task,
        seed=request.seed,
        success=success,
        policy="tiny",
        version=version,
        temperature=request.sampling.temperature,
    )
    return replace(whole, **changes)


def rows(outcomes: dict[str, list[list[bool | None]]], split: str = "test") -> Evaluation:
    """task -> start -> attempts; None is a fault."""
    found = [
        EpisodeRow(
            task=task,
            seed=episode_seed(split, index),  # type: ignore[arg-type]
            attempt=attempt,
            success=success,
            total_return=float(bool(success)),
            num_turns=1,
            stop_reason=StopReason.ENV_ERROR if success is None else StopReason.TERMINATED,
        )
        for task, starts in outcomes.items()
        for index, attempts in enumerate(starts)
        for attempt, success in enumerate(attempts)
    ]
    return Evaluation(
        name="hand",
        split=split,  # type: ignore[arg-type]
        policy="tiny",
        version=1,
        temperature=1.0,
        rows=tuple(found),
        sampling={},
    )


def once(text: str) -> list[list[bool | None]]:
    """'110x': one attempt per start; x faulted."""
    return [[{"1": True, "0": False, "x": None}[letter]] for letter in text]


def test_held_out_seeds_are_of_their_split_distinct_and_the_same_for_every_run():
    for split in ("validation", "test"):
        seeds = held_out_seeds(split, TASKS[0], 200)
        assert len(set(seeds)) == 200 and {split_of_seed(seed) for seed in seeds} == {split}
        assert seeds[:50] == held_out_seeds(split, TASKS[0], 50)
    assert held_out_seeds("test", TASKS[0], 5) != held_out_seeds("test", TASKS[1], 5)


def test_evaluate_plays_each_task_seed_and_attempt_once():
    asked: list[EpisodeRequest] = []

    def play(requests: Sequence[EpisodeRequest]) -> list[Trajectory]:
        asked.extend(requests)
        return [played(request, success=request.task.id == "alpha") for request in requests]

    sampling = Sampling(temperature=0.7, max_tokens=9)
    found, trajectories = evaluate(
        play, TASKS, name="final", sampling=sampling, split="test", seeds_per_task=4, attempts=2
    )
    assert len({(r.task.id, r.seed, r.sampling_seed) for r in asked}) == 3 * 4 * 2 == len(trajectories)
    assert [row.trajectory for row in found.rows] == [t.id for t in trajectories]
    assert [row.attempt for row in found.rows[:4]] == [0, 1, 0, 1]
    assert (found.version, found.policy, found.temperature, found.greedy) == (3, "tiny", 0.7, False)
    assert found.sampling["max_tokens"] == 9
    assert {task.task: task.success.point for task in summarise(found).tasks if task.success} == {
        "alpha": 1.0,
        "beta": 0.0,
        "gamma": 0.0,
    }


def test_sampled_tokens_of_an_episode_do_not_depend_on_what_else_is_played():
    def sampling_seeds(tasks: list[Task], count: int) -> dict[str, int | None]:
        requests = evaluation_requests(
            tasks, split="test", seeds_per_task=count, attempts=1, sampling=Sampling(temperature=1.0)
        )
        return {request.key: request.sampling_seed for request in requests}

    few, many = sampling_seeds(TASKS[1:2], 3), sampling_seeds(TASKS, 5)
    assert few.items() <= many.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "train"}, "judges what was trained on"),
        ({"attempts": 2, "sampling": Sampling(temperature=0.0)}, "one attempt copied"),
    ],
)
def test_evaluations_that_mean_nothing_are_refused(arguments: dict[str, Any], message: str):
    defaults: dict[str, Any] = {"split": "test", "seeds_per_task": 2, "attempts": 1, "sampling": Sampling()}
    with pytest.raises(ConfigError, match=message):
        evaluation_requests(TASKS, **(defaults | arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: {"version": i}, "mixes weight versions 0, 1"),
        (lambda i: {"policy": f"p{i}"}, "mixes policies 'p0', 'p1'"),
        (lambda i: {"temperature": float(i)}, "mixes temperatures"),
        (lambda i: {"seed": episode_seed("validation", i)}, "belongs to split 'validation'"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: Callable[[int], dict[str, Any]], message: str):
    requests = evaluation_requests(TASKS[:1], split="test", seeds_per_task=2, attempts=1, sampling=Sampling())
    with pytest.raises(DataError, match=message):
        record_evaluation(
            [played(r, success=True, **change(i)) for i, r in enumerate(requests)], name="x", split="test"
        )


def test_a_sync_in_mid_episode_is_found_in_the_spans():
    request = evaluation_requests(TASKS[:1], split="test", seeds_per_task=1, attempts=1, sampling=Sampling())[0]
    turn = Turn(
        prompt_ids=(),
        action_ids=(1, 2),
        action_logprobs=(-1.0, -1.0),
        text="",
        spans=(Span(start=0, end=1, version=3), Span(start=1, end=2, version=4)),
    )
    with pytest.raises(DataError, match="weight versions 3, 4"):
        record_evaluation([played(request, success=True, turns=(turn,))], name="x", split="test")


def test_a_fault_does_not_count_as_a_failure_and_is_shown():
    found = rows({"alpha": once("11x0"), "beta": once("1100")})
    summary = summarise(found)
    assert summary.tasks[0].success is not None and summary.tasks[0].success.point == pytest.approx(2 / 3)
    assert summary.success is not None and summary.success.point == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert (summary.num_faults, summary.fault_frac) == (1, 1 / 8)
    table = format_table(found)
    assert "faults: 1 of 8 episodes (12.5%): 1 env_error; they are in no rate" in table
    assert metrics(found)["eval/fault_frac"] == 1 / 8


def test_a_fault_with_another_version_is_no_mixture():
    requests = evaluation_requests(TASKS[:1], split="test", seeds_per_task=2, attempts=1, sampling=Sampling())
    lost = played(requests[1], success=None, turns=(), version=-1, stop_reason=StopReason.ENGINE_ERROR, policy="tiny")
    found = record_evaluation([played(requests[0], success=True), lost], name="x", split="test")
    assert (found.version, found.rows[1].success, found.faults[StopReason.ENGINE_ERROR]) == (3, None, 1)


def test_figures_by_hand():
    found = rows({"alpha": [[True, False], [True, True]], "beta": [[False, False], [False, True]]})
    summary = summarise(found)
    # alpha: starts 0.5 and 1 -> 0.75; beta: 0 and 0.5 -> 0.25
    assert summary.success is not None and summary.success.point == 0.5
    # pass@2: alpha 1 and 1; beta 0 and 1 -> (1 + 0.5) / 2
    assert {k: v.point for k, v in summary.pass_at.items()} == {1: 0.5, 2: 0.75}
    assert summary.mean_return is not None and summary.mean_return.point == 0.5
    assert metrics(found)["eval/pass_at_2"] == 0.75


def test_one_attempt_gives_wilsons_interval():
    success = summarise(rows({"alpha": once("1" * 70 + "0" * 95)})).tasks[0].success
    assert success is not None
    # 70 of 165 = 42.4 % -> [35.1 %, 50.1 %]
    assert [round(v, 3) for v in (success.point, success.low, success.high)] == [0.424, 0.351, 0.501]


def test_attempts_at_one_start_are_not_taken_for_independent_trials():
    spread = summarise(rows({"alpha": once("1" * 20 + "0" * 20)})).tasks[0].success
    copied = summarise(rows({"alpha": [[True] * 10] * 2 + [[False] * 10] * 2})).tasks[0].success
    assert spread is not None and copied is not None and spread.point == copied.point == 0.5
    assert copied.high - copied.low > 2 * (spread.high - spread.low)


@pytest.mark.parametrize("letter", ["0", "1"])
def test_an_interval_is_never_zero_wide(letter: str):
    for tasks in (["a"], ["a", "b", "c"]):
        for outcomes in (once(letter * 5), [[letter == "1"] * 2] * 5):
            summary = summarise(rows(dict.fromkeys(tasks, outcomes)))
            for interval in (summary.success, *(task.success for task in summary.tasks)):
                assert interval is not None and interval.high - interval.low > 0.2


def test_tasks_without_a_verdict_have_returns_only():
    requests = evaluation_requests(TASKS[:2], split="test", seeds_per_task=3, attempts=1, sampling=Sampling())
    found = record_evaluation([played(r, success=None) for r in requests], name="x", split="test")
    summary = summarise(found)
    assert summary.success is None and summary.mean_return is not None and summary.num_undecided == 6
    assert "eval/success_frac" not in metrics(found)
    assert compare(found, found).success is None
    assert "alpha" in format_table(found)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path):
    found = rows({"alpha": once("110x"), "beta": once("0101")})
    path = save_evaluation(found, tmp_path)
    assert path == tmp_path / "eval" / "hand.json"
    assert load_evaluation(path) == found
    document = json.loads(path.read_text())
    assert len(document["episodes"]) == 8
    assert document["summary"]["success"]["point"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert [p.name for p in path.parent.iterdir()] == ["hand.json"]


def test_a_changed_digit_of_an_evaluation_is_noticed_and_an_older_one_is_read(tmp_path: Path):
    found = rows({"alpha": once("110x"), "beta": once("0101")})
    path = save_evaluation(found, tmp_path)
    text = path.read_text()
    for place in [place for place, letter in enumerate(text) if letter.isdigit()]:
        other = text[:place] + ("7" if text[place] != "7" else "8") + text[place + 1 :]
        path.write_text(other)
        if json.loads(other) == json.loads(text):
            continue  # the last digit of a float may be rounded off
        with pytest.raises(DataError):
            load_evaluation(path)
    plain = {key: value for key, value in json.loads(text).items() if key not in ("seal", "sealed")}
    path.write_text(json.dumps(plain))
    assert load_evaluation(path) == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as an evaluation"),
        ("[]", "is not an evaluation: expected a file"),
        ('{"evaluation_version": 99}', "version 99; this release reads version 1"),
        ('{"evaluation_version": 1, "columns": [], "episodes": []}', "lacks a field"),
    ],
)
def test_a_file_that_is_no_evaluation(tmp_path: Path, content: str, message: str):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_evaluation(tmp_path / "x.json")
    with pytest.raises(DataError, match="there is no evaluation"):
        load_evaluation(tmp_path / "missing.json")


def test_an_unwritable_folder_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        save_evaluation(rows({"alpha": once("1")}), tmp_path / "file")


def test_paired_difference_by_hand():
    a = rows({"alpha": once("0000"), "beta": once("1100")})
    b = rows({"alpha": once("1110"), "beta": once("1110")})
    found = compare(a, b, name_a="sft", name_b="rl")
    # alpha 0 -> 0.75, beta 0.5 -> 0.75: mean difference (0.75 + 0.25) / 2
    assert found.success is not None and found.success.interval.point == 0.5
    assert found.per_task == {"alpha": (0.0, 0.75), "beta": (0.5, 0.75)}
    assert (found.num_pairs, found.num_only_a, found.num_only_b, found.num_lost_to_faults) == (8, 0, 0, 0)
    assert found.warnings == ()


def test_the_same_difference_on_every_task_is_known_as_well_as_so_many_tasks_can_tell():
    tasks = [f"t{i}" for i in range(8)]
    a, b = rows(dict.fromkeys(tasks, once("0000"))), rows(dict.fromkeys(tasks, once("1111")))
    found = compare(a, b, name_a="sft", name_b="rl", target="like-these")
    assert found.success is not None
    low = 1 - 2 * (1 - wilson_interval(8, 8).low)  # a difference lies in [-1, 1]
    assert (found.success.interval.low, found.success.interval.high) == pytest.approx((low, 1.0))
    assert found.verdict() == "rl is better than sft: +1.00 [0.35, 1.00] on tasks like these 8 (95% CI)"
    these = compare(a, b, name_a="sft", name_b="rl")
    low = 1 - 2 * (1 - wilson_interval(32, 32).low)  # 32 starts
    assert these.success is not None and these.success.interval.low == pytest.approx(low)
    assert these.verdict() == "rl is better than sft: +1.00 [0.79, 1.00] on these 8 tasks (95% CI)"
    assert compare(b, a, name_a="sft", name_b="rl").verdict().startswith("sft is better than rl")


def test_noise_is_not_taken_for_a_difference():
    draw = random.Random(0)
    tasks = [f"t{i}" for i in range(10)]

    def coin() -> Evaluation:
        return rows({task: once("".join(draw.choice("01") for _ in range(20))) for task in tasks})

    said = compare(coin(), coin()).verdict()
    assert said.startswith("no significant difference between A and B on these 10 tasks")
    assert "more start states per task would settle it" in said


def test_pairing_leaves_out_what_only_one_has_and_says_so():
    a = rows({"alpha": once("01x1"), "beta": once("0011"), "old": once("1")})
    b = rows({"beta": once("11110"), "alpha": once("0111"), "new": once("0")})
    found = compare(a, b)
    # alpha pairs: starts 0, 1, 3 (2 faulted in A); beta: starts 0-3, start 4 is only in B
    assert (found.num_pairs, found.num_only_a, found.num_only_b, found.num_lost_to_faults) == (7, 1, 2, 1)
    assert found.per_task == {"alpha": (2 / 3, 2 / 3), "beta": (0.5, 1.0)}
    assert [w for w in found.warnings if "only A has one task (old), left out" in w]
    text = format_comparison(found)
    assert "paired episodes: 7; only in A: 1, only in B: 2; lost to faults: 1" in text


def test_questions_asked_several_times_are_still_a_sample_of_questions():
    asked = rows({f"q{n}": [[n % 2 == 0, n % 3 == 0]] for n in range(8)})  # one start each, two attempts
    better = rows({f"q{n}": [[n % 2 == 0, True]] for n in range(8)})
    found = compare(asked, better)
    assert found.target == "like-these" and found.warnings == () and found.screen[1].p_value is not None
    assert compare(asked, better, target="these").target == "these"


def test_a_thousand_questions_do_not_bury_the_verdict():
    first = rows({f"q{n}": once("1" if n % 3 else "0") for n in range(200)})
    second = rows({f"q{n}": once("0" if n in (150, 151) else "1" if n % 3 else "0") for n in range(200)})
    lines = format_comparison(compare(first, second)).splitlines()
    assert 60 < len(lines) < 75 and any(line.startswith("q151 ") for line in lines)
    assert "60 of 200 tasks are listed, those with the largest differences; --csv FILE writes all" in lines
    assert lines[-1].startswith("no significant difference between A and B on tasks like these 200")
    assert len(format_table(first).splitlines()) < 75


def test_one_task_speaks_about_itself():
    found = compare(rows({"alpha": once("0" * 20)}), rows({"alpha": once("1" * 10 + "0" * 10)}))
    assert found.success is not None and found.success.target == "these"
    assert any("this task alone" in warning for warning in found.warnings)
    with pytest.raises(DataError, match="cannot be compared"):
        compare(rows({"alpha": once("1")}), rows({"alpha": once("0")}))


@pytest.mark.parametrize(
    ("b", "message"),
    [
        (rows({"alpha": once("11")}, split="validation"), "one is of split 'test', the other of 'validation'"),
        (rows({"other": once("11")}), r"tasks differ \(alpha against other\)"),
        (rows({"alpha": once("xx")}), "lost to faults"),
    ],
)
def test_what_cannot_be_paired_says_why(b: Evaluation, message: str):
    with pytest.raises(DataError, match=message):
        compare(rows({"alpha": once("11")}), b)


def test_side_by_side_has_a_column_per_evaluation():
    table = format_side_by_side({"before": rows({"alpha": once("0011")}), "after": rows({"beta": once("11x1")})})
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["success", "before", "after"]
    assert lines[1][:2] == ["alpha", "0.500"] and lines[1][-1] == "-"
    assert "1 of 4" in table


def test_starts_whose_prompt_leaves_no_room_are_counted_apart_and_in_no_rate() -> None:
    """The policy never acted there: neither a failure of its nor a fault."""
    requests = evaluation_requests(
        TASKS[:2], split="test", seeds_per_task=4, attempts=1, sampling=Sampling(temperature=0)
    )
    lost = {"turns": (), "stop_reason": StopReason.MAX_TOKENS, "version": 3}
    found = record_evaluation(
        [played(r, success=True) if i % 2 else played(r, success=False, **lost) for i, r in enumerate(requests)],
        name="x",
        split="test",
    )
    summary, named = summarise(found), metrics(found)
    assert summary.success is not None and summary.success.point == 1.0
    assert (summary.num_without_room, summary.num_faults, summary.num_undecided) == (4, 0, 0)
    assert [(t.num_episodes, t.num_faults, t.mean_return, t.mean_turns) for t in summary.tasks] == [
        (4, 0, 1.0, 1.0)
    ] * 2
    assert (named["eval/no_room_frac"], named["eval/fault_frac"], named["eval/return_mean"]) == (0.5, 0.0, 1.0)
    assert "no room to act: in 4 of 8 episodes" in format_table(found)
    # An episode that acted and was then cut by the context is a failure as before.
    cut = record_evaluation(
        [played(r, success=False, stop_reason=StopReason.MAX_TOKENS) for r in requests], name="y", split="test"
    )
    assert "eval/no_room_frac" not in metrics(cut) and metrics(cut)["eval/success_frac"] == 0.0
    assert compare(found, cut, name_a="x", name_b="y").num_pairs == 4
