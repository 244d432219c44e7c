"""The shipped rewards by hand, check_reward on all of them, and every way of breaking the reward contract caught."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.checks.reward_check import check_reward
from rollwright.contracts.errors import ConfigError, ContractViolation, RewardFault
from rollwright.contracts.record import Group, Score, Span, StopReason, Task, Trajectory, Turn
from rollwright.contracts.reward import EnvReward, Reward, StatefulReward, score_group
from rollwright.rewards import combine, env, overlong, success
from rollwright.rollout import FaultLog, score_or_note
from tests import builders
from tests.builders import group

TASK = Task(id="t", split="train")


def trajectory(name: str, *rewards: Mapping[str, float], tokens: int = 2, **fields: Any) -> Trajectory:
    turns = [builders.turn((9,), range(tokens), earned, logprobs=-0.5, text="a") for earned in rewards]
    return builders.episode(name, *turns, **fields)


GROUPS = (
    group(
        trajectory("a", {"env": -1.0}, {"env": 0.0}, success=True),
        trajectory("b", {"env": -1.0}, {}, {"env": -4.0, "timeout": -1.0}, stop=StopReason.MAX_TURNS, success=False),
        trajectory("c", {"env": 0.5}, stop=StopReason.TIMEOUT),
        trajectory("d", {"env": 1.0}, stop=StopReason.ENV_ERROR),
        trajectory("e", stop=StopReason.ABORTED),
    ),
    group(trajectory("f", {"env": 2.0}, success=True, tokens=9), name="h"),
)


class Length:
    """A plain verifier of the tests: one point per turn."""

    name = "length"

    def score(self, group: Group) -> list[Score]:
        return [Score(value=float(len(t.turns)), verifier=self.name) for t in group.trajectories]


# What we ship


@pytest.mark.parametrize(
    "reward",
    [
        env.build,
        success.build,
        Length,
        lambda: combine.build(weights={"env": 1.0, "success": 0.5}),
        lambda: combine.build(weights={"env": 1.0, "length": -0.25}, rewards=[Length()]),
        lambda: overlong.build(max_tokens=8, buffer_tokens=6),
        lambda: overlong.build(max_tokens=8, buffer_tokens=6, weight=0.5, base=success.build()),
        lambda: overlong.build(max_tokens=4, buffer_tokens=4, base=combine.build(weights={"env": 1.0, "success": 1.0})),
    ],
)
def test_every_shipped_reward_keeps_the_contract(reward: Callable[[], Reward]):
    check_reward(reward(), GROUPS)


def test_env_is_the_default_reward():
    assert isinstance(env.build(), EnvReward)


def test_success_is_one_nought_or_no_verdict():
    scores = success.build().score(group(*GROUPS[0].trajectories[:3]))
    assert [score.value for score in scores] == [1.0, 0.0, None]
    assert scores[2].message


def test_combined_parts_keep_their_names_and_turns():
    reward = combine.build(weights={"env": 2.0, "success": 0.5, "length": -1.0}, rewards=[Length()])
    scored = score_group(group(*GROUPS[0].trajectories[:2]), reward)
    first, second = scored.trajectories
    assert [dict(turn.rewards) for turn in first.turns] == [{"env": -2.0}, {"env": 0.0, "success": 0.5, "length": -2.0}]
    assert first.score is not None and first.score.value == -3.5
    last = {"env": -8.0, "env/timeout": -2.0, "success": 0.0, "length": -3.0}
    assert [dict(turn.rewards) for turn in second.turns] == [{"env": -2.0}, {}, last]


@pytest.mark.parametrize(
    "reward",
    [
        success.build,
        lambda: combine.build(weights={"env": 2.0, "success": 0.5}),
        lambda: overlong.build(max_tokens=3, buffer_tokens=2),
    ],
)
def test_a_reward_that_scores_twice_says_the_same_and_what_the_environment_paid_stays_known(
    reward: Callable[[], Reward],
):
    before = group(*GROUPS[0].trajectories[:2])
    once = score_group(before, reward())
    assert score_group(once, reward()) == once
    for was, now in zip(before.trajectories, once.trajectories, strict=True):
        assert [dict(turn.paid) for turn in now.turns] == [dict(turn.rewards) for turn in was.turns]
    assert score_group(once, EnvReward()) == score_group(before, EnvReward())


def test_a_sum_is_undecided_where_one_part_is():
    scores = combine.build(weights={"env": 1.0, "success": 1.0}).score(group(*GROUPS[0].trajectories[:3]))
    assert [score.value for score in scores] == [0.0, -6.0, None]
    assert "success" in scores[2].message


@pytest.mark.parametrize(
    ("num_tokens", "penalty"), [(0, 0.0), (12, 0.0), (13, -0.125), (16, -0.5), (20, -1.0), (99, -1.0)]
)
def test_the_overlong_penalty_by_hand(num_tokens: int, penalty: float):
    # limit 20, buffer 8: free up to 12, then an eighth per token
    assert overlong.overlong_penalty(num_tokens, max_tokens=20, buffer_tokens=8) == penalty


def test_the_overlong_part_lies_on_the_last_turn():
    long = trajectory("a", {"env": 1.0}, {"env": 2.0}, tokens=5, success=True)  # 10 action tokens
    scored = score_group(group(long), overlong.build(max_tokens=12, buffer_tokens=4, weight=3.0))
    assert [dict(t.rewards) for t in scored.trajectories[0].turns] == [{"env": 1.0}, {"env": 2.0, "overlong": -1.5}]
    on_success = overlong.build(max_tokens=12, buffer_tokens=4, base=success.build())
    scored = score_group(group(long), on_success)
    assert [dict(t.rewards) for t in scored.trajectories[0].turns] == [{}, {"success": 1.0, "overlong": -0.5}]
    undecided = overlong.build(max_tokens=12, buffer_tokens=4, base=success.build())
    assert undecided.score(group(GROUPS[0].trajectories[2]))[0].value is None


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: combine.build(weights={}),
        lambda: combine.build(weights={"sucess": 1.0}),
        lambda: combine.build(weights={"env": math.nan}),
        lambda: combine.build(weights={"env": 1.0}, rewards=[Length()]),
        lambda: combine.build(weights={"length": 1.0}, rewards=[Length(), Length()]),
        lambda: overlong.build(max_tokens=4, buffer_tokens=5),
        lambda: overlong.build(max_tokens=4, buffer_tokens=0),
        lambda: overlong.build(max_tokens=4, buffer_tokens=2, weight=-1.0),
    ],
)
def test_options_without_meaning_are_refused(wrong: Callable[[], Reward]):
    with pytest.raises(ConfigError):
        wrong()


class RunningMean:
    """A reward with state: what is above the mean of all groups seen so far."""

    name = "running"

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def score(self, group: Group) -> list[Score]:
        for t in group.trajectories:
            self.total, self.count = self.total + t.total_reward, self.count + 1
        mean = self.total / self.count
        return [Score(value=t.total_reward - mean, verifier=self.name) for t in group.trajectories]

    def state_dict(self) -> Mapping[str, Any]:
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda base: base,
        lambda base: combine.build(weights={"env": 1.0, "running": 1.0}, rewards=[base]),
        lambda base: overlong.build(max_tokens=5, buffer_tokens=2, base=base),
    ],
)
def test_state_passes_the_check_and_is_carried_by_what_wraps_it(wrap: Callable[[RunningMean], StatefulReward]):
    check_reward(wrap(RunningMean()), GROUPS)
    base, fresh = RunningMean(), RunningMean()
    wrapped = wrap(base)
    wrapped.score(group(*GROUPS[0].trajectories[:3]))
    wrap(fresh).load_state_dict(wrapped.state_dict())
    assert (fresh.total, fresh.count) == (base.total, base.count) == (-6.5, 3)


# Broken rewards


class Broken:
    """One score of 1.0 each; subclasses break one thing."""

    name = "broken"

    def score(self, group: Group) -> Sequence[Any]:
        return [self.one(t, i) for i, t in enumerate(group.trajectories)]

    def one(self, trajectory: Trajectory, place: int) -> Any:
        return Score(value=1.0, verifier=self.name)


class ScoresByPlace(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        return Score(value=float(place), verifier=self.name)


class TooFew(Broken):
    def score(self, group: Group) -> Sequence[Any]:
        return super().score(group)[:-1]


class PlainNumbers(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        return 1.0


class DrawsChance(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        return Score(value=random.random(), verifier=self.name)


class DrawsParts(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        x = random.random()
        return Score(value=1.0, verifier=self.name, parts={"a": x, "b": 1.0 - x})


class SometimesUndecided(Broken):
    calls = 0

    def one(self, trajectory: Trajectory, place: int) -> Any:
        self.calls += 1
        return Score(value=1.0 if self.calls < 3 else None, verifier=self.name)


class Raises(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        raise KeyError("answer")


class GivesNan(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        return Score(value=math.nan, verifier=self.name)


class PartsDoNotSum(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        return Score(value=1.0, verifier=self.name, parts={"tests": 0.8, "length": -0.1})


class InfiniteParts(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        return Score(value=0.0, verifier=self.name, parts={"up": math.inf, "down": -math.inf})


class TurnPartsDoNotSum(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        return Score(value=1.0, verifier=self.name, turn_parts=({"a": 0.0},) * len(trajectory.turns))


class TurnPartsForOneTurn(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        return Score(value=1.0, verifier=self.name, turn_parts=({"a": 1.0},))


class ChangesTheGroup(Broken):
    def one(self, trajectory: Trajectory, place: int) -> Any:
        trajectory.turns[-1].rewards["seen"] = 1.0  # type: ignore[index]
        return Score(value=1.0, verifier=self.name)


class RemembersGroups(Broken):
    """Judges a group another way once it has been seen: a cache that is wrong."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def score(self, group: Group) -> Sequence[Any]:
        known = group.id in self.seen
        self.seen.add(group.id)
        return [Score(value=float(known), verifier=self.name) for _ in group.trajectories]


