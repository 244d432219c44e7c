"""Revision trajectories: a worse episode up to its first bad action, a revision message, and how a better one went on.

    [ shared beginning | bad steps: no loss ] [ revision message: loss ] [ the better episode's own steps: loss ]

A record is an ordinary trajectory. What must not be learned has policy weights of 0; what is learned was chosen by a
"dataset" (the message, and steps that the policy sampled elsewhere), so that no policy gradient ever reads it.

    text      as released: the better episode's observations are copied, from a world in which the bad steps never were
    replay    all actions are done in a fresh environment, and the record is kept only if it comes out as well

Source: arXiv:2501.11425.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rollwright.contracts import (
    ActionRule,
    Branch,
    ConfigError,
    ContextOverflow,
    DataError,
    Group,
    Origin,
    Span,
    StopReason,
    Task,
    Trajectory,
    Turn,
)
from rollwright.generation import Generation
from rollwright.methods.revision_pairs import RevisionPair
from rollwright.rollout import Act, Collector, Decision, GroupRequest, NewContext, rerender, shown_texts

PHRASES = (
    "That step was wrong. I stop here and try another way.",
    "This leads away from the goal. I change my plan.",
    "My last action did not help. I have to correct it.",
    "I made a mistake just now and go on differently.",
    "Looking back, that was a bad choice. Let me think again.",
    "This is not working. Another way is needed.",
    "I took a wrong turn. I return to what the task asks for.",
    "The result is not what I wanted, so I revise my plan.",
    "I was on the wrong track. From here on I do it differently.",
    "That cost a step and gained nothing. I choose better now.",
)
"""What a revision message says where the policy thinks before it acts: one of these, drawn from all of them."""
REVISION = "revision"
"""Who plays a record, as its `policy` says."""
THOUGHT, WAIT = "{thought}", "{wait}"

Splice = Literal["auto", "text", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionMessage:
    """What is said between the bad steps and the good ones.

    wait: an action that changes nothing. template: the whole answer, with `{thought}` and `{wait}`.
    encode: text to ids, stop token included (`ChatCodec.encode_action`).
    """

    wait: str
    template: str
    encode: Callable[[str], tuple[int, ...]]

    def turn(self, key: str) -> Turn:
        """The message as a turn that has no prompt yet; `key` draws the thought."""
        phrase = random.Random(f"phrase/{key}").choice(PHRASES)
        # Not `format`: the other braces of a template, of a JSON answer say, are its own.
        text = self.template.replace(THOUGHT, phrase).replace(WAIT, self.wait)
        ids = self.encode(text)
        acted = None if text == self.wait else self.wait
        return Turn(
            prompt_ids=(),
            action_ids=ids,
            action_logprobs=(0.0,) * len(ids),
            text=text,
            acted=acted,
            spans=_by_data(ids),
        )


def message_template(rule: str, template: str, wait: str) -> str:
    """The template of revision messages under an action rule; an empty one is chosen by the rule.

    Raises:
        ConfigError: the world would not be given `wait` by an answer of this template.
    """
    fitting = {"all": WAIT, "after_think": f"<think>{THOUGHT}</think>{WAIT}"}
    template = template or fitting.get(rule, "")
    said = template.replace(THOUGHT, PHRASES[0]).replace(WAIT, wait)
    # The rule is asked as for the policy's own answers: these are what it learns to write.
    if not wait or ActionRule(rule).action_of(said).strip() != wait.strip():
        raise ConfigError(
            f"`algorithm.revision={template!r}` with `rollout.action={rule}` gives the world "
            f"{ActionRule(rule).action_of(said)!r}, and a revision message has to act by `algorithm.wait={wait!r}`: "
            f"give a template with {WAIT} where the action stands, and {THOUGHT} where a thought does"
        )
    return template


def as_context(turn: Turn) -> Turn:
    """The turn with a weight of 0 on all of its tokens: it is read and never learned."""
    return replace(turn, policy_weights=(0.0,) * len(turn.action_ids))


def as_lesson(turn: Turn) -> Turn:
    """The turn as somebody's example: nobody sampled it after these words, so it has no log-probs and no version."""
    ids = turn.action_ids
    spans = tuple(replace(s, version=-1, producer=_example(s)) for s in turn.spans) if turn.spans else _by_data(ids)
    return replace(turn, action_logprobs=(0.0,) * len(ids), spans=spans, values={}, sampler_mask=None)


def _example(span: Span) -> Literal["dataset", "forced"]:
    # A token that was forced when it was written stays one that nobody chose.
    return "forced" if span.producer == "forced" else "dataset"


