"""Stored trajectories as labelled cases for a judge of outcomes, and their split into training and held-out ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rollwright.contracts import ConfigError, DataError, Message, Trajectory
from rollwright.methods.outcome_model import OutcomeModel, prompt_ids
from rollwright.methods.outcome_settings import JudgeModel
from rollwright.methods.outcome_text import Evidence, OutcomePrompt, evidence_of
from rollwright.models import ChatCodec, config_of, positions_of
from rollwright.store import TrajectoryStore

log = logging.getLogger(__name__)
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
            # An episode that ended in a fault was not lost by the policy.
            if trajectory.stop_reason.is_fault:
                continue
            seen += 1
            evidence = evidence_of(trajectory)
            # Counted apart for the message: the two have different remedies.
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
    if not cases:
        raise DataError(
            f"{where}: there is no episode in it, and both successes and failures are needed; collect more episodes, "
            "or choose another data.held_out_frac or run.seed"
        )
    if won in (0, len(cases)):
        raise DataError(
            f"{where}: all {len(cases)} judged episodes are {'successes' if won else 'failures'}, so nothing tells one "
            "from the other; add episodes of a weaker or a stronger policy, or of either where there are few"
        )


def split_cases(
    cases: Sequence[Case], prompt: OutcomePrompt, *, held_out_frac: float, seed: int
) -> tuple[list[Case], list[Case]]:
    """Training and held-out cases, whole trajectories; episodes that read exactly alike fall on the same side.

    Otherwise short episodes, of which a store holds many copies, would be tested on what was trained on. What counts is
    what the prompt shows: long episodes that differ in old actions alone, which it leaves out, are alike too.

    Raises:
        DataError: a side lacks one of the two classes.
    """
    # The side depends on what is read and on the seed alone, so equal prompts fall together in any store.
    held = [_unit(seed, prompt.messages(case.evidence)) < held_out_frac for case in cases]
    train = [case for case, out in zip(cases, held, strict=True) if not out]
    test = [case for case, out in zip(cases, held, strict=True) if out]
    for name, part in (("training", train), ("held-out", test)):
        require_both(part, f"the {name} part ({held_out_frac:g} of {len(cases)} episodes are held out)")
    return train, test


def _unit(seed: int, messages: Sequence[Message]) -> float:
    """A number in [0, 1) fixed by the seed and the text."""
    # The seed is hashed too: another one makes another split of the same store.
    digest = hashlib.sha256(f"{seed}\0{messages!r}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def prompts_apart(
    train: Sequence[Case], held_out: Sequence[Case], codec: ChatCodec, prompt: OutcomePrompt, *, max_length: int
) -> tuple[list[tuple[int, ...] | None], list[Case]]:
    """The prompts of the training cases (None = does not fit), and the held-out cases that differ from all of them.

    Prompts that were apart may become alike when they are cut; such a held-out case would be tested on what was trained
    on.

    Raises:
        DataError: what remains of the held-out part lacks one of the two classes.
    """
    # None keeps the place of a case that does not fit, so that prompts and cases stay in step.
    ids = [prompt_ids(codec, prompt, case.evidence, max_length) for case in train]
    seen = {row for row in ids if row is not None}
    # A held-out case that does not fit is None, which is never in `seen`: it stays, without a score.
    kept = [case for case in held_out if prompt_ids(codec, prompt, case.evidence, max_length) not in seen]
    if len(kept) < len(held_out):
        said = (
            f"{len(held_out) - len(kept)} of {len(held_out)} held-out episodes read like a training one once they are "
            f"cut to {max_length} tokens"
        )
        require_both(kept, f"the held-out part ({said}: raise fit.max_length)")
        log.warning("%s: the report leaves them out; a higher fit.max_length cuts less", said)
    return ids, kept


def require_scores(scores: Sequence[float | None], max_length: int) -> None:
    """Raises DataError where a model that was just trained gave no episode a score."""
    if all(score is None for score in scores):
        raise DataError(
            f"the trained model gives none of {len(scores)} episodes a score: its training diverged (lower "
            f"fit.learning_rate), or none fits into its {max_length} tokens (raise fit.max_length)"
        )


def scored_cases(model: OutcomeModel, cases: Sequence[Case]) -> tuple[list[bool], list[float], list[Case]]:
    """Labels, scores and cases of those that the model can read.

    Raises:
        DataError: there is none.
    """
    scores = model.score_evidence([case.evidence for case in cases])
    require_scores(scores, model.card.max_length)
    kept = [(case.success, score, case) for score, case in zip(scores, cases, strict=True) if score is not None]
    return [row[0] for row in kept], [row[1] for row in kept], [row[2] for row in kept]


def starting_model(
    settings: JudgeModel, cases: Sequence[Case], prompt: OutcomePrompt, run_folder: Path, *, max_length: int, seed: int
) -> Path:
    """The folder of the model to train; `tiny` is made from the words of the training cases, its weights by the seed.

    Raises:
        FileNotFoundError: no such model.
        ConfigError: it reads fewer tokens than `max_length`, or there is no tiny model of this size.
    """
    from rollwright.models import make_tiny_model, resolve_model

    if settings.path != "tiny":
        folder = resolve_model(settings.path)
        _require_context(folder, max_length)
        return folder
    # Many turns hold the same messages; the keys of a dictionary are each text once, in order.
    texts = dict.fromkeys(m.content for case in cases for m in prompt.messages(case.evidence))
    try:
        return make_tiny_model(
            run_folder / "tiny_model",
            # The answers may occur in no text, and both need a token.
            texts=[*texts, prompt.yes, prompt.no],
            vocab_size=_TINY_VOCABULARY,
            hidden=settings.tiny_hidden,
            layers=settings.tiny_layers,
            context_length=max_length,
            seed=seed,
        )
    except ValueError as error:
        raise ConfigError(
            f"model.path=tiny cannot be made: {error}. model.tiny_hidden must be a multiple of 32; for a world of more "
            "words name a model, such as model.path=smollm2"
        ) from error


def _require_context(folder: Path, max_length: int) -> None:
    """Raises ConfigError where prompts would be longer than what the model can read."""
    context, why = positions_of(config_of(folder))
    if context and max_length > context:
        raise ConfigError(
            f"fit.max_length = {max_length}, but the model in {folder} reads {context} tokens{why}: set fit.max_length "
            f"to {context} or less (longer prompts are cut), or name a model with a longer context"
        )
