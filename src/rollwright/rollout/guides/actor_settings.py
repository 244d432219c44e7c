"""The section `actor`: who acts in training beside the policy, how often, and who watches over it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from rollwright.config import OWN, Config, Limits, Parts, Readers

GuideName = Literal["none", "teacher", "store", "model", "endpoint", "hinted"]
_SOME = tuple(name for name in get_args(GuideName) if name != "none")
_SAMPLES = ("model", "endpoint", "hinted")
OVERSEERS = Parts(
    what="overseer",
    options="overseer_options",
    given=("world",),
    ours={
        "none": "rollwright.rollout.guides.overseers:nobody",
        "world": "rollwright.rollout.guides.overseers:WorldOverseer",
    },
)


class ActorSettings(Config):
    """Who acts in training beside the policy. `actor=teacher` is short for `actor.guide=teacher`; evaluation ignores
    all of it."""

    guide: GuideName = Field(
        "none",
        description="Who takes turns from the policy. teacher: the world's script; store: stored episodes; model: a "
        "model folder with its own weights; endpoint: an OpenAI-compatible server; hinted: the policy "
        "with a hint in its prompt.",
    )
    mix: Literal["turn", "episode", "prefix"] = Field(
        "turn",
        description="What the guide takes: single turns, whole episodes, or the first turns of a group's episodes.",
    )
    guide_frac: float = Field(
        0.5, ge=0, le=1, description="Share of turns, of episodes, or of groups with a prefix, that the guide plays."
    )
    schedule: Literal["constant", "linear"] = Field(
        "constant", description="linear: guide_frac falls to 0 over schedule_steps steps."
    )
    schedule_steps: int = Field(100, ge=1, description="linear: step at which the guide is silent.")
    prefix_turns: int = Field(
        4, ge=1, description="prefix: maximum length of a prefix in turns; each length from 1 on is equally likely."
    )
    store: str = Field("", description="store: folder of stored trajectories, tried in the order of their returns.")
    model: str = Field("", description="model: folder or hub name. endpoint: name of the model that is asked for.")
    url: str = Field("", description="endpoint: address of the API, such as http://localhost:8000/v1.")
    key_variable: str = Field(
        "", description="endpoint: environment variable that holds the API key; empty = no key is sent."
    )
    temperature: float = Field(0.0, ge=0, description="Sampling temperature of the guide; 0 = greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="model, hinted: nucleus of the guide's sampling.")
    hint: str = Field("", description="hinted: the text that only the guide is shown.")
    hint_place: Literal["system", "observation"] = Field(
        "system", description="hinted: whether the hint ends the instructions or stands before the latest observation."
    )
    overseer: Annotated[str, OVERSEERS] = Field(
        "none",
        description="Who may replace a proposed action before the world is given it. world: the world knows its "
        "dangerous actions; or your own rule.",
    )
    overseer_options: dict[str, Any] = Field({}, description="Arguments of your own overseer.")

    shorthand = "guide"
    limits: ClassVar[Limits] = {
        "prefix_turns": (1_000_000, "no episode has more turns"),
        "schedule_steps": (10_000_000, "no run has more steps"),
    }
    only_for: ClassVar[Readers] = {
        "mix": {"guide": _SOME},
        "guide_frac": {"guide": _SOME},
        "schedule": {"guide": _SOME},
        "schedule_steps": {"guide": _SOME, "schedule": ("linear",)},
        "prefix_turns": {"guide": _SOME, "mix": ("prefix",)},
        "store": {"guide": ("store",)},
        "model": {"guide": ("model", "endpoint")},
        "url": {"guide": ("endpoint",)},
        "key_variable": {"guide": ("endpoint",)},
        "temperature": {"guide": _SAMPLES},
        "top_p": {"guide": ("model", "hinted")},
        "hint": {"guide": ("hinted",)},
        "hint_place": {"guide": ("hinted",)},
        "overseer_options": {"overseer": (OWN,)},
    }

    @model_validator(mode="after")
    def _the_guide_is_named(self) -> ActorSettings:
        needed = {"store": ("store",), "model": ("model",), "endpoint": ("url", "model"), "hinted": ("hint",)}
        for key in needed.get(self.guide, ()):
            if not getattr(self, key).strip():
                raise ValueError(f"`guide={self.guide}` needs `{key}`, which is empty")
        return self

    @property
    def active(self) -> bool:
        """Whether anybody but the policy acts at all."""
        return self.guide != "none" or self.overseer != "none"

    def share_at(self, step: int) -> float | None:
        """What a guide plays of this step's episodes (`GroupRequest.guide_frac`); None where the policy is alone."""
        if not self.active:
            return None
        if self.guide == "none":
            return 0.0  # an overseer watches, nobody guides
        left = max(0.0, 1.0 - step / self.schedule_steps) if self.schedule == "linear" else 1.0
        return self.guide_frac * left
