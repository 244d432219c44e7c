"""The teacher of the sites: follows the plan that was drawn with the task, and scrolls to what is out of sight."""

from __future__ import annotations

from dataclasses import dataclass

from rollwright.contracts import Environment, Observation

from ..scene import Scene, read_lines
from .tasks.aims import Step


@dataclass(slots=True)
class PlanTeacher:
    """Plays one episode after another by their plans. An observation with a goal starts a new episode."""

    plan: tuple[Step, ...] = ()
    at: int = 0

    def act(self, env: Environment, observation: Observation) -> str:
        """The plan's next action."""
        if observation.goal:
            self.plan, self.at = env.episode.start.aim.plan, 0  # type: ignore[attr-defined]
        if self.at >= len(self.plan):
            return "noop"
        text = observation.text
        scene = Scene(goal=observation.goal, text=text, lines=read_lines(text), turn=self.at, notes={})
        action = self.plan[self.at](scene)
        if action is None:
            return "scroll 0 300" if text.endswith("more lines") else "noop"
        self.at += 1
        return action
