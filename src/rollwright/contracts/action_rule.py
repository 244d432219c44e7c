"""What of an answer a world is given, where the policy thinks before it acts.

The rest of the answer stays in the turn, in the loss and in a growing context; a windowed context shows the action
alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]  # unlike `re` it can be given a limit of time

from rollwright.contracts.turn import Finish

ALL, AFTER_THINK = "all", "after_think"
_OPENS, _CLOSES = "<think>", "</think>"
# An expression such as (a+)+b takes exponential time on an answer that almost matches.
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class ActionRule:
    """Takes the action out of an answer. A function of the text and its end alone, so that a replay finds the same.

    Args:
        how: `all`, the whole answer; `after_think`, what follows the last `</think>`; or a regular expression, whose
            last match counts, its first group where it has one.

    Raises:
        ValueError: the expression is none.
    """

    how: str = ALL

    def __post_init__(self) -> None:
        # A wrong expression fails where the rule is made, not at the first answer of an episode.
        if self.how not in (ALL, AFTER_THINK):
            _compiled(self.how)

    def action_of(self, text: str, finish: Finish = "stop", *, scripted: bool = False) -> str:
        """The action; empty, which no world takes for one, where the answer holds none.

        Args:
            finish: "length" where the answer was cut: a thought that never ends is no action.
            scripted: a teacher or a data set wrote it, which may say its action and nothing else.
        """
        if self.how == ALL:
            return text
        found = _after_think(text, finish) if self.how == AFTER_THINK else _last_match(_compiled(self.how), text)
        return text if scripted and not found else found


WHOLE = ActionRule()


def _after_think(text: str, finish: Finish) -> str:
    # From the right, since a thought may mention the tag. Without the tag, `rest` is the whole text.
    _, closed, rest = text.rpartition(_CLOSES)
    # A cut answer need not begin with the opening tag: many chat templates write it at the end of the prompt.
    thinks_on = not closed and (finish == "length" or text.lstrip().startswith(_OPENS))
    return "" if thinks_on else rest.strip()


def _last_match(pattern: Any, text: str) -> str:
    """Bounded in time: an answer that an expression takes for ever to read costs the policy its turn, no more."""
    try:
        # The limit of time is for the whole search; the deque keeps the last match alone.
        matches = deque(pattern.finditer(text, timeout=_PATIENCE_S), maxlen=1)
    except TimeoutError:
        return ""
    # A group that took no part in the match is None.
    return str((matches[0][1] if pattern.groups else matches[0][0]) or "") if matches else ""


# A rule holds its expression as text, so that it stays plain data; every answer looks it up here.
@lru_cache(64)
def _compiled(how: str) -> Any:
    try:
        return regex.compile(how)
    except regex.error as error:
        raise ValueError(
            f"{how!r} is neither `{ALL}` nor `{AFTER_THINK}` nor a regular expression ({error}); write one whose first "
            "group is the action, such as 'Action: (.*)'"
        ) from error
