"""Checks on the tasks themselves: shared between splits, answers in plain sight, one answer for most of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from rollwright.checks.audit.audit_episodes import AuditEpisode
from rollwright.checks.audit.findings import AuditFinding, CheckResult, transcript_of
from rollwright.contracts import SPLITS, AuditFacts, Split, Task, World

_SHOWN_MORE_OFTEN = 0.2
"""How much oftener than by coincidence a start's own answer must stand in its first observation."""


def splits_check(world: World, golden: Sequence[AuditEpisode]) -> CheckResult:
    """Tasks that training and test share, by parameters and by what is seen first."""
    tasks = {split: list(world.tasks(split)) for split in SPLITS}
    if by_seed(tasks):
        return CheckResult(name="splits", measured={"splits": "by seed: the tasks are the same, their starts are not"})
    found, measured = [], {}
    train, test = _params_of(tasks["train"]).keys(), _params_of(tasks["test"]).keys()
    # Parameters that repeat, or are the same in all splits, do not name a task: then what is seen first decides.
    telling = len(train) == len(tasks["train"]) and train != test
    shared = train & test if telling else set()
    seen: dict[Split, dict[str, AuditEpisode]] = {split: {} for split in SPLITS}
    for episode in golden:
        key = json.dumps([episode.task.params, episode.goal, episode.first], sort_keys=True, default=repr)
        seen[episode.task.split].setdefault(key, episode)
    alike = seen["train"].keys() & seen["test"].keys()
    told = f"{len(shared)} of {len(tasks['test'])} test tasks"
    measured["shared parameters"] = told if telling else "they do not tell tasks apart"
    measured["shared first observations"] = f"{len(alike)} of {len(seen['test'])} test starts"
    if shared:
        ids = sorted(_params_of(tasks["test"])[key] for key in shared)
        message = f"{len(shared)} test tasks have the parameters of a training task: {', '.join(ids[:5])}"
        found.append(AuditFinding(kind="split overlap", probe="splits", message=message))
    elif alike:
        message = f"{len(alike)} test starts look exactly like a training start"
        sample = seen["test"][min(alike)]
        found.append(
            AuditFinding(kind="split overlap", probe="splits", message=message, transcript=transcript_of(sample))
        )
    return CheckResult(name="splits", measured=measured, findings=tuple(found))


def by_seed(tasks: Mapping[Split, Sequence[Task]]) -> bool:
    """Whether the splits differ in their seeds only: the same ids, or no parameters that could tell tasks apart."""
    train, test = tasks["train"], tasks["test"]
    if not train or not test:
        return True
    if {task.id for task in train} & {task.id for task in test}:
        return True
    return len(_params_of(train)) == len(_params_of(test)) == 1 and _params_of(train).keys() == _params_of(test).keys()


def _params_of(tasks: Sequence[Task]) -> dict[str, str]:
    """Parameters as text -> the id of a task that has them. Tasks without any are told apart by their id."""
    return {
        json.dumps(
            dict(task.params) or {"id": task.id.removeprefix(f"{task.split}/")}, sort_keys=True, default=repr
        ): task.id
        for task in tasks
    }


def answers_check(golden: Sequence[AuditEpisode], facts: Mapping[str, AuditFacts]) -> CheckResult:
    """Whether the answer of a start stands in its first observation, more often than answers of other starts do."""
    solved = [e for e in golden if e.accepted and e.steps]
    answers = [_answer_of(e, solved) for e in solved]
    pairs = [(e, a) for e, a in zip(solved, answers, strict=True) if a]
    if len(pairs) < 3:
        return CheckResult(name="answer leakage", skipped="fewer than three starts with an answer of their own")
    own = [e for e, answer in pairs if _shows(e, answer)]
    # The same question about the answer of the next start: short answers stand in many texts by coincidence.
    shifted = [answer for _, answer in [*pairs[1:], pairs[0]]]
    others = sum(
        _shows(e, answer) for (e, own_answer), answer in zip(pairs, shifted, strict=True) if answer != own_answer
    )
    measured = {
        "own answer shown": f"{len(own)}/{len(pairs)}",
        "answer of another start shown": f"{others}/{len(pairs)}",
    }
    reasons = {facts[e.task.id].answer_shown for e in own if facts[e.task.id].answer_shown}
    if reasons:
        measured["declared"] = "; ".join(sorted(reasons))
    undeclared = [e for e in own if not facts[e.task.id].answer_shown]
    found = []
    if len(undeclared) - others > _SHOWN_MORE_OFTEN * len(pairs):
        message = f"the answer stands in the first observation of {len(undeclared)} of {len(pairs)} starts"
        found.append(
            AuditFinding(
                kind="answer shown", probe="answer leakage", message=message, transcript=transcript_of(undeclared[0])
            )
        )
    return CheckResult(name="answer leakage", measured=measured, findings=tuple(found))


def _answer_of(episode: AuditEpisode, solved: Sequence[AuditEpisode]) -> str:
    """The rarest action of the solution, of which one or two starts only have it; "" where all actions are common."""
    counts = Counter(action for other in solved for action in set(other.actions))
    rare = [action for action in episode.actions if counts[action] <= max(1, len(solved) // 10) and len(action) > 1]
    return rare[-1].strip() if rare else ""


def _shows(episode: AuditEpisode, answer: str) -> bool:
    """Whether the text holds the answer as a whole word, in whatever case."""
    text = f"{episode.goal}\n{episode.first}"
    return re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE) is not None


def labels_check(golden: Sequence[AuditEpisode]) -> CheckResult:
    """How often solutions end with the same action: what a constant answer could earn where the action is an answer."""
    ends = Counter(e.steps[-1].action for e in golden if e.accepted and e.steps)
    if not ends:
        return CheckResult(name="labels", skipped="no known solution")
    action, count = min(ends.items(), key=lambda pair: (-pair[1], pair[0]))
    total = sum(ends.values())
    single = sum(len(e.steps) == 1 for e in golden) / len(golden)
    return CheckResult(
        name="labels",
        measured={
            "commonest last action": f"{action[:60]!r} in {count / total:.2f} of the solutions",
            "solutions of one action": f"{single:.2f}",
        },
    )
