"""Text from outside may hold half a sign (JSON and JavaScript count UTF-16 units); inside there is only whole text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from rollwright.contracts.environment import Observation, StepResult, as_observation, episode_seed
from rollwright.contracts.record import Message, Task, whole
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import tiny_tokenizer
from rollwright.rollout.contexts import AppendOnly, Windowed
from rollwright.rollout.world_host import checked, checked_observation

HALF, JOINED = "a\ud83d b\ude00", "a\ud83d\ude00b"
CODEC = ChatCodec(tiny_tokenizer(["a b"]))


def prompt_of(make: Callable[..., Callable[[], object]], text: str) -> str:
    context = make(codec=CODEC, instructions=text, context_length=1000)()
    context.observe(Observation(text=text, goal=text))  # type: ignore[attr-defined]
    return str(CODEC.tokenizer.decode(context.prompt_ids(1)))  # type: ignore[attr-defined]


DOORS: dict[str, Callable[[str], str]] = {
    "message": lambda text: Message(role="user", content=text).content,
    "task": lambda text: Task(id=text, split="train").id,
    "reset": lambda text: checked_observation(text).text,
    "goal": lambda text: checked_observation(Observation(text="", goal=text)).goal,
    "step": lambda text: as_observation(checked(StepResult(observation=text)).observation).text,
    "teacher": lambda text: CODEC.decode_action(CODEC.encode_action(text)),
    "counted": lambda text: CODEC.decode_action(CODEC.encode_text(text)),
    "cut": lambda text: CODEC.cut(text, 100),
    "append": lambda text: prompt_of(AppendOnly, text),
    "windowed": lambda text: prompt_of(Windowed, text),
}


@pytest.mark.parametrize("door", DOORS)
def test_text_from_outside_is_made_whole_at_every_door(door: str):
    assert "a\ufffd b\ufffd" in DOORS[door](HALF)
    assert "a\U0001f600b" in DOORS[door](JOINED)
    assert "größer 漢字 🙂\u202e\0" in DOORS[door]("größer 漢字 🙂\u202e\0")


def test_a_task_named_by_half_a_sign_has_a_seed_and_a_key():
    """Both are made of its UTF-8."""
    task = Task(id=HALF, split="test")
    assert episode_seed("test", task.id) and hashlib.sha256(task.id.encode()).digest()


def test_whole_text_is_the_same_object():
    text = "größer 漢字 🙂"
    assert whole(text) is text
