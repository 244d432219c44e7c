"""Ours handed to Gymnasium and to TRL, and Gymnasium's taken in."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollwright.checks.env_check import check_env
from rollwright.cli import commands as cli
from rollwright.contracts.environment import ActsAtRandom, SmallLanguage, episode_seed, fingerprint_kind
from rollwright.contracts.errors import ConfigError, EnvironmentFault, TemplateError
from rollwright.contracts.record import Task
from rollwright.envs.code import synthesis
from rollwright.envs.text import car_dealer, from_gymnasium, household, maze, navigation, twenty_questions
from rollwright.envs.text.adapters.blocking import BlockingEnvironment
from rollwright.envs.text.adapters.to_gymnasium import to_gymnasium
from rollwright.envs.text.adapters.to_trl import BROKEN, OVER, environment_factory, prompt_rows, tool_tokenizer
from rollwright.methods.conditioning import ReturnLevels, ReturnTargets

gymnasium = pytest.importorskip("gymnasium")


class Corridor(gymnasium.Env):
    """Five cells in a row; two actions; pays 1.0 at the right end."""

    def __init__(self, *, length: int = 5, honest: bool = True) -> None:
        self.observation_space = gymnasium.spaces.Text(50)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._length, self._honest, self._resets = length, honest, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._resets += 1
        self._cell = int(self.np_random.integers(self._length - 1)) if self._honest else self._resets % 3
        return f"cell {self._cell}", {}

    def step(self, action: int) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._cell = max(0, self._cell + (1 if action == 1 else -1))
        there = self._cell == self._length - 1
        return f"cell {self._cell}", float(there), there, False, {}


def test_a_gymnasium_environment_becomes_a_world() -> None:
    world = from_gymnasium.build(env=Corridor, actions=["left", "right"], success_from=1.0, max_turns=9)
    check_env(world, actions=["right", "left", "right", "right"])
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 3))
    assert env.step("up").observation == from_gymnasium.SLIP
    results = [env.step("Right ") for _ in range(4) if not env._over]
    assert results[-1].success is True and results[-1].reward == 1.0 and results[-1].terminated


def test_gymnasiums_own_environment_becomes_a_world() -> None:
    world = from_gymnasium.build(
        env="FrozenLake-v1",
        env_options={"is_slippery": False},
        actions=["left", "down", "right", "up"],
        describe=lambda cell: f"cell {cell}",
        success_from=1.0,
        goal="Reach cell 15.",
    )
    check_env(world, actions=["down", "right"])
    env = world.make()
    env.reset(world.tasks("test")[0], episode_seed("test", 0))
    results = [env.step(move) for move in ["down", "down", "right", "right", "down", "right"]]
    assert results[-1].terminated and results[-1].success is True


class Parrot(gymnasium.Env):
    """Takes letters, and raises at what it does not know, each time otherwise. Pays 1.0 for "yes"."""

    observation_space = gymnasium.spaces.Text(50)
    action_space = gymnasium.spaces.Text(8)

    def __init__(self, *, raises: type[BaseException] = KeyError) -> None:
        self._raises = raises

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return "say it\ud800", {}

    def step(self, action: str) -> tuple[str, float, Any, bool, dict[str, Any]]:
        if action not in ("yes", "no"):
            raise self._raises(f"{action} at {object()}")
        return action, float(action == "yes"), np.bool_(action == "yes"), False, {"is_success": np.bool_(True)}


def test_text_that_a_gymnasium_environment_declines_is_the_policys_slip() -> None:
    """Outside its space of actions, or an exception at a value that it does not know: both can be played again."""
    world = from_gymnasium.build(env=Parrot, max_turns=30)
    check_env(world, actions=["no", "perhaps"])
    env = world.make()
    assert env.reset(world.tasks("train")[0], 0).text == "say it\ufffd"
    for action in ("", "123", "a" * 9, "a" * 10**6, "\ud800", "\0", "é"):
        assert str(env.step(action).observation).startswith((from_gymnasium.SLIP, "The action has 1000000 characters"))
    slip = env.step("perhaps")
    assert slip.observation == f"{from_gymnasium.SLIP} (KeyError)" and slip.reward == 0.0 and not slip.terminated
    env.restore(env.snapshot())
    end = env.step("yes")
    assert (end.terminated, end.success, end.reward) == (True, True, 1.0) and type(end.terminated) is bool


def test_an_environment_that_raises_at_every_action_of_an_episode_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    env = from_gymnasium.build(env=Parrot, max_turns=2).make()
    for actions, warned in ((["no", "perhaps"], False), (["perhaps", "never"], True)):
        env.reset(Task(id="t", split="train"), 0)
        assert [env.step(action).truncated for action in actions] == [False, True]
        assert ("raised at each of the 2 actions" in caplog.text) is warned


@pytest.mark.parametrize("broken", [OSError, RuntimeError, MemoryError, TimeoutError])
def test_what_no_action_explains_stays_a_fault_of_the_environment(broken: type[BaseException]) -> None:
    world = from_gymnasium.build(env=Parrot, env_options={"raises": broken})
    env = world.make()
    env.reset(world.tasks("train")[0], 0)
    with pytest.raises(broken):
        env.step("perhaps")


def test_a_named_action_is_always_one_so_that_declining_it_is_a_fault() -> None:
    class Grumpy(Corridor):
        def step(self, action: int) -> Any:
            raise ValueError("not today")

    env = from_gymnasium.build(env=Grumpy, actions=["left", "right"]).make()
    env.reset(Task(id="t", split="train"), 0)
    with pytest.raises(ValueError, match="not today"):
        env.step("left")
    assert env._env.close() is None


def test_names_follow_a_space_that_begins_elsewhere() -> None:
    moves: list[int] = []

    class Signed(Corridor):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = gymnasium.spaces.Discrete(3, start=-1)

        def step(self, action: int) -> Any:
            moves.append(action)
            return super().step(action)

    env = from_gymnasium.build(env=Signed, actions=["left", "stay", "right"]).make()
    env.reset(Task(id="t", split="train"), 0)
    for word in ("left", "right", "stay"):
        env.step(word)
    assert moves == [-1, 1, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"describe": "cell"}, "describe='cell'"),
        ({"describe": "no_such_module:f"}, "no_such_module"),
        ({"describe": "math:pi"}, "name a function"),
        ({"env": "no_such_module:make"}, "no_such_module"),
        ({"env": "FrozenLakes-v1"}, "FrozenLakes-v1"),
        ({"actions": ["left", "Left", "right", "up"]}, "a name twice"),
        ({"fingerprint": "cell"}, "fingerprint='cell'"),
        ({"env": "Pendulum-v1"}, "space Box"),
    ],
)
def test_what_a_configuration_gets_wrong_is_said_with_its_key(options: dict[str, Any], said: str) -> None:
    right = {"env": "FrozenLake-v1", "actions": ["left", "down", "right", "up"], "describe": "cell {}"}
    with pytest.raises(ConfigError, match=said):
        from_gymnasium.build(**{**right, **options})


def test_a_description_is_a_text_or_a_named_function_and_a_small_language_is_known() -> None:
    named = {"env": "FrozenLake-v1", "actions": ["left", "down", "right", "up"]}
    for describe, first in (("cell {}", "cell 0"), ("builtins:str", "0"), (lambda cell: f"<{cell}>", "<0>")):
        world = from_gymnasium.build(**named, describe=describe)
        assert world.make().reset(world.tasks("train")[0], 0).text == first
        assert isinstance(world, SmallLanguage) and first in world.texts() and "down" in world.texts()
    free = from_gymnasium.build(env=Parrot)
    assert not isinstance(free, SmallLanguage) and not isinstance(free, ActsAtRandom)


def test_named_actions_can_be_drawn_so_that_check_env_plays_them_from_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["env=FrozenLake-v1", 'actions=["left", "down", "right", "up"]', "describe=cell {}", "--tasks", "1"]
    assert cli.main(["check-env", "text.from_gymnasium", *options]) == 0
    assert "episodes of random ones" in capsys.readouterr().out


def test_a_world_says_whether_a_state_can_be_met_again() -> None:
    """By default the key holds every action; where the text tells everything, two ways to one cell have one key."""
    lake = {"env": "FrozenLake-v1", "env_options": {"is_slippery": False}, "describe": "cell {}"}
    keys: dict[str, list[str]] = {}
    for kind in ("actions", "observation"):
        world = from_gymnasium.build(**lake, actions=["left", "down", "right", "up"], fingerprint=kind)
        assert fingerprint_kind(world) == ("history" if kind == "actions" else "state")
        assert fingerprint_kind(ReturnTargets(world, ReturnLevels(edges=(0.0,)), 1.0)) == fingerprint_kind(world)
        env = world.make()
        env.reset(world.tasks("train")[0], 0)
        keys[kind] = [env.fingerprint()]
        for move in ("left", "down", "up", "fly", "fly"):
            env.step(move)
            keys[kind].append(env.fingerprint())
    assert len(set(keys["actions"])) == 6
    start, left, down, up, slip, again = keys["observation"]
    assert start == left == up != down and slip == again != up
    assert {fingerprint_kind(world) for world in (maze.build(), navigation.build(), household.build())} == {"state"}
    talks = (twenty_questions.build(), car_dealer.build(), synthesis.build(attempts=2, unsafe=True))
    assert {fingerprint_kind(world) for world in talks} == {"history"}
    assert fingerprint_kind(synthesis.build(unsafe=True)) == "state"  # one attempt: all begin in one state


def test_a_replay_that_differs_is_a_fault() -> None:
    world = from_gymnasium.build(env=Corridor, env_options={"honest": False}, actions=["left", "right"])
    env = world.make()
    env.reset(world.tasks("train")[0], 0)
    with pytest.raises(EnvironmentFault, match="moment 0"):
        env.restore(env.snapshot())


@pytest.mark.parametrize("names", [None, ["left"], ["a", "b", "c"]])
def test_actions_without_the_right_names_are_refused(names: list[str] | None) -> None:
    with pytest.raises(ConfigError, match="2 actions"):
        from_gymnasium.build(env=Corridor, actions=names)


def test_our_world_is_a_gymnasium_environment() -> None:
    from gymnasium.utils.env_checker import check_env as gymnasium_check

    env = to_gymnasium(maze.build(wording="compact"))
    gymnasium_check(env, skip_render_check=True)
    first, info = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert first == again and "task" in info
    text, reward, terminated, truncated, info = env.step("move up")
    assert reward == sum(info["rewards"].values()) == -1.0 and not terminated and not truncated and text
    named, info = env.reset(options={"task": info_task(maze.build(wording="compact"))})
    assert info["task"] == info_task(maze.build(wording="compact")) and named
    with pytest.raises(ValueError, match="no task is called"):
        env.reset(options={"task": "nowhere"})
    env.close()
    with pytest.raises(ConfigError, match="no task"):
        to_gymnasium(maze.build(starts="all"), split="train")


def info_task(world: maze.MazeWorld) -> str:
    return world.tasks("train")[2].id


def test_gymnasium_out_and_in_again_is_the_same_world() -> None:
    inner = navigation.build()
    world = from_gymnasium.build(env=lambda: to_gymnasium(inner, split="train"), success_from=1.0, max_turns=40)
    env = world.make()
    env.reset(world.tasks("train")[0], 0)  # seed 0: the first task, the bedroom
    for command in navigation.solution(navigation.HouseState(room="bedroom")):
        result = env.step(command)
    assert result.terminated and result.success is True and result.reward == 1.0


def test_an_asynchronous_world_is_played_by_blocking_code() -> None:
    async def yes(messages: Any, *, seed: int) -> str:
        return "Yes."

    world = twenty_questions.build(partner=yes)
    env = BlockingEnvironment(world)
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    assert env.step("Is it alive?").observation == "Yes." and env.fingerprint()
    env.close()
    env.close()


def test_trl_sees_reset_one_documented_tool_and_the_reward() -> None:
    world = household.build(size="small")
    tools = environment_factory(world)()
    public = {name for name, _ in inspect.getmembers(type(tools), inspect.isfunction) if not name.startswith("_")}
    assert public == {"reset", "act", "get_reward"}
    row = prompt_rows(world, split="train", count=3)[1]
    text = tools.reset(**row)
    assert "You are in the middle" in text and tools.get_reward() == 0.0
    env, task = world.make(), next(t for t in world.tasks("train") if t.id == row["task"])
    observation, said = env.reset(task, row["seed"]), ""
    while OVER not in said:
        command = world.teacher(task).act(env, observation)
        env.step(command)
        said = tools.act(action=command)
    assert tools.get_reward() == 1.0 and tools.act(action="look") == OVER and tools.get_reward() == 1.0
    tools.reset(**row)
    assert tools.get_reward() == 0.0


def test_trl_leaves_an_episode_out_whose_environment_broke_and_goes_on_in_a_fresh_one() -> None:
    """TRL takes an exception of a tool for the model's mistake, so none may reach it."""

    class Fragile(maze.MazeEnvironment):
        made: list[Any] = []  # noqa: RUF012 counted over all

        def step(self, action: str) -> Any:
            if action == "kick":
                raise EnvironmentFault("the maze fell over")
            return super().step(action)

    world = maze.build()
    world.make = lambda: Fragile.made.append(Fragile(world)) or Fragile.made[-1]  # type: ignore[method-assign,func-returns-value]
    tools, row = environment_factory(world)(), prompt_rows(world, split="train", count=1)[0]
    tools.reset(**row)
    assert tools.act(action="kick") == BROKEN and tools.get_reward() is None and tools.act(action="move up") == OVER
    tools.reset(**row)
    assert len(Fragile.made) == 2 and tools.get_reward() == 0.0
    for argument in ({"deep": [[["x"]]]}, ["move up"], None, 3, "a\ud800"):
        assert "That is not one of" in tools.act(action=argument)  # type: ignore[arg-type]
    assert tools.get_reward() == pytest.approx(-20.0)  # a slip costs four in the maze, whatever its form


