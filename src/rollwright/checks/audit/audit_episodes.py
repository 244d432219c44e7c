"""Episodes of the audit: what was done, what came back, and how they are played in worlds of any execution."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from rollwright.checks.env_player import Player
from rollwright.contracts import (
    Audited,
    AuditFacts,
    Environment,
    Observation,
    StepResult,
    Task,
    TellsTruth,
    World,
    as_observation,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStep:
    """One action and what it brought. `state` is the fingerprint afterwards, "" where it was not asked for."""

    action: str
    text: str
    rewards: tuple[tuple[str, float], ...] = ()
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None
    # A fingerprint can cost as much as a step, so only the checks that compare states ask for it.
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEpisode:
    """One episode of one panel policy. `variant` says which of its texts or candidates was played.

    `score` and `accepted` are the world's own; an audit of a reward replaces them. `accepted` None is undecided, and
    an episode that the policy left before its end has not been accepted. `truth` is the world's second opinion.
    `declared` is the world's reason why this policy solves the task, `luck` the proof that a success was real.
    """

    # The defaults are those of an episode that brought nothing: no steps, no pay, no success.
    policy: str
    task: Task
    seed: int
    cluster: Hashable
    variant: str = ""
    goal: str = ""
    first: str = ""
    first_state: str = ""
    steps: tuple[AuditStep, ...] = ()
    fault: str = ""
    truth: bool | None = None
    score: float | None = 0.0
    accepted: bool | None = False
    declared: str = ""
    luck: str = ""

    @property
    def actions(self) -> tuple[str, ...]:
        """What was done."""
        # Actions after the end were never sent, so the steps that were taken are the whole script of a replay.
        return tuple(step.action for step in self.steps)

    @property
    def ended(self) -> bool:
        """Whether the world ended the episode, by a verdict or by a limit."""
        return bool(self.steps) and (self.steps[-1].terminated or self.steps[-1].truncated)

    @property
    def where(self) -> str:
        """The start in words."""
        return f"task {self.task.id!r}, seed {self.seed}"

    def seen(self, *, states: bool = True) -> list[Any]:
        """All that came back, in a form that can be compared and hashed."""
        # Lists and no tuples, since JSON has only lists: what is compared here is also what `digest_of` hashes.
        first = [self.goal, self.first, self.first_state if states else ""]
        return [
            first,
            *(
                [s.text, list(map(list, s.rewards)), s.terminated, s.truncated, s.success, s.state if states else ""]
                for s in self.steps
            ),
            self.fault,
        ]

    def verdict(self) -> list[Any]:
        """Rewards, flags and success of every step: what the verifier said."""
        return [
            *([list(map(list, s.rewards)), s.terminated, s.truncated, s.success] for s in self.steps),
            self.fault,
        ]


Act = Callable[[int, Observation, Environment], str | Awaitable[str | None] | None]
"""Turn, observation and environment -> the next action; None leaves the episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayRequest:
    """One episode to play."""

    policy: str
    task: Task
    seed: int
    act: Act
    limit: int
    variant: str = ""


def audit_facts_of(world: World, task: Task) -> AuditFacts:
    """What the world declares about a task; nothing where it declares nothing."""
    return world.audit_facts(task) if isinstance(world, Audited) else AuditFacts()


def script_of(actions: Sequence[str]) -> Act:
    """Plays these actions in turn, then leaves."""
    return lambda turn, observation, env: actions[turn] if turn < len(actions) else None


