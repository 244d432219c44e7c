"""Ours handed to Gymnasium and to TRL, and Gymnasium's taken in."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from rollwright.env import episode_seed
from rollwright.env_check import check_env
from rollwright.envs.text import from_gymnasium, household, maze, navigation, twenty_questions
from rollwright.envs.text.blocking import BlockingEnvironment
from rollwright.envs.text.to_gymnasium import to_gymnasium
from rollwright.envs.text.to_trl import OVER, environment_factory, prompt_rows
from rollwright.errors import ConfigError, EnvironmentFault

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


def test_rows_are_of_one_split_and_of_all_its_tasks() -> None:
    world = maze.build()
    rows = prompt_rows(world, split="test", count=12)
    assert {row["task"] for row in rows} == {t.id for t in world.tasks("test")} and len({r["seed"] for r in rows}) == 12
    for split in ("practice", "train"):
        with pytest.raises(ValueError):
            prompt_rows(maze.build(starts="all"), split=split, count=1)


@pytest.mark.slow
def test_trl_takes_a_step_on_our_world(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import get_json_schema

    from rollwright.tiny import make_tiny_model

    world = maze.build(wording="compact")
    folder = make_tiny_model(
        tmp_path / "tiny", texts=list(world.texts()), tokenizer="bpe", hidden=64, context_length=2048
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    factory = environment_factory(world)
    assert get_json_schema(factory().act)["function"]["name"] == "act"
    options = trl.GRPOConfig(
        output_dir=str(tmp_path / "out"),
        max_steps=1,
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=8,
        max_tool_calling_iterations=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
    )
    trainer = trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        processing_class=tokenizer,
        args=options,
        train_dataset=Dataset.from_list(prompt_rows(world, split="train", count=4)),
        environment_factory=factory,
    )
    assert trainer.train().global_step == 1
    logged = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert logged and logged[0]["rewards/WorldTools/mean"] == 0.0  # a random model calls no tool: nothing is earned
