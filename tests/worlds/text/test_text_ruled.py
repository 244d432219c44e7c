"""A world under rules: events, costs, pay, shield, snapshots, and what is refused when it is built."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rollwright.contracts import ConfigError, Observation, as_observation, episode_seed
from rollwright.envs.text.house.household_rules import EVENTS
from rollwright.envs.text.household import build as build_household
from rollwright.envs.text.ruled import REFUSED, RuledWorld, build

SMALL = {"size": "small", "wording": "compact"}


def household(**options: Any) -> RuledWorld:
    """The small household under rules."""
    return build(world="text.household", options=SMALL, **options)


def played(world: RuledWorld, number: int, chance: float = 0.0) -> tuple[list[Any], Any]:
    """The results of one episode of the teacher, who acts at random in a share of the turns; and its environment."""
    task = world.tasks("train")[number]
    env, teacher = world.make(), world.teacher(task)
    assert teacher is not None
    draws, results = random.Random(number), []
    seen = as_observation(env.reset(task, episode_seed("train", number)))
    goal = seen.goal
    while True:
        stray = draws.random() < chance
        shown = Observation(text=seen.text, goal=goal)
        action = world.random_action(env, shown, draws) if stray else teacher.act(env, shown)
        results.append(env.step(action))
        if results[-1].terminated or results[-1].truncated:
            return results, env
        seen = as_observation(results[-1].observation)


@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_every_action_is_an_event_and_a_slip_is_one_that_brings_nothing(chance: float) -> None:
    world = household(rules={"no_slip": "G !slip"})
    seen = set()
    task = world.tasks("train")[0]
    env = world.make()
    env.reset(task, episode_seed("train", 0))
    draws = random.Random(3)
    for _ in range(40):
        action = world.random_action(env, Observation(text=""), draws) if draws.random() < 0.8 else "sing a song"
        event = world.event_of(env, action)
        before = env.inner.fingerprint()
        result = env.step(action)
        assert event in EVENTS
        assert (event == "slip") == (action == "sing a song")
        assert event != "slip" or env.inner.fingerprint() == before
        seen.add(event)
        if result.terminated or result.truncated:
            env.reset(task, episode_seed("train", 0))
    assert {"slip", "other"} <= seen


def test_a_broken_rule_costs_once_in_the_turn_that_breaks_it() -> None:
    world = household(rules={"no_look": "G !look", "free": "true"})
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    costs = [env.step(action).costs for action in ("sing", "look", "look")]
    assert [cost["broken_no_look"] for cost in costs] == [0.0, 1.0, 0.0]
    assert all(cost["broken_free"] == 0.0 for cost in costs)


def test_the_teacher_succeeds_and_breaks_a_rule_that_it_does_not_know() -> None:
    plain, strict = (household(rules={"close": "G (open_cabinet -> F close_cabinet)"}, strict=s) for s in (False, True))
    outcomes = [(played(plain, n)[0][-1].success, played(strict, n)[0][-1].success) for n in range(30)]
    assert all(loose for loose, _ in outcomes)
    assert 0 < sum(not obeyed for _, obeyed in outcomes) < 30


def test_the_shield_keeps_what_can_be_kept_and_says_so() -> None:
    rules = {"no_cabinet": "G !open_cabinet", "no_drawer": "G !open_drawer"}
    free, shielded = household(rules=rules), household(rules=rules, shield=True)
    broken = {"free": 0.0, "shielded": 0.0}
    said = 0
    for number in range(20):
        for name, world in (("free", free), ("shielded", shielded)):
            results, _ = played(world, number, chance=0.3)
            broken[name] += sum(sum(result.costs.values()) for result in results)
            said += sum(REFUSED in as_observation(result.observation).text for result in results)
    assert broken["free"] > 0
    assert broken["shielded"] == 0
    assert said > 0


def test_the_verdict_is_paid_once_at_the_end_beside_the_inner_reward() -> None:
    world = household(rules={"no_safe": "G !open_safe"}, pays="verdict", weight=0.5)
    results, env = played(world, 0)
    assert world.rules.kept(env.states)
    assert [result.rewards["rules"] for result in results] == [0.0] * (len(results) - 1) + [0.5]
    assert sum(result.rewards["env"] for result in results) == 1.0


def test_shaping_adds_up_to_the_difference_of_potentials() -> None:
    world = household(rules={"put": "F put", "close": "G (open_cabinet -> F close_cabinet)"}, pays="shaping")
    for number in range(10):
        results, env = played(world, number, chance=0.2)
        ends = sum(made.potential(env.states[name]) - made.potential(0) for name, made in world.rules.automata.items())
        assert sum(result.rewards["rules"] for result in results) == pytest.approx(ends)


def test_rules_without_pay_change_nothing_that_the_inner_world_does() -> None:
    world, inner = household(rules={"no_look": "G !look"}), build_household(size="small", wording="compact")
    task = inner.tasks("train")[5]
    one, other = world.make(), inner.make()
    assert one.reset(task, 7) == other.reset(task, 7)
    draws = random.Random(1)
    for _ in range(15):
        action = inner.random_action(other, Observation(text=""), draws)
        mine, theirs = one.step(action), other.step(action)
        assert (mine.observation, mine.rewards, mine.terminated, mine.success) == (
            theirs.observation,
            theirs.rewards,
            theirs.terminated,
            theirs.success,
        )
        if theirs.terminated or theirs.truncated:
            return


def test_a_snapshot_holds_what_the_rules_have_seen_and_fits_no_other_rules() -> None:
    world = household(rules={"twice": "F (look & X F look)"}, pays="shaping")
    env, copy = world.make(), world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    env.step("look")
    state = env.snapshot()
    copy.restore(state)
    assert copy.fingerprint() == env.fingerprint()
    assert copy.step("look").rewards == env.step("look").rewards
    assert copy.fingerprint() == env.fingerprint()
    with pytest.raises(ValueError, match="other rules"):
        household(rules={"other": "true"}).make().restore(state)


def test_an_overseer_is_told_what_breaks_a_rule() -> None:
    world = build(world="text.maze", options={"wording": "compact"}, rules={"no_bump": "G !bump"})
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    moves = ["move up", "move down", "move left", "move right"]
    answers = {move: world.override(env, Observation(text=""), move) for move in moves}
    bumps = {move for move in moves if world.event_of(env, move) == "bump"}
    assert bumps and {move for move, answer in answers.items() if answer == ""} == bumps


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rules": {"a": "G !fly"}}, "world.options.rules.a: the formula speaks of fly; the events are"),
        ({"rules": {"a": "G !("}}, "world.options.rules.a: .* is no formula"),
        ({"rules": {}}, "maps names to formulas"),
        ({"rules": {"a": 3}}, "formula as text"),
        ({"rules": {"a b": "true"}}, "letters, digits and underscores"),
        ({"rules": {"a": "true"}, "pays": "gold"}, "pays is one of nothing, verdict, shaping"),
        ({"rules": {"a": "true"}, "world": "text.bandit"}, "names events"),
    ],
)
def test_what_cannot_be_held_is_refused_when_the_world_is_built(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(**({"world": "text.household"} | options))
