"""What was sampled since the last checkpoint, on disk: a resumed run replays it instead of sampling it again.

One line holds the answers of one round (or of one request, where requests are answered one by one), written whole or
not at all. The world is played anew with the recorded actions, and each recorded answer is given out only where the
policy would be shown exactly what it was shown then.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rollwright.errors import ReplayMismatch, RunFolderError
from rollwright.generation.base import Generation
from rollwright.rollout.actors import Decision
from rollwright.tracking import append_line
from rollwright.types import Span

log = logging.getLogger(__name__)


class Journal:
    """The log of sampled actions of one run. Made by the training, written by whoever hands out generations.

    Args:
        path: its file; it need not exist.
        run: names the settings of the run; the lines of a run with other settings are not used.
    """

    def __init__(self, path: Path, *, run: str) -> None:
        self.path, self.run = path, run
        self.recalled = 0
        self._known: dict[str, dict[str, Any]] = {}
        self._lost: set[str] = set()
        self._header = False

    def load(self) -> int:
        """Take in what an earlier process wrote; returns how many answers there are.

        Reading ends at the first torn line: what came after it cannot have been used by anybody.
        """
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for number, line in enumerate(lines):
            try:
                row = json.loads(line)
            except ValueError:
                if line:
                    log.warning("%s: line %d is torn, it and what follows is sampled again", self.path, number + 1)
                break
            if row.get("run", self.run) != self.run:
                log.warning("%s belongs to a run with other settings: not used", self.path)
                break
            self._known |= row.get("answers", {})
        self._rewrite(lines)
        return len(self._known)

    def recall(self, decision: Decision, *, version: int) -> Generation | None:
        """What was sampled for this very decision, or None where that is not known.

        Raises:
            ReplayMismatch: the world shows something else than it did then. The episode's records are given up.
        """
        found = self._known.get(_key(decision, version))
        if found is None or decision.episode in self._lost:
            return None
        if found["seen"] != _seen(decision):
            self._lost.add(decision.episode)
            raise ReplayMismatch(
                f"turn {decision.request_id} was replayed from {self.path.name}, but the world shows something else "
                "than before: the episode is played anew. A world that declares the same episode for the same task, "
                "seed and actions must keep to it (rollwright check-env)"
            )
        self.recalled += 1
        return _generation(found)

    def record(self, answered: Sequence[tuple[Decision, Generation]], *, version: int) -> None:
        """Write the answers as one line.

        Raises:
            RunFolderError: the disk is full; everything before is intact.
        """
        if not answered:
            return
        answers = {_key(d, version): {"seen": _seen(d), **_row(generation)} for d, generation in answered}
        try:
            if not self._header:
                append_line(self.path, {"run": self.run})
                self._header = True
            append_line(self.path, {"answers": answers})
        except OSError as error:
            raise RunFolderError(
                f"{self.path} could not be written: {error.strerror or error}. The last checkpoint and everything "
                "before it are intact; make space and start the same command again to resume"
            ) from error

    def clear(self) -> None:
        """Forget everything: a checkpoint now holds what came of it."""
        self._known.clear()
        self._lost.clear()
        self._header = False
        self.path.unlink(missing_ok=True)

    def _rewrite(self, lines: Sequence[bytes]) -> None:
        """Keep the lines that were understood, so that new ones follow them."""
        if not self._known:
            self.clear()
            return
        kept = []
        for line in lines:
            try:
                json.loads(line)
            except ValueError:
                break
            kept.append(line + b"\n")
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.write_bytes(b"".join(kept))
        beside.replace(self.path)
        self._header = True


def _key(decision: Decision, version: int) -> str:
    """Weights, request, attempt and sampling: an evaluation asks the same again under other weights."""
    sampling = _digest(repr(decision.sampling))
    return f"{version}|{decision.request_id}|{decision.attempt}|{sampling}"


def _seen(decision: Decision) -> str:
    """What the policy is shown: ids and text, since a cut observation may hide a difference."""
    return _digest(f"{decision.prompt_ids}\x1f{decision.observation.goal}\x1f{decision.observation.text}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _row(generation: Generation) -> dict[str, Any]:
    row = asdict(generation)
    return {name: row[name] for name in ("token_ids", "logprobs", "finish_reason", "spans", "cached_tokens")}


def _generation(row: dict[str, Any]) -> Generation:
    return Generation(
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        finish_reason=row["finish_reason"],
        spans=tuple(Span(**span) for span in row["spans"]),
        cached_tokens=row["cached_tokens"],
    )
