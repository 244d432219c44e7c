"""The maths of SWE-RL's rule: edits out of an answer, the files after them, the similarity of two sets of diffs.

The reward runs it in a box: the comparison of two long repetitive texts takes hours. Standard library only.
Source: arXiv:2502.18449 (SWE-RL), section 2.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping

FORMAT_PENALTY = -1.0
TAGS = ("<think>", "</think>", "<solution>", "</solution>")
MAX_TEXT = 1_000_000
"""Characters of a file after the edits, unless it was longer before: forty edits that double it fill all memory."""
_FENCE, _FILE, _SEARCH, _MIDDLE, _END = "```", "\n### ", "<<<<<<< SEARCH\n", "=======\n", ">>>>>>> REPLACE\n```"
Edits = dict[str, list[tuple[str, str]]]


class FormatError(ValueError):
    """The answer is not in the format; the text says what is missing."""


def parse_answer(text: str) -> Edits:
    """The edits of an answer: path -> (search, replacement) in order.

    Raises:
        FormatError: a tag is missing or doubled, the thought is empty, there is no edit block.
    """
    # Exactly once each: with two solutions it would be open which of them counts.
    wrong = [tag for tag in TAGS if text.count(tag) != 1]
    if wrong:
        raise FormatError(f"tag: {wrong[0]} must occur once")
    thought = text.partition("<think>")[2].partition("</think>")[0]
    if not thought.strip():
        raise FormatError("thought: it is empty")
    edits: Edits = {}
    for path, search, replacement in _blocks(text.partition("<solution>")[2].partition("</solution>")[0].strip()):
        edits.setdefault(path.strip(), []).append((search, replacement))
    if not edits:
        raise FormatError("no block: there is no edit in the solution")
    return edits


def _blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """(path, search, replacement) of each block, none of which overlap; every character is looked at a few times.

    A block is a line that holds a fence, `### path`, `<<<<<<< SEARCH`, the search, `=======`, the replacement,
    `>>>>>>> REPLACE`, and a line that begins with a fence. The two middle signs may end a line.
    """
    done = 0
    # `find` and no regular expression, whose search would start over at each of many unfinished blocks.
    place = text.find(_FILE)
    while place >= 0:
        line, name = max(done, text.rfind("\n", done, place) + 1), place + len(_FILE)
        ends = text.find("\n", name)
        if _FENCE not in text[line:place] or ends < 0 or not text.startswith(_SEARCH, ends + 1):
            place = text.find(_FILE, place + 1)
            continue
        search = ends + 1 + len(_SEARCH)
        middle = text.find(_MIDDLE, search)
        end = text.find(_END, middle + len(_MIDDLE)) if middle >= 0 else -1
        # No later block can have an end either.
        if end < 0:
            return
        replacement = text[middle + len(_MIDDLE) : end]
        yield text[name:ends], text[search:middle].removesuffix("\n"), replacement.removesuffix("\n")
        # The fence before the next path must lie behind this block.
        done = end + len(_END)
        place = text.find(_FILE, done)


def apply_edits(files: Mapping[str, str], edits: Edits, *, must_be_unique: bool = False) -> dict[str, str]:
    """Files after the edits. A search begins at a line's start, may end within a line, and replaces every occurrence.

    An unknown path is an empty file: an empty search creates it.

    Args:
        must_be_unique: a search that occurs more than once is an error instead.

    Raises:
        FormatError: an edit that changes nothing, a search that is not found, an empty search in a known file, a file
            that would grow beyond all reason.
    """
    changed = dict(files)
    for path, blocks in edits.items():
        # A search begins at a line's start, so the first line needs a line end before it too.
        text = "\n" + files.get(path, "")
        for search, replacement in blocks:
            # An answer without any change would otherwise earn 0 and not the penalty.
            if search == replacement:
                raise FormatError(f"identical: an edit of {path} changes nothing")
            if not search and path in files:  # it would match at every line
                raise FormatError(f"not found: an empty search in {path}")
            count = text.count("\n" + search)
            if count == 0 or (must_be_unique and count > 1):
                raise FormatError(f"not found: a search in {path} occurs {count} times")
            # Before the replacement, which would need the memory.
            if len(text) + count * (len(replacement) - len(search)) > max(MAX_TEXT, len(files.get(path, "")) + 1):
                raise FormatError(f"too long: {path} would have more than {MAX_TEXT} characters")
            # Every occurrence, as the published rule does; `must_be_unique` refuses several.
            text = text.replace("\n" + search, "\n" + replacement)
        changed[path] = text[1:]
    return changed


def diffs(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Unified diffs by path, three lines of context, without the header lines; files without a change are left out."""
    found = {}
    for path, text in after.items():
        # Line ends are left out, so that a file without a last one makes no diff of its own.
        lines = list(difflib.unified_diff(before.get(path, "").splitlines(), text.splitlines(), n=3, lineterm=""))
        if lines:
            # The first two lines are the header with the file names.
            found[path] = "\n".join(lines[2:])
    return found


def similarity(predicted: Mapping[str, str], oracle: Mapping[str, str], *, max_chars: int = 50_000) -> float:
    """Mean similarity of two sets of diffs over the union of their paths; 1 where both are empty.

    Args:
        max_chars: longer diffs are cut, since the comparison takes quadratic time.
    """
    # The union: a file that was left alone, or changed without need, counts as 0.
    paths = predicted.keys() | oracle.keys()
    if not paths:
        return 1.0
    ratios = [_ratio(predicted.get(p, "")[:max_chars], oracle.get(p, "")[:max_chars]) for p in sorted(paths)]
    return math.fsum(ratios) / len(ratios)


