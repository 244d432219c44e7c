"""Steps of AITW and AndroidControl: read, converted to the phone's actions, and scored by the published rules.

Scores of these data sets compare with a recorded step; they punish other ways that lead to the goal as well. They are
not success rates: never put both into one table.

Coordinates of AITW are normalised and stand as (y, x), y first. Boxes are (top, left, height, width), also normalised.

Sources: AITW, arXiv:2307.10088 (actions, matching); AndroidControl, arXiv:2406.03679 (actions, step accuracy).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from rollwright.contracts import DataError

from .phone_actions import ActionError, DeviceAction, Direction, from_json

Point = tuple[float, float]
Box = tuple[float, float, float, float]
TAP_DISTANCE, TARGET_DISTANCE, BOX_GROWTH = 0.04, 0.14, 1.4
"""A longer gesture is a drag; two taps this near are the same; how much a box is enlarged before it counts."""


class AitwType(IntEnum):
    """The action types of AITW, by their numbers in the data."""

    TYPE = 3
    DUAL_POINT = 4
    PRESS_BACK = 5
    PRESS_HOME = 6
    PRESS_ENTER = 7
    STATUS_TASK_COMPLETE = 10
    STATUS_TASK_IMPOSSIBLE = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class AitwAction:
    """One action. `touch` and `lift` are the gesture's first and last point, for DUAL_POINT alone."""

    type: AitwType
    touch: Point = (-1.0, -1.0)
    lift: Point = (-1.0, -1.0)
    text: str = ""

    @property
    def is_tap(self) -> bool:
        """Whether the finger was lifted near where it touched."""
        return self.type == AitwType.DUAL_POINT and math.dist(self.touch, self.lift) <= TAP_DISTANCE

    @property
    def is_drag(self) -> bool:
        """Whether the finger moved over the display."""
        return self.type == AitwType.DUAL_POINT and not self.is_tap

    @property
    def drag_axis(self) -> Literal["y", "x"]:
        """The axis along which the finger moves more; y where it is as much."""
        return "y" if abs(self.lift[0] - self.touch[0]) >= abs(self.lift[1] - self.touch[1]) else "x"

    @property
    def drag_direction(self) -> Direction:
        """Where the finger moves."""
        if self.drag_axis == "y":
            return "down" if self.lift[0] > self.touch[0] else "up"
        return "right" if self.lift[1] > self.touch[1] else "left"


def enlarge(box: Box) -> tuple[float, float, float, float]:
    """Top, left, bottom, right of the box grown as the benchmark does it.

    A box that is clipped at the display's top or left is moved and not shortened, so it then reaches further down or
    right than a symmetric growth would.
    """
    top, left, height, width = box
    grown_height, grown_width = min(1.0, (1 + BOX_GROWTH) * height), min(1.0, (1 + BOX_GROWTH) * width)
    top, left = max(0.0, top - BOX_GROWTH / 2 * height), max(0.0, left - BOX_GROWTH / 2 * width)
    return top, left, top + grown_height, left + grown_width


def aitw_match(one: AitwAction, other: AitwAction, boxes: Sequence[Box] = (), *, strict: bool = False) -> bool:
    """Whether two actions are the same by the benchmark's rules. Symmetric.

    Args:
        boxes: the elements of the screen; two taps in one (enlarged) box match wherever they are.
        strict: typed text has to agree too (case and outer blanks aside), and drags in their direction; the benchmark
            compares neither.
    """
    if one.type != other.type:
        return False
    if one.type != AitwType.DUAL_POINT:
        return not strict or one.type != AitwType.TYPE or _same_text(one.text, other.text)
    if one.is_tap != other.is_tap:
        return False
    if one.is_drag:
        return one.drag_direction == other.drag_direction if strict else one.drag_axis == other.drag_axis
    near = math.dist(one.touch, other.touch) <= TARGET_DISTANCE
    return near or any(_holds(box, one.touch) and _holds(box, other.touch) for box in map(enlarge, boxes))


def _holds(sides: tuple[float, float, float, float], point: Point) -> bool:
    top, left, bottom, right = sides
    return top <= point[0] <= bottom and left <= point[1] <= right


def _same_text(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def aitw_from_record(record: Mapping[str, Any]) -> tuple[AitwAction, tuple[Box, ...]]:
    """The action and the boxes of one record of the published data (its feature names, values as lists or scalars).

    Raises:
        DataError: a feature is missing or is not what it should be.
    """
    try:
        kind = AitwType(int(_scalar(record["results/action_type"])))
        touch, lift = (_pair(record[f"results/yx_{name}"]) for name in ("touch", "lift"))
        text = _scalar(record.get("results/type_action", ""))
        flat = [float(v) for v in record.get("image/ui_annotations_positions", ())]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"this is no AITW record: {type(error).__name__}: {error}") from error
    if len(flat) % 4:
        raise DataError(f"the boxes of an AITW record come in fours, got {len(flat)} numbers")
    boxes = tuple((flat[i], flat[i + 1], flat[i + 2], flat[i + 3]) for i in range(0, len(flat), 4))
    words = text.decode() if isinstance(text, bytes) else str(text)
    return AitwAction(type=kind, touch=touch, lift=lift, text=words), boxes


