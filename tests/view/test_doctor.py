"""Each rule of the doctor fires on a run that was made ill on purpose, and none on a healthy one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollwright.cli import main
from rollwright.contracts import DataError
from rollwright.recipes import grpo
from rollwright.view import RULES, Finding, diagnose, examine, format_diagnosis
from tests.builders import run_of

STEPS = 12
SETTINGS: dict[str, Any] = {
    "run": {"steps": STEPS},
    "engine": {"max_context": 1024, "dtype": "float32"},
    "rollout": {"max_turns": 40, "max_action_tokens": 8, "group_size": 8, "parallel_episodes": 64, "max_staleness": 0},
    "learner": {"learning_rate": 1e-4, "epochs": 2, "minibatches": 1},
    "evaluation": {"seeds_per_task": 8},
}
Row = dict[str, Any]
Change = Callable[[int, Row], Mapping[str, Any]]


def healthy(step: int) -> Row:
    """A step of a run that learns: success from 0.3 to 0.85."""
    success = 0.3 + 0.05 * step
    row: Row = {
        "rollout/success_frac": success,
        "rollout/max_turns_frac": 0.3 - 0.02 * step,
        "rollout/max_tokens_frac": 0.0,
        "rollout/env_error_frac": 0.0,
        "rollout/engine_error_frac": 0.0,
        "rollout/aborted_frac": 0.0,
        "rollout/episodes_count": 64.0,
        "rollout/groups_informative_frac": 0.6,
        "rollout/num_turns_mean": 20.0 - step,
        "rollout/action_tokens_mean": 3.0,
        "rollout/prompt_tokens_mean": 200.0,
        "rollout/action_cut_frac": 0.01,
        "rollout/nll_mean": 0.5 - 0.02 * step,
        "reward/total_mean": success,
        "reward/format_mean": 0.1,
        "optim/grad_norm": 1.0 + 0.1 * (step % 3),
        "optim/loss": 0.1,
        "optim/learning_rate": 1e-4,
        "optim/taught_count": 1.0,
        "policy/kl_old_mean": 1e-3,
        "policy/kl_ref_mean": 0.01 * step,
        "policy/ratio_clipped_frac": 0.05,
        "policy/sampler_gap_mean": 1e-6,
        "policy/weight_mean": 1.0,
        "policy/weight_capped_frac": 0.0,
        "curriculum/learnability_mean": 0.2,
        "time/step_s": 2.0,
        "ledger/generator_decode_s": 1.0,
        "ledger/generator_environment_s": 0.3,
        "ledger/generator_queue_s": 0.7,
    }
    if step % 4 == 0:
        row |= {
            "eval/success_frac": success - 0.02,
            "eval/success_low": success - 0.1,
            "eval/success_high": success + 0.06,
        }
        row |= {"eval/episodes_count": 200.0, "eval/fault_frac": 0.0}
    return row


def run_folder(
    folder: Path,
    change: Callable[[int, Row], Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A healthy run in which `change(step, row)` gives what is different."""
    rows = [healthy(step) for step in range(STEPS)]
    rows = [row | dict(change(step, row)) if change else row for step, row in enumerate(rows)]
    merged = {part: {**SETTINGS[part], **(settings or {}).get(part, {})} for part in SETTINGS}
    run = run_of(folder, metrics=rows, config=yaml.safe_dump(merged))
    session = {"id": "1", "outcome": "finished"}
    (folder / "run.json").write_text(json.dumps({"version": 1, "sessions": [session]}))
    return run.path


