"""What the games of this folder share: an episode whose whole state is one frozen record, and rules that are functions.

A game says how an episode begins and what an action does to its state; it holds nothing of an episode itself. All
chance is drawn from the seed in the state (`draw`), so the bytes of a snapshot hold everything, and forks are cheap.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from rollwright.contracts import Environment, Observation, StepResult, Task, split_of_seed, state_key

S = TypeVar("S")


class Game(Protocol[S]):
    """The rules. `identity` names game and options: a snapshot fits only where it is the same."""

    identity: str
    max_turns: int
    state_type: type[S]

    def begin(self, task: Task, seed: int) -> tuple[S, Observation]:
        """The first state and what is shown of it. Raises ValueError for a seed of another split."""
        ...

    def play(self, state: S, action: str) -> tuple[S, StepResult]:
        """The state after the action. Reward and verdict are the game's; the limit on turns is the environment's."""
        ...

    def key(self, state: S) -> str:
        """The state without what the policy cannot be told apart by: clocks and the seed of later chance."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode(Generic[S]):
    """Where an episode stands. `turns_used` counts slips too."""

    state: S
    turns_used: int = 0
    over: bool = False

    def after(self, state: S, result: StepResult, *, max_turns: int) -> tuple[Episode[S], StepResult]:
        """The next moment; an episode that has used up its turns is cut, and has then failed."""
        turns = self.turns_used + 1
        # An episode that the game ends in its last turn keeps the game's verdict.
        if turns >= max_turns and not result.terminated:
            result = replace(result, truncated=True, success=False)
        ended = result.terminated or result.truncated
        return Episode(state=state, turns_used=turns, over=ended), result


class GameEnvironment(Generic[S]):
    """Plays a game, one episode at a time. It blocks no longer than `Game.play` does."""

    def __init__(self, game: Game[S]) -> None:
        self.game = game
        self._episode: Episode[S] | None = None

    @property
    def state(self) -> S:
        """The state of the running episode; teachers may read it."""
        return self._running().state

    @property
    def turns_used(self) -> int:
        """Actions so far, slips included."""
        return self._running().turns_used

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode."""
        state, observation = self.game.begin(task, seed)
        # The state is frozen, so snapshots and forks share it and never see half a move.
        self._episode = Episode(state=state)
        return observation

    def step(self, action: str) -> StepResult:
        """Play one action. Raises RuntimeError after the end."""
        episode = self._running()
        _refuse_if_over(episode)
        state, result = self.game.play(episode.state, action)
        self._episode, result = episode.after(state, result, max_turns=self.game.max_turns)
        return result

    def fingerprint(self) -> str:
        """A key of game, state and whether it is over; the turns used up are left out."""
        return fingerprint_of(self.game, self._running())

    def snapshot(self) -> bytes:
        """The episode as JSON."""
        return pack(self.game, self._running())

    def restore(self, state: bytes) -> None:
        """Take up the episode of a snapshot, also one that another environment of this game took."""
        self._episode = unpack(self.game, state)

    def close(self) -> None:
        """Nothing is held."""

    def _running(self) -> Episode[S]:
        if self._episode is None:
            raise RuntimeError("no episode is open; call `reset` first")
        return self._episode


class AsyncGame(Protocol[S]):
    """Rules that wait for somebody's answer within `play_async`; else as `Game`."""

    identity: str
    max_turns: int
    state_type: type[S]

    def begin(self, task: Task, seed: int) -> tuple[S, Observation]:
        """As `Game.begin`."""
        ...

    def play_async(self, state: S, action: str) -> Awaitable[tuple[S, StepResult]]:
        """As `Game.play`, for games that wait for somebody."""
        ...

    def key(self, state: S) -> str:
        """As `Game.key`."""
        ...


