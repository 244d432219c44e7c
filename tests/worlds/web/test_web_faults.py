"""What goes wrong with real pages: crashes, hangs, dialogs, foreign requests, a killed process."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rollwright.contracts.environment import Observation, StepResult, episode_seed
from rollwright.contracts.errors import EnvironmentFault, MissingDependency
from rollwright.envs.web.chromium.page import PageHung
from rollwright.envs.web.chromium.watchdog import ONE, marked_processes
from rollwright.envs.web.miniwob import MiniWobWorld, build
from rollwright.envs.web.miniwob_tasks.miniwob_episode import MiniWobEnv

pytestmark = pytest.mark.browser

SEED = episode_seed("train", 1)


@pytest.fixture
async def world() -> AsyncIterator[MiniWobWorld]:
    world = build(tasks=["click-test-2"], deadline_s=6)
    yield world
    await world.close()


async def started(world: MiniWobWorld) -> MiniWobEnv:
    env = world.make()
    await env.reset(world.task("click-test-2", "train"), SEED)
    return env


async def inject(env: MiniWobEnv, script: str) -> None:
    """Change the page behind the environment's back."""
    assert env._page is not None
    await env._page._page.evaluate(script)


async def eventually(condition: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not within a minute: {what}")


def text_of(result: StepResult) -> str:
    assert isinstance(result.observation, Observation)
    return result.observation.text


async def test_a_crashed_page_is_a_fault_and_is_replaced(world: MiniWobWorld) -> None:
    env, neighbour = await started(world), await started(world)
    broken = env._page
    assert broken is not None
    with contextlib.suppress(Exception):  # the navigation itself fails: the renderer is gone
        await broken._page.goto("chrome://crash")
    with pytest.raises(EnvironmentFault, match=r"crashed|failed"):
        await env.step("click 1")
    assert len(world.pool.faults) == 1
    await env.reset(world.task("click-test-2", "train"), SEED)
    assert env._page is not broken
    assert (await env.step("click 1")).success is True
    assert (await neighbour.step("click 1")).success is True, "the neighbour's page lives on"


async def test_a_page_that_hangs_on_an_action_costs_its_episode_and_stops_burning_time(world: MiniWobWorld) -> None:
    env = await started(world)
    await inject(env, "() => { document.getElementById('subbtn').onclick = () => { for (;;); }; }")
    result = await env.step("click 1")
    assert result.terminated and result.success is False and text_of(result) == "The page stopped answering."
    assert world.pool.faults == [], "what the policy's own action set going is no fault"
    assert (await env.reset(world.task("click-test-2", "train"), SEED)).text == "1 button ONE\n2 button TWO"
    assert (await env.step("click 1")).success is True
    await eventually(
        lambda: [browser.pages for browser in world.pool._browsers if not browser.retired] == [1],
        "the hung page is gone",
    )


async def test_a_silent_browser_is_a_fault(world: MiniWobWorld) -> None:
    env = await started(world)
    [browser] = world.pool._browsers
    pids = marked_processes(browser.mark, ONE)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EnvironmentFault, match="did not answer within 6 s") as caught:
        await env.step("click 1")
    assert not isinstance(caught.value, PageHung)
    assert len(world.pool.faults) == 1


async def test_a_cancelled_step_gives_no_half_used_page_back(world: MiniWobWorld) -> None:
    env = await started(world)
    page = env._page
    await inject(env, "() => { document.getElementById('subbtn').onclick = () => { for (;;); }; }")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(env.step("click 1"), 0.5)
    await env.close()
    assert page not in world.pool._idle and len(world.pool.faults) == 1
    assert (await (await started(world)).step("click 1")).success is True


async def test_a_failing_browser_is_replaced(world: MiniWobWorld) -> None:
    env = await started(world)
    assert world.pool._watchdog is not None
    for pid in marked_processes(world.pool._watchdog.mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFault):
        await env.step("click 1")
    assert (await (await started(world)).step("click 1")).success is True