LATE = STEPS // 2
ILL: dict[str, tuple[Callable[[int, Row], Mapping[str, Any]], dict[str, Any]]] = {
    "no-informative-groups": (
        lambda step, row: {"rollout/groups_informative_frac": 0.02, "rollout/success_frac": 0.0},
        {},
    ),
    "steps-taught-nothing": (lambda step, row: {"optim/taught_count": float(step % 2)}, {}),
    "success-collapsed": (lambda step, row: {"rollout/success_frac": 0.6 if step < LATE else 0.1}, {}),
    "reward-hacking": (
        lambda step, row: {"reward/total_mean": 1.0 + step, "rollout/success_frac": 0.6 - 0.03 * step},
        {},
    ),
    "collapsed-entropy": (lambda step, row: {"policy/entropy_mean": 0.5 if step < 4 else 1e-3}, {}),
    "kl-runaway": (lambda step, row: {"policy/kl_ref_mean": 0.5 * step}, {}),
    "learning-rate-too-high": (lambda step, row: {"optim/grad_norm": 100.0 if step in (3, 7) else 1.0}, {}),
    "learning-rate-too-low": (lambda step, row: {"policy/kl_old_mean": 0.0}, {}),
    "engine-mismatch": (lambda step, row: {"policy/sampler_gap_mean": 0.05}, {}),
    "stale-data": (lambda step, row: {"rollout/stale_frac": 0.3}, {"rollout": {"max_staleness": 2}}),
    "truncated-actions": (lambda step, row: {"rollout/action_cut_frac": 0.4}, {}),
    "context-overflow": (lambda step, row: {"rollout/prompt_tokens_mean": 1000.0}, {}),
    "many-faults": (lambda step, row: {"rollout/env_error_frac": 0.08}, {}),
    "never-stops": (lambda step, row: {"rollout/max_turns_frac": 0.9, "rollout/success_frac": 0.1}, {}),
    "format-failures": (lambda step, row: {"reward/format_mean": -0.2}, {}),
    "dead-curriculum": (lambda step, row: {"curriculum/learnability_mean": 0.05}, {}),
    "overfit-to-training": (
        lambda step, row: {"rollout/success_frac": 0.9, "eval/success_frac": 0.4, "eval/success_high": 0.5},
        {},
    ),
    "held-out-fell": (lambda step, row: {"eval/success_frac": 0.3} if step == STEPS - 4 else {}, {}),
    "evaluation-too-small": (lambda step, row: {"eval/success_low": 0.2, "eval/success_high": 0.9}, {}),
    "environment-bound": (lambda step, row: {"ledger/generator_environment_s": 9.0}, {}),
    "engine-bound": (lambda step, row: {"ledger/generator_decode_s": 99.0, "time/step_s": 100.0}, {}),
}
BY_HAND = {"ended-badly", "nothing-measured"}
"""Not about metrics: they have tests of their own."""


def test_every_rule_has_a_run_that_is_ill_of_it() -> None:
    assert set(ILL) | BY_HAND == {rule.name for rule in RULES}


@pytest.mark.parametrize("name", ILL)
def test_a_rule_finds_its_illness(tmp_path: Path, name: str) -> None:
    change, settings = ILL[name]
    found = {finding.rule: finding for finding in diagnose(run_folder(tmp_path, change, settings))}
    assert name in found
    assert found[name].evidence and found[name].remedies
    assert all("nan" not in line for line in found[name].evidence)


def test_a_healthy_run_has_no_finding(tmp_path: Path) -> None:
    diagnosis = examine(run_folder(tmp_path))
    assert diagnosis.findings == ()
    assert set(diagnosis.not_judged) == {"stale-data"}
    assert "nothing found" in format_diagnosis(diagnosis, "run")


def test_a_gradient_that_is_not_finite_is_named_with_its_step(tmp_path: Path) -> None:
    run = run_folder(tmp_path, lambda step, row: {"optim/grad_norm": float("nan")} if step == 5 else {})
    (finding,) = diagnose(run)
    assert (finding.rule, finding.severity, finding.certainty) == ("learning-rate-too-high", "serious", "certain")
    assert "steps 5" in finding.evidence[0]


@pytest.mark.parametrize("outcome", ["killed", "running", "EngineFault: the server died"])
def test_a_run_that_died_and_has_no_steps_is_said(tmp_path: Path, outcome: str) -> None:
    """Also one that still says "running", where no process holds the folder any more."""
    run = run_of(tmp_path)
    (run.path / "run.json").write_text(json.dumps({"sessions": [{"outcome": outcome}]}))
    assert [finding.rule for finding in diagnose(run.path)] == ["ended-badly", "nothing-measured"]


def test_the_worst_comes_first_and_rules_that_lack_something_say_what(tmp_path: Path) -> None:
    def change(step: int, row: Row) -> Row:
        return {
            "eval/success_low": 0.1,
            "eval/success_high": 0.9,
            "rollout/action_cut_frac": 0.2,
            "policy/sampler_gap_mean": 0.1,
        }

    diagnosis = examine(run_folder(tmp_path, change))
    order = [finding.severity for finding in diagnosis.findings]
    assert order == ["serious", "harmful", "minor"]
    text = format_diagnosis(diagnosis, "run", all_rules=True)
    titles = ("Engine and learner disagree", "Truncated actions", "Evaluation too small")
    assert sorted(titles, key=text.index) == list(titles)
    assert "stale-data: the engine does not run ahead" in text


