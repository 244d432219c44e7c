"""An OpenEnv server as one of our worlds, over its websocket protocol (`openenv_sessions`): one session an episode.

The action's text goes into one field of the action (`action_field`), the observation's text is read from one field
(`text_field`), or is the whole observation as JSON. An action that the server declines is the policy's slip. OpenEnv
knows one `done`: it is taken for termination. It has no snapshots.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from rollwright.config import redact
from rollwright.contracts import (
    ConfigError,
    EnvironmentFault,
    Execution,
    FingerprintKind,
    MissingDependency,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    split_of_seed,
    state_key,
    whole,
)
from rollwright.envs.text.adapters.foreign import Declined, sendable, warn_of_raising
from rollwright.envs.text.adapters.openenv_sessions import Session, Sessions, answer_to_action


class OpenEnvEnvironment:
    """Has a session with the server from `reset` to the end of the episode; then another environment may have it."""

    def __init__(self, world: OpenEnvWorld) -> None:
        self._world = world
        self._session: Session | None = None
        self._history: list[str] = []
        self._over, self._closed, self._raised = True, False, 0

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode; waits for a session where the server has none left.

        Raises:
            EnvironmentFault: see `Sessions.begin`.
        """
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        # A session in mid-episode is ended and not given back: another episode must not go on in it.
        self._drop()
        # Options come last and may replace the seed.
        text, _, _ = self._guarded(self._begin, {"seed": seed, **self._world.reset_options})
        # Seed and first text, then action and answer in turn: half the length, less one, is the number of actions.
        self._history, self._over, self._raised = [str(seed), text], False, 0
        return Observation(text=text, goal=self._world.goal)

    def step(self, action: str) -> StepResult:
        """Send an action and wait for what follows. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        try:
            text, reward, done = self._guarded(self._act, action)
        except Declined as slip:
            text, reward, done = str(slip), 0.0, False
            self._raised += slip.raised
        self._history += [action, text]
        cut = len(self._history) // 2 - 1 >= self._world.max_turns and not done
        self._over = done or cut
        success = self._world.judge(reward, done) if self._over else None
        if self._over:
            # At the end, when it is known whether every single action was raised at.
            warn_of_raising(self._world.name, self._raised, len(self._history) // 2 - 1)
        if self._over and self._session is not None:
            # Given back at the end of the episode and not at `close`: others may be waiting for it.
            spare, self._session = self._session, None
            self._world.sessions.give_back(spare)
        return StepResult(observation=text, reward=reward, terminated=done, truncated=cut, success=success)

    def fingerprint(self) -> str:
        """All that was said: the state itself lies with the server."""
        return state_key(*self._history, str(self._over))

    def close(self) -> None:
        """End the session. Idempotent."""
        self._drop()
        if not self._closed:
            self._closed = True
            # Counted once, however often `close` is called.
            self._world.left()

    def _drop(self) -> None:
        """End a session in the middle of its episode."""
        session, self._session, self._over = self._session, None, True
        if session is not None:
            session.close()

    def _begin(self, data: Mapping[str, Any]) -> dict[str, Any]:
        self._session, found = self._world.sessions.begin(data)
        return found

    def _act(self, action: str) -> dict[str, Any]:
        assert self._session is not None  # `reset` has opened one, and the episode is not over
        field = self._world.action_field
        answer = self._session.ask("step", {field: sendable(action)})
        return answer_to_action(answer, self._session.url, field)

    def _guarded(self, ask: Any, said: Any) -> tuple[str, float, bool]:
        """Text, reward and done of the answer. Whatever else comes of a foreign server ends the session."""
        try:
            found = ask(said)
            return self._world.text_of(found["observation"]), found["reward"], found["done"]
        # A slip leaves the session as it is, and what is not installed is no fault of the server.
        except (Declined, MissingDependency):
            raise
        except Exception as error:
            self._drop()
            if isinstance(error, EnvironmentFault):
                raise
            raise EnvironmentFault(
                f"the OpenEnv server at {self._world.sessions.url} failed: {error!r:.500}"
            ) from error


class OpenEnvWorld:
    """One task a split; the seed is handed to the server. Build it with `build`."""

    name = "text.openenv"
    execution: Execution = "thread"
    snapshots: SnapshotKind = "none"
    fingerprint_kind: FingerprintKind = "history"

    def __init__(
        self,
        *,
        sessions: Sessions,
        action_field: str,
        text_field: str,
        reset_options: Mapping[str, Any],
        success_from: float | None,
        instructions: str,
        goal: str,
        max_turns: int,
    ) -> None:
        self.sessions, self.action_field, self.reset_options = sessions, action_field, dict(reset_options)
        self.instructions, self.goal, self.max_turns = instructions, goal, max_turns
        self._text_field, self._success_from = text_field, success_from
        # Open environments: with the last one the idle sessions are ended, see `left`.
        self._environments, self._lock = 0, threading.Lock()

    def text_of(self, observation: Mapping[str, Any]) -> str:
        """The text of an observation.

        Raises:
            EnvironmentFault: it has no such field.
        """
        if not self._text_field:
            # Sorted keys: the order in which a server sends its fields must not change the text.
            return whole(json.dumps(observation, ensure_ascii=False, sort_keys=True))
        if self._text_field not in observation:
            raise EnvironmentFault(
                f"an observation has no field {self._text_field!r} (option `text_field`); it has "
                f"{', '.join(observation) or 'none'}"
            )
        return whole(str(observation[self._text_field]))

    def judge(self, reward: float, done: bool) -> bool | None:
        """Whether an episode has succeeded; None where no threshold says so."""
        # A cut episode has not succeeded, whatever its last reward was.
        return None if self._success_from is None else done and reward >= self._success_from

    def tasks(self, split: Split) -> list[Task]:
        """The one task of a split."""
        return [Task(id=f"{split}/openenv", split=split)]

    def make(self) -> OpenEnvEnvironment:
        """A fresh environment with a session of its own."""
        with self._lock:
            self._environments += 1
        return OpenEnvEnvironment(self)

    def left(self) -> None:
        """An environment is closed; with the last one the sessions that nobody uses end."""
        with self._lock:
            self._environments -= 1
            last = self._environments == 0
        if last:
            self.sessions.close()

    def close(self) -> None:
        """End the sessions that nobody uses."""
        self.sessions.close()


def build(
    *,
    url: str,
    action_field: str,
    text_field: str = "",
    reset_options: Mapping[str, Any] | None = None,
    success_from: float | None = None,
    instructions: str = "",
    goal: str = "",
    max_turns: int = 50,
    deadline_s: float = 30.0,
    session_wait_s: float = 20.0,
) -> OpenEnvWorld:
    """A world that an OpenEnv server plays.

    Args:
        url: its websocket, such as `ws://localhost:8000/ws`.
        action_field: the field of the server's action that takes the text.
        text_field: the field of its observation that holds the text; "" for all fields as JSON.
        reset_options: further fields of the reset message.
        success_from: the last reward from which a finished episode counts as a success; None for no verdict.
        instructions: the rules, and what an action looks like.
        goal: what is to be done.
        max_turns: actions before the episode is cut.
        deadline_s: seconds for a connection or an answer; beyond it is a fault.
        session_wait_s: seconds that an episode waits where the server has no session left; beyond it is a fault. Keep
            it below `rollout.env_call_s`.

    Raises:
        ConfigError: the URL is no websocket, or a number makes no sense.
    """
    if not url.startswith(("ws://", "wss://")):
        raise ConfigError(f"text.openenv needs a websocket URL such as ws://localhost:8000/ws, got {redact(url)!r}")
    if not action_field or max_turns < 1 or deadline_s <= 0 or session_wait_s < 0:
        raise ConfigError(
            "text.openenv needs an action_field, max_turns of 1 or more, deadline_s above 0 and session_wait_s of 0 or "
            f"more, got {action_field!r}, {max_turns}, {deadline_s}, {session_wait_s}"
        )
    return OpenEnvWorld(
        sessions=Sessions(url, answer_s=deadline_s, session_s=session_wait_s),
        action_field=action_field,
        text_field=text_field,
        reset_options=reset_options or {},
        success_from=success_from,
        instructions=instructions,
        goal=goal,
        max_turns=max_turns,
    )
