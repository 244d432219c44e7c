"""Conversation partners that are models: anything that turns messages into text may answer in a game's name.

The rules of a game stay what they are: rewards and verdicts come from the scripted partner. A partner of yours only
says the lines, so a game is scored alike with both.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from rollwright.contracts import ConfigError, EnvironmentFault, Execution, Message
from rollwright.envs.text.game import plain

log = logging.getLogger(__name__)
LONGEST_REPLY = 600
"""Characters; a partner that does not stop must not fill the policy's context."""
SILENCE = "..."


class Partner(Protocol):
    """Answers the last message. Episodes repeat exactly if the same messages and seed give the same answer."""

    def __call__(self, messages: Sequence[Message], *, seed: int) -> Awaitable[str]: ...


class Generates(Protocol):
    """The part of the core's engines that a partner needs."""

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Any, *, request_id: str) -> Any:
        """Sample one answer to a prompt, as the core's engines do."""
        ...


class EnginePartner:
    """A generation engine as a partner: its own model beside the policy, or the policy itself.

    Args:
        engine: any engine of the core.
        encode: messages to the ids of a prompt, such as the codec's.
        decode: sampled ids to text.
        sampling: the engine's sampling parameters for a seed.
    """

    def __init__(
        self,
        engine: Generates,
        *,
        encode: Callable[[Sequence[Message]], Sequence[int]],
        decode: Callable[[Sequence[int]], str],
        sampling: Callable[[int], Any],
    ) -> None:
        self._engine = engine
        self._encode, self._decode, self._sampling = encode, decode, sampling

    async def __call__(self, messages: Sequence[Message], *, seed: int) -> str:
        prompt = tuple(self._encode(messages))
        found = await self._engine.generate(prompt, self._sampling(seed), request_id=f"partner/{seed}/{len(prompt)}")
        return self._decode(found.token_ids)


def load_partner(named: Partner | str | None) -> Partner | None:
    """A partner as it is, by the name `package.module:make` of a function that makes one, or none.

    Raises:
        ConfigError: the name is not of that form, or there is no such function.
    """
    if not isinstance(named, str):
        return named
    module, _, attribute = named.partition(":")
    try:
        make = getattr(importlib.import_module(module), attribute) if attribute else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"partner {named!r} cannot be loaded: {error}") from error
    if not callable(make):
        raise ConfigError(f"partner {named!r} must read `package.module:make`, make() giving the partner")
    # Made once per world and not per episode: it may load a model.
    made: Partner = make()
    return made


def execution_with(partner: Partner | None) -> Execution:
    """A scripted partner answers at once, a model has to be awaited."""
    return "inline" if partner is None else "async"


async def ask(partner: Partner, messages: Sequence[Message], *, seed: int, deadline_s: float) -> str:
    """The partner's line, on one line and not too long; `SILENCE` where it says nothing, as the policy may ask it to.

    Raises:
        EnvironmentFault: it raised, or did not answer within `deadline_s` seconds.
    """
    try:
        # Bounded: one answer that never comes would hold up the whole batch of episodes.
        reply = await asyncio.wait_for(partner(messages, seed=seed), deadline_s)
    except TimeoutError as error:
        raise EnvironmentFault(f"the partner gave no answer within {deadline_s:.0f} s") from error
    except Exception as error:
        raise EnvironmentFault(f"the partner failed: {error!r}") from error
    # On one line, since line ends could pass for further turns of the talk.
    line = plain(str(reply), limit=LONGEST_REPLY)
    if not line:
        log.warning("the partner said nothing: where it does so often, give it more tokens, or another model")
    return line or SILENCE
