"""Random actions: well-formed in every world that has them, fixed by their draws; collected alone and with teachers."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollwright.contracts.environment import ActsAtRandom, Environment, Observation, as_observation, episode_seed
from rollwright.contracts.errors import ConfigError, DataError
from rollwright.contracts.record import Task, Trajectory
from rollwright.envs.device import phone
from rollwright.envs.text import (
    bandit,
    car_dealer,
    chess_game,
    combination_lock,
    guess_city,
    guess_number,
    household,
    maze,
    navigation,
    textworld_game,
    twenty_questions,
    wordle,
)
from rollwright.envs.web import miniwob, sites
from rollwright.envs.web.miniwob_tasks.miniwob_episode import MiniWobEnv, MiniWobOptions
from rollwright.envs.web.observe import Element
from rollwright.envs.web.sites.bare import LEAVES
from rollwright.generation.engine import Sampling
from rollwright.recipes import collect
from rollwright.rollout import RandomActor, TeacherActor
from rollwright.rollout.actors import Decision
from rollwright.store.trajectory_store import TrajectoryStore

STEPS = 40
NOT_UNDERSTOOD = "and what does it cost?"  # the car buyer's answer to words without a meaning
WORLDS: dict[str, tuple[Callable[[], Any], str]] = {
    "maze": (maze.build, "That is not one of"),
    "maze-compact": (lambda: maze.build(wording="compact", maze="umaze"), "unknown move"),
    "navigation": (navigation.build, navigation.SLIP),
    "guess_number": (guess_number.build, guess_number.SLIP),
    "bandit": (bandit.build, bandit.NO_WORD),
    "lock": (lambda: combination_lock.build(digits=3), "Answer with one of"),
    "wordle": (wordle.build, "That is no word"),
    "chess": (lambda: chess_game.build(opponent="random"), chess_game.ILLEGAL),
    "household": (household.build, household.NOTHING),
    "household-compact": (lambda: household.build(wording="compact", size="small"), household.NOTHING),
    "twenty_questions": (twenty_questions.build, "I cannot tell."),
    "guess_city": (guess_city.build, "I cannot tell."),
    "car_dealer": (car_dealer.build, NOT_UNDERSTOOD),
    "sites": (sites.build, "Error: "),
    "phone": (phone.build, "Error: "),
}
IN_A_BROWSER: dict[str, Callable[[], Any]] = {
    "miniwob": lambda: miniwob.build(tasks=["login-user", "choose-list", "click-checkboxes", "use-autocomplete"]),
    "sites": lambda: sites.build(site="shop", mode="browser"),
}


async def settled(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def wander(world: Any, number: int, steps: int = STEPS) -> list[tuple[str, str]]:
    """What was done by chance and what was shown then, over as many episodes as the steps fill."""
    assert isinstance(world, ActsAtRandom)
    env, tasks, seen = await settled(world.make()), world.tasks("train"), []
    for episode in count():
        task, draws = tasks[episode % len(tasks)], random.Random(f"{number}/{episode}")
        observation = as_observation(await settled(env.reset(task, episode_seed("train", "wander", episode))))
        over = False
        while not over:
            action = await settled(world.random_action(env, observation, draws))
            result = await settled(env.step(action))
            observation, over = as_observation(result.observation), result.terminated or result.truncated
            seen.append((action, observation.text))
            if len(seen) == steps:
                await settled(env.close())
                return seen
    raise AssertionError("there is always a next episode")


def slips(seen: list[tuple[str, str]], malformed: str) -> list[tuple[str, str]]:
    """What the world did not understand; a link that is not followed was clicked as it should be."""
    return [(action, shown) for action, shown in seen if malformed in shown.replace(f"Error: {LEAVES}", "")]


@pytest.mark.parametrize("name", WORLDS)
async def test_random_actions_are_well_formed_and_fixed_by_their_draws(name: str) -> None:
    make, malformed = WORLDS[name]
    seen = await wander(make(), 0)
    assert slips(seen, malformed) == []
    assert await wander(make(), 0) == seen, "equal draws, equal episodes"
    assert [action for action, _ in await wander(make(), 1)] != [action for action, _ in seen]


@pytest.mark.browser
@pytest.mark.parametrize("name", IN_A_BROWSER)
async def test_random_actions_in_a_browser(name: str) -> None:
    world = IN_A_BROWSER[name]()
    seen = await wander(world, 0, steps=30)
    assert slips(seen, "Error: ") == [] and await wander(world, 0, steps=30) == seen
    await world.close()


def test_a_game_says_when_it_is_asked_about_another() -> None:
    world, other = navigation.build(), wordle.build()
    env = other.make()
    env.reset(other.tasks("train")[0], episode_seed("train", 0))
    with pytest.raises(TypeError, match="expected an environment with a HouseState"):
        world.random_action(env, Observation(text=""), random.Random(0))


def test_a_line_of_text_that_begins_with_a_number_is_not_acted_on() -> None:
    shown = Observation(text="At /\n1 link Home\n40 products")
    aims: Any = SimpleNamespace(episode=SimpleNamespace(goal="Buy it."))
    page = MiniWobEnv(None, Path(), MiniWobOptions())  # type: ignore[arg-type]
    page.elements = (Element(id=1, role="link", name="Home"), Element(id=None, role="", name="40 products"))
    for world, env in ((sites.build(), aims), (object.__new__(miniwob.MiniWobWorld), page)):
        drawn = {world.random_action(env, shown, random.Random(number)) for number in range(60)}
        assert "click 1" in drawn and "click 40" not in drawn


async def test_textworld_takes_one_of_its_possible_commands() -> None:
    world = textworld_game.TextWorldWorld(rooms=1, things=1, quest=1, games=1, folder=Path(), max_turns=5)
    env, shown = world.make(), Observation(text="")
    env._state = {"admissible_commands": ["look", "go east"]}
    drawn = {world.random_action(env, shown, random.Random(number)) for number in range(20)}
    assert drawn == {"go east", "look"}
    env._state = {"admissible_commands": []}
    assert world.random_action(env, shown, random.Random(0)) == "look"


# Actors


class Listener:
    """A world of words, and a teacher who writes down which goals it was told."""

    name = "listener"

    def __init__(self) -> None:
        self.heard: list[str] = []

    def teacher(self, task: Task) -> Any:
        def act(env: Environment, observation: Observation) -> str:
            self.heard.append(observation.goal)
            return "taught"

        return SimpleNamespace(act=act)

    async def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        return f"random {draws.randrange(1_000_000)}"


def letters(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


async def words_of(actor: Any, key: str, turns: int = 10) -> list[str]:
    """What an actor writes in an episode of that name; the goal stands in the first observation only."""
    act, said = actor.begin(Task(id="t", split="train")), []
    for turn in range(turns):
        shown = Observation(text=f"turn {turn}", goal="" if turn else "Say it.")
        made = await act(
            Decision(
                prompt_ids=(),
                sampling=Sampling(max_tokens=4),
                request_id=f"{key}/{turn}",
                observation=shown,
                env=None,  # type: ignore[arg-type]
            )
        )
        assert made.spans[0].producer == "dataset"
        said.append("".join(map(chr, made.token_ids)))
    return said


async def test_an_episode_s_name_and_turn_fix_what_chance_does() -> None:
    actor = RandomActor(Listener(), letters)  # type: ignore[arg-type]
    one = await words_of(actor, "a")
    assert len(set(one)) == 10 and all(word.startswith("random ") for word in one)
    assert await words_of(actor, "a") == one and not set(await words_of(actor, "b")) & set(one)
    assert actor.name == "random:listener" and actor.origin == "scripted"


async def test_a_teacher_hears_the_goal_though_chance_acted_first() -> None:
    world = Listener()
    actor = TeacherActor(world, letters, random_frac=0.5)  # type: ignore[arg-type]
    began_by_chance = taught = 0
    for number in range(40):
        world.heard.clear()
        said = await words_of(actor, str(number))
        began_by_chance += said[0] != "taught"
        taught += len(world.heard)
        assert world.heard == ["Say it.", *[""] * (said.count("taught") - 1)] * bool(world.heard)
    assert 10 < began_by_chance < 30 and 160 < taught < 240, "half of 40 episodes, half of 400 turns"
    assert actor.name == "teacher:listener with 0.5 random"


async def test_without_a_share_for_chance_the_teacher_acts_alone() -> None:
    world: Any = SimpleNamespace(name="quiet", teacher=Listener().teacher)  # it need not have random actions
    actor = TeacherActor(world, letters)
    assert await words_of(actor, "a") == ["taught"] * 10 and actor.name == "teacher:quiet"


def test_a_world_without_random_actions_is_named_with_what_to_do() -> None:
    world: Any = SimpleNamespace(name="quiet", teacher=lambda task: None)
    for make in (lambda: RandomActor(world, letters), lambda: TeacherActor(world, letters, random_frac=0.1)):
        with pytest.raises(DataError, match=r"world 'quiet' has no random actions; .* give it `random_action\(env"):
            make()


def test_a_phone_s_teacher_starts_anew_after_a_turn_that_was_not_its_own() -> None:
    world = phone.build(templates="easy", splits="seed", finish="automatic")
    solved = 0
    for task in world.tasks("train")[:10]:
        env, teacher = world.make(), world.teacher(task)
        observation, over = env.reset(task, episode_seed("train", "anew")), False
        while not over:
            action = "home" if env.turns == 2 else teacher.act(env, observation)
            result = env.step(action)
            observation, over = as_observation(result.observation), result.terminated or result.truncated
        solved += result.success is True
    assert solved >= 9


# The recipe


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrajectoryStore]:
    """(name, *words): a store of 40 walks through the small maze."""
    monkeypatch.chdir(Path(__file__).parents[2])
    small = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "world.options.maze=umaze"]
    walkers = ["world.options.teacher_stays=false", "world.options.teacher_optimal_frac=1", "collect.per_task=10"]

    def run(name: str, *words: str) -> TrajectoryStore:
        folder = tmp_path / name
        collect.main(["recipes/text/maze_collect.yaml", *small, *walkers, f"run.folder={folder}", *words])
        return TrajectoryStore(folder / "trajectories")

    return run


def told(trajectory: Trajectory) -> Any:
    return [(turn.prompt_ids, turn.action_ids, turn.rewards, turn.state_key) for turn in trajectory.turns]


def mean_return(store: TrajectoryStore) -> float:
    rows = [row["total_reward"] for _, row in store.headers()]
    assert len(rows) >= 20
    return float(sum(rows) / len(rows))


@pytest.mark.long
def test_a_random_collection_says_so_and_repeats_bit_for_bit(collected: Callable[..., TrajectoryStore]) -> None:
    one, two = (collected(name, "collect.by=random") for name in ("one", "two"))
    assert {row["tag"] for _, row in one.headers()} == {"random"}
    first, again = list(one.iter_trajectories()), list(two.iter_trajectories())
    assert [told(t) for t in first] == [told(t) for t in again] and len({str(told(t)) for t in first}) > 10
    assert {(t.origin, t.policy) for t in first} == {("scripted", "random:text.maze")}
    other = collected("other", "collect.by=random", "run.seed=1")
    assert [told(t) for t in other.iter_trajectories()] != [told(t) for t in first]


def test_a_teacher_mixed_with_chance_earns_less_than_alone_and_more_than_chance(
    collected: Callable[..., TrajectoryStore],
) -> None:
    teacher = collected("teacher")
    mixed = collected("mixed", "collect.random_frac=0.5", "collect.tag=mixed")
    chance = collected("chance", "collect.by=random")
    assert mean_return(teacher) > mean_return(mixed) > mean_return(chance)
    assert {row["tag"] for _, row in mixed.headers()} == {"mixed"}
    assert {t.origin for t in mixed.iter_trajectories()} == {"teacher"}


def test_a_share_for_chance_belongs_to_teachers(collected: Callable[..., TrajectoryStore]) -> None:
    for by in ("policy", "random"):
        with pytest.raises(ConfigError, match="random_frac"):
            collected("wrong", f"collect.by={by}", "collect.random_frac=0.5")


class QuietMaze(maze.MazeWorld):
    random_action = None  # type: ignore[assignment]


def test_the_recipe_names_a_world_that_cannot_act_at_random(
    collected: Callable[..., TrajectoryStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = maze.build(maze="umaze", wording="compact")
    world.__class__ = QuietMaze
    monkeypatch.setattr("rollwright.training.stage.open_world", lambda settings: world)
    with pytest.raises(DataError, match=r"world 'text\.maze' has no random actions; collect with a policy"):
        collected("none", "collect.by=random")
