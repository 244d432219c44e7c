"""What the data of Agent-R are made by: which leaves make a pair, who finds the first error, how the two are joined."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rollwright.config import Config, Readers
from rollwright.methods.revision_pairs import Merit, Threshold
from rollwright.methods.revisions import Splice

Judge = Literal["actor", "value", "world"]


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