class Nameless(Broken):
    name = ""


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (ScoresByPlace, "with the trajectories in another order"),
        (TooFew, "gave 2 scores for 3 trajectories"),
        (PlainNumbers, "must give Score objects, got float"),
        (DrawsChance, "at the second call"),
        (DrawsParts, "at the second call"),
        (SometimesUndecided, "at the second call"),
        (Raises, "score() raised KeyError"),
        (GivesNan, "score() raised ValueError"),
        (PartsDoNotSum, "parts must sum to the value"),
        (InfiniteParts, "parts must be finite"),
        (TurnPartsDoNotSum, "turn_parts must sum to the value"),
        (TurnPartsForOneTurn, "turn_parts must have one entry per turn"),
        (ChangesTheGroup, "changed the group it was given"),
        (RemembersGroups, "at the second call"),
        (Nameless, "name must be text"),
    ],
)
def test_every_broken_reward_is_caught(reward: type[Broken], said: str):
    fresh = group(
        trajectory("a", {"env": -1.0}, {"env": 0.0}),
        trajectory("b", {"env": -1.0}, {}, {"env": -4.0}),
        trajectory("c", {"env": 0.5}),
    )
    with pytest.raises(ContractViolation) as caught:
        check_reward(reward(), [fresh])
    assert any(said in violation for violation in caught.value.violations), caught.value.violations


