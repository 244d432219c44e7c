"""Revisions in real worlds: records that are played again, copied records, and who finds the first error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import ConfigError, DataError, EnvReward, Group, StopReason, Task, Trajectory, World
from rollwright.envs.text import household, maze
from rollwright.generation import Sampling
from rollwright.generation.scripted_engine import ScriptedEngine
from rollwright.methods import IGNORED, ActorVerifier, ValueVerifier, WorldVerifier, learned_mask, sft_rows
from rollwright.methods.revision_builder import RevisionBuilder, RevisionSettings, splice_of
from rollwright.methods.revision_pairs import RevisionPair, leaf_score, shared_turns
from rollwright.methods.revision_ratings import rating_messages
from rollwright.methods.revisions import RevisionMessage, message_template, revision_script, splice_replay, splice_text
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_policy
from rollwright.models.tiny_model import make_tiny_model
from rollwright.rollout import AppendOnly, Collector, EngineActor, FaultLog, Limits, Windowed, score_or_note

KITCHEN: dict[str, Any] = {"size": "small", "wording": "compact", "rooms": ["kitchen"], "types": ["pick_and_place"]}


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> ChatCodec:
    texts = [*maze.build(wording="compact").texts(), *household.build(**KITCHEN).texts()]
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"), texts=texts, hidden=32, layers=1)
    return ChatCodec(load_policy(folder)[1])


@pytest.fixture
def opened() -> Iterator[list[Collector]]:
    collectors: list[Collector] = []
    yield collectors
    for collector in collectors:
        collector.close()


def collector_of(world: World, codec: ChatCodec, opened: list[Collector], context: Any = None) -> Collector:
    engine = ScriptedEngine(["up"], codec.encode_action, producer="policy")
    made = Collector(
        world,
        EngineActor(engine),
        context or Windowed(codec=codec, instructions="", context_length=4096, history=2),
        sampling=Sampling(max_tokens=32, stop_token_ids=tuple(codec.stop_token_ids)),
        limits=Limits(max_turns=30),
        faults=FaultLog(None),
    )
    opened.append(made)
    return made


def walk(collector: Collector, task: Task, actions: Sequence[str], name: str, seed: int = 3) -> Trajectory:
    """What the policy does, as a script of its own answers."""
    engine = collector.actor.engine  # type: ignore[attr-defined]
    engine.script = lambda prompt, request: actions[int(request.rpartition("/")[2])]
    request = replace(collector.request(name, task, seed), max_turns=len(actions))
    (played,) = collector.play([request])
    assert played.stop_reason in (StopReason.TERMINATED, StopReason.MAX_TURNS), played.fault
    return played


def pair_of(bad: Trajectory, good: Trajectory) -> RevisionPair:
    return RevisionPair(
        bad=bad,
        good=good,
        shared=shared_turns(bad, good),
        bad_score=leaf_score(bad, "success"),
        good_score=leaf_score(good, "success"),
    )


def judged(collector: Collector):
    return lambda group: score_or_note(group, EnvReward(), collector.faults)


def replayed(collector: Collector, script: Any, tolerance: float = 0.0) -> Trajectory | None:
    (found,) = splice_replay(
        collector,
        [script],
        judge=judged(collector),
        score=lambda t: leaf_score(t, "success"),
        tolerance=tolerance,
    )
    return found


def teacher_way(world: Any, task: Task, seed: int = 3) -> list[str]:
    """What the world's teacher does."""
    env, teacher, said = world.make(), world.teacher(task), []
    seen = env.reset(task, seed)
    while True:
        said.append(teacher.act(env, seen))
        answer = env.step(said[-1])
        if answer.terminated:
            return said
        seen = answer.observation


def kitchen_pair(collector: Collector, world: Any) -> RevisionPair:
    task = next(t for t in world.tasks("train") if len(teacher_way(world, t)) >= 4)
    way = teacher_way(world, task)
    elsewhere = next(name for name in ("sinkbasin", "fridge", "countertop") if name not in way[0])
    good = walk(collector, task, way, "good")
    bad = walk(collector, task, [f"go to {elsewhere}", "inventory", "look"], "bad")
    assert good.success and not bad.success
    return pair_of(bad, good)


def test_a_replayed_record_is_an_episode_of_the_real_world(codec: ChatCodec, opened: list[Collector]) -> None:
    world = household.build(**KITCHEN)
    collector = collector_of(world, codec, opened)
    pair = kitchen_pair(collector, world)
    message = RevisionMessage(wait=world.no_op, template="{wait}", encode=codec.encode_action)
    script = revision_script(pair, 1, message, key="r")
    record = replayed(collector, script)
    assert record is not None and record.success and record.score is not None and record.score.value == 1.0
    # Byte for byte what an episode of these very actions shows.
    again = walk(collector, pair.bad.task, [turn.action for turn in record.turns], "again")
    assert [t.prompt_ids for t in again.turns] == [t.prompt_ids for t in record.turns]
    assert [t.state_key for t in again.turns] == [t.state_key for t in record.turns]
    assert [any(learned_mask(t)) for t in record.turns] == [False] + [True] * (1 + len(pair.good.turns))
    learned = sum(sum(learned_mask(t)) for t in record.turns)
    assert learned == len(codec.encode_action("look")) + sum(len(t.action_ids) for t in pair.good.turns)


