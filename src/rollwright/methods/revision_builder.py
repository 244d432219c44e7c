"""From search trees to what Agent-R imitates: pairs, cuts, records, and the numbers that say how it went.

Source: arXiv:2501.11425.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rollwright.config import Config, Readers
from rollwright.contracts import (
    ConfigError,
    DataError,
    Group,
    Idles,
    Reward,
    SnapshotKind,
    Task,
    TellsDistance,
    Trajectory,
    World,
)
from rollwright.generation import Engine
from rollwright.methods.revision_pairs import (
    Merit,
    RevisionPair,
    Threshold,
    family_pairs,
    is_good,
    kept_steps,
    leaf_score,
    repeats_failing_action,
)
from rollwright.methods.revision_ratings import Verifier, no_distances, open_verifier
from rollwright.methods.revisions import (
    RevisionMessage,
    Script,
    Splice,
    message_template,
    revision_script,
    splice_replay,
    splice_text,
)
from rollwright.methods.turn_lessons import Lesson, episode_lessons
from rollwright.models import ChatCodec
from rollwright.rollout import Collector, RolloutSettings, score_or_note

Judge = Literal["actor", "value", "world"]


OK = "ok."
"""What a world is said to answer to a revision message, in a record that is not replayed."""


class RevisionSettings(Config):
    """Which two leaves of a tree make a revision, where the worse one is cut, and how they are joined."""

    merit: Merit = Field(
        "return",
        description="What a leaf is judged by. return: its return, within [0, 1]; success: 1 or 0 by its verdict;"
        " discounted_success: that times `discount` to the number of turns before the last.",
    )
    discount: float = Field(0.98, gt=0, le=1, description="discounted_success: factor per turn.")
    alphas: list[float] = Field(
        [0.5, 0.7, 1.0], description="Score that a good leaf has to reach in each round; later rounds have the last."
    )
    threshold: Threshold = Field(
        "at_least", description="at_least: a good leaf scores alpha or more; above: more than alpha, as released."
    )
    beta: float = Field(0.2, ge=0, description="Gap by more than which the good leaf has to be better than the bad.")
    pairs_per_tree: int = Field(4, ge=0, description="Most pairs of one tree, drawn by the run's seed; 0 = all.")
    verifier: Judge = Field(
        "actor",
        description="Who finds the first bad action. actor: the policy itself, asked for good, bad or uncertain; value:"
        " a drop in the mean score of the leaves below; world: the world, where it knows distances.",
    )
    drop: float = Field(0.0, ge=0, description="value: drop above which an action is bad.")
    splice: Splice = Field(
        "auto",
        description="text: copy the good leaf's observations, as released. replay: do all actions in a real"
        " environment and keep what comes out as well. auto: replay in worlds with exact snapshots.",
    )
    tolerance: float = Field(
        0.0, ge=0, description="How far below the good leaf's score a replayed record may end (splice=text has none)."
    )
    revise: Literal["message", "none"] = Field(
        "message", description="message: a turn between bad and good steps says that it was wrong; none: no such turn."
    )
    wait: str = Field("", description="Action of the revision message; empty = the world's own that changes nothing.")
    revision: str = Field(
        "", description="Text of the revision message, with {thought} and {wait}; empty = chosen by `rollout.action`."
    )

    only_for: ClassVar[Readers] = {
        "discount": {"merit": ("discounted_success",)},
        "drop": {"verifier": ("value",)},
        "tolerance": {"splice": ("auto", "replay")},
        "wait": {"revise": ("message",)},
        "revision": {"revise": ("message",)},
    }

    @model_validator(mode="after")
    def _thresholds_can_be_met(self) -> RevisionSettings:
        if not self.alphas or not all(0 <= alpha <= 1 for alpha in self.alphas):
            raise ValueError(f"`alphas={self.alphas}`: scores lie within [0, 1], so give one or more numbers in it")
        if self.threshold == "above" and max(self.alphas) >= 1:
            raise ValueError(
                f"`threshold=above` with `alphas={self.alphas}`: no score lies above 1, so that round would have no "
                "data. Use `threshold=at_least`, or lower the last alpha"
            )
        if self.beta >= 1:
            raise ValueError(f"`beta={self.beta:g}`: scores lie within [0, 1], so no two are further apart than 1")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Revisions:
    """What one round is learned from, and what is told of it.

    records: revisions. good: leaves that are imitated whole.
    """

    records: list[Trajectory]
    good: list[Trajectory]
    best_score: float
    metrics: dict[str, float] = field(default_factory=dict)

    def lessons(self, *, good: bool) -> list[Lesson]:
        """The turns that have something to be learned: those of the records, and of good leaves where `good`."""
        kept = [*self.records, *self.good] if good else self.records
        return [lesson for episode in kept for lesson in episode_lessons(episode)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionBuilder:
    """Makes the records of a round.

    judge: lays the reward on replayed records. message: None = no turn between bad and good steps.
    """

    settings: RevisionSettings
    collector: Collector
    verifier: Verifier
    message: RevisionMessage | None
    judge: Callable[[Group], Group]
    history: bool
    """Whether a prompt shows earlier turns: copied records then need the answer to the message alone."""

    def build(self, families: Sequence[Group], *, alpha: float, key: str) -> Revisions:
        """The records and good leaves of these families, each of one task and seed.

        Args:
            alpha: the round's threshold. key: fixes the draws of pairs and phrases.

        Raises:
            DataError: a family of a held-out split, or a return above 1.
        """
        leaves = [[leaf for leaf in family.trajectories if leaf.learnable] for family in families]
        scores = [[self.score(leaf) for leaf in family] for family in leaves]
        pairs = [pair for number in range(len(leaves)) for pair in self._pairs(leaves, scores, number, alpha, key)]
        before = self.verifier.env_calls
        kept = [kept_steps(ratings) for ratings in self.verifier.rate(pairs)]
        # The place is part of the name: one pair of leaves is drawn once in a round.
        names = [f"{key}/revision/{place}" for place in range(len(pairs))]
        scripts = [revision_script(p, k, self.message, key=name) for p, k, name in zip(pairs, kept, names, strict=True)]
        spliced, calls = self._spliced(scripts)
        records = [record for record in spliced if record is not None]
        threshold = self.settings.threshold
        good = [
            leaf
            for family, values in zip(leaves, scores, strict=True)
            for leaf, score in zip(family, values, strict=True)
            if is_good(score, alpha, threshold)
        ]
        flat = [score for family in scores for score in family]
        return Revisions(
            records=records,
            good=good,
            best_score=max(flat, default=0.0),
            metrics=_told(leaves, pairs, kept, records, good, alpha)
            | {"revisions/env_calls_count": float(calls + self.verifier.env_calls - before)},
        )

    def score(self, leaf: Trajectory) -> float:
        """What a leaf is judged by."""
        return leaf_score(leaf, self.settings.merit, self.settings.discount)

    def _pairs(
        self,
        leaves: Sequence[Sequence[Trajectory]],
        scores: Sequence[Sequence[float]],
        number: int,
        alpha: float,
        key: str,
    ) -> list[RevisionPair]:
        settings = self.settings
        return family_pairs(
            leaves[number],
            scores[number],
            alpha=alpha,
            beta=settings.beta,
            threshold=settings.threshold,
            at_most=settings.pairs_per_tree,
            key=f"{key}/{number}",
        )

    def _spliced(self, scripts: Sequence[Script]) -> tuple[list[Trajectory | None], int]:
        """The records, None for those that were refused, and the calls of the world that they cost."""
        settings = self.settings
        if splice_of(settings.splice, self.collector.world.snapshots) == "text":
            answer = OK if self.history else None
            return [splice_text(script, self.collector.new_context, answer=answer) for script in scripts], 0
        # One reset, and a step for each turn.
        calls = sum(1 + len(script.turns) for script in scripts)
        args = (self.judge, self.score, settings.tolerance)
        return splice_replay(self.collector, scripts, judge=args[0], score=args[1], tolerance=args[2]), calls


def _told(
    leaves: Sequence[Sequence[Trajectory]],
    pairs: Sequence[RevisionPair],
    kept: Sequence[int],
    records: Sequence[Trajectory],
    good: Sequence[Trajectory],
    alpha: float,
) -> dict[str, float]:
    flat = [leaf for family in leaves for leaf in family]
    told = {
        "revisions/alpha": alpha,
        "revisions/leaves_count": float(len(flat)),
        "revisions/solved_frac": sum(any(t.success for t in f) for f in leaves) / max(1, len(leaves)),
        "revisions/pairs_count": float(len(pairs)),
        "revisions/records_count": float(len(records)),
        "revisions/good_count": float(len(good)),
        "revisions/rejected_frac": 1.0 - len(records) / len(pairs) if pairs else 0.0,
        "revisions/repeat_frac": sum(map(repeats_failing_action, flat)) / max(1, len(flat)),
    }
    # Where the worse episode is left, in steps of its own: it should come earlier from round to round.
    return told | ({"revisions/cut_mean": fmean(kept)} if kept else {})


def splice_of(splice: Splice, snapshots: SnapshotKind) -> Splice:
    """The way that `auto` stands for in a world with such snapshots."""
    if splice != "auto":
        return splice
    return "replay" if snapshots == "exact" else "text"


def require_disjoint(tasks: Mapping[str, Sequence[Task]]) -> None:
    """Raises DataError where a training task has the id of a held-out one: no search may touch what judges it."""
    train = {task.id for task in tasks.get("train", ())}
    shared = sorted(train & {task.id for split, listed in tasks.items() if split != "train" for task in listed})
    if shared:
        raise DataError(
            f"{len(shared)} training tasks are held-out tasks too, such as {shared[0]!r}: a search on them would see "
            "what the policy is judged on. Give every task to one split"
        )


def waiting_action(settings: RevisionSettings, world: World) -> str:
    """The action of revision messages; empty where there are none.

    Raises:
        ConfigError: the world has no action that changes nothing, and none is named.
    """
    if settings.revise == "none":
        return ""
    wait = settings.wait or (world.no_op if isinstance(world, Idles) else "")
    if not wait:
        raise ConfigError(
            f"`algorithm.revise=message`: a revision message needs an action that changes nothing, and {world.name} "
            "names none (`no_op`). Name one in `algorithm.wait`, or leave the message out by `algorithm.revise=none`"
        )
    return wait


def require_revisable(settings: RevisionSettings, world: World, rollout: RolloutSettings) -> None:
    """Refuse, before any weight is loaded, what this world or this context cannot do.

    Raises:
        ConfigError: see the messages.
    """
    if settings.verifier == "world" and not isinstance(world, TellsDistance):
        raise ConfigError(no_distances(world.name))
    if wait := waiting_action(settings, world):
        message_template(rollout.action, settings.revision, wait)
        # The prompt after the message would be the prompt before it: two answers to one question.
        if not shows_history(rollout):
            raise ConfigError(
                "`algorithm.revise=message` with `rollout.context=windowed` and `rollout.history=0`: the policy could "
                "not see that it has just revised, and would do it again and again. Set rollout.history to 1 or more, "
                "rollout.context=append, or algorithm.revise=none"
            )


def shows_history(rollout: RolloutSettings) -> bool:
    """Whether a prompt shows what was done before."""
    return rollout.context == "append" or rollout.history > 0


def open_builder(
    settings: RevisionSettings,
    rollout: RolloutSettings,
    collector: Collector,
    *,
    engine: Engine,
    codec: ChatCodec,
    reward: Reward,
) -> RevisionBuilder:
    """What makes the records of each round of a run.

    Raises:
        ConfigError: as `require_revisable`.
    """
    wait = waiting_action(settings, collector.world)
    template = message_template(rollout.action, settings.revision, wait) if wait else ""
    return RevisionBuilder(
        settings=settings,
        collector=collector,
        verifier=open_verifier(settings.verifier, drop=settings.drop, collector=collector, engine=engine, codec=codec),
        message=RevisionMessage(wait=wait, template=template, encode=codec.encode_action) if wait else None,
        # The reward alone: a curriculum learns from what the policy did, not from records.
        judge=lambda group: score_or_note(group, reward, collector.faults),
        history=shows_history(rollout),
    )


def nothing_to_imitate(found: Revisions, *, alpha: float, trees: int) -> str:
    """What is said of a round without a good leaf, and how to go on."""
    return (
        f"no leaf of {trees} trees scored {alpha:g} (algorithm.alphas), the best one {found.best_score:g}, so there is "
        "nothing to imitate. Search further (search.simulations, search.max_depth), ask for less (algorithm.alphas), "
        "search more tasks (rollout.groups_per_step), or start from a policy that sometimes succeeds (recipes/sft.py)"
    )
