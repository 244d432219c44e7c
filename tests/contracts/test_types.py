"""The record and the contracts: what may be learned from, where a reward lies, which seeds belong to whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollwright.contracts.environment import (
    SEEDS_PER_SPLIT,
    Observation,
    StepResult,
    as_observation,
    episode_seed,
    split_of_seed,
    state_key,
)
from rollwright.contracts.errors import RewardFault
from rollwright.contracts.record import SPLITS, Group, Producer, Score, Span, Split, StopReason, Task, Trajectory, Turn
from rollwright.contracts.reward import EnvReward, place_score, score_group
from tests import builders
from tests.builders import group

TASK = Task(id="t", split="train")


def turn(reward: float | Mapping[str, float] = 0.0, **fields: Any) -> Turn:
    prompt, action = fields.pop("prompt_ids", (1, 2)), fields.pop("action_ids", (3, 4))
    logprobs = fields.pop("action_logprobs", (-0.1, -0.2))
    return builders.turn(prompt, action, reward, logprobs=logprobs, **({"text": "a"} | fields))


def trajectory(name: str, *rewards: float, **fields: Any) -> Trajectory:
    return builders.episode(name, *map(turn, rewards), **fields)


class Scores:
    """A reward that gives what it was made with and keeps what it was shown."""

    name = "made"

    def __init__(self, *scores: Score) -> None:
        self.scores = scores
        self.shown: list[str] = []

    def score(self, group: Group) -> Sequence[Score]:
        self.shown = [t.id for t in group.trajectories]
        return self.scores


# Turn


def test_every_action_token_has_its_log_prob():
    with pytest.raises(ValueError, match="2 action ids but 1 log-probs"):
        turn(action_logprobs=(-0.1,))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused(value: float):
    with pytest.raises(ValueError, match="must be finite"):
        turn({"fine": 1.0, "broken": value})


def test_a_reward_on_a_forced_token_is_refused():
    forced = (Span(start=0, end=1, version=0), Span(start=1, end=2, version=0, producer="forced"))
    with pytest.raises(ValueError, match="forced token"):
        turn(1.0, spans=forced)
    with pytest.raises(ValueError, match="forced token"):
        turn({"up": 1.0, "down": -1.0}, spans=forced)  # parts that cancel are rewards all the same
    assert turn(0.0, spans=forced).action_mask == (True, False)
    assert (
        turn(1.0, spans=(Span(start=0, end=1, version=0, producer="forced"), Span(start=1, end=2, version=0))).reward
        == 1.0
    )


def test_masks_tell_chosen_tokens_from_forced_ones_and_the_policys_from_others():
    producers: tuple[Producer, ...] = ("policy", "guide", "dataset", "forced", "policy")
    versions = (7, 1, 2, 3, 5)
    spans = tuple(
        Span(start=i, end=i + 1, version=v, producer=p)
        for i, (v, p) in enumerate(zip(versions, producers, strict=True))
    )
    one = turn(1.0, action_ids=(1, 2, 3, 4, 5), action_logprobs=(0.0,) * 5, spans=spans)
    assert one.action_mask == (True, True, True, False, True)
    assert one.policy_mask == (True, False, False, False, True)
    assert one.version == 5  # the oldest of the policy's own
    plain = turn()
    assert (plain.action_mask, plain.policy_mask, plain.version) == ((True, True), (True, True), -1)


def test_the_reward_of_a_turn_is_the_sum_of_its_parts():
    assert turn({"tests": 0.8, "length": -0.1, "format": 0.1}).reward == pytest.approx(0.8)
    assert turn({}).reward == 0.0


# Trajectory and group


@pytest.mark.parametrize("stop", list(StopReason))
def test_faults_are_not_learnable_and_limits_are(stop: StopReason):
    faults = {StopReason.ENV_ERROR, StopReason.ENGINE_ERROR, StopReason.ABORTED}
    limits = {StopReason.MAX_TURNS, StopReason.MAX_TOKENS, StopReason.TIMEOUT}
    assert trajectory("a", 1.0, stop=stop).learnable is (stop not in faults)
    assert stop.is_fault is (stop in faults)
    assert stop.is_truncation is (stop in limits)


def test_what_else_cannot_be_learned_from():
    assert not trajectory("no turn").learnable
    assert not trajectory("log", 1.0, has_actions=False).learnable
    assert not trajectory("undecided", 1.0, score=Score(value=None, verifier="v")).learnable
    assert trajectory("zero", 1.0, score=Score(value=0.0, verifier="v")).learnable


def test_returns_to_go_by_hand():
    # 4; then 2 + 0.5 * 4; then 1 + 0.5 * 4
    assert trajectory("a", 1.0, 2.0, 4.0).returns_to_go(0.5) == [3.0, 4.0, 4.0]
    assert trajectory("a").returns_to_go(0.5) == []


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8), st.floats(0, 1))
@settings(deadline=None)
def test_returns_to_go_equal_the_double_sum(rewards: list[float], gamma: float):
    expected = [sum(gamma**k * r for k, r in enumerate(rewards[i:])) for i in range(len(rewards))]
    one = trajectory("a", *rewards)
    assert one.returns_to_go(gamma) == pytest.approx(expected, abs=1e-9)
    assert one.total_reward == pytest.approx(one.returns_to_go(1.0)[0], abs=1e-9)


def test_forced_tokens_are_not_counted():
    spans = (Span(start=0, end=1, version=0, producer="forced"), Span(start=1, end=2, version=0))
    turns = (turn(), turn(spans=spans))
    one = Trajectory(id="a", task=TASK, seed=0, turns=turns, stop_reason=StopReason.TERMINATED)
    assert one.num_action_tokens == 3


def test_a_group_holds_one_task_and_one_start():
    other = Trajectory(id="x", task=TASK, seed=1, turns=(), stop_reason=StopReason.TERMINATED)
    stranger = Trajectory(id="y", task=Task(id="u", split="train"), seed=0, turns=(), stop_reason=StopReason.TERMINATED)
    for wrong in (other, stranger):
        with pytest.raises(ValueError, match="holds others"):
            group(trajectory("a", 1.0), wrong)
    assert group(trajectory("a", 1.0, 2.0), trajectory("b", -1.0)).returns == [3.0, -1.0]


def test_a_task_belongs_to_a_known_split():
    with pytest.raises(ValueError, match="expected one of train, validation, test"):
        Task(id="t", split="dev")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_is_finite_or_none(value: float):
    with pytest.raises(ValueError, match="use None where it cannot tell"):
        Score(value=value, verifier="v")


# Environment helpers


def test_step_results_name_their_rewards():
    assert StepResult(observation="x", reward=2).rewards == {"env": 2.0}
    assert StepResult(observation="x", reward={"a": 1.0, "b": -1.0}).rewards == {"a": 1.0, "b": -1.0}


def test_text_is_an_observation():
    assert as_observation("here") == Observation(text="here")
    kept = Observation(text="here", goal="there")
    assert as_observation(kept) is kept


@given(st.sampled_from(SPLITS), st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=4))
@settings(deadline=None)
def test_a_seed_belongs_to_the_split_it_was_drawn_for(split: Split, key: list[int | str]):
    seed = episode_seed(split, *key)
    assert split_of_seed(seed) == split
    assert seed == episode_seed(split, *key)


def test_seed_ranges_are_disjoint_and_bounded():
    edges = [0, SEEDS_PER_SPLIT - 1, SEEDS_PER_SPLIT, 2 * SEEDS_PER_SPLIT - 1, 2 * SEEDS_PER_SPLIT]
    assert [split_of_seed(seed) for seed in edges] == ["train", "train", "validation", "validation", "test"]
    for outside in (-1, 3 * SEEDS_PER_SPLIT):
        with pytest.raises(ValueError, match="episode_seed"):
            split_of_seed(outside)


def test_keys_spread_the_seeds():
    assert (
        len({episode_seed("train", run, step, index) for run in (1, 2) for step in range(50) for index in range(20)})
        > 1990
    )


def test_state_keys_tell_apart_where_the_parts_end():
    assert state_key("a", "b") == state_key("a", "b")
    assert len({state_key("a", "b"), state_key("ab"), state_key("b", "a"), state_key("a", "b", "")}) == 4


# Scoring a group


def test_env_reward_keeps_each_turns_rewards():
    scored = score_group(group(trajectory("a", 1.0, 0.0, -2.0), trajectory("b", 4.0)), EnvReward())
    assert [t.score.value for t in scored.trajectories if t.score] == [-1.0, 4.0]
    assert [t.rewards for t in scored.trajectories] == [[1.0, 0.0, -2.0], [4.0]]


def test_faults_and_empty_episodes_are_not_shown_and_keep_no_score():
    crashed = trajectory("crashed", 1.0, stop=StopReason.ENV_ERROR)
    reward = Scores(Score(value=0.5, verifier="v"))
    scored = score_group(group(crashed, trajectory("empty"), trajectory("fine", 1.0)), reward)
    assert reward.shown == ["fine"]
    assert [t.score is None for t in scored.trajectories] == [True, True, False]
    assert scored.trajectories[0] == crashed


def test_a_group_of_faults_is_left_alone():
    whole = group(trajectory("a", 1.0, stop=StopReason.ENGINE_ERROR))
    reward = Scores()
    assert score_group(whole, reward) is whole and reward.shown == []


def test_what_a_reward_raises_is_a_fault():
    class Broken:
        name = "broken"

        def score(self, group: Group) -> Sequence[Score]:
            raise ZeroDivisionError("no tests ran")

    with pytest.raises(RewardFault, match=r"'broken' failed on group g.*no tests ran") as caught:
        score_group(group(trajectory("a", 1.0)), Broken())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_wrong_number_of_scores_is_a_fault():
    with pytest.raises(RewardFault, match="gave 1 scores for 2 trajectories"):
        score_group(group(trajectory("a", 1.0), trajectory("b", 1.0)), Scores(Score(value=1.0, verifier="v")))


def test_scores_stay_with_their_trajectory():
    reward = Scores(Score(value=1.0, verifier="v"), Score(value=2.0, verifier="v"))
    crashed = trajectory("crashed", stop=StopReason.ABORTED)
    scored = score_group(group(trajectory("a", 0.0), crashed, trajectory("b", 0.0)), reward)
    assert {t.id: t.score and t.score.value for t in scored.trajectories} == {"a": 1.0, "crashed": None, "b": 2.0}


def test_a_score_lies_on_the_last_turn_unless_it_says_otherwise():
    one = trajectory("a", 5.0, 5.0, 5.0)
    whole = place_score(one, Score(value=0.5, verifier="judge"))
    assert [dict(t.rewards) for t in whole.turns] == [{}, {}, {"judge": 0.5}]
    parts = place_score(one, Score(value=0.7, verifier="judge", parts={"tests": 0.8, "length": -0.1}))
    assert [dict(t.rewards) for t in parts.turns] == [{}, {}, {"tests": 0.8, "length": -0.1}]
    by_turn = place_score(one, Score(value=3.0, verifier="judge", turn_parts=({"a": 1.0}, {}, {"a": 2.0})))
    assert by_turn.rewards == [1.0, 0.0, 2.0]


def test_a_verifier_that_cannot_tell_changes_no_reward():
    one = trajectory("a", 5.0)
    unsure = place_score(one, Score(value=None, verifier="judge"))
    assert unsure.rewards == [5.0] and not unsure.learnable


def test_parts_for_another_number_of_turns_are_a_fault():
    with pytest.raises(RewardFault, match="parts for 1 turns of 2"):
        place_score(trajectory("a", 0.0, 0.0), Score(value=1.0, verifier="v", turn_parts=({"a": 1.0},)))
