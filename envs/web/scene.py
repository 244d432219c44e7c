"""What a scripted policy sees: the observation's lines taken apart again, and its own notes of the episode."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(
    r"(?P<id>\d+) (?P<role>\w+)(?: (?P<name>.*?))??(?: = (?P<value>.*?))?(?: \[(?P<options>[^\[\]]*)\])?"
    r"(?: \((?P<states>[a-z, ]+)\))?(?: @-?\d+,-?\d+)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A numbered line of the observation, taken apart."""

    id: int
    role: str
    name: str
    value: str
    options: tuple[str, ...]
    states: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Scene:
    """What a script sees: the goal, the text, its numbered lines, and what it noted in earlier turns."""

    goal: str
    text: str
    lines: tuple[Line, ...]
    turn: int
    notes: dict[str, list[str]]

    def having(self, *roles: str) -> list[Line]:
        """The lines of these roles, in reading order."""
        return [line for line in self.lines if line.role in roles]

    def find(self, name: str, *roles: str) -> Line | None:
        """The first line with that name, letter case aside; of these roles if any are given."""
        pool = self.having(*roles) if roles else self.lines
        return next((line for line in pool if line.name.lower() == name.lower()), None)

    def click(self, name: str, *roles: str) -> str:
        """Click what has that name; without it, do nothing."""
        line = self.find(name, *roles)
        return f"click {line.id}" if line else "noop"

    def quoted(self) -> list[str]:
        """The texts in double quotes in the goal."""
        return re.findall(r'"([^"]*)"', self.goal)

    def once(self, key: str, value: str) -> bool:
        """True the first time this value is noted under the key."""
        seen = self.notes.setdefault(key, [])
        if value in seen:
            return False
        seen.append(value)
        return True


def read_lines(text: str) -> tuple[Line, ...]:
    """The numbered lines of an observation; plain text, errors and dialogs are passed over."""
    found = [match for line in text.splitlines() if (match := _LINE.fullmatch(line))]
    return tuple(
        Line(
            id=int(match["id"]),
            role=match["role"],
            name=match["name"] or "",
            value=match["value"] or "",
            options=tuple((match["options"] or "").split(", ")) if match["options"] is not None else (),
            states=tuple((match["states"] or "").split(", ")) if match["states"] else (),
        )
        for match in found
    )
