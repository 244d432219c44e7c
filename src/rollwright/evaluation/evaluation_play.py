"""Playing an evaluation: held-out start states, the same for every run, so that any two runs can be paired."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from rollwright.contracts import ConfigError, Split, Task, Trajectory, distinct, episode_seed
from rollwright.evaluation.evaluation_record import Evaluation, record_evaluation
from rollwright.evaluation.evaluation_settings import EvaluationSettings
from rollwright.generation import Sampling
from rollwright.rollout import Collector, EpisodeRequest
from rollwright.run_io import Progress

Play = Callable[[Sequence[EpisodeRequest]], Sequence[Trajectory]]
"""Plays one episode per request and returns them in order, faulted ones included: `Collector.play`."""


def held_out_seeds(split: Split, task: Task, count: int) -> list[int]:
    """`count` different seeds of the split, fixed by the task's id alone: every run is judged on the same starts."""
    seeds: dict[int, None] = {}
    index = 0
    # Two indices may give one seed, and a start must not count twice; a dict keeps the order.
    while len(seeds) < count:
        seeds[episode_seed(split, "held-out", task.id, index)] = None
        index += 1
    return list(seeds)


def evaluation_requests(
    tasks: Sequence[Task],
    *,
    split: Split,
    seeds_per_task: int,
    attempts: int,
    sampling: Sampling,
    max_turns: int | None = None,
) -> list[EpisodeRequest]:
    """One request per task, seed and attempt. Sampled tokens are fixed by the three, whatever else is played.

    Raises:
        ConfigError: several attempts of a greedy policy, which would be one attempt copied; the split "train";
            two tasks of one id.
    """
    if split == "train":
        raise ConfigError("an evaluation on split 'train' judges what was trained on: use 'validation' or 'test'")
    # Copies would pass for further evidence and make pass@k meaningless.
    if attempts > 1 and sampling.temperature == 0.0:
        raise ConfigError(
            f"{attempts} greedy attempts at one start are one attempt copied: "
            "set evaluation.temperature above 0, or evaluation.attempts to 1"
        )
    return [
        # The key fixes the sampled tokens: attempts at one start differ, and each repeats in another run.
        _request(f"{split}/{task.id}/{seed}/{attempt}", task, seed, sampling, max_turns)
        for task in distinct(tasks)
        for seed in held_out_seeds(split, task, seeds_per_task)
        for attempt in range(attempts)
    ]


def evaluate(
    play: Play,
    tasks: Sequence[Task],
    *,
    name: str,
    sampling: Sampling,
    split: Split = "validation",
    seeds_per_task: int = 20,
    attempts: int = 1,
    max_turns: int | None = None,
) -> tuple[Evaluation, list[Trajectory]]:
    """Play every task from held-out start states.

    Args:
        play: `Collector.play`, or whatever plays a request.
        tasks: held-out tasks, or training tasks to be judged on held-out start states.
        name: of the record, see `record_evaluation`.
        split: "validation" to tune by; "test" once, for the number that is reported.
        max_turns: in place of the player's own limit.

    Returns:
        The evaluation, and the trajectories behind it in the order of its rows.

    Raises:
        ConfigError: see `evaluation_requests`.
        DataError: the weights changed while it ran.
    """
    requests = evaluation_requests(
        tasks,
        split=split,
        seeds_per_task=seeds_per_task,
        attempts=attempts,
        sampling=sampling,
        max_turns=max_turns,
    )
    trajectories = list(play(requests))
    # Each request samples by a seed of its own, and the stop ids belong to the tokenizer.
    kept = {key: value for key, value in asdict(sampling).items() if key not in ("seed", "stop_token_ids")}
    return record_evaluation(trajectories, name=name, split=split, sampling=kept), trajectories


def evaluate_policy(
    collector: Collector, tasks: Sequence[Task], settings: EvaluationSettings, *, name: str
) -> tuple[Evaluation, list[Trajectory]]:
    """Evaluate the collector's policy on held-out start states, with a progress bar."""
    # Where ranks share the episodes, the bar of each counts its own.
    total = collector.played_here(len(tasks) * settings.seeds_per_task * settings.attempts)
    with Progress(f"evaluation {name}: episodes", total=total) as bar:
        return evaluate(
            lambda requests: collector.play(requests, progress=lambda _: bar.advance()),
            tasks,
            name=name,
            sampling=replace(collector.sampling, temperature=settings.temperature),
            split=settings.split,
            seeds_per_task=settings.seeds_per_task,
            attempts=settings.attempts,
            max_turns=settings.max_turns or None,
        )


def _request(key: str, task: Task, seed: int, sampling: Sampling, max_turns: int | None) -> EpisodeRequest:
    # Four bytes: engines take seeds of 32 bits.
    draws = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return EpisodeRequest(key=key, task=task, seed=seed, sampling=sampling, sampling_seed=draws, max_turns=max_turns)
