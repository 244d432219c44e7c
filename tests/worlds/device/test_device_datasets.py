"""AITW and AndroidControl: the published rules, by numbers worked out by hand; both directions of the converters."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollwright.contracts.errors import DataError
from rollwright.envs.device.datasets import (
    AitwAction,
    AitwType,
    ControlStep,
    aitw_from_record,
    aitw_match,
    aitw_step,
    aitw_to_device,
    control_episode,
    control_match,
    control_step,
    device_to_aitw,
    enlarge,
    score_steps,
)
from rollwright.envs.device.phone_actions import ActionError, DeviceAction

SIZE = (1080, 2400)
unit = st.floats(0, 1, allow_nan=False)
actions = st.builds(
    AitwAction,
    type=st.sampled_from(AitwType),
    touch=st.tuples(unit, unit),
    lift=st.tuples(unit, unit),
    text=st.sampled_from(["", "abc", "xyz"]),
)
boxes = st.lists(st.tuples(unit, unit, unit, unit), max_size=4)


def tap(y: float, x: float) -> AitwAction:
    return AitwAction(type=AitwType.DUAL_POINT, touch=(y, x), lift=(y, x))


def drag(touch: tuple[float, float], lift: tuple[float, float]) -> AitwAction:
    return AitwAction(type=AitwType.DUAL_POINT, touch=touch, lift=lift)


def test_a_short_gesture_is_a_tap() -> None:
    assert drag((0.5, 0.5), (0.53, 0.52)).is_tap  # sqrt(0.0009 + 0.0004) = 0.0361
    assert drag((0.5, 0.5), (0.5, 0.55)).is_drag


def test_boxes_are_enlarged_as_published() -> None:
    # height 0.05 * 2.4 = 0.12 from 0.40 - 0.035; width 0.2 * 2.4 = 0.48 from max(0, 0.10 - 0.14)
    assert enlarge((0.40, 0.10, 0.05, 0.20)) == pytest.approx((0.365, 0.0, 0.485, 0.48))


def test_taps_match_in_one_box_or_near_each_other() -> None:
    box = [(0.40, 0.10, 0.05, 0.20)]
    far = (tap(0.37, 0.05), tap(0.48, 0.47))
    assert math.dist(far[0].touch, far[1].touch) == pytest.approx(0.434, abs=1e-3)
    assert aitw_match(*far, box) and not aitw_match(*far)
    assert aitw_match(tap(0.38, 0.6), tap(0.50, 0.6)) and not aitw_match(tap(0.38, 0.6), tap(0.53, 0.6))


def test_drags_match_by_axis_and_strictly_by_direction() -> None:
    up, down, left = drag((0.8, 0.5), (0.2, 0.5)), drag((0.2, 0.5), (0.8, 0.5)), drag((0.5, 0.8), (0.5, 0.2))
    assert aitw_match(up, down) and not aitw_match(up, left)
    assert not aitw_match(up, down, strict=True) and aitw_match(up, up, strict=True)
    assert drag((0.1, 0.1), (0.4, 0.4)).drag_axis == "y", "a tie counts as y"
    assert not aitw_match(up, tap(0.8, 0.5))


def test_types_match_and_texts_only_strictly() -> None:
    abc, xyz = (AitwAction(type=AitwType.TYPE, text=text) for text in ("abc", "xyz"))
    assert aitw_match(abc, xyz) and not aitw_match(abc, xyz, strict=True)
    assert aitw_match(abc, AitwAction(type=AitwType.TYPE, text=" ABC "), strict=True)
    assert not aitw_match(AitwAction(type=AitwType.PRESS_BACK), AitwAction(type=AitwType.PRESS_HOME))
    assert not aitw_match(tap(0.5, 0.5), abc)


@given(one=actions, other=actions, found=boxes, strict=st.booleans())
def test_matching_is_symmetric_and_strict_is_stricter(
    one: AitwAction, other: AitwAction, found: list, strict: bool
) -> None:
    assert aitw_match(one, other, found, strict=strict) == aitw_match(other, one, found, strict=strict)
    assert aitw_match(one, one, found, strict=strict)
    assert not aitw_match(one, other, found, strict=True) or aitw_match(one, other, found)


def test_scores_by_hand() -> None:
    right, wrong = (True, True, None), (False, False, None)
    score = score_steps([[right] * 3 + [wrong], [right] + [wrong] * 5])
    assert score.matched_frac == 0.4 and score.episode_mean_frac == pytest.approx(0.4583, abs=1e-4)
    assert score.complete_frac == 0 and (score.num_steps, score.num_episodes) == (10, 2) and score.text_frac is None
    with pytest.raises(DataError):
        score_steps([[right], []])


def test_a_step_that_could_not_be_read_is_wrong() -> None:
    typed = AitwAction(type=AitwType.TYPE, text="hello world")
    assert aitw_step(None, typed) == (False, False, False)
    assert aitw_step(AitwAction(type=AitwType.TYPE, text="world"), typed) == (True, True, True)
    assert aitw_step(AitwAction(type=AitwType.TYPE, text=""), typed) == (True, True, False)
    assert aitw_step(tap(0.1, 0.1), drag((0.1, 0.1), (0.5, 0.1))) == (False, False, None)


def test_records_of_aitw() -> None:
    record = {
        "results/action_type": [4],
        "results/yx_touch": [0.2, 0.3],
        "results/yx_lift": [0.2, 0.3],
        "results/type_action": [b""],
        "image/ui_annotations_positions": [0.1, 0.2, 0.05, 0.1, 0.5, 0.5, 0.1, 0.1],
    }
    action, found = aitw_from_record(record)
    assert action == tap(0.2, 0.3) and found[1] == (0.5, 0.5, 0.1, 0.1)
    for broken in ({}, {**record, "results/action_type": [99]}, {**record, "image/ui_annotations_positions": [1.0]}):
        with pytest.raises(DataError):
            aitw_from_record(broken)


def test_conversion_there_and_back() -> None:
    assert aitw_to_device(tap(0.25, 0.5), SIZE) == DeviceAction(action_type="click", x=540, y=600)
    assert aitw_to_device(tap(1.0, 1.0), SIZE).x == 1079, "a point on the edge stays on the display"
    assert aitw_to_device(drag((0.8, 0.5), (0.2, 0.5)), SIZE).direction == "up"
    scroll = device_to_aitw(DeviceAction(action_type="scroll", direction="down"), SIZE)
    assert scroll.drag_direction == "up", "to see what lies below, the finger moves up"
    for action in (tap(0.25, 0.5), drag((0.5, 0.8), (0.5, 0.2)), AitwAction(type=AitwType.TYPE, text="a")):
        assert aitw_match(device_to_aitw(aitw_to_device(action, SIZE), SIZE), action, strict=True)
    for kind in AitwType:
        if kind is not AitwType.DUAL_POINT:
            assert device_to_aitw(aitw_to_device(AitwAction(type=kind, text="t"), SIZE), SIZE).type == kind
    for name in ("wait", "open_app"):
        with pytest.raises(ActionError, match="AITW"):
            device_to_aitw(DeviceAction(action_type=name, app_name="x"), SIZE)  # type: ignore[arg-type]


def episode() -> dict:
    return {
        "goal": "Open the mail",
        "actions": [
            json.dumps({"action_type": "open_app", "app_name": "Mail"}),
            {"action_type": "click", "x": 50, "y": 60},
        ],
        "step_instructions": ["open Mail", "tap the first"],
        "screenshot_widths": [1080, 1080, 1080],
        "screenshot_heights": [2400, 2400, 2400],
        "boxes": [[], [(0, 0, 1080, 2400), (0, 0, 100, 100)]],
    }


def test_androidcontrol_steps_and_their_match() -> None:
    steps = control_episode(episode())
    assert [step.instruction for step in steps] == ["open Mail", "tap the first"] and steps[0].goal == "Open the mail"
    assert control_match(DeviceAction(action_type="open_app", app_name=" mail"), steps[0])
    assert not control_match(DeviceAction(action_type="open_app", app_name="Maps"), steps[0])
    inside, outside = (DeviceAction(action_type="click", x=x, y=99) for x in (99, 101))
    assert control_match(inside, steps[1]) and not control_match(outside, steps[1]), "the smallest element counts"
    assert not control_match(DeviceAction(action_type="long_press", x=50, y=60), steps[1])
    assert not control_match(None, steps[1]) and control_step(None, steps[1]) == (False, False, None)


def test_androidcontrol_without_elements_counts_distance() -> None:
    click = DeviceAction(action_type="click", x=540, y=1200)
    step = ControlStep(action=click, goal="", instruction="", size=SIZE)
    assert control_match(DeviceAction(action_type="click", x=540, y=1200 + 330), step)  # 330 / 2400 = 0.1375
    assert not control_match(DeviceAction(action_type="click", x=540, y=1200 + 340), step)  # 0.1417
    assert not control_match(DeviceAction(action_type="click", index=3), step)


@pytest.mark.parametrize("change", [{"actions": ["{"]}, {"step_instructions": ["one"]}, {"goal": ...}])
def test_broken_androidcontrol_episodes_are_named(change: dict) -> None:
    record = {**episode(), **change}
    if change.get("goal") is ...:
        del record["goal"]
    with pytest.raises(DataError, match="AndroidControl"):
        control_episode(record)
