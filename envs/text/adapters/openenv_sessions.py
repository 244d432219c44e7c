"""Sessions with an OpenEnv server: how many there are, who has one, and what its answers mean.

The protocol of openenv-core 0.3: JSON messages `{"type": "reset"|"step"|"close", "data": {...}}`, answered by
`{"type": "observation", "data": {"observation": {...}, "reward": ..., "done": ...}}` or by
`{"type": "error", "data": {"code": ..., "message": ...}}`. A connection is a session; a server has a fixed number of
them and answers one too many by `CAPACITY_REACHED`.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from rollwright.config import redact
from rollwright.contracts import EnvironmentFault, MissingDependency
from rollwright.envs.text.adapters.foreign import SLIP, Declined, told

# Bytes; larger answers end the connection.
_MAX_ANSWER = 1 << 24
# Sessions that other programs give back are announced nowhere, so the server is asked again.
_RETRY_S = 0.2
# Answers to an action by which a server says that it goes on, but not with this action.
_DECLINES = ("VALIDATION_ERROR", "EXECUTION_ERROR", "INVALID_JSON")


class _Full(Exception):
    """The server has no session left; the message is its own."""


class Session:
    """One connection. Opened at once.

    Raises:
        EnvironmentFault: the server cannot be reached.
        MissingDependency: websockets is not installed.
    """

    def __init__(self, url: str, answer_s: float) -> None:
        try:
            from websockets.sync.client import connect
        except ImportError as error:
            raise MissingDependency("text.openenv needs websockets: pip install websockets") from error
        # What stands in logs and errors; the address itself may hold a password.
        self.url, self._answer_s = redact(url), answer_s
        self._open = contextlib.ExitStack()
        # Each wait is bounded: a server that hangs must become a fault and not a hanging run.
        opened = connect(url, open_timeout=answer_s, close_timeout=2.0, max_size=_MAX_ANSWER)
        try:
            self._connection = self._open.enter_context(opened)
        except Exception as error:
            said = redact(f"{error!r:.500}")
            raise EnvironmentFault(f"the OpenEnv server at {self.url} cannot be reached: {said}") from error

    def ask(self, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Send one message; the answer, whatever it says.

        Raises:
            EnvironmentFault: the connection is gone, no answer came in time, or it is no message of the protocol.
            _Full: in place of an answer the server said that it has no session left.
        """
        try:
            # Unescaped: escapes lengthen a message, and servers limit its size.
            self._send(json.dumps({"type": kind, "data": dict(data)}, ensure_ascii=False), kind)
            answer = json.loads(self._connection.recv(timeout=self._answer_s))
        except Exception as error:  # whatever a foreign server or connection does ends this session
            raise EnvironmentFault(f"the OpenEnv server at {self.url} failed at {kind}: {error!r:.500}") from error
        # Checked here once, so that readers of an answer can rely on its form.
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
            raise EnvironmentFault(f"the OpenEnv server at {self.url} answered {kind} by {answer!r:.300}")
        if answer.get("type") == "error" and answer["data"].get("code") == "CAPACITY_REACHED":
            raise _Full(told(answer["data"].get("message", "")))
        return answer

    def _send(self, message: str, kind: str) -> None:
        """A full server says so and hangs up at once: sending fails then, and its last words can still be read."""
        from websockets.exceptions import ConnectionClosed

        try:
            self._connection.send(message)
        except ConnectionClosed:
            # Only a reset is answered by the refusal for want of sessions.
            if kind != "reset":
                raise

    def close(self) -> None:
        """Idempotent; a server that is gone already is no error."""
        with contextlib.suppress(Exception):
            self._open.close()