def test_every_kept_step_is_shown_as_in_the_search_or_the_run_ends(codec: ChatCodec, opened: list[Collector]) -> None:
    world = household.build(**KITCHEN)
    collector = collector_of(world, codec, opened)
    script = revision_script(kitchen_pair(collector, world), 2, None, key="r")
    make, made = world.make, []

    def moody() -> Any:
        """Every environment furnishes another house: a world that is not what it says."""
        env = make()
        reset = env.reset
        env.reset = lambda task, seed: reset(task, seed + len(made))  # type: ignore[method-assign]
        made.append(env)
        return env

    world.make = moody  # type: ignore[method-assign]
    fresh = collector_of(world, codec, opened)
    made.append(None)
    with pytest.raises(DataError, match=r"text\.household does not repeat its episodes: before turn 0 of bad"):
        replayed(fresh, script)


def far_start(world: Any) -> Task:
    return max(world.tasks("train"), key=lambda task: len(teacher_way(world, task)))


def kinds_of_moves(world: Any, task: Task) -> dict[str, str]:
    """A move into a wall and a move away from the goal, where the task's start has them."""
    env, found = world.make(), {}
    for move in ("move up", "move down", "move left", "move right"):
        env.reset(task, 3)
        before, far = env.cell, world.steps_left(env)
        env.step(move)
        if env.cell == before:
            found["wall"] = move
        elif world.steps_left(env) > far:
            found["away"] = move
    return found


def test_in_the_maze_a_step_away_cannot_be_spliced_and_one_into_a_wall_can(
    codec: ChatCodec, opened: list[Collector]
) -> None:
    world = maze.build(wording="compact")
    collector = collector_of(world, codec, opened)
    task = next(task for task in world.tasks("train") if len(kinds_of_moves(world, task)) == 2)
    good = walk(collector, task, teacher_way(world, task), "good")
    for kind, move in kinds_of_moves(world, task).items():
        bad = walk(collector, task, [move, move, move], f"bad {kind}")
        record = replayed(collector, revision_script(pair_of(bad, good), 1, None, key=f"r {kind}"))
        assert (record is not None) == (kind == "wall"), kind


def test_the_world_calls_a_step_bad_where_the_goal_is_further_off(codec: ChatCodec, opened: list[Collector]) -> None:
    world = maze.build(wording="compact")
    collector = collector_of(world, codec, opened)
    task = far_start(world)
    way = teacher_way(world, task)
    back = {"move up": "move down", "move down": "move up", "move left": "move right", "move right": "move left"}
    good = walk(collector, task, way, "good")
    bad = walk(collector, task, [way[0], back[way[0]], "nonsense", way[0]], "bad")
    verifier = WorldVerifier(collector)
    assert verifier.rate([pair_of(bad, good)]) == [["bad", "uncertain", "uncertain"]], "its last step is not seen"
    assert verifier.env_calls == 5
    with pytest.raises(ConfigError, match=r"text\.household does not tell"):
        WorldVerifier(collector_of(household.build(**KITCHEN), codec, opened))


def test_the_policy_rates_its_own_steps_until_the_first_bad_one(codec: ChatCodec, opened: list[Collector]) -> None:
    world = household.build(**KITCHEN)
    collector = collector_of(world, codec, opened)
    pair = kitchen_pair(collector, world)
    answers = ["good", "not bad", "bad", "bad"]
    engine = ScriptedEngine(answers, codec.encode_action, producer="policy")
    long = replace(pair, bad=replace(pair.bad, turns=(*pair.bad.turns, *pair.bad.turns), id="long"))
    assert ActorVerifier(engine, codec, max_tokens=32).rate([long]) == [["good", "uncertain", "bad"]]
    engine = ScriptedEngine(["good"], codec.encode_action, producer="policy")
    # Two pairs of one bad path: each of its steps is asked about once.
    assert ActorVerifier(engine, codec).rate([pair, replace(pair, good_score=0.5)]) == [["good"] * 3] * 2
    assert engine._calls == 3
    small = ScriptedEngine(["bad"], codec.encode_action, producer="policy", context_length=20)
    assert ActorVerifier(small, codec).rate([pair]) == [["uncertain"] * 3], "a log that does not fit"
    asked = rating_messages(pair.bad, 1)[0].content
    assert asked.index(f"> {pair.bad.turns[1].action}") < asked.index("good, bad or uncertain")
    assert f"> {pair.bad.turns[2].action}" not in asked


