"""Who acts: guides by turn, episode and prefix, overseers, what the record says of them, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rollwright.batching import flatten
from rollwright.config import build
from rollwright.contracts import ActionRule, ConfigError, Environment, Group, Observation, World, episode_seed
from rollwright.envs.text import combination_lock, maze
from rollwright.generation import ScriptedEngine
from rollwright.models import ChatCodec, tiny_tokenizer
from rollwright.rollout import (
    ActorSettings,
    Collector,
    EngineActor,
    FaultLog,
    GroupRequest,
    GuideScene,
    Journal,
    MixedActor,
    RolloutSettings,
    actor_metrics,
    context_factory,
    open_collector,
    open_mixed,
    require_actor,
)
from rollwright.rollout.guides.engine_guides import EngineGuide, kept_in
from rollwright.store import TrajectoryStore

LOCK = combination_lock.build(lengths=(6,), digits=2, slip="back", wording="compact")
CODEC = ChatCodec(tiny_tokenizer([*LOCK.texts(), "hint"]))
ROLLOUT = RolloutSettings(history=0, max_action_tokens=4, max_turns=8, group_size=1, groups_per_step=1)
DIGITS = LOCK.combinations[6]


def settings(**keys: Any) -> ActorSettings:
    return build(ActorSettings, keys)


def wrong_always() -> ScriptedEngine:
    """A policy that turns every dial wrong. The engine is told the prompt, so it can see which dial it stands at."""

    def say(prompt: tuple[int, ...], request_id: str) -> str:
        shown = CODEC.decode_action(prompt)
        dial = next(d for d in range(6) if f"lock6dial{d + 1}" in shown)
        return str(1 - DIGITS[dial])

    return ScriptedEngine(say, CODEC.encode_action, producer="policy")


def collector_of(
    actor: ActorSettings, tmp_path: Path, *, world: World = LOCK, engine: Any = None, journal: Journal | None = None
) -> Collector:
    engine = engine or wrong_always()
    scene = GuideScene(
        world=world,
        rollout=ROLLOUT,
        codec=CODEC,
        engine=engine,
        policy=EngineActor(engine),
        journal=journal or Journal(tmp_path / "journal.jsonl", run="r"),
    )
    mixed = open_mixed(actor, scene, context_factory)
    return open_collector(ROLLOUT, world, mixed, CODEC, context_length=256, faults=FaultLog(None, max_frac=1.0))


def played(collector: Collector, *, frac: float | None, groups: int = 1, size: int = 1) -> list[Group]:
    (task,) = collector.world.tasks("train")[:1]
    requests = [
        GroupRequest(key=f"0/0/{g}", task=task, seed=episode_seed("train", 0, g), size=size, guide_frac=frac)
        for g in range(groups)
    ]
    try:
        return collector.collect(requests)
    finally:
        collector.close()


def producers(groups: list[Group]) -> list[list[str]]:
    return [[turn.spans[0].producer for turn in t.turns] for g in groups for t in g.trajectories]


def test_a_guided_episode_opens_the_lock_and_teaches_the_policy_nothing(tmp_path: Path) -> None:
    (one,) = played(collector_of(settings(guide="teacher"), tmp_path), frac=1.0)
    (trajectory,) = one.trajectories
    assert trajectory.success and producers([one]) == [["teacher"] * 6]
    assert [turn.action for turn in trajectory.turns] == [str(d) for d in DIGITS]
    assert trajectory.total_reward == 1.0, "the rewards stay"
    with pytest.raises(ValueError, match="none of 1 groups"):
        flatten([one])
    assert actor_metrics([one]) == {"actor/guided_frac": 1.0, "actor/intervened_frac": 0.0}


def test_turns_of_both_are_told_apart_and_drawn_by_name(tmp_path: Path) -> None:
    found = [
        producers(played(collector_of(settings(guide="teacher"), tmp_path), frac=0.5, groups=8, size=2))
        for _ in range(2)
    ]
    assert found[0] == found[1], "a resumed run draws the same"
    everything = [p for one in found[0] for p in one]
    assert 0.35 < everything.count("teacher") / len(everything) < 0.65 and "policy" in everything


def test_without_a_share_nobody_but_the_policy_acts(tmp_path: Path) -> None:
    """As in every evaluation: `guide_frac` is None there."""
    both = settings(guide="teacher", overseer="world")
    assert producers(played(collector_of(both, tmp_path), frac=None)) == [["policy"] * 8]


def test_whole_episodes_are_the_guides(tmp_path: Path) -> None:
    found = producers(played(collector_of(settings(guide="teacher", mix="episode"), tmp_path), frac=0.5, groups=12))
    assert {tuple(set(one)) for one in found} == {("policy",), ("teacher",)}


def test_the_members_of_a_group_share_the_length_of_their_prefix(tmp_path: Path) -> None:
    mix = settings(guide="teacher", mix="prefix", prefix_turns=4)
    found = producers(played(collector_of(mix, tmp_path), frac=1.0, groups=10, size=2))
    lengths = [one.count("teacher") for one in found]
    assert all(one == ["teacher"] * n + ["policy"] * (8 - n) for one, n in zip(found, lengths, strict=True))
    assert lengths[::2] == lengths[1::2] and len(set(lengths)) >= 3 and max(lengths) <= 4


def test_the_schedule_falls_to_nothing() -> None:
    falling = settings(guide="teacher", guide_frac=0.8, schedule="linear", schedule_steps=4)
    assert [falling.share_at(step) for step in (0, 1, 2, 4, 9)] == pytest.approx([0.8, 0.6, 0.4, 0.0, 0.0])
    assert settings().share_at(0) is None
    assert settings(overseer="world").share_at(0) == 0.0, "watched, and not guided"


def test_an_override_is_done_and_recorded_and_not_learned_from(tmp_path: Path) -> None:
    """A proposed, B done: the environment gets B, the record holds B with producer human, the policy's mask is 0."""
    (one,) = played(collector_of(settings(overseer="world"), tmp_path), frac=0.0)
    (trajectory,) = one.trajectories
    assert trajectory.success, "every wrong digit was replaced by the right one"
    assert [turn.action for turn in trajectory.turns] == [str(d) for d in DIGITS]
    assert producers([one]) == [["human"] * 6]
    assert not any(any(turn.policy_mask) for turn in trajectory.turns)
    assert actor_metrics([one])["actor/intervened_frac"] == 1.0