class AsyncGameEnvironment(Generic[S]):
    """`GameEnvironment` for rules that wait; every method is a coroutine. The state moves only once all is answered."""

    def __init__(self, game: AsyncGame[S]) -> None:
        self.game = game
        self._episode: Episode[S] | None = None

    @property
    def state(self) -> S:
        """The game's state. Raises RuntimeError before the first reset."""
        return self._running().state

    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode."""
        state, observation = self.game.begin(task, seed)
        self._episode = Episode(state=state)
        return observation

    async def step(self, action: str) -> StepResult:
        """Play one action. Raises RuntimeError after the end."""
        episode = self._running()
        _refuse_if_over(episode)
        state, result = await self.game.play_async(episode.state, action)
        self._episode, result = episode.after(state, result, max_turns=self.game.max_turns)
        return result

    async def fingerprint(self) -> str:
        """Equal for states that the policy cannot tell apart."""
        return fingerprint_of(self.game, self._running())

    async def snapshot(self) -> bytes:
        """The episode as JSON."""
        return pack(self.game, self._running())

    async def restore(self, state: bytes) -> None:
        """Take up the state of a snapshot."""
        self._episode = unpack(self.game, state)

    async def close(self) -> None:
        """Nothing is held."""

    def _running(self) -> Episode[S]:
        if self._episode is None:
            raise RuntimeError("no episode is open; call `reset` first")
        return self._episode


def fingerprint_of(game: Game[S] | AsyncGame[S], episode: Episode[S]) -> str:
    """Equal for states that the policy cannot tell apart; different games never share one."""
    return state_key(game.identity, game.key(episode.state), str(episode.over))


def pack(game: Game[S] | AsyncGame[S], episode: Episode[S]) -> bytes:
    """The episode as JSON: game, state, turns used, over or not."""
    # As JSON, tuples become lists; `unpack` validates by type and makes tuples again.
    state = _adapter(game).dump_python(episode.state, mode="json")
    saved = {"game": game.identity, "state": state, "turns_used": episode.turns_used, "over": episode.over}
    return json.dumps(saved).encode()


def unpack(game: Game[S] | AsyncGame[S], saved: bytes) -> Episode[S]:
    """The episode that `pack` wrote.

    Raises:
        ValueError: the snapshot is of another game, of other options, or no snapshot at all.
    """
    loaded: dict[str, Any] = json.loads(saved)
    # The same fields may mean another thing under other options.
    if loaded["game"] != game.identity:
        raise ValueError(f"the snapshot is of {loaded['game']!r}, this world is {game.identity!r}")
    state: S = _adapter(game).validate_python(loaded["state"])
    return Episode(state=state, turns_used=loaded["turns_used"], over=loaded["over"])


def _adapter(game: Game[S] | AsyncGame[S]) -> TypeAdapter[S]:
    kind: Any = game.state_type
    adapter: TypeAdapter[S] = _adapter_of(kind)
    return adapter


@cache
def _adapter_of(state_type: Any) -> TypeAdapter[Any]:
    # Cached: to build an adapter takes far longer than to use it.
    return TypeAdapter(state_type)


def state_in(env: Environment, kind: type[S]) -> S:
    """The state of the episode that `env` plays.

    Raises:
        TypeError: it plays another game.
    """
    # Any environment with such a state will do, blocking or async.
    state = getattr(env, "state", None)
    if not isinstance(state, kind):
        raise TypeError(f"expected an environment with a {kind.__name__}, got {type(env).__name__} of another game")
    return state


def _refuse_if_over(episode: Episode[S]) -> None:
    if episode.over:
        raise RuntimeError("the episode is over; call `reset` before the next `step`")


def draw(seed: int, *key: int | str) -> random.Random:
    """The chance of one moment, fixed by the episode's seed and what the moment is called."""
    # Text seeds give the same draws in every process and on every machine.
    return random.Random("/".join(map(str, (seed, *key))))


def check_seed(task: Task, seed: int) -> None:
    """For worlds whose splits are their seeds.

    Raises:
        ValueError: the seed belongs to another split than the task.
    """
    if split_of_seed(seed) != task.split:
        raise ValueError(f"seed {seed} is not of split {task.split!r}; draw it with `episode_seed({task.split!r})`")


def plain(text: str, *, limit: int = 80) -> str:
    """The policy's words as they may be repeated to it: printable, on one line, and not long."""
    # Cut before any work, since an action may have megabytes; blanks fall together, hence four times the limit.
    words = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return words if len(words) <= limit else f"{words[:limit]}..."
