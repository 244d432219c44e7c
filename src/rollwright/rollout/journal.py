"""What was sampled since the last checkpoint, on disk: a resumed run replays it instead of sampling it again.

One line holds the answers of one round (or of one request, where requests are answered one by one), written whole or
not at all. The world is played anew with the recorded actions, and each recorded answer is given out only where the
policy would be shown exactly what it was shown then. Each line is sealed, and the first names the checkpoint that the
answers follow: after another one, other weights would have given them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rollwright.contracts import ReplayMismatch, RunFolderError, SamplerMask, Span
from rollwright.generation import Generation
from rollwright.rollout.actors import Decision
from rollwright.run_io import append_line, seal_fault, sealed

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
        self._after = 0
        self._known: dict[str, dict[str, Any]] = {}
        self._lost: set[str] = set()
        self._header = False

    def load(self, *, after: int = 0) -> int:
        """Take in what an earlier process wrote; returns how many answers there are.

        Reading ends at the first torn or damaged line: what came after it cannot have been used by anybody.

        Args:
            after: the step of the checkpoint that the run goes on from. Answers that followed another are not used.
        """
        self._after = after
        kept: list[bytes] = []
        # As bytes: a torn line may end in the middle of a character.
        for line in self.path.read_bytes().split(b"\n") if self.path.exists() else []:
            if not line or (row := self._read_line(line, number=len(kept) + 1)) is None:
                break
            self._known |= row.get("answers", {})
            kept.append(line)
        # Lines after a damaged one would never be read, so new ones must not be appended to it.
        self._rewrite(kept)
        return len(self._known)

    def _read_line(self, line: bytes, *, number: int) -> dict[str, Any] | None:
        """One line's content; None, with a warning, where it cannot be used."""
        try:
            row: dict[str, Any] = json.loads(line)
            fault = seal_fault(row) if isinstance(row, dict) else "it is no record"
        # Damaged JSON may also nest without end: RecursionError is no ValueError.
        except (ValueError, RecursionError):
            fault = "it is torn"
        if fault:
            log.warning("%s: line %d is not used and what follows is sampled again: %s", self.path, number, fault)
        # Only the first line names run and checkpoint; the others pass by the default.
        elif row.get("run", self.run) != self.run:
            log.warning("%s belongs to a run with other settings: not used", self.path)
        elif row.get("after", self._after) != self._after:
            # An earlier one means a kill between a checkpoint and the end of its journal: nothing is lost.
            log.log(
                logging.WARNING if row["after"] > self._after else logging.INFO,
                "%s follows the checkpoint of step %d and the run goes on from step %d: its answers are not used",
                self.path,
                row["after"],
                self._after,
            )
        else:
            return row
        return None

    def recall(self, decision: Decision, *, version: int) -> Generation | None:
        """What was sampled for this very decision, or None where that is not known.

        Raises:
            ReplayMismatch: the world shows something else than it did then. The episode's records are given up.
        """
        found = self._known.get(_key(decision, version))
        if found is None or decision.episode in self._lost:
            return None
        if found["seen"] != _seen(decision):
            # The whole episode: its later records followed a state that it is no longer in.
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
            # The header comes with the first new answer; a file that was taken over has one already.
            if not self._header:
                append_line(self.path, sealed({"run": self.run, "after": self._after}))
                self._header = True
            append_line(self.path, sealed({"answers": answers}))
        except OSError as error:
            raise RunFolderError(
                f"{self.path} could not be written: {error.strerror or error}. The last checkpoint and everything "
                "before it are intact; make space and start the same command again to resume"
            ) from error

    def clear(self, *, after: int = 0) -> None:
        """Forget everything: the checkpoint of step `after` now holds what came of it."""
        self._known.clear()
        self._lost.clear()
        self._header, self._after = False, after
        self.path.unlink(missing_ok=True)

    def _rewrite(self, lines: Sequence[bytes]) -> None:
        """Keep the lines that were understood, so that new ones follow them."""
        # What lies there may belong to another run or checkpoint, and new answers must not follow it.
        if not self._known:
            self.clear(after=self._after)
            return
        # Replaced in one step: a kill in between leaves the old file or the new one, whole.
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.write_bytes(b"".join(line + b"\n" for line in lines))
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
    kept = {name: row[name] for name in ("token_ids", "logprobs", "finish_reason", "spans", "cached_tokens")}
    return kept | ({"sampler_mask": row["sampler_mask"]} if generation.sampler_mask is not None else {})


def _generation(row: dict[str, Any]) -> Generation:
    return Generation(
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        finish_reason=row["finish_reason"],
        spans=tuple(Span(**span) for span in row["spans"]),
        sampler_mask=_mask(row["sampler_mask"]) if "sampler_mask" in row else None,
        cached_tokens=row["cached_tokens"],
    )


def _mask(row: dict[str, Any]) -> SamplerMask:
    kept, raw = row["kept_ids"], row["raw_logprobs"]
    return SamplerMask(
        mask_id=row["mask_id"],
        kept_ids=None if kept is None else tuple(tuple(ids) for ids in kept),
        raw_logprobs=None if raw is None else tuple(raw),
    )