class StopsTheFirstDial:
    """A rule of a user's own."""

    def __call__(self, env: Environment, observation: Observation, action: str) -> str | None:
        return str(DIGITS[0]) if "dial1" in observation.text else None


class Broken:
    def __call__(self, env: Environment, observation: Observation, action: str) -> str | None:
        raise OSError("no camera")


class NoRule:
    """Cannot be called."""


def test_a_rule_of_ones_own_watches(tmp_path: Path) -> None:
    mine = settings(overseer="tests.rollout.test_guides:StopsTheFirstDial")
    assert producers(played(collector_of(mine, tmp_path), frac=0.0)) == [["human", "policy"] * 4]


def test_an_overseer_that_fails_is_a_recorded_fault(tmp_path: Path) -> None:
    broken = settings(overseer="tests.rollout.test_guides:Broken")
    (one,) = played(collector_of(broken, tmp_path), frac=0.0)
    assert all(t.stop_reason.is_fault and "no camera" in t.fault for t in one.trajectories)


def test_the_maze_stops_moves_into_walls_alone() -> None:
    world = maze.build(maze="umaze", wording="compact")
    env = world.make()
    for task in world.tasks("train"):
        seen = env.reset(task, episode_seed("train", 0))
        for move, (r, c) in maze.MOVES.items():
            better = world.override(env, seen, move)
            assert (better is None) == world.layout.is_free((env.cell[0] + r, env.cell[1] + c))
            assert better is None or better == maze.shortest_paths("umaze")[env.cell][1]
        assert world.override(env, seen, "nonsense") is None


def stored_walk(folder: Path) -> str:
    """A store with one episode of the lock's teacher."""
    groups = played(collector_of(settings(guide="teacher"), folder), frac=1.0)
    TrajectoryStore(folder / "store").append([t for g in groups for t in g.trajectories], tag="x")
    return str(folder / "store")


def test_a_store_guides_where_it_has_been_and_leaves_the_rest_to_the_policy(tmp_path: Path) -> None:
    store = settings(guide="store", store=stored_walk(tmp_path))
    assert producers(played(collector_of(store, tmp_path), frac=1.0)) == [["dataset"] * 6]
    other = combination_lock.build(lengths=(5,), digits=2, slip="back", wording="compact")
    mixed = collector_of(store, tmp_path, world=other).actor
    assert isinstance(mixed, MixedActor)
    with pytest.raises(ConfigError, match="holds no episode of the training tasks"):
        mixed.show_life(other.tasks("train"))


def test_a_hint_is_shown_to_the_guide_alone(tmp_path: Path) -> None:
    prompts: list[str] = []

    def say(prompt: tuple[int, ...], request_id: str) -> str:
        prompts.append(CODEC.decode_action(prompt))
        return "0"

    engine = ScriptedEngine(say, CODEC.encode_action, producer="policy")
    for place, frac in (("system", 1.0), ("observation", 1.0), ("system", 0.0)):
        hinted = settings(guide="hinted", hint="hint", hint_place=place)
        (one,) = played(collector_of(hinted, tmp_path, engine=engine), frac=frac)
        assert {p for q in producers([one]) for p in q} == {"guide" if frac else "policy"}
        assert all("hint" in prompt for prompt in prompts) == bool(frac) and prompts
        # The record has the prompt without the hint: that is what the policy is trained on.
        assert not any("hint" in CODEC.decode_action(turn.prompt_ids) for turn in one.trajectories[0].turns)
        prompts.clear()


