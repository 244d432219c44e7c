"""The teacher of on-policy distillation: who it is, and what it is told that the student is not.

A hint is data: it is rendered into the teacher's prompt and never evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field, model_validator

from rollwright.config import Config, Readers
from rollwright.contracts import ConfigError, Group, Task, Taught, World
from rollwright.learner import require_same_vocabulary
from rollwright.models import ChatCodec, load_tokenizer, resolve_model
from rollwright.rollout import Collector, GroupRequest, TeacherActor

HintSource = Literal["none", "text", "world", "actions"]
_TINY = "tiny"


@runtime_checkable
class GivesHints(Protocol):
    """A world that can tell a teacher something about a task that the policy is not told."""

    def hint(self, task: Task) -> str:
        """The text, such as a combination or a rule; "" where there is none for this task."""
        ...


class TeacherSettings(Config):
    """Who scores the tokens that the policy sampled."""

    teacher: Literal["self", "model", "script"] = Field(
        "self",
        description="self: the policy's own weights. model: another model with the same tokenizer. script: the world's "
        "scripted teacher, smoothed to a distribution.",
    )
    path: str = Field("", description="model: the folder of the teacher.")
    weights: Literal["base", "live", "average"] = Field(
        "base", description="self: the weights at the start of the run, those of now, or a moving average."
    )
    rate: float = Field(0.05, gt=0, le=1, description="average: share of the policy's weights at each refresh.")
    refresh_every: int = Field(1, ge=1, description="live, average: steps between two refreshes.")
    hint_from: HintSource = Field(
        "none",
        description="What the teacher's prompt has besides the student's. text: `hint`. world: the world's "
        "`hint(task)`. actions: the actions of the world's scripted teacher from the same start.",
    )
    hint: str = Field("", description="text: the hint itself; actions: the words before the actions. May be empty.")
    sureness: float = Field(
        0.99, gt=0, lt=1, description="script: probability of the script's own token; the others share the rest evenly."
    )

    only_for: ClassVar[Readers] = {
        "path": {"teacher": ("model",)},
        "weights": {"teacher": ("self",)},
        "rate": {"teacher": ("self",), "weights": ("average",)},
        "refresh_every": {"teacher": ("self",), "weights": ("live", "average")},
        "hint_from": {"teacher": ("self", "model")},
        "hint": {"teacher": ("self", "model"), "hint_from": ("text", "actions")},
        "sureness": {"teacher": ("script",)},
    }

    @model_validator(mode="after")
    def _a_model_has_a_path(self) -> TeacherSettings:
        if self.teacher == "model" and not self.path:
            raise ValueError(
                "`teacher=model` needs `path`, the folder of a model with the policy's tokenizer; or use teacher=self"
            )
        return self


def require_teachable(settings: TeacherSettings, world: World, *, policy: str) -> None:
    """Raises ConfigError, before any weight is loaded, where the world cannot give what the teacher is to be told.

    Args:
        policy: the policy's `model.path`, whose tokenizer a teacher of another model must share.
    """
    if settings.teacher == "model" and policy != _TINY:
        both = load_tokenizer(resolve_model(policy)), load_tokenizer(resolve_model(settings.path))
        require_same_vocabulary(*both, name=settings.path)
    if settings.teacher == "script":
        if not isinstance(world, Taught) or world.execution != "inline":
            raise ConfigError(
                f"distill.teacher=script asks a scripted teacher at every state that the policy met, and {world.name} "
                "has no teacher, or not one that answers at once: use distill.teacher=self or model"
            )
        return
    if settings.hint_from == "world" and not isinstance(world, GivesHints):
        raise ConfigError(
            f"distill.hint_from=world needs a world with `hint(task)`, and {world.name} has none: use "
            "distill.hint_from=text with distill.hint, or give the world that method"
        )
    if settings.hint_from == "actions" and not isinstance(world, Taught):
        raise ConfigError(
            f"distill.hint_from=actions plays the world's scripted teacher, and {world.name} has none: use "
            "distill.hint_from=text with distill.hint"
        )


class HintGiver:
    """What the teacher is told of each group's task; nothing of it reaches the student.

    Args:
        collector: plays the world's teacher where its actions are the hint.
    """

    def __init__(self, settings: TeacherSettings, collector: Collector, codec: ChatCodec) -> None:
        self.settings, self.collector, self.codec = settings, collector, codec
        self.turns_played = 0
        """Turns that the world's teacher took for hints, as they cost calls of the environment."""

    def hints(self, groups: Sequence[Group]) -> dict[str, str | None]:
        """Id of each group -> what its teacher is told; None where no hint could be made for it."""
        source = self.settings.hint_from
        if source == "actions":
            return self._actions(groups)
        return {group.id: self._told(group.task) for group in groups}

    def _told(self, task: Task) -> str:
        world = self.collector.world
        if self.settings.hint_from == "world" and isinstance(world, GivesHints):
            return world.hint(task)
        return self.settings.hint if self.settings.hint_from == "text" else ""

    def _actions(self, groups: Sequence[Group]) -> dict[str, str | None]:
        """One episode of the world's teacher per group, from the group's own start."""
        teacher = TeacherActor(self.collector.world, self.codec.encode_action)
        asked = [
            GroupRequest(key=f"hint/{g.id}", task=g.task, seed=g.seed, size=1)
            for g in groups
            if teacher.world.teacher(g.task) is not None
        ]
        played = self.collector.collect_by(teacher, asked)
        episodes = [t for group in played for t in group.trajectories[:1] if t.learnable and t.turns]
        self.turns_played += sum(len(t.turns) for t in episodes)
        known = {(t.task.id, t.seed): "\n".join(turn.action for turn in t.turns) for t in episodes}
        words = self.settings.hint or "The right actions, in order:"
        return {g.id: f"{words}\n{known[g.task.id, g.seed]}" if (g.task.id, g.seed) in known else None for g in groups}
