"""Episodes of AITW and AndroidControl as logs to learn from, for `rollwright import`.

The rows are the published records: TFRecord files, or JSON or Parquet with the same feature names. A screen is told by
its annotations (AITW); AndroidControl's trees are protocol buffers of a schema of their own, so its steps are told by
the step's instruction, and by `screens` (texts) where somebody has rendered them. Pictures are not read.

Actions are AndroidWorld's JSON, as `device.phone` takes them.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from rollwright.contracts import DataError, Message, Task
from rollwright.store.importers import (
    Format,
    LoggedEpisode,
    LogRow,
    RowError,
    Step,
    Values,
    listed,
    split_of,
    whole_number,
    whole_text,
)

from .datasets import AitwType, aitw_from_record, aitw_to_device, control_episode
from .phone_actions import ActionError, DeviceAction

_TEXTS, _KINDS = "image/ui_annotations_text", "image/ui_annotations_ui_types"


def _plain(value: Any) -> Any:
    """A scalar out of a list of one, bytes as text. Raises RowError."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return _text(value) if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError("a text that is not UTF-8", error) from error
    return whole_text(value, "a text")


def aitw_unit(values: Values) -> Hashable:
    """The episode of a step. Raises RowError."""
    found = _plain(values.get("episode_id"))
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise RowError("a step without `episode_id`", repr(found))
    return str(found)


def aitw_episodes(rows: Sequence[LogRow], name: str) -> list[LoggedEpisode]:
    """The episode of its steps. It succeeded where its last action says that the task is complete.

    Raises:
        RowError: a step is missing, out of order or malformed, or a screen has no annotations.
    """
    numbers = [whole_number(_plain(row.value.get("step_id")), "`step_id`") for row in rows]
    length = whole_number(_plain(rows[0].value.get("episode_length")), "`episode_length`")
    if numbers != list(range(length)):
        raise RowError("the steps of an episode do not run from 0 to episode_length - 1", f"{numbers[:20]} of {length}")
    goal = _text(_plain(rows[0].value.get("goal_info")))
    read = [_aitw_step(row.value) for row in rows]
    steps = [_step(goal if at == 0 else "", shown, action) for at, (shown, action) in enumerate(read)]
    last = read[-1][1]
    complete = last.action_type == "status" and last.goal_status == "complete"
    return [_episode(rows[0], name, goal, steps, success=True if complete else None)]


def _aitw_step(values: Values) -> tuple[str, DeviceAction]:
    width, height = (
        whole_number(_plain(values.get(f"image/{side}")), f"`image/{side}`") for side in ("width", "height")
    )
    if not width or not height:
        raise RowError("a screen without a size")
    typed = _text(_plain(values.get("results/type_action") or ""))
    try:
        action, boxes = aitw_from_record({**values, "results/type_action": typed})
    except DataError as error:
        raise RowError("a malformed action", error) from error
    if action.type == AitwType.DUAL_POINT and not all(0 <= share <= 1 for share in (*action.touch, *action.lift)):
        raise RowError("a touch outside the screen", f"{action.touch}, {action.lift}")
    if action.type == AitwType.TYPE and not action.text:
        raise RowError("a text that is typed and empty")
    texts, kinds = ([_text(part) for part in listed(values.get(key) or [""], f"`{key}`")] for key in (_TEXTS, _KINDS))
    if not boxes or not len(boxes) == len(texts) == len(kinds):
        raise RowError("a screen without annotations, or with unequal numbers of them")
    if not all(-1 <= share <= 2 for box in boxes for share in box):
        raise RowError("a box outside the screen", boxes[0])
    lines = [
        f"{kind or 'TEXT'} {text!r} at {round((left + w / 2) * width)} {round((top + h / 2) * height)}"
        for (top, left, h, w), text, kind in zip(boxes, texts, kinds, strict=True)
    ]
    return "\n".join(lines), aitw_to_device(action, (width, height))


def control_episodes(rows: Sequence[LogRow], name: str) -> list[LoggedEpisode]:
    """The episode of one record: goal, actions, and the instruction (and screen, where given) of each step.

    Raises:
        RowError: a field is missing, an action cannot be read, or the lists are of unequal length.
    """
    (row,) = rows
    record = _control_record(row.value)
    try:
        steps = control_episode(record)
    except (DataError, ActionError) as error:
        raise RowError("a malformed episode", error) from error
    screens = record.get("screens") or [""] * len(steps)
    if not steps or len(screens) not in (len(steps), len(steps) + 1):
        raise RowError("an episode without steps, or with another number of screens")
    goal = record["goal"]
    shown = [f"{screen}\nStep: {step.instruction}".strip() for step, screen in zip(steps, screens, strict=False)]
    read = [
        _step(goal if at == 0 else "", text, step.action)
        for at, (text, step) in enumerate(zip(shown, steps, strict=True))
    ]
    return [_episode(row, name, goal, read, success=None)]


def _control_record(values: Values) -> dict[str, Any]:
    record: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    record["goal"] = _text(_plain(values.get("goal")))
    record["actions"] = [
        action if isinstance(action, Mapping) else _text(action)
        for action in listed(values.get("actions"), "`actions`")
    ]
    said = listed(values.get("step_instructions"), "`step_instructions`")
    record["step_instructions"] = [_text(text) for text in said]
    if "screens" in record:
        record["screens"] = [_text(text) for text in listed(record["screens"], "`screens`")]
    return record


def _step(goal: str, shown: str, action: DeviceAction) -> Step:
    text = f"Task: {goal}\n{shown}" if goal else shown
    return Step(observed=(Message(role="user", content=text),), action=json.dumps(action.as_json(), ensure_ascii=False))


def _episode(row: LogRow, name: str, goal: str, steps: Sequence[Step], *, success: bool | None) -> LoggedEpisode:
    if not goal.strip():
        raise RowError("an episode without a goal")
    task = Task(id=name, split=split_of(row, row.value), params={"goal": goal, "place": row.place})
    return LoggedEpisode(name=name, task=task, steps=tuple(steps), success=success)


AITW = Format(says="Android in the Wild: a record per step", convert=aitw_episodes, unit=aitw_unit)
ANDROID_CONTROL = Format(
    says="AndroidControl: a record per episode", convert=control_episodes, unit=aitw_unit, alone=True
)
