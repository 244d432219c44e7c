"""A first action whose beginning is given: who wrote what, what the engine is shown, and what happens without room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from rollwright.contracts import (
    ContextOverflow,
    Message,
    SamplerMask,
    Span,
    Start,
    StopReason,
    Waypoint,
    episode_seed,
)
from rollwright.curriculum.waypoints import waypoints_of
from rollwright.envs.text import combination_lock
from rollwright.generation import Generation, Sampling
from rollwright.rollout import Collector, EngineActor, FaultLog, GroupRequest, Limits
from rollwright.rollout.restoring import behind_forced

LOCK = combination_lock.combination(6, 2)
REFLECT = tuple(map(ord, "hm "))


class Characters:
    """A context whose ids are characters, with room for 400 of them."""

    def __init__(self) -> None:
        self.ids: tuple[int, ...] = ()

    def observe(self, observation: Any) -> tuple[Message, ...]:
        self.ids += tuple(map(ord, f"<{observation.text}>"))
        return ()

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        if len(self.ids) + reserve > 400:
            raise ContextOverflow(f"{len(self.ids)} and {reserve} are more than 400")
        return self.ids

    def act(self, generation: Generation) -> str:
        self.ids += generation.token_ids
        # The lock reads a single digit: what was forced before it is a thought.
        return "".join(map(chr, generation.token_ids)).split(" ")[-1]


class Knows:
    """An engine that opens the lock, one character at a time, and remembers what it was shown."""

    name, version, context_length = "knows", 4, 10_000

    def __init__(self) -> None:
        self.prompts: list[str] = []

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling, *, request_id: str) -> Generation:
        self.prompts.append("".join(map(chr, prompt_ids)))
        dial = int(self.prompts[-1].rsplit("dial ", 1)[1].split(".")[0]) - 1
        span = Span(start=0, end=1, version=4)
        ids = (ord(str(LOCK[dial])),)
        return Generation(token_ids=ids, logprobs=(-0.5,), finish_reason="stop", spans=(span,))

    def close(self) -> None: ...


@pytest.fixture
def made() -> Any:
    world = combination_lock.build(lengths=(6,))
    collector = Collector(
        world,
        EngineActor(Knows()),
        Characters,
        sampling=Sampling(max_tokens=1),
        limits=Limits(max_turns=18),
        faults=FaultLog(None, max_frac=1.0),
    )
    yield collector
    collector.close()


def waypoint(made: Collector) -> Waypoint:
    task, seed = made.world.tasks("train")[0], episode_seed("train", 0)
    group = made.collect([GroupRequest(key="g", task=task, seed=seed, size=1, waypoint_every=1)])[0]
    found = waypoints_of(group.trajectories[0], group.ways["g/0"])
    return replace(found[2], kind="restart", forced_ids=REFLECT, status=-1)


def test_the_forced_beginning_is_prompt_to_the_engine_and_action_to_everybody_else(made: Collector) -> None:
    start = waypoint(made)
    group = made.collect([GroupRequest(key="r", task=start.task, seed=start.seed, size=2, start=start)])[0]
    for trajectory in group.trajectories:
        assert trajectory.start == Start(kind="restart", prefix_turns=3, prefix_tokens=3, source="g/0")
        first, second = trajectory.turns[:2]
        assert first.action_ids == (*REFLECT, ord(str(LOCK[3]))) and first.action == str(LOCK[3])
        assert first.action_mask == first.policy_mask == (False, False, False, True)
        assert first.action_logprobs == (0.0, 0.0, 0.0, -0.5) and first.version == 4
        assert [span.producer for span in first.spans] == ["forced", "policy"]
        # The next prompt holds the whole action, and no later action is forced.
        assert "".join(map(chr, second.prompt_ids)).endswith(f"hm {LOCK[3]}<Lock of 6, dial 5.>")
        assert second.policy_mask == (True,) and trajectory.success
    prompts = made.actor.engine.prompts  # type: ignore[attr-defined]
    assert sum(prompt.endswith("hm ") for prompt in prompts) == 2
    # The record of the turn keeps what stood before the action, without the forced part.
    assert prompts[-1] and group.trajectories[0].turns[0].prompt_ids[-1] == ord(">")


def test_a_prefix_that_leaves_no_room_is_a_recorded_fault(made: Collector) -> None:
    start = replace(waypoint(made), forced_ids=REFLECT * 150)
    group = made.collect([GroupRequest(key="r", task=start.task, seed=start.seed, size=1, start=start)])[0]
    lost = group.trajectories[0]
    assert lost.stop_reason is StopReason.ENGINE_ERROR and not lost.learnable and not lost.had_no_room
    assert "3 turns of g/0 and 450 forced tokens leave no room" in lost.fault and "engine.max_context" in lost.fault


def test_a_mask_of_a_sampler_is_moved_behind_the_forced_tokens() -> None:
    mask = SamplerMask(mask_id="top", kept_ids=((5, 6),), raw_logprobs=(-1.5,))
    sampled = Generation(
        token_ids=(5,),
        logprobs=(-0.5,),
        finish_reason="stop",
        spans=(Span(start=0, end=1, version=2),),
        sampler_mask=mask,
    )
    whole = behind_forced(sampled, (8, 9))
    assert whole.sampler_mask == SamplerMask(
        mask_id="top", kept_ids=((8,), (9,), (5, 6)), raw_logprobs=(0.0, 0.0, -1.5)
    )
    assert whole.spans[1] == Span(start=2, end=3, version=2)


def test_a_waypoint_says_what_kind_of_start_it_is(made: Collector) -> None:
    start = waypoint(made)
    with pytest.raises(ValueError, match="start kind"):
        replace(start, kind="somewhere")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="status of a start"):
        replace(start, status=2)
