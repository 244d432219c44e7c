"""Teachers for MiniWoB++: a script from `scripts.py` together with the memory of one episode."""

from __future__ import annotations

from dataclasses import dataclass, field

from rollwright.contracts import Environment, Observation

from ..scene import Scene, read_lines
from .scripts import SCRIPTS, Script


@dataclass(slots=True)
class PageTeacher:
    """Plays one task by its script. An observation with a goal starts a new episode."""

    script: Script
    goal: str = ""
    turn: int = 0
    notes: dict[str, list[str]] = field(default_factory=dict)

    def act(self, env: Environment, observation: Observation) -> str:
        """The script's next action."""
        if observation.goal:
            self.goal, self.turn, self.notes = observation.goal, 0, {}
        text = observation.text
        scene = Scene(goal=self.goal, text=text, lines=read_lines(text), turn=self.turn, notes=self.notes)
        self.turn += 1
        return self.script(scene)


def teacher_for(task: str) -> PageTeacher | None:
    """A teacher for one task, or None where there is none."""
    return PageTeacher(SCRIPTS[task]) if task in SCRIPTS else None
