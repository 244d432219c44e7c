"""Rounds: the engine is given work only when every running episode waits for it.

With continuous scheduling the engine computes whatever waits, so which requests share a matrix product depends on
timing, and with it the last bits of a log-prob. In rounds the composition of every batch is a function of the
trajectories alone: the same seeds give the same bits, and a killed run can be continued to the very weights of the run
that was not killed. The price: a round waits for its slowest environment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rollwright.contracts import EngineFault, ReplayMismatch, RollwrightError, Task
from rollwright.generation import Ask, BatchEngine, Engine, Generation
from rollwright.rollout.actors import Act, Actor, Decision, EngineActor
from rollwright.rollout.episode import Status
from rollwright.rollout.journal import Journal


class JournalledActor(EngineActor):
    """The policy, its answers kept in a journal one by one: for continuous scheduling."""

    def __init__(self, engine: Engine, journal: Journal) -> None:
        super().__init__(engine)
        self.journal = journal

    async def _act(self, decision: Decision) -> Generation:
        # Read before the wait: answers are recalled and recorded by the weights at the time of asking.
        version = self.engine.version
        known = self.journal.recall(decision, version=version)
        if known is not None:
            return known
        generation = await super()._act(decision)
        self.journal.record([(decision, generation)], version=version)
        return generation


# `eq=False`: `in` and `remove` below go by identity.
@dataclass(eq=False, slots=True, kw_only=True)
class _Waiting:
    decision: Decision
    future: asyncio.Future[Generation]


class RoundsActor(EngineActor):
    """The policy, asked in rounds. The collector says how many episodes there are (`expect`) and when one ends.

    Args:
        engine: one that takes whole batches.
        engine_call_s: longest time the engine may take for a round.
        journal: where each round is kept; None keeps none.
    """

    def __init__(self, engine: BatchEngine, *, engine_call_s: float, journal: Journal | None = None) -> None:
        super().__init__(engine)
        self.batch_engine, self.engine_call_s, self.journal = engine, engine_call_s, journal
        self._waiting: list[_Waiting] = []
        self._unfinished = self._slots = 0
        # asyncio keeps weak references to tasks: without this set a running round could be garbage-collected.
        self._running: set[asyncio.Task[None]] = set()

    def expect(self, episodes: int, slots: int) -> None:
        """A play begins: that many episodes, of which `slots` run at once."""
        # A play that was given up may have left requests and counts behind.
        self._waiting, self._unfinished, self._slots = [], episodes, slots

    def join(self, count: int) -> None:
        """So many asks come beside those of the running episodes, or no longer do (below 0): one may ask for several.

        Whoever joins asks or leaves next, so that no round starts here.
        """
        self._unfinished += count
        self._slots += count

    @property
    def waiting(self) -> set[str]:
        """The episodes that have arrived at the next round."""
        return {waiting.decision.episode for waiting in self._waiting}

    def left(self) -> None:
        """An episode has ended for good; the others need not wait for it."""
        self._unfinished -= 1
        self._start_if_complete()

    def begin(self, task: Task) -> Act:
        """What chooses the actions of one episode: each of them waits for its round."""
        return self._wait

    async def _wait(self, decision: Decision) -> Generation:
        waiting = _Waiting(decision=decision, future=asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._start_if_complete()
        try:
            return await waiting.future
        finally:
            if waiting in self._waiting:  # given up before the round began
                self._waiting.remove(waiting)

    def _start_if_complete(self) -> None:
        """Episodes that queue for a slot count as soon as one is free: they will come here next."""
        if not self._waiting or len(self._waiting) < min(self._slots, self._unfinished):
            return
        # Episodes arrive in an order of timing; the order in the batch must not depend on it.
        batch = sorted(self._waiting, key=lambda waiting: waiting.decision.request_id)
        # Emptied before the round begins: whoever comes from here on waits for the next one.
        self._waiting = []
        task = asyncio.ensure_future(self._round(batch))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _round(self, batch: list[_Waiting]) -> None:
        """Answer from the journal what it knows, the rest by the engine; nobody is left waiting."""
        try:
            fresh = self._recall(batch)
            if fresh:
                await self._generate(fresh)
        # Whatever happens, every episode of the round gets an answer, or it would wait until its deadline.
        except BaseException as error:
            for waiting in batch:
                if not waiting.future.done():
                    # A round that is cancelled is a fault for its episodes: they are not cancelled themselves.
                    waiting.future.set_exception(error if isinstance(error, Exception) else EngineFault(repr(error)))
            if not isinstance(error, Exception):
                raise

    def _recall(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Those the journal does not know."""
        if self.journal is None:
            return batch
        fresh = []
        for waiting in batch:
            try:
                known = self.journal.recall(waiting.decision, version=self.engine.version)
            # A mismatch concerns one episode: the others of the round must go on.
            except ReplayMismatch as mismatch:
                _settle(waiting, mismatch)
                continue
            if known is None:
                fresh.append(waiting)
            else:
                _settle(waiting, known)
        return fresh

    async def _generate(self, batch: list[_Waiting]) -> None:
        version = self.engine.version
        asks = [
            Ask(prompt_ids=w.decision.prompt_ids, sampling=w.decision.sampling, request_id=w.decision.request_id)
            for w in batch
        ]
        try:
            answers = await asyncio.wait_for(self.batch_engine.generate_together(asks), self.engine_call_s)
        except TimeoutError as error:
            raise EngineFault(
                f"{self.name} did not finish a round of {len(asks)} requests within {self.engine_call_s:g} s "
                "(rollout.engine_call_s)"
            ) from error
        if self.journal is not None:
            # Errors are not kept: a resumed run asks again.
            answered = [(w.decision, a) for w, a in zip(batch, answers, strict=True) if isinstance(a, Generation)]
            # On disk before an episode acts on it: whatever a world was given can be replayed.
            self.journal.record(answered, version=version)
        for waiting, answer in zip(batch, answers, strict=True):
            _settle(waiting, answer)


def rounds_of(actor: Actor) -> RoundsActor | None:
    """The rounds that an actor plays in: its own, or those of the policy that others act beside (`policy`)."""
    policy = getattr(actor, "policy", actor)
    return policy if isinstance(policy, RoundsActor) else None


def who_waits(statuses: Sequence[Status], rounds: RoundsActor | None) -> str:
    """One line per episode: what it waits for and for how long; in rounds, whom the round waits for."""
    now = time.monotonic()
    longest_first = sorted(statuses, key=lambda status: status.since)
    lines = [f"  {s.key} waits for {s.waits_for}, {now - s.since:.1f} s" for s in longest_first[:20]]
    if rounds and (here := rounds.waiting):
        late = [s.key for s in longest_first if s.key not in here][:10]
        lines.append(f"  the round of {len(here)} waits for {', '.join(late) or 'a free slot'}")
    return "\n".join(lines)


def _settle(waiting: _Waiting, answer: Generation | RollwrightError) -> None:
    if waiting.future.done():  # its episode was cancelled
        return
    if isinstance(answer, Generation):
        waiting.future.set_result(answer)
    else:
        waiting.future.set_exception(answer)