def _by_data(ids: Sequence[int]) -> tuple[Span, ...]:
    return (Span(start=0, end=len(ids), version=-1, producer="dataset"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The turns of a record in order, of which the first `context` are not learned. `key` names the record."""

    key: str
    pair: RevisionPair
    turns: tuple[Turn, ...]
    context: int

    def finished(self, turns: Sequence[Turn], *, stop: StopReason, success: bool | None) -> Trajectory:
        """The record of this script with the prompts and rewards of these turns."""
        marked = [as_context(t) if i < self.context else as_lesson(t) for i, t in enumerate(turns)]
        bad, good = self.pair.bad, self.pair.good
        return Trajectory(
            id=self.key,
            task=bad.task,
            seed=bad.seed,
            turns=tuple(marked),
            stop_reason=stop,
            success=success,
            origin="scripted",
            policy=REVISION,
            version=min((turn.version for turn in marked if turn.version >= 0), default=-1),
            world=bad.world,
            # Up to here it is the worse episode itself; whoever counts turns counts them once.
            branch=Branch(parent=bad.id, turn=min(self.context, len(turns))),
            temperature=good.temperature,
        )


def revision_script(pair: RevisionPair, kept: int, message: RevisionMessage | None, *, key: str) -> Script:
    """The shared beginning, `kept` further steps of the worse episode, the message, the better one's own steps.

    Raises:
        ValueError: the worse episode has no so many steps of its own.
    """
    if not 1 <= kept <= len(pair.bad.turns) - pair.shared:
        own = len(pair.bad.turns) - pair.shared
        raise ValueError(f"{kept} steps of {pair.bad.id} are to be kept, and it has {own} of its own")
    cut = pair.shared + kept
    said = () if message is None else (message.turn(key),)
    return Script(
        key=key, pair=pair, turns=(*pair.bad.turns[:cut], *said, *pair.good.turns[pair.shared :]), context=cut
    )


def splice_text(script: Script, new_context: NewContext, *, answer: str | None) -> Trajectory | None:
    """The record as the released code makes it: every observation is the recorded one.

    Args:
        answer: what the world is said to answer to the revision message; None shows there what the better episode saw,
            which a context without a history needs.

    Returns:
        None where the last bad step ended its episode, so that what followed it is on no record, or where the record
        does not fit into the context.
    """
    pair, cut = script.pair, script.context
    if cut >= len(pair.bad.turns):
        return None
    bad, good = shown_texts(pair.bad), shown_texts(pair.good)[pair.shared :]
    revised = len(script.turns) - cut - len(good)
    # The bad step's own answer stands before whatever comes next; the next answer is the message's.
    after = [bad[cut], good[0] if answer is None else answer, *good[1:]] if revised else [bad[cut], *good[1:]]
    try:
        turns = rerender(replace(pair.bad, turns=script.turns, branch=None), new_context, texts=[*bad[:cut], *after])
    except ContextOverflow:
        return None
    return script.finished(turns, stop=pair.good.stop_reason, success=pair.good.success)


class ScriptActor:
    """Says the turns of scripts again, by the name of the episode's group."""

    origin: Origin = "scripted"
    name = REVISION

    def __init__(self, scripts: Mapping[str, Sequence[Turn]]) -> None:
        self.scripts = scripts

    def begin(self, task: Task) -> Act:
        """What chooses the actions of one episode: which one, its decisions say."""
        return self._act

    async def _act(self, decision: Decision) -> Generation:
        turn = self.turn_of(decision)
        # With the spans that it was sampled with: they tell what of the answer was the action.
        return Generation(
            token_ids=turn.action_ids,
            logprobs=turn.action_logprobs,
            finish_reason=turn.finish,
            spans=turn.spans,
        )

    def turn_of(self, decision: Decision) -> Turn:
        """The turn that is due."""
        # An episode is `group/member`, and its request `group/member/turn`.
        return self.scripts[decision.episode.rpartition("/")[0]][int(decision.request_id.rpartition("/")[2])]


def play_scripts(collector: Collector, scripts: Sequence[Script], actor: ScriptActor | None = None) -> list[Trajectory]:
    """What becomes of the scripts' actions in a fresh environment each, in their order; faults included.

    Args:
        actor: who says them, with something to note besides; None = `ScriptActor`.
    """
    requests = [
        GroupRequest(
            key=script.key,
            task=script.pair.bad.task,
            seed=script.pair.bad.seed,
            size=1,
            max_turns=len(script.turns),
            cut=True,
        )
        for script in scripts
    ]
    actor = actor or ScriptActor({script.key: script.turns for script in scripts})
    groups = collector.collect_by(actor, requests) if requests else []
    # Where an environment faulted a second one may have been asked; the last is the one that counts.
    return [group.trajectories[-1] for group in groups]


def splice_replay(
    collector: Collector,
    scripts: Sequence[Script],
    *,
    judge: Callable[[Group], Group],
    score: Callable[[Trajectory], float],
    tolerance: float,
) -> list[Trajectory | None]:
    """The records whose actions were done in a real environment and came out as well as the better episode.

    Args:
        judge: lays the reward on the turns. score: what an episode is then worth.
        tolerance: how far below the better episode's score a record may end.

    Returns:
        One entry per script; None where its record was refused: the score is lower, or the episode faulted or ended
        before anything was to be learned.

    Raises:
        DataError: the world showed something else than it did when it was searched.
    """
    found: list[Trajectory | None] = []
    for script, played in zip(scripts, play_scripts(collector, scripts), strict=True):
        require_repeated(script, played, collector.world.name)
        lone = Group(id=script.key, task=played.task, seed=played.seed, trajectories=(played,))
        judged = judge(lone).trajectories[0] if played.learnable else played
        whole = judged.learnable and len(judged.turns) > script.context
        if not whole or score(judged) < script.pair.good_score - tolerance - 1e-9:
            found.append(None)
            continue
        made = script.finished(judged.turns, stop=judged.stop_reason, success=judged.success)
        found.append(replace(made, score=judged.score, next_prompt_ids=judged.next_prompt_ids))
    return found


def require_repeated(script: Script, played: Trajectory, world: str) -> None:
    """Raises DataError where an environment was given the actions of a path again and showed something else."""
    for number, (before, after) in enumerate(zip(script.turns[: script.context], played.turns, strict=False)):
        if (before.prompt_ids, before.state_key) != (after.prompt_ids, after.state_key):
            raise DataError(
                f"{world} does not repeat its episodes: before turn {number} of {script.pair.bad.id} (task "
                f"{played.task.id!r}, seed {played.seed}) the same actions led elsewhere than in the search. A record "
                "cannot be replayed here: use algorithm.splice=text, or mend the world (rollwright check-env)"
            )
