"""One episode: reset, then prompt, sample, step, until the task, a limit or a fault ends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rollwright.contracts import (
    WHOLE,
    ActionRule,
    ContextOverflow,
    EngineFault,
    Environment,
    EnvironmentFault,
    Message,
    Observation,
    ReplayMismatch,
    Shown,
    Snapshots,
    Start,
    StepResult,
    StopReason,
    Task,
    Timings,
    Trajectory,
    Turn,
    Way,
    Waypoint,
    WorldMark,
    as_observation,
)
from rollwright.generation import Generation, Sampling
from rollwright.rollout.actors import Act, Actor, Decision
from rollwright.rollout.contexts import Context
from rollwright.rollout.ledger import Occupancy, Place
from rollwright.rollout.restoring import (
    behind_forced,
    bring_to,
    check_prompt,
    no_room,
    observation_of,
    retrace,
    shown_of,
)
from rollwright.rollout.world_host import EnvHost, checked, checked_observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Every wait of an episode has an end. Seconds of wall clock."""

    max_turns: int
    episode_s: float = 300.0
    env_call_s: float = 30.0
    engine_call_s: float = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRequest:
    """One episode to be played. `key` names it for ever: trajectory id and, with `sampling_seed`, its random draws."""

    key: str
    task: Task
    seed: int
    sampling: Sampling
    sampling_seed: int | None = None
    max_turns: int | None = None
    """In place of `Limits.max_turns`."""
    start: Waypoint | None = None
    """Where to begin, in place of the task's initial state."""
    waypoint_every: int = 0
    """Turns between states that later episodes may begin from; 0 keeps none."""
    cut: bool = False
    """`max_turns` is shorter than the task allows: reaching it says nothing about success."""
    guide_frac: float | None = None
    """How much of it a guide may play; None = nobody but the policy acts, as in every evaluation."""


@dataclass(slots=True)
class Status:
    """Where an episode is, for the watchdog."""

    key: str
    waits_for: str = "a free slot"
    since: float = field(default_factory=time.monotonic)
    occupancy: Occupancy | None = None
    _place: Place | None = None

    def now(self, waits_for: str) -> None:
        """The episode waits for something else from here on; names of the engine begin with `engine.`."""
        self.waits_for, self.since = waits_for, time.monotonic()
        self._move("engine" if waits_for.startswith("engine.") else "environment")

    def over(self) -> None:
        """The episode waits for nothing any more."""
        self._move(None)

    def _move(self, place: Place | None) -> None:
        # `world.make`, `env.reset` and `env.step` are one place: a move within it takes no lock.
        if self.occupancy is not None and place != self._place:
            self.occupancy.move(self._place, place)
        self._place = place


