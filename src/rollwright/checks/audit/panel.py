"""The panel: policies whose true result is known before they play.

Three kinds of truth. `solves`: the known solution and its other spellings. `never`: cannot solve by construction, so
that every success is a false accept. `chance`: acts well-formed without looking, and can hit by luck; its successes are
false accepts above the limit unless the world declares the reason, and always count towards the floor.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rollwright.checks.audit.audit_episodes import Act, AuditEpisode, PlayRequest, script_of
from rollwright.checks.audit.hostile_panel import FORGERIES, GARBAGE, INJECTIONS
from rollwright.contracts import AuditFacts, Environment, Observation, Task

Truth = Literal["solves", "never", "chance"]
GOLDEN, REWORDED, RANDOM = "golden", "reworded", "random"
# In worlds that wait, each turn costs: a policy gets a few turns more than the solution has, and 12 at least.
_SPARE_TURNS, _FEWEST_TURNS = 3, 12
# For worlds with hardly any step limit.
_MOST_TURNS = 500
_MOST_CANDIDATES = 60
# What questions are answered with where the world tells nothing else.
_ANY_ANSWERS = ("yes", "no", "1", "2", "A", "B")
# Numbers with sign and fraction are one piece, since answers are.
_PIECE = re.compile(r"-?\d+(?:\.\d+)?|\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelStart:
    """A start of the panel, and what is known about it. `solution` is empty where the task has no teacher.

    `samples` are random well-formed actions of this start; `answers` the last actions of other starts' solutions;
    `constants` the candidates of the constant policy. `fast` says that steps take microseconds.
    """

    index: int
    task: Task
    seed: int
    facts: AuditFacts
    max_turns: int
    solution: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    fast: bool = True

    @property
    def limit(self) -> int:
        """Turns of a policy that need not wait for the step limit; in a fast world it waits all the same."""
        if self.fast:
            return self.most
        return min(self.max_turns, max(len(self.solution) + _SPARE_TURNS, _FEWEST_TURNS))

    @property
    def most(self) -> int:
        """Turns up to the step limit, so that what the limit itself pays is seen."""
        return min(self.max_turns, _MOST_TURNS)


Variants = Iterator[tuple[str, Act, int]]
"""Episodes of one policy at one start: the variant's name, what acts, and how many turns it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelPolicy:
    """A member of the panel; `needs` says what a start must have for it to play, in words."""

    name: str
    truth: Truth
    play: Callable[[PanelStart], Variants]
    needs: str = ""

    def requests(self, start: PanelStart) -> list[PlayRequest]:
        """The episodes that it plays at this start; none where the start lacks something."""
        return [
            PlayRequest(policy=self.name, task=start.task, seed=start.seed, act=act, limit=limit, variant=variant)
            for variant, act, limit in self.play(start)
        ]


def _null(start: PanelStart) -> Variants:
    yield "", lambda turn, observation, env: "", start.most


# Without any work before it: a world that asks the policy whether it is done must look for itself.
def _early_stop(start: PanelStart) -> Variants:
    if stop := start.facts.stop_action:
        yield stop, script_of([stop]), 1


def _constant(start: PanelStart) -> Variants:
    for action in start.constants:
        # `said` is bound as a default: a closure would see the loop's last action in every variant.
        yield action, lambda turn, observation, env, said=action: said, start.limit  # type: ignore[misc]


def _garbage(start: PanelStart) -> Variants:
    # From another place at each start, so that all texts are played even where episodes are short.
    yield "", lambda turn, observation, env: GARBAGE[(start.index + turn) % len(GARBAGE)], start.limit


def _repeat_last(start: PanelStart) -> Variants:
    """The first step of the solution, again and again; an action by chance where the solution has one step."""
    first = start.solution[0] if len(start.solution) > 1 else _other(start)
    if first is not None:
        yield first, lambda turn, observation, env: first, start.limit


def _loop(start: PanelStart) -> Variants:
    # A solution of two steps would be solved by the loop itself.
    pair = start.solution[:2] if len(start.solution) > 2 else start.samples[:2]
    if len(pair) == 2:
        yield " / ".join(pair), lambda turn, observation, env: pair[turn % 2], start.most


