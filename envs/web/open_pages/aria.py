"""Playwright's aria snapshot as an observation: its references become the numbers that actions take."""

from __future__ import annotations

import re

MAX_ELEMENTS = 5000
"""A snapshot of more takes Playwright longer than a step may; the page is shown in our own lines then."""

TOO_MANY = "(more elements than an aria snapshot is made of; in lines instead)"
_REFERENCE = re.compile(r"\[ref=((?:f\d+)?e\d+)\]")


class Numbers:
    """Numbers for the references of one tab's snapshots; an element keeps its own as long as it keeps its reference."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._shown: dict[int, str] = {}
        self.in_use = False

    def rewritten(self, snapshot: str, max_chars: int) -> str:
        """The snapshot with numbers, as whole lines up to `max_chars`; a last line says how many are left out."""
        self._shown, self.in_use = {}, True
        lines = _REFERENCE.sub(lambda found: f"[{self._number(found[1])}]", snapshot).split("\n")
        used = 0
        for index, line in enumerate(lines):
            used += len(line) + 1
            if used > max_chars:
                return "\n".join([*lines[:index], f"... {len(lines) - index} more lines"])
        return "\n".join(lines)

    def put_away(self) -> None:
        """The page is shown in other words, with numbers of its own."""
        self._shown, self.in_use = {}, False

    def unknown(self, *numbers: int) -> int | None:
        """The first of these numbers that the last snapshot does not show; 0 stands for none."""
        return next((number for number in numbers if number and number not in self._shown), None)

    def reference(self, number: int) -> str:
        """What a number of the last snapshot stands for; empty where it is none."""
        return self._shown.get(number, "")

    def _number(self, reference: str) -> int:
        number = self._numbers.setdefault(reference, len(self._numbers) + 1)
        self._shown[number] = reference
        return number