@dataclass(slots=True)
class Episode:
    """The running state of one attempt at a request. Lives from reset to the finished `Trajectory`."""

    request: EpisodeRequest
    host: EnvHost
    actor: Actor
    new_context: Callable[[], Context]
    limits: Limits
    status: Status
    attempt: int = 0
    rule: ActionRule = WHOLE
    mark: WorldMark | None = None
    turns: list[Turn] = field(default_factory=list)
    success: bool | None = None
    next_prompt_ids: tuple[int, ...] = ()
    shown: list[Shown] = field(default_factory=list)
    snapshots: dict[int, bytes] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def max_turns(self) -> int:
        """Turns after which the episode is cut."""
        return self.request.max_turns or self.limits.max_turns

    @property
    def way(self) -> Way:
        """What later episodes need to begin at this one's waypoints."""
        return Way(shown=tuple(self.shown), snapshots=self.snapshots)

    async def play(self, env: Environment) -> Trajectory:
        """Play to the end. Faults of the environment and the engine come back as stop reasons, not exceptions.

        Raises:
            ReplayMismatch: the world does not repeat what the journal holds; the episode is to be played anew.
        """
        try:
            return self.finish(await self._loop(env))
        # First, for it is an EnvironmentFault as well, and is no attempt that counts.
        except ReplayMismatch:
            raise
        except EnvironmentFault as error:
            return self.finish(StopReason.ENV_ERROR, fault=str(error))
        except EngineFault as error:
            return self.finish(StopReason.ENGINE_ERROR, fault=str(error))

    async def _loop(self, env: Environment) -> StopReason:
        # Both keep state of this episode: what was shown, and what a teacher still has to hear.
        context, act = self.new_context(), self.actor.begin(self.request.task)
        observation, state, observed = await self._begin(env, context)
        while True:
            # Before the prompt is made: a turn without room to act has been shown something too.
            await self._keep_waypoint(env, observation)
            # Only the first prompt can be compared: what comes after it is the new episode's own.
            start = self.request.start if not self.turns else None
            forced = start.forced_ids if start else ()
            try:
                prompt = context.prompt_ids(self.request.sampling.max_tokens + len(forced))
                if start is not None:
                    check_prompt(start, prompt)
                # A forced beginning is prompt to the engine, and action to everybody else.
                generation, wait_s = await self._decide(
                    act, self._decision(prompt + forced, observation, env, str(state))
                )
            except ContextOverflow as error:
                if start is not None:
                    raise no_room(start, error) from error
                return StopReason.MAX_TOKENS
            generation = behind_forced(generation, forced) if forced else generation
            said = context.act(generation)
            action = self.rule.action_of(said, generation.finish_reason, scripted=generation.scripted)
            before = time.monotonic()
            # Turn i keeps the fingerprint from before its action, so this one belongs to the next turn.
            answer, next_state = await self._env("env.step", env, env.step, action)
            result = checked(answer)
            timings = Timings(engine_wait_s=wait_s, generate_s=generation.generate_s, env_s=time.monotonic() - before)
            turn = make_turn(prompt, generation, said, action, observed, state, result, timings)
            self.turns.append(replace(turn, attachments=observation.attachments) if observation.attachments else turn)
            if stop := self._stopped(result):
                # A task that is over has no next state to bootstrap from.
                if stop.is_truncation:
                    self.next_prompt_ids = self._next_prompt(context, as_observation(result.observation))
                return stop
            observation, state = as_observation(result.observation), next_state
            observed = context.observe(observation)

    async def _begin(self, env: Environment, context: Context) -> tuple[Observation, Any, tuple[Message, ...]]:
        """The first observation, the fingerprint of its state, and what of it is new to the policy."""
        start = self.request.start
        if start is None:
            first, state = await self._env("env.reset", env, env.reset, self.request.task, self.request.seed)
            observation = checked_observation(first)
            return observation, state, context.observe(observation)
        await bring_to(start, env, partial(self._surely, env))
        # `restore` shows nothing: the observation is the one that was recorded with the waypoint.
        return observation_of(start.shown), start.state_key, retrace(context, start)

    async def _keep_waypoint(self, env: Environment, observation: Observation) -> None:
        """Note what is shown, and take a snapshot where a later episode may begin."""
        if not self.request.waypoint_every:
            return
        # Counted from the task's initial state, as `waypoints_of` counts when it looks the snapshots up.
        passed = len(self.turns) + (len(self.request.start.passed) if self.request.start else 0)
        if passed and passed % self.request.waypoint_every == 0 and self.host.world.snapshots == "exact":
            assert isinstance(env, Snapshots)
            self.status.now("env.snapshot")
            # By this episode's own turn: the prefix has no turns in its trajectory.
            self.snapshots[len(self.turns)] = await self.host.call(env.snapshot, timeout_s=self.limits.env_call_s)
        self.shown.append(shown_of(observation))

    def _stopped(self, result: StepResult) -> StopReason | None:
        """Why the episode ends after this turn, or None."""
        # A verdict may come before the end, and a later step without one does not take it back.
        self.success = result.success if result.success is not None else self.success
        # Before the limits: a task that is done in the last allowed turn is done.
        if result.terminated:
            return StopReason.TERMINATED
        if result.truncated or len(self.turns) >= self.max_turns:
            self.turns[-1] = replace(self.turns[-1], truncated=True)
            return StopReason.MAX_TURNS
        # Looked at between turns only: each call has a deadline of its own.
        if time.monotonic() - self.started > self.limits.episode_s:
            self.turns[-1] = replace(self.turns[-1], truncated=True)
            return StopReason.TIMEOUT
        return None

    def _next_prompt(self, context: Context, observation: Observation) -> tuple[int, ...]:
        """What the policy would have been given next, for a critic's bootstrap; empty where it does not fit."""
        # This changes the context, which nobody needs any more.
        context.observe(observation)
        try:
            return context.prompt_ids(self.request.sampling.max_tokens)
        except ContextOverflow:
            return ()

    async def _env(self, name: str, env: Environment, method: Callable[..., Any], *args: object) -> tuple[Any, Any]:
        """The method's result and the fingerprint of the state it led to (None where no further turn reads it)."""
        self.status.now(name)
        return await self.host.call_then(
            method, *args, then=env.fingerprint, unless=self._is_last, timeout_s=self.limits.env_call_s
        )

    async def _surely(self, env: Environment, name: str, method: Callable[..., Any], *args: object) -> tuple[Any, Any]:
        """As `_env`, with the fingerprint of the last state too."""
        self.status.now(name)
        limit_s = self.limits.env_call_s
        # `_is_last` counts the new episode's turns: under a limit of one turn it would skip a replay's fingerprints.
        return await self.host.call_then(method, *args, then=env.fingerprint, unless=lambda _: False, timeout_s=limit_s)

    def _is_last(self, result: object) -> bool:
        if not isinstance(result, StepResult):  # what `reset` gave
            return False
        # The turn under way is not in `turns` yet, hence + 1.
        return result.terminated or result.truncated or len(self.turns) + 1 >= self.max_turns

    def _decision(self, prompt: tuple[int, ...], observation: Observation, env: Environment, state: str) -> Decision:
        turn, sampling = len(self.turns), self.request.sampling
        if self.request.sampling_seed is not None:
            # A seed per turn: with one for all, equal prompts would get equal answers in every turn of the episode.
            sampling = replace(sampling, seed=(self.request.sampling_seed + 7919 * turn) % 2**31)
        return Decision(
            prompt_ids=prompt,
            sampling=sampling,
            # Without the attempt: chance draws its actions by this name, and a retry is to play the same again.
            request_id=f"{self.request.key}/{turn}",
            observation=observation,
            env=env,
            episode=self.request.key,
            attempt=self.attempt,
            turn=turn,
            state_key=state,
            passed=self.request.start.passed if self.request.start else (),
            guide_frac=self.request.guide_frac,
        )

    async def _decide(self, act: Act, decision: Decision) -> tuple[Generation, float]:
        """One action and the seconds spent waiting for a place in the engine's batch."""
        self.status.now("engine.generate")
        before = time.monotonic()
        try:
            async with asyncio.timeout(self.limits.engine_call_s):  # `wait_for` would make a task for each action
                generation = await act(decision)
        except TimeoutError as error:
            raise EngineFault(
                f"{self.actor.name} gave no answer within {self.limits.engine_call_s:g} s (rollout.engine_call_s)"
            ) from error
        return generation, max(0.0, time.monotonic() - before - generation.generate_s)

    def finish(self, stop_reason: StopReason, fault: str = "") -> Trajectory:
        """The record of what was played so far, ended for this reason."""
        success = self.success
        # A cut that `starts.max_turns` made is no failure: the task allowed more turns.
        cut = self.request.cut and len(self.turns) >= self.max_turns
        if success is None and stop_reason.is_truncation and not cut and self.turns:
            success = False  # not done within its limits; a fault, or a prompt without room to act, leaves it open
        return Trajectory(
            id=self.request.key,
            task=self.request.task,
            seed=self.request.seed,
            turns=tuple(self.turns),
            stop_reason=stop_reason,
            success=success,
            origin=self.actor.origin,
            policy=self.actor.name,
            version=min((turn.version for turn in self.turns), default=-1),
            world=self.mark,
            start=self.request.start.start if self.request.start else Start(),
            temperature=self.request.sampling.temperature,
            fault=fault,
            wall_s=time.monotonic() - self.started,
            next_prompt_ids=self.next_prompt_ids,
        )


def make_turn(
    prompt_ids: tuple[int, ...],
    generation: Generation,
    said: str,
    action: str,
    observed: tuple[Message, ...],
    state: object,
    result: StepResult,
    timings: Timings,
) -> Turn:
    """The record of one action and its answer."""
    return Turn(
        prompt_ids=prompt_ids,
        action_ids=generation.token_ids,
        action_logprobs=generation.logprobs,
        text=said,
        acted=None if action == said else action,
        observed=observed,
        spans=generation.spans,
        finish=generation.finish_reason,
        rewards=result.rewards,
        costs=result.costs,
        terminated=result.terminated,
        truncated=result.truncated,
        sampler_mask=generation.sampler_mask,
        state_key=str(state),
        attempt=result.attempt,
        timings=timings,
    )
