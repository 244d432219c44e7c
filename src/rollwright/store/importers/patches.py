"""Unified diffs applied to files in memory: exactly where they say, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rollwright.store.importers.log_records import RowError

# A count of 1 may be left out: `@@ -3 +3 @@`.
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
# Begins the line "\ No newline at end of file", which speaks of the line before it.
_NO_NEWLINE = "\\"


Hunk = tuple[int, list[str], list[str]]
"""First old line, counted from 1; old lines; new lines."""


@dataclass
class FilePatch:
    """What one file loses and gains."""

    old: str
    new: str
    hunks: list[Hunk] = field(default_factory=list)


def apply_diff(files: Mapping[str, str], diff: str) -> dict[str, str]:
    """The files after the diff; a file that it adds is there too.

    Raises:
        RowError: it is not a unified diff, names a file that is not there, deletes or renames one, or does not apply.
    """
    # A copy: the files before the fix are needed as well, and a patch may fail half-way.
    changed = dict(files)
    for patch in read_diff(diff):
        # A diff names /dev/null in place of a file that is added (old) or deleted (new).
        if patch.new == "/dev/null" or (patch.old not in ("/dev/null", patch.new)):
            raise RowError("the patch deletes or renames a file", patch.old)
        if patch.old != "/dev/null" and patch.new not in changed:
            raise RowError("the patch is of a file that is not there", patch.new)
        before = "" if patch.old == "/dev/null" else changed[patch.new]
        changed[patch.new] = _applied(before, patch)
    return changed


def read_diff(diff: str) -> list[FilePatch]:
    """The patches of a diff, by file.

    Raises:
        RowError: it is not a unified diff.
    """
    found: list[FilePatch] = []
    lines, at = split_lines(diff), 0
    while at < len(lines):
        line, at = lines[at], at + 1
        # Only between hunks: within one, a removed line that begins with "-- " looks alike, and `_hunk` counts past it.
        if line.startswith("--- "):
            following = lines[at] if at < len(lines) else ""
            if not following.startswith("+++ "):
                raise RowError("the patch is not a unified diff", line.strip())
            found.append(FilePatch(old=_path(line), new=_path(following)))
        elif line.startswith("@@"):
            if not found:
                raise RowError("the patch is not a unified diff", "a change before the name of a file")
            hunk, at = _hunk(lines, at - 1)
            found[-1].hunks.append(hunk)
        # Other lines between hunks are skipped (`index`, `diff --git`); these change a file without a hunk.
        elif line.startswith(("Binary files", "GIT binary patch", "rename from")):
            raise RowError("the patch deletes or renames a file", line.strip())
    if not found or not all(patch.hunks for patch in found):
        raise RowError("the patch is not a unified diff", diff[:60])
    return found


def split_lines(text: str) -> list[str]:
    """The lines with their ends, parted at line feeds alone: a form feed within a source ends no line of a diff."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _path(line: str) -> str:
    # `diff -u` puts the time of the file after a tab.
    name = line[4:].split("\t")[0].strip()
    return name if name == "/dev/null" else name.removeprefix("a/").removeprefix("b/")


def _hunk(lines: Sequence[str], at: int) -> tuple[Hunk, int]:
    """The hunk whose head is line `at`, and the line behind it."""
    head = lines[at]
    found = _HUNK.match(head)
    if found is None:
        raise RowError("the patch is not a unified diff", head.strip())
    left, right = (1 if found[group] is None else int(found[group]) for group in (2, 4))
    sides: dict[str, list[str]] = {"-": [], "+": []}
    at += 1
    # By the counts of the head and not by the signs: a line "--- a" may be a removed "-- a".
    while len(sides["-"]) < left or len(sides["+"]) < right:
        line = lines[at] if at < len(lines) else ""
        sign, body = (line[0], line[1:]) if line.strip("\n") else (" ", "\n")  # a blank line whose blank was cut
        if not line or sign not in " +-":
            raise RowError("the patch ends within a change", head.strip())
        at += 1
        # The marker speaks of this line alone: the other side's line may still end with a line feed.
        last = at < len(lines) and lines[at].startswith(_NO_NEWLINE)
        for side in ("-", "+") if sign == " " else (sign,):
            sides[side].append(body.removesuffix("\n") if last else body)
        at += last
    return (int(found[1]), sides["-"], sides["+"]), at


def _applied(text: str, patch: FilePatch) -> str:
    lines, result, at = split_lines(text), list[str](), 0
    for start, old, new in patch.hunks:
        first = max(start - 1, 0) if old else start  # a pure insertion names the line before it
        # `first < at`: hunks that overlap or run backwards. The lines must be equal: no fuzz, as `patch` would allow.
        if first < at or [_bare(line) for line in lines[first : first + len(old)]] != [_bare(line) for line in old]:
            raise RowError("the patch does not apply", f"{patch.new}, line {start}")
        result += lines[at:first] + new
        at = first + len(old)
    return "".join(result + lines[at:])


def _bare(line: str) -> str:
    # The end of a line decides nothing: a patch in LF applies to a source in CRLF.
    return line.rstrip("\r\n")
