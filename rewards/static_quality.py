"""Quality of a unit test by its syntax tree alone: good practices present, test smells absent. Nothing is run.

Each property is 1 or 0, and -1 throughout where the text is no Python: a smell must not be absent because there is no
test. The reward is the mean over the chosen properties.
Source: arXiv:2310.02368 (RLSQM), for Python's `assert`, `self.assert*` and `pytest.raises`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rollwright.contracts import ConfigError, Group, Score, Task, Trajectory
from rollwright.envs.code.sandbox.rules import rule
from rollwright.rewards.static_rule import PROPERTIES, properties

__all__ = ["DEFAULT", "PROPERTIES", "StaticQualityReward", "build", "properties"]

DEFAULT = ("focal_call", "assertion", "descriptive_name", "no_duplicate_assertion", "no_conditional")


class StaticQualityReward:
    """Mean of the chosen properties of the last action's test. No score for a task without `focal` in its params."""

    name = "static_quality"

    def __init__(self, chosen: Sequence[str]) -> None:
        self._chosen = tuple(chosen)

    def score(self, group: Group) -> Sequence[Score]:
        """The share of the properties that each episode's code has."""
        return [self._score(group.task, trajectory) for trajectory in group.trajectories]

    def _score(self, task: Task, trajectory: Trajectory) -> Score:
        focal = task.params.get("focal")
        if not isinstance(focal, str):
            said = f"task {task.id!r} names no focal function in its params"
            return Score(value=None, verifier=self.name, message=said)
        # In a box: some texts exhaust the memory of Python's parser.
        called = rule("rollwright.rewards.static_rule")("properties_of", trajectory.turns[-1].action, focal)
        read = called.how == "value"
        # -1 as for a text that is no Python: the policy must not gain by what cannot be read.
        found = called.value if read else dict.fromkeys(PROPERTIES, -1)
        # Each property's share of the mean, so that the parts sum to the value.
        share = {name: int(found[name]) / len(self._chosen) for name in self._chosen}
        said = "" if read else f"the text cannot be read: {called.message}"
        return Score(value=sum(share.values()), verifier=self.name, parts=share, message=said)


def build(*, properties: Sequence[str] = DEFAULT) -> StaticQualityReward:
    """Static quality of unit tests.

    Args:
        properties: those whose mean is the reward.

    Raises:
        ConfigError: no property, one twice, or one that does not exist.
    """
    unknown = [name for name in properties if name not in PROPERTIES]
    if unknown or not properties or len(set(properties)) != len(properties):
        raise ConfigError(
            f"static_quality has no properties {unknown}; expected some of {', '.join(PROPERTIES)}, each once"
        )
    return StaticQualityReward(properties)
