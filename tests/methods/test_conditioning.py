"""Return-conditioned imitation: what is said in training is what is said when acting, id by id; where it fails."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rollwright.contracts.environment import Observation, StepResult, episode_seed
from rollwright.contracts.errors import DataError
from rollwright.contracts.record import Message, StopReason, Task, Trajectory, Turn
from rollwright.envs.text.maze import build
from rollwright.evaluation import load_evaluation
from rollwright.generation.engine import Sampling
from rollwright.methods.conditioning import ReturnLevels, ReturnTargets, conditioned
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import tiny_tokenizer
from rollwright.recipes import collect, return_conditioned
from rollwright.rollout import Collector, FaultLog, Limits, TeacherActor
from rollwright.rollout.contexts import AppendOnly, Context, Windowed
from rollwright.rollout.rerendering import require_same_prompts, rerender, shown_texts
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders


def codec_of(wording: str) -> ChatCodec:
    return ChatCodec(tiny_tokenizer(build(wording=wording).texts()))  # type: ignore[arg-type]


def contexts(codec: ChatCodec, instructions: str) -> dict[str, Callable[[], Context]]:
    common = {"codec": codec, "instructions": instructions, "context_length": 1 << 20}
    return {
        "append": AppendOnly(**common),  # type: ignore[arg-type]
        "windowed": Windowed(**common, history=0),  # type: ignore[arg-type]
        "history": Windowed(**common, history=2),  # type: ignore[arg-type]
    }


def walk(tmp_path: Path, world: object, teacher_of: object, codec: ChatCodec, new_context: object) -> Trajectory:
    """One episode of the maze by its teacher, in a collector."""
    collector = Collector(
        world,  # type: ignore[arg-type]
        TeacherActor(teacher_of, codec.encode_action),  # type: ignore[arg-type]
        new_context,  # type: ignore[arg-type]
        sampling=Sampling(max_tokens=8),
        limits=Limits(max_turns=30),
        faults=FaultLog(tmp_path / "faults.jsonl", max_frac=0.5),
    )
    try:
        task = build().tasks("train")[3]
        return collector.play([collector.request("walk", task, episode_seed("train", 1))])[0]
    finally:
        collector.close()


class Told(ReturnTargets):
    """With teachers, who look into the environment itself: so that the same walk is played under the line."""

    def teacher(self, task: Task) -> object:
        inner = self.inner.teacher(task)  # type: ignore[attr-defined]

        class Inner:
            def act(self, env: object, observation: object) -> str:
                return inner.act(env.inner, observation)  # type: ignore[attr-defined]

        return Inner()


@pytest.mark.parametrize("kind", ["append", "windowed", "history"])
@pytest.mark.parametrize("wording", ["lmrl", "compact"])
def test_training_shows_the_ids_that_acting_will_show(tmp_path: Path, kind: str, wording: str) -> None:
    """The same walk, once plain and then conditioned, once played with just that return wanted from the start."""
    codec, world = codec_of(wording), build(wording=wording, teacher_optimal_frac=0.6)  # type: ignore[arg-type]
    new_context = contexts(codec, world.instructions)[kind]
    played = walk(tmp_path, world, world, codec, new_context)
    levels = ReturnLevels(edges=(-20.0, -9.0, -4.0), line="return {level} of {levels}")
    trained = conditioned(played, new_context, levels)

    told = Told(build(wording=wording, teacher_optimal_frac=0.6), levels, played.total_reward)  # type: ignore[arg-type]
    acted = walk(tmp_path, told, told, codec, new_context)
    assert [t.prompt_ids for t in trained.turns] == [t.prompt_ids for t in acted.turns]
    assert [t.action_ids for t in trained.turns] == [t.action_ids for t in played.turns]
    assert trained.turns[0].prompt_ids != played.turns[0].prompt_ids and len(played.turns) > 4
    assert "return 4 of 4" in codec.tokenizer.decode(trained.turns[-1].prompt_ids)


def test_the_wanted_return_is_used_up_exactly(tmp_path: Path) -> None:
    codec, world = codec_of("compact"), build(wording="compact", teacher_optimal_frac=0.6)
    played = walk(tmp_path, world, world, codec, contexts(codec, "")["windowed"])
    to_go = played.returns_to_go(1.0)
    assert to_go == [r + after for r, after in zip(played.rewards, [*to_go[1:], 0.0], strict=True)]
    env = ReturnTargets(world, ReturnLevels(edges=(0.0,)), played.total_reward).make()
    env.reset(played.task, played.seed)
    wanted = []
    for turn in played.turns:
        wanted.append(env.wanted)
        env.step(turn.text)
    assert wanted == to_go and env.wanted == 0.0


def test_other_prompts_are_refused(tmp_path: Path) -> None:
    codec, world = codec_of("compact"), build(wording="compact", teacher_optimal_frac=0.6)
    kinds = contexts(codec, "")
    played = walk(tmp_path, world, world, codec, kinds["history"])
    require_same_prompts(played, kinds["history"])
    other = ChatCodec(tiny_tokenizer(["other words altogether"]))
    for wrong in (
        kinds["append"],
        kinds["windowed"],
        contexts(other, "")["history"],
        contexts(codec, "Go.")["history"],
    ):
        with pytest.raises(DataError, match=r"another tokenizer, chat template"):
            require_same_prompts(played, wrong)
    blind = replace(played, turns=tuple(replace(turn, observed=()) for turn in played.turns))
    with pytest.raises(DataError, match="no observation on record"):
        conditioned(blind, kinds["history"], ReturnLevels(edges=(0.0,)))


def test_other_actions_enter_later_prompts_only_where_the_context_shows_them(tmp_path: Path) -> None:
    codec, world = codec_of("compact"), build(wording="compact", teacher_optimal_frac=0.6)
    kinds = contexts(codec, "")
    for kind, changes in (("windowed", False), ("history", True), ("append", True)):
        played = walk(tmp_path, world, world, codec, kinds[kind])
        actions = [codec.encode_action("move up")] * len(played.turns)
        again = rerender(played, kinds[kind], actions=actions)
        assert [t.text for t in again] == ["move up"] * len(again)
        assert again[0].prompt_ids == played.turns[0].prompt_ids
        assert ([t.prompt_ids for t in again] != [t.prompt_ids for t in played.turns]) == changes
        assert shown_texts(replace(played, turns=again)) == shown_texts(played)


def test_levels_are_quantiles() -> None:
    levels = ReturnLevels.of([float(k) for k in range(100)], count=4, line="level {level}/{levels}")
    assert levels.count == 4
    assert Counter(levels.level(float(k)) for k in range(100)) == {1: 25, 2: 25, 3: 25, 4: 25}
    assert levels.under("seen", 99.0) == "seen\nlevel 4/4" and levels.level(1e9) == 4 and levels.level(-1e9) == 1
    sparse = ReturnLevels.of([0.0] * 95 + [1.0] * 5, count=8)
    assert sparse.count == 2 and (sparse.level(0.0), sparse.level(1.0)) == (1, 2)
    assert ReturnLevels(edges=(0.3,)).level(1.0 - 0.1 * 7) == 2, "last bits decide nothing"
    for same in ([1.0] * 5, []):
        with pytest.raises(DataError, match=r"nothing tells|says nothing"):
            ReturnLevels.of(same, count=4)
    with pytest.raises(ValueError, match="one line with"):
        ReturnLevels(edges=(0.0,), line="no place for it")


def step(state: str, action: str, reward: float) -> Turn:
    observed = (Message(role="user", content=state),)
    return Turn(
        prompt_ids=(1,),
        action_ids=(2,),
        action_logprobs=(0.0,),
        text=action,
        observed=observed,
        rewards={"env": reward},
    )


def episode(*turns: Turn) -> Trajectory:
    return builders.episode("e", *turns)


def shares(data: list[Trajectory], count: int) -> tuple[ReturnLevels, dict[tuple[str, int], Counter[str]]]:
    """What a table learns: how often each action was taken in a state under each level."""
    levels = ReturnLevels.of([g for t in data for g in t.returns_to_go(1.0)], count=count)
    table: dict[tuple[str, int], Counter[str]] = {}
    for trajectory in data:
        for turn, to_go in zip(trajectory.turns, trajectory.returns_to_go(1.0), strict=True):
            table.setdefault((turn.observed[0].content, levels.level(to_go)), Counter())[turn.text] += 1
    return levels, table


def test_luck_is_taken_for_skill() -> None:
    """Safe pays 0.6, risky 1 or 0: asked for 1 it gambles, and earns 0.5. The failure belongs to the method."""
    data = [episode(step("s", "safe", 0.6))] * 50
    data += [episode(step("s", "risky", 1.0))] * 25 + [episode(step("s", "risky", 0.0))] * 25
    levels, table = shares(data, count=4)
    assert table["s", levels.level(1.0)] == {"risky": 25} and table["s", levels.level(0.6)] == {"safe": 50}


def test_halves_are_not_joined() -> None:
    """A -> M pays nothing, M -> G pays 1, never in one episode: nobody ever stood in A with a return of 1 to go."""
    halves = [episode(step("A", "on", 0.0), step("M", "stop", 0.0))] * 10 + [episode(step("M", "on", 1.0))] * 10
    levels, table = shares(halves, count=2)
    assert ("A", levels.level(1.0)) not in table and table["M", levels.level(1.0)] == {"on": 10}
    joined = [*halves, episode(step("A", "on", 0.0), step("M", "on", 1.0))]  # a rollout that does both
    assert shares(joined, count=2)[1]["A", 2] == {"on": 1}


def straying_walks(per_start: int) -> list[Trajectory]:
    """Walks of the small maze with 15 shortest moves in 100; those that never arrive are left out."""
    world = build(maze="umaze", wording="compact", teacher_optimal_frac=0.15, max_turns=40)
    walks = []
    for task in world.tasks("train"):
        for number in range(per_start):
            env, teacher = world.make(), world.teacher(task)
            seen, turns = env.reset(task, episode_seed("train", task.id, number)).text, []
            while True:
                action = teacher.act(env, Observation(text=seen))
                result = env.step(action)
                turns.append(step(seen, action, sum(result.rewards.values())))
                if result.terminated or result.truncated:
                    break
                seen = result.observation.text if isinstance(result.observation, Observation) else result.observation
            walks += [episode(*turns)] if result.terminated else []
    return walks


def asked_for(target: float, levels: ReturnLevels, table: dict[tuple[str, int], Counter[str]]) -> float:
    """Mean return over the test starts of the most frequent action at each state and level (else the next lower)."""
    world = ReturnTargets(build(maze="umaze", wording="compact", max_turns=100), levels, target)
    earned = []
    for task in world.tasks("test"):
        env, total, over = world.make(), 0.0, False
        seen = env.reset(task, episode_seed("test", task.id))
        while not over:
            state, _, line = seen.text.rpartition("\n")
            near = sorted(range(1, levels.count + 1), key=lambda k, at=int(line): (k > at, abs(k - at)))  # type: ignore[misc]
            counts = next(table[state, k] for k in near if (state, k) in table)
            result = env.step(counts.most_common(1)[0][0])
            total += sum(result.rewards.values())
            seen, over = result.observation, result.terminated or result.truncated
        earned.append(total)
    return sum(earned) / len(earned)


def test_returns_follow_what_is_asked_for() -> None:
    """A table learned from straying walks of the small maze, whose best return from the test start is -4."""
    levels, table = shares(straying_walks(60), count=6)
    levels = replace(levels, line="{level}")
    good, middling, bad = [asked_for(target, levels, table) for target in (-4.0, -10.0, -16.0)]
    assert good >= -7 and -14 <= middling <= -6 and -22 <= bad <= -10, (good, middling, bad)


def test_a_world_of_coroutines_is_told_too() -> None:
    class Slow:
        async def reset(self, task: Task, seed: int) -> str:
            return "here"

        async def step(self, action: str) -> StepResult:
            return StepResult(observation=Observation(text="there"), reward={"a": 1.0, "b": 0.5})

        async def fingerprint(self) -> str:
            return "k"

        async def close(self) -> None: ...

    class World:
        name, instructions, execution, snapshots, max_turns = "slow", "", "async", "none", 3

        async def make(self) -> Slow:
            return Slow()

    levels = ReturnLevels(edges=(1.0,), line="{level}")

    async def play() -> tuple[str, str, str]:
        env = await ReturnTargets(World(), levels, 2.0, shorten=lambda text: text[:3]).make()  # type: ignore[arg-type]
        first = await env.reset(Task(id="t", split="train"), 0)
        return first.text, (await env.step("x")).observation.text, await env.fingerprint()

    assert asyncio.run(play()) == ("her\n2", "the\n1", "k/1")


SMALL_MAZE = ["model.path=tiny", "model.tiny_hidden=64", "model.tiny_layers=2", "world.options.maze=umaze"]


def mean_return(run: Path, target: float) -> float:
    rows = load_evaluation(run / "eval" / f"return_{target:g}.json").rows
    return sum(row.total_return for row in rows) / len(rows)


@pytest.mark.slow
def test_a_high_return_leads_a_shorter_way_than_a_low_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From walkers who mostly stray: asked for the best return it goes straight, asked for a bad one it takes its time.

    The best from the test start is -4, five moves of which the last is free.
    """
    monkeypatch.chdir(Path(__file__).parents[2])
    data, run = tmp_path / "data", tmp_path / "run"
    straying = ["world.options.teacher_stays=false", "collect.per_task=60", f"run.folder={data}"]
    collect.main(["recipes/text/maze_collect.yaml", *SMALL_MAZE, *straying])
    words = [f"run.folder={run}", f"replay.stores=[{data / 'trajectories'}]", "algorithm.targets=[-4,-16]"]
    more = ["sft.epochs=4", "sft.batch_size=64", "algorithm.levels=6", "evaluation.max_turns=40"]
    return_conditioned.main(["recipes/text/maze_return.yaml", *SMALL_MAZE, *words, *more])
    assert mean_return(run, -4) >= -7
    assert mean_return(run, -16) <= mean_return(run, -4) - 5
    levels = json.loads((run / "policy" / "return_levels.json").read_text())
    assert 2 <= len(levels["edges"]) <= 5 and levels["line"] == "{level}"


def test_stores_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    def refused(folder: str, *words: str) -> None:
        return_conditioned.main(
            [
                "recipes/text/maze_return.yaml",
                f"run.folder={tmp_path / 'run'}",
                f"replay.stores={folder}",
                "model.path=tiny",
                *words,
            ]
        )

    flat = episode(step("here", "move up", 0.0))
    TrajectoryStore(tmp_path / "flat").append([flat])
    TrajectoryStore(tmp_path / "blind").append([replace(flat, has_actions=False)])
    TrajectoryStore(tmp_path / "cut").append([replace(flat, stop_reason=StopReason.MAX_TURNS)])
    for name, message in (
        ("flat", "nothing tells|says nothing"),
        ("blind", "no trajectory to imitate"),
        ("cut", "cut by a limit"),
    ):
        with pytest.raises(DataError, match=message):
            refused(f"[{tmp_path / name}]", "world.options.maze=umaze")
    with pytest.raises(DataError, match=r"name some in replay\.stores"):
        refused("[]")
    assert not (tmp_path / "run").exists()
