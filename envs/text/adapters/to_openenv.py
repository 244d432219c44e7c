"""Our worlds behind OpenEnv's websocket protocol, so that its clients can play them.

    with serve(world, port=8000) as server:
        server.serve_forever()

Actions are `{"text": "..."}`; observations `{"text", "goal", "task", "success"}`. `reset` takes `seed` (an ordinary
number: it is mapped into the split's own range), and `task` (an id). Each connection is a session with an environment
of its own. Meant for one machine or a trusted network: there is no authentication.
"""

from __future__ import annotations

import json
from typing import Any

from rollwright.contracts import (
    EnvironmentFault,
    MissingDependency,
    Observation,
    Split,
    StepResult,
    World,
    as_observation,
    episode_seed,
)
from rollwright.envs.text.adapters.blocking import BlockingEnvironment


def serve(world: World, *, host: str = "127.0.0.1", port: int = 8000, split: Split = "train") -> Any:
    """A server of `websockets`; call its `serve_forever`, and `shutdown` from another thread.

    Raises:
        MissingDependency: websockets is not installed.
        OSError: the port is in use.
    """
    try:
        from websockets.exceptions import ConnectionClosed
        from websockets.sync.server import serve as listen
    except ImportError as error:
        raise MissingDependency("to_openenv needs websockets: pip install websockets") from error

    def session(connection: Any) -> None:
        held = Session(world, split)
        try:
            # Ends by itself when the client closes the connection.
            for message in connection:
                answer = held.answer(message)
                if answer is None:
                    break
                connection.send(json.dumps(answer))
        except ConnectionClosed:
            pass  # the client left; its environment is closed below
        finally:
            # In any case: an environment may hold a browser or a process.
            held.close()

    return listen(session, host, port)


class Session:
    """What one client plays. `answer` maps each message to its answer and never raises for what a client sends."""

    def __init__(self, world: World, split: Split) -> None:
        self._world, self._split = world, split
        self._played: BlockingEnvironment | None = None
        self._task, self._steps = "", 0

    def answer(self, message: str | bytes) -> dict[str, Any] | None:
        """The answer to one message; None for `close`."""
        try:
            asked = json.loads(message)
            kind, data = asked["type"], dict(asked.get("data") or {})
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # the last: nested without end
            return _error("INVALID_JSON", f"expected {{'type': ..., 'data': {{...}}}}: {error!r:.300}")
        if kind == "close":
            return None
        try:
            if kind == "reset":
                return self._reset(data)
            if kind == "step":
                return self._step(data)
            if kind == "state":
                return {"type": "state", "data": {"episode_id": self._task, "step_count": self._steps}}
        except EnvironmentFault as error:  # not the client's doing: it must be able to tell
            return _error("SESSION_ERROR", str(error))
        except Exception as error:  # the session goes on: a client's mistake is told, not fatal
            return _error("EXECUTION_ERROR", f"{error!s:.500}")
        return _error("UNKNOWN_TYPE", f"unknown message type {kind!r:.100}; expected reset, step, state or close")

    def _reset(self, data: dict[str, Any]) -> dict[str, Any]:
        tasks = list(self._world.tasks(self._split))
        # Null and a missing seed are the same, and the same episode each time.
        number = int(data.get("seed") or 0)
        wanted = data.get("task")
        # Looked for among the tasks of this split only: a client of the training split cannot play the test.
        chosen = [task for task in tasks if task.id == wanted] if wanted else [tasks[number % len(tasks)]]
        if not chosen:
            raise ValueError(f"no task is called {wanted!r} in {self._split!r}")
        if self._played is None:
            # Made at the first reset: clients that only connect cost nothing.
            self._played = BlockingEnvironment(self._world)
        first = self._played.reset(chosen[0], episode_seed(self._split, "openenv", number))
        self._task, self._steps = chosen[0].id, 0
        return self._observation(first, None, 0.0, done=False)

    def _step(self, data: dict[str, Any]) -> dict[str, Any]:
        if self._played is None:
            raise ValueError("no episode is open: send a reset first")
        if not isinstance(data.get("text"), str):
            return _error("VALIDATION_ERROR", "an action is {'text': '...'}", errors=[_wrong("text" in data)])
        result: StepResult = self._played.step(data["text"])
        self._steps += 1
        earned = sum(result.rewards.values())
        # OpenEnv has one `done`; the verdict stands in the observation.
        done = result.terminated or result.truncated
        return self._observation(as_observation(result.observation), result.success, earned, done=done)

    def _observation(self, seen: Observation, success: bool | None, reward: float, *, done: bool) -> dict[str, Any]:
        shown = {"text": seen.text, "goal": seen.goal, "task": self._task, "success": success}
        return {"type": "observation", "data": {"observation": shown, "reward": reward, "done": done}}

    def close(self) -> None:
        """End the episode that is being played. May be called twice."""
        if self._played is not None:
            self._played.close()
            self._played = None


def _wrong(is_given: bool) -> dict[str, Any]:
    """What is wrong with the field `text`, in the words of pydantic, which OpenEnv's own servers use."""
    kind, said = ("string_type", "Input should be a valid string") if is_given else ("missing", "Field required")
    return {"type": kind, "loc": ["text"], "msg": said}


def _error(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "data": {"code": code, "message": message, **more}}
