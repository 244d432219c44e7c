"""MiniWoB++ in a real Chromium: episodes, teachers, determinism, replay, observation."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import Observation, StepResult, episode_seed
from rollwright.contracts.errors import EnvironmentFault
from rollwright.contracts.record import Task
from rollwright.envs.web.miniwob import MiniWobWorld, build
from rollwright.envs.web.miniwob_tasks.miniwob_episode import MiniWobEnv
from rollwright.envs.web.miniwob_tasks.scripts import SCRIPTS
from rollwright.envs.web.miniwob_tasks.splits import ALL_TASKS

pytestmark = pytest.mark.browser

MAIN_TASKS = {
    *("click-test-2", "click-button-sequence", "click-collapsible", "click-dialog", "click-button", "click-link"),
    *("click-dialog-2", "click-tab", "focus-text-2", "enter-text", "login-user", "click-checkboxes", "click-tab-2"),
    *("search-engine", "click-option", "enter-password"),
}


class Home:
    """One world on one event loop in a background thread, as a rollout has it."""

    def __init__(self, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.world: MiniWobWorld = build(**options)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(180)

    def close(self) -> None:
        self.run(self.world.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    home = Home(tasks="all")
    yield home
    home.close()


async def play(env: MiniWobEnv, task: Task, seed: int, actions: list[str]) -> list[Observation | StepResult]:
    """The observation of the reset and the results of the actions, up to the end of the episode."""
    seen: list[Observation | StepResult] = [await env.reset(task, seed)]
    for action in actions:
        seen.append(await env.step(action))
        if seen[-1].terminated or seen[-1].truncated:
            break
    return seen


async def taught(world: MiniWobWorld, name: str, seed: int) -> StepResult:
    """Let the teacher play one episode."""
    env, task = world.make(), world.task(name, "train")
    teacher = world.teacher(task)
    assert teacher is not None
    observation = await env.reset(task, seed)
    while True:
        result = await env.step(teacher.act(env, observation))
        assert isinstance(result.observation, Observation)
        observation = result.observation
        if result.terminated or result.truncated:
            await env.close()
            return result


def test_every_script_earns_the_page_s_own_reward(home: Home) -> None:
    async def all_of_them() -> dict[str, list[float]]:
        gate, scores = asyncio.Semaphore(4), {}

        async def one(name: str) -> None:
            async with gate:
                results = [await taught(home.world, name, episode_seed("train", name, i)) for i in range(3)]
                scores[name] = [float(result.notes.get("raw_reward", "0")) for result in results]

        await asyncio.gather(*(one(name) for name in SCRIPTS))
        return scores

    assert set(SCRIPTS) >= MAIN_TASKS and len(MAIN_TASKS) == 16
    scores = home.run(all_of_them())
    assert {name: raw for name, raw in scores.items() if raw != [1.0, 1.0, 1.0]} == {}


def test_a_wrong_click_ends_the_episode_without_reward(home: Home) -> None:
    task = home.world.task("click-test-2", "train")
    start, result = home.run(play(home.world.make(), task, episode_seed("train", 1), ["click 2"]))
    assert start.text == "1 button ONE\n2 button TWO" and start.goal == "Click button ONE."
    assert result.terminated and result.success is False and result.rewards == {"env": 0.0}
    assert result.notes["raw_reward"] == "-1"


def test_raw_rewards_and_thresholds() -> None:
    home = Home(tasks=["click-test-2"], reward="raw")
    try:
        task = home.world.task("click-test-2", "train")
        _, result = home.run(play(home.world.make(), task, episode_seed("train", 1), ["click 2"]))
        assert result.rewards == {"env": -1.0} and result.success is False
    finally:
        home.close()


@pytest.mark.parametrize(
    "action", ["click 99", "clock 1", "", "fill 1 text", "check 2", "x" * 10_000, "press 99 Enter"]
)
def test_a_slip_is_told_to_the_policy_and_costs_a_turn(home: Home, action: str) -> None:
    task = home.world.task("click-test-2", "train")
    seen = home.run(play(home.world.make(), task, episode_seed("train", 1), [action] * 8))
    slip = seen[1]
    assert slip.observation.text.startswith("Error: ") and slip.observation.text.endswith(seen[0].text)
    assert len(slip.observation.text) < 500
    assert not slip.terminated and slip.rewards == {"env": 0.0}
    assert seen[-1].truncated and len(seen) == 9, "eight slips use up the eight turns"


def test_same_task_and_seed_give_the_same_episode_and_another_seed_another(home: Home) -> None:
    async def twice(name: str) -> None:
        task, env, fresh = home.world.task(name, "train"), home.world.make(), home.world.make()
        actions = ["click 1", "click 2", "noop"]
        first = await play(env, task, episode_seed("train", 1), actions)
        other = await play(env, task, episode_seed("train", 2), actions)
        again = await play(env, task, episode_seed("train", 1), actions)
        elsewhere = await play(fresh, task, episode_seed("train", 1), actions)
        assert first == again == elsewhere
        assert first[0] != other[0]
        await env.close()
        await fresh.close()

    names = ["click-tab-2", "login-user", "choose-list", "email-inbox", "drag-items", "use-slider", "choose-date-easy"]
    for name in names:
        home.run(twice(name))


_ELSEWHERE = """
import asyncio, json, sys
from rollwright.contracts.environment import episode_seed
from rollwright.envs.web.miniwob import build

