"""An episode in plain text as a trajectory in the ids of one model: what SFT and offline RL learn from."""

from __future__ import annotations

from dataclasses import replace

from rollwright.contracts import Message, Span, TemplateError, Trajectory, Turn
from rollwright.models import ChatCodec
from rollwright.store.importers.log_records import LoggedEpisode, RowError, Step


def encode(episode: LoggedEpisode, codec: ChatCodec, *, name: str) -> Trajectory:
    """The trajectory. Log-probs are 0, as nobody knows them: the tokens count as written by a data set.

    Where the model's template renders a message alike whatever follows it, the prompts grow by concatenation, as in an
    episode that is played; otherwise each is the history as the template shows it.

    Raises:
        RowError: the template refuses the order of the roles, or the tokenizer cannot write a text.
    """
    turns: list[Turn] = []
    history: list[Message] = []
    for step in episode.steps:
        history += step.observed
        try:
            prompt = _prompt(codec, history, step, turns[-1] if turns else None)
            action = codec.encode_action(step.action)
        except TemplateError as error:
            raise RowError("the model's chat template refuses the conversation", error) from error
        text = codec.decode_action(action)
        # Blanks may change (a tokenizer that adds one in front); any other difference would teach what nobody wrote.
        if text.split() != step.action.split() and "".join(text.split()) != "".join(step.action.split()):
            raise RowError("the model's tokenizer cannot write an answer", f"{step.action[:80]!r} reads {text[:80]!r}")
        # The text that the ids spell, and not the log's: `require_own_tokens` compares the two later.
        turns.append(_turn(step, prompt, action, text))
        history.append(Message(role="assistant", content=step.action))
    return Trajectory(
        id=name,
        task=episode.task,
        seed=episode.seed,
        turns=(*turns[:-1], _ended(turns[-1], episode)),  # only the last turn carries the end
        stop_reason=episode.stop_reason,
        success=episode.success,
        origin="log",
        policy="log",
    )


def _prompt(codec: ChatCodec, history: list[Message], step: Step, before: Turn | None) -> tuple[int, ...]:
    if not step.observed:  # two answers in a row: only the whole shows whether the template takes them
        codec.encode_start([*history, Message(role="assistant", content=step.action)])
    # A template that rewrites history (drops earlier thoughts, say) shows each turn another past: render it anew.
    if before is None or not codec.is_prefix_preserving():
        return codec.encode_start(history)
    # "stop": `encode_action` has ended the action with its end-of-turn token.
    return before.prompt_ids + before.action_ids + codec.encode_continuation("stop", step.observed)


def _turn(step: Step, prompt: tuple[int, ...], action: tuple[int, ...], text: str) -> Turn:
    # What is forced no loss ever sees, and a reward may not lie on it.
    producer = Span(start=0, end=len(action), version=-1, producer="dataset" if step.trained else "forced")
    if not step.trained and step.reward:
        raise RowError("a reward on an answer of weight 0")
    return Turn(
        prompt_ids=prompt,
        action_ids=action,
        action_logprobs=(0.0,) * len(action),
        text=text,
        observed=step.observed,
        spans=(producer,),
        rewards={} if step.reward is None else {"log": step.reward},
        state_key=step.state_key,
    )


def _ended(turn: Turn, episode: LoggedEpisode) -> Turn:
    return replace(turn, terminated=not episode.stop_reason.is_truncation, truncated=episode.stop_reason.is_truncation)
