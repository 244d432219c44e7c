"""Checks by replay: does the verifier repeat itself, and does anything of an episode survive the next `reset`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from rollwright.checks.audit.audit_episodes import AuditEpisode, AuditPlayer, PlayRequest, script_of
from rollwright.checks.audit.findings import AuditFinding, CheckResult, transcript_of
from rollwright.checks.audit.panel import PanelStart
from rollwright.contracts import Breakable, Environment, Task, World, episode_seed

EXTRA_RESETS = 5
# A bound on time: every line is replayed once per situation and pair.
_SCRIPT_TURNS = 40


async def repeats_check(player: AuditPlayer, episodes: Sequence[AuditEpisode], repeats: int) -> CheckResult:
    """The same actions again: in one environment, in another order, and in a fresh environment each.

    Args:
        episodes: recorded ones of several policies.
        repeats: replays of each.
    """
    if not episodes:
        return CheckResult(name="determinism", skipped="no episode to replay")
    # Apart, since another verdict is the verifier's fault, and other observations are the world's.
    verdicts: list[AuditEpisode] = []
    observations: list[AuditEpisode] = []
    shared = await player.fresh()
    for turn in range(repeats):
        # Backwards every second time: what depends on the order of episodes then shows.
        for episode in episodes[:: -1 if turn % 2 else 1]:
            # A fresh one each in the first round; later rounds share one, which carries the history of all.
            env = await player.fresh() if turn == 0 else shared
            again = await player.play(env, _again(episode))
            if turn == 0 or again.fault:
                await player.call(env.close)
                # An environment that broke would spoil all replays after it.
                shared = await player.fresh() if again.fault and env is shared else shared
            if again.verdict() != episode.verdict():
                verdicts.append(again)
            # The panel is recorded without fingerprints, so the replays cannot be compared by them.
            elif again.seen(states=False) != episode.seen(states=False):
                observations.append(again)
    with suppress(Exception):
        await player.call(shared.close)
    total = repeats * len(episodes)
    found = []
    for kind, unlike, what in (
        ("verdict repeats", verdicts, "another verdict or reward"),
        ("observation repeats", observations, "other observations"),
    ):
        if unlike:
            message = f"{len(unlike)} of {total} replays of the same actions brought {what}"
            found.append(
                AuditFinding(kind=kind, probe="determinism", message=message, transcript=transcript_of(unlike[0]))
            )
    measured = {
        "replays": str(total),
        "other verdict": str(len(verdicts)),
        "other observations": str(len(observations)),
    }
    return CheckResult(name="determinism", measured=measured, findings=tuple(found))


def _again(episode: AuditEpisode) -> PlayRequest:
    actions = episode.actions
    return PlayRequest(
        policy=episode.policy,
        task=episode.task,
        seed=episode.seed,
        act=script_of(actions),
        limit=max(1, len(actions)),
        variant=episode.variant,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One list of actions at a start."""

    start: PanelStart
    name: str
    actions: tuple[str, ...]

    def request(self) -> PlayRequest:
        return PlayRequest(
            policy="replay",
            task=self.start.task,
            seed=self.start.seed,
            act=script_of(self.actions),
            limit=max(1, len(self.actions)),
            variant=self.name,
        )


Before = Callable[[AuditPlayer, Environment, PanelStart, PanelStart], Awaitable[None]]


async def _solved(player: AuditPlayer, env: Environment, a: PanelStart, b: PanelStart) -> None:
    await player.play(env, _Line(start=a, name="solved", actions=a.solution).request())


async def _failed(player: AuditPlayer, env: Environment, a: PanelStart, b: PanelStart) -> None:
    # Empty actions solve nothing; the bound keeps them cheap in worlds with a high step limit.
    await player.play(env, _Line(start=a, name="failed", actions=("",) * min(a.max_turns, _SCRIPT_TURNS)).request())


async def _abandoned(player: AuditPlayer, env: Environment, a: PanelStart, b: PanelStart) -> None:
    # Rounded up, so that something is played even of a solution of one action.
    middle = (len(a.solution) + 1) // 2
    await player.play(env, _Line(start=a, name="abandoned", actions=a.solution[:middle]).request())


