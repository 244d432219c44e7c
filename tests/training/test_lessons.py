"""A step that teaches nothing says why, once and at the end: every cause by its own metrics, whole runs of recipes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.config import build
from rollwright.contracts.errors import ConfigError, ContextOverflow
from rollwright.contracts.record import Group, Score, Span, StopReason, Task
from rollwright.envs.text import bandit
from rollwright.recipes import filtered_bc, grpo, hnpg, ppo
from rollwright.recipes.archer import ArcherConfig
from rollwright.recipes.digirl import DigirlConfig
from rollwright.recipes.filtered_bc import FilteredBcConfig
from rollwright.recipes.grpo import GrpoConfig
from rollwright.recipes.ilql import IlqlConfig
from rollwright.recipes.ppo import PpoConfig
from rollwright.recipes.webrl import WebrlConfig
from rollwright.run_io.tracking import read_metrics
from rollwright.training import preflight_models, recipe_entry
from rollwright.training.lessons import Idle, Lessons, reason, taught
from rollwright.training.loop_config import LoopConfig
from rollwright.view.live.run_answers import untaught
from tests import builders

TASK = Task(id="t", split="train")


def config(cls: type[LoopConfig] = GrpoConfig, **sections: Any) -> LoopConfig:
    return build(cls, {"world": {"name": "text.bandit"}, **sections})


def group(*returns: float, **changes: Any) -> Group:
    turns = [builders.turn(reward=earned, logprobs=-0.5, text="go") for earned in returns]
    members = [builders.episode(str(i), turn, task=TASK, seed=1) for i, turn in enumerate(turns)]
    return builders.group(*(replace(member, **changes) for member in members))


TIED = [group(0, 0), group(1, 1)]
GUIDED = builders.turn(logprobs=-0.5, text="go", spans=(Span(start=0, end=1, producer="guide", version=0),))
BY_A_GUIDE = group(0, 1, turns=(GUIDED,))
UNKNOWN = Score(value=None, verifier="judge")
MOVED = {"optim/grad_norm": 0.1}
REINFORCE = {"algorithm": {"preset": "reinforce++"}}


@pytest.mark.parametrize(
    ("settings", "groups", "metrics", "signal", "kind", "words"),
    [
        (config(), TIED, {"optim/skipped_count": 1.0}, None, "tied", "the 2 groups earned the same (from 0 to 1)"),
        (config(), TIED, MOVED, False, "tied", "curriculum=band"),
        (config(), [group(0, 0, stop_reason=StopReason.MAX_TURNS)], {}, None, "tied", "rollout.max_turns"),
        (config(rollout={"group_size": 1}), [group(1), group(0)], {}, None, "group size", "rollout.group_size=1"),
        (config(), [group(1)], {}, None, "alone", "no group has two members left"),
        (
            config(engine={"max_context": 16}),
            [group(0, 0, turns=(), stop_reason=StopReason.MAX_TOKENS)],
            {},
            None,
            "context",
            "before the first action, since prompt and action did not fit into engine.max_context=16",
        ),
        (config(), [group(0, 0, stop_reason=StopReason.MAX_TOKENS)], {}, None, "context", "max_context=1024"),
        (config(), [group(0, 0, stop_reason=StopReason.ENV_ERROR)], {}, None, "faults", "all 2 episodes were lost"),
        (config(), [group(0, 1, score=UNKNOWN)], {}, None, "undecided", "the reward env could not tell"),
        (config(algorithm={"min_groups": 3}), [group(0, 1)], {"optim/skipped_count": 1.0}, None, "few groups", "=3"),
        (config(), [group(0, 1)], {"optim/grad_norm": 0.0}, True, "gradient", "exactly 0"),
        (config(), [group(0, 1)], {"policy/filtered_frac": 1.0}, True, "filter", "left out every action token"),
        (config(**REINFORCE), TIED[:1], MOVED, False, "no advantage", "the KL in the reward: every episode earned 0"),
        (config(PpoConfig), TIED[:1], MOVED, False, "no advantage", "every advantage is 0: every episode earned 0"),
        (config(**REINFORCE), [group(1)], {"optim/skipped_count": 1.0}, None, "one token", "a single action token"),
        (config(PpoConfig), [group(1)], {"optim/skipped_count": 1.0}, None, "one token", "a single action token"),
        (config(PpoConfig), [BY_A_GUIDE], {"optim/skipped_count": 1.0}, None, "unlearnable", "none of 2 episodes"),
        (config(), [BY_A_GUIDE], {"optim/skipped_count": 1.0}, None, "unlearnable", "none of 2 episodes"),
        (config(FilteredBcConfig), [group(0, 0)], {"bc/turns_count": 0.0}, None, "nothing to imitate", "no episode"),
        (config(FilteredBcConfig), [], {"bc/turns_count": 0.0}, None, "nothing to imitate", "passed the filter"),
        (
            config(DigirlConfig),
            [group(0, 0)],
            {"digirl/trajectories_kept_count": 0.0, "v_step/grad_norm": 1.0},
            None,
            "no successes",
            "no success to imitate",
        ),
        (
            config(DigirlConfig),
            [group(0, 0)],
            {"digirl/trajectories_kept_count": 2.0, "digirl/steps_kept_frac": 0.0, "v_step/grad_norm": 1.0},
            None,
            "no steps",
            "second filter",
        ),
        (config(ArcherConfig), [], {"replay/turns_count": 0.0}, None, "no turns", "neither stored nor collected"),
        (config(WebrlConfig), [group(0, 0)], {"webrl/positive_frac": 0.0}, None, "no positives", "form=released"),
        (config(WebrlConfig), [group(0, 0, stop_reason=StopReason.ABORTED)], {}, None, "faults", "docs/faults.md"),
        (config(ArcherConfig), [group(0, 1)], {"replay/warmup_frac": 0.5}, None, "warm-up", "replay.warmup_turns"),
        (config(ArcherConfig), [group(0, 1)], {"critic/grad_norm": 1.0}, None, "critic", "only a critic"),
    ],
)
def test_every_cause_is_found_and_named_by_the_users_keys(
    settings: LoopConfig,
    groups: Sequence[Group],
    metrics: dict[str, float],
    signal: bool | None,
    kind: str,
    words: str,
) -> None:
    assert not taught(metrics, "optim", signal)
    found = reason(settings, groups, metrics, signal=signal)
    assert found.kind == kind and words in found.text
    assert found.wait == (kind in ("warm-up", "critic"))


def test_a_step_that_moved_the_policy_taught_it() -> None:
    assert taught(MOVED, "optim", True) and taught(MOVED, "optim", None)
    assert not taught(MOVED, "optim", False), "a KL to the reference moves weights and teaches nothing of the task"
    assert not taught({"critic/grad_norm": 1.0}, "optim", None)
    offline = build(IlqlConfig, {"world": {"name": "text.bandit"}, "replay": {"stores": ["x"]}})
    lessons = Lessons(config=offline)
    assert lessons.take(0, [], {"critic/grad_norm": 1.0}) == {"optim/taught_count": 1.0}, "here the critic acts"


@pytest.mark.parametrize("preset", ["rloo", "reinforce++"])
def test_a_kl_inside_the_reward_is_no_lesson_where_nothing_else_tells_episodes_apart(preset: str) -> None:
    lessons = Lessons(config=config(algorithm={"preset": preset}))
    assert lessons.take(0, [group(0, 0)], MOVED, signal=True) == {"optim/taught_count": 0.0}
    assert lessons.take(1, [group(0, 1)], MOVED, signal=True) == {"optim/taught_count": 1.0}
    without = Lessons(config=config(algorithm={"preset": preset, "kl_in_reward": 0.0}))
    assert without.take(0, [group(0, 0)], MOVED, signal=True) == {"optim/taught_count": 1.0}, "the recipe knows best"


def test_a_reason_is_warned_of_once_and_counted_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    lessons = Lessons(config=config())
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            assert lessons.take(step, TIED, {}) == {"optim/taught_count": 0.0}
        lessons.take(3, [group(0, 1)], MOVED, signal=True)
        lessons.take(4, [group(0, 0, stop_reason=StopReason.ENV_ERROR)], {})
        first = [record.getMessage() for record in caplog.records]
        lessons.end()
    assert len(first) == 2 and first[0].startswith("step 1 of 20 taught the policy nothing: the members of each")
    assert first[1].startswith("step 5 of 20 taught the policy nothing: all 2 episodes were lost to faults")
    last = caplog.records[-1].getMessage()
    assert last.startswith("4 of 5 steps taught the policy nothing: 3 x the members") and "1 x all 2 episodes" in last


def test_waiting_is_no_warning_unless_nothing_ever_came_of_it(caplog: pytest.LogCaptureFixture) -> None:
    lessons = Lessons(config=config(ArcherConfig))
    with caplog.at_level(logging.WARNING):
        lessons.take(0, [group(0, 1)], {"replay/warmup_frac": 0.5})
        assert lessons.summary().startswith("nothing was learned in all 1 steps")
        lessons.take(1, [group(0, 1)], MOVED)
        lessons.end()
    assert caplog.records == [] and lessons.summary() == ""


def test_other_ranks_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    lessons = Lessons(config=config(), speaks=False)
    with caplog.at_level(logging.WARNING):
        lessons.take(0, TIED, {})
        lessons.end()
    assert caplog.records == [] and lessons.reasons["tied"] == 1


def test_what_no_rule_knows_is_still_said() -> None:
    assert reason(config(), [group(0, 1)], {}) == Idle(
        kind="unknown", text="no update was made, and none of the known causes applies"
    )


# --- whole runs -----------------------------------------------------------------------------------------------------

SMALL = [
    *("world.name=text.bandit", "model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1"),
    *("engine=transformers", "engine.dtype=float32", "learner.precision=float32", "run.steps=3"),
    *("rollout.max_action_tokens=2", "rollout.history=0", "rollout.groups_per_step=2", "rollout.group_size=2"),
    "evaluation.seeds_per_task=1",
]
ONE_TOKEN = [
    *("rollout.groups_per_step=1", "rollout.group_size=1", "rollout.max_turns=1", "rollout.max_action_tokens=1")
]


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("recipe", "words", "cause"),
    [
        # A random policy never says the word that pays: every episode earns 0.
        (grpo, [], "the members of each of the 2 groups earned the same"),
        (grpo, ["algorithm.preset=dapo", "algorithm.max_rounds=2"], "earned the same"),
        (grpo, ["algorithm.preset=reinforce++", "algorithm.kl_in_reward=0"], "every advantage is 0"),
        (grpo, ["rollout.group_size=1"], "rollout.group_size=1 leaves each alone"),
        (grpo, ["algorithm.preset=reinforce++", *ONE_TOKEN], "a single action token"),
        (ppo, ONE_TOKEN, "a single action token"),
        (filtered_bc, ["algorithm.score=success", "algorithm.positive_only=true"], "there is nothing to imitate"),
    ],
)
def test_a_run_that_learns_nothing_says_so_at_its_first_step_and_at_its_end(
    recipe: Any,
    words: list[str],
    cause: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Some of these are refused beforehand where all that is needed to know it is at hand; it not always is.
    monkeypatch.setattr(recipe_entry, "preflight", lambda config: None)
    with caplog.at_level(logging.WARNING, logger="rollwright.training.lessons"):
        recipe.main([*SMALL, f"run.folder={tmp_path}", *words])
    first, last = (r.getMessage() for r in caplog.records if r.name == "rollwright.training.lessons")
    assert first.startswith("step 1 of 3 taught the policy nothing: ") and cause in first
    assert last.startswith("nothing was learned in all 3 steps, the policy is the one they began with: 3 x ")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["optim/taught_count"] for row in rows if "optim/taught_count" in row] == [0.0] * 3
    assert untaught(rows) == ["3 of 3 steps taught the policy nothing: see optim/taught_count, and the run's warnings"]
    assert "3 of 3 steps taught the policy nothing" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (grpo, []),
        (ppo, []),
        (hnpg, ["algorithm.offline_weight=0", "algorithm.logged_states=0", "critic.width=8"]),
    ],
)
def test_a_run_whose_prompts_never_leave_room_for_an_action_ends_with_the_reason(
    recipe: Any, words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_entry, "preflight", lambda config: None)  # which refuses a world that answers at once
    with (
        caplog.at_level(logging.WARNING, logger="rollwright.training.lessons"),
        pytest.raises(ContextOverflow) as ended,
    ):
        recipe.main([*SMALL, f"run.folder={tmp_path}", "run.steps=9", "engine.max_context=16", *words])
    assert "none of the first 3 batches held an action" in str(ended.value)
    assert "`rollout.max_action_tokens=2` within `engine.max_context=16`" in str(ended.value)
    assert "all 4 episodes were cut before the first action" in caplog.text
    assert len(read_metrics(tmp_path / "metrics.jsonl")) >= 2


def test_first_prompts_that_do_not_fit_are_warned_of_before_a_run(caplog: pytest.LogCaptureFixture) -> None:
    """All of them too long is an error; some of them are left to the user."""

    shown = {"short": "go", "long": "go " * 200}
    names = [Task(id=name, split="train") for name in shown]
    caplog.set_level(logging.WARNING, logger="rollwright.training.preflight_models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bandit.BanditWorld, "tasks", lambda self, split: names)
        patch.setattr(bandit.BanditEnvironment, "reset", lambda self, task, seed: shown[task.id])
        preflight_models.require_room(config(model={"path": "tiny"}, engine={"max_context": 4000}))
        assert caplog.text == ""
        preflight_models.require_room(config(model={"path": "tiny"}, engine={"max_context": 200}))
        assert "some first prompts of text.bandit do not fit" in caplog.text
        with pytest.raises(ConfigError, match="too small"):
            preflight_models.require_room(config(model={"path": "tiny"}, engine={"max_context": 32}))


def no_room() -> Group:
    return group(0, 0, turns=(), stop_reason=StopReason.MAX_TOKENS)


@pytest.mark.parametrize(
    ("steps", "batches", "ends"),
    [
        (1, [[no_room()]], True),
        (9, [[no_room()], [no_room()], [no_room()]], True),
        (9, [[no_room()], [no_room()], [group(0, 1), no_room()], [no_room()], [no_room()], [no_room()]], False),
        (9, [[group(0, 0, stop_reason=StopReason.MAX_TOKENS)]] * 5, False),  # they acted before the context was full
        (9, [[group(0, 0, turns=(), stop_reason=StopReason.ENV_ERROR)]] * 5, False),
        (9, [[]] * 5, False),  # steps that only learn from stores
    ],
)
def test_only_batches_without_any_room_from_the_first_on_end_a_run(
    steps: int, batches: list[list[Group]], ends: bool
) -> None:
    lessons = Lessons(config=config(run={"steps": steps}))
    with pytest.raises(ContextOverflow) if ends else nullcontext():
        for step, groups in enumerate(batches):
            lessons.take(step, groups, {})
