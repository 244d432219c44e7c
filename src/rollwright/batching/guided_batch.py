"""Episodes of a policy and a guide as one batch: the guide's tokens have values and rewards, and no policy loss.

`flatten` leaves a guide's turns out, as nobody learns an action from them. A critic of what the guide does reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rollwright.batching.credit import flatten, members_to_learn_from, policy_turns
from rollwright.batching.token_batch import TokenBatch
from rollwright.contracts import Group, Trajectory, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class GuidedBatch:
    """Every chosen token of the episodes, whoever chose it.

    positions: [U] number of each turn in its episode. prefix: [U] turns that were played before the guide took over.
    own: [U] bool, whether the policy wrote all of the turn.
    """

    tokens: TokenBatch
    positions: Tensor
    prefix: Tensor
    own: Tensor


def flatten_guided(groups: Sequence[Group]) -> GuidedBatch:
    """Lay the learnable episodes out flat, the guide's turns among the policy's.

    The prefix of an episode is what it has in common with the one that it was branched off from (`Trajectory.branch`).

    Raises:
        ValueError: nothing is left to learn from.
    """
    whole = [group.with_trajectories([_as_own(t) for t in group.trajectories]) for group in groups]
    tokens = flatten(whole)
    originals = [t for g, same in zip(groups, whole, strict=True) for t in _kept(g, same)]
    places = [(t, u) for t in originals for u, turn in enumerate(t.turns) if any(_as_own_turn(turn).policy_mask)]
    return GuidedBatch(
        tokens=tokens,
        positions=torch.tensor([u for _, u in places]),
        prefix=torch.tensor([t.branch.turn if t.branch else 0 for t, _ in places]),
        own=torch.tensor([all(t.turns[u].policy_mask) for t, u in places]),
    )


def _kept(group: Group, same: Group) -> list[Trajectory]:
    """The episodes as they are in the record, of those that `flatten` keeps."""
    kept = {t.id for t in members_to_learn_from(same)}
    return [t for t in group.trajectories if t.id in kept and policy_turns(_as_own(t))]


def _as_own(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, turns=tuple(_as_own_turn(turn) for turn in trajectory.turns))


def _as_own_turn(turn: Turn) -> Turn:
    """The turn with all that anybody chose as if the policy had; forced tokens stay forced."""
    spans = tuple(span if span.producer == "forced" else replace(span, producer="policy") for span in turn.spans)
    return turn if spans == turn.spans else replace(turn, spans=spans)