async def _reset_often(player: AuditPlayer, env: Environment, a: PanelStart, b: PanelStart) -> None:
    for _ in range(EXTRA_RESETS):
        await player.call(env.reset, b.task, b.seed)


async def _faulted(player: AuditPlayer, env: Environment, a: PanelStart, b: PanelStart) -> None:
    world = player.world
    assert isinstance(world, Breakable)
    # It breaks in mid-episode, where there is state that could be left behind.
    await player.call(env.reset, a.task, a.seed)
    await player.call(world.break_next, env)
    with suppress(Exception):
        await player.call(env.step, a.solution[0] if a.solution else "")


async def _evaluated(player: AuditPlayer, env: Environment, a: PanelStart, b: PanelStart) -> None:
    """A held-out task is solved in another environment, as an evaluation in the middle of training does."""
    other = await player.fresh()
    # Another environment of the same world: what leaks here lies in the world and not in the environment.
    await player.play(other, _Line(start=a, name="evaluated", actions=a.solution).request())
    await player.call(other.close)


_SITUATIONS: dict[str, Before] = {
    "after A was solved": _solved,
    "after A failed": _failed,
    "after A was abandoned": _abandoned,
    "after further resets": _reset_often,
    "after an evaluation": _evaluated,
}


async def leakage_check(
    build: Callable[[], World], player: AuditPlayer, starts: Sequence[PanelStart], pairs: int, call_s: float
) -> CheckResult:
    """Task B alone, in a world that has played nothing else, against B in a world and environment with a history.

    Args:
        build: makes a fresh world.
        player: plays the world that the panel has used.
        starts: those with a known solution.
        pairs: pairs of tasks tried.
    """
    chosen = _pairs([start for start in starts if start.solution], pairs)
    if not chosen:
        return CheckResult(name="reset leakage", skipped="fewer than two starts with a known solution")
    # A copy, since one situation is added for this world only.
    situations = dict(_SITUATIONS)
    if isinstance(player.world, Breakable):
        situations["after A faulted"] = _faulted
    unlike: dict[str, tuple[AuditEpisode, int]] = {}
    compared = 0
    for a, b in chosen:
        lines = _lines_of(a, b)
        # Once per pair: the reference is the same for all situations.
        alone = await _alone(build, lines, call_s)
        for name, before in situations.items():
            env = await player.fresh()
            for line, expected in zip(lines, alone, strict=True):
                await before(player, env, a, b)
                got = await player.play(env, line.request(), states=True)
                compared += 1
                if got.seen() != expected.seen():
                    # The latest one is shown; the count says how many there were.
                    unlike[name] = (got, unlike.get(name, (got, 0))[1] + 1)
            with suppress(Exception):
                await player.call(env.close)
        for line, expected in zip(lines, alone, strict=True):
            got = await _side_by_side(player, a, line)
            compared += 1
            if got.seen() != expected.seen():
                unlike["beside A"] = (got, unlike.get("beside A", (got, 0))[1] + 1)
    found = [
        AuditFinding(
            kind="reset leakage",
            probe="leakage",
            # Three lines per pair, see `_lines_of`.
            message=f"B is another episode {name} than alone, in {count} of {len(chosen) * 3} replays",
            transcript=transcript_of(replace(got, policy="B", variant=f"{got.variant}, {name}")),
        )
        for name, (got, count) in unlike.items()
    ]
    measured = {"pairs": str(len(chosen)), "replays": str(compared), "situations": ", ".join([*situations, "beside A"])}
    return CheckResult(name="reset leakage", measured=measured, findings=tuple(found))


