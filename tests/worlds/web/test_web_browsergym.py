"""The BrowserGym adapter over a small Gymnasium environment with BrowserGym's observations and manners."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import ConfigError, EnvironmentFault
from rollwright.envs.web.browsergym import BrowserGymWorld, as_call, build
from rollwright.envs.web.page_actions import ActionError

pytest.importorskip("gymnasium")

_FAKE = """
import importlib.util
import random
import gymnasium

assert importlib.util.find_spec("watchdog") is None, "the bridge's own folder hides packages"

class Fake(gymnasium.Env):
    '''A page with buttons, one of them right; observations, errors and ends as BrowserGym gives them.'''

    observation_space = gymnasium.spaces.Text(1000)
    action_space = gymnasium.spaces.Text(1000)

    def __init__(self, crash=False):
        self.crash = crash

    def _see(self, error=""):
        tree = "\\n".join(f"[{i}] button '{name}', clickable" for i, name in enumerate(self.names))
        return {"goal": f"Click {self.names[self.right]}", "url": "http://fake/", "axtree_txt": tree,
                "last_action_error": error}

    def reset(self, seed=None, options=None):
        rng = random.Random(seed)
        self.names = rng.sample(["ONE", "TWO", "THREE", "FOUR"], 3)
        self.right = rng.randrange(3)
        print("noise on stdout")
        return self._see(), {}

    def step(self, action):
        if self.crash:
            raise RuntimeError("the page crashed")
        if action == "go_back()":
            raise ValueError("there is nowhere to go back to")
        if not action.startswith("click('"):
            return self._see("ValueError: " + action[:20]), 0, False, False, {}
        right = action == f"click('{self.right}')"
        return self._see(), float(right), True, False, {}

for name in ("one", "two", "three", "crash"):
    kwargs = {"crash": name == "crash"}
    flags = {"disable_env_checker": True, "order_enforce": False}
    gymnasium.register(id=f"fake/{name}-v0", entry_point=Fake, kwargs=kwargs, **flags)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "fake_gym_tasks.py").write_text(textwrap.dedent(_FAKE))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ["fake_gym_tasks"]


def world_of(modules: list[str], **options: object) -> BrowserGymWorld:
    tasks = {"train_tasks": ["fake/one-v0"], "validation_tasks": ["fake/two-v0"], "test_tasks": ["fake/three-v0"]}
    return build(modules=modules, **{**tasks, **options})  # type: ignore[arg-type]


def test_the_contract_holds(fake: list[str]) -> None:
    check_env(world_of(fake), tasks_per_split=1, seeds=1, actions=["noop", "hover 1", "click 1"])


def test_an_episode(fake: list[str]) -> None:
    world = world_of(fake)
    task, env = world.tasks("train")[0], world.make()
    first = env.reset(task, episode_seed("train", 1))
    assert first.goal.startswith("Click ") and first.text.startswith("At http://fake/\n[0] button '")
    slip = env.step("wobble 3")
    assert slip.observation.text.startswith("Error: ValueError: wobble")  # type: ignore[union-attr]
    assert not slip.terminated and slip.success is None
    wanted = first.goal.removeprefix("Click ")
    number = next(line[1] for line in first.text.splitlines() if f"'{wanted}'" in line)
    result = env.step(f"click {number}")
    assert result.terminated and result.success is True and result.rewards == {"env": 1.0}
    env.close()
    env.close()


def test_a_crash_is_a_fault_and_the_next_episode_has_a_new_process(fake: list[str]) -> None:
    world = world_of(fake, train_tasks=["fake/crash-v0"])
    env = world.make()
    task = world.tasks("train")[0]
    env.reset(task, episode_seed("train", 1))
    with pytest.raises(EnvironmentFault, match="the page crashed"):
        env.step("click 1")
    assert env.reset(task, episode_seed("train", 1)).goal
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"python": "/nowhere/python"}, "cannot start"), ({"modules": ["no_such_module"]}, "no_such_module")],
)
def test_what_cannot_start_says_why(fake: list[str], options: dict, message: str) -> None:
    world = world_of(**{"modules": fake, **options})
    with pytest.raises(EnvironmentFault, match=message):
        world.make().reset(world.tasks("train")[0], episode_seed("train", 1))


def test_tasks_have_one_split() -> None:
    with pytest.raises(ConfigError, match="needs tasks"):
        build()
    with pytest.raises(ConfigError, match="listed twice"):
        build(train_tasks=["a"], test_tasks=["a"])
    assert build(train_tasks=["a"]).python == sys.executable


def test_terse_actions_become_calls() -> None:
    assert as_call("click 12") == "click('12')" and as_call("click [a12]") == "click('a12')"
    assert as_call("fill 5 it's a test") == "fill('5', \"it's a test\")"
    assert as_call("scroll 0 300") == "scroll(0, 300)" and as_call("go_back") == "go_back()"
    assert as_call("send_msg_to_user 12 EUR") == "send_msg_to_user('12 EUR')"
    assert as_call("\n click('3')\nclick('4')") == "click('3')" and as_call(" \n") == ""


@pytest.mark.parametrize(
    "action",
    [
        "click(__import__('os').system('true'))",
        "__import__('os').system('true')",
        "exec('1') x",
        "a.b 1",
        "click('1'); exec('2')",
        "click(*[1])",
        "click([[1]])",
        "click(f'{1}')",
        "noop(9**9**9)",
        "click(" + "(" * 900 + ")" * 900 + ")",
        "click(" + "-" * 1900 + "1)",
        "click('\x00",
        "click(\x00)",
    ],
)
def test_only_calls_with_literal_arguments_go_through(action: str) -> None:
    with pytest.raises(ActionError):
        as_call(action)


def test_numbers_are_numbers_or_text() -> None:
    assert as_call("scroll 0 __import__('os')") == "scroll(0, \"__import__('os')\")"
    assert as_call("fill('1', \"it's\", enable=True)") == "fill('1', \"it's\", enable=True)"
    assert as_call("select_option('4', ['a', 'b'])") == "select_option('4', ['a', 'b'])"


@pytest.mark.parametrize(("action", "why"), [("go_back", "nowhere"), ("exec('1') x", "no name of an action")])
def test_an_action_that_cannot_be_taken_is_a_slip(fake: list[str], action: str, why: str) -> None:
    world = world_of(fake)
    env = world.make()
    first = env.reset(world.tasks("train")[0], episode_seed("train", 1))
    slip = env.step(action)
    text = slip.observation.text  # type: ignore[union-attr]
    assert text.startswith("Error: ") and why in text and text.endswith(first.text)
    assert not slip.terminated and slip.rewards == {"env": 0.0} and why in slip.notes["error"]
    assert env.step("click 0").terminated is True
    env.close()
