"""SWE-RL's rule: how similar the policy's patch is to the true one. No program is run.

The last action must hold one thought in <think>...</think> and edit blocks in <solution>...</solution>. What breaks the
format earns -1, as does an edit that changes nothing or whose search is not found. Otherwise the reward is the mean,
over all files that either patch changes, of the similarity of the two diffs, in [0, 1].

A task's params hold `files` (path -> text before) and `oracle` (path -> text after).
Source: arXiv:2502.18449 (SWE-RL), section 2.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence

from rollwright.errors import ConfigError
from rollwright.types import Group, Score, Task, Trajectory

FORMAT_PENALTY = -1.0
TAGS = ("<think>", "</think>", "<solution>", "</solution>")
_BLOCK = re.compile(
    r"```[^\n]*\n### (?P<path>[^\n]*)\n<{7} SEARCH\n(?P<search>.*?)\n?={7}\n(?P<replace>.*?)\n?>{7} REPLACE\n```",
    re.DOTALL,
)
Edits = dict[str, list[tuple[str, str]]]


class FormatError(ValueError):
    """The answer is not in the format; the text says what is missing."""


def parse_answer(text: str) -> Edits:
    """The edits of an answer: path -> (search, replacement) in order.

    Raises:
        FormatError: a tag is missing or doubled, the thought is empty, there is no edit block.
    """
    wrong = [tag for tag in TAGS if text.count(tag) != 1]
    if wrong:
        raise FormatError(f"tag: {wrong[0]} must occur once")
    thought = text.partition("<think>")[2].partition("</think>")[0]
    if not thought.strip():
        raise FormatError("thought: it is empty")
    edits: Edits = {}
    for block in _BLOCK.finditer(text.partition("<solution>")[2].partition("</solution>")[0].strip()):
        edits.setdefault(block["path"].strip(), []).append((block["search"], block["replace"]))
    if not edits:
        raise FormatError("no block: there is no edit in the solution")
    return edits


def apply_edits(files: Mapping[str, str], edits: Edits, *, must_be_unique: bool = False) -> dict[str, str]:
    """Files after the edits. A search begins at a line's start, may end within a line, and replaces every occurrence.

    An unknown path is an empty file: an empty search creates it.

    Args:
        must_be_unique: a search that occurs more than once is an error instead.

    Raises:
        FormatError: an edit that changes nothing, a search that is not found, an empty search in a known file.
    """
    changed = dict(files)
    for path, blocks in edits.items():
        text = "\n" + files.get(path, "")
        for search, replacement in blocks:
            if search == replacement:
                raise FormatError(f"identical: an edit of {path} changes nothing")
            if not search and path in files:  # it would match at every line
                raise FormatError(f"not found: an empty search in {path}")
            count = text.count("\n" + search)
            if count == 0 or (must_be_unique and count > 1):
                raise FormatError(f"not found: a search in {path} occurs {count} times")
            text = text.replace("\n" + search, "\n" + replacement)
        changed[path] = text[1:]
    return changed


def diffs(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Unified diffs by path, three lines of context, without the header lines; files without a change are left out."""
    found = {}
    for path, text in after.items():
        lines = list(difflib.unified_diff(before.get(path, "").splitlines(), text.splitlines(), n=3, lineterm=""))
        if lines:
            found[path] = "\n".join(lines[2:])
    return found


def similarity(predicted: Mapping[str, str], oracle: Mapping[str, str], *, max_chars: int = 50_000) -> float:
    """Mean similarity of two sets of diffs over the union of their paths; 1 where both are empty.

    Args:
        max_chars: longer diffs are cut, since the comparison takes quadratic time.
    """
    paths = predicted.keys() | oracle.keys()
    if not paths:
        return 1.0
    ratios = [_ratio(predicted.get(p, "")[:max_chars], oracle.get(p, "")[:max_chars]) for p in sorted(paths)]
    return math.fsum(ratios) / len(ratios)


def _ratio(predicted: str, oracle: str) -> float:
    """0 where one is missing. Not symmetric in its arguments, so their order is fixed."""
    if not predicted or not oracle:
        return 0.0
    return difflib.SequenceMatcher(None, predicted, oracle, autojunk=False).ratio()


def patch_reward(
    text: str, files: Mapping[str, str], oracle: Mapping[str, str], *, must_be_unique: bool = False
) -> tuple[float, str]:
    """The reward of one answer, and what was wrong with its format (empty where nothing was)."""
    try:
        after = apply_edits(files, parse_answer(text), must_be_unique=must_be_unique)
    except FormatError as error:
        return FORMAT_PENALTY, str(error)
    return similarity(diffs(files, after), diffs(files, {**files, **oracle})), ""


def diff_reward(predicted: str, oracle: str) -> float:
    """The variant on unified diffs: mean over paths of the similarity of what stands under each file's header."""
    return similarity(_by_path(predicted), _by_path(oracle))


def _by_path(patch: str) -> dict[str, str]:
    """Path -> hunks of a unified diff; empty where it is none."""
    found: dict[str, list[str]] = {}
    path, lines = "", patch.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("+++ ") and before.startswith("--- "):
            name = line[4:].split("\t")[0]
            path = before[4:].split("\t")[0].removeprefix("a/") if name == "/dev/null" else name.removeprefix("b/")
        elif (
            path and not line.startswith("--- ") and (line.startswith("@@") or (path in found and line[:1] in "+- \\"))
        ):
            found.setdefault(path, []).append(line)
    return {name: "\n".join(rows) for name, rows in found.items()}


class PatchSimilarityReward:
    """SWE-RL's reward of the last action. No score for a task without `files` and `oracle`."""

    name = "patch_similarity"

    def __init__(self, *, must_be_unique: bool) -> None:
        self._must_be_unique = must_be_unique

    def score(self, group: Group) -> Sequence[Score]:
        return [self._score(group.task, trajectory) for trajectory in group.trajectories]

    def _score(self, task: Task, trajectory: Trajectory) -> Score:
        if "files" not in task.params or "oracle" not in task.params:
            return Score(
                value=None, verifier=self.name, message=f"task {task.id!r} has no files and oracle in its params"
            )
        text = trajectory.turns[-1].text
        value, wrong = patch_reward(
            text, task.params["files"], task.params["oracle"], must_be_unique=self._must_be_unique
        )
        return Score(value=value, verifier=self.name, message=wrong)


def build(*, must_be_unique: bool = False) -> PatchSimilarityReward:
    """Similarity to the true patch.

    Args:
        must_be_unique: a search that occurs more than once breaks the format; the published rule replaces all.

    Raises:
        ConfigError: the option is no truth value.
    """
    if not isinstance(must_be_unique, bool):
        raise ConfigError(f"patch_similarity needs must_be_unique true or false, got {must_be_unique!r}")
    return PatchSimilarityReward(must_be_unique=must_be_unique)
