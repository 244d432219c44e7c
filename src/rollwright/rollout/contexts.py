"""What the policy reads before each action: the whole history (`AppendOnly`) or a window of it (`Windowed`).

Both are factories: calling one gives the context of one new episode. A context takes in observations and sampled
actions and hands out prompt ids. Append-only contexts never encode an action's text; windowed ones show earlier
actions as plain text inside a new prompt, which is a prompt like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from rollwright.contracts import WHOLE, ActionRule, ContextOverflow, Message, Observation
from rollwright.generation import Generation
from rollwright.models import ChatCodec

# Stands for an answer without an action, so that the list of earlier actions has no gap.
NO_ANSWER = "(empty)"


class Context(Protocol):
    """What the policy is given, built turn by turn."""

    def observe(self, observation: Observation) -> tuple[Message, ...]:
        """Take in an observation; returns the messages that are new to the policy."""
        ...

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        """The ids of the next prompt, leaving room for `reserve` action tokens.

        Raises:
            ContextOverflow: there is no such room.
        """
        ...

    def act(self, generation: Generation) -> str:
        """Take in what was sampled; returns the action's text."""
        ...


@dataclass(frozen=True, kw_only=True)
class AppendOnly:
    """One growing sequence per episode: prompt, action, observation, action, ...

    Args:
        context_length: the most prompt and action tokens that the model takes.
        max_observation_tokens: longer observations are cut, with a line that says so; None leaves them whole, and an
            episode whose prompt no longer fits ends there.

    Raises:
        TemplateError: the chat template rewrites history.
    """

    codec: ChatCodec
    instructions: str
    context_length: int
    max_observation_tokens: int | None = None

    def __post_init__(self) -> None:
        # Else the growing ids would differ from what the template gives for the whole conversation.
        self.codec.require_prefix_preserving()

    def __call__(self) -> AppendOnlyContext:
        return AppendOnlyContext(spec=self)


@dataclass(frozen=True, kw_only=True)
class Windowed:
    """Each turn has its own short prompt: instructions, task, the last `history` actions, the latest observation.

    Works with every chat template, since no earlier message of the policy is ever rendered.

    Args:
        max_action_chars: an earlier action is shown up to this length.
        rule: what of an earlier answer is its action; a thought before it is not shown again.
    """

    codec: ChatCodec
    instructions: str
    context_length: int
    history: int = 3
    max_observation_tokens: int | None = None
    max_action_chars: int = 120
    rule: ActionRule = WHOLE

    def __post_init__(self) -> None:
        if self.history < 0:
            raise ValueError(f"history counts earlier actions, 0 or more; got {self.history}")

    def __call__(self) -> WindowedContext:
        return WindowedContext(spec=self)


@dataclass
class AppendOnlyContext:
    """The ids of one episode so far; lives as long as the episode."""

    spec: AppendOnly
    ids: tuple[int, ...] = ()
    finish: Literal["stop", "length"] = "stop"

    def observe(self, observation: Observation) -> tuple[Message, ...]:
        """Take in an observation; returns the messages that are new to the policy."""
        spec, text = self.spec, _shown(self.spec.codec, observation.text, self.spec.max_observation_tokens)
        if self.ids:
            answer = Message(role="user", content=text)
            # After a cut action this begins with the end-of-turn token that the policy did not sample.
            self.ids += spec.codec.encode_continuation(self.finish, [answer])
            return (answer,)
        # The goal stands in the first message only; later observations may leave it empty.
        opening = f"Task: {observation.goal}\n{text}" if observation.goal else text
        messages = (*_system(spec.instructions), Message(role="user", content=opening))
        self.ids = spec.codec.encode_start(messages)
        return messages

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        """The ids of the next prompt.

        Raises:
            ContextOverflow: no room for `reserve` action tokens.
        """
        return _fitting(self.ids, reserve, self.spec.context_length)

    def act(self, generation: Generation) -> str:
        """Append what was sampled, id by id; returns its text."""
        # Never the text encoded again: a tokenizer may split it into other ids than those that were sampled.
        self.ids += generation.token_ids
        self.finish = generation.finish_reason
        return self.spec.codec.decode_action(generation.token_ids)

    def fork(self) -> AppendOnlyContext:
        """A copy that goes its own way from here."""
        return AppendOnlyContext(spec=self.spec, ids=self.ids, finish=self.finish)


@dataclass
class WindowedContext:
    """Task, latest observation and earlier actions of one episode."""

    spec: Windowed
    goal: str = ""
    latest: str = ""
    actions: list[str] = field(default_factory=list)

    def observe(self, observation: Observation) -> tuple[Message, ...]:
        """Take in an observation; returns the messages of the next prompt."""
        # Kept, since every window repeats the goal and later observations may leave it empty.
        self.goal = observation.goal or self.goal
        self.latest = _shown(self.spec.codec, observation.text, self.spec.max_observation_tokens)
        return self.messages()

    def messages(self) -> tuple[Message, ...]:
        """The next prompt as messages."""
        lines = [f"Task: {self.goal}", self.latest] if self.goal else [self.latest]
        # `history` is asked first: `actions[-0:]` would be all of them.
        if self.spec.history and self.actions:  # last, so that turns in one state share all that stands before it
            lines.append("Did: " + "; ".join(self.actions[-self.spec.history :]))
        text = "\n".join(lines)
        return (*_system(self.spec.instructions), Message(role="user", content=text))

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        """The ids of the next prompt.

        Raises:
            ContextOverflow: no room for `reserve` action tokens.
        """
        return _fitting(self.spec.codec.encode_start(self.messages()), reserve, self.spec.context_length)

    def act(self, generation: Generation) -> str:
        """Remember the action for the next prompts; returns all that was said."""
        said = self.spec.codec.decode_action(generation.token_ids)
        action = self.spec.rule.action_of(said, generation.finish_reason, scripted=generation.scripted)
        # On one line, whatever was said: `rerendering` takes the history off again as the last line.
        line = " ".join(action.split()) or NO_ANSWER
        most = self.spec.max_action_chars
        self.actions.append(line if len(line) <= most else line[:most] + "...")
        return said

    def fork(self) -> WindowedContext:
        """A copy that goes its own way from here."""
        # Actions are appended in place, so the fork needs a list of its own.
        return WindowedContext(spec=self.spec, goal=self.goal, latest=self.latest, actions=list(self.actions))


def _system(instructions: str) -> tuple[Message, ...]:
    return (Message(role="system", content=instructions),) if instructions else ()


def _shown(codec: ChatCodec, text: str, max_tokens: int | None) -> str:
    return text if max_tokens is None else codec.cut(text, max_tokens)


def _fitting(ids: tuple[int, ...], reserve: int, context_length: int) -> tuple[int, ...]:
    if len(ids) + reserve > context_length:
        raise ContextOverflow(
            f"the prompt has {len(ids)} tokens and the action needs room for {reserve}, but the context holds "
            f"{context_length}: set max_observation_tokens, use a windowed context, or a longer context"
        )
    return ids