def test_a_template_without_tools_is_replaced_and_others_are_kept(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from rollwright.models.tiny_model import make_tiny_model

    folder = make_tiny_model(tmp_path / "tiny", texts=["look"], hidden=32, layers=1)
    plain, tools = AutoTokenizer.from_pretrained(folder), tool_tokenizer(folder)
    talk = [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    for part in (talk[:2], talk):
        assert tools.apply_chat_template(part, tokenize=False) == plain.apply_chat_template(part, tokenize=False)
    called = '<tool_call>{"name": "act", "arguments": {"action": "look"}}</tool_call><|im_end|>'
    read = tools.parse_response(tools(called)["input_ids"], prefix=tools("<|im_start|>assistant\n")["input_ids"])
    assert read["tool_calls"][0]["function"] == {"name": "act", "arguments": {"action": "look"}}
    tools.save_pretrained(folder)
    assert tool_tokenizer(folder).chat_template == tools.chat_template
    bare = AutoTokenizer.from_pretrained(folder)
    bare.chat_template = "{{ messages[0]['content'] }}"
    bare.save_pretrained(tmp_path / "bare")
    assert "tool_call" in tool_tokenizer(tmp_path / "bare").chat_template
    other = tmp_path / "other"
    make_tiny_model(other, texts=["look"], hidden=32, layers=1)
    for file in other.glob("*.json*"):
        file.write_text(file.read_text(encoding="utf-8").replace("im_start", "begin"), encoding="utf-8")
    for file in other.glob("*.jinja"):
        file.write_text(file.read_text(encoding="utf-8").replace("im_start", "begin"), encoding="utf-8")
    with pytest.raises(TemplateError, match="can show no tool call"):
        tool_tokenizer(other)


def test_rows_are_of_one_split_and_of_all_its_tasks() -> None:
    world = maze.build()
    rows = prompt_rows(world, split="test", count=12)
    assert {row["task"] for row in rows} == {t.id for t in world.tasks("test")} and len({r["seed"] for r in rows}) == 12
    for split in ("practice", "train"):
        with pytest.raises(ValueError):
            prompt_rows(maze.build(starts="all"), split=split, count=1)
