"""Logs of environments: steps of a Gymnasium loop, Minari-like episodes, and the messages of an OpenEnv session.

What was shown or done becomes text as our adapters write it: a text as it is, everything else as JSON.

    gymnasium   a row per step: `episode`, `step` (from 0), `observation`, `action`, `reward`, `terminated`, `truncated`
                or a row per episode: `observations`, `actions`, `rewards`, `terminations`, `truncations`
    openenv     a row per message: `episode`, and `type` and `data` as they go over the wire: reset, observation, step,
                observation, ..., close; an `error` in place of an observation is what the policy is told
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from rollwright.contracts import Message, StopReason, Task
from rollwright.store.importers.log_records import (
    Format,
    LoggedEpisode,
    LogRow,
    RowError,
    Step,
    Values,
    listed,
    mapping,
    number,
    split_of,
    verdict,
    whole_json,
    whole_number,
    whole_text,
)


def gymnasium_unit(values: Values) -> Hashable:
    """The episode of a step; None for a row that is a whole episode. Raises RowError."""
    return None if "observations" in values else _episode_id(values)


def _episode_id(values: Values) -> Hashable:
    for key in ("episode", "episode_id"):
        found = values.get(key)
        if isinstance(found, str | int) and not isinstance(found, bool):
            # As text: 7 and "7" name the same episode.
            return str(found)
    raise RowError("a row without `episode`")


def gymnasium_rows(rows: Sequence[LogRow], name: str) -> list[LoggedEpisode]:
    """The episode of a unit.

    Raises:
        RowError: steps are missing or out of order, it goes on after its end, or has none; a value is malformed.
    """
    first = rows[0].value
    if "observations" in first:
        steps = _columns(first)
    else:
        steps = [row.value for row in rows]
        found = [whole_number(step.get("step"), "`step`") for step in steps]
        # A step that is missing would put an action beside what was shown for another one.
        if found != list(range(len(found))):
            raise RowError("the steps of an episode do not run 0, 1, 2, ...", found[:20])
    return [_episode(rows[0], name, [_transition(step) for step in steps])]


def _columns(values: Values) -> list[Values]:
    """The steps of a Minari-like episode; an observation after the last action was shown to nobody."""
    names = {"observations": "observation", "actions": "action", "rewards": "reward"}
    names |= {"terminations": "terminated", "truncations": "truncated"}
    columns = {short: listed(values.get(name), f"`{name}`") for name, short in names.items()}
    count = len(columns["action"])
    # Minari keeps the observation after the last action: n + 1 of them for n actions.
    if len(columns["observation"]) == count + 1:
        columns["observation"].pop()
    if any(len(column) != count for column in columns.values()):
        raise RowError("columns of an episode of unequal length")
    return [dict(zip(columns, entry, strict=True)) for entry in zip(*columns.values(), strict=True)]


Transition = tuple[str, str, float, bool, bool]


def _transition(step: Values) -> Transition:
    if "action" not in step or ("observation" not in step and "obs" not in step):
        raise RowError("a step without `observation` or `action`")
    ends = [verdict(step.get(key), f"`{key}`") for key in ("terminated", "truncated")]
    # Without both flags nobody knows whether a critic may bootstrap from the end.
    if None in ends:
        raise RowError("a step without `terminated` and `truncated`")
    shown = as_text(step["observation"] if "observation" in step else step["obs"], "an observation")
    done = as_text(step["action"], "an action")
    return shown, done, number(step.get("reward"), "`reward`"), bool(ends[0]), bool(ends[1])


def as_text(value: Any, what: str) -> str:
    """A text as it is, everything else as JSON. Raises RowError: nothing, or no JSON."""
    if value is None:
        raise RowError(f"{what} is missing")
    text = whole_text(value, what) if isinstance(value, str) else json.dumps(whole_json(value), ensure_ascii=False)
    if not text.strip():
        raise RowError(f"{what} is empty")
    return text


def _episode(row: LogRow, name: str, steps: Sequence[Transition]) -> LoggedEpisode:
    # Joined like this, the returns of one episode would reach into the next.
    if any(terminated or truncated for *_, terminated, truncated in steps[:-1]):
        raise RowError("an episode that goes on after its end")
    *_, terminated, truncated = steps[-1]
    # The log was cut: what the last action led to is not known.
    if not terminated and not truncated:
        raise RowError("an episode without an end: neither terminated nor truncated")
    values = row.value
    seed = values.get("seed")
    return LoggedEpisode(
        name=name,
        task=Task(id=str(values.get("task") or name), split=split_of(row, values), params={"place": row.place}),
        steps=tuple(
            Step(observed=(Message(role="user", content=shown),), action=action, reward=reward)
            for shown, action, reward, _, _ in steps
        ),
        success=verdict(values.get("success"), "`success`"),
        # Gymnasium may set both flags. The task's own end counts then: there is nothing to bootstrap from.
        stop_reason=StopReason.TERMINATED if terminated else StopReason.MAX_TURNS,
        seed=0 if seed is None else whole_number(seed, "`seed`"),
    )


def openenv_rows(rows: Sequence[LogRow], name: str) -> list[LoggedEpisode]:
    """The episode of a session's messages.

    Raises:
        RowError: it does not begin with a reset, a message lacks its answer, or it has no end.
    """
    said = [(_type(row.value), mapping(row.value.get("data") or {}, "`data`")) for row in rows]
    # `close` has no answer: without it the rest are pairs of a request and what came back.
    if said and said[-1][0] == "close":
        said.pop()
    if len(said) < 4 or [kind for kind, _ in said[:2]] != ["reset", "observation"]:
        raise RowError("a session that does not begin with a reset and what it shows, or has no step")
    if len(said) % 2:
        raise RowError("a message without its answer", said[-1][0])
    # What the reset shows is what the first action answers; each answer is shown to the next one.
    shown = _shown(*said[1])
    steps: list[Transition] = []
    for (kind, asked), (answer, told) in zip(said[2::2], said[3::2], strict=True):
        if kind != "step" or answer not in ("observation", "error"):
            raise RowError("messages out of order", f"{kind}, {answer}")
        # An error is no step: it earns nothing, ends nothing, and the policy is told of it.
        reward = told.get("reward") if answer == "observation" else None
        done = answer == "observation" and verdict(told.get("done"), "`done`") is True
        paid = 0.0 if reward is None else number(reward, "`reward`")
        steps.append((shown, _done(asked), paid, done, False))
        shown = _shown(answer, told) if not done else ""
    *_, ended, _ = steps[-1]
    if not ended:  # OpenEnv knows one end; a session that was closed before it was cut by whoever played it
        steps[-1] = (*steps[-1][:4], True)
    return [_episode(rows[0], name, steps)]


def _type(values: Values) -> str:
    kind = values.get("type")
    if kind not in ("reset", "step", "observation", "error", "close"):
        raise RowError("an unknown `type` of message", repr(kind))
    return str(kind)


def _shown(kind: str, data: Values) -> str:
    if kind == "error":
        return as_text(data.get("message"), "the message of an error")
    return as_text(data.get("observation"), "an observation")


def _done(data: Values) -> str:
    """An action of one text field is that text, as our adapter sends it."""
    # An action of OpenEnv carries `metadata` beside its own fields; empty, it says nothing.
    texts = {key: value for key, value in data.items() if key != "metadata" or value}
    if len(texts) == 1 and isinstance(only := next(iter(texts.values())), str):
        return as_text(only, "an action")
    return as_text(dict(data) if isinstance(data, Mapping) and data else None, "an action")


GYMNASIUM = Format(says="steps of Gymnasium, or Minari-like episodes", convert=gymnasium_rows, unit=gymnasium_unit)
OPENENV = Format(says="messages of OpenEnv sessions", convert=openenv_rows, unit=_episode_id)
