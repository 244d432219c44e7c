"""A trajectory as a judge reads it: goal, what was done, and the last state that was seen; and the prompt around it.

No reward, no verdict and no task parameter enters: a world may keep the solution there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rollwright.contracts import Message, Trajectory

_GOAL, _DID = "Task: ", "Did: "
_ACTION_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a judge is shown of an episode.

    state: the last observation the policy saw, so the one *before* its last action. What the last action brought is not
    in the record; a judge has to read it off the action.
    instructions: the world's rules, as the policy was given them; empty where it was given none.
    """

    goal: str
    actions: tuple[str, ...]
    state: str
    instructions: str = ""


def evidence_of(trajectory: Trajectory) -> Evidence | None:
    """The evidence of an episode; None where its record holds no text to judge (no turn, or no message)."""
    seen = [_user_text(turn.observed) for turn in trajectory.turns]
    if not any(seen):
        return None
    # Turns without text are passed over: the goal is on the first text, the state is the last one.
    last = max(place for place, text in enumerate(seen) if text)
    goal, _ = _goal_and_rest(next(text for text in seen if text))
    _, state = _goal_and_rest(seen[last])
    actions = [_one_line(turn.action) for turn in trajectory.turns] if trajectory.has_actions else []
    return Evidence(
        goal=goal,
        actions=tuple(actions),
        # The line of history lists what was done before this state, so not the last actions.
        state=_without_history(state, actions[:last]),
        instructions="\n".join(m.content for m in trajectory.turns[0].observed if m.role == "system"),
    )


def _user_text(observed: Iterable[Message]) -> str:
    return "\n".join(message.content for message in observed if message.role == "user")


def _goal_and_rest(text: str) -> tuple[str, str]:
    """The goal that a context writes on the first line, and the observation under it."""
    if not text.startswith(_GOAL):
        return "", text
    goal, _, rest = text.removeprefix(_GOAL).partition("\n")
    return goal, rest


def _without_history(state: str, before: Sequence[str]) -> str:
    """The state without the line of earlier actions that a windowed context ends with: they are listed anyway."""
    head, _, line = state.rpartition("\n")
    if not before or not line.startswith(_DID):
        return state
    # A world's own text may begin with "Did: " too, so the line goes only if it ends with the action before.
    return head if _ends_with(line.removeprefix(_DID), before[-1]) else state


def _ends_with(history: str, action: str) -> bool:
    """Whether a list of actions, "; " between them, ends with this one, whole or cut short by dots."""
    parts = history.split("; ")  # an action may hold the separator itself
    tails = ("; ".join(parts[start:]) for start in range(len(parts)))
    return any(tail == action or (tail.endswith("...") and action.startswith(tail[:-3])) for tail in tails)


def _one_line(action: str) -> str:
    # An action that is empty keeps its place in the list.
    line = " ".join(action.split()) or "(empty)"
    return line if len(line) <= _ACTION_CHARS else line[:_ACTION_CHARS] + "..."


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomePrompt:
    """The words around the evidence. Saved beside a trained model, so that it is always asked as it was trained.

    max_actions: the latest actions that are listed; the number left out is said.
    with_instructions: show the world's rules too, for a judge that was not trained on this world.
    """

    system: str = "Judge whether an agent has completed its task. Answer YES or NO."
    question: str = "Completed?"
    yes: str = "YES"
    no: str = "NO"
    max_actions: int = 50
    with_instructions: bool = False

    def messages(self, evidence: Evidence) -> tuple[Message, ...]:
        """The question as a conversation; the answer follows it."""
        # [-0:] would be the whole list.
        kept = evidence.actions[-self.max_actions :] if self.max_actions else ()
        left_out = len(evidence.actions) - len(kept)
        first = [f"({left_out} earlier ones are not shown)"] if left_out else []
        lines = [
            f"Rules: {evidence.instructions}" if self.with_instructions and evidence.instructions else "",
            f"Task: {evidence.goal}" if evidence.goal else "",
            f"State before the last action:\n{evidence.state}",
            "Actions: " + "; ".join([*first, *kept]),
            self.question,
        ]
        user = "\n".join(line for line in lines if line)
        return (Message(role="system", content=self.system), Message(role="user", content=user))
