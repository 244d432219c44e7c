"""Many episodes at once: each goes on as soon as its own environment answers. Faults are retried, stalls are named."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rollwright.contracts import (
    WHOLE,
    ActionRule,
    ContextOverflow,
    EnvironmentFault,
    Group,
    ReplayMismatch,
    StalledRollout,
    StopReason,
    Task,
    Trajectory,
    Way,
    Waypoint,
    World,
    WorldMark,
)
from rollwright.generation import Sampling
from rollwright.rollout.actors import Actor
from rollwright.rollout.contexts import Context
from rollwright.rollout.episode import Episode, EpisodeRequest, Limits, Status
from rollwright.rollout.faults import FaultLog
from rollwright.rollout.ledger import Occupancy
from rollwright.rollout.rounds import rounds_of, who_waits
from rollwright.rollout.world_host import EnvHost, LoopThread, checked_observation

log = logging.getLogger(__name__)
T = TypeVar("T")
Progress = Callable[[Trajectory], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRequest:
    """`size` episodes of one task from one start state. `key` names the group and fixes its random draws.

    start: a waypoint to begin at, of this task and seed; None for the task's own initial state.
    max_turns: in place of the limits'. cut: what it ends is left without a verdict.
    waypoint_every: turns between the states that later episodes may begin from; 0 keeps none.
    guide_frac: how much of the episodes the run's guide may play (`actor`); None = nobody but the policy acts.
    """

    key: str
    task: Task
    seed: int
    size: int
    start: Waypoint | None = None
    max_turns: int | None = None
    cut: bool = False
    waypoint_every: int = 0
    guide_frac: float | None = None


class Collector:
    """Plays episodes of one world by one actor, `parallel_episodes` at a time.

    A recipe makes one and keeps it for the run; `close` ends the environments, the world and the loop thread.

    Args:
        new_context: makes the context of one episode (append-only or windowed).
        faults: where faults are recorded and counted against the budget.
        retries: how often an episode that faulted is played again in a fresh environment.
        refills: how often the members that a group lost for good are replaced by further episodes from its start.
        rule: what of an answer the world is given as the action.
        mark: which world this is, for the record of each episode; None where nobody says.
        stall_s: the run stops when no episode has moved for so long; longer than any single deadline.
    """

    def __init__(
        self,
        world: World,
        actor: Actor,
        new_context: Callable[[], Context],
        *,
        sampling: Sampling,
        limits: Limits,
        faults: FaultLog,
        parallel_episodes: int = 32,
        retries: int = 2,
        refills: int = 0,
        stall_s: float | None = None,
        rule: ActionRule = WHOLE,
        mark: WorldMark | None = None,
    ) -> None:
        self.mark = mark
        self.world, self.actor, self.new_context = world, actor, new_context
        self.sampling, self.limits, self.faults, self.rule = sampling, limits, faults, rule
        self.parallel_episodes, self.retries, self.refills = parallel_episodes, retries, refills
        if rounds_of(actor):  # a round also waits for the slowest world, retries included
            world_s = 3.0 * limits.env_call_s * (retries + 1)
            self.limits = limits = replace(limits, engine_call_s=limits.engine_call_s + world_s)
        # By now the engine's limit includes what a round waits, so the watchdog allows for it too.
        self.stall_s = stall_s or 2.0 * max(limits.env_call_s, limits.engine_call_s) + 10.0
        self.host = EnvHost(world)
        # An inline call that hangs blocks the loop itself, and only this limit notices it.
        self._loop: LoopThread = LoopThread(blocked_s=limits.env_call_s + 5.0)
        self._closed = False
        self._statuses: dict[str, Status] = {}
        self._ways: dict[str, Way] = {}
        self._moved = time.monotonic()
        # Made outside of the loop: a semaphore binds to the loop that first waits for it.
        self._slots = asyncio.Semaphore(parallel_episodes)  # one set for all plays that are under way
        self._plays: set[asyncio.Task[Any]] = set()
        self.occupancy = Occupancy()

    def played_here(self, count: int) -> int:
        """How many of so many requests this process plays, for a progress bar: all of them."""
        return count

    def collect(self, requests: Sequence[GroupRequest], progress: Progress | None = None) -> list[Group]:
        """All groups, in the order asked for; their episodes run and finish in any order."""
        return self._loop.run(self._collect(requests, progress))

    def collect_by(self, actor: Actor, requests: Sequence[GroupRequest]) -> list[Group]:
        """`collect`, with somebody else acting; nothing of this collector's own may be under way."""
        usual, self.actor = self.actor, actor
        try:
            return self.collect(requests)
        finally:
            self.actor = usual

    def start(self, requests: Sequence[GroupRequest], progress: Progress | None = None) -> Future[list[Group]]:
        """`collect` without waiting for it; several may be under way, and `play` beside them."""
        return self._loop.start(self._under_way(self._collect(requests, progress)))

    def stop(self) -> None:
        """End whatever `start` began and wait until its environments are given back."""
        self._loop.run(self._end_plays())

    async def _collect(self, requests: Sequence[GroupRequest], progress: Progress | None) -> list[Group]:
        # In the order of the requests: below, all groups take their members from one iterator, each as many as it has.
        episodes = [self._member(request, index) for request in requests for index in range(request.size)]
        played = iter(await self._play_all(episodes, progress))
        groups = [
            Group(
                id=r.key,
                task=r.task,
                seed=r.seed,
                trajectories=tuple(next(played) for _ in range(r.size)),
                start=r.start,
            )
            for r in requests
        ]
        # Members that take the place of lost ones may fault too, so each round looks again at what is lacking.
        for _ in range(self.refills):
            if not await self._refill(groups, requests):
                break
        return [self._with_ways(group) for group in groups]

    def _with_ways(self, group: Group) -> Group:
        # Taken out of the dict, which lives for the run and would otherwise keep every way.
        ways = {t.id: self._ways.pop(t.id) for t in group.trajectories if t.id in self._ways}
        return replace(group, ways=ways) if ways else group

    async def _refill(self, groups: list[Group], requests: Sequence[GroupRequest]) -> int:
        """Play one more member, of other draws, for each that is lacking; the lost ones stay in the record."""
        lacking = [
            r.size - sum(not t.stop_reason.is_fault for t in g.trajectories)
            for g, r in zip(groups, requests, strict=True)
        ]
        extra = [
            # Numbers go on after the lost ones: an old number would repeat the lost episode's id and draws.
            self._member(request, len(group.trajectories) + number)
            for group, request, count in zip(groups, requests, lacking, strict=True)
            for number in range(count)
        ]
        played = iter(await self._play_all(extra, None) if extra else [])
        for index, count in enumerate(lacking):
            more = [next(played) for _ in range(count)]
            groups[index] = groups[index].with_trajectories([*groups[index].trajectories, *more])
        return len(extra)

    async def _under_way(self, play: Coroutine[Any, Any, list[Group]]) -> list[Group]:
        this = asyncio.current_task()
        assert this is not None
        self._plays.add(this)
        try:
            return await play
        finally:
            self._plays.discard(this)

    async def _end_plays(self) -> None:
        plays = list(self._plays)
        for play in plays:
            play.cancel()
        # A cancelled play raises CancelledError, which must not end the wait for the others.
        await asyncio.gather(*plays, return_exceptions=True)

    def play(self, requests: Sequence[EpisodeRequest], progress: Progress | None = None) -> list[Trajectory]:
        """One trajectory per request, in order; faulted ones (after retries) included, with their stop reason.

        Raises:
            FaultBudgetExceeded: too many episodes faulted for good.
            StalledRollout: nothing moved for `stall_s` seconds.
        """
        return self._loop.run(self._play_all(requests, progress))

    def request(self, key: str, task: Task, seed: int, *, sampling: Sampling | None = None) -> EpisodeRequest:
        """A request whose random draws are fixed by `key`."""
        digest = hashlib.sha256(key.encode()).digest()
        draws = int.from_bytes(digest[:4], "big")
        return EpisodeRequest(key=key, task=task, seed=seed, sampling=sampling or self.sampling, sampling_seed=draws)

    def look(self, tasks: Sequence[Task], *, seed: int) -> list[tuple[int, ...] | None]:
        """The first prompt of each task, without an action; None where the world cannot open it or it is too long."""
        return self._loop.run(self._look(tasks, seed))

    async def _look(self, tasks: Sequence[Task], seed: int) -> list[tuple[int, ...] | None]:
        return [await self._first_prompt(task, seed) for task in tasks]

    async def _first_prompt(self, task: Task, seed: int) -> tuple[int, ...] | None:
        env = await self.host.acquire(self.limits.env_call_s)
        context = self.new_context()
        try:
            shown = await self.host.call(env.reset, task, seed, timeout_s=self.limits.env_call_s)
            context.observe(checked_observation(shown))
            # With the room for an answer, as an episode asks for it: what fits here can be played.
            prompt = context.prompt_ids(self.sampling.max_tokens)
        except (EnvironmentFault, ContextOverflow) as error:
            log.info("task %s cannot be opened: %s", task.id, error)
            await self.host.discard(env)
            return None
        self.host.release(env)
        return prompt

    def close(self) -> None:
        """Close environments and world, end the loop thread. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(EnvironmentFault, StalledRollout):  # a world that dies while closing is closed
            # Plays end first, for they give their environments back, and only idle ones are closed below.
            self.stop()
            self._loop.run(self.host.close())
        self._loop.close()

    def _member(self, request: GroupRequest, index: int) -> EpisodeRequest:
        return replace(
            self.request(f"{request.key}/{index}", request.task, request.seed),
            start=request.start,
            max_turns=request.max_turns,
            cut=request.cut,
            waypoint_every=request.waypoint_every,
            guide_frac=request.guide_frac,
        )

    async def _play_all(self, requests: Sequence[EpisodeRequest], progress: Progress | None) -> list[Trajectory]:
        return await self._together([self._one(request, self._slots, progress) for request in requests])

    def together(self, plays: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """What these plays give, in order, under the watch that episodes are under; each takes a `slot` of its own.

        Raises:
            StalledRollout: nothing moved for `stall_s` seconds.
        """
        return self._loop.run(self._together(plays))

    @contextlib.asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[Status]:
        """A place among `parallel_episodes`, and the status by which the watchdog sees the play of this name."""
        async with self._slots:
            status = self._statuses[key] = Status(key, occupancy=self.occupancy)
            try:
                yield status
            finally:
                self._statuses.pop(key, None)
                status.over()
        # Once per play: an episode that is played again comes back to the rounds.
        if rounds := rounds_of(self.actor):
            rounds.left()

    async def _together(self, plays: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        # What passed between two plays is no stall of this one.
        self._moved = time.monotonic()
        # A round waits for all episodes that still run, so the actor must know how many there are.
        if rounds := rounds_of(self.actor):
            rounds.expect(len(plays), self.parallel_episodes)
        watchdog = asyncio.create_task(self._watch())
        tasks: list[asyncio.Task[T]] = []
        try:
            for play in plays:
                tasks.append(asyncio.create_task(play))
                await asyncio.sleep(0)  # the first are in their worlds before the last begin: starts and ends overlap
            everything: asyncio.Future[list[T]] = asyncio.gather(*tasks)
            either: set[asyncio.Future[Any]] = {everything, watchdog}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if watchdog.done():
                everything.cancel()
                watchdog.result()
            return await everything
        finally:
            # `gather` passes the first error on and lets the other episodes run: they are ended here.
            for task in (*tasks, watchdog):
                task.cancel()
            for play in plays[len(tasks) :]:
                play.close()  # never begun: Python would warn of it
            # Episodes give their environments back while they end, which `close` and the next play rely on.
            await asyncio.gather(watchdog, *tasks, return_exceptions=True)

    async def _one(self, request: EpisodeRequest, slots: asyncio.Semaphore, progress: Progress | None) -> Trajectory:
        """One request with its retries, inside one of the slots."""
        # Retries stay inside the slot, so that no more than `parallel_episodes` environments are in use.
        async with slots:
            for attempt in range(self.retries + 1):
                trajectory = await self._attempt(request, attempt)
                self._moved = time.monotonic()
                if not trajectory.stop_reason.is_fault:
                    break
                self.faults.record(trajectory, attempt=attempt)
        if attempt:
            trajectory = replace(trajectory, retries=attempt)
        # Once per episode, after its retries: an episode that is played again comes back to the rounds.
        if rounds := rounds_of(self.actor):
            rounds.left()
        self.faults.finished(trajectory)
        # On the loop's thread, not on the caller's.
        if progress is not None:
            progress(trajectory)
        return trajectory

    async def _attempt(self, request: EpisodeRequest, attempt: int) -> Trajectory:
        """One try; a replay that the world does not repeat is written down and tried again at once, as no attempt."""
        try:
            return await self._try(request, attempt)
        except ReplayMismatch as mismatch:
            self.faults.note(mismatch, subject=request.task.id, episode=request.key, attempt=attempt)
        # The journal has given up this episode, so the second try samples and cannot mismatch again.
        return await self._try(request, attempt)

    async def _try(self, request: EpisodeRequest, attempt: int) -> Trajectory:
        # A fresh one for each attempt, whose beginning the watchdog takes for a move.
        status = self._statuses[request.key] = Status(request.key, occupancy=self.occupancy)
        episode = Episode(
            request,
            self.host,
            self.actor,
            self.new_context,
            self.limits,
            status,
            attempt,
            rule=self.rule,
            mark=self.mark,
        )
        status.now("world.make")
        try:
            env = await self.host.acquire(self.limits.env_call_s)
        except EnvironmentFault as error:
            status.over()
            return episode.finish(StopReason.ENV_ERROR, fault=str(error))
        # A cancelled episode too: the ledger would otherwise count it as waiting for the world for ever.
        except BaseException:
            status.over()
            raise
        kept = False
        try:
            trajectory = await episode.play(env)
            # Not reached where `play` raises or is cancelled: that environment may be in the middle of a call.
            kept = trajectory.stop_reason is not StopReason.ENV_ERROR
            # `StartPool.learn` takes nothing else, so the ways of other episodes are not kept.
            if request.waypoint_every and trajectory.learnable:
                self._ways[request.key] = episode.way
            return trajectory
        finally:
            self._statuses.pop(request.key, None)
            status.over()
            if kept:
                # After a fault of the engine the environment itself is sound.
                self.host.release(env)
            else:
                await self.host.discard(env)

    async def _watch(self) -> None:
        """Stop everything when no episode has changed what it waits for during `stall_s` seconds."""
        while True:
            await asyncio.sleep(min(1.0, self.stall_s / 4))
            # `_moved` counts too: between two episodes there may be no status to look at.
            moved = max([self._moved, *(status.since for status in self._statuses.values())])
            if time.monotonic() - moved > self.stall_s:
                raise StalledRollout(f"no episode has moved for {self.stall_s:.0f} s:\n{self.who_waits()}")

    def who_waits(self) -> str:
        """One line per running episode: what it waits for and for how long; in rounds, whom the round waits for."""
        return who_waits(list(self._statuses.values()), rounds_of(self.actor))
