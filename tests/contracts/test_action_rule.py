"""A policy that thinks first: the world gets the action, the loss all of it, a window shows no thought."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwright.config import build
from rollwright.contracts.action_rule import ActionRule
from rollwright.contracts.environment import Observation, StepResult
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Passed, Shown, Span, Task, Waypoint
from rollwright.curriculum.waypoints import waypoints_of
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.scripted_engine import ScriptedEngine
from rollwright.methods.outcome_text import evidence_of
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import tiny_tokenizer
from rollwright.recipes.grpo import GrpoConfig
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits
from rollwright.rollout.contexts import AppendOnly, Windowed
from rollwright.rollout.restoring import retrace
from rollwright.rollout.rollout_settings import RolloutSettings
from rollwright.store.trajectory_store import TrajectoryStore

CODEC = ChatCodec(tiny_tokenizer(["click 1 2 3 think I could or and so Action : page"]))
THOUGHT = "<think>I could click 1 or click 2</think>\n\nclick 3"


@pytest.mark.parametrize(
    ("how", "text", "finish", "action"),
    [
        ("all", THOUGHT, "stop", THOUGHT),
        ("after_think", THOUGHT, "stop", "click 3"),
        ("after_think", "I could click 1</think>click 3 \n", "stop", "click 3"),  # the template opened the thought
        ("after_think", "<think>a</think>b</think> click 3", "stop", "click 3"),
        ("after_think", "click 3", "stop", "click 3"),  # it need not think
        ("after_think", "<think>click 1", "stop", ""),
        ("after_think", "I could click 1 and", "length", ""),
        ("after_think", "<think>x</think>", "stop", ""),
        (r"Action: (.*)", "Action: click 1\nno: Action: click 3\n", "stop", "click 3"),
        (r"click \d", "click 1, or click 3", "stop", "click 3"),
        (r"Action: (.*)|never", "never", "stop", ""),
        (r"Action: (.*)", "click 1", "stop", ""),
    ],
)
def test_the_action_is_taken_out_of_the_answer(how: str, text: str, finish: Any, action: str):
    assert ActionRule(how).action_of(text, finish) == action
    assert ActionRule(how).action_of(text, finish, scripted=True) == (action or text)


@given(text=st.text(max_size=40), how=st.sampled_from(["after_think", r"Action: (.*)", r"(?s)\{.*\}", "x*"]))
def test_whatever_is_said_gives_an_action_that_it_holds(text: str, how: str):
    assert ActionRule(how).action_of(text) in text


def test_an_answer_that_takes_for_ever_to_read_costs_the_turn_alone():
    begun = time.monotonic()
    assert ActionRule(r"^(a+)+$").action_of("a" * 60 + "b") == ""
    assert time.monotonic() - begun < 60  # the expression alone would take years


def test_an_expression_that_is_none_is_refused_with_its_key():
    with pytest.raises(ConfigError, match=r"rollout.*neither `all` nor `after_think` nor a regular expression"):
        build(GrpoConfig, {"world": {"name": "text.bandit"}, "rollout": {"action": "Action: ("}})


class Heard:
    """Ends when it is told to click 3; keeps what it hears."""

    name, execution, snapshots, max_turns, instructions = "heard", "inline", "none", 3, "Act."

    def __init__(self) -> None:
        self.actions: list[str] = []

    def tasks(self, split: str) -> list[Task]:
        return [Task(id="t", split="train")]

    def make(self) -> Heard:
        return self

    def reset(self, task: Task, seed: int) -> Observation:
        return Observation(text="page", goal="go")

    def step(self, action: str) -> StepResult:
        self.actions.append(action)
        return StepResult(observation=f"page {len(self.actions)}", reward=1.0)

    def fingerprint(self) -> str:
        return str(len(self.actions))

    def close(self) -> None: ...


def play(kind: str, how: str, tmp_path: Path) -> tuple[Heard, Any, Any]:
    said = [f"<think>I could {n}</think>click {n}" for n in (1, 2, 3)]
    world, replies = Heard(), iter(said)
    engine = ScriptedEngine(lambda prompt, request: next(replies), CODEC.encode_action, producer="policy")
    rule = ActionRule(how)
    common = {"codec": CODEC, "instructions": "Act.", "context_length": 2000}
    context = AppendOnly(**common) if kind == "append" else Windowed(**common, rule=rule)
    faults = FaultLog(tmp_path / "faults.jsonl", max_frac=1.0)
    limits, sampling = Limits(max_turns=3), Sampling(max_tokens=100, stop_token_ids=CODEC.stop_token_ids)
    made = Collector(world, EngineActor(engine), context, sampling=sampling, limits=limits, faults=faults, rule=rule)  # type: ignore[arg-type]
    try:
        request = GroupRequest(key="g", task=world.tasks("train")[0], seed=1, size=1, waypoint_every=1)
        [group] = made.collect([request])
    finally:
        made.close()
    return world, group.trajectories[0], group


@pytest.mark.parametrize("kind", ["append", "windowed"])
def test_the_world_hears_the_action_and_the_turn_keeps_the_thought(kind: str, tmp_path: Path):
    world, played, group = play(kind, "after_think", tmp_path)
    assert world.actions == ["click 1", "click 2", "click 3"]
    for n, turn in enumerate(played.turns, 1):
        assert turn.text == f"<think>I could {n}</think>click {n}" == CODEC.decode_action(turn.action_ids)
        assert turn.action == f"click {n}" and all(turn.policy_mask)
    prompt = CODEC.tokenizer.decode(played.turns[-1].prompt_ids)
    assert ("I could 1" in prompt) == (kind == "append")  # what was sampled stays where the history grows
    assert kind == "append" or "Did: click 1; click 2" in prompt
    TrajectoryStore(tmp_path / "store").append([played], tag="x")
    assert list(TrajectoryStore(tmp_path / "store").iter_trajectories()) == [played]
    evidence = evidence_of(played)
    assert evidence is not None and evidence.actions[0] == "click 1"
    assert [p.action for p in waypoints_of(played, group.ways[played.id], every=1)[-1].passed] == ["click 1", "click 2"]


def test_without_the_option_all_that_is_said_is_the_action(tmp_path: Path):
    world, played, _ = play("windowed", "all", tmp_path)
    assert world.actions[0] == "<think>I could 1</think>click 1"
    assert all(turn.acted is None for turn in played.turns)
    assert RolloutSettings().action == "all"


@pytest.mark.parametrize("how", ["all", "after_think", r"Action: (.*)"])
@pytest.mark.parametrize("said", ["click 3", THOUGHT, "Action: click 2", "<think>click"])
def test_a_way_that_is_told_again_shows_the_actions_it_showed(how: str, said: str):
    """Whoever said it: from what a waypoint keeps, a window shows the same action, so the prompt is the same."""
    spec = Windowed(codec=CODEC, instructions="Act.", context_length=2000, rule=ActionRule(how))
    ids = CODEC.encode_action(said)
    for producer in ("policy", "dataset"):
        spans = (Span(start=0, end=len(ids), version=1, producer=producer),)  # type: ignore[arg-type]
        first = Generation(token_ids=ids, logprobs=(0.0,) * len(ids), finish_reason="stop", spans=spans)
        context = spec()
        context.observe(Observation(text="page", goal="go"))
        action = spec.rule.action_of(context.act(first), scripted=first.scripted)
        context.observe(Observation(text="next"))
        passed = Passed(shown=Shown(text="page", goal="go"), state_key="", action=action, action_ids=ids)
        start = Waypoint(
            **{"source": "s", "task": Task(id="t", split="train"), "seed": 1, "passed": (passed,)},
            **{"shown": Shown(text="next"), "state_key": "", "prompt_digest": ""},
        )
        again = spec()
        retrace(again, start)
        assert again.prompt_ids(1) == context.prompt_ids(1)
