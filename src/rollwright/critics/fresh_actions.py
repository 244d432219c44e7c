"""What the policy would do now: actions for given prompts, without asking any environment."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from rollwright.generation import Ask, BatchEngine, Engine, Generation, Sampling
from rollwright.store.replay import Transition


def sample_actions(
    engine: Engine, prompts: Sequence[tuple[int, ...]], sampling: Sampling, *, key: str
) -> list[Generation]:
    """One action of the current policy for each prompt. No environment is asked; equal keys draw equal actions.

    Raises:
        EngineFault: the engine failed. ContextOverflow: a prompt leaves no room for an action.
    """
    # The place is part of the seed: equal prompts of one call draw different actions.
    asks = [
        Ask(prompt_ids=prompt, sampling=replace(sampling, seed=_seed(f"{key}/{place}")), request_id=f"{key}/{place}")
        for place, prompt in enumerate(prompts)
    ]
    answers = asyncio.run(_ask_all(engine, asks))
    # `generate_together` hands an error back in the place of its answer.
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return [answer for answer in answers if isinstance(answer, Generation)]


class FreshActions:
    """What the policy would do now. Draws are fixed by the run's seed, the step, and how often it was asked in it."""

    def __init__(self, engine: Engine, sampling: Sampling, *, seed: int) -> None:
        self.engine, self.sampling, self.seed = engine, sampling, seed
        self._step, self._asked = 0, 0

    def begin(self, step: int) -> None:
        """A step begins: a resumed run that begins it again draws the same."""
        # Counted anew in every step: what earlier steps asked has no say in this one's draws.
        self._step, self._asked = step, 0

    def __call__(self, prompts: Sequence[tuple[int, ...]]) -> list[Generation]:
        """One action for each prompt; raises as `sample_actions`."""
        self._asked += 1
        return sample_actions(self.engine, prompts, self.sampling, key=f"{self.seed}/{self._step}/fresh/{self._asked}")


async def _ask_all(engine: Engine, asks: Sequence[Ask]) -> Sequence[Generation | Exception]:
    """As one batch where the engine can, so that equal asks get equal bits; else each by itself."""
    if isinstance(engine, BatchEngine):
        return await engine.generate_together(asks)
    return await asyncio.gather(*(engine.generate(a.prompt_ids, a.sampling, request_id=a.request_id) for a in asks))


def _seed(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 2**31


def with_action(transition: Transition, action: Generation) -> Transition:
    """The same state with another action; its reward and its next state are no longer known and must not be read."""
    return replace(
        transition,
        action_ids=action.token_ids,
        action_mask=(True,) * len(action.token_ids),
        logprobs=action.logprobs,
        # NaN and not 0: a reward of 0 would be used without a complaint.
        reward=float("nan"),
        next_prompt_ids=(),
    )
