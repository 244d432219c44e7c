"""Inverse dynamics: what was done between two observations, so that logs without actions can be imitated.

    learn    p(action | earlier observations, before, after) from the few episodes whose actions are known
    label    the most probable action of every step of a log, with its probability as confidence

A step is left without an action where the confidence is low, or where what came after is not on record: it then has
nothing to learn from. True actions are never touched. Source: arXiv:2210.06518 (SS-ORL).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rollwright.contracts import DataError, Message, Span, Trajectory, Turn
from rollwright.critics import sample_actions
from rollwright.generation import Engine, Sampling
from rollwright.methods.demonstrations import IGNORED
from rollwright.models import ChatCodec
from rollwright.rollout import NewContext, rerender, shown_texts

TAG = "inverse_dynamics"
CONFIDENCE = "label_confidence"
"""Under this name `Turn.values` of a labelled turn hold the label's probability, on each of its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One step without its action. `seen` ends with the observation before it; `after` is None where unrecorded."""

    seen: tuple[str, ...]
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The action that a model reads into a passage, and the probability it gives it."""

    action_ids: tuple[int, ...]
    confidence: float


Labeller = Callable[[Sequence[Passage]], Sequence[Label]]


@dataclass(frozen=True, slots=True, kw_only=True)
class InversePrompt:
    """How the model is asked.

    Attributes:
        history: observations before the one that the action answers to; more than 0 where one observation hides what an
            action does (a speed, a chosen tool).
        ended: stands for what comes after an action that ended its task.
    """

    system: str = "Say which action leads from the last state before to the state after. Answer with the action only."
    before: str = "Before:"
    after: str = "After:"
    ended: str = "(the task ended)"
    history: int = 0

    def messages(self, passage: Passage) -> tuple[Message, ...]:
        """The question as a conversation; the action follows it."""
        seen = [f"{self.before}\n{text}" for text in passage.seen[-1 - self.history :]]
        text = "\n".join([*seen, f"{self.after}\n{passage.after}"])
        system = (Message(role="system", content=self.system),) if self.system else ()
        return (*system, Message(role="user", content=text))


def passages(trajectory: Trajectory, prompt: InversePrompt) -> list[Passage]:
    """One per turn. What followed the last turn is not on record, only whether it ended the task.

    Raises:
        DataError: a turn has no observation on record.
    """
    texts = shown_texts(trajectory)
    # An episode that was cut went on: what its last action led to is not known, and it was not the end.
    last = None if trajectory.stop_reason.is_truncation else prompt.ended
    return [
        Passage(seen=tuple(texts[max(0, place - prompt.history) : place + 1]), after=after)
        for place, after in enumerate([*texts[1:], last])
    ]


def inverse_rows(
    trajectories: Sequence[Trajectory], codec: ChatCodec, prompt: InversePrompt, *, max_length: int
) -> list[dict[str, list[int]]]:
    """Rows for supervised fine-tuning: each passage as a question, its true action as the answer.

    Raises:
        DataError: the actions were written with another tokenizer, or no row fits.
    """
    rows = []
    for trajectory in trajectories:
        for turn, passage in zip(trajectory.turns, passages(trajectory, prompt), strict=True):
            # Forced tokens were chosen by nobody, so they are no answer to the question.
            if passage.after is None or not turn.action_ids or not all(turn.action_mask):
                continue
            require_same_words(trajectory, turn, codec)
            ids = codec.encode_start(prompt.messages(passage))
            rows.append({"input_ids": [*ids, *turn.action_ids], "labels": [IGNORED] * len(ids) + [*turn.action_ids]})
    fitting = [row for row in rows if len(row["input_ids"]) <= max_length]
    if not fitting:
        raise DataError(f"none of {len(rows)} labelled steps fits into sft.max_length = {max_length} tokens")
    return fitting


def require_same_words(trajectory: Trajectory, turn: Turn, codec: ChatCodec) -> None:
    """Raises DataError where this tokenizer reads another action out of the stored ids."""
    # Decoding need not fail at ids that the tokenizer lacks, so they are looked for first.
    known = max(turn.action_ids) < len(codec.tokenizer)
    if not known or codec.decode_action(turn.action_ids) != turn.text:
        raise DataError(
            f"trajectory {trajectory.id} acted with ids {list(turn.action_ids)}, which this model's tokenizer does not "
            f"read as {turn.text!r}: collected with another tokenizer; name its model in model.path"
        )


def without_actions(trajectory: Trajectory) -> Trajectory:
    """The episode as a log: observations, rewards and verdict, nothing of what was done.

    Prompts go too: those of a context with history hold the actions.
    """
    # Values and spans speak of the tokens that are taken out.
    kept = {"prompt_ids": (), "action_ids": (), "action_logprobs": (), "text": "", "spans": (), "values": {}}
    turns = tuple(
        replace(turn, observed=_blind(turn, text), **kept)  # type: ignore[arg-type]
        for turn, text in zip(trajectory.turns, shown_texts(trajectory), strict=True)
    )
    return replace(trajectory, turns=turns, has_actions=False, origin="log", policy="", next_prompt_ids=())


def _blind(turn: Turn, text: str) -> tuple[Message, ...]:
    """The messages, the line of earlier actions taken out of the last one."""
    # The system's message stays: it tells the rules, not what was done.
    *rest, _ = turn.observed
    return (*rest, Message(role="user", content=text))


def require_logs(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The episodes of the train split that ended without a fault, all of them without actions.

    Raises:
        DataError: one of them has actions, or none is left.
    """
    kept = [t for t in trajectories if t.task.split == "train" and not t.stop_reason.is_fault and t.turns]
    for trajectory in kept:
        if trajectory.has_actions:
            raise DataError(
                f"trajectory {trajectory.id} has actions already, and true actions are never overwritten: name its "
                "store in data.stores; data.logs are stores of episodes with has_actions=False"
            )
    if not kept:
        raise DataError(f"none of {len(trajectories)} logs is of the train split, free of faults and has a turn")
    return kept