def test_a_guide_of_another_tokenizer_is_read_in_its_words(tmp_path: Path) -> None:
    other = ChatCodec(tiny_tokenizer(["something else entirely", *LOCK.texts()], kind="bpe"))
    seen: list[tuple[int, ...]] = []

    def say(prompt: tuple[int, ...], request_id: str) -> str:
        seen.append(prompt)
        return str(DIGITS[0])

    engine = ScriptedEngine(say, other.encode_action)

    async def ask(decision: Any) -> Any:
        return await engine.generate(decision.prompt_ids, decision.sampling, request_id=decision.request_id)

    guide = EngineGuide(
        "other",
        context_factory(ROLLOUT, other, LOCK, 256),
        ask,
        kept_in(None, engine),
        codec=other,
        own=CODEC,
        sampling=collector_of(settings(), tmp_path).sampling,
    )
    actor = MixedActor(EngineActor(wrong_always()), guide=guide, overseer=None, codec=CODEC, rule=ActionRule("all"))
    made = open_collector(ROLLOUT, LOCK, actor, CODEC, context_length=256, faults=FaultLog(None))
    (one,) = played(made, frac=1.0)
    first = one.trajectories[0].turns[0]
    assert first.action == str(DIGITS[0]) and first.action_ids == CODEC.encode_action(first.action)
    assert "lock6dial1" in other.decode_action(seen[0]) and seen[0] != first.prompt_ids
    assert not guide.same


class Endpoint(BaseHTTPRequestHandler):
    """Answers every question with the digit 0; the last question is kept. `status` other than 200 refuses."""

    asked: list[dict[str, Any]]
    status = 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(body)
        said = json.dumps({"choices": [{"message": {"content": " 0\n"}}]}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def endpoint() -> Iterator[tuple[str, type[Endpoint]]]:
    handler = type("Fresh", (Endpoint,), {"asked": [], "status": 200})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", handler
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_asked_with_the_conversation_and_its_answer_is_kept(
    endpoint: tuple[str, type[Endpoint]], tmp_path: Path
) -> None:
    url, handler = endpoint
    there = settings(guide="endpoint", url=url, model="m")
    made = collector_of(there, tmp_path)
    assert isinstance(made.actor, MixedActor)
    made.actor.show_life(LOCK.tasks("train"))
    (one,) = played(made, frac=1.0)
    assert producers([one]) == [["guide"] * 8]
    assert {turn.action for turn in one.trajectories[0].turns} == {"0"}
    last = handler.asked[-1]["messages"]
    assert [m["role"] for m in last] == ["user", "assistant"] * 7 + ["user"] and "dial" in last[0]["content"]
    # Played again with the journal of before, as after a kill: nobody is asked again.
    count = len(handler.asked)
    journal = Journal(tmp_path / "journal.jsonl", run="r")
    assert journal.load() == 8
    again = collector_of(there, tmp_path, journal=journal)
    (same,) = played(again, frac=1.0)
    assert [t.action_ids for t in same.trajectories[0].turns] == [t.action_ids for t in one.trajectories[0].turns]
    assert len(handler.asked) == count


def test_a_dead_guide_is_refused_before_training_and_a_fault_later(
    endpoint: tuple[str, type[Endpoint]], tmp_path: Path
) -> None:
    url, handler = endpoint
    handler.status = 400
    made = collector_of(settings(guide="endpoint", url=url, model="m"), tmp_path)
    assert isinstance(made.actor, MixedActor)
    with pytest.raises(ConfigError, match=r"no sign of life before training.*HTTP 400"):
        made.actor.show_life([])
    (one,) = played(made, frac=1.0)
    assert all(t.stop_reason.is_fault and "the guide gave no answer" in t.fault for t in one.trajectories)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"guide": "teacher", "guide_frac": 1.2}, "guide_frac"),
        ({"guide": "store"}, "needs `store`"),
        ({"guide": "model"}, "needs `model`"),
        ({"guide": "endpoint", "model": "m"}, "needs `url`"),
        ({"guide": "hinted"}, "needs `hint`"),
        ({"guide_frac": 0.5}, "guide_frac"),
        ({"guide": "nobody"}, "guide"),
        ({"overseer": "tests"}, "overseer"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(**keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"overseer": "tests.rollout.test_guides:NoRule"}, "NoRule"),
        ({"guide": "endpoint", "url": "ftp://x", "model": "m"}, "http or https"),
        ({"guide": "endpoint", "url": "http://x/v1", "model": "m", "key_variable": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
    ],
)
def test_what_no_world_can_have_is_refused_before_any_weight(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_actor(settings(**keys), LOCK, LOCK.tasks("train"))


def test_a_world_without_teacher_or_dangers_is_named() -> None:
    class Bare:
        name = "bare"

    for keys, said in (({"guide": "teacher"}, "bare has no teacher"), ({"overseer": "world"}, "bare does not say")):
        with pytest.raises(ConfigError, match=said):
            require_actor(settings(**keys), Bare(), [])  # type: ignore[arg-type]