def _pairs(starts: Sequence[PanelStart], count: int) -> list[tuple[PanelStart, PanelStart]]:
    """A and B far apart in the list; A of a held-out split first, so that what an evaluation leaves behind shows."""
    held_out = [s for s in starts if s.task.split == "test"] or list(starts)
    found: list[tuple[PanelStart, PanelStart]] = []
    if not starts:
        return found
    for place in range(count):
        # Spread over the whole list: neighbours in it are often of one template and too alike to show a leak.
        a = held_out[(place * len(held_out)) // count]
        # Another start of the same task counts as another episode.
        rest = [s for s in starts if (s.task.id, s.task.split, s.seed) != (a.task.id, a.task.split, a.seed)]
        # Training tasks: those are the ones an evaluation could spoil.
        rest = [s for s in rest if s.task.split == "train"] or rest
        if rest:
            found.append((a, rest[(place * len(rest)) // count]))
    return found


def _lines_of(a: PanelStart, b: PanelStart) -> list[_Line]:
    """What is played at B: its solution, nothing, and the solution of A, which must not count here."""
    return [
        _Line(start=b, name="its solution", actions=b.solution[:_SCRIPT_TURNS]),
        # A solved flag that was left behind pays here, where nothing is done.
        _Line(start=b, name="empty actions", actions=("", "")),
        _Line(start=b, name="A's solution", actions=a.solution[:_SCRIPT_TURNS]),
    ]


async def _alone(build: Callable[[], World], lines: Sequence[_Line], call_s: float) -> list[AuditEpisode]:
    """Each line in a world that is new."""
    found = []
    player = AuditPlayer(build(), call_s=call_s, parallel=1)
    for line in lines:
        env = await player.fresh()
        found.append(await player.play(env, line.request(), states=True))
        with suppress(Exception):
            await player.call(env.close)
        if player.world.execution == "inline":  # cheap to build; one with a browser or a server is used for all lines
            await player.close()
            player = AuditPlayer(build(), call_s=call_s, parallel=1)
    await player.close()
    return found


async def _side_by_side(player: AuditPlayer, a: PanelStart, line: _Line) -> AuditEpisode:
    """B while A is in the middle of its own episode, one step of A before each step of B."""
    env, other = await player.fresh(), await player.fresh()
    # A copy, since it is used up step by step.
    left = list(a.solution)
    over = False

    async def step_of_a() -> None:
        nonlocal over
        if left and not over:
            with suppress(Exception):
                result = await player.call(other.step, left.pop(0))
                over = result.terminated or result.truncated

    with suppress(Exception):
        await player.call(other.reset, a.task, a.seed)
    actions = line.actions

    async def act(turn: int, observation: object, env: Environment) -> str | None:
        # Before B's own action, so that whatever A writes to shared state lies there when B is judged.
        await step_of_a()
        return actions[turn] if turn < len(actions) else None

    # `replace` keeps task, seed and limit of the line and puts A's steps around its actions.
    episode = await player.play(env, replace(line.request(), act=act), states=True)
    for used in (env, other):
        with suppress(Exception):
            await player.call(used.close)
    return episode


async def broken_check(player: AuditPlayer, starts: Sequence[PanelStart]) -> CheckResult:
    """A failure of the world, made on purpose, must end the episode as a fault and never as a score."""
    world = player.world
    if not isinstance(world, Breakable):
        return CheckResult(name="fault injection", skipped="the world has no `break_next`")
    scored: list[AuditEpisode] = []
    for start in starts:
        env = await player.fresh()

        # `start` is bound as a default: a closure would see the loop's last one.
        async def act(turn: int, observation: object, env: Environment, start: PanelStart = start) -> str | None:
            await player.call(world.break_next, env)
            return (start.solution or start.samples or ("",))[0] if turn == 0 else None

        request = PlayRequest(policy="fault", task=start.task, seed=start.seed, act=act, limit=1)
        episode = await player.play(env, request)
        # Any result counts, be it 0: the learner would take it for what the policy earned.
        if not episode.fault:
            scored.append(episode)
        with suppress(Exception):
            await player.call(env.close)
    found = [
        AuditFinding(
            kind="fault scored",
            probe="fault",
            message=f"{len(scored)} of {len(starts)} broken episodes ended with a result and not as a fault",
            transcript=transcript_of(episode),
        )
        # One finding for all, with the first as its transcript.
        for episode in scored[:1]
    ]
    measured = {"broken": str(len(starts)), "scored": str(len(scored))}
    return CheckResult(name="fault injection", measured=measured, findings=tuple(found))


def held_out_seed(task: Task, index: int) -> int:
    """The seed of a start of the audit, in the range of the task's own split."""
    # Named "audit", so that these starts are not those that training or evaluation draws.
    return episode_seed(task.split, "audit", task.id, index)
