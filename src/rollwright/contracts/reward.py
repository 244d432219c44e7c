"""The reward contract: a reward sees a whole group and returns one Score per trajectory, with its parts."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from rollwright.contracts.errors import RewardFault, RollwrightError
from rollwright.contracts.record import MAX_REWARD, Group, Score, Trajectory
from rollwright.contracts.turn import PlacedReward, Turn

log = logging.getLogger(__name__)


class Reward(Protocol):
    """Scores the trajectories of a group. May hold state (`state_dict`/`load_state_dict`) that is checkpointed.

    A verifier that cannot decide returns a Score with value None. Whatever it raises becomes a fault, never a score.
    """

    name: str

    def score(self, group: Group) -> Sequence[Score]:
        """Score each trajectory, in their order."""
        ...


@runtime_checkable
class StatefulReward(Reward, Protocol):
    """A reward with state (a running mean, a cache) that a checkpoint keeps."""

    def state_dict(self) -> Mapping[str, Any]:
        """What a checkpoint keeps of the reward."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        ...


class EnvReward:
    """The environment's own rewards, taken as they are: the default."""

    name = "env"

    def score(self, group: Group) -> list[Score]:
        """The world's own rewards and verdict, as they were recorded."""
        return [
            # `paid`, not `rewards`: another reward may have been laid on the turns since.
            Score(value=_paid(t), verifier=self.name, turn_parts=tuple(turn.paid for turn in t.turns))
            for t in group.trajectories
        ]


def _paid(trajectory: Trajectory) -> float:
    return math.fsum(number for turn in trajectory.turns for number in turn.paid.values())


def score_group(group: Group, reward: Reward) -> Group:
    """The group with each trajectory's score attached and its parts laid on the turns that earned them.

    Faulted trajectories are not shown to the reward and keep no score.

    Raises:
        RewardFault: the reward raised, returned another number of scores than it was given trajectories, or one that
            breaks the contract.
    """
    # An episode without a turn has nothing that a part could be laid on.
    judged = [t for t in group.trajectories if not t.stop_reason.is_fault and t.turns]
    # No reward is asked about an empty group.
    if not judged:
        return group
    scores = scores_of(reward, group.with_trajectories(judged))
    try:
        by_id = {t.id: place_score(t, score) for t, score in zip(judged, scores, strict=True)}
    except ValueError as error:  # a turn refuses what was laid on it
        raise RewardFault(f"reward {name_of(reward)!r} on group {group.id}: {error}") from error
    # The group keeps its members and their order; faults go through as they came.
    return group.with_trajectories([by_id.get(t.id, t) for t in group.trajectories])


def scores_of(reward: Reward, group: Group) -> list[Score]:
    """What the reward gives for the group's trajectories, each a score that keeps the contract.

    Raises:
        RewardFault: as `score_group`; a reward made of others asks for theirs by this function.
    """
    try:
        # A generator raises only while it is read, so the list is made inside the `try`.
        scores = list(reward.score(group))
    # A reward made of others passes on what a part of it raised, which names that part already.
    except RewardFault:
        raise
    except Exception as error:
        # The text of a foreign error alone may say nothing: that of a KeyError is the key.
        said = str(error) if isinstance(error, RollwrightError) else repr(error)
        raise RewardFault(f"reward {name_of(reward)!r} failed on group {group.id}: {said}") from error
    # Checked before they are zipped, so that no score goes to another trajectory.
    if len(scores) != len(group.trajectories):
        said = f"gave {len(scores)} scores for {len(group.trajectories)} trajectories"
        raise RewardFault(f"reward {name_of(reward)!r} {said}")
    for trajectory, score in zip(group.trajectories, scores, strict=True):
        if problem := breach(score, len(trajectory.turns)):
            raise RewardFault(f"reward {name_of(reward)!r} on trajectory {trajectory.id}: {': '.join(problem)}")
    return scores


def name_of(reward: object) -> str:
    """The reward's name, or its class's where it has none that is text: an error must be able to say whose it is."""
    name = getattr(reward, "name", None)
    # A user's reward may have set `name` to anything.
    return name if isinstance(name, str) and name else type(reward).__name__