def _scalar(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) else value


def _pair(value: Any) -> Point:
    y, x = value
    return float(y), float(x)


def aitw_to_device(action: AitwAction, size: tuple[int, int]) -> DeviceAction:
    """The phone's action; `size` is the display in pixels, width first. A drag becomes a swipe along its axis."""
    width, height = size
    match action.type:
        case AitwType.DUAL_POINT if action.is_tap:
            y, x = action.touch
            return DeviceAction(action_type="click", x=_pixel(x, width), y=_pixel(y, height))
        case AitwType.DUAL_POINT:
            return DeviceAction(action_type="swipe", direction=action.drag_direction)
        case AitwType.TYPE:
            return DeviceAction(action_type="input_text", text=action.text)
        case AitwType.PRESS_BACK:
            return DeviceAction(action_type="navigate_back")
        case AitwType.PRESS_HOME:
            return DeviceAction(action_type="navigate_home")
        case AitwType.PRESS_ENTER:
            return DeviceAction(action_type="keyboard_enter")
        case AitwType.STATUS_TASK_COMPLETE:
            return DeviceAction(action_type="status", goal_status="complete")
        case AitwType.STATUS_TASK_IMPOSSIBLE:
            return DeviceAction(action_type="status", goal_status="infeasible")


def _pixel(share: float, pixels: int) -> int:
    return min(max(int(share * pixels), 0), pixels - 1)


_PLAIN_TYPES = {
    "navigate_back": AitwType.PRESS_BACK,
    "navigate_home": AitwType.PRESS_HOME,
    "keyboard_enter": AitwType.PRESS_ENTER,
}
_DRAGS: dict[Direction, tuple[Point, Point]] = {
    "up": ((0.8, 0.5), (0.2, 0.5)),
    "down": ((0.2, 0.5), (0.8, 0.5)),
    "left": ((0.5, 0.8), (0.5, 0.2)),
    "right": ((0.5, 0.2), (0.5, 0.8)),
}
_OPPOSITE: dict[Direction, Direction] = {"up": "down", "down": "up", "left": "right", "right": "left"}


def device_to_aitw(action: DeviceAction, size: tuple[int, int]) -> AitwAction:
    """AITW's form of a phone's action. A scroll shows what lies in a direction, so the finger moves the other way.

    Raises:
        ActionError: AITW has no such action (an element's number, opening an app by name, waiting, answering).
    """
    width, height = size
    if action.action_type in _PLAIN_TYPES:
        return AitwAction(type=_PLAIN_TYPES[action.action_type])
    if action.action_type in ("swipe", "scroll"):
        way = action.direction if action.action_type == "swipe" else _OPPOSITE[action.direction]
        touch, lift = _DRAGS[way]
        return AitwAction(type=AitwType.DUAL_POINT, touch=touch, lift=lift)
    if action.action_type == "click" and action.x is not None and action.y is not None:
        point = (action.y / height, action.x / width)
        return AitwAction(type=AitwType.DUAL_POINT, touch=point, lift=point)
    if action.action_type == "input_text":
        return AitwAction(type=AitwType.TYPE, text=action.text)
    if action.action_type == "status":
        complete = action.goal_status == "complete"
        return AitwAction(type=AitwType.STATUS_TASK_COMPLETE if complete else AitwType.STATUS_TASK_IMPOSSIBLE)
    raise ActionError(f"AITW has no form of {action.as_json()}; point with x and y")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScore:
    """Scores of a test split. `matched_frac` (matched steps / all steps) is what publications report.

    `episode_mean_frac` is the mean over episodes of each one's share, `complete_frac` the share of episodes without a
    wrong step. `type_frac`: right type of action. `text_frac`: typed text right, of the steps that type; None without.
    """

    num_steps: int
    num_episodes: int
    matched_frac: float
    episode_mean_frac: float
    complete_frac: float
    type_frac: float
    text_frac: float | None


def score_steps(episodes: Sequence[Sequence[tuple[bool, bool, bool | None]]]) -> StepScore:
    """Gather steps into scores.

    Args:
        episodes: per step whether it matched, whether its type is right, and whether its text is (None: nothing typed).

    Raises:
        DataError: there is no step, or an episode without one.
    """
    if not episodes or not all(episodes):
        raise DataError("a score needs at least one episode, and at least one step in each")
    steps = [step for episode in episodes for step in episode]
    shares = [sum(matched for matched, _, _ in episode) / len(episode) for episode in episodes]
    typed = [right for _, _, right in steps if right is not None]
    return StepScore(
        num_steps=len(steps),
        num_episodes=len(episodes),
        matched_frac=sum(matched for matched, _, _ in steps) / len(steps),
        episode_mean_frac=sum(shares) / len(shares),
        complete_frac=sum(share == 1 for share in shares) / len(shares),
        type_frac=sum(right for _, right, _ in steps) / len(steps),
        text_frac=sum(typed) / len(typed) if typed else None,
    )


