"""What the policy would do now: actions for given prompts, without asking any environment."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rollwright.contracts import Trajectory
from rollwright.critics.critic_learner import TurnValues
from rollwright.critics.critic_targets import followed, one_step_targets
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


def with_fresh_actions(turns: Sequence[Transition], fresh: FreshActions) -> list[Transition]:
    """Each of these states with what the policy would do there now."""
    actions = fresh([turn.prompt_ids for turn in turns])
    return [with_action(turn, action) for turn, action in zip(turns, actions, strict=True)]


class FreshValues:
    """V(s) of a critic of actions: the mean of its Q over what the policy would do at s now.

    Args:
        samples: actions per state.
    """

    def __init__(self, critic: TurnValues, fresh: FreshActions, *, samples: int) -> None:
        self.critic, self.fresh, self.samples = critic, fresh, samples

    def __call__(self, prompts: Sequence[tuple[int, ...]], *, samples: int = 0, slow: bool = False) -> Tensor:
        """[n] V at each prompt; 0 samples are as many as usual."""
        if not prompts:
            return torch.zeros(0)
        count = samples or self.samples
        # The copies of a prompt lie side by side, as the view below needs them.
        asked = [prompt for prompt in prompts for _ in range(count)]
        acted = [prompt + action.token_ids for prompt, action in zip(asked, self.fresh(asked), strict=True)]
        # [heads, n] with one head; the draws of a prompt become a row.
        return self.critic.read(acted, slow=slow)["q"][0].view(len(prompts), count).mean(dim=1)

    def after_cuts(self, trajectories: Sequence[Trajectory], *, truncated_end: bool = False) -> Tensor:
        """[S] value of what follows each episode: 0, unless a limit cut it before the task's own end.

        Args:
            truncated_end: a limit is the task's own end.
        """
        ends = torch.zeros(len(trajectories))
        cut = [s for s, t in enumerate(trajectories) if t.next_prompt_ids and t.stop_reason.is_truncation]
        if cut and not truncated_end:
            ends[cut] = self([trajectories[s].next_prompt_ids for s in cut])
        return ends

    def targets(self, batch: Sequence[Transition], *, gamma: float, truncated_end: bool = False) -> Tensor:
        """[n] r + gamma Q_slow(s', a') with a' from the policy as it is now; r alone where the task ended."""
        follows = [batch[k].next_prompt_ids for k in followed(batch, truncated_end=truncated_end)]
        # One sample is an unbiased target, and the regression averages over many.
        after = self(follows, samples=1, slow=True)
        return one_step_targets(batch, after[None], gamma=gamma, truncated_end=truncated_end)[0]