def breach(score: object, num_turns: int) -> tuple[str, str] | None:
    """What is wrong with one entry that `Reward.score` gave, and what was found; None where it keeps the contract.

    Numbers are bounded as an environment's rewards are, by MAX_REWARD. An undecided score (None) is not looked into.
    """
    if not isinstance(score, Score):  # a frozen record, but its fields are whatever a user put there
        return f"score() must give Score objects, got {type(score).__name__}", _short(score)
    said: tuple[Any, ...] = (score.verifier, score.message)
    if not all(isinstance(text, str) for text in said):
        return "verifier and message must be text", _short(said)
    if score.value is None:
        return None
    if not _are_numbers([score.value]):
        return f"value must be a number of at most {MAX_REWARD:g} in size, or None", _short(score.value)
    # Any: by the declared types the tests below cannot fail, and a type checker would call them unreachable.
    last: Any = score.parts
    if not isinstance(last, Mapping):
        return "parts must be a mapping of names to numbers", _short(last)
    placed: Any = None if score.turn_parts is None else list(score.turn_parts)
    if placed is not None and not all(isinstance(part, Mapping) for part in placed):
        return "turn_parts must hold a mapping of names to numbers for each turn", _short(placed)
    if placed is not None and len(placed) != num_turns:
        problem = "turn_parts must have one entry per turn (an empty one where a turn earned nothing)"
        return problem, f"{len(placed)} for {num_turns} turns"
    if score.turn_parts_at is not None and (problem := _misplaced(score.turn_parts_at, num_turns)):
        return problem, _short(score.turn_parts_at)
    for name, parts in (("parts", [last]), ("turn_parts", placed or [])):
        if not all(isinstance(key, str) for part in parts for key in part):
            return f"{name} must have names that are text", _short(parts)
        if not _are_numbers([number for part in parts for number in part.values()]):
            return f"{name} must be finite: leave out what cannot be computed", _short(parts)
    return None


def _misplaced(places: Any, num_turns: int) -> str:
    """What is wrong with a score's placed parts; a turn itself refuses those that lie outside its action."""
    try:
        rows = [list(row) for row in places]
    except TypeError:
        return "turn_parts_at must hold a list of PlacedReward for each turn"
    if len(rows) != num_turns or not all(isinstance(placed, PlacedReward) for row in rows for placed in row):
        return "turn_parts_at must hold a list of PlacedReward for each turn"
    if not _are_numbers([placed.value for row in rows for placed in row]):
        return f"turn_parts_at must hold numbers of at most {MAX_REWARD:g} in size"
    return ""


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether all are finite numbers within the bound."""
    try:
        return all(math.isfinite(value) and abs(value) <= MAX_REWARD for value in values)
    except (TypeError, ValueError, OverflowError):  # text, a tensor of several numbers, an int beyond all floats
        return False


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # the object is a stranger's
        return f"an object whose repr() raises {type(error).__name__}"
    return text if len(text) <= 100 else f"{text[:90]}..."


def place_score(trajectory: Trajectory, score: Score) -> Trajectory:
    """Lay the score's parts on the turns: `turn_parts` where given, else everything on the last turn.

    They take the place of what lay there. What the environment paid stays in `Turn.env_rewards`, so that a trajectory
    can be scored again, by the same reward or by another one, from the same ground.
    """
    if score.value is None:
        # What lay on the turns stays there: the episode is not `learnable` any more, so no loss reads it.
        return replace(trajectory, score=score)
    if score.turn_parts is not None:
        if len(score.turn_parts) != len(trajectory.turns):
            raise RewardFault(
                f"verifier {score.verifier!r} gave parts for {len(score.turn_parts)} turns of {len(trajectory.turns)}"
            )
        parts: Sequence[Mapping[str, float]] = score.turn_parts
    else:
        last = score.parts or {score.verifier: score.value}
        # An outcome is known at the end, so it lies on the last turn; discounting carries it back.
        parts = [{} for _ in trajectory.turns[:-1]] + [last]
    places = score.turn_parts_at or ((),) * len(parts)
    laid = zip(trajectory.turns, parts, places, strict=True)
    turns = tuple(_with_rewards(turn, dict(part), tuple(at)) for turn, part, at in laid)
    return replace(trajectory, turns=turns, score=score)


def _with_rewards(turn: Turn, parts: dict[str, float], at: tuple[PlacedReward, ...]) -> Turn:
    # Compared with what was paid, not with `rewards`: an earlier scoring may have laid those.
    paid = None if parts == turn.paid else dict(turn.paid)
    kept = turn.rewards_at if parts == turn.rewards else ()  # where other parts lay says nothing about these
    return replace(turn, rewards=parts, rewards_at=at or kept, env_rewards=paid)