def test_a_consequence_stands_behind_its_cause(tmp_path: Path) -> None:
    """An explosion in step 3 after which every action is cut and no group differs any more."""

    def change(step: int, row: Row) -> Row:
        if step < 3:
            return {"optim/grad_norm": None} if step == 2 else {}
        nothing = {"rollout/success_frac": 0.0, "reward/total_mean": 0.0, "rollout/groups_informative_frac": 0.0}
        return nothing | {"rollout/action_cut_frac": 1.0}

    changed = [healthy(step) | change(step, {}) for step in range(STEPS)]
    run = run_of(tmp_path, metrics=[{k: float("nan") if v is None else v for k, v in row.items()} for row in changed])
    findings = diagnose(run.path)
    assert [(finding.rule, finding.follows) for finding in findings if finding.severity == "serious"] == [
        ("learning-rate-too-high", ""),
        ("no-informative-groups", "Learning rate too high"),
        ("truncated-actions", "Learning rate too high"),
        ("success-collapsed", "Learning rate too high"),
    ]


def test_causes_do_not_run_in_a_circle() -> None:
    order: list[str] = []
    left = {rule.name: set(rule.explains) for rule in RULES}
    while ready := [name for name, effects in left.items() if not effects - set(order)]:
        order += ready
        left = {name: effects for name, effects in left.items() if name not in ready}
    assert not left


def test_a_young_run_is_not_judged_by_rules_that_need_steps(tmp_path: Path) -> None:
    run = run_of(tmp_path, metrics=[healthy(0) | {"rollout/nll_mean": 0.0}])
    diagnosis = examine(run.path)
    assert "collapsed-entropy" in diagnosis.not_judged
    assert "success-collapsed" in diagnosis.not_judged


def known_keys() -> set[str]:
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    return {part.split("`")[1] for part in text.split("\n| ")[1:] if part.startswith("`")}


def test_every_key_that_is_suggested_exists(tmp_path: Path) -> None:
    keys, unknown = known_keys(), set()
    assert {"learner.learning_rate", "rollout.group_size"} <= keys
    for name, (change, settings) in ILL.items():
        for finding in diagnose(run_folder(tmp_path / name, change, settings)):
            for remedy in finding.remedies:
                key, sign, _ = remedy.partition("=")
                if sign and " " not in key and not (key in keys or any(k.startswith(f"{key}.") for k in keys)):
                    unknown.add(key)
    assert not unknown


def test_the_page_says_what_the_rules_say() -> None:
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"## {rule.title}\n" in page, f"{rule.name} has no section"
        assert rule.when in " ".join(page.split()), f"{rule.name}: the page states another condition"
    sections = {line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")}
    assert sections - {"How to read it"} == {rule.title for rule in RULES}


def test_the_exit_code_tells_a_healthy_run_from_an_ill_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(run_folder(tmp_path / "well"))]) == 0
    assert "nothing found" in capsys.readouterr().out
    ill = run_folder(tmp_path / "ill", *ILL["truncated-actions"])
    with pytest.raises(SystemExit) as left:
        main(["doctor", str(ill), "--json"])
    assert left.value.code == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["rule"] == "truncated-actions"
    assert main(["doctor", str(tmp_path / "absent")]) == 2
    with pytest.raises(DataError, match="not a run folder"):
        diagnose(tmp_path)


SMALL = [
    *("model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "world.options.maze=umaze"),
    *("rollout.groups_per_step=2", "rollout.group_size=2", "rollout.max_turns=3", "evaluation.seeds_per_task=1"),
    *("evaluation.max_turns=2", "run.transcripts_every=0"),
]


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["rollout.max_action_tokens=1", "run.steps=2"], "truncated-actions"),
        (["run.steps=2"], "no-informative-groups"),  # three turns that each cost 1: every episode earns -3
    ],
)
def test_a_real_run_made_ill_on_purpose(
    words: list[str], rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    grpo.main(["recipes/text/maze_grpo.yaml", *SMALL, f"run.folder={tmp_path / 'run'}", *words])
    found: list[Finding] = diagnose(tmp_path / "run")
    assert rule in [finding.rule for finding in found]