def label(trajectories: Sequence[Trajectory], labeller: Labeller, prompt: InversePrompt) -> list[list[Label | None]]:
    """A label for each turn of each log, None where what followed is not on record. Each passage is asked once."""
    asked = [passages(trajectory, prompt) for trajectory in trajectories]
    # Worlds repeat themselves: equal passages are one question and get one label.
    distinct = list(dict.fromkeys(p for row in asked for p in row if p.after is not None))
    found = dict(zip(distinct, labeller(distinct), strict=True))
    return [[found.get(passage) for passage in row] for row in asked]


class ModelLabeller:
    """A trained model as a labeller: its most probable answer to each question."""

    def __init__(self, engine: Engine, codec: ChatCodec, prompt: InversePrompt, *, max_tokens: int) -> None:
        self.engine, self.codec, self.prompt = engine, codec, prompt
        self.sampling = Sampling(temperature=0.0, max_tokens=max_tokens, stop_token_ids=tuple(codec.stop_token_ids))

    def __call__(self, questions: Sequence[Passage]) -> list[Label]:
        prompts = [self.codec.encode_start(self.prompt.messages(question)) for question in questions]
        answers = sample_actions(self.engine, prompts, self.sampling, key="label")
        # An answer that was cut is no action: nobody would have said half of it.
        return [
            # The probability of the whole answer is the product over its tokens, the stop token included.
            Label(action_ids=a.token_ids, confidence=math.exp(sum(a.logprobs)) if a.finish_reason == "stop" else 0.0)
            for a in answers
        ]


def labelled(
    trajectory: Trajectory, labels: Sequence[Label | None], new_context: NewContext, *, threshold: float
) -> Trajectory:
    """The log with actions where their confidence reaches the threshold, its prompts as the policy will be given them.

    A context that shows earlier actions shows the likeliest ones, also where they are too doubtful to learn from.
    """
    # Doubtful guesses stay in this list, as a context with history has to show something for these turns.
    guesses = [() if found is None else found.action_ids for found in labels]
    turns = rerender(trajectory, new_context, actions=guesses)
    filled = [_filled(turn, found, threshold) for turn, found in zip(turns, labels, strict=True)]
    # Where a context shows no history, no prompt has changed, and the one after a cut is still right.
    same = all(new.prompt_ids == old.prompt_ids for new, old in zip(turns, trajectory.turns, strict=True))
    return replace(
        trajectory,
        turns=tuple(filled),
        has_actions=any(turn.action_ids for turn in filled),
        origin="log",
        policy=TAG,
        next_prompt_ids=trajectory.next_prompt_ids if same else (),
    )


def _filled(turn: Turn, found: Label | None, threshold: float) -> Turn:
    if found is None or found.confidence < threshold:
        return replace(turn, action_ids=(), action_logprobs=(), text="", spans=())
    count = len(found.action_ids)
    # No version of the policy sampled these tokens.
    span = Span(start=0, end=count, version=-1, producer="dataset")
    return replace(turn, spans=(span,), values={CONFIDENCE: (found.confidence,) * count})


def held_out(trajectory: Trajectory, frac: float, *, seed: int, what: str) -> bool:
    """Whether this whole episode falls on the other side of a split; fixed by its id, seed and the split's name."""
    # A hash and no draw: the side of an episode does not depend on which others there are.
    digest = hashlib.sha256(f"{seed}/{what}/{trajectory.id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < frac * 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReport:
    """How good labels are against known actions: over all steps, and over those that reach the threshold.

    steps: with a label. kept_frac: of them at or above the threshold. mean_confidence: over all of them; near
    `accuracy` where the model knows what it does not know.
    """

    steps: int
    accuracy: float
    kept_frac: float
    kept_accuracy: float
    mean_confidence: float

    def __str__(self) -> str:
        return (
            f"{self.steps} steps, accuracy {self.accuracy:.3f} at mean confidence {self.mean_confidence:.3f}; "
            f"{self.kept_frac:.3f} of them reach the threshold, accuracy there {self.kept_accuracy:.3f}"
        )


def judge_labels(
    truths: Sequence[Trajectory], labels: Sequence[Sequence[Label | None]], codec: ChatCodec, *, threshold: float
) -> LabelReport:
    """Compare labels with what was really done, by the actions' text.

    Raises:
        DataError: no step has both.
    """
    rows = [
        # Compared as text, since another split into tokens may say the same.
        (found.confidence, codec.decode_action(found.action_ids).strip() == turn.text.strip())
        for trajectory, found_row in zip(truths, labels, strict=True)
        for turn, found in zip(trajectory.turns, found_row, strict=True)
        if found is not None and turn.action_ids
    ]
    if not rows:
        raise DataError("no labelled step is held out: raise data.held_out_frac, or give more labelled episodes")
    kept = [right for confidence, right in rows if confidence >= threshold]
    return LabelReport(
        steps=len(rows),
        accuracy=sum(right for _, right in rows) / len(rows),
        kept_frac=len(kept) / len(rows),
        # Where no label reaches the threshold the accuracy is 0, and not an error.
        kept_accuracy=sum(kept) / max(1, len(kept)),
        mean_confidence=sum(confidence for confidence, _ in rows) / len(rows),
    )
