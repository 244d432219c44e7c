"""Stored trajectories as labelled cases for a judge of outcomes, and their split into training and held-out ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rollwright.errors import DataError
from rollwright.outcome_settings import JudgeModel
from rollwright.outcome_text import Evidence, OutcomePrompt, evidence_of
from rollwright.store import TrajectoryStore
from rollwright.types import Trajectory

_TINY_VOCABULARY = 8192
"""Most words of a tiny judge; the texts of a world that fits one have fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One judged episode: what a model reads, the world's verdict, and where it comes from."""

    evidence: Evidence
    success: bool
    task: str
    seed: int
    trajectory: str


def read_cases(stores: Sequence[str | Path]) -> list[Case]:
    """The episodes of the train split that ended without a fault, have a verdict and text to read.

    Episodes of held-out tasks are left out, so that a judge never learns what a policy is tested on.

    Raises:
        DataError: no store, one of another schema version, no verdict in any episode, no text, or verdicts all alike.
    """
    if not stores:
        raise DataError("an outcome model learns from stored trajectories: name some in replay.stores")
    cases: list[Case] = []
    seen = unjudged = unreadable = 0
    for store in stores:
        for trajectory in TrajectoryStore(store, mode="read").iter_trajectories(split="train"):
            if trajectory.stop_reason.is_fault:
                continue
            seen += 1
            evidence = evidence_of(trajectory)
            unjudged += trajectory.success is None
            unreadable += evidence is None
            if evidence is not None and trajectory.success is not None:
                cases.append(_case(trajectory, evidence, trajectory.success))
    where = ", ".join(map(str, stores))
    if not cases:
        raise DataError(
            f"{where}: none of {seen} episodes of the train split has both a verdict and text to read ({unjudged} "
            f"without a verdict, {unreadable} without messages): collect them in a world that says whether a task "
            "succeeded, or label the store first (rollwright score)"
        )
    require_both(cases, where)
    return cases


def _case(trajectory: Trajectory, evidence: Evidence, success: bool) -> Case:
    return Case(
        evidence=evidence, success=success, task=trajectory.task.id, seed=trajectory.seed, trajectory=trajectory.id
    )


def require_both(cases: Sequence[Case], where: str) -> None:
    """Raises DataError unless there are successes and failures."""
    won = sum(case.success for case in cases)
    if won in (0, len(cases)):
        raise DataError(
            f"{where}: all {len(cases)} judged episodes are {'successes' if won else 'failures'}, so nothing tells one "
            "from the other; add episodes of a weaker or a stronger policy"
        )


def split_cases(cases: Sequence[Case], *, held_out_frac: float, seed: int) -> tuple[list[Case], list[Case]]:
    """Training and held-out cases, whole trajectories; episodes that read exactly alike fall on the same side.

    Otherwise short episodes, of which a store holds many copies, would be tested on what was trained on.

    Raises:
        DataError: a side lacks one of the two classes.
    """
    held = [_unit(seed, case.evidence) < held_out_frac for case in cases]
    train = [case for case, out in zip(cases, held, strict=True) if not out]
    test = [case for case, out in zip(cases, held, strict=True) if out]
    for name, part in (("training", train), ("held-out", test)):
        require_both(part, f"the {name} part ({held_out_frac:g} of {len(cases)} episodes are held out)")
    return train, test


def _unit(seed: int, evidence: Evidence) -> float:
    """A number in [0, 1) fixed by the seed and the text."""
    digest = hashlib.sha256(f"{seed}\0{evidence!r}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def starting_model(
    settings: JudgeModel, cases: Sequence[Case], prompt: OutcomePrompt, run_folder: Path, *, max_length: int, seed: int
) -> Path:
    """The folder of the model to train; `tiny` is made from the words of the training cases, its weights by the seed.

    Raises:
        FileNotFoundError: no such model.
    """
    from rollwright.models import resolve_model
    from rollwright.tiny import make_tiny_model

    if settings.path != "tiny":
        return resolve_model(settings.path)
    texts = dict.fromkeys(m.content for case in cases for m in prompt.messages(case.evidence))
    return make_tiny_model(
        run_folder / "tiny_model",
        texts=[*texts, prompt.yes, prompt.no],
        vocab_size=_TINY_VOCABULARY,
        hidden=settings.tiny_hidden,
        layers=settings.tiny_layers,
        context_length=max_length,
        seed=seed,
    )
