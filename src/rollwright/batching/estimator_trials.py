"""A user's own advantage estimator, tried on a small batch before a run begins.

The batch holds what real ones hold: two groups of two episodes, turns of several tokens, rewards in the middle and at
the end, an episode that a limit cut, and states that are met twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rollwright.batching.credit import flatten
from rollwright.batching.estimators import Advantage
from rollwright.batching.token_batch import TokenBatch
from rollwright.batching.value_estimators import ValueAdvantage
from rollwright.contracts import Group, StopReason, Task, Trajectory, Turn
from rollwright.maths import advantages as adv

_TASK = Task(id="small example", split="train")
# Members of a group earn differently: an estimator that divides by the group's spread must not meet 0 here.
_RETURNS = {"a": ((0.0, 1.0), (0.0, 0.0)), "b": ((0.5, 1.0), (0.0, -1.0))}
"""By group: what each turn of each episode earns."""


def small_batch() -> TokenBatch:
    """Two groups of two episodes of two turns, three action tokens each: N = 24, U = 8, S = 4, G = 2."""
    return flatten([_group(name, episodes) for name, episodes in _RETURNS.items()])


def try_advantage(estimator: Advantage) -> None:
    """Call an estimator as `recipes/grpo.py` will.

    Raises:
        ValueError: what it gives is not one finite number per action token. Whatever the estimator raises.
    """
    batch = small_batch()
    # The second argument is passed only where it is asked for: other estimators take the batch alone.
    asks = getattr(estimator, "needs_greedy", False)
    found = estimator(batch, dict.fromkeys(batch.group_ids, 0.5)) if asks else estimator(batch)  # type: ignore[call-arg]
    require_per_token("advantages", found, len(batch.turn_index))


def try_value_advantage(estimator: ValueAdvantage) -> None:
    """Call an estimator as `recipes/ppo.py` will, with and without values behind the cuts.

    Raises:
        ValueError: what it gives are not advantages and returns, each one finite number per action token. Whatever the
            estimator raises.
    """
    batch = small_batch()
    values = torch.linspace(-0.5, 0.5, len(batch.turn_index))
    # A run passes None where the limit is part of the task, and values where it only cuts the episode.
    for last_values in (None, torch.full((len(batch.trajectories),), 0.25)):
        found: object = estimator(batch, values, last_values)
        if not isinstance(found, adv.ValueAdvantages):
            raise ValueError(f"it must give ValueAdvantages(advantages=..., returns=...), got {type(found).__name__}")
        require_per_token("advantages", found.advantages, len(values))
        require_per_token("returns", found.returns, len(values))


def require_per_token(name: str, found: object, count: int) -> None:
    """Raises ValueError unless `found` is a tensor [count] of finite floats."""
    if not isinstance(found, Tensor) or not found.is_floating_point():
        kind = f"a tensor of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"`{name}` must be a float tensor with one number per action token, got {kind}")
    if found.shape != (count,):
        raise ValueError(f"`{name}` must have one number per action token, [{count}], got {list(found.shape)}")
    if not found.isfinite().all():
        raise ValueError(f"`{name}` must be finite, got {found.tolist()}")


def _group(name: str, episodes: tuple[tuple[float, ...], ...]) -> Group:
    members = tuple(_episode(f"{name}/{place}", rewards) for place, rewards in enumerate(episodes))
    return Group(id=name, task=_TASK, seed=0, trajectories=members)


def _episode(name: str, rewards: tuple[float, ...]) -> Trajectory:
    turns = tuple(
        Turn(
            prompt_ids=(1, 2),
            action_ids=(3, 4, 5),
            action_logprobs=(-0.5, -1.0, -0.1),
            text="act",
            rewards={"task": reward},
            # The same keys in every episode: estimators that compare equal states find some.
            state_key=f"state {place}",
        )
        for place, reward in enumerate(rewards)
    )
    # The second member of each group is cut, so that both kinds of ends are met.
    cut = name.endswith("1")
    reason = StopReason.MAX_TURNS if cut else StopReason.TERMINATED
    return Trajectory(
        id=name, task=_TASK, seed=0, turns=turns, stop_reason=reason, next_prompt_ids=(1, 2, 6) if cut else ()
    )