class Sessions:
    """The sessions of one world, handed from episode to episode. Threads may share it.

    Args:
        url: the server's websocket; what is said of it leaves passwords out.
        answer_s: longest wait for a connection, and for an answer.
        session_s: longest wait for a session where the server has no more of them.
    """

    def __init__(self, url: str, *, answer_s: float, session_s: float) -> None:
        self.url, self.answer_s, self.session_s = redact(url), answer_s, session_s
        self._address = url
        self._idle: list[Session] = []
        self._returned = threading.Condition()

    def begin(self, data: Mapping[str, Any]) -> tuple[Session, dict[str, Any]]:
        """A session in which an episode has begun, and the server's first observation.

        Raises:
            EnvironmentFault: no connection, no session within `session_s`, or no observation.
        """
        # A clock that nobody sets back.
        until = time.monotonic() + self.session_s
        while True:
            try:
                return self._try(data)
            except _Full as full:
                left = until - time.monotonic()
                if left <= 0:
                    raise EnvironmentFault(
                        f"the OpenEnv server at {self.url} has no session left ({full}): waited {self.session_s:g} s "
                        "(option `session_wait_s` of the world) and none was returned. Set rollout.parallel_episodes "
                        "to at most the number of its sessions, or start the server with more (max_concurrent_envs)"
                    ) from None
                with self._returned:
                    # Woken as soon as an episode of this world gives its session back.
                    self._returned.wait_for(lambda: bool(self._idle), timeout=min(left, _RETRY_S))

    def _try(self, data: Mapping[str, Any]) -> tuple[Session, dict[str, Any]]:
        """In an idle session, and where that one is gone meanwhile, in a new one."""
        with self._returned:
            # Only the list is guarded: talking to the server under the lock would let one episode wait for another.
            idle = self._idle.pop() if self._idle else None
        if idle is not None:
            # A server may have closed a connection that was idle for long; that is no fault of this episode.
            with contextlib.suppress(EnvironmentFault):
                return idle, self._reset(idle, data)
        session = Session(self._address, self.answer_s)
        return session, self._reset(session, data)

    def _reset(self, session: Session, data: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return observation_in(session.ask("reset", data), self.url)
        # Cancellation included: a session in an unknown state is not used again, and the server gets it back.
        except BaseException:
            session.close()
            raise

    def give_back(self, session: Session) -> None:
        """The episode is over: the session is free for another one."""
        with self._returned:
            self._idle.append(session)
            self._returned.notify()

    def close(self) -> None:
        """End the idle sessions. Those in use belong to their episodes."""
        with self._returned:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()


def observation_in(answer: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The data of an observation, its reward a finite number and its `done` a boolean.

    Raises:
        EnvironmentFault: it is an error, or an observation of another form.
    """
    found = answer["data"]
    if answer.get("type") != "observation":
        raise EnvironmentFault(f"the OpenEnv server at {url} answered by {told(json.dumps(found))}")
    # The protocol allows null for a step that pays nothing.
    reward, done = found.get("reward") or 0.0, found.get("done")
    if not isinstance(found.get("observation"), dict) or not isinstance(done, bool):
        raise EnvironmentFault(
            f"the OpenEnv server at {url} sent no observation with a boolean `done`: {told(json.dumps(found))}"
        )
    if not isinstance(reward, int | float) or not math.isfinite(reward):
        raise EnvironmentFault(f"the OpenEnv server at {url} sent the reward {reward!r:.100}, expected a finite number")
    return {"observation": found["observation"], "reward": float(reward), "done": done}


def answer_to_action(answer: Mapping[str, Any], url: str, field: str) -> dict[str, Any]:
    """`observation_in` for the answer to an action, which the server may decline.

    Raises:
        Declined: it did; the session goes on.
        EnvironmentFault: as `observation_in`; also where no value of the field could be right.
    """
    data = answer["data"]
    if answer.get("type") != "error" or data.get("code") not in _DECLINES:
        return observation_in(answer, url)
    errors = [error for error in data.get("errors") or () if isinstance(error, dict)]
    wrong_form = [error for error in errors if error.get("type") in ("missing", "extra_forbidden")]
    # No text could be right in this form, so the policy is not to blame.
    if wrong_form:
        raise EnvironmentFault(
            f"the OpenEnv server at {url} takes no action with the one field {field!r} (option `action_field`): "
            f"{told(json.dumps(wrong_form))}"
        )
    reasons = [str(error.get("msg", "")) for error in errors] or [str(data.get("message", ""))]
    # An EXECUTION_ERROR may also mean a broken server, hence `raised`.
    raise Declined(f"{SLIP} {told('; '.join(reasons))}".strip(), raised=data["code"] == "EXECUTION_ERROR")
