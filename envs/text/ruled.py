"""Another text world with rules over the order in which things may be done.

    rules: {heat_first: "F put & (!put U heat)", no_fridge: "G !open_fridge"}

A rule is a temporal formula over the events that the inner world names (`NamesEvents`); one event happens in each turn.
The world keeps count of what each rule still demands. A turn after which a rule can never be kept again costs 1
(`broken_<rule>`), as a constraint bounds it. `pays` puts the rules into the reward: `verdict` pays 1 at the end of an
episode that kept all of them, `shaping` pays each turn the steps by which the rules came nearer to being kept (a
potential, so that the best policy stays the best). `shield` refuses actions: with it the policy cannot break a rule.

Source: arXiv:2409.19471 (SELP: rules as automata over the steps of a plan).
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from rollwright.config import load
from rollwright.contracts import (
    ActsAtRandom,
    ConfigError,
    Environment,
    Execution,
    NamesEvents,
    Observation,
    SmallLanguage,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    Taught,
    Teacher,
    World,
    as_observation,
    state_key,
)
from rollwright.maths.temporal import Automaton, automaton_of, parse_formula, single_events

Pays = Literal["nothing", "verdict", "shaping"]
REFUSED = "Forbidden by a rule."


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The automata of a world's rules by name, and what keeping them pays."""

    automata: Mapping[str, Automaton]
    pays: Pays
    weight: float

    def after(self, states: Mapping[str, int], event: str) -> dict[str, int]:
        """What each rule still demands behind one more event."""
        return {name: made.after(states[name], (event,)) for name, made in self.automata.items()}

    def broken(self, states: Mapping[str, int]) -> set[str]:
        """The rules that can never be kept again."""
        return {name for name, made in self.automata.items() if made.verdict(states[name]) == "permanently violated"}

    def kept(self, states: Mapping[str, int]) -> bool:
        """Whether an episode that ends here has kept all of them."""
        return all(made.accepting[states[name]] for name, made in self.automata.items())

    def reward(self, before: Mapping[str, int], states: Mapping[str, int], *, ended: bool) -> float:
        """What the rules pay for one turn."""
        if self.pays == "shaping":
            gains = (
                made.potential(states[name]) - made.potential(before[name]) for name, made in self.automata.items()
            )
            return self.weight * sum(gains)
        return self.weight * float(self.pays == "verdict" and ended and self.kept(states))


class RuledEnvironment:
    """One episode of the inner world, and what each rule still demands."""

    def __init__(self, world: RuledWorld) -> None:
        self.world = world
        self.inner: Any = world.inner.make()
        self.states: dict[str, int] = {}

    def reset(self, task: Task, seed: int) -> Observation | str:
        """Begin an episode; no rule has seen anything yet."""
        self.states = dict.fromkeys(self.world.rules.automata, 0)
        shown: Observation | str = self.inner.reset(task, seed)
        return shown

    def step(self, action: str) -> StepResult:
        """Do it in the inner world, unless the shield refuses it; rules pay and cost by the event that it was."""
        event = self.world.names.event_of(self.inner, action)
        rules, before = self.world.rules, self.states
        after = rules.after(before, event)
        refused = self.world.shield and bool(rules.broken(after) - rules.broken(before))
        if refused:
            # The inner world is given what it answers without a change: a turn is used up and nothing is done.
            action = ""
            after = rules.after(before, self.world.names.event_of(self.inner, action))
        result: StepResult = self.inner.step(action)
        self.states = after
        if refused:
            result = replace(result, observation=_refused(result.observation))
        return self._judged(result, before, rules.broken(after) - rules.broken(before))

    def _judged(self, result: StepResult, before: Mapping[str, int], newly: set[str]) -> StepResult:
        rules, ended = self.world.rules, result.terminated or result.truncated
        rewards = result.rewards
        if rules.pays != "nothing":
            rewards["rules"] = rules.reward(before, self.states, ended=ended)
        success = result.success
        if self.world.strict and success:
            success = rules.kept(self.states)
        costs = {**result.costs, **{f"broken_{name}": float(name in newly) for name in rules.automata}}
        return replace(result, reward=rewards, costs=costs, success=success)

    def fingerprint(self) -> str:
        """The inner state and what the rules still demand: a policy that is to keep them must tell these apart."""
        return state_key(self.inner.fingerprint(), json.dumps(self.states, sort_keys=True))

    def snapshot(self) -> bytes:
        """The inner world's snapshot beside the states of the rules."""
        inner = base64.b64encode(self.inner.snapshot()).decode()
        return json.dumps({"inner": inner, "states": self.states, "rules": self.world.identity}).encode()

    def restore(self, state: bytes) -> None:
        """Take up a snapshot of a world with the same rules. Raises ValueError for other rules."""
        saved = json.loads(state)
        if saved["rules"] != self.world.identity:
            raise ValueError(f"the snapshot is of a world with other rules: {saved['rules'][:200]}")
        self.inner.restore(base64.b64decode(saved["inner"]))
        self.states = {name: int(number) for name, number in saved["states"].items()}

    def close(self) -> None:
        """Close the inner environment."""
        self.inner.close()


