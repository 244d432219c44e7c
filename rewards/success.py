"""One for an episode that the environment calls a success, nothing for one that it calls a failure."""

from __future__ import annotations

from rollwright.contracts import Group, Score


class SuccessReward:
    """1.0, 0.0, or no score where the environment gave no verdict (a step limit may cut before there is one)."""

    name = "success"

    def score(self, group: Group) -> list[Score]:
        """1 or 0 by the environment's verdict; no score where it gave none."""
        # None stays None: a step limit without a verdict is no failure.
        return [
            Score(value=None, verifier=self.name, message="the environment gave no verdict")
            if trajectory.success is None
            else Score(value=float(trajectory.success), verifier=self.name)
            for trajectory in group.trajectories
        ]


def build() -> SuccessReward:
    """The environment's verdict as the only reward, on the last turn."""
    return SuccessReward()
