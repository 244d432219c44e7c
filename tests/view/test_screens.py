"""A picture that a world takes is seen in the stored turn, by `rollwright show` and, in Chromium, in the report."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.cli import main
from rollwright.contracts import Message, Observation, Trajectory, World, picture_type, tasks_of, world_mark
from rollwright.envs.device import phone
from rollwright.envs.web import miniwob
from rollwright.envs.web.chromium.processes import find_browser
from rollwright.generation import Generation, Sampling
from rollwright.rollout import Collector, FaultLog, Limits, TeacherActor
from rollwright.store import TrajectoryStore
from rollwright.view import write_report

pytestmark = pytest.mark.browser


class Letters:
    """A context whose token ids are the bytes of the text."""

    def observe(self, observation: Observation) -> tuple[Message, ...]:
        return (Message(role="user", content=observation.text),)

    def prompt_ids(self, reserve: int) -> tuple[int, ...]:
        return (1,)

    def act(self, generation: Generation) -> str:
        return bytes(generation.token_ids).decode()


def demonstrate(world: World, task: str, run: Path) -> Trajectory:
    """One episode of the world's teacher, stored as a run stores it, and read back."""
    collector = Collector(
        world,
        TeacherActor(world, lambda text: tuple(text.encode())),
        Letters,
        sampling=Sampling(),
        limits=Limits(max_turns=4),
        faults=FaultLog(run / "faults.jsonl"),
        mark=world_mark(world),
    )
    try:
        [chosen] = [t for t in tasks_of(world, "train") if t.id == task]
        played = collector.play([collector.request("e", chosen, 5)])
    finally:
        collector.close()
    TrajectoryStore(run / "trajectories").append(played)
    assert played[0].fault == ""
    [stored] = TrajectoryStore(run / "trajectories", mode="read").iter_trajectories()
    return stored


def seen_in_browser(page: Path, num_turns: int) -> Sequence[tuple[int, int]]:
    """[pictures] width and height in pixels of each picture that a browser shows of the first episode of a report."""

    async def look() -> list[Any]:
        from playwright.async_api import async_playwright

        shown: list[Any] = []
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
            tab = await browser.new_page(bypass_csp=False)
            for turn in range(num_turns):
                await tab.goto(f"{page.as_uri()}#/episode?run={page.parent.name}&key=0.0&turn={turn}")
                await tab.reload()  # another turn is the same document
                await tab.wait_for_selector("main img", state="visible")
                await tab.wait_for_function("() => [...document.images].every(image => image.complete)")
                shown += await tab.evaluate("() => Array.from(document.images, i => [i.naturalWidth, i.naturalHeight])")
            await browser.close()
        return shown

    return [tuple(size) for size in asyncio.run(look())]


@pytest.mark.parametrize(("name", "size"), [("phone", (540, 1200)), ("web page", None)], ids=["phone", "web page"])
def test_a_screenshot_reaches_the_stored_turn_and_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, size: tuple[int, int] | None
) -> None:
    if name == "phone":
        world: World = phone.build(screenshots=True)
        task = tasks_of(world, "train")[0].id
    else:
        world, task = miniwob.build(tasks=["click-button-sequence"], screenshots=True), "click-button-sequence"
    run = tmp_path / "run"
    stored = demonstrate(world, task, run)
    assert stored.turns and stored.world is not None and stored.world.name == world.name
    for turn in stored.turns:
        [picture] = turn.attachments
        path = Path(str(picture.path))
        content = path.read_bytes()
        assert path.parent == run / "trajectories" / "attachments" and picture.content is None
        assert hashlib.sha256(content).hexdigest() == picture.sha256 and picture_type(content) == "image/png"
    moved = shutil.move(run, tmp_path / "moved")  # the store names its pictures by their place in it
    shown = seen_in_browser(write_report(moved), len(stored.turns))
    assert len(shown) == len(stored.turns) and all(width > 100 and height > 100 for width, height in shown)
    assert size is None or set(shown) == {size}
    assert main(["show", str(moved)]) == 0
    assert capsys.readouterr().out.count(f"picture: {moved}/trajectories/attachments/") == len(stored.turns)