async def main():
    world = build(tasks="all")
    env, seen = world.make(), {}
    for name in sys.argv[1:]:
        observation = await env.reset(world.task(name, "test"), episode_seed("test", name))
        seen[name] = [observation.goal, observation.text, await env.fingerprint()]
    await world.close()
    print(json.dumps(seen))

asyncio.run(main())
"""


def test_two_processes_see_the_same_page(home: Home) -> None:
    names = ["click-checkboxes-transfer", "search-engine", "book-flight", "stock-market"]
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, *names], capture_output=True, text=True, timeout=180, check=True
    )

    async def here() -> dict[str, list[str]]:
        env, seen = home.world.make(), {}
        for name in names:
            observation = await env.reset(home.world.task(name, "test"), episode_seed("test", name))
            seen[name] = [observation.goal, observation.text, await env.fingerprint()]
        await env.close()
        return seen

    assert json.loads(done.stdout) == home.run(here())


def test_restoring_replays_and_checks(home: Home) -> None:
    async def there_and_back() -> None:
        env, task = home.world.make(), home.world.task("login-user", "train")
        await env.reset(task, episode_seed("train", 5))
        await env.step("fill 1 someone")
        state, key = await env.snapshot(), await env.fingerprint()
        await env.step("fill 2 secret")
        assert await env.fingerprint() != key
        await env.restore(state)
        assert await env.fingerprint() == key
        assert (await env.step("noop")).observation.text.splitlines()[0] == "1 textbox Username = someone (focused)"
        forged = json.dumps(json.loads(state) | {"actions": ["fill 1 someone else"]}).encode()
        with pytest.raises(EnvironmentFault, match="does not replay"):
            await env.restore(forged)
        await env.close()

    home.run(there_and_back())


def test_what_can_be_clicked_has_a_number(home: Home) -> None:
    async def lines(name: str) -> list[str]:
        env = home.world.make()
        observation = await env.reset(home.world.task(name, "train"), episode_seed("train", 7))
        assert all(element.clickable == (element.id is not None) for element in env.elements)
        await env.close()
        return observation.text.splitlines()

    mail = home.run(lines("email-inbox-delete"))
    assert mail[:6] == ["Primary", "1 icon open-search", "2 text Theressa", "Ultricies mauri..", "Consectetur pel..",
                        "3 icon trash"]  # fmt: skip
    tabs = home.run(lines("click-tab-2"))
    assert tabs[0] == "1 tab Tab #1 (selected)" and "4 link Commodo" in tabs
    assert home.run(lines("click-collapsible")) == ["1 tab Section #35", "2 button Submit"]
    assert home.run(lines("login-user"))[:2] == ["1 textbox Username", "2 textbox Password"]
    assert home.run(lines("choose-list"))[0] == "1 select = Suriname [Suriname, Armenia, India]"
    assert home.run(lines("circle-center"))[-1].startswith("1 button Submit @"), "a task about places shows them"


def test_states_and_values_follow_the_actions(home: Home) -> None:
    async def work() -> list[str]:
        env, seen = home.world.make(), []
        for name, actions in {
            "click-checkboxes": ["check 1", "check 1", "uncheck 1"],
            "enter-text": ["fill 1 one", "fill('1', \"a 'b'\")", "press 1 Backspace", "keyboard_type xy", "clear 1"],
            "click-scroll-list": ["select_option 1 India | Macao"],
        }.items():
            results = await play(env, home.world.task(name, "train"), episode_seed("train", 7), actions)
            seen += [result.observation.text.splitlines()[0] for result in results[1:]]
        await env.close()
        return seen

    assert home.run(work()) == [
        "1 checkbox KDVDDGQ (on)",
        "1 checkbox KDVDDGQ (on)",
        "1 checkbox KDVDDGQ",
        "1 textbox = one (focused)",
        "1 textbox = a 'b' (focused)",
        "1 textbox = a 'b (focused)",
        "1 textbox = a 'bxy (focused)",
        "1 textbox (focused)",
        "1 select = India, Macao [Suriname, Armenia, India, Korea, Macao, Germany, Tuvalu, Anguilla]",
    ]


def test_the_mouse_drags(home: Home) -> None:
    async def drag() -> StepResult:
        env = home.world.make()
        observation = await env.reset(home.world.task("drag-items", "train"), episode_seed("train", 7))
        assert observation.goal == "Drag Clemmy to the 1st position."
        ids = {element.name: element.id for element in env.elements}
        result = await env.step(f"drag_and_drop {ids['Clemmy']} {ids['Genevra']}")
        await env.close()
        return result

    assert home.run(drag()).success is True


def test_a_picture_is_taken_when_asked_for(tmp_path: Any) -> None:
    home = Home(tasks=["click-test-2"], screenshots=str(tmp_path))
    try:
        task = home.world.task("click-test-2", "train")
        start, *_ = home.run(play(home.world.make(), task, episode_seed("train", 1), []))
        [picture] = start.attachments
        content = (tmp_path / f"{picture.sha256}.png").read_bytes()
        assert content.startswith(b"\x89PNG") and picture.path == str(tmp_path / f"{picture.sha256}.png")
    finally:
        home.close()


def test_the_contract_holds() -> None:
    world = build(train_tasks=["click-test-2"], validation_tasks=["login-user"], test_tasks=["click-tab"])
    check_env(world, seeds=2)


@pytest.mark.slow
def test_all_130_tasks_start_and_take_an_action(home: Home) -> None:
    async def visit(name: str, gate: asyncio.Semaphore) -> list[str]:
        async with gate:
            env, task = home.world.make(), home.world.task(name, "train")
            first = await env.reset(task, episode_seed("train", 3))
            page = env._page
            assert page is not None
            errors = list(page.page_errors)
            if not first.goal or not first.text:
                errors.append("nothing to see")
            ids = [element.id for element in env.elements if element.id is not None]
            result = await env.step(f"click {ids[len(name) % len(ids)]}" if ids else "mouse_click 80 120")
            if result.observation.text.startswith("Error"):
                errors.append(result.observation.text)
            again = await env.reset(task, episode_seed("train", 3))
            if again != first:
                errors.append("another page for the same seed")
            errors += page.page_errors
            await env.close()
            return [f"{name}: {error}" for error in errors]

    async def all_of_them() -> list[str]:
        gate = asyncio.Semaphore(4)
        return [line for lines in await asyncio.gather(*(visit(name, gate) for name in ALL_TASKS)) for line in lines]

    blocked = home.world.pool.requests_blocked
    assert len(ALL_TASKS) == 130
    assert home.run(all_of_them()) == []
    assert home.world.pool.requests_blocked == blocked and home.world.pool.faults == []


def test_every_action_works_on_a_page_that_is_not_drawn(home: Home) -> None:
    """The browser's own mouse would wait for ever in such a page: the page's script stands in for it."""

    async def work() -> None:
        env, task = home.world.make(), home.world.task("click-menu", "train")
        await env.reset(task, episode_seed("train", 7))
        assert env._page is not None and not env._page.browser.draws
        before = env.elements
        result = await env.step("hover 2")
        assert len(env.elements) > len(before), "the submenu under the pointer has opened"
        for action in ("drag_and_drop 1 2", "mouse_move 5 5", "mouse_down 5 5", "mouse_up 5 5", "scroll 0 50"):
            result = await env.step(action)
            assert "error" not in result.notes
        with pytest.raises(RuntimeError, match="draw=True"):
            await env.screenshot()
        await env.close()

    home.run(work())