@pytest.mark.parametrize("kind", ["append", "windowed"])
def test_a_copied_record_has_the_prompts_that_the_context_would_give(
    kind: str, codec: ChatCodec, opened: list[Collector]
) -> None:
    make = AppendOnly if kind == "append" else Windowed
    context = make(codec=codec, instructions="", context_length=4096)
    world = household.build(**KITCHEN)
    collector = collector_of(world, codec, opened, context)
    pair = kitchen_pair(collector, world)
    message = RevisionMessage(wait=world.no_op, template="{wait}", encode=codec.encode_action)
    script = revision_script(pair, 2, message, key="r")
    record = splice_text(script, context, answer="ok.")
    assert record is not None and len(record.turns) == 3 + len(pair.good.turns)
    # Nothing depends on what came later: up to the cut it is the bad episode itself.
    assert [t.prompt_ids for t in record.turns[:2]] == [t.prompt_ids for t in pair.bad.turns[:2]]
    assert record.turns[2].prompt_ids == pair.bad.turns[2].prompt_ids, "the message answers to the bad step's outcome"
    assert record.turns[3].observed[-1].content.splitlines()[-1 if kind == "append" else -2] == "ok."
    if kind == "append":
        for before, after in zip(record.turns, record.turns[1:], strict=False):
            known = (*before.prompt_ids, *before.action_ids)
            assert after.prompt_ids[: len(known)] == known
    assert [any(learned_mask(t)) for t in record.turns] == [False] * 2 + [True] * (1 + len(pair.good.turns))
    # SFT on the stored record masks the same tokens, in one row or in one row per turn.
    rows = sft_rows([record], vocab_size=100_000, max_length=100_000)
    learned = [i for t in record.turns for i, on in zip(t.action_ids, learned_mask(t), strict=True) if on]
    assert [label for row in rows for label in row["labels"] if label != IGNORED] == learned
    assert len(rows) == (1 if kind == "append" else 1 + len(pair.good.turns))
    # What followed the bad path's last step is on no record.
    assert splice_text(revision_script(pair, 3, message, key="r"), context, answer="ok.") is None


def test_a_round_is_built_from_families(codec: ChatCodec, opened: list[Collector]) -> None:
    world = household.build(**KITCHEN)
    collector = collector_of(world, codec, opened)
    pair = kitchen_pair(collector, world)
    family = Group(id="tree", task=pair.bad.task, seed=3, trajectories=(pair.bad, pair.good))
    settings = RevisionSettings(merit="success", verifier="value", revise="none")
    builder = RevisionBuilder(
        settings=settings,
        collector=collector,
        verifier=ValueVerifier(0.0),
        message=None,
        judge=judged(collector),
        history=True,
    )
    found = builder.build([judged(collector)(family)], alpha=1.0, key="0/0")
    assert (len(found.records), len(found.good), found.best_score) == (1, 1, 1.0)
    told = found.metrics
    assert told["revisions/cut_mean"] == 1.0 and told["revisions/rejected_frac"] == 0.0
    assert told["revisions/env_calls_count"] == 2 + len(pair.good.turns)
    assert len(found.lessons(good=False)) == len(pair.good.turns)
    assert len(found.lessons(good=True)) == 2 * len(pair.good.turns)
    again = builder.build([judged(collector)(family)], alpha=1.0, key="0/0")
    assert [t.prompt_ids for r in again.records for t in r.turns] == [
        t.prompt_ids for r in found.records for t in r.turns
    ]
    assert splice_of("auto", "exact") == "replay" and splice_of("auto", "replay") == "text"


def test_a_message_must_act_by_its_waiting_action() -> None:
    assert message_template("all", "", "look") == "{wait}"
    assert message_template("after_think", "", "look") == "<think>{thought}</think>{wait}"
    assert message_template(r"do: (.*)", "{thought} do: {wait}", "look") == "{thought} do: {wait}"
    for rule, template in (("all", "{thought} {wait}"), (r"do: (.*)", ""), ("all", "{thought}")):
        with pytest.raises(ConfigError, match="a revision message has to act by"):
            message_template(rule, template, "look")


def test_the_household_s_idle_command_changes_nothing_anywhere(tmp_path: Path) -> None:
    for wording in ("plain", "state", "compact"):
        world = household.build(**(KITCHEN | {"wording": wording}))
        for task in world.tasks("train")[:3]:
            env, teacher = world.make(), world.teacher(task)
            seen = env.reset(task, 3)
            for _ in range(4):
                key = env.fingerprint()
                assert not env.step(world.no_op).terminated and env.fingerprint() == key
                answer = env.step(teacher.act(env, seen))
                if answer.terminated:
                    break
                seen = answer.observation
