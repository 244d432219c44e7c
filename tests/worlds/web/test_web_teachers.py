"""Scripts of MiniWoB++ on pages that their training seeds do not show."""

from __future__ import annotations

import pytest

from rollwright.envs.web.miniwob_tasks.scripts import SCRIPTS
from rollwright.envs.web.miniwob_tasks.splits import ONE_CLICK, TASK_SETS
from rollwright.envs.web.scene import Scene, read_lines


@pytest.mark.parametrize(("wanted", "action"), [("ONE", "click 1"), ("TWO", "click 2")])
def test_the_button_of_the_goal_is_pressed_on_held_out_seeds_too(wanted: str, action: str):
    """The page asks for TWO on seeds of validation and test only; the audit found the teacher pressing ONE there."""
    text = "1 button ONE\n2 button TWO"
    scene = Scene(goal=f"Click button {wanted}.", text=text, lines=read_lines(text), turn=0, notes={})
    assert SCRIPTS["click-test-transfer"](scene) == action


def test_pages_of_one_click_are_tasks_that_exist():
    assert {name for names in TASK_SETS.values() for name in names} >= ONE_CLICK
