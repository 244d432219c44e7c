"""Runs the audit of a world: starts, known solutions, the panel, and every check over what it recorded."""

from __future__ import annotations

import ast
import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from rollwright.checks.audit.audit_episodes import AuditEpisode, AuditPlayer, PlayRequest, audit_facts_of, script_of
from rollwright.checks.audit.audit_policy import AuditLimits, AuditPlan
from rollwright.checks.audit.findings import AuditFinding, AuditReport, CheckResult
from rollwright.checks.audit.identity import WorldIdentity, identity_of, random_act, tasks_digest
from rollwright.checks.audit.leakage import broken_check, held_out_seed, leakage_check, repeats_check
from rollwright.checks.audit.panel import (
    GOLDEN,
    PANEL,
    RANDOM,
    REWORDED,
    PanelStart,
    constants_for,
    draws_for,
)
from rollwright.checks.audit.panel_checks import (
    accepts_check,
    faults_check,
    gap_check,
    headroom_check,
    panel_rows,
    rejects_check,
    shape_check,
    template_rows,
    truth_check,
)
from rollwright.checks.audit.task_checks import answers_check, labels_check, splits_check
from rollwright.contracts import (
    SPLITS,
    ActsAtRandom,
    ConfigError,
    Rewords,
    Task,
    Taught,
    World,
)

Report = Callable[[str, int, int], None]
"""Told what is being played, how much of it is done, and how much there is."""
_SAMPLES = 12
_WELL_FORMED = frozenset({"constant", "repeat", "loop", "wrong step", RANDOM})
"""Policies that can play a solution by luck. Not `echo`: a solution that it copies was shown, which is a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was played: the panel by policy, why a policy did not play, the starts, and the checks made meanwhile."""

    panel: Mapping[str, tuple[AuditEpisode, ...]]
    notes: Mapping[str, str]
    starts: tuple[PanelStart, ...]
    checks: tuple[CheckResult, ...]
    identity: WorldIdentity
    num_tasks: int


