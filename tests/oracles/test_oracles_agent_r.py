"""Agent-R's numbers, worked out by hand (arXiv:2501.11425): pairs, cuts, splice positions, masks, and replays."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwright.contracts import DataError, Message, Span, StopReason, Trajectory, Turn
from rollwright.methods import revision_pairs, revisions, turn_lessons
from rollwright.methods.revision_builder import require_disjoint
from tests import builders

LEAVES = [0.0, 0.4, 0.7, 1.0]


def pairs(scores: list[float], alpha: float, threshold: revision_pairs.Threshold) -> set[tuple[float, float]]:
    found = revision_pairs.revision_pairs(scores, alpha=alpha, beta=0.2, threshold=threshold)
    assert len(found) == len(set(found))
    return {(scores[i], scores[j]) for i, j in found}


def test_pairs_of_four_leaves() -> None:
    every = {(0.0, 0.7), (0.4, 0.7), (0.0, 1.0), (0.4, 1.0), (0.7, 1.0)}
    assert pairs(LEAVES, 0.5, "above") == every
    assert pairs(LEAVES, 0.7, "above") == {(0.0, 1.0), (0.4, 1.0), (0.7, 1.0)}
    assert pairs(LEAVES, 1.0, "above") == set(), "a last round of alpha = 1 has no data under the strict rule"
    assert pairs(LEAVES, 0.7, "at_least") == every
    assert pairs(LEAVES, 1.0, "at_least") == {(0.0, 1.0), (0.4, 1.0), (0.7, 1.0)}


@pytest.mark.parametrize(("low", "high", "taken"), [(0.5, 0.7, False), (0.7, 0.9, False), (0.5, 0.71, True)])
def test_the_gap_is_strict_and_binary_fractions_do_not_decide_it(low: float, high: float, taken: bool) -> None:
    """In floating point 0.7 - 0.5 falls below 0.2 and 0.9 - 0.7 above it: both are 0.2, which is no more than beta."""
    assert 0.7 - 0.5 < 0.2 < 0.9 - 0.7
    assert bool(pairs([low, high], 0.5, "at_least")) is taken


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]), max_size=8), st.sampled_from([0.0, 0.2, 0.5]))
def test_pairs_agree_with_a_slow_loop_over_fractions(scores: list[float], beta: float) -> None:
    found = revision_pairs.revision_pairs(scores, alpha=0.5, beta=beta, threshold="at_least")
    hundredths = [round(100 * score) for score in scores]
    slow = [
        (i, j)
        for i, low in enumerate(hundredths)
        for j, high in enumerate(hundredths)
        if high >= 50 and high - low > round(100 * beta)
    ]
    assert sorted(found) == sorted(slow)


@pytest.mark.parametrize("bad", [{"alpha": 1.5}, {"alpha": -0.1}, {"beta": -0.1}, {"beta": float("nan")}])
def test_thresholds_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="alpha lies within"):
        revision_pairs.revision_pairs(LEAVES, **({"alpha": 0.5, "beta": 0.2} | bad))
    with pytest.raises(ValueError, match=r"within \[0, 1\], got -16"):
        revision_pairs.revision_pairs([-16.0, 1.0], alpha=0.5, beta=0.2)
    with pytest.raises(ValueError, match="did you mean 'above'"):
        revision_pairs.is_good(0.5, 0.5, "abov")  # type: ignore[arg-type]


def test_pairs_are_shuffled_by_the_key_alone_and_limited() -> None:
    every = revision_pairs.revision_pairs(LEAVES, alpha=0.5, beta=0.2)
    orders = {tuple(revision_pairs.chosen_pairs(every, at_most=0, key=str(key))) for key in range(20)}
    assert len(orders) > 5 and all(sorted(order) == sorted(every) for order in orders)
    random.seed(1)
    first = revision_pairs.chosen_pairs(every, at_most=2, key="0/1")
    assert len(first) == 2 and revision_pairs.chosen_pairs(every, at_most=2, key="0/1") == first


def test_the_cut_keeps_the_first_bad_step_and_all_where_none_is_bad() -> None:
    assert revision_pairs.kept_steps(["good", "uncertain", "bad", "good", "bad"]) == 3
    assert revision_pairs.kept_steps(["good"] * 5) == 5
    with pytest.raises(ValueError, match="did you mean 'bad'"):
        revision_pairs.kept_steps(["bads"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("answer", "rating"),
    [("bad", "bad"), (" Bad.", "bad"), ("good\n", "good"), ("uncertain", "uncertain")]
    + [(text, "uncertain") for text in ("not bad", "bad good", "", "badly", "bad; import os", "I rate it bad")],
)
def test_a_rating_is_one_of_three_words_and_nothing_else(answer: str, rating: str) -> None:
    assert revision_pairs.parse_rating(answer) == rating


def test_alpha_rises_by_rounds_and_keeps_its_last() -> None:
    assert [revision_pairs.round_alpha([0.5, 0.7, 1.0], number) for number in range(5)] == [0.5, 0.7, 1.0, 1.0, 1.0]


def step(state: str, action: str, ids: tuple[int, ...], prompt: int, **fields: object) -> Turn:
    """A turn in `state` whose prompt and ids are told apart."""
    observed = (Message(role="user", content=f"at {state}"),)
    spans = (Span(start=0, end=len(ids), version=4),)
    return builders.turn((prompt,), ids, text=action, state_key=state, observed=observed, spans=spans, **fields)


# Tokens of an action end in 9, the end of a turn.
START = step("s", "in", (1, 9), 100)
BAD = (START, step("a", "b1", (2, 9), 101), step("b", "b2", (3, 3, 9), 102), step("c", "b3", (4, 9), 103))
GOOD = (START, step("a", "g1", (5, 5, 9), 101), step("d", "g2", (6, 9), 104))


def leaf(name: str, turns: tuple[Turn, ...], *, success: bool) -> Trajectory:
    stop = StopReason.TERMINATED if success else StopReason.MAX_TURNS
    return builders.episode(name, *turns, success=success, stop=stop)


def pair() -> revision_pairs.RevisionPair:
    (found,) = revision_pairs.family_pairs(
        [leaf("bad", BAD, success=False), leaf("good", GOOD, success=True)],
        [0.0, 1.0],
        alpha=0.5,
        beta=0.2,
        threshold="above",
        at_most=0,
        key="k",
    )
    return found


def said(text: str) -> tuple[int, ...]:
    return (*(7 for _ in text.split()), 9)


def test_masks_lie_on_message_and_good_steps_token_for_token() -> None:
    """Two bad steps kept: the loss lies on {v, g1, g2} with their end tokens, and on nothing else."""
    found = pair()
    assert (found.bad.id, found.good.id, found.shared) == ("bad", "good", 1)
    message = revisions.RevisionMessage(wait="wait", template="{wait}", encode=said)
    script = revisions.revision_script(found, 2, message, key="r")
    turns = [t for t in script.turns]
    assert [t.text for t in turns] == ["in", "b1", "b2", "wait", "g1", "g2"]
    record = script.finished(turns, stop=StopReason.TERMINATED, success=True)
    masks = [turn_lessons.learned_mask(t) for t in record.turns]
    assert masks == [(False,) * 2, (False,) * 2, (False,) * 3, (True,) * 2, (True,) * 3, (True,) * 2]
    learned = [
        i for t, mask in zip(record.turns, masks, strict=True) for i, m in zip(t.action_ids, mask, strict=True) if m
    ]
    assert learned == [7, 9, 5, 5, 9, 6, 9]
    assert record.branch is not None and (record.branch.parent, record.branch.turn) == ("bad", 3)
    # Nobody sampled the learned steps after these words: a policy gradient leaves them out.
    assert [any(t.policy_mask) for t in record.turns] == [True] * 3 + [False] * 3
    assert record.version == 4 and record.origin == "scripted"


def test_a_batch_of_lessons_holds_the_learned_tokens_and_no_other() -> None:
    message = revisions.RevisionMessage(wait="wait", template="{wait}", encode=said)
    script = revisions.revision_script(pair(), 2, message, key="r")
    prompted = [t if t.prompt_ids else builders.turn((105,), t.action_ids, 0.0, spans=t.spans) for t in script.turns]
    record = script.finished(prompted, stop=StopReason.TERMINATED, success=True)
    batch = turn_lessons.lesson_batch(turn_lessons.episode_lessons(record))
    assert len(batch) == 7 and int(batch.mask.sum()) == 7 and batch.advantages.tolist() == [1.0] * 7
    assert [tuple(s.action_ids) for s in batch.segments] == [(7, 9), (5, 5, 9), (6, 9)]


def test_without_a_message_the_good_steps_follow_the_bad_ones() -> None:
    script = revisions.revision_script(pair(), 1, None, key="r")
    assert [t.text for t in script.turns] == ["in", "b1", "g1", "g2"] and script.context == 2
    for kept in (0, 4):
        with pytest.raises(ValueError, match="has 3 of its own"):
            revisions.revision_script(pair(), kept, None, key="r")


def test_a_forced_token_stays_one_that_nobody_chose() -> None:
    spans = (Span(start=0, end=1, version=-1, producer="forced"), Span(start=1, end=2, version=4))
    turn = builders.turn((1,), (2, 3), spans=spans)
    assert turn_lessons.learned_mask(revisions.as_lesson(turn)) == (False, True)
    assert turn_lessons.learned_mask(revisions.as_context(turn)) == (False, False)


def test_a_value_by_rollouts_and_where_it_drops() -> None:
    """Leaves in -> (b1 -> (b2 -> b3: 0, x: 0.6), g: 1): the values along the bad path are 8/15, 8/15, 0.3, 0, 0."""
    other = (*BAD[:2], step("b", "x", (8, 9), 102))
    leaves = [leaf("bad", BAD, success=False), leaf("mid", other, success=False), leaf("good", GOOD, success=True)]
    values = revision_pairs.prefix_values(leaves[0], leaves, [0.0, 0.6, 1.0])
    assert values == pytest.approx([8 / 15, 8 / 15, 0.3, 0.0, 0.0])
    assert revision_pairs.ratings_by_value(values, drop=0.0) == ["good", "bad", "bad", "good"]
    assert revision_pairs.ratings_by_value(values, drop=0.25) == ["good", "good", "bad", "good"]


def test_leaf_scores() -> None:
    won = leaf("good", GOOD, success=True)
    assert revision_pairs.leaf_score(won, "success") == 1.0
    assert revision_pairs.leaf_score(won, "discounted_success", 0.9) == pytest.approx(0.81)
    assert revision_pairs.leaf_score(leaf("bad", BAD, success=False), "discounted_success", 0.9) == 0.0
    disaster = builders.episode("d", builders.turn((1,), (2,), -5.0))
    assert revision_pairs.leaf_score(disaster, "return") == 0.0
    with pytest.raises(DataError, match="return of 7, and thresholds lie within"):
        revision_pairs.leaf_score(builders.episode("d", builders.turn((1,), (2,), 7.0)), "return")


def test_repeating_a_failing_action() -> None:
    def walk(*steps: tuple[str, str]) -> Trajectory:
        return builders.episode("e", *(step(state, action, (1,), 1) for state, action in steps))

    assert revision_pairs.repeats_failing_action(walk(("a", "up"), ("a", "up")))
    assert revision_pairs.repeats_failing_action(walk(("a", "up"), ("a", "down"), ("b", "up"), ("a", "up"), ("a", "x")))
    assert not revision_pairs.repeats_failing_action(walk(("a", "up"), ("b", "down"), ("a", "up"), ("b", "x")))
    assert not revision_pairs.repeats_failing_action(walk(("a", "up"), ("a", "down"), ("b", "up")))
    assert not revision_pairs.repeats_failing_action(walk(("", "up"), ("", "up"), ("", "up")))


def test_held_out_tasks_are_never_searched() -> None:
    held_out = builders.episode("h", GOOD[0], split="test", task="t")
    with pytest.raises(DataError, match="split 'test'"):
        revision_pairs.family_pairs(
            [held_out, held_out], [0.0, 1.0], alpha=0.5, beta=0.2, threshold="above", at_most=0, key="k"
        )
    one, other = builders.episode("a", task="one").task, builders.episode("b", task="one", split="test").task
    with pytest.raises(DataError, match="1 training tasks are held-out tasks too, such as 'one'"):
        require_disjoint({"train": [one], "test": [other]})
    require_disjoint({"train": [one], "test": []})
