"""SCoRe's numbers, worked out by hand (arXiv:2409.12917), and what it becomes when its parts are switched off."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rollwright.batching import observed_attempts, require_reward_per_attempt
from rollwright.contracts import ConfigError, Score, Trajectory
from rollwright.maths import (
    attempt_metrics,
    attempt_returns,
    edit_ratio,
    kl_to_go,
    leave_one_out_by_attempt,
    progress_rewards,
)
from rollwright.maths.advantages import rloo
from rollwright.recipes.score import AlgorithmSettings, credit, token_kl
from tests import builders

# Four episodes of one problem: (r1, r2) = (0, 1), (1, 1), (0, 0), (1, 0), the two attempts side by side.
REWARDS = torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
OWNERS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
ATTEMPTS = torch.tensor([0, 1] * 4)
GROUP = torch.zeros(8, dtype=torch.long)


def close(found: Tensor, *expected: float) -> None:
    torch.testing.assert_close(found, torch.tensor([float(x) for x in expected]), atol=2e-6, rtol=0)


def shaped(bonus: float = 10.0) -> Tensor:
    return progress_rewards(REWARDS, OWNERS, ATTEMPTS, bonus=bonus)


def test_the_bonus_pays_for_progress_and_charges_for_regress() -> None:
    close(shaped()[ATTEMPTS == 1], 11, 1, 0, -10)
    close(shaped()[ATTEMPTS == 0], 0, 1, 0, 1)
    close(shaped(0.0), *REWARDS.tolist())


def test_turn_local_credit_and_return_to_go() -> None:
    local = attempt_returns(shaped(), OWNERS, ATTEMPTS, turn_gamma=0.0)
    to_go = attempt_returns(shaped(), OWNERS, ATTEMPTS, turn_gamma=1.0)
    close(local[:4], 0, 11, 1, 1)  # (0, 1) and (1, 1)
    close(to_go[:4], 11, 11, 2, 1)
    assert AlgorithmSettings().turn_gamma == 0, "the safe choice is the default"


def test_one_baseline_for_each_attempt() -> None:
    local = attempt_returns(shaped(), OWNERS, ATTEMPTS, turn_gamma=0.0)
    found = leave_one_out_by_attempt(local, GROUP, ATTEMPTS)
    close(found[ATTEMPTS == 1], 14, 0.666667, -0.666667, -14)  # mean .5, times 4/3
    close(found[ATTEMPTS == 0], -0.666667, 0.666667, -0.666667, 0.666667)
    to_go = attempt_returns(shaped(), OWNERS, ATTEMPTS, turn_gamma=1.0)
    praised = leave_one_out_by_attempt(to_go, GROUP, ATTEMPTS)[ATTEMPTS == 0]
    close(praised, 13.333333, 1.333333, -1.333333, -13.333333)
    assert praised.argmax() == 0, "sandbagging: return-to-go praises the wrong first answer of (0, 1) most"


class FakeBatch:
    """The columns that `credit` reads."""

    class _Turn:
        def __init__(self, attempt: int) -> None:
            self.attempt = attempt

    def __init__(self) -> None:
        self.turns = [self._Turn(attempt) for attempt in ATTEMPTS.tolist()]
        self.trajectory_index, self.turn_rewards = OWNERS, REWARDS
        self.group_index = torch.zeros(4, dtype=torch.long)


def test_stage_one_leaves_the_first_attempt_to_the_kl_alone() -> None:
    kl = torch.zeros(8)
    kl[ATTEMPTS == 0] = torch.tensor([0.5, 0.1, -0.2, 0.4])
    found = credit(FakeBatch(), kl, AlgorithmSettings(first_kl=0.1), first_stage=True)  # type: ignore[arg-type]
    close(found[ATTEMPTS == 0], -0.04, 0.013333, 0.053333, -0.026667)
    still = credit(FakeBatch(), torch.zeros(8), AlgorithmSettings(), first_stage=True)  # type: ignore[arg-type]
    assert not still[ATTEMPTS == 0].any()
    close(still[ATTEMPTS == 1], *(4 / 3 * (r - 0.5) for r in (1, 1, 0, 0)))  # no bonus in stage I


def test_each_stage_charges_each_attempt_its_own_kl() -> None:
    """Log-ratio sums .5 and .3: .1 * .5 + .01 * .3 = .053 in stage I, .01 * .8 = .008 in stage II."""
    kl = torch.zeros(8)
    kl[0], kl[1] = 0.5, 0.3
    for first_stage, total in ((True, 0.053), (False, 0.008)):
        settings = AlgorithmSettings()
        with_kl = credit(FakeBatch(), kl, settings, first_stage=first_stage)  # type: ignore[arg-type]
        without = credit(FakeBatch(), torch.zeros(8), settings, first_stage=first_stage)  # type: ignore[arg-type]
        assert float((without - with_kl)[:2].sum()) == pytest.approx(total, abs=1e-6)  # 4/3 * (1 - 1/4) = 1


def test_a_kl_per_token_charges_what_the_attempt_still_pays() -> None:
    """Log-ratios .5, .2, -.1 of attempt 0 and .3, .1 of attempt 1; stage I: .25 and .01."""
    ratios, turns = torch.tensor([0.5, 0.2, -0.1, 0.3, 0.1]), torch.tensor([0, 0, 0, 1, 1])
    each = torch.tensor([0.25, 0.25, 0.25, 0.01, 0.01])
    close(kl_to_go(ratios, turns, 2, each), 0.15, 0.025, -0.025, 0.004, 0.001)
    # With a coefficient of its own for each token, and the same total at the first one as the charge per attempt.
    close(kl_to_go(ratios, turns, 2, torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0])), 0.3, -0.2, -0.2, 0.1, 0.1)
    with pytest.raises(ValueError, match="coefficients"):
        kl_to_go(ratios, turns, 2, each[:3])


def test_the_recipe_charges_the_kl_once_in_either_way() -> None:
    class Tokens(FakeBatch):
        """Two tokens for each of the eight attempts."""

        turn_index = torch.arange(8).repeat_interleave(2)

    batch, ratios = Tokens(), torch.linspace(-0.3, 0.4, 16)
    kl = ratios.view(8, 2).sum(1)
    per_token = AlgorithmSettings(kl_credit="token", first_kl=0.25)
    free = credit(batch, kl, per_token, first_stage=True)  # type: ignore[arg-type]
    close(free, *credit(batch, torch.zeros(8), AlgorithmSettings(), first_stage=True).tolist())  # type: ignore[arg-type]
    charged = token_kl(batch, ratios, per_token, first_stage=True)  # type: ignore[arg-type]
    close(charged[::2], *(kl * torch.where(ATTEMPTS == 0, 0.25, 0.01)).tolist())
    close(charged[1::2], *(ratios[1::2] * torch.where(ATTEMPTS == 0, 0.25, 0.01)).tolist())


def test_graded_attempts_are_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    def tried(first: float, second: float) -> Trajectory:
        turns = (builders.turn((1,), (2,), first), builders.turn((1, 2), (3,), second, attempt=1))
        return builders.episode("e", *turns)

    plain = observed_attempts([builders.group(tried(0, 1), tried(1, 1))])
    assert "attempts/graded_frac" not in plain and not caplog.records
    for _ in range(2):
        found = observed_attempts([builders.group(tried(0.25, 1), tried(0.75, 0))])
    assert found["attempts/graded_frac"] == 0.5
    assert (found["attempts/accuracy_first"], found["attempts/delta"]) == (0.5, 0.0)
    assert sum("other than 0 and 1" in record.message for record in caplog.records) == 1


def test_without_its_parts_it_is_two_turn_reinforce_and_with_one_attempt_rloo() -> None:
    settings = AlgorithmSettings(bonus=0, kl=0, first_kl=0, stage_one_steps=0)
    found = credit(FakeBatch(), torch.zeros(8), settings, first_stage=False)  # type: ignore[arg-type]
    for attempt in (0, 1):
        mine = attempt == ATTEMPTS
        torch.testing.assert_close(found[mine], rloo(REWARDS[mine], torch.zeros(4, dtype=torch.long)))


def test_attempts_that_cannot_be_credited_are_refused() -> None:
    with pytest.raises(ValueError, match="same attempt number"):
        progress_rewards(torch.zeros(2), torch.tensor([0, 0]), torch.tensor([0, 0]), bonus=1)
    with pytest.raises(ValueError, match="not the one before"):
        attempt_returns(torch.zeros(1), torch.tensor([0]), torch.tensor([1]), turn_gamma=1)
    with pytest.raises(ValueError, match="finite"):
        progress_rewards(torch.tensor([float("nan")]), torch.tensor([0]), torch.tensor([0]), bonus=1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_difference_is_what_became_right_minus_what_became_wrong(pairs: list[tuple[bool, bool]]) -> None:
    found = attempt_metrics([a for a, _ in pairs], [b for _, b in pairs])
    assert found["delta"] == pytest.approx(found["wrong_to_right"] - found["right_to_wrong"])
    assert found["right_to_wrong"] <= found["accuracy_first"] + 1e-12
    assert found["wrong_to_right"] <= 1 - found["accuracy_first"] + 1e-12


def test_attempt_metrics_by_hand() -> None:
    found = attempt_metrics([True, False, False, True], [True, True, False, False])
    assert found == {
        "accuracy_first": 0.5,
        "accuracy_second": 0.5,
        "delta": 0.0,
        "wrong_to_right": 0.25,
        "right_to_wrong": 0.25,
    }
    with pytest.raises(ValueError, match="both attempts"):
        attempt_metrics([True], [])


def test_edit_ratio_by_hand_and_against_the_textbook_table() -> None:
    assert edit_ratio("kitten", "sitting") == pytest.approx(3 / 7)
    assert edit_ratio("", "") == 0 and edit_ratio("abc", "") == 1 and edit_ratio("abc", "abc") == 0
    draws = random.Random(0)
    for _ in range(30):
        a, b = (draws.choices("ab", k=draws.randrange(8)) for _ in range(2))
        table = [[max(i, j) if not i or not j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
        for i in range(1, len(a) + 1):
            for j in range(1, len(b) + 1):
                swap = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
                table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, swap)
        assert edit_ratio(a, b) == pytest.approx(table[-1][-1] / max(len(a), len(b), 1))


def test_a_reward_of_whole_episodes_is_refused() -> None:
    """`reward.name=success` pays the last turn alone: the first attempt would count as wrong in every episode."""
    parts = ({"answer": 1.0}, {"answer": 0.0})
    for turn_parts in (parts, None):
        score = Score(value=1.0, verifier="v", turn_parts=turn_parts)
        scored = builders.episode("a", builders.turn(), builders.turn(), score=score)
        if turn_parts:
            require_reward_per_attempt([builders.group(scored)])
            continue
        with pytest.raises(ConfigError, match="`v` gives one score for the whole episode"):
            require_reward_per_attempt([builders.group(scored)])