def _echo(start: PanelStart) -> Variants:
    """The observation itself, one line of it, or one word or number, by the start's place."""
    # By the start's place, so that all kinds are played without three times the episodes.
    kind = ("whole", "line", "word")[start.index % 3]

    def act(turn: int, observation: Observation, env: Environment) -> str:
        text = f"{observation.goal}\n{observation.text}" if observation.goal else observation.text
        pieces = {"whole": [text], "line": text.splitlines(), "word": _PIECE.findall(text)}[kind] or [text]
        # From the end: where a page shows its answer, it is seldom the first word.
        return pieces[-1 - (start.index // 3 + turn) % len(pieces)]

    yield kind, act, start.limit


def _shotgun(start: PanelStart) -> Variants:
    """Every candidate in one action, the right one in the middle so that only a search through the text finds it."""
    # Without the solution's own actions: `act` puts each of them in at its own turn.
    known = [a for a in (*start.answers, *start.samples) if a not in start.solution]
    # In this order without repetition; a set would order the candidates anew in each process.
    others = list(dict.fromkeys([*known, *_ANY_ANSWERS]))[:_MOST_CANDIDATES]
    # Some verifiers split at commas, others at lines or blanks.
    joined = (", ", "\n", " ")[start.index % 3]
    half = len(others) // 2

    def act(turn: int, observation: Observation, env: Environment) -> str:
        # Empty behind the solution's end, where the candidates alone are played.
        right = start.solution[turn : turn + 1]
        return joined.join((*others[:half], *right, *others[half:]))

    # `repr`, which the auditor reads back to play the candidates one by one.
    yield repr(joined), act, start.limit


def _texts(texts: Sequence[str]) -> Callable[[PanelStart], Variants]:
    """Plays the texts in turn from the start's own place, and then declares the task done where the world has that."""

    def play(start: PanelStart) -> Variants:
        first = start.index % len(texts)
        # A forged result may count only once the policy says that it is done.
        end = [start.facts.stop_action] if start.facts.stop_action and start.limit > 1 else []
        said = [texts[(first + turn) % len(texts)] for turn in range(start.limit - len(end))]
        if not start.fast:
            # Each text once: in a world that waits, a second round would cost as much and show nothing new.
            said = said[: len(texts)]
        yield f"from text {first + 1}", script_of([*said, *end]), start.limit

    return play


def _half(start: PanelStart) -> Variants:
    """The solution without its last step that counts; then the declaration that it is done, or nothing more."""
    stop = start.facts.stop_action
    # The declaration at the end is no work: a half solution leaves out the last step before it.
    steps = start.solution[:-1] if start.solution and start.solution[-1] == stop else start.solution
    # A last step that changes nothing is no half: without it, the task would be solved all the same.
    while steps and steps[-1].split(" ")[0] in start.facts.harmless:
        steps = steps[:-1]
    # Half of a single step would be the null policy.
    if len(steps) > 1:
        # Empty actions up to the limit: a verifier that pays at the step limit must not pay here.
        end = [stop] if stop else [""] * (start.limit if start.fast else _SPARE_TURNS)
        yield f"{len(steps) - 1} of {len(steps)} steps", script_of([*steps[:-1], *end]), start.limit


def _wrong(start: PanelStart) -> Variants:
    """The solution with the last step of another start's solution in place of its own."""
    other = next((a for a in start.answers if a not in start.solution), None)
    # Where the solution ends with the stop action, there is no last step that could be wrong.
    if start.solution and other is not None and start.solution[-1] != start.facts.stop_action:
        end = [""] * (start.limit if start.fast else _SPARE_TURNS)
        yield other[:60], script_of([*start.solution[:-1], other, *end]), start.limit


def _other(start: PanelStart) -> str | None:
    # One that is no part of the solution, which could be solved by repeating it.
    return next((action for action in start.samples if action not in start.solution), None)


PANEL = (
    PanelPolicy(name="null", truth="never", play=_null),
    PanelPolicy(name="early stop", truth="never", play=_early_stop, needs="a declared `stop_action`"),
    PanelPolicy(name="garbage", truth="never", play=_garbage),
    PanelPolicy(name="forger", truth="never", play=_texts(FORGERIES)),
    PanelPolicy(name="injection", truth="never", play=_texts(INJECTIONS)),
    PanelPolicy(name="shotgun", truth="never", play=_shotgun),
    PanelPolicy(name="half", truth="never", play=_half, needs="solutions of two steps or more"),
    # `chance` and not `never`: another start's last step can be right here as well.
    PanelPolicy(name="wrong step", truth="chance", play=_wrong, needs="solutions that end differently"),
    PanelPolicy(name="constant", truth="chance", play=_constant, needs="solutions, random actions or `constants`"),
    PanelPolicy(name="repeat", truth="chance", play=_repeat_last, needs="solutions or random actions"),
    PanelPolicy(name="loop", truth="chance", play=_loop, needs="solutions or random actions"),
    PanelPolicy(name="echo", truth="chance", play=_echo),
)
"""All members that need no teacher and no chance of the world while they play; those are `golden` and `random`."""

TRUTHS: dict[str, Truth] = {
    GOLDEN: "solves",
    REWORDED: "solves",
    RANDOM: "chance",
    **{policy.name: policy.truth for policy in PANEL},
}
DECEIVING = frozenset({"forger", "injection", "shotgun"})
ZERO_ACCEPTS = DECEIVING | {"null", "constant"}
"""Of these a single unexplained success makes the world unfit, however many episodes were played."""


def constants_for(start: PanelStart, golden: Sequence[AuditEpisode], count: int) -> tuple[str, ...]:
    """Candidates of the constant policy: what is declared, what solutions end or go on with most, what chance plays."""
    # The habit of the start's own template, beside that of the whole world.
    own = [e for e in golden if e.cluster == (start.facts.template or start.task.id)]
    ranked = [*_common(golden, 2), *_common(own, 2), *start.samples[:1], "yes", "1", *start.samples[1:]]
    # What the world declares comes first, so that the cut by `count` never drops it.
    found = dict.fromkeys([*start.facts.constants, *ranked])
    return tuple(action for action in found if action)[:count]


def _common(golden: Sequence[AuditEpisode], count: int) -> list[str]:
    """The actions that stand in the solutions of most starts. One start alone shows no habit and would be copied."""
    starts: dict[str, int] = {}
    for episode in golden:
        # Once per start: an action that one solution repeats often is no habit of the others.
        for action in dict.fromkeys(episode.actions):
            starts[action] = starts.get(action, 0) + 1
    # Ties by name: the report must not depend on the order of the starts.
    usual = sorted((a for a in starts if starts[a] > 1), key=lambda a: (-starts[a], a))
    return usual[:count]


def draws_for(name: str, start: PanelStart) -> random.Random:
    """The chance of one policy at one start."""
    # By policy, task and seed, so that one more policy or task changes no draws of the others.
    return random.Random(f"audit/{name}/{start.task.id}/{start.seed}")
