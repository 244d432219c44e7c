"""An episode on a site, apart from how its pages are shown: goal, history, the window of lines, limits, verdict."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rollwright.contracts import ConfigError, Observation, StepResult, Task, state_key

from ..observe import Element, render
from ..page_actions import SIGNATURES, Action, ActionError, Kind, parse_action
from .pages.engine import Server, canonical, connect
from .tasks.aims import Start, Verdict

IN_PAGE = ("click", "fill", "clear", "select_option", "check", "uncheck", "hover", "focus", "press")
GRAMMAR: dict[str, tuple[Kind, ...]] = {
    **{name: SIGNATURES[name] for name in (*IN_PAGE, "scroll", "noop")},
    "goto": ("text",),
    "go_back": (),
    "go_forward": (),
    "answer": ("text",),
    "send_msg_to_user": ("text",),
    "report_infeasible": ("text",),
}
"""BrowserGym's names; `answer` is short for `send_msg_to_user`. Coordinates are left out: a page here is its text."""

_UNTYPED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FOREIGN = "only pages of {host} can be opened"
_HEADER = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class SitesOptions:
    """How episodes are played; `build` says what each option means."""

    max_turns: int = 15
    max_chars: int = 4000
    size: str = "small"
    draw: bool = False

    def __post_init__(self) -> None:
        if self.max_turns < 1 or self.max_chars < 200:
            raise ConfigError("web.sites needs max_turns of 1 or more and max_chars of 200 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What an action asks of the page: an action on a control, an address to go to, or nothing."""

    action: Action | None = None
    address: str | None = None


class Episode:
    """The part of an episode that is the same with and without a browser. Made at each reset."""

    def __init__(self, start: Start, options: SitesOptions, task: Task, seed: int) -> None:
        db = connect()
        db.deserialize(start.data)
        self.start = start
        self.options = options
        self.task = task
        self.seed = seed
        self.server = Server(start.site, db)
        self.blocked = 0
        self.over = False
        self.text = ""
        self._turns = 0
        self._history: list[str] = []
        self._place = -1
        self._window = 0
        self._lines = 0
        self._verdict = Verdict(over=False)

    @property
    def goal(self) -> str:
        """The instruction."""
        return self.start.aim.goal

    def decide(self, answer: str) -> Move:
        """Read an answer; what needs no page (scrolling, answering) is done at once.

        Raises:
            ActionError: it is no action of the grammar, or one that cannot be done here.
        """
        self._turns += 1
        action = parse_action(answer, GRAMMAR)
        match action.name:
            case "answer" | "send_msg_to_user":
                self._verdict = self.start.declared(self.server.db, action.text)
            case "report_infeasible":
                self._verdict = Verdict(over=True)
            case "scroll":
                self._window = max(0, self._window + (action.numbers[1] > 0) - (action.numbers[1] < 0))
            case "goto":
                return Move(address=self._address(action.text))
            case "go_back":
                return Move(address=self._turn_over(-1, "earlier"))
            case "go_forward":
                return Move(address=self._turn_over(+1, "later"))
            case "noop":
                pass
            case _:
                return Move(action=_typed(action))
        return Move()

    def arrived(self) -> None:
        """Note that the server has shown another page."""
        self._window = 0
        if self._place >= 0 and self._history[self._place] == self.server.address:
            return
        self._place += 1
        # A new page after going back forgets the later ones, as the history of a browser does.
        self._history[self._place :] = [self.server.address]

    def begin(self, elements: Sequence[Element]) -> Observation:
        """The first observation."""
        self.arrived()
        self._show(elements)
        return Observation(text=self.text, goal=self.goal)

    def judge(self) -> None:
        """Something was changed on the server: see whether that decides the task."""
        if not self._verdict.over:
            self._verdict = self.start.after_write(self.server.db)

    def result(self, elements: Sequence[Element], error: str) -> StepResult:
        """What one action brought."""
        self._show(elements)
        done = self._verdict.over
        limit = int(self.task.params.get("max_turns", self.options.max_turns))
        truncated = not done and self._turns >= limit
        self.over = done or truncated
        shown = "Done." if done else self.text
        return StepResult(
            observation=Observation(text=f"Error: {error}\n{shown}" if error else shown),
            reward={"env": self._verdict.reward},
            terminated=done,
            truncated=truncated,
            success=self._verdict.success if self.over else None,
            notes={"error": error} if error else {},
        )

    def fingerprint(self) -> str:
        """A key of all that the policy sees."""
        return state_key(self.task.id, self.goal, self.text, str(self.over))

    def pack(self, filled: dict[str, Any]) -> bytes:
        """The whole episode: a header in JSON, then the database."""
        header = {
            "task": {"id": self.task.id, "split": self.task.split, "params": dict(self.task.params)},
            "seed": self.seed,
            "turns": self._turns,
            "history": self._history,
            "place": self._place,
            "window": self._window,
            "over": self.over,
            "verdict": [self._verdict.over, self._verdict.reward, self._verdict.success],
            "text": self.text,
            "address": self.server.address,
            "html": self.server.html,
            "filled": filled,
        }
        head = json.dumps(header).encode()
        return _HEADER.pack(len(head)) + head + self.server.db.serialize()

    def unpack(self, header: dict[str, Any], data: bytes) -> None:
        """Take over what `pack` wrote. `self` must be an episode of the same task and seed."""
        self._turns, self._history, self._place = header["turns"], list(header["history"]), header["place"]
        self._window, self.over, self.text = header["window"], header["over"], header["text"]
        over, reward, success = header["verdict"]
        self._verdict = Verdict(over=over, reward=reward, success=success)
        self.server.db.deserialize(data)
        self.server.address, self.server.html = header["address"], header["html"]

    def close(self) -> None:
        """Let the database go."""
        self.server.db.close()

    def _address(self, text: str) -> str:
        address = canonical(_UNTYPED.sub(" ", text).strip().encode("utf-8", "replace").decode(), self.server.site.host)
        if address is None:
            self.blocked += 1
            raise ActionError(_FOREIGN.format(host=self.server.site.host))
        return address

    def _turn_over(self, by: int, side: str) -> str:
        if not 0 <= self._place + by < len(self._history):
            raise ActionError(f"there is no {side} page")
        self._place += by
        return self._history[self._place]

    def shows(self, elements: Sequence[Element]) -> bool:
        """Whether these elements give the text that was shown last."""
        before = self.text
        self._show(elements)
        return self.text == before

    def _show(self, elements: Sequence[Element]) -> None:
        # All lines are rendered and cut into windows here: what is out of sight must stay reachable by scrolling.
        lines = render(elements, max_chars=1 << 60).split("\n")
        windows = cut_windows(lines, self.options.max_chars)
        self._window = min(self._window, len(windows) - 1)
        first, end = windows[self._window]
        shown = [f"At {self.server.address}", *lines[first:end]]
        if first:
            shown.insert(1, f"... {first} lines above")
        if end < len(lines):
            shown.append(f"... {len(lines) - end} more lines")
        self.text = "\n".join(shown)


def cut_windows(lines: Sequence[str], max_chars: int) -> list[tuple[int, int]]:
    """Ranges of lines of at most `max_chars` characters, one line or more each, that follow one another."""
    windows: list[tuple[int, int]] = []
    first = used = 0
    for index, line in enumerate(lines):
        if used + len(line) + 1 > max_chars and index > first:
            windows.append((first, index))
            first, used = index, 0
        used += len(line) + 1
    return [*windows, (first, len(lines))]


def read_header(state: bytes) -> tuple[dict[str, Any], bytes]:
    """Take a snapshot apart: its header and the database."""
    (length,) = _HEADER.unpack_from(state)
    end = _HEADER.size + length
    return json.loads(state[_HEADER.size : end]), state[end:]


def _typed(action: Action) -> Action:
    """The action as a hand can do it: one line of text, letters of the basic plane, the one key that is modelled.

    Raises:
        ActionError: another key.
    """
    if action.name == "press" and action.text != "Enter":
        raise ActionError("only the key Enter is known on these sites")
    text = "".join(c if ord(c) < 0x10000 and not 0xD800 <= ord(c) < 0xE000 else "\ufffd" for c in action.text)
    options = tuple(_UNTYPED.sub(" ", option) for option in action.options)
    return Action(name=action.name, ids=action.ids, text=_UNTYPED.sub(" ", text), options=options)