class AuditPlayer:
    """Plays episodes of one world. Made by the auditor; lives as long as the world. Call `close` at the end.

    Args:
        call_s: longest time of a single call.
        parallel: episodes at once where the world waits for others ("async", "thread").
    """

    def __init__(self, world: World, *, call_s: float, parallel: int) -> None:
        self.world = world
        self._player = Player(world, call_s=call_s)
        # An inline world never waits, so several episodes at once would save nothing.
        self._parallel = 1 if world.execution == "inline" else parallel
        # Environments are used again: to make one can mean a browser or a process.
        self._idle: list[Environment] = []

    async def close(self) -> None:
        """Close all environments and the world."""
        # One that does not close must not keep the others and the world from closing.
        for env in self._idle:
            with suppress(Exception):
                await self.call(env.close)
        with suppress(Exception):
            await self.call(self.world.close)
        self.shut_down()

    def shut_down(self) -> None:
        """End the threads that calls were made on; the world stays open."""
        self._player.shut_down()

    async def call(self, method: Callable[..., Any], *args: Any) -> Any:
        """One call of a method of the world or of an environment, bounded in time unless the world is inline."""
        if self.world.execution == "inline":  # a thread for each call would cost more than the call
            return method(*args)
        return await self._player.attempt(method, *args)

    async def fresh(self) -> Environment:
        """A new environment, which the caller closes."""
        env: Environment = await self.call(self.world.make)
        return env

    async def play_all(self, requests: Sequence[PlayRequest]) -> list[AuditEpisode]:
        """The episodes of the requests, in their order, several at once where that saves time."""
        slots = asyncio.Semaphore(self._parallel)

        async def one(request: PlayRequest) -> AuditEpisode:
            async with slots:
                env = self._idle.pop() if self._idle else None
                try:
                    # Inside the bound, so that no more environments exist at once than episodes are played.
                    env = env or await self.fresh()
                except Exception as error:
                    return self._blank(request, f"make: {type(error).__name__}: {error}")
                episode = await self.play(env, request)
                if episode.fault:  # a broken environment is not used again
                    with suppress(Exception):
                        await self.call(env.close)
                else:
                    self._idle.append(env)
                return episode

        # `gather` keeps the order of the requests, however the episodes overlap: reports must not depend on timing.
        return list(await asyncio.gather(*(one(request) for request in requests)))

    def _blank(self, request: PlayRequest, fault: str = "") -> AuditEpisode:
        facts = audit_facts_of(self.world, request.task)
        return AuditEpisode(
            policy=request.policy,
            task=request.task,
            seed=request.seed,
            # Tasks of one template are nearly one task, so intervals count them as one cluster.
            cluster=facts.template or request.task.id,
            variant=request.variant,
            # Cut, since errors of browsers and sandboxes can hold whole pages.
            fault=fault[:300],
            declared=facts.solved_by.get(request.policy, ""),
        )

    async def play(self, env: Environment, request: PlayRequest, *, states: bool = False) -> AuditEpisode:
        """One episode in this environment; whatever it raises becomes the episode's fault.

        Args:
            states: ask for the fingerprint after every action.
        """
        # Kept outside the try: after a fault, the steps up to it are still evidence.
        blank, steps = self._blank(request), []
        try:
            observation = as_observation(await self.call(env.reset, request.task, request.seed))
            state = await self.call(env.fingerprint) if states else ""
            blank = replace(blank, goal=observation.goal, first=observation.text, first_state=state)
            for turn in range(request.limit):
                action = await self._said(request.act, turn, observation, env)
                # The policy leaves. The episode has no end then, which `_judged` counts as not accepted.
                if action is None:
                    break
                result: StepResult = await self.call(env.step, action)
                observation = as_observation(result.observation)
                state = await self.call(env.fingerprint) if states else ""
                steps.append(_step(action, result, observation.text, state))
                if result.terminated or result.truncated:
                    break
            # Without a step there is no verdict that the truth could be compared with.
            truth = await self._truth(env) if steps else None
        except Exception as error:
            # `accepted` None: a fault is neither an accept nor a reject, and both rates leave it out.
            return replace(blank, steps=tuple(steps), fault=f"{type(error).__name__}: {error}"[:300], accepted=None)
        return self._judged(replace(blank, steps=tuple(steps), truth=truth))

    async def _said(self, act: Act, turn: int, observation: Observation, env: Environment) -> str | None:
        said = act(turn, observation, env)
        return await said if isinstance(said, Awaitable) else said

    async def _truth(self, env: Environment) -> bool | None:
        return await self.call(self.world.truly_solved, env) if isinstance(self.world, TellsTruth) else None

    def _judged(self, episode: AuditEpisode) -> AuditEpisode:
        """The world's own score and verdict. An end without a verdict is undecided."""
        # All parts of all turns, as the reward `env` sums them in training.
        paid = sum(number for step in episode.steps for _, number in step.rewards)
        # None at the last step counts as a refusal as long as the policy left by itself.
        accepted: bool | None = bool(episode.steps and episode.steps[-1].success)
        if episode.ended and episode.steps[-1].success is None:
            accepted = None
        return replace(episode, score=paid, accepted=accepted)


def _step(action: str, result: StepResult, text: str, state: str) -> AuditStep:
    return AuditStep(
        action=action,
        text=text,
        rewards=tuple(sorted((str(name), float(number)) for name, number in result.rewards.items())),
        terminated=result.terminated,
        truncated=result.truncated,
        success=result.success,
        state=state,
    )


def digest_of(value: object) -> str:
    """A short stable hash of plain data."""
    # Sorted keys: the order of a dict must not change the digest.
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
