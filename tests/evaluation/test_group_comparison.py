"""Groups of training seeds: matrices over shared starts, families of comparisons, tables, JSON, CSV and the plot."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from rollwright.contracts import DataError, StopReason, episode_seed
from rollwright.evaluation import (
    EpisodeRow,
    Evaluation,
    GroupComparison,
    compare,
    compare_groups,
    comparison_csv,
    comparison_json,
    format_groups,
    group_plot,
)
from rollwright.maths.statistics import holm, interquartile_mean

TASKS = [f"t{n}" for n in range(6)]


def run(rate: float, seed: int, *, world: str = "text.maze", num_starts: int = 20) -> Evaluation:
    draws = np.random.default_rng(seed)
    rows = tuple(
        EpisodeRow(
            task=task,
            seed=episode_seed("test", task, index),
            attempt=0,
            success=bool(draws.random() < rate),
            total_return=0.0,
            num_turns=2,
            stop_reason=StopReason.TERMINATED,
            num_tokens=30,
        )
        for task in TASKS
        for index in range(num_starts)
    )
    return Evaluation(
        name="final", split="test", policy="tiny", version=1, temperature=1.0, rows=rows, sampling={},
        world=world, world_version="1", world_fingerprint="0123456789abcdef",
    )  # fmt: skip


def group(rate: float, first_seed: int, count: int = 4) -> dict[str, Evaluation]:
    return {f"seed{n}": run(rate, first_seed + n) for n in range(count)}


@pytest.fixture(scope="module")
def found() -> GroupComparison:
    groups = {"base": group(0.4, 0), "better": group(0.6, 10), "same": group(0.4, 20)}
    return compare_groups(groups, repetitions=300)


def test_a_planted_gain_is_claimed_and_a_null_is_not(found: GroupComparison) -> None:
    better, same = found.contrasts
    assert better.claimed and not same.claimed
    assert better.verdict().startswith("better is better than base: +0.2")
    assert "on these 6 tasks (97.5% CI over 4 runs against 4)" in better.verdict()
    assert same.verdict().startswith("no significant difference between base and same on these 6 tasks")
    assert [one.adjusted_p for one in found.contrasts] == holm([one.difference.p_value for one in found.contrasts])
    assert "m = 2, 2 comparisons of the mean success: better against base, same against base. Holm" in format_groups(
        found
    )


def test_matrices_and_aggregates_are_those_of_the_runs(found: GroupComparison) -> None:
    base = found.groups[0]
    assert base.scores.shape == (4, 6) and found.num_starts == 120
    by_hand = np.mean([row.success or False for row in run(0.4, 1).rows[:20]])
    assert base.scores[1, 0] == pytest.approx(by_hand)
    assert base.aggregates["IQM"].point == interquartile_mean(base.scores)
    assert all(i.low < i.point < i.high for i in base.aggregates.values())
    assert found.contrasts[0].improvement.low > 0.5
    assert base.cost is not None and base.cost.steps == pytest.approx(2 * 480 / base.cost.num_successes)


def test_all_pairs_are_one_larger_family_and_screening_is_said() -> None:
    groups = {"a": group(0.3, 0, 3), "b": group(0.5, 10, 3), "c": group(0.7, 20, 3)}
    found = compare_groups(groups, all_pairs=True, procedure="benjamini-hochberg", repetitions=100)
    named = [(one.difference.name_a, one.difference.name_b) for one in found.contrasts]
    assert named == [("a", "b"), ("a", "c"), ("b", "c")]
    assert {one.difference.interval.confidence for one in found.contrasts} == {0.95}
    assert "Benjamini-Hochberg: the share of wrong claims is held, for screening" in format_groups(found)


def test_only_starts_that_every_run_finished_count() -> None:
    lame = run(0.4, 1)
    broken = replace(lame.rows[0], stop_reason=StopReason.ENV_ERROR, success=None)
    groups = {"a": {"x": run(0.4, 0), "y": replace(lame, rows=(broken, *lame.rows[1:]))}, "b": group(0.6, 5, 2)}
    found = compare_groups(groups, repetitions=100)
    assert found.num_starts == 119
    assert any("1 of 120 episodes are left out" in said for said in found.warnings)
    assert any("a has 2 runs: three or more" in said for said in found.warnings)


def test_a_group_of_one_run_speaks_about_that_run() -> None:
    found = compare_groups({"sft": {"only": run(0.4, 0)}, "rl": group(0.7, 10, 3)}, repetitions=100)
    assert any("sft is a single run: the verdict speaks about this run" in said for said in found.warnings)
    mean, iqm = (found.groups[0].aggregates[what] for what in ("mean", "IQM"))
    assert math.isfinite(mean.high - mean.low) and math.isinf(iqm.high)
    assert "over 3 runs against 1)" in found.contrasts[0].verdict()
    alone = compare_groups({"a": {"x": run(0.4, 0)}, "b": {"y": run(0.7, 1)}}, repetitions=100)
    two = compare(run(0.4, 0), run(0.7, 1)).success
    assert two is not None and alone.contrasts[0].difference.interval == two.interval


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": group(0.5, 0, 2)}, "two groups or more"),
        ({"a": group(0.5, 0, 2), "b": {}}, "two groups or more"),
        ({"a": {"x": run(0.5, 0)}, "b": {"y": run(0.5, 1, world="text.lock")}}, "these are different worlds"),
    ],
)
def test_groups_that_cannot_be_compared(groups: dict[str, dict[str, Evaluation]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare_groups(groups)


def test_json_and_csv_hold_everything(found: GroupComparison) -> None:
    document = json.loads(comparison_json(found))
    assert document["comparisons"][0]["claimed"] is True and document["num_comparisons"] == 2
    assert document["groups"][1]["scores"] == found.groups[1].scores.tolist()
    assert document["target"] == "these" and "text.maze version 1" in document["world"]
    two = json.loads(comparison_json(compare(run(0.4, 0), run(0.7, 1))))
    assert two["success"]["decided"] is True and two["verdict"].endswith("on these 6 tasks (95% CI)")
    lines = list(csv.DictReader(io.StringIO(comparison_csv(found))))
    assert len(lines) == 3 * 4 * 6
    assert float(lines[6 + 2]["score"]) == found.groups[0].scores[1, 2] and lines[8]["run"] == "seed1"


def test_names_of_others_are_no_formulas_and_no_markup() -> None:
    groups = {"=cmd()": group(0.4, 0, 2), "<script>alert(1)</script>&\x07": group(0.6, 9, 2)}
    found = compare_groups(groups, repetitions=100)
    cells = [row[0] for row in csv.reader(io.StringIO(comparison_csv(found)))]
    assert "'=cmd()" in cells and "=cmd()" not in cells
    picture = group_plot(found)
    tree = ElementTree.fromstring(picture)
    assert "<script" not in picture and not [node for node in tree.iter() if node.tag.endswith("script")]
    assert "href" not in picture and "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_the_plot_shows_every_group_with_its_interval(found: GroupComparison) -> None:
    tree = ElementTree.fromstring(group_plot(found))
    space = "{http://www.w3.org/2000/svg}"
    texts = [node.text for node in tree.iter(f"{space}text")]
    assert {"base", "better", "same", "IQM", "optimality gap", "P(better)", "better > base"} <= set(texts)
    bars = [node for node in tree.iter(f"{space}rect") if node.get("fill-opacity") == "0.45"]
    assert len(bars) == 3 * 4 + 2  # groups by aggregates, and two probabilities
    assert len(list(tree.iter(f"{space}polyline"))) == len(list(tree.iter(f"{space}polygon"))) == 3