async def test_a_browser_that_does_not_close_is_killed(world: MiniWobWorld) -> None:
    await started(world)
    [browser] = world.pool._browsers
    pids = marked_processes(browser.mark, ONE)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await browser.close()
    for _ in range(100):
        if not (left := [pid for pid in pids if is_running(pid)]):
            break
        await asyncio.sleep(0.1)
    assert not left


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


async def test_dialogs_are_dismissed_and_reported(world: MiniWobWorld) -> None:
    env = await started(world)
    await inject(
        env,
        "() => { document.getElementById('subbtn2').onmousedown = "
        "() => { alert('Hello   there'); window.answers = [confirm('Sure?'), prompt('Name?')]; }; }",
    )
    result = await env.step("click 2")
    assert text_of(result).splitlines()[:3] == [
        "Dialog: alert 'Hello there' was dismissed",
        "Dialog: confirm 'Sure?' was dismissed",
        "Dialog: prompt 'Name?' was dismissed",
    ]
    assert env._page is not None
    assert await env._page._page.evaluate("() => window.answers") == [False, None]


async def test_foreign_requests_are_blocked_and_counted(world: MiniWobWorld) -> None:
    env = await started(world)
    page = env._page
    assert page is not None
    fetched = await page._page.evaluate("() => fetch('http://127.0.0.1:9/x').then(() => 'came', () => 'blocked')")
    assert fetched == "blocked" and page.requests_blocked == 1
    image = "() => new Promise(done => { const i = new Image(); i.onload = () => done('came'); "
    image += "i.onerror = () => done('blocked'); i.src = 'file:///usr/share/pixmaps/debian-logo.png'; })"
    assert await page._page.evaluate(image) == "blocked" and page.requests_blocked == 2, "files elsewhere are foreign"
    await env.close()
    assert world.pool.requests_blocked == 2


async def test_links_forms_and_popups_stay_on_the_page_and_are_counted(world: MiniWobWorld) -> None:
    env = await started(world)
    page = env._page
    assert page is not None
    await inject(
        env,
        """() => { document.getElementById('area').innerHTML = `<a href="http://example.org/">away</a>
        <a href="http://example.org/" target="_blank">popup</a><form action="http://example.org/"><button>send</button>
        </form><div onclick="window.open('http://example.org')">open</div>`; }""",
    )
    shown = text_of(await env.step("noop")).splitlines()
    assert [line.split(" ", 1)[1] for line in shown] == ["link away", "link popup", "button send", "text open"]
    for number in (line.split()[0] for line in shown):
        result = await env.step(f"click {number}")
        assert not result.terminated and text_of(result).splitlines() == shown
    assert page.requests_blocked == 4
    assert len(page._context.pages) == 1


@pytest.mark.parametrize("wait_s", [0.0, 0.004, 0.012, 0.03, 0.5])
async def test_a_page_that_leaves_ends_its_episode_as_a_failure(world: MiniWobWorld, wait_s: float) -> None:
    env = await started(world)
    await inject(env, "() => { location.reload(); }")
    await asyncio.sleep(wait_s)  # on its way, half there, or there
    result = await env.step("click 2")  # a failure on the old page too, should it still be there
    assert result.terminated and result.success is False and result.rewards == {"env": 0.0}
    assert (await env.reset(world.task("click-test-2", "train"), SEED)).text == "1 button ONE\n2 button TWO"
    assert world.pool.faults == [], "the policy's own doing is no fault"


async def test_a_page_that_has_no_body_yet_has_left_its_episode(world: MiniWobWorld) -> None:
    env = await started(world)
    assert env._page is not None
    await env._page._page.reload()
    await inject(env, "() => document.body.remove()")
    result = await env.step("click 1")
    assert result.notes["error"] == "page left" and result.success is False and world.pool.faults == []


