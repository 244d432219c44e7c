"""Who finds the first bad action of an episode: the policy itself, a value, or a world that knows distances.

All rate single actions as good, uncertain or bad; a rating decides about a cut and nothing else. What the policy
answers is data: it is compared with the three words and never evaluated.

Source: arXiv:2501.11425 (the policy rates its own actions).
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

from rollwright.contracts import ConfigError, Message, TellsDistance, Trajectory, Turn
from rollwright.critics import sample_actions
from rollwright.generation import Engine, Generation, Sampling
from rollwright.methods.revision_pairs import Rating, RevisionPair, parse_rating, ratings_by_value
from rollwright.methods.revisions import Script, ScriptActor, play_scripts
from rollwright.models import ChatCodec
from rollwright.rollout import Collector, Decision, shown_texts

QUESTION = (
    "Above is the log of an agent: what it saw, and after each `>` what it did. Judge its last action alone: does it "
    "bring the task forward? Answer with one word: good, bad or uncertain."
)


class Verifier(Protocol):
    """Rates the steps that the worse episode of each pair has of its own."""

    env_calls: int
    """Calls of `reset` and `step` that rating has cost so far."""

    def rate(self, pairs: Sequence[RevisionPair]) -> list[list[Rating]]:
        """[pairs][own steps of the worse episode]; what comes after a bad step may be missing."""
        ...


class ValueVerifier:
    """An action is bad where the mean score of the leaves below it drops by more than `drop`."""

    env_calls = 0

    def __init__(self, drop: float) -> None:
        self.drop = drop

    def rate(self, pairs: Sequence[RevisionPair]) -> list[list[Rating]]:
        """By the values that the pairs bring along."""
        return [ratings_by_value(pair.values[pair.shared :], drop=self.drop) for pair in pairs]


class WorldVerifier:
    """An action is bad where a success is further away after it than before; the episode is played again for that.

    The last action of an episode is uncertain: no state after it is seen.

    Raises:
        ConfigError: the world does not know distances.
    """

    def __init__(self, collector: Collector) -> None:
        if not isinstance(collector.world, TellsDistance):
            raise ConfigError(no_distances(collector.world.name))
        self.collector, self.world = collector, collector.world
        self.env_calls = 0

    def rate(self, pairs: Sequence[RevisionPair]) -> list[list[Rating]]:
        """By the distances before each action; each worse episode is played once."""
        every = {pair.bad.id: pair for pair in pairs}
        scripts = [
            Script(key=f"{name} judged", pair=pair, turns=pair.bad.turns, context=len(pair.bad.turns))
            for name, pair in every.items()
        ]
        actor = _Surveyor({script.key: script.turns for script in scripts}, self.world)
        played = play_scripts(self.collector, scripts, actor)
        self.env_calls += sum(1 + len(trajectory.turns) for trajectory in played)
        rated = {script.pair.bad.id: _by_distance(actor.seen.get(script.key, {}), script.turns) for script in scripts}
        return [rated[pair.bad.id][pair.shared :] for pair in pairs]


def no_distances(world: str) -> str:
    """What is said where a world is asked to judge and cannot."""
    return (
        f"`algorithm.verifier=world` asks the world how far a success is, and {world} does not tell (`steps_left`): "
        "use verifier=actor or verifier=value"
    )


class _Surveyor(ScriptActor):
    """Says the scripts again and notes, before each action, how far it is to a success."""

    def __init__(self, scripts: Mapping[str, Sequence[Turn]], world: TellsDistance) -> None:
        super().__init__(scripts)
        self.world = world
        self.seen: dict[str, dict[int, int | None]] = {}

    async def _act(self, decision: Decision) -> Generation:
        far = self.world.steps_left(decision.env)
        turn = int(decision.request_id.rpartition("/")[2])
        self.seen.setdefault(decision.episode.rpartition("/")[0], {})[turn] = (
            await far if inspect.isawaitable(far) else far
        )
        return await super()._act(decision)


def _by_distance(seen: Mapping[int, int | None], turns: Sequence[Turn]) -> list[Rating]:
    distances = [seen.get(place) for place in range(len(turns) + 1)]
    return [_step_rating(before, after) for before, after in itertools.pairwise(distances)]


def _step_rating(before: int | None, after: int | None) -> Rating:
    # Into a wall: nothing is lost but the turn.
    if before is None or after is None or before == after:
        return "uncertain"
    return "good" if after < before else "bad"


def open_verifier(name: str, *, drop: float, collector: Collector, engine: Engine, codec: ChatCodec) -> Verifier:
    """The verifier that the settings name.

    Raises:
        ConfigError: the world is asked to judge and does not know distances.
    """
    if name == "value":
        return ValueVerifier(drop)
    return WorldVerifier(collector) if name == "world" else ActorVerifier(engine, codec)


class ActorVerifier:
    """The policy rates its own actions, from the first one on, until it calls one bad.

    Args:
        max_tokens: length of an answer. A log that does not fit into the context beside it is uncertain.
    """

    env_calls = 0

    def __init__(self, engine: Engine, codec: ChatCodec, *, max_tokens: int = 8) -> None:
        self.engine, self.codec = engine, codec
        # The most likely answer, not a drawn one: a rating is a verdict, no exploration.
        self.sampling = Sampling(temperature=0.0, max_tokens=max_tokens, stop_token_ids=tuple(codec.stop_token_ids))

    def rate(self, pairs: Sequence[RevisionPair]) -> list[list[Rating]]:
        """One question per step; all pairs that still look for their first bad step are asked together."""
        known: dict[tuple[str, int], Rating] = {}
        ratings: list[list[Rating]] = [[] for _ in pairs]
        open_pairs = list(range(len(pairs)))
        while open_pairs:
            due = {_place(pairs[i], len(ratings[i])): pairs[i] for i in open_pairs}
            self._ask({place: pair for place, pair in due.items() if place not in known}, known)
            for i in open_pairs:
                ratings[i].append(known[_place(pairs[i], len(ratings[i]))])
            open_pairs = [i for i in open_pairs if not _is_done(pairs[i], ratings[i])]
        return ratings

    def _ask(self, due: Mapping[tuple[str, int], RevisionPair], known: dict[tuple[str, int], Rating]) -> None:
        prompts = {place: self.codec.encode_start(rating_messages(pair.bad, place[1])) for place, pair in due.items()}
        room = self.engine.context_length - self.sampling.max_tokens
        known.update(dict.fromkeys((place for place, ids in prompts.items() if len(ids) > room), "uncertain"))
        asked = [place for place in prompts if place not in known]
        answers = sample_actions(self.engine, [prompts[place] for place in asked], self.sampling, key="rating")
        for place, answer in zip(asked, answers, strict=True):
            known[place] = parse_rating(self.codec.decode_action(answer.token_ids))


def _place(pair: RevisionPair, rated: int) -> tuple[str, int]:
    return pair.bad.id, pair.shared + rated


def _is_done(pair: RevisionPair, ratings: Sequence[Rating]) -> bool:
    return ratings[-1] == "bad" or pair.shared + len(ratings) == len(pair.bad.turns)


def rating_messages(episode: Trajectory, turn: int) -> tuple[Message, ...]:
    """The question whether the action of this turn was good, after the log up to it."""
    texts = shown_texts(episode)[: turn + 1]
    log = "\n".join(f"{text}\n> {acted.action}" for text, acted in zip(texts, episode.turns, strict=False))
    # What came of the action tells most about it, where it is on record.
    after = shown_texts(episode)[turn + 1 : turn + 2]
    return (Message(role="user", content="\n".join([log, *after, QUESTION])),)
