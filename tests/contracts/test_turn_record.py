"""What the record refuses, and what it says of rewards inside an action, costs, weights, masks, starts and branches."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollwright.contracts import (
    PRODUCERS,
    Branch,
    EnvReward,
    Group,
    ImagePart,
    Message,
    PlacedReward,
    RewardFault,
    SamplerMask,
    Score,
    Span,
    Start,
    StopReason,
    Task,
    TextPart,
    Trajectory,
    Turn,
    attach_picture,
    score_group,
    version_of,
    world_mark,
)
from rollwright.envs.text import bandit

PNG = b"\x89PNG\r\n\x1a\nrest"


def turn(**more: Any) -> Turn:
    fields: dict[str, Any] = {"prompt_ids": (1,), "action_ids": (7, 8, 9), "action_logprobs": (-1.0, -2.0, -3.0)}
    return Turn(**(fields | {"text": "x"} | more))


def placed(position: int, value: float, name: str = "env") -> PlacedReward:
    return PlacedReward(position=position, name=name, value=value)


def episode(*turns: Turn, **more: Any) -> Trajectory:
    task = Task(id="t", split="train")
    return Trajectory(id="e", task=task, seed=1, turns=turns, stop_reason=StopReason.TERMINATED, **more)


def test_placed_rewards_are_pieces_of_the_parts_and_the_rest_lies_on_the_last_token() -> None:
    one = turn(rewards={"env": 1.0, "step": 0.5}, rewards_at=(placed(0, 0.25), placed(1, 0.5, "step"), placed(0, 0.5)))
    # env 1.0 = 0.25 + 0.5 at token 0, 0.25 left; step 0.5 is all at token 1
    assert one.token_rewards == (0.75, 0.5, 0.25) and one.reward == 1.5
    assert turn(rewards={"env": 2.0}).token_rewards == (0.0, 0.0, 2.0)
    assert turn(action_ids=(), action_logprobs=(), rewards={"env": 2.0}).token_rewards == ()


FORCED = (Span(start=0, end=1, version=-1, producer="forced"), Span(start=1, end=3, version=1))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rewards": {"env": 1.0}, "rewards_at": (placed(3, 1.0),)}, "token 3 of an action of 3"),
        ({"rewards": {"env": 1.0}, "rewards_at": (placed(0, 1.0, "odd"),)}, "the turn's parts are env"),
        ({"rewards": {"env": 1.0}, "rewards_at": (placed(0, 1.0),), "spans": FORCED}, "token 0, which was forced"),
        ({"costs": {"harm": float("nan")}}, "costs must be finite"),
        ({"policy_weights": (1.0, 1.0)}, "2 policy_weights for 3 action ids"),
        ({"value_weights": (1.0, -0.5, 1.0)}, "value_weights must be finite and 0 or more, got -0.5"),
        ({"kl_weights": (1.0, float("nan"), 1.0)}, "kl_weights must be finite"),
        ({"sampler_mask": SamplerMask(kept_ids=((7,), (8,)))}, "2 kept sets for 3 action ids"),
        ({"sampler_mask": SamplerMask(kept_ids=((7,), (8,), (1,)))}, "token 2 has the id 9, which its mask did not"),
        ({"sampler_mask": SamplerMask(mask_id="m", raw_logprobs=(-1.0,))}, "1 raw log-probs for 3"),
        ({"kind": "Act now"}, "the kind of a turn is a word"),
    ],
)
def test_a_turn_that_cannot_be_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        turn(**more)


def test_parts_that_cannot_be_are_refused() -> None:
    for make, message in (
        (lambda: SamplerMask(), "by its id or by the ids"),
        (lambda: placed(0, float("inf")), "expected a number"),
        (lambda: Start(kind="middle"), "unknown start kind 'middle'"),  # type: ignore[arg-type]
        (lambda: Start(prefix_tokens=-1), "0 or more"),
        (lambda: Branch(parent="", turn=0), "names its parent"),
        (lambda: episode(turn(), branch=Branch(parent="p", turn=2)), "branches off at turn 2 of p and has 1 turns"),
        (lambda: ImagePart(sha256="../x", media_type="image/png"), "SHA-256"),
        (lambda: ImagePart(sha256="0f" * 32, media_type="image/svg+xml"), "image/png, image/jpeg, image/webp"),
        (lambda: Message(role="user", content="a", parts=(TextPart(text="b"),)), "its content 'a'"),
        (lambda: Score(value=1.0, verifier="v", turn_parts_at=((),)), "gave no turn_parts"),
        (lambda: attach_picture(b"<svg/>"), "not a picture"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_a_message_in_parts_keeps_its_text() -> None:
    image = ImagePart(sha256="0f" * 32, media_type="image/png")
    message = Message(
        role="user", content="Before\nAfter", parts=(TextPart(text="Before"), image, TextPart(text="After"))
    )
    assert message.parts[1] == image and message != Message(role="user", content="Before\nAfter")


@pytest.mark.parametrize("producer", PRODUCERS)
def test_whoever_chose_a_token_may_be_learned_from_and_the_policy_alone_is_the_policy(producer: Any) -> None:
    one = turn(spans=(Span(start=0, end=3, version=1, producer=producer),))
    assert one.action_mask == (producer != "forced",) * 3
    assert one.policy_mask == (producer == "policy",) * 3


def test_costs_and_attempts_of_an_episode() -> None:
    turns = (turn(costs={"harm": 0.5}), turn(attempt=1, costs={"harm": 0.25, "time": 1.0}), turn(attempt=1))
    whole = episode(*turns)
    assert whole.costs == {"harm": 0.75, "time": 1.0} and whole.total_reward == 0.0
    assert whole.attempts == (turns[:1], turns[1:])


class Steps:
    """Pays 0.5 for the first token of each turn."""

    name = "steps"

    def __init__(self, at: Any) -> None:
        self.at = at

    def score(self, group: Group) -> list[Score]:
        [one] = group.trajectories
        parts = tuple({"steps": 0.5} for _ in one.turns)
        return [Score(value=1.0, verifier=self.name, turn_parts=parts, turn_parts_at=self.at)]


def test_a_score_places_its_parts_and_another_reward_takes_them_away() -> None:
    whole = episode(turn(rewards={"env": 2.0}), turn())
    group = Group(id="g", task=whole.task, seed=1, trajectories=(whole,))
    at = ((placed(0, 0.5, "steps"),), (placed(1, 0.25, "steps"),))
    scored = score_group(group, Steps(at))
    assert [t.token_rewards for t in scored.trajectories[0].turns] == [(0.5, 0.0, 0.0), (0.0, 0.25, 0.25)]
    assert scored.trajectories[0].turns[0].paid == {"env": 2.0}
    again = score_group(scored, EnvReward()).trajectories[0]
    assert [t.token_rewards for t in again.turns] == [(0.0, 0.0, 2.0), (0.0, 0.0, 0.0)]
    assert again.turns == whole.turns


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (((placed(0, 0.5, "steps"),),), "a list of PlacedReward for each turn"),
        (3, "a list of PlacedReward for each turn"),
        ((({"steps": 0.5},), ()), "a list of PlacedReward for each turn"),
        (((placed(0, 1e31, "steps"),), ()), "at most 1e\\+30"),
        (((placed(9, 0.5, "steps"),), ()), "token 9 of an action of 3"),
    ],
)
def test_a_score_that_places_nonsense_is_a_fault_of_the_reward(at: Any, message: str) -> None:
    whole = episode(turn(), turn())
    with pytest.raises(RewardFault, match=message):
        score_group(Group(id="g", task=whole.task, seed=1, trajectories=(whole,)), Steps(at))


def test_a_picture_goes_along_or_is_kept_in_a_folder_once(tmp_path: Path) -> None:
    along = attach_picture(PNG)
    assert (along.content, along.path, along.sha256) == (PNG, None, hashlib.sha256(PNG).hexdigest())
    kept = [attach_picture(PNG, tmp_path / "shots") for _ in range(2)]
    assert kept[0] == kept[1] and [str(file) for file in (tmp_path / "shots").iterdir()] == [kept[0].path]
    assert kept[0].path is not None and Path(kept[0].path).read_bytes() == PNG
    kinds = [attach_picture(head + b"x").media_type for head in (b"\xff\xd8\xff", b"RIFF....WEBP")]
    assert kinds == ["image/jpeg", "image/webp"]


def test_a_world_is_marked_by_what_it_says_and_how_it_was_built(tmp_path: Path) -> None:
    def world(**more: Any) -> Any:
        return SimpleNamespace(**({"name": "w", "instructions": "do", "max_turns": 3} | more))

    file, other = tmp_path / "tasks.jsonl", tmp_path / "copy.jsonl"
    file.write_text("one")
    other.write_text("one")
    plain = world_mark(world(), {"size": 3, "tasks": str(file)})
    assert (plain.name, plain.version) == ("w", "0") and len(plain.fingerprint) == 16
    shown = {"screenshots": True, "draw": True}
    assert world_mark(world(), {"tasks": str(other), "size": 3} | shown) == plain  # the same file at another place
    assert world_mark(world(version="2"), {"size": 3, "tasks": str(file)}).version == "2"
    unlike = [
        world_mark(world(), {"size": 4, "tasks": str(file)}),
        world_mark(world(instructions="do it"), {"size": 3, "tasks": str(file)}),
        world_mark(world(max_turns=4), {"size": 3, "tasks": str(file)}),
    ]
    other.write_text("two")
    unlike.append(world_mark(world(), {"size": 3, "tasks": str(other)}))
    assert len({mark.fingerprint for mark in (plain, *unlike)}) == 5
    assert world_mark(world(), {"url": "http://a/"}) == world_mark(world(), {"url": "http://b/"})


def test_a_world_of_ours_that_states_no_version_has_that_of_the_package() -> None:
    from rollwright import __version__

    assert version_of(bandit.build()) == __version__
