"""OpenEnv's websocket protocol, both ways: our world served, and the server taken in as a world."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import ConfigError, EnvironmentFault
from rollwright.envs.text import navigation, openenv
from rollwright.envs.text.adapters import to_openenv
from rollwright.envs.text.adapters.foreign import MAX_ACTION, SLIP

websockets = pytest.importorskip("websockets.sync.client")
INNER = navigation.build(show_commands=False)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = to_openenv.serve(INNER, port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
    server.shutdown()
    thread.join(timeout=30)


def test_a_served_world_is_a_world_again(url: str) -> None:
    world = openenv.build(url=url, action_field="text", text_field="text", success_from=1.0, max_turns=40)
    check_env(world, tasks_per_split=1, seeds=2, actions=["look", "open fridge"], max_steps=5)
    env = world.make()
    task, seed = world.tasks("train")[0], episode_seed("train", 0)
    first = env.reset(task, seed)
    start = INNER.tasks("train")[seed % 4].params["start"]
    assert first.text == navigation.describe(navigation.HouseState(room=start), "fo")
    for command in navigation.solution(navigation.HouseState(room=start)):
        result = env.step(command)
    assert result.terminated and result.success is True and result.reward == 1.0
    env.close()
    env.close()


def test_a_server_that_is_not_there_or_goes_away_is_a_fault(url: str) -> None:
    gone = openenv.build(url="ws://127.0.0.1:9/ws", action_field="text", deadline_s=2.0)
    with pytest.raises(EnvironmentFault, match=r"127\.0\.0\.1:9"):
        gone.make().reset(gone.tasks("train")[0], 0)
    wrong = openenv.build(url=url, action_field="words", text_field="text")
    env = wrong.make()
    env.reset(wrong.tasks("train")[0], 0)
    with pytest.raises(EnvironmentFault, match="no action with the one field 'words'"):
        env.step("look")
    blind = openenv.build(url=url, action_field="text", text_field="picture")
    with pytest.raises(EnvironmentFault, match="no field 'picture'"):
        blind.make().reset(blind.tasks("train")[0], 0)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "INVALID_JSON"),
        ("[]", "INVALID_JSON"),
        ('{"type": "fly"}', "UNKNOWN_TYPE"),
        ('{"type": "step", "data": {"text": "look"}}', "EXECUTION_ERROR"),
        ('{"type": "reset", "data": {"task": "nowhere"}}', "EXECUTION_ERROR"),
        ('{"type": "reset", "data": {"seed": "x"}}', "EXECUTION_ERROR"),
    ],
)
def test_what_a_client_does_wrong_is_told_and_the_session_goes_on(message: str, code: str) -> None:
    session = to_openenv.Session(INNER, "train")
    answer = session.answer(message)
    assert answer is not None and answer["type"] == "error" and answer["data"]["code"] == code
    begun = session.answer(json.dumps({"type": "reset", "data": {"seed": 1}}))
    assert begun is not None and begun["type"] == "observation" and begun["data"]["done"] is False
    state = session.answer('{"type": "state"}')
    assert state is not None and state["data"]["step_count"] == 0
    assert session.answer('{"type": "close"}') is None
    session.close()


@pytest.mark.parametrize(
    "wrong", [{"url": "http://localhost"}, {"action_field": ""}, {"max_turns": 0}, {"deadline_s": 0}]
)
def test_options_without_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        openenv.build(**{"url": "ws://localhost/ws", "action_field": "text", **wrong})


# Servers that decline, are full, or do as they like

Reply = Callable[[dict[str, Any]], Any]
OBSERVED = {"type": "observation", "data": {"observation": {"text": "seen"}, "reward": 0.5, "done": False}}


@contextmanager
def scripted(reply: Reply, *, sessions: int = 100) -> Iterator[str]:
    """A server that answers each message by what `reply` makes of it: a mapping, raw text, or None to hang up."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import serve

    free = threading.Semaphore(sessions)

    def session(connection: Any) -> None:
        if not free.acquire(blocking=False):
            told = {"message": f"Server at capacity: {sessions}/{sessions}", "code": "CAPACITY_REACHED"}
            connection.send(json.dumps({"type": "error", "data": told}))
            return
        try:
            for message in connection:
                answer = reply(json.loads(message))
                if answer is None:
                    return
                connection.send(answer if isinstance(answer, str) else json.dumps(answer))
        except ConnectionClosed:
            pass
        finally:
            free.release()

    server = serve(session, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
    server.shutdown()
    thread.join(timeout=30)


def error_of(code: str, **more: Any) -> dict[str, Any]:
    return {"type": "error", "data": {"message": "Invalid message", "code": code, **more}}


@pytest.mark.parametrize(
    "error",
    [
        error_of("VALIDATION_ERROR", errors=[{"type": "string_too_long", "loc": ["text"], "msg": "At most 9 letters"}]),
        error_of("VALIDATION_ERROR"),
        error_of("EXECUTION_ERROR"),
        error_of("INVALID_JSON"),
    ],
)
def test_an_action_that_the_server_declines_is_the_policys_slip_and_the_episode_goes_on(error: dict[str, Any]) -> None:
    def reply(message: dict[str, Any]) -> Any:
        return error if message["type"] == "step" and message["data"]["text"] == "fly" else OBSERVED

    with scripted(reply) as url:
        world = openenv.build(url=url, action_field="text", text_field="text", max_turns=3)
        env = world.make()
        env.reset(world.tasks("train")[0], episode_seed("train", 0))
        slip = env.step("fly")
        assert str(slip.observation).startswith(SLIP) and slip.reward == 0.0
        assert not slip.terminated and not slip.truncated
        assert "At most 9 letters" in str(slip.observation) or "errors" not in error["data"]
        assert env.step("look").observation == "seen" and env.step("fly").truncated
        env.close()


def test_a_server_that_raises_at_every_action_of_an_episode_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    def reply(message: dict[str, Any]) -> Any:
        return error_of("EXECUTION_ERROR") if message["data"].get("text") == "fly" else OBSERVED

    with scripted(reply) as url:
        world = openenv.build(url=url, action_field="text", text_field="text", max_turns=2)
        env = world.make()
        for actions, warned in ((["fly", "look"], False), (["fly", "fly"], True)):
            env.reset(world.tasks("train")[0], 1)
            assert [env.step(action).truncated for action in actions] == [False, True]
            assert ("raised at each of the 2 actions" in caplog.text) is warned
        env.close()


@pytest.mark.parametrize("kind", ["missing", "extra_forbidden"])
def test_an_action_of_another_form_is_the_configurations_mistake_and_no_slip(kind: str) -> None:
    error = error_of("VALIDATION_ERROR", errors=[{"type": kind, "loc": ["move"], "msg": "Field required"}])
    with scripted(lambda message: error if message["type"] == "step" else OBSERVED) as url:
        world = openenv.build(url=url, action_field="text", text_field="text")
        env = world.make()
        env.reset(world.tasks("train")[0], episode_seed("train", 0))
        with pytest.raises(EnvironmentFault, match="`action_field`"):
            env.step("look")
        env.close()


def test_what_no_server_takes_is_not_sent_to_it() -> None:
    heard: list[str] = []

    def reply(message: dict[str, Any]) -> Any:
        heard.append(message["data"].get("text", ""))
        return OBSERVED

    with scripted(reply) as url:
        world = openenv.build(url=url, action_field="text", text_field="text")
        env = world.make()
        env.reset(world.tasks("train")[0], episode_seed("train", 0))
        assert f"at most {MAX_ACTION}" in str(env.step("x" * (MAX_ACTION + 1)).observation) and heard == [""]
        longest = "\x00" * MAX_ACTION
        assert env.step(longest).observation == "seen" and env.step("a\ud800b").observation == "seen"
        assert heard[1:] == [longest, "a\ufffdb"]
        env.close()


def test_more_episodes_than_sessions_wait_for_one_and_then_say_what_to_do() -> None:
    with scripted(lambda message: OBSERVED, sessions=2) as url:
        world = openenv.build(url=url, action_field="text", text_field="text", max_turns=1, session_wait_s=20.0)
        impatient = openenv.build(url=url, action_field="text", text_field="text", session_wait_s=0.5)
        envs, task = [world.make() for _ in range(3)], world.tasks("train")[0]
        for env in envs[:2]:
            env.reset(task, 1)
        began = time.monotonic()
        with pytest.raises(EnvironmentFault, match=r"no session left.*2/2.*session_wait_s.*rollout\.parallel_episodes"):
            impatient.make().reset(task, 1)
        assert time.monotonic() - began < 10
        late = threading.Thread(target=envs[2].reset, args=(task, 1), daemon=True)
        late.start()
        late.join(timeout=0.3)
        assert late.is_alive()
        assert envs[0].step("look").truncated  # its episode is over, and its session is free
        late.join(timeout=20)
        assert not late.is_alive() and envs[2].step("look").observation == "seen"
        for env in envs:
            env.close()


def test_a_session_that_died_between_two_episodes_is_replaced() -> None:
    answered: list[str] = []

    def reply(message: dict[str, Any]) -> Any:
        answered.append(message["type"])
        return None if answered == ["reset", "step", "reset"] else OBSERVED

    with scripted(reply) as url:
        world = openenv.build(url=url, action_field="text", text_field="text", max_turns=1)
        env, task = world.make(), world.tasks("train")[0]
        env.reset(task, 1)
        env.step("look")
        assert env.reset(task, 1).text == "seen" and answered == ["reset", "step", "reset", "reset"]
        env.close()


def observed(**changes: Any) -> dict[str, Any]:
    return {"type": "observation", "data": {**OBSERVED["data"], **changes}}  # type: ignore[dict-item]


HOSTILE = {
    "hangs up": None,
    "no JSON": "{",
    "nested without end": "[" * 200_000,
    "a list": "[]",
    "data is a list": '{"type": "observation", "data": []}',
    "another type": {"type": "fly", "data": {}},
    "reward NaN": '{"type": "observation", "data": {"observation": {"text": "x"}, "reward": NaN, "done": false}}',
    "reward beyond floats": observed(reward=10**400),
    "reward text": observed(reward="1.0"),
    "done is text": observed(done="false"),
    "no observation": observed(observation=None),
    "broken": error_of("SESSION_ERROR"),
    "more than 16 MB": observed(observation={"text": "x" * (17 << 20)}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_else_a_server_answers_is_a_fault_and_nothing_else(name: str) -> None:
    """In a step and in a reset; the same environment can begin again where the server comes to reason."""
    turns: list[str] = []

    def reply(message: dict[str, Any]) -> Any:
        turns.append(message["type"])
        return HOSTILE[name] if len(turns) in (2, 3, 4) else OBSERVED

    with scripted(reply) as url:
        world = openenv.build(url=url, action_field="text", text_field="text", deadline_s=10.0)
        env, task = world.make(), world.tasks("train")[0]
        env.reset(task, 1)
        with pytest.raises(EnvironmentFault):
            env.step("look")
        for _ in range(2):
            with pytest.raises(EnvironmentFault):
                env.reset(task, 1)
        assert env.reset(task, 1).text == "seen"
        env.close()


def test_no_error_repeats_a_password_of_the_address() -> None:
    for url in ("ws://ann:geheim@127.0.0.1:9/ws", "ws://127.0.0.1:9/ws?token=geheim"):
        world = openenv.build(url=url, action_field="text", deadline_s=2.0)
        with pytest.raises(EnvironmentFault) as caught:
            world.make().reset(world.tasks("train")[0], 1)
        assert "geheim" not in str(caught.value) and "127.0.0.1:9" in str(caught.value)
    with pytest.raises(ConfigError) as refused:
        openenv.build(url="http://ann:geheim@host/ws", action_field="text")
    assert "geheim" not in str(refused.value)


def test_text_that_utf8_cannot_hold_is_shown_with_question_marks() -> None:
    with scripted(lambda message: observed(observation={"text": "a\ud800b"})) as url:
        world = openenv.build(url=url, action_field="text", text_field="text")
        env = world.make()
        assert env.reset(world.tasks("train")[0], 1).text == "a\ufffdb" and env.fingerprint()
        env.close()


def test_a_fault_of_a_served_world_is_told_as_one() -> None:
    class Broken(navigation.NavigationWorld):
        def make(self) -> Any:
            raise EnvironmentFault("the house burnt down")

    session = to_openenv.Session(Broken(**vars_of(INNER)), "train")
    answer = session.answer(json.dumps({"type": "reset", "data": {"seed": 1}}))
    assert answer is not None and answer["data"]["code"] == "SESSION_ERROR"
    assert session.answer("[" * 200_000)["data"]["code"] == "INVALID_JSON"  # type: ignore[index]


def vars_of(world: navigation.NavigationWorld) -> dict[str, Any]:
    return {"variant": world.variant, "max_turns": world.max_turns, "starts": "held_out"}
