"""One set of builders for what tests play with: tasks, turns, episodes, groups, stores and run folders.

A test says what it is about and nothing else; every field of the record can be given by its name. A test file that
needs the same few fields again and again wraps these in a line or two of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollwright.contracts import Group, Split, StopReason, Task, Trajectory, Turn
from rollwright.run_io import RunFolder, Tracker
from rollwright.store import TrajectoryStore
from rollwright.store.replay import TurnTable

Ids = Sequence[int]
TASK = Task(id="t", split="train")


def turn(
    prompt: Ids = (1,),
    action: Ids = (2,),
    reward: float | Mapping[str, float] | None = None,
    *,
    logprobs: float | Sequence[float] = -1.0,
    text: str = "",
    **fields: Any,
) -> Turn:
    """One turn.

    Args:
        reward: a number is what the environment paid, 0 included; None leaves the turn without any part.
        logprobs: one for all action tokens, or one for each.
        fields: further ones of `Turn`.
    """
    each = (float(logprobs),) * len(action) if isinstance(logprobs, int | float) else tuple(logprobs)
    paid = {} if reward is None else {"env": reward} if isinstance(reward, int | float) else reward
    return Turn(
        prompt_ids=tuple(prompt), action_ids=tuple(action), action_logprobs=each, text=text, rewards=paid, **fields
    )


def episode(
    name: str = "e",
    *turns: Turn,
    task: Task | str = TASK,
    split: Split = "train",
    seed: int = 0,
    stop: StopReason = StopReason.TERMINATED,
    **fields: Any,
) -> Trajectory:
    """One whole episode. A task by its name is one of `split`; `fields` are further ones of `Trajectory`."""
    where = Task(id=task, split=split) if isinstance(task, str) else task
    return Trajectory(id=name, task=where, seed=seed, turns=turns, stop_reason=stop, **fields)


def group(*trajectories: Trajectory, name: str = "g") -> Group:
    """The episodes as siblings: task and seed are those of the first one, `TASK` and 0 where there is none."""
    task, seed = (trajectories[0].task, trajectories[0].seed) if trajectories else (TASK, 0)
    return Group(id=name, task=task, seed=seed, trajectories=trajectories)


def store_of(folder: Path, *episodes: Trajectory, tag: str = "") -> TrajectoryStore:
    """A store that holds these episodes in one shard."""
    store = TrajectoryStore(folder)
    store.append(list(episodes), tag=tag)
    return store


def table_of(folder: Path, *episodes: Trajectory, may_be_empty: bool = False) -> TurnTable:
    """The same, as the offline recipes read it."""
    return TurnTable(store_of(folder, *episodes), may_be_empty=may_be_empty)


def run_of(
    folder: Path, *episodes: Trajectory, metrics: Iterable[Mapping[str, float]] = (), config: str = "seed: 0\n"
) -> RunFolder:
    """A run folder as a run leaves it: settings, one line of metrics for each mapping, episodes stored at step 0."""
    run = RunFolder.create(folder, config_yaml=config)
    tracker = Tracker(run)
    for step, values in enumerate(metrics):
        tracker.log(step, values)
    if episodes:
        store_of(run.trajectories, *episodes, tag="step_0")
    return run