class OfNoUse:
    """Compares with nothing, is no number, and cannot be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def _overlong(base: Reward) -> Reward:
    return overlong.build(max_tokens=8, buffer_tokens=2, base=base)


def _given(**fields: Any) -> Score:
    return Score(**{"value": 1.0, "verifier": "user", **fields})


BREACHES: dict[str, tuple[Callable[[Trajectory], Any], str]] = {
    "a float": (lambda t: 1.0, "must give Score objects, got float"),
    "text": (lambda t: "1.0", "must give Score objects, got str"),
    "None": (lambda t: None, "must give Score objects, got NoneType"),
    "NaN itself": (lambda t: math.nan, "must give Score objects, got float"),
    "a value of NaN": (lambda t: _given(value=math.nan), "nan"),
    "a value of infinity": (lambda t: _given(value=math.inf), "inf"),
    "a value beyond the bound": (lambda t: _given(value=1e31), "at most 1e+30"),
    "an int beyond all floats": (lambda t: _given(value=10**400), "too large"),
    "a value of text": (lambda t: _given(value="1.0"), "must be real number"),
    "NaN among the parts": (lambda t: _given(parts={"a": math.nan}), "parts must be finite"),
    "text among the parts": (lambda t: _given(parts={"a": "1.0"}), "parts must be finite"),
    "None among the parts": (lambda t: _given(parts={"a": None}), "parts must be finite"),
    "a huge part": (lambda t: _given(parts={"a": 2e30}), "parts must be finite"),
    "a part without a name": (lambda t: _given(parts={1: 1.0}), "names that are text"),
    "parts that are a list": (lambda t: _given(parts=[1.0]), "parts must be a mapping"),
    "parts of None": (lambda t: _given(parts=None), "parts must be a mapping"),
    "turn parts of None": (lambda t: _given(turn_parts=(None,) * len(t.turns)), "a mapping of names to numbers"),
    "NaN on a turn": (lambda t: _given(turn_parts=({"a": math.nan},) * len(t.turns)), "turn_parts must be finite"),
    "too few turn parts": (lambda t: _given(turn_parts=()), "one entry per turn"),
    "a verifier of None": (lambda t: _given(verifier=None), "verifier and message must be text"),
    "an object of its own": (lambda t: OfNoUse(), "must give Score objects, got OfNoUse"),
    "such an object inside": (lambda t: _given(parts={"a": OfNoUse()}), "parts must be finite"),
}


@pytest.mark.parametrize("case", BREACHES)
def test_a_users_broken_score_is_a_noted_reward_fault_that_says_what_check_reward_says(case: str, tmp_path: Path):
    give, said = BREACHES[case]

    class OfAUser(Broken):
        def one(self, trajectory: Trajectory, place: int) -> Any:
            return give(trajectory) if place == 1 else Score(value=1.0, verifier=self.name)

    fresh = group(trajectory("a", {"env": -1.0}), trajectory("b", {"env": -1.0}, {}), trajectory("c", {"env": 0.5}))
    with pytest.raises(RewardFault, match="reward 'broken'") as fault:
        score_group(fresh, OfAUser())
    with pytest.raises(ContractViolation) as caught:
        check_reward(OfAUser(), [fresh])
    assert said in str(fault.value) and any(said in violation for violation in caught.value.violations)
    for around in (combine.build(weights={"broken": 2.0}, rewards=[OfAUser()]), _overlong(OfAUser())):
        with pytest.raises(RewardFault, match="reward 'broken'") as inside:
            score_group(fresh, around)
        assert said in str(inside.value)
    noted = score_or_note(fresh, OfAUser(), FaultLog(tmp_path / "faults.jsonl", max_frac=1.0))
    assert [t.score.value for t in noted.trajectories if t.score] == [None] * 3
    assert said in noted.trajectories[0].score.message  # type: ignore[union-attr]


def test_a_reward_on_a_token_that_nobody_chose_is_a_reward_fault():
    forced = Turn(
        prompt_ids=(9,),
        action_ids=(1,),
        action_logprobs=(0.0,),
        text="a",
        spans=(Span(start=0, end=1, version=0, producer="forced"),),
    )
    played = Trajectory(id="a", task=TASK, seed=0, turns=(forced,), stop_reason=StopReason.TERMINATED)
    try:
        scored = score_group(group(played), Length())
    except RewardFault as fault:
        assert "forced token" in str(fault)
    else:  # where such rewards are allowed they must have arrived
        assert scored.trajectories[0].turns[0].rewards == {"length": 1.0}


def test_faulted_trajectories_are_not_shown():
    shown: set[str] = set()

    class Watches(Broken):
        def one(self, trajectory: Trajectory, place: int) -> Any:
            shown.add(trajectory.id)
            return super().one(trajectory, place)

    check_reward(Watches(), GROUPS)
    assert shown == {"a", "b", "c", "f"}


def test_nothing_to_score_proves_nothing():
    with pytest.raises(ValueError, match="no trajectory to score"):
        check_reward(env.build(), [group(trajectory("a", {"env": 1.0}, stop=StopReason.ENV_ERROR))])