def _ratio(predicted: str, oracle: str) -> float:
    """0 where one is missing. Not symmetric in its arguments, so their order is fixed."""
    if not predicted or not oracle:
        return 0.0
    return 2.0 * _num_matching(predicted, oracle) / (len(predicted) + len(oracle))


def _num_matching(a: str, b: str) -> int:
    """Characters in common as difflib counts them: those of the longest common substring, then left and right of it.

    Equal to `SequenceMatcher(None, a, b, autojunk=False)`, which compares every pair of equal characters: seconds for
    diffs of 5,000 characters, hours for repetitive ones of 50,000.
    """
    # A stack and no recursion, whose depth could reach the length of the texts.
    total, pairs = 0, [(a, b)]
    while pairs:
        a, b = pairs.pop()
        i, j, size = _longest_match(a, b)
        total += size
        if size:
            sides = ((a[:i], b[:j]), (a[i + size :], b[j + size :]))
            pairs += [(left, right) for left, right in sides if left and right]
    return total


def _longest_match(a: str, b: str) -> tuple[int, int, int]:
    """(i, j, size) of the longest common substring a[i:i+size] = b[j:j+size]; of several the first in a, then in b."""
    # Built anew for each pair of sides: a side's positions are its own.
    step, link, length, first = _automaton(b)
    best_i = best_j = best = state = size = 0
    for i, char in enumerate(a):
        # Shorter and shorter ends of what matched so far, until one goes on with this character.
        while state and char not in step[state]:
            state = link[state]
            size = length[state]
        if char in step[state]:
            state, size = step[state][char], size + 1
        # Strictly more, so that of equal lengths the first in `a` stays, as in difflib.
        if size > best:
            # `first` is where a state's texts end for the first time in b, hence the first place there.
            best_i, best_j, best = i - size + 1, first[state] - size + 1, size
    return best_i, best_j, best


def _automaton(text: str) -> tuple[list[dict[str, int]], list[int], list[int], list[int]]:
    """The suffix automaton of a text: steps, suffix links, longest lengths, and where each state first ends.

    Source: Blumer et al., The smallest automaton recognizing the subwords of a text, 1985.
    """
    step: list[dict[str, int]] = [{}]
    link, length, first, last = [-1], [0], [-1], 0
    for place, char in enumerate(text):
        new, state = len(step), last
        step.append({})
        link.append(0)
        length.append(length[last] + 1)
        first.append(place)
        while state >= 0 and char not in step[state]:
            step[state][char] = new
            state = link[state]
        if state >= 0:
            link[new] = _state_of_length(
                length[state] + 1, step[state][char], (state, char), (step, link, length, first)
            )
        last = new
    return step, link, length, first


def _state_of_length(
    wanted: int,
    target: int,
    origin: tuple[int, str],
    automaton: tuple[list[dict[str, int]], list[int], list[int], list[int]],
) -> int:
    """The target itself where its longest text has the wanted length, else a copy of it that takes the shorter ones."""
    step, link, length, first = automaton
    if length[target] == wanted:
        return target
    # Without the copy, texts of two lengths that end at unlike places would share one state.
    copy, (state, char) = len(step), origin
    step.append(dict(step[target]))
    link.append(link[target])
    length.append(wanted)
    first.append(first[target])
    while state >= 0 and step[state].get(char) == target:
        step[state][char] = copy
        state = link[state]
    link[target] = copy
    return copy


def patch_reward(
    text: str, files: Mapping[str, str], oracle: Mapping[str, str], *, must_be_unique: bool = False
) -> tuple[float, str]:
    """The reward of one answer, and what was wrong with its format (empty where nothing was)."""
    try:
        after = apply_edits(files, parse_answer(text), must_be_unique=must_be_unique)
    except FormatError as error:
        return FORMAT_PENALTY, str(error)
    # Both against the same files, so that only what was changed is compared.
    return similarity(diffs(files, after), diffs(files, {**files, **oracle})), ""


def diff_reward(predicted: str, oracle: str) -> float:
    """The variant on unified diffs: mean over paths of the similarity of what stands under each file's header."""
    return similarity(_by_path(predicted), _by_path(oracle))


def _by_path(patch: str) -> dict[str, str]:
    """Path -> hunks of a unified diff; empty where it is none."""
    found: dict[str, list[str]] = {}
    path, lines = "", patch.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        # Two lines in a row make a header: a changed line can begin with either sign.
        if line.startswith("+++ ") and before.startswith("--- "):
            name = line[4:].split("\t")[0]
            # A deleted file is named in its first line only.
            path = before[4:].split("\t")[0].removeprefix("a/") if name == "/dev/null" else name.removeprefix("b/")
        elif (
            path and not line.startswith("--- ") and (line.startswith("@@") or (path in found and line[:1] in "+- \\"))
        ):
            found.setdefault(path, []).append(line)
    return {name: "\n".join(rows) for name, rows in found.items()}


def patch_reward_of(
    text: str, files: dict[str, str], oracle: dict[str, str], must_be_unique: bool
) -> tuple[float, str]:
    """`patch_reward` with its arguments by place, for a call into a box."""
    return patch_reward(text, files, oracle, must_be_unique=must_be_unique)
