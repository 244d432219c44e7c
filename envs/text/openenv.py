"""An OpenEnv server as one of our worlds, over its websocket protocol: one connection is one episode's session.

The protocol of openenv-core 0.3: JSON messages `{"type": "reset"|"step"|"close", "data": {...}}`, answered by
`{"type": "observation", "data": {"observation": {...}, "reward": ..., "done": ...}}` or by an error. The action's text
goes into one field of the action (`action_field`), the observation's text is read from one field (`text_field`), or is
the whole observation as JSON. OpenEnv knows one `done`: it is taken for termination. It has no snapshots.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from rollwright.env import Execution, Observation, SnapshotKind, StepResult, split_of_seed, state_key
from rollwright.errors import ConfigError, EnvironmentFault, MissingDependency
from rollwright.types import Split, Task


class OpenEnvEnvironment:
    """One session with the server. The connection is opened by the first `reset`, and again after a fault."""

    def __init__(self, world: OpenEnvWorld) -> None:
        self._world = world
        self._connection: Any = None
        self._session = ExitStack()
        self._history: list[str] = []
        self._over = True

    def reset(self, task: Task, seed: int) -> Observation:
        if split_of_seed(seed) != task.split:
            raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")
        text, _, _ = self._ask("reset", {"seed": seed, **self._world.reset_options})
        self._history, self._over = [str(seed), text], False
        return Observation(text=text, goal=self._world.goal)

    def step(self, action: str) -> StepResult:
        if self._over:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        text, reward, done = self._ask("step", {self._world.action_field: action})
        self._history += [action, text]
        cut = len(self._history) // 2 - 1 >= self._world.max_turns and not done
        self._over = done or cut
        success = self._world.judge(reward, done) if self._over else None
        return StepResult(observation=text, reward=reward, terminated=done, truncated=cut, success=success)

    def fingerprint(self) -> str:
        """All that was said: the state itself lies with the server."""
        return state_key(*self._history, str(self._over))

    def close(self) -> None:
        """End the session. Idempotent; a server that is gone already is no error."""
        self._connection = None
        self._session.close()

    def _ask(self, kind: str, data: Mapping[str, Any]) -> tuple[str, float, bool]:
        """Send one message; text, reward and done of the answer.

        Raises:
            EnvironmentFault: no connection, no answer in time, an error, or an answer of another form.
        """
        try:
            if self._connection is None:
                self._connection = self._session.enter_context(self._world.connect())
            self._connection.send(json.dumps({"type": kind, "data": dict(data)}))
            answer = json.loads(self._connection.recv(timeout=self._world.deadline_s))
            if answer["type"] != "observation":
                raise EnvironmentFault(f"the OpenEnv server answered {kind} by {json.dumps(answer)[:300]}")
            found = answer["data"]
            return self._world.text_of(found["observation"]), float(found["reward"] or 0.0), bool(found["done"])
        except MissingDependency:
            raise
        except EnvironmentFault:
            self.close()
            raise
        except Exception as error:  # whatever a foreign server or connection does ends this session
            self.close()
            raise EnvironmentFault(f"the OpenEnv server at {self._world.url} failed: {error!r}") from error


class OpenEnvWorld:
    """One task a split; the seed is handed to the server. Build it with `build`."""

    name = "text.openenv"
    execution: Execution = "thread"
    snapshots: SnapshotKind = "none"

    def __init__(
        self,
        *,
        url: str,
        action_field: str,
        text_field: str,
        reset_options: Mapping[str, Any],
        success_from: float | None,
        instructions: str,
        goal: str,
        max_turns: int,
        deadline_s: float,
    ) -> None:
        self.url, self.action_field, self.reset_options = url, action_field, dict(reset_options)
        self.instructions, self.goal = instructions, goal
        self.max_turns, self.deadline_s = max_turns, deadline_s
        self._text_field, self._success_from = text_field, success_from

    def connect(self) -> Any:
        """A new session, a context manager that ends it."""
        try:
            from websockets.sync.client import connect
        except ImportError as error:
            raise MissingDependency("text.openenv needs websockets: pip install websockets") from error
        return connect(self.url, open_timeout=self.deadline_s, close_timeout=2.0, max_size=1 << 24)

    def text_of(self, observation: Mapping[str, Any]) -> str:
        """The text of an observation.

        Raises:
            EnvironmentFault: it has no such field.
        """
        if not self._text_field:
            return json.dumps(observation, ensure_ascii=False, sort_keys=True)
        if self._text_field not in observation:
            raise EnvironmentFault(f"an observation has no field {self._text_field!r}; it has {', '.join(observation)}")
        return str(observation[self._text_field])

    def judge(self, reward: float, done: bool) -> bool | None:
        return None if self._success_from is None else done and reward >= self._success_from

    def tasks(self, split: Split) -> list[Task]:
        return [Task(id=f"{split}/openenv", split=split)]

    def make(self) -> OpenEnvEnvironment:
        return OpenEnvEnvironment(self)

    def close(self) -> None:
        """Each environment ends its own session."""


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

    Raises:
        ConfigError: the URL is no websocket, or a number makes no sense.
    """
    if not url.startswith(("ws://", "wss://")):
        raise ConfigError(f"text.openenv needs a websocket URL such as ws://localhost:8000/ws, got {url!r}")
    if not action_field or max_turns < 1 or deadline_s <= 0:
        raise ConfigError("text.openenv needs an action_field, max_turns of 1 or more and a deadline above 0")
    return OpenEnvWorld(
        url=url,
        action_field=action_field,
        text_field=text_field,
        reset_options=reset_options or {},
        success_from=success_from,
        instructions=instructions,
        goal=goal,
        max_turns=max_turns,
        deadline_s=deadline_s,
    )
