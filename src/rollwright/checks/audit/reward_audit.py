"""An audit of a reward: the same recorded episodes, judged by it in place of the world's own verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from rollwright.checks.audit.audit_episodes import AuditEpisode
from rollwright.checks.audit.auditor import Recorded
from rollwright.checks.audit.findings import AuditFinding, CheckResult, transcript_of
from rollwright.contracts import Group, Message, Reward, RewardFault, StopReason, Trajectory, Turn, name_of, scores_of

GROUP_SIZE = 8
_Scored = float | str | None
"""A score, the text of a failure, or None where the reward cannot tell."""
_KEPT_CHECKS = ("reset leakage", "answer leakage", "splits", "labels")


def reward_recorded(recorded: Recorded, reward: Reward, *, accept: float, instructions: str, repeats: int) -> Recorded:
    """What was recorded, with the reward's scores and verdicts.

    Args:
        accept: an episode that scores so much or more counts as called a success.
        instructions: the world's system prompt, which a judge is shown.
        repeats: times that each episode is scored: in its group, in the reverse order, and in a group of its own.
    """
    flat = [episode for own in recorded.panel.values() for episode in own]
    first = _scored(flat, reward, instructions)
    unlike: list[tuple[AuditEpisode, _Scored, _Scored]] = []
    for turn in range(1, repeats):
        size = GROUP_SIZE if turn % 2 else 1
        again = _scored(flat, reward, instructions, size=size, backwards=bool(turn % 2))
        unlike += [(e, a, b) for e, a, b in zip(flat, first, again, strict=True) if not _near(a, b)]
    judged = [_judged(e, score, accept) for e, score in zip(flat, first, strict=True)]
    panel: dict[str, list[AuditEpisode]] = defaultdict(list)
    for episode in judged:
        panel[episode.policy].append(episode)
    kept = [check for check in recorded.checks if check.name in _KEPT_CHECKS]
    return replace(
        recorded,
        panel={name: tuple(panel.get(name, ())) for name in recorded.panel},
        checks=(_repeats_of(unlike, (repeats - 1) * len(flat)), *kept),
    )


def _repeats_of(unlike: Sequence[tuple[AuditEpisode, _Scored, _Scored]], total: int) -> CheckResult:
    found = []
    if unlike:
        episode, a, b = unlike[0]
        message = f"{len(unlike)} of {total} scores were others at a second scoring, such as {a} and then {b}"
        shown = transcript_of(episode)
        found.append(AuditFinding(kind="verdict repeats", probe="determinism", message=message, transcript=shown))
    measured = {"scored again": str(total), "other scores": str(len(unlike))}
    return CheckResult(name="determinism", measured=measured, findings=tuple(found))


def _near(a: _Scored, b: _Scored) -> bool:
    if isinstance(a, float | int) and isinstance(b, float | int):
        return abs(a - b) <= 1e-6 * max(1.0, abs(a))
    return a == b


def _judged(episode: AuditEpisode, score: _Scored, accept: float) -> AuditEpisode:
    if episode.fault or isinstance(score, str):
        return replace(episode, score=None, accepted=None, fault=episode.fault or str(score))
    return replace(episode, score=score, accepted=None if score is None else score >= accept)


def _scored(
    episodes: Sequence[AuditEpisode],
    reward: Reward,
    instructions: str,
    *,
    size: int = GROUP_SIZE,
    backwards: bool = False,
) -> list[_Scored]:
    """The score of each episode, in groups of one start; a text where the reward failed, None without a score."""
    by_start: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for place, episode in enumerate(episodes):
        if episode.steps and not episode.fault:
            by_start[episode.task.id, episode.task.split, episode.seed].append(place)
    found: list[_Scored] = [None] * len(episodes)
    for places in by_start.values():
        ordered = places[::-1] if backwards else places
        for begin in range(0, len(ordered), size):
            part = ordered[begin : begin + size]
            told = tuple(_trajectory(episodes[p], f"{p}", instructions) for p in part)
            first = episodes[part[0]]
            group = Group(id=f"audit/{part[0]}", task=first.task, seed=first.seed, trajectories=told)
            try:
                scores: list[_Scored] = [score.value for score in scores_of(reward, group)]
            except RewardFault as error:
                scores = [f"{type(error).__name__}: {error}"] * len(part)
            for place, value in zip(part, scores, strict=True):
                found[place] = value
    return found


def _trajectory(episode: AuditEpisode, name: str, instructions: str) -> Trajectory:
    """The episode as a record of training has it: a judge is shown what it would be shown there."""
    seen = [episode.first, *(step.text for step in episode.steps[:-1])]
    goal = f"Goal: {episode.goal}\n" if episode.goal else ""
    turns = []
    for place, (text, step) in enumerate(zip(seen, episode.steps, strict=True)):
        message = Message(role="user", content=(goal if place == 0 else "") + text)
        system = (Message(role="system", content=instructions),) if place == 0 and instructions else ()
        turns.append(
            Turn(
                prompt_ids=(0,),
                action_ids=(0,),
                action_logprobs=(0.0,),
                text=step.action,
                observed=(*system, message),
                rewards=dict(step.rewards),
                terminated=step.terminated,
                truncated=step.truncated,
            )
        )
    ended = bool(episode.steps) and episode.steps[-1].terminated
    return Trajectory(
        id=f"audit/{name}",
        task=episode.task,
        seed=episode.seed,
        turns=tuple(turns),
        stop_reason=StopReason.TERMINATED if ended else StopReason.MAX_TURNS,
        success=episode.steps[-1].success if episode.steps else None,
        origin="scripted",
        policy=f"audit/{episode.policy}",
    )


def reward_title(reward: Reward, world: str) -> str:
    """What the report is about."""
    return f"reward {name_of(reward)} on world {world}"