def audit_world(
    build: Callable[[], World],
    *,
    plan: AuditPlan | None = None,
    limits: AuditLimits | None = None,
    groups: Mapping[str, Sequence[bool]] | None = None,
    before: WorldIdentity | None = None,
    progress: Report | None = None,
) -> AuditReport:
    """Put a world and its verifier on trial.

    Args:
        build: makes the world; called more than once, so that an untouched world can be compared with a used one.
        plan: how much is played.
        limits: what a fit world keeps to.
        groups: for each task the results of the policy that will train; None leaves the headroom unmeasured.
        before: the identity in an earlier audit; a changed behaviour under an unchanged version is then a finding.
        progress: told what is being played.

    Returns:
        The report. The same world and arguments give the same report.

    Raises:
        ConfigError: the world has no task.
        RuntimeError: called while an event loop is running; there, await `record_panel` and call `judge_recorded`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        recorded = asyncio.run(record_panel(build, plan=plan or AuditPlan(), progress=progress))
        return judge_recorded(recorded, plan=plan, limits=limits, groups=groups, before=before)
    raise RuntimeError("an event loop is running: use `await record_panel(...)` and `judge_recorded(...)`")


def judge_recorded(
    recorded: Recorded,
    *,
    plan: AuditPlan | None = None,
    limits: AuditLimits | None = None,
    groups: Mapping[str, Sequence[bool]] | None = None,
    before: WorldIdentity | None = None,
    subject: str = "",
) -> AuditReport:
    """The report over what was recorded; see `audit_world`. `subject` names what was judged, if not the world."""
    limits, plan = limits or AuditLimits(), plan or AuditPlan()
    rows = panel_rows(recorded.panel, recorded.notes)
    golden = rows[GOLDEN].rate
    checks = [
        accepts_check(list(rows.values()), recorded.panel, limits),
        rejects_check(rows, recorded.panel, limits),
        truth_check(recorded.panel),
        gap_check(rows, recorded.panel, limits),
        *recorded.checks,
        headroom_check(groups, golden.point if golden else None, limits, plan.group_size),
        shape_check(recorded.panel, limits),
        faults_check(recorded.panel, limits),
        identity_check(recorded.identity, before),
    ]
    return AuditReport(
        subject=subject or f"world {recorded.identity.name}",
        rows=tuple(rows.values()),
        templates=template_rows(recorded.panel),
        checks=tuple(checks),
        identity=recorded.identity,
        tasks=recorded.num_tasks,
        starts=len(recorded.starts),
    )


async def record_panel(build: Callable[[], World], *, plan: AuditPlan, progress: Report | None = None) -> Recorded:
    """Play everything that an audit needs. Closes every world that it builds."""
    player = AuditPlayer(build(), call_s=plan.call_s, parallel=plan.parallel)
    try:
        return await _Recording(build, player, plan, progress or (lambda what, done, total: None)).run()
    finally:
        await player.close()


class _Recording:
    """One recording, step by step. Made by `record_panel`."""

    def __init__(self, build: Callable[[], World], player: AuditPlayer, plan: AuditPlan, progress: Report) -> None:
        self._build = build
        self._player = player
        self._plan = plan
        self._progress = progress
        self._panel: dict[str, list[AuditEpisode]] = defaultdict(list)
        self._notes: dict[str, str] = {}

    async def run(self) -> Recorded:
        world = self._player.world
        # Before anything is played: the digest of a world that has been used could be another one.
        identity = await identity_of(world, call_s=self._plan.call_s)
        tasks = chosen_tasks(world, self._plan.tasks)
        # The teacher plays first: nearly every other policy is made from what it did.
        starts = await self._solutions(await self._starts(tasks))
        starts = await self._samples(starts)
        golden = self._panel[GOLDEN]
        panel_starts = self._panel_starts(starts)
        await self._reword(panel_starts)
        for policy in PANEL:
            requests = [request for start in panel_starts for request in policy.requests(start)]
            played = await self._play(policy.name, requests)
            self._panel[policy.name] = [await self._explained(episode, panel_starts) for episode in played]
            applies = len({(r.task.id, r.task.split, r.seed) for r in requests})
            if not requests:
                self._notes[policy.name] = f"not played: it needs {policy.needs}"
            elif applies < len(panel_starts):
                self._notes[policy.name] = f"applies to {applies} of {len(panel_starts)} starts"
        facts = {task.id: audit_facts_of(world, task) for task in tasks}
        checks = [
            await self._repeats(),
            await leakage_check(self._build, self._player, panel_starts, self._plan.leak_pairs, self._plan.call_s),
            await broken_check(self._player, panel_starts[: self._plan.replayed]),
            answers_check(golden, facts),
            splits_check(world, golden),
            labels_check(golden),
            _unchanged(identity, tasks_digest(world)),
        ]
        return Recorded(
            panel={name: tuple(own) for name, own in self._panel.items()},
            notes=self._notes,
            starts=tuple(starts),
            checks=tuple(checks),
            identity=identity,
            num_tasks=len(tasks),
        )

    async def _explained(self, episode: AuditEpisode, starts: Sequence[PanelStart]) -> AuditEpisode:
        """A success that was real after all: it holds the known solution, or one of its candidates alone solves."""
        if not episode.accepted:
            return episode
        # Task and seed name a start: an episode does not carry its index.
        start = next(s for s in starts if (s.task, s.seed) == (episode.task, episode.seed))
        # Where the last action alone decides (an answer), the steps before it prove nothing.
        solution = start.solution[-1:] if start.facts.last_decides else start.solution
        if episode.policy in _WELL_FORMED and solution and holds_in_order(episode.actions, solution):
            return replace(episode, luck="it holds the known solution")
        for place in (0, -1) if episode.policy == "shotgun" else ():
            # A world that reads one line of many was given that line: the same as a policy that says nothing else.
            alone = [action.split(ast.literal_eval(episode.variant))[place] for action in episode.actions]
            request = PlayRequest(
                policy="shotgun", task=episode.task, seed=episode.seed, act=script_of(alone), limit=len(alone)
            )
            if (await self._player.play_all([request]))[0].accepted:
                return replace(episode, luck="one of its candidates alone solves")
        return episode

    async def _play(self, what: str, requests: Sequence[PlayRequest]) -> list[AuditEpisode]:
        found: list[AuditEpisode] = []
        size = 40
        for begin in range(0, len(requests), size):
            self._progress(what, begin, len(requests))
            found += await self._player.play_all(requests[begin : begin + size])
        self._progress(what, len(requests), len(requests))
        return found

    async def _starts(self, tasks: Sequence[Task]) -> list[PanelStart]:
        """Starts of every task, and of few tasks so many more that the panel has enough."""
        # Rounded up: a world of three tasks gets 27 starts of each for a panel of 80.
        each = max(self._plan.starts, -(-self._plan.panel_starts // len(tasks)))
        world = self._player.world
        pairs = [(task, held_out_seed(task, k)) for k in range(each) for task in tasks]
        return [
            PanelStart(
                index=i,
                task=task,
                seed=seed,
                facts=audit_facts_of(world, task),
                max_turns=task_turns(world, task),
                fast=world.execution == "inline",
            )
            for i, (task, seed) in enumerate(pairs)
        ]

    async def _solutions(self, starts: list[PanelStart]) -> list[PanelStart]:
        """The teacher plays every start; what it did is the known solution where the world called it a success."""
        world = self._player.world
        teacher_of = world.teacher if isinstance(world, Taught) else lambda task: None
        teachers = [teacher_of(start.task) for start in starts]
        requests = [
            PlayRequest(policy=GOLDEN, task=s.task, seed=s.seed, act=self._taught(teacher), limit=s.most)
            for s, teacher in zip(starts, teachers, strict=True)
            if teacher is not None
        ]
        self._panel[GOLDEN] = await self._play(GOLDEN, requests)
        untaught = len({s.task.id for s, teacher in zip(starts, teachers, strict=True) if teacher is None})
        if untaught:
            self._notes[GOLDEN] = f"{untaught} tasks have no teacher"
        # What the verifier refused is no known solution: a false reject must not turn into false accepts.
        known = {(e.task.id, e.task.split, e.seed): e.actions for e in self._panel[GOLDEN] if e.accepted}
        return [replace(s, solution=known.get((s.task.id, s.task.split, s.seed), ())) for s in starts]

    def _taught(self, teacher: Any) -> Any:
        # Made by a method, so that each closure holds its own teacher.
        return lambda turn, observation, env: self._player.call(teacher.act, env, observation)

    async def _samples(self, starts: list[PanelStart]) -> list[PanelStart]:
        """Random episodes of the panel's starts, and what each start knows of the others."""
        chosen = self._panel_starts(starts)
        if isinstance(self._player.world, ActsAtRandom):
            requests = [
                PlayRequest(
                    policy=RANDOM,
                    task=s.task,
                    seed=s.seed,
                    act=random_act(self._player, draws_for(RANDOM, s)),
                    limit=s.limit,
                )
                for s in chosen
            ]
            played = await self._play(RANDOM, requests)
            self._panel[RANDOM] = [await self._explained(episode, chosen) for episode in played]
        else:
            self._notes[RANDOM] = "not played: the world has no `random_action`"
        drawn = {(e.task.id, e.task.split, e.seed): e.actions for e in self._panel[RANDOM]}
        ends = list(dict.fromkeys(e.actions[-1] for e in self._panel[GOLDEN] if e.accepted and e.actions))
        golden = self._panel[GOLDEN]
        found = []
        for start in starts:
            samples = dict.fromkeys(drawn.get((start.task.id, start.task.split, start.seed), ()))
            # Shifted by the start's index, so that not every start is tried with the same few answers.
            others = [ends[(start.index + 1 + k) % len(ends)] for k in range(min(len(ends), 60))]
            told = replace(start, samples=tuple(samples)[:_SAMPLES], answers=tuple(others))
            found.append(replace(told, constants=constants_for(told, golden, self._plan.constants)))
        return found

    def _panel_starts(self, starts: Sequence[PanelStart]) -> list[PanelStart]:
        """Enough starts for the non-solving policies, with every template among them; solvable ones first."""
        templates = {s.facts.template or s.task.id for s in starts}
        count = max(self._plan.panel_starts, len(templates))
        spread = _in_turn(sorted(starts, key=lambda s: not s.solution), lambda s: s.facts.template or s.task.id)
        return sorted(list(spread)[:count], key=lambda s: s.index)

    async def _reword(self, starts: Sequence[PanelStart]) -> None:
        world = self._player.world
        if not isinstance(world, Rewords):
            self._notes[REWORDED] = "not played: the world declares no other spellings (`reworded`)"
            return
        requests = [
            PlayRequest(
                policy=REWORDED, task=s.task, seed=s.seed, act=script_of(list(actions)), limit=s.most, variant=str(k)
            )
            for s in starts
            if s.solution
            for k, actions in enumerate(world.reworded(s.task, s.solution))
        ]
        self._panel[REWORDED] = await self._play(REWORDED, requests)

    async def _repeats(self) -> CheckResult:
        """Replays of known solutions and of all other policies in turn, half of each, as many as the plan allows."""
        clean = {name: [e for e in own if not e.fault and e.steps] for name, own in self._panel.items()}
        solved = [e for e in clean[GOLDEN] if e.accepted]
        lucky = [e for e in clean[RANDOM] if e.accepted]
        others = [e for row in zip_longest(*(own for name, own in clean.items() if name != GOLDEN)) for e in row if e]
        half = max(1, self._plan.replayed // 2)
        chosen = [*solved[:half], *lucky[: half // 2], *others][: self._plan.replayed]
        return await repeats_check(self._player, chosen, self._plan.repeats)


def chosen_tasks(world: World, count: int) -> list[Task]:
    """Up to `count` tasks, the splits and then the templates in turn.

    Raises:
        ConfigError: the world has no task.
    """
    # All splits: what a verifier pays wrongly on the test split spoils the published number.
    listed = [task for split in SPLITS for task in world.tasks(split)]
    if not listed:
        raise ConfigError(f"world {world.name!r} has no task in any split, so there is nothing to audit")
    order = _in_turn(listed, lambda task: (task.split, audit_facts_of(world, task).template or task.id))
    return list(order)[:count]


def _in_turn(items: Sequence[Any], key: Callable[[Any], Any]) -> Iterator[Any]:
    """One item of each kind, then a second one of each, and so on; the order within a kind stays."""
    kinds: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        kinds[key(item)].append(item)
    for row in zip_longest(*kinds.values()):
        yield from (item for item in row if item is not None)


def holds_in_order(actions: Sequence[str], solution: Sequence[str]) -> bool:
    """Whether the actions hold all of the solution in its order, whatever lies between."""
    # One iterator for all steps: each search goes on where the one before ended, which keeps the order.
    rest = iter(actions)
    return all(any(action == step for action in rest) for step in solution)


def task_turns(world: World, task: Task) -> int:
    """The step limit of a task: its own where it states one in `max_turns`, else the world's."""
    own = task.params.get("max_turns")
    # `True` is an int in Python and would be a limit of one turn.
    return own if isinstance(own, int) and not isinstance(own, bool) and own > 0 else world.max_turns


def _unchanged(identity: WorldIdentity, tasks: str) -> CheckResult:
    """Whether the world lists the same tasks after the audit as before it."""
    found = []
    if tasks != identity.tasks:
        message = f"the digest of the task list was {identity.tasks} before playing and is {tasks} now"
        found.append(AuditFinding(kind="changed while playing", probe="identity", message=message))
    return CheckResult(name="task list", measured={"digest": tasks}, findings=tuple(found))


def identity_check(identity: WorldIdentity, before: WorldIdentity | None) -> CheckResult:
    """Against an earlier audit: unlike behaviour or rules must come with another version."""
    measured = {"version": identity.version, "behaviour": identity.behaviour}
    if before is None:
        return CheckResult(name="identity", measured=measured)
    # Not `files`: a comment in a file changes its digest, but not the world.
    changed = [name for name in ("rules", "tasks", "behaviour") if getattr(identity, name) != getattr(before, name)]
    found = []
    if changed and identity.version == before.version:
        message = f"{', '.join(changed)} changed since the earlier audit, the version is still {identity.version!r}"
        found.append(AuditFinding(kind="behaviour changed", probe="behaviour digest", message=message))
    elif identity.version != before.version:
        message = f"the earlier audit was of version {before.version!r}, this is {identity.version!r}"
        found.append(AuditFinding(kind="version changed", probe="identity", message=message))
    return CheckResult(name="identity", measured=measured, findings=tuple(found))


def another_process_check(here: str, there: str | None, trouble: str) -> CheckResult:
    """The behaviour digest of this process against that of another one; `there` None where that one had `trouble`."""
    if there is None:
        return CheckResult(name="another process", skipped=trouble[:200])
    found = []
    if here != there:
        message = f"the behaviour digest is {here} here and {there} in another process"
        found.append(AuditFinding(kind="verdict repeats", probe="determinism", message=message))
    return CheckResult(name="another process", measured={"behaviour": there}, findings=tuple(found))