def aitw_step(
    predicted: AitwAction | None, recorded: AitwAction, boxes: Sequence[Box] = (), *, strict: bool = False
) -> tuple[bool, bool, bool | None]:
    """One step for `score_steps`. None, an answer that could not be read, is wrong. Texts agree by part, either way."""
    text: bool | None = None
    if recorded.type == AitwType.TYPE:
        a, b = (recorded.text.strip().casefold(), (predicted.text if predicted else "").strip().casefold())
        text = bool(predicted and b) and (a in b or b in a)
    if predicted is None:
        return False, False, text
    kind = predicted.type == recorded.type and predicted.is_tap == recorded.is_tap
    return aitw_match(predicted, recorded, boxes, strict=strict), kind, text


# AndroidControl


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlStep:
    """One recorded step: the action, the episode's goal and the step's own instruction, and the screen's elements.

    `boxes`: left, top, right, bottom in pixels of the elements of the screen; `size`: the display, width first.
    """

    action: DeviceAction
    goal: str
    instruction: str
    size: tuple[int, int]
    boxes: tuple[tuple[int, int, int, int], ...] = ()


_CONTROL_ACTIONS = frozenset(
    ["click", "long_press", "scroll", "input_text", "open_app", "navigate_home", "navigate_back", "wait"]
)


def control_episode(record: Mapping[str, Any]) -> list[ControlStep]:
    """The steps of an episode of AndroidControl.

    Args:
        record: `goal`, `actions` (JSON texts or maps), `step_instructions`, `screenshot_widths`, `screenshot_heights`,
            and, where they were read from the accessibility trees, `boxes` per step.

    Raises:
        DataError: a field is missing, an action cannot be read, or the lists are of unequal length.
    """
    try:
        actions, said = list(record["actions"]), list(record["step_instructions"])
        sizes = list(zip(record["screenshot_widths"], record["screenshot_heights"], strict=True))
        boxes = record.get("boxes") or [()] * len(actions)
        # A last picture shows the end of the episode; no action belongs to it.
        rows = list(zip(actions, said, sizes[: len(actions)], boxes, strict=True))
        return [
            ControlStep(
                action=control_action(action),
                goal=str(record["goal"]),
                instruction=str(text),
                size=(int(size[0]), int(size[1])),
                boxes=tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in found),
            )
            for action, text, size, found in rows
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"this is no AndroidControl episode: {type(error).__name__}: {error}") from error


def control_action(action: str | Mapping[str, Any]) -> DeviceAction:
    """One action of AndroidControl. Raises ActionError."""

    read = from_json(action if isinstance(action, str) else json.dumps(dict(action)))
    if read.action_type not in _CONTROL_ACTIONS:
        raise ActionError(f"AndroidControl has no action {read.action_type}")
    return read


def control_match(predicted: DeviceAction | None, step: ControlStep) -> bool:
    """Whether a predicted action counts as the recorded one.

    The types must agree; a touch must lie in the smallest element that holds the recorded point (without elements:
    within 0.14 of the display); direction, text and app must agree, case and outer blanks aside. None, an answer that
    could not be read, is wrong.
    """
    wanted = step.action
    if predicted is None or predicted.action_type != wanted.action_type:
        return False
    match wanted.action_type:
        case "click" | "long_press":
            return _same_target(predicted, step)
        case "scroll":
            return predicted.direction == wanted.direction
        case "input_text":
            return _same_text(predicted.text, wanted.text)
        case "open_app":
            return _same_text(predicted.app_name, wanted.app_name)
    return True


def _same_target(predicted: DeviceAction, step: ControlStep) -> bool:
    points = [(action.x, action.y) for action in (predicted, step.action)]
    if any(x is None or y is None for x, y in points):
        return False
    (x, y), (wanted_x, wanted_y) = [(float(x or 0), float(y or 0)) for x, y in points]
    holding = [box for box in step.boxes if _within(box, wanted_x, wanted_y)]
    if holding:
        return _within(min(holding, key=lambda box: (box[2] - box[0]) * (box[3] - box[1])), x, y)
    width, height = step.size
    return math.hypot((x - wanted_x) / width, (y - wanted_y) / height) <= TARGET_DISTANCE


def _within(box: tuple[int, int, int, int], x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def control_step(predicted: DeviceAction | None, step: ControlStep) -> tuple[bool, bool, bool | None]:
    """One step for `score_steps`."""
    right = predicted is not None and predicted.action_type == step.action.action_type
    typed = step.action.action_type == "input_text"
    matched = control_match(predicted, step)
    return matched, right, matched if typed else None
