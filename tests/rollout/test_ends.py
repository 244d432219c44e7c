"""What comes after an episode's last turn: nothing where it terminated, a value where a limit cut it.

An episode that outgrew the context leaves no next prompt. Were it taken for ended, overflowing the context would be the
best that could happen where moves cost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Span, StopReason, Task, Trajectory, Turn
from rollwright.critics.critic_targets import followed, one_step_targets
from rollwright.critics.token_steps import StoredSteps, TokenSteps, token_steps
from rollwright.recipes import archer, digirl
from rollwright.store.replay import TurnTable, valid_turns
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders

ENDS = {
    "terminated": (StopReason.TERMINATED, ()),
    "limit": (StopReason.MAX_TURNS, (1, 2, 3)),
    "overflow": (StopReason.MAX_TOKENS, ()),
}


def episode(name: str, stop: StopReason, following: tuple[int, ...], *, spans: tuple[Span, ...] = ()) -> Trajectory:
    """Two turns of two tokens, each at a cost of 1."""
    turns = [
        builders.turn(
            (5 + k,),
            (7, 8),
            -1.0,
            spans=spans,
            terminated=k == 1 and stop is StopReason.TERMINATED,
            truncated=k == 1 and stop is not StopReason.TERMINATED,
        )
        for k in range(2)
    ]
    return builders.episode(name, *turns, stop=stop, next_prompt_ids=following)


@pytest.fixture
def table(tmp_path: Path) -> TurnTable:
    store = TrajectoryStore(tmp_path / "store")
    store.append([episode(name, *end) for name, end in ENDS.items()])
    return TurnTable(store)


def test_turn_level_targets(table: TurnTable) -> None:
    """r + 0.5 V(s') with V = -10 everywhere; the turn that overflowed the context is not among the turns."""
    for truncated_end, expected in ((False, [-6, -1, -6, -6, -6]), (True, [-6, -1, -6, -1, -6, -1])):
        turns = valid_turns(table, needs_next=not truncated_end)
        batch = table.transitions(turns)
        after = torch.full((2, len(followed(batch, truncated_end=truncated_end))), -10.0)
        targets = one_step_targets(batch, after, gamma=0.5, truncated_end=truncated_end)
        assert targets.tolist() == [[float(x) for x in expected]] * 2


class Stage:
    """As much of an ArCHer as `draw` reads."""

    def __init__(self, table: TurnTable, *, truncated_end: bool) -> None:
        self.table, self.algorithm = table, archer.AlgorithmSettings(truncated_end=truncated_end)
        self.config, self.fresh = self, self
        self.run, self.seed = self, 0

    def begin(self, step: int) -> None:
        """Fresh actions begin a step too."""


@pytest.mark.parametrize(("truncated_end", "num_turns"), [(False, 5), (True, 6)])
def test_archer_learns_from_turns_that_have_a_target(table: TurnTable, truncated_end: bool, num_turns: int) -> None:
    stage: Any = Stage(table, truncated_end=truncated_end)
    archer.Archer.draw(stage, 0, [])
    assert len(stage.turns) == num_turns


@pytest.mark.parametrize("scanned", [True, False])
@pytest.mark.parametrize("truncated_end", [True, False])
def test_token_level_values_after_the_last_token(table: TurnTable, scanned: bool, truncated_end: bool) -> None:
    """-30 wherever something follows: behind a limit the next prompt, behind an overflow the last action itself."""
    turns = valid_turns(table)
    if scanned:
        steps = StoredSteps.scan(table, turns, truncated_end=truncated_end).steps(turns)
    else:
        steps = token_steps(table, turns, truncated_end=truncated_end)
    values = torch.full((sum(len(r.action_ids) for r in steps.readings),), -30.0)
    after = steps.next_values(values).view(3, 4)
    assert after[:, :3].eq(-30).all()
    assert after[:, 3].tolist() == ([0.0] * 3 if truncated_end else [0.0, -30.0, -30.0])
    read = [None if end is None else tuple(end.prompt_ids) for end in steps.ends]
    assert read == ([None] * 3 if truncated_end else [None, (1, 2, 3), (6, 7, 8)])


@pytest.mark.parametrize("scanned", [True, False])
def test_forced_tokens_are_no_steps(tmp_path: Path, scanned: bool) -> None:
    """In one episode the first token of each action was forced: the discount skips it, and it weighs nothing."""
    forced = (Span(start=0, end=1, version=0, producer="forced"), Span(start=1, end=2, version=0))
    store = TrajectoryStore(tmp_path / "store")
    store.append([episode("a", StopReason.TERMINATED, (), spans=forced), episode("b", StopReason.TERMINATED, ())])
    table = TurnTable(store)
    turns = valid_turns(table)
    steps: TokenSteps = StoredSteps.scan(table, turns).steps(turns) if scanned else token_steps(table, turns)
    assert steps.index.tolist() == [0, 0, 1, 1, 1, 1] and steps.rewards.tolist() == [-1, -1, 0, -1, 0, -1]
    assert steps.returns(0.5).tolist() == [-1.5, -1.0, -0.625, -1.25, -0.5, -1.0]
    chosen = torch.tensor([0, 1, 0, 1, 1, 1, 1, 1])  # both turns of a, then those of b
    assert steps.weights.tolist() == (chosen * 8 / 6).tolist()
    assert steps.next_values(torch.arange(8.0))[[1, 5]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scanned", [True, False])
def test_a_turn_without_an_action_still_earns_for_the_one_before(tmp_path: Path, scanned: bool) -> None:
    """As inverse dynamics leaves it where a label is too doubtful. In front of the first action nobody earned it."""
    whole = episode("a", StopReason.TERMINATED, ()).turns
    blank = Turn(prompt_ids=(9,), action_ids=(), action_logprobs=(), text="", rewards={"env": -4.0})
    task = Task(id="t", split="train")
    walks = [(blank, whole[0], blank, blank, whole[1]), (blank, *whole, blank)]
    store = TrajectoryStore(tmp_path / "store")
    store.append(
        [
            Trajectory(id=str(k), task=task, seed=0, turns=turns, stop_reason=StopReason.TERMINATED)
            for k, turns in enumerate(walks)
        ]
    )
    table = TurnTable(store)
    turns = valid_turns(table)
    steps = StoredSteps.scan(table, turns).steps(turns) if scanned else token_steps(table, turns)
    assert steps.rewards.tolist() == [0, -9, 0, -1, 0, -1, 0, -5]
    assert steps.ends == [None, None]


@pytest.mark.parametrize("scanned", [True, False])
def test_a_cut_behind_a_turn_without_an_action_is_a_cut(tmp_path: Path, scanned: bool) -> None:
    """The state after the last action is the one in which nothing was done."""
    whole = episode("a", StopReason.MAX_TURNS, (1, 2, 3))
    blank = Turn(prompt_ids=(9, 9), action_ids=(), action_logprobs=(), text="", truncated=True)
    store = TrajectoryStore(tmp_path / "store")
    store.append([replace(whole, turns=(whole.turns[0], blank))])
    table = TurnTable(store)
    turns = valid_turns(table)
    steps = StoredSteps.scan(table, turns).steps(turns) if scanned else token_steps(table, turns)
    assert [None if end is None else tuple(end.prompt_ids) for end in steps.ends] == [(9, 9)]


@pytest.mark.parametrize(
    ("form", "actor", "fits"), [("paper", "filter", False), ("released", "filter", True), ("paper", "awr", True)]
)
def test_digirls_threshold_needs_episodes_of_more_than_one_turn(form: Any, actor: Any, fits: bool) -> None:
    learner = cast(Any, object.__new__(digirl.Digirl))
    learner.algorithm = digirl.AlgorithmSettings(form=form, actor=actor)
    for turns, refused in ((1, not fits), (2, False)):
        if refused:
            with pytest.raises(ConfigError, match="with episodes of one turn none can be"):
                learner.algorithm.require_reachable(1 / turns)
        else:
            learner.algorithm.require_reachable(1 / turns)
