"""The rules that twenty questions and guess my city share. Each is a module of its own with its catalogue.

Reward, LMRL-Gym's own scale: -1 for every question or guess, 0 for the right guess, at most 20 turns: -20 at worst.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rollwright.contracts import (
    ConfigError,
    Environment,
    Execution,
    FingerprintKind,
    Message,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
)
from rollwright.envs.text.conversations.knowledge import Answer, Catalogue, answer, best_question
from rollwright.envs.text.conversations.partner import Partner, ask, execution_with
from rollwright.envs.text.game import AsyncGameEnvironment, GameEnvironment, check_seed, draw, plain

Hidden = Literal["seed", "held_out"]
MIN_RETURN = -20.0
MAX_TURNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Guessing:
    """`heard` are facts (topic, value), `wrong` the wrong guesses, `talk` everything said: (question, answer)."""

    seed: int
    thing: str
    heard: tuple[tuple[str, str], ...] = ()
    wrong: tuple[str, ...] = ()
    talk: tuple[tuple[str, str], ...] = ()


class Asker:
    """Asks what tells most; knows the catalogue and what was answered, not the thing."""

    def act(self, env: Environment, observation: Observation) -> str:
        """The question that tells most, or the guess. Raises TypeError in another world's environment."""
        known = isinstance(env, GameEnvironment | AsyncGameEnvironment) and isinstance(env.state, Guessing)
        if not known or not isinstance(env.game, GuessingWorld):  # type: ignore[attr-defined]
            raise TypeError(f"this teacher guesses things, it does not play {type(env).__name__}")
        return best_question(env.game.catalogue, env.state.heard, env.state.wrong)  # type: ignore[attr-defined]


class GuessingWorld:
    """A guessing game and its world. Built by `twenty_questions.build` and `guess_city.build`."""

    snapshots: SnapshotKind = "exact"
    fingerprint_kind: FingerprintKind = "history"
    state_type = Guessing
    max_turns = MAX_TURNS

    def __init__(
        self,
        *,
        name: str,
        catalogue: Catalogue,
        instructions: str,
        goal: str,
        role: str,
        hidden: Hidden,
        partner: Partner | None,
        partner_deadline_s: float,
    ) -> None:
        if hidden not in ("seed", "held_out"):
            raise ConfigError(f"{name} has no hidden {hidden!r}; expected seed or held_out")
        if partner_deadline_s <= 0:
            raise ConfigError(f"{name} needs partner_deadline_s above 0, got {partner_deadline_s}")
        self.name, self.catalogue, self.instructions = name, catalogue, instructions
        self.execution: Execution = execution_with(partner)
        self.identity = f"{name}/{hidden}/{'scripted' if partner is None else 'partner'}"
        self._goal, self._role, self._hidden = goal, role, hidden
        self._partner, self._deadline_s = partner, partner_deadline_s

    def things_of(self, split: Split) -> list[str]:
        """What may be hidden: all things, or the split's own: of ten, one for validation, one for test."""
        # Sorted, so that the splits do not depend on the order of the file.
        things = sorted(self.catalogue.things)
        if self._hidden == "seed":
            return things
        place: dict[int, Split] = {4: "validation", 9: "test"}
        return [thing for i, thing in enumerate(things) if place.get(i % 10, "train") == split]

    def tasks(self, split: Split) -> list[Task]:
        """One task; the seed draws what is hidden."""
        return [Task(id=f"{split}/{self._hidden}", split=split)]

    def make(self) -> GameEnvironment[Guessing] | AsyncGameEnvironment[Guessing]:
        """A fresh environment; one that waits for a partner is async."""
        return GameEnvironment(self) if self._partner is None else AsyncGameEnvironment(self)

    def teacher(self, task: Task) -> Asker:
        """Asks from the same table as the answers come from."""
        return Asker()

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A question about any topic or a guess of any thing, as often one as the other."""
        if draws.random() < 0.5:
            return draws.choice([topic.question for topic in self.catalogue.topics.values()])
        # In the form that is always understood as a guess.
        return f"Is it {draws.choice(list(self.catalogue.things))}?"

    def begin(self, task: Task, seed: int) -> tuple[Guessing, Observation]:
        """Draw the thing that is hidden."""
        check_seed(task, seed)
        # The game's name keeps the draws of two games with one seed apart.
        thing = draw(seed, self.name).choice(self.things_of(task.split))
        return Guessing(seed=seed, thing=thing), Observation(text="Ask your first question.", goal=self._goal)

    def play(self, state: Guessing, action: str) -> tuple[Guessing, StepResult]:
        """The answer from the table."""
        found = answer(self.catalogue, state.thing, action)
        return self._settle(state, action, found, found.text)

    async def play_async(self, state: Guessing, action: str) -> tuple[Guessing, StepResult]:
        """As `play`, but a model answers whatever is no guess; the verdict on a guess is the rules' own."""
        found = answer(self.catalogue, state.thing, action)
        # A model must not decide who has won: the verdict and the reward are the rules' own.
        if found.kind in ("right", "wrong") or self._partner is None:
            return self._settle(state, action, found, found.text)
        messages = self.messages(state, action)
        # A seed of its own for each line, fixed by the episode: a partner that samples says the same when played again.
        text = await ask(self._partner, messages, seed=state.seed + len(state.talk), deadline_s=self._deadline_s)
        return self._settle(state, action, found, text)

    def messages(self, state: Guessing, question: str) -> list[Message]:
        """What a partner is given: its role, and the talk so far."""
        said: list[Message] = [Message(role="system", content=self._role.format(state.thing))]
        for asked, answered in state.talk:
            said += [Message(role="user", content=asked), Message(role="assistant", content=answered)]
        return [*said, Message(role="user", content=plain(question, limit=200))]

    def _settle(self, state: Guessing, action: str, found: Answer, text: str) -> tuple[Guessing, StepResult]:
        heard = (*state.heard, (found.topic, found.value)) if found.kind == "fact" else state.heard
        # Facts and wrong guesses are kept for the teacher, and the talk for a partner.
        wrong = (*state.wrong, found.value) if found.kind == "wrong" else state.wrong
        talk = (*state.talk, (plain(action, limit=200), text))
        after = replace(state, heard=heard, wrong=wrong, talk=talk)
        if found.kind == "right":
            return after, StepResult(observation=text, reward=0.0, terminated=True, success=True)
        # No verdict: that the turns are used up is the environment's to say.
        return after, StepResult(observation=text, reward=-1.0)

    def key(self, state: Guessing) -> str:
        """The hidden thing and the talk so far."""
        # The thing too: what will be answered depends on it, though the policy cannot see it.
        return repr((state.thing, state.talk))

    def texts(self) -> Sequence[str]:
        """Questions, answers, names: everything the scripted partner and the teacher say."""
        topics = self.catalogue.topics.values()
        values = sorted({value for facts in self.catalogue.things.values() for value in facts.values()})
        said = [topic.says.format(value) for topic in topics for value in values if topic.is_open]
        guesses = [f"Is it {name}?" for name in self.catalogue.things]
        fixed = [self.instructions, self._goal, "Ask your first question.", "Yes.", "No.", "I cannot tell."]
        return [*fixed, *(topic.question for topic in topics), *said, *guesses]

    def close(self) -> None:
        """Nothing is held; whoever made the partner closes it."""
