"""Offline data of LMRL-Gym (arXiv:2311.18232), with the rewards that the benchmark computes from them.

Rows, told apart by what they hold:

    {"word", "lines": ["Is it alive? No.", ...], "correct"}          twenty questions, guess my city
    {"buyer_info", "lines": [{"role", "text"}, ...], "output"}       car dealer; the policy is the seller
    {"text_history": [shown, action, shown, ...], "rewards", "dones"}   maze, text navigation
    {"sequence": [[text, is_action], ...], "reward", "done"}         Wordle
    [{"state", "action", "reward", "done"}, ...], or one of these    chess, mazes
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rollwright.contracts import Message, StopReason, Task
from rollwright.store.importers.log_files import LIST
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
    whole_text,
)

# Non-greedy with `fullmatch`: the answer is the last Yes or No of the line, as a question may hold one too.
_ASKED = re.compile(r"(.*?)\s*\b(Yes|No)\b\.?\s*", re.DOTALL)
# The benchmark's limit for both games of questions.
QUESTIONS = 20
# True: the policy's side, under either name.
ROLES = {"Seller": True, "Dealer": True, "Buyer": False}


def lmrl_rows(rows: Sequence[LogRow], name: str) -> list[LoggedEpisode]:
    """The episode of a row. Raises RowError: it is of no known shape, or malformed."""
    (row,) = rows
    values = row.value
    for key, read in _SHAPES:
        if values.get(key) is not None:
            return [read(row, name)]
    raise RowError("a row of no task of LMRL-Gym", f"it holds {', '.join(map(str, values))[:80]}")


def _questions(row: LogRow, name: str) -> LoggedEpisode:
    """-1 for each question or guess, 0 for the right one; cut where it neither hit nor reached twenty."""
    values = row.value
    words = values["word"]
    # The first of a list names the task, so that all rows of a word are attempts at one task.
    word = whole_text(words[0] if isinstance(words, list | tuple) and words else words, "`word`")
    correct = verdict(values.get("correct"), "`correct`")
    if correct is None:
        raise RowError("`correct` is neither true nor false", None)
    # A line is a question and its answer: what the policy wrote, and what it was shown next.
    lines = [_question(line) for line in listed(values.get("lines"), "`lines`")]
    # Shifted by one: the answer to a question is what the next question was asked upon. The last one is seen by nobody.
    shown = ["Questions:", *(answer for _, answer in lines[:-1])]
    paid = [-1.0] * (len(lines) - 1) + [0.0 if correct else -1.0]
    # At the limit the game itself is over; before it somebody stopped, and a critic may bootstrap.
    ended = correct or len(lines) >= QUESTIONS
    steps = [_step(s, action, reward) for s, (action, _), reward in zip(shown, lines, paid, strict=True)]
    return _episode(row, name, steps, task=word, success=correct, ended=ended)


def _question(line: Any) -> tuple[str, str]:
    found = _ASKED.fullmatch(whole_text(line, "a line"))
    if found is None or not found[1]:
        raise RowError("a line that is not a yes-or-no question", line)
    return found[1], f"{found[2]}."


def _dealer(row: LogRow, name: str) -> LoggedEpisode:
    """The benchmark's "fancy" reward on the seller's last line; without an `output` the talk was cut."""
    said: list[tuple[bool, str]] = []
    for line in listed(row.value.get("lines"), "`lines`"):
        entry = mapping(line, "a line")
        role = ROLES.get(str(entry.get("role")))
        if role is None:
            raise RowError("an unknown role", repr(entry.get("role")))
        said.append((role, whole_text(entry.get("text"), "a line's text")))
    output = row.value.get("output")
    earned, bought = (None, None) if output is None else _sale(row.value, mapping(output, "`output`"))
    # The seller may speak first, and every action needs something that was shown before it.
    steps = _alternating([(False, "Beginning of Conversation"), *said])
    # On the seller's last line: `output` judges the talk as a whole.
    steps[-1] = _step(*_texts(steps[-1]), earned)
    return _episode(row, name, steps, task=name, success=bought, ended=output is not None)


def _sale(values: Values, output: Values) -> tuple[float, bool]:
    bought = verdict(output.get("car_bought"), "`car_bought`")
    msrp = number(output.get("msrp"), "`msrp`")
    budget = number(mapping(values["buyer_info"], "`buyer_info`").get("budget"), "`budget`")
    if bought is None or msrp <= 0:
        raise RowError("an `output` without a decision or a list price")
    if not bought:
        # Without a sale it depends on buyer and car alone: nothing that was said changes it.
        return -(budget - msrp) / msrp, False
    return number(output.get("buy_price"), "`buy_price`") / ((budget + msrp) / 2), True


def _history(row: LogRow, name: str) -> LoggedEpisode:
    """Texts by turns, shown first; a reward and an end for each of them, those of what was shown being 0."""
    texts = [whole_text(text, "a text") for text in listed(row.value["text_history"], "`text_history`")]
    paid = [number(value, "a reward") for value in listed(row.value.get("rewards"), "`rewards`")]
    given = row.value.get("dones")
    # A row may have one flag for the whole walk.
    dones = [given] * len(texts) if isinstance(given, bool) else listed(given, "`dones`")
    if not len(texts) == len(paid) == len(dones):
        raise RowError("`text_history`, `rewards` and `dones` of unequal length")
    # Only the last flag counts: an episode of the benchmark ends once.
    return _marked(row, name, [(bool(at % 2), text) for at, text in enumerate(texts)], paid, dones[-1])


def _sequence(row: LogRow, name: str) -> LoggedEpisode:
    said = []
    for entry in listed(row.value["sequence"], "`sequence`"):
        pair = listed(entry, "an entry of `sequence`")
        if len(pair) != 2 or verdict(pair[1], "is_action") is None:
            raise RowError("an entry of `sequence` that is not [text, is_action]", entry)
        said.append((bool(pair[1]), whole_text(pair[0], "a text")))
    paid = [number(value, "a reward") for value in listed(row.value.get("reward"), "`reward`")]
    paid = [0.0, *paid] if len(paid) == len(said) - 1 else paid  # the head of a game has none
    if len(paid) != len(said):
        raise RowError("`sequence` and `reward` of unequal length")
    return _marked(row, name, said, paid, row.value.get("done"))


def _marked(row: LogRow, name: str, said: list[tuple[bool, str]], paid: list[float], done: Any) -> LoggedEpisode:
    # The benchmark's contract: a segment that is no action earns 0.
    if any(reward for (is_action, _), reward in zip(said, paid, strict=True) if not is_action):
        raise RowError("a reward on a text that is not an action")
    if not any(is_action for is_action, _ in said):
        raise RowError("an episode without an action")
    ended = verdict(done, "`done`")
    steps = _alternating(said, paid)
    # The file gives no verdict, only rewards.
    return _episode(row, name, steps, task=name, success=None, ended=bool(ended))


def _transitions(row: LogRow, name: str) -> LoggedEpisode:
    """Each state is all that the policy was shown: the steps do not share a history, but they stand in one episode."""
    entries = [mapping(e, "a step") for e in (listed(row.value[LIST], "the row") if LIST in row.value else [row.value])]
    steps = [
        _step(
            whole_text(entry.get("state"), "`state`"),
            whole_text(entry.get("action"), "`action`"),
            None if entry.get("reward") is None else number(entry["reward"], "`reward`"),
        )
        for entry in entries
    ]
    done = [verdict(entry.get("done"), "`done`") for entry in entries]
    if any(done[:-1]):
        raise RowError("a step after the end")
    return _episode(row, name, steps, task=name, success=None, ended=bool(done[-1]) or len(entries) == 1)


def _alternating(said: Sequence[tuple[bool, str]], paid: Sequence[float] | None = None) -> list[Step]:
    """Steps of texts that are shown or done; what is done in a row is one action. What follows the last goes unseen."""
    steps: list[Step] = []
    shown: list[str] = []
    for at, (is_action, text) in enumerate(said):
        # Texts of the benchmark may end with a line feed, which a message of a chat does not need.
        text, reward = text.rstrip("\n"), None if paid is None else paid[at]
        if not is_action:
            shown.append(text)
        elif shown:
            steps.append(_step("\n".join(shown), text, reward))
            shown = []
        elif steps:
            before, action = _texts(steps[-1])
            # Two actions in a row become one: a turn has one action, which earned what both did.
            total = None if reward is None else (steps[-1].reward or 0.0) + reward
            steps[-1] = _step(before, f"{action} {text}", total)
        else:
            raise RowError("an action before anything was shown")
    if not steps:
        raise RowError("an episode without an action")
    return steps


def _texts(step: Step) -> tuple[str, str]:
    return step.observed[0].content, step.action


def _step(shown: str, action: str, reward: float | None) -> Step:
    if not action.strip():
        raise RowError("an empty action")
    if not shown.strip():
        raise RowError("an empty observation")
    return Step(observed=(Message(role="user", content=shown),), action=action.rstrip("\n"), reward=reward)


def _episode(
    row: LogRow, name: str, steps: Sequence[Step], *, task: str, success: bool | None, ended: bool
) -> LoggedEpisode:
    return LoggedEpisode(
        name=name,
        task=Task(id=task, split=split_of(row, _plain(row.value)), params={"place": row.place}),
        steps=tuple(steps),
        success=success,
        stop_reason=StopReason.TERMINATED if ended else StopReason.MAX_TURNS,
    )


def _plain(values: Mapping[str, Any]) -> Values:
    return {"split": values.get("split")}


_SHAPES = (
    ("word", _questions),
    ("buyer_info", _dealer),
    ("text_history", _history),
    ("sequence", _sequence),
    (LIST, _transitions),
    ("state", _transitions),
)

LMRL_GYM = Format(says="LMRL-Gym's offline data", convert=lmrl_rows)