@dataclass(frozen=True, slots=True)
class InnerTeacher:
    """The inner world's teacher, which is shown the inner environment. It knows nothing of the rules."""

    teacher: Teacher

    def act(self, env: Environment, observation: Observation) -> Any:
        """Its next action. Raises TypeError in another world's environment."""
        return self.teacher.act(inner_of(env), observation)


class RuledWorld:
    """Build it with `build`."""

    name = "text.ruled"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"

    def __init__(self, inner: Any, rules: Rules, *, formulas: Mapping[str, str], shield: bool, strict: bool) -> None:
        self.inner, self.rules, self.shield, self.strict = inner, rules, shield, strict
        self.names: NamesEvents = inner
        self.identity = json.dumps([inner.name, dict(formulas), rules.pays, rules.weight, shield, strict])
        self.instructions: str = inner.instructions
        self.max_turns: int = inner.max_turns

    @property
    def events(self) -> tuple[str, ...]:
        """The inner world's."""
        return self.names.events

    def event_of(self, env: Environment, action: str) -> str:
        """The inner world's."""
        return self.names.event_of(inner_of(env), action)

    def override(self, env: Environment, observation: Observation, action: str) -> str | None:
        """For an overseer: the empty action in place of one that breaks a rule."""
        states = env.states if isinstance(env, RuledEnvironment) else {}
        after = self.rules.after(states, self.event_of(env, action))
        return "" if self.rules.broken(after) - self.rules.broken(states) else None

    def tasks(self, split: Split) -> list[Task]:
        """The inner world's."""
        return list(self.inner.tasks(split))

    def make(self) -> RuledEnvironment:
        """A fresh environment."""
        return RuledEnvironment(self)

    def teacher(self, task: Task) -> InnerTeacher | None:
        """The inner world's teacher, where it has one: it may break rules."""
        found = self.inner.teacher(task) if isinstance(self.inner, Taught) else None
        return None if found is None else InnerTeacher(found)

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> Any:
        """The inner world's."""
        return self.inner.random_action(inner_of(env), observation, draws)

    def texts(self) -> list[str]:
        """All that the inner world says, and what the shield says."""
        return [*self.inner.texts(), REFUSED]

    def close(self) -> None:
        """Close the inner world."""
        self.inner.close()


def inner_of(env: Environment) -> Environment:
    """The environment without its rules. Raises TypeError for one that has none."""
    if not isinstance(env, RuledEnvironment):
        raise TypeError(f"{type(env).__name__} is no environment with rules")
    return env.inner  # type: ignore[no-any-return]


def _refused(shown: Observation | str) -> Observation:
    seen = as_observation(shown)
    return replace(seen, text=f"{REFUSED}\n{seen.text}")


def build(
    *,
    world: str,
    rules: Mapping[str, str],
    options: Mapping[str, Any] | None = None,
    pays: Pays = "nothing",
    weight: float = 1.0,
    shield: bool = False,
    strict: bool = False,
) -> RuledWorld:
    """A world under rules.

    Args:
        world: the inner world, one that names events: text.household, text.maze, or your own.
        rules: name -> temporal formula over its events, such as "G !open_fridge".
        options: of the inner world.
        pays: what keeping the rules pays beside the inner world's reward: "nothing", "verdict" (`weight` once, at the
            end), or "shaping" (`weight` per step by which the rules come nearer to being kept).
        shield: refuse an action that would break a rule: the turn is used up and nothing is done.
        strict: an episode counts as a success only if it also kept all rules.

    Raises:
        ConfigError: no such world or option, a world that names no events, or a rule that cannot be read.
    """
    if pays not in get_args(Pays):
        raise ConfigError(f"world.options.pays is one of {', '.join(get_args(Pays))}, got {pays!r}")
    if not isinstance(rules, Mapping) or not rules:
        raise ConfigError(f"world.options.rules maps names to formulas, such as {{no_bump: 'G !bump'}}; got {rules!r}")
    inner: World = load("envs", world)(**(options or {}))
    wanted = (NamesEvents, SmallLanguage, ActsAtRandom)
    if not all(isinstance(inner, kind) for kind in wanted) or (inner.execution, inner.snapshots) != ("inline", "exact"):
        raise ConfigError(
            f"rules need a world that names events and runs inline with exact snapshots, and {inner.name} does not: "
            "use text.household or text.maze, or give yours `events` and `event_of(env, action)`"
        )
    made = {name: _rule(name, text, inner) for name, text in rules.items()}
    kept = Rules(automata=made, pays=pays, weight=float(weight))
    return RuledWorld(inner, kept, formulas=rules, shield=shield, strict=strict)


def _rule(name: str, text: object, inner: Any) -> Automaton:
    try:
        if not isinstance(text, str) or not str(name).isidentifier():
            raise ValueError("a rule has a name of letters, digits and underscores, and a formula as text")
        return automaton_of(parse_formula(text), single_events(inner.events))
    except ValueError as error:
        raise ConfigError(f"world.options.rules.{name}: {error}") from error
