"""What a recipe refuses to learn from: no data, data that tell nothing, data that its model would read differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rollwright.contracts import ConfigError, DataError, Turn
from rollwright.models import ChatCodec, causal_lm, marked, padding_text
from rollwright.store.replay import TurnTable
from rollwright.store.trajectory_store import TrajectoryStore

Array = NDArray[Any]


def require_stores(offline_steps: int, stores: Sequence[str]) -> None:
    """Steps that collect nothing need something else to learn from.

    Raises:
        ConfigError: there are such steps and no store is named.
    """
    if offline_steps and not stores:
        raise ConfigError("algorithm.offline_steps learn from stored trajectories: name some in replay.stores")


def require_own_tokens(stores: Sequence[str], table: TurnTable, codec: ChatCodec, policy: nn.Module) -> None:
    """The stored ids must be those that this model's tokenizer writes.

    Every id is held against the model's rows, and against those of them that no token stands for. Of each store some
    actions are decoded: they must read as they did to the world. A few may differ (a tokenizer that was updated); where
    most do, it was another tokenizer.

    Args:
        table: of these stores, and maybe of others.

    Raises:
        DataError: they are not.
    """
    # Of models with vision the size stands in the config of the text part.
    size = int(causal_lm(policy).config.get_text_config().vocab_size)
    highest = table.highest_id()
    if highest >= size:
        raise DataError(
            f"the trajectories hold token id {highest}, the model's vocabulary has {size}: they were collected with "
            "another tokenizer; collect them again with this model"
        )
    # A model's rows are often rounded up: ids between the tokenizer's last and the row count pass the check above.
    never = marked(causal_lm(policy))
    if never is not None and (found := table.first_of(never.cpu().numpy())) >= 0:
        raise DataError(padding_text(found, size))
    for store in stores:
        # A sample: a wrong tokenizer reads nearly every action differently, and stores may be large.
        turns = list(islice(_written(store), 64))
        unlike = [turn for turn in turns if codec.decode_action(turn.action_ids).strip() != turn.text.strip()]
        # Strictly more than half, which also lets a store without any written text pass.
        if 2 * len(unlike) > len(turns):
            turn = unlike[0]
            raise DataError(
                f"{store}: the action {turn.text!r} is stored as token ids that this model's tokenizer reads as "
                f"{codec.decode_action(turn.action_ids)!r} ({len(unlike)} of {len(turns)} actions read differently): "
                "it was collected with another tokenizer; collect it again with this model"
            )


def _written(store: str) -> Iterator[Turn]:
    """Turns with an action and its text, which not every import has; a few of each of its first trajectories."""
    # At most four of each, so that the 64 turns that are asked for are of 16 episodes or more.
    for trajectory in islice(TrajectoryStore(store, mode="read").iter_trajectories(), 64):
        yield from [turn for turn in trajectory.turns if turn.action_ids and turn.text.strip()][:4]


def require_turns(table: TurnTable, turns: Array) -> None:
    """There must be something to learn from.

    Raises:
        DataError: none of the stored turns may be trained on.
    """
    if len(turns):
        return
    rows = table.trajectories
    raise DataError(
        f"none of {len(rows)} stored trajectories may be trained on: {int((~rows['train']).sum())} are of a held-out "
        f"split, {int((~rows['has_actions']).sum())} have no actions, {int((~rows['learnable']).sum())} broke, were "
        f"not judged, or hold nothing to learn, and {int((table.column('length') == 0).sum())} of {len(table)} turns "
        "have no token; collect some with recipes/collect.py"
    )


def require_outcomes(table: TurnTable, turns: Array, scores: Array | None = None) -> None:
    """Something must tell good episodes from bad ones.

    Args:
        scores: [S] what a trajectory is judged by; None = its return.

    Raises:
        DataError: no turn may be trained on, or all trajectories that may be have the same score.
    """
    require_turns(table, turns)
    # Only those that may be trained on: held-out episodes must not supply the difference.
    owners = np.unique(table.owners()[turns])
    earned = (table.trajectories["total_reward"] if scores is None else scores)[owners]
    if np.ptp(earned) == 0:
        if scores is not None:
            said = f"the outcome {earned[0]:g}"
        else:
            said = "no reward at all" if not earned.any() else f"a return of {earned[0]:g} each"
        raise DataError(
            f"all {len(owners)} trajectories that may be trained on have {said}: nothing tells the good ones from the "
            "bad; collect a mixture, or score the store with a reward"
        )


def require_success_is_seen(table: TurnTable, turns: Array, labels: Array) -> None:
    """Where the world knows of successes, the labels must too.

    Raises:
        DataError: the world calls some of these trajectories successes, and all of their labels are 0.
    """
    owners = np.unique(table.owners()[turns])
    # 1, as `success` is -1 where the world gave no verdict.
    won = int((table.trajectories["success"][owners] == 1).sum())
    if won and not labels[owners].any():
        raise DataError(
            f"the world calls {won} of {len(owners)} episodes a success, but no return is above 0: take the verdict as "
            "the outcome (reward.name=success, or algorithm.outcome=verdict)"
        )
