"""Begin an episode where an earlier one passed by: the world is brought there, and the context is given the way.

A world with exact snapshots is restored; one that can only replay does the recorded actions again, and every state and
every observation on the way must be the recorded one. The turns of the way are context: they are no turns of the new
episode, so there is no loss, no KL and no reward on them.

Sources: arXiv:2403.00673 (snapshot starts; restoring must give the very state that was saved).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from rollwright.contracts import (
    ContextOverflow,
    EngineFault,
    Environment,
    EnvironmentFault,
    Message,
    Observation,
    Passed,
    SamplerMask,
    Shown,
    Snapshots,
    Span,
    Waypoint,
    as_observation,
)
from rollwright.generation import Generation
from rollwright.rollout.contexts import Context
from rollwright.rollout.world_host import checked, checked_observation

Call = Callable[..., Awaitable[tuple[Any, Any]]]
"""Name and method of an environment, arguments -> what it gave, and the fingerprint of the state it led to."""


def shown_of(observation: Observation) -> Shown:
    """The observation as a waypoint keeps it: its pictures by their hash, without the bytes."""
    # A pool keeps up to `starts.capacity` waypoints; bytes are no part of what makes two pictures equal.
    pictures = tuple(replace(attachment, content=None) for attachment in observation.attachments)
    return Shown(text=observation.text, goal=observation.goal, attachments=pictures)


def observation_of(shown: Shown) -> Observation:
    """What a waypoint shows, as the observation that an episode begins with."""
    return Observation(text=shown.text, goal=shown.goal, attachments=shown.attachments)


def prompt_digest(prompt_ids: Sequence[int]) -> str:
    """A short name of a prompt."""
    # The comma keeps [1, 23] and [12, 3] apart.
    return hashlib.sha256(",".join(map(str, prompt_ids)).encode()).hexdigest()[:16]


async def bring_to(start: Waypoint, env: Environment, call: Call) -> None:
    """Put the environment into the waypoint's state.

    Raises:
        EnvironmentFault: the state is another than the recorded one, or the world failed on the way.
    """
    if start.snapshot is None:
        await _replay(start, env, call)
        return
    if not isinstance(env, Snapshots):
        raise EnvironmentFault(f"a snapshot of {start.source} was kept, but the environment has no restore()")
    _, state = await call("env.restore", env.restore, start.snapshot)
    # The state alone: `restore` shows nothing, and the first prompt is compared by `check_prompt`.
    _require(start, len(start.passed), "state", state, start.state_key)


async def _replay(start: Waypoint, env: Environment, call: Call) -> None:
    # One longer than `passed`: the waypoint's own state is checked too, before anybody acts there.
    path = [*((p.shown, p.state_key) for p in start.passed), (start.shown, start.state_key)]
    answer, state = await call("env.reset", env.reset, start.task, start.seed)
    observation = checked_observation(answer)
    for turn, (shown, state_key) in enumerate(path):
        _require(start, turn, "observation", shown_of(observation), shown)
        _require(start, turn, "state", state, state_key)
        if turn == len(start.passed):
            return
        answer, state = await call("env.step", env.step, start.passed[turn].action)
        result = checked(answer)
        # The recorded episode went on from here, so one that ends here is another.
        _require(start, turn + 1, "end of the episode", result.terminated or result.truncated, False)
        observation = as_observation(result.observation)


def _require(start: Waypoint, turn: int, what: str, found: object, recorded: object) -> None:
    if found != recorded:
        raise EnvironmentFault(
            f"the way of {start.source} leads elsewhere now: the {what} before turn {turn} is {_short(found)}, it was "
            f"{_short(recorded)}. A world whose snapshots are not repeatable must declare `snapshots = 'none'` "
            "(rollwright check-env)"
        )


def retrace(context: Context, start: Waypoint) -> tuple[Message, ...]:
    """Give a fresh context all that was shown and said on the way; returns the messages that are new at its end."""
    for passed in start.passed:
        context.observe(observation_of(passed.shown))
        said = Generation(
            token_ids=passed.action_ids,
            # No context reads log-probs.
            logprobs=(0.0,) * len(passed.action_ids),
            finish_reason=passed.finish,
            spans=_writer(passed),
        )
        context.act(said)
    return context.observe(observation_of(start.shown))


def _writer(passed: Passed) -> tuple[Span, ...]:
    """Who wrote an action that is said again, as far as it tells what of it was the action (`ActionRule`)."""
    # An answer without an action must not count as scripted: the rule would take its whole text for the action.
    # With an action it must: a script's words may hold none of the marks that the rule looks for.
    return (Span(start=0, end=len(passed.action_ids), version=-1, producer="dataset"),) if passed.action else ()


def check_prompt(start: Waypoint, prompt_ids: Sequence[int]) -> None:
    """The first prompt of a restored episode must be, id by id, the one that stood there before.

    Raises:
        EnvironmentFault: it is not.
    """
    _require(start, len(start.passed), "prompt", prompt_digest(prompt_ids), start.prompt_digest)


def no_room(start: Waypoint, error: ContextOverflow) -> EngineFault:
    """What is recorded where an episode cannot begin at a waypoint, because the way there fills the context."""
    forced = f" and {len(start.forced_ids)} forced tokens" if start.forced_ids else ""
    # A fault, and no episode without room: whoever chose the start is to blame, and not the task's first prompt.
    return EngineFault(
        f"the prefix of {len(start.passed)} turns of {start.source}{forced} leave no room to act ({error}): raise "
        "`engine.max_context`, use `rollout.context=windowed`, or start nearer to the beginning"
    )


def behind_forced(generation: Generation, forced: tuple[int, ...]) -> Generation:
    """The whole first action: the tokens that were forced, and behind them what was sampled.

    Forced tokens have the producer `forced`: no mask of a loss holds them, and nobody reads their log-prob of 0.
    """
    count = len(forced)
    mask = generation.sampler_mask
    return replace(
        generation,
        token_ids=(*forced, *generation.token_ids),
        logprobs=(*(0.0,) * count, *generation.logprobs),
        spans=(
            Span(start=0, end=count, version=-1, producer="forced"),
            *(replace(span, start=span.start + count, end=span.end + count) for span in generation.spans),
        ),
        sampler_mask=None if mask is None else _mask_behind(mask, forced),
    )


def _mask_behind(mask: SamplerMask, forced: tuple[int, ...]) -> SamplerMask:
    # A forced token is the only one that could stand there.
    kept = None if mask.kept_ids is None else (*((one,) for one in forced), *mask.kept_ids)
    raw = None if mask.raw_logprobs is None else (*(0.0,) * len(forced), *mask.raw_logprobs)
    return replace(mask, kept_ids=kept, raw_logprobs=raw)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:90]}..."