async def test_a_10_000_character_action_is_refused_and_a_long_text_is_typed(world: MiniWobWorld) -> None:
    env = await started(world)
    result = await env.step("fill 1 " + "x" * 10_000)
    assert "10007 characters" in text_of(result) and len(text_of(result)) < 300 and not result.terminated
    assert (await env.step("click 1")).success is True


@pytest.mark.parametrize("letter", ["y", "é", "語"])
async def test_a_text_of_the_longest_length_is_typed_in_time(letter: str) -> None:
    world = build(tasks=["enter-text"])
    try:
        env = world.make()
        await env.reset(world.task("enter-text", "train"), SEED)
        await env.step("click 1")
        text = "a" + letter * 1980 + "z"
        result = await env.step(f"keyboard_type {text}")
        assert f"1 textbox = {text} (focused)" in text_of(result) and world.pool.faults == []
    finally:
        await world.close()


async def test_a_button_that_stays_pressed_is_let_go_for_the_next_episode() -> None:
    world = build(tasks=["click-test-2"], draw=True)
    try:
        env = world.make()
        await env.reset(world.task("click-test-2", "train"), SEED)
        await env.step("mouse_down 5 5")
        await env.reset(world.task("click-test-2", "train"), SEED)
        await inject(env, "() => onmousemove = (event) => { window.held = event.buttons; }")
        await env.step("mouse_move 30 30")
        assert env._page is not None and await env._page._page.evaluate("() => window.held") == 0
    finally:
        await world.close()


async def test_pages_are_reused_and_browsers_recycled() -> None:
    world = build(tasks=["click-test-2"], episodes_per_browser=3)
    try:
        pages, browsers = set(), set()
        for _ in range(7):
            env = await started(world)
            assert env._page is not None
            pages.add(env._page.number)
            browsers.add(env._page.browser)
            assert (await env.step("click 1")).success is True
            await env.close()
        assert len(pages) == 3 and len(browsers) == 3, "three episodes each, in one page of each browser"
    finally:
        await world.close()
    with pytest.raises(EnvironmentFault, match="closed"):
        await started(world)


async def test_a_browser_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLWRIGHT_CHROMIUM", "/no/such/browser")
    world = build(tasks=["click-test-2"])
    with pytest.raises(MissingDependency, match="ROLLWRIGHT_CHROMIUM"):
        await started(world)
    await world.close()


_VICTIM = """
import asyncio
from rollwright.contracts.environment import episode_seed
from rollwright.envs.web.miniwob import build

async def main():
    world = build(tasks=["click-test-2"])
    await world.make().reset(world.task("click-test-2", "train"), episode_seed("train", 1))
    print(world.pool._watchdog.mark, world.pool._watchdog.artifacts, flush=True)
    await asyncio.sleep(120)

asyncio.run(main())
"""


@pytest.mark.parametrize("driver_hangs", [False, True], ids=["plain", "driver-hangs"])
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_a_kill_9_leaves_nothing_behind(driver_hangs: bool) -> None:
    tag = f"RW_TEST_VICTIM={os.getpid()}-{driver_hangs}"
    name, value = tag.split("=")
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM], stdout=subprocess.PIPE, text=True, env={**os.environ, name: value}
    )
    assert victim.stdout is not None
    mark, artifacts = victim.stdout.readline().split()
    assert marked_processes(mark), "the browser runs"
    started_by_it = tagged(tag)
    if driver_hangs:
        os.kill(next(pid for pid in started_by_it if b"run-driver" in command(pid)), signal.SIGSTOP)
    victim.kill()
    victim.wait(30)
    deadline = time.monotonic() + 60
    while (tagged(tag) or Path(artifacts).exists()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(started_by_it) >= 4
    assert tagged(tag) == [] and marked_processes(mark) == []
    assert not Path(artifacts).exists()


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def tagged(tag: str) -> list[int]:
    """All living processes that inherited the tag in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if tag.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
