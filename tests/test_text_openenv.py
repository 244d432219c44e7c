"""OpenEnv's websocket protocol, both ways: our world served, and the server taken in as a world."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from rollwright.env import episode_seed
from rollwright.env_check import check_env
from rollwright.envs.text import navigation, openenv, to_openenv
from rollwright.errors import ConfigError, EnvironmentFault

websockets = pytest.importorskip("websockets.sync.client")
INNER = navigation.build()


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
