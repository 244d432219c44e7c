"""What a world and an engine say beside text and reward reaches the turn: pictures, costs, the sampler's mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import (
    Attachment,
    Environment,
    Observation,
    SamplerMask,
    Span,
    Split,
    StepResult,
    StopReason,
    Task,
    Trajectory,
    attach_picture,
    world_mark,
)
from rollwright.generation import Generation, Sampling
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Journal, JournalledActor, Limits

MASK = SamplerMask(mask_id="top", kept_ids=((5, 6), (5,)), raw_logprobs=(-1.5, -0.5))
TASK = Task(id="t", split="train")


class Masked:
    """An engine that samples under a mask."""

    name, version, context_length = "masked", 3, 512

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        spans = (Span(start=0, end=2, version=3),)
        return Generation(token_ids=(5, 5), logprobs=(-0.5, 0.0), finish_reason="stop", spans=spans, sampler_mask=MASK)

    def load_weights(self, weights: Any, *, version: int) -> None: ...

    def close(self) -> None: ...


class Context:
    """The prompt is the number of observations so far."""

    def __init__(self) -> None:
        self.seen = 0

    def observe(self, observation: Observation) -> tuple[()]:
        self.seen += 1
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return tuple(range(self.seen))

    def act(self, generation: Generation) -> str:
        return "go"


def picture(step: int) -> Attachment:
    return attach_picture(b"\x89PNG\r\n\x1a\n%d" % step)


class Screens:
    """Shows a picture of each state and takes one unit of `time` for each step; three steps."""

    name, instructions, snapshots, execution, max_turns = "screens", "", "none", "inline", 4

    def __init__(self, **odd: Any) -> None:
        self.odd, self.at = odd, 0

    def tasks(self, split: Split) -> Sequence[Task]:
        return [TASK]

    def make(self) -> Environment:
        return self  # type: ignore[return-value]

    def reset(self, task: Task, seed: int) -> Observation:
        self.at = 0
        return Observation(text="start", attachments=(picture(0),))

    def step(self, action: str) -> StepResult:
        self.at += 1
        shown = {"text": str(self.at), "attachments": (picture(self.at),)} | self.odd.get("shown", {})
        costs = self.odd.get("costs", {"time": 1.0})
        return StepResult(observation=Observation(**shown), costs=costs, terminated=self.at == 3)

    def fingerprint(self) -> str:
        return str(self.at)

    def close(self) -> None: ...


def played(world: Screens, actor: Any = None, **more: Any) -> Trajectory:
    made = Collector(
        world,  # type: ignore[arg-type]
        actor or EngineActor(Masked()),
        Context,
        sampling=Sampling(),
        limits=Limits(max_turns=4),
        faults=FaultLog(None, max_frac=1.0),
        retries=0,
        mark=world_mark(world, {"size": 3}),  # type: ignore[arg-type]
    )
    try:
        [group] = made.collect([GroupRequest(key="g", task=TASK, seed=5, size=1, **more)])
        way = group.ways.get("g/0")
        assert not more or (way is not None and all(a.content is None for s in way.shown for a in s.attachments))
        return group.trajectories[0]
    finally:
        made.close()


def test_each_turn_has_the_picture_that_was_shown_before_it_and_the_cost_of_its_step() -> None:
    world = Screens()
    one = played(world)
    assert [turn.attachments for turn in one.turns] == [(picture(0),), (picture(1),), (picture(2),)]
    assert [turn.attachments[0].content for turn in one.turns] == [picture(step).content for step in range(3)]
    assert one.costs == {"time": 3.0} and one.total_reward == 0.0
    assert [turn.sampler_mask for turn in one.turns] == [MASK] * 3
    assert one.world == world_mark(world, {"size": 3})  # type: ignore[arg-type]


def test_what_later_episodes_begin_from_holds_no_bytes_of_pictures() -> None:
    assert played(Screens(), waypoint_every=1).turns[0].attachments[0].content is not None


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"costs": {"time": float("nan")}}, "expected named finite numbers"),
        ({"costs": {"time": 1e31}}, "expected named finite numbers"),
        ({"costs": {3: 1.0}}, "expected named finite numbers"),
        ({"costs": 1.0}, "expected named finite numbers"),
        ({"shown": {"attachments": "x.png"}}, "expected a tuple of Attachment"),
        ({"shown": {"attachments": ("x.png",)}}, "expected a tuple of Attachment"),
    ],
)
def test_costs_and_pictures_that_are_none_are_a_fault_of_the_world(odd: dict[str, Any], said: str) -> None:
    one = played(Screens(**odd))
    assert one.stop_reason is StopReason.ENV_ERROR and said in one.fault


def test_a_journal_remembers_the_mask(tmp_path: Path) -> None:
    first, again = Journal(tmp_path / "j.jsonl", run="r"), Journal(tmp_path / "j.jsonl", run="r")
    one = played(Screens(), JournalledActor(Masked(), first))  # type: ignore[arg-type]
    assert again.load() == 3
    two = played(Screens(), JournalledActor(Masked(), again))  # type: ignore[arg-type]
    assert again.recalled == 3 and [t.sampler_mask for t in two.turns] == [t.sampler_mask for t in one.turns]
