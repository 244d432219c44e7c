"""TextWorld's generated games as one of our worlds (arXiv:1806.11532). An extra: `pip install 'rollwright[textworld]'`.

That extra pulls a package under the GPL-2.0, so nothing else depends on it. A task is a game: its seed fixes rooms,
things and quest, and the splits are three ranges of seeds. Games are generated when first played (one to three seconds
each) and kept in `folder`. The score's gain is the reward, divided by the game's highest score: 1.0 in all. The teacher
plays the commands that TextWorld says win. Snapshots are by replay, every observation compared.

Commands to the interpreter in place of the game are slips: `save`, `restore` and `script` write and read files of this
machine, which every episode shares; `restart`, `undo` and the tracing commands make the score another one.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
import threading
from pathlib import Path
from typing import Any

from rollwright.contracts import (
    ConfigError,
    Environment,
    EnvironmentFault,
    Execution,
    FingerprintKind,
    MissingDependency,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    state_key,
)

# Ranges of game seeds that cannot meet, since `build` allows 100,000 games per split at most.
_FIRST_GAME: dict[Split, int] = {"train": 1, "validation": 100_001, "test": 200_001}
SLIP = "That is a command to the interpreter, not to the game."
_OUTSIDE = frozenset(
    word[:9]  # the interpreter knows a word by its first nine letters
    for word in (
        *("save", "restore", "script", "transcript", "noscript", "unscript", "record", "recording", "replay"),
        *("commands", "quit", "q", "restart", "undo", "oops", "o"),
    )
)
_CLAUSES = re.compile(r"[^a-z0-9\s-]+|\bthen\b|\band\b")  # a line may hold several commands: "look. save"
_COMPILING = threading.Lock()  # the generator changes the working folder and global random states


def textworld_package() -> Any:
    """The package `textworld`.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import textworld
    except ImportError as error:
        raise MissingDependency("text.textworld_game needs TextWorld: pip install 'rollwright[textworld]'") from error
    return textworld


def is_outside(command: str) -> bool:
    """Whether any part of the line speaks to the interpreter."""
    # Only the first word of a clause is a verb; "read the script" is a command to the game.
    first = [clause.split()[0] for clause in _CLAUSES.split(command.lower()) if clause.strip()]
    return any(word[:9] in _OUTSIDE or word.startswith("tw-") for word in first)


class TextWorldEnvironment:
    """Plays one game at a time."""

    def __init__(self, world: TextWorldWorld) -> None:
        self._world = world
        self._env: Any = None
        self._state: Any = None
        self._game = 0
        self._actions: list[str] = []
        self._said: list[str] = []
        self._score = 0.0
        self._over = True

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin the task's game."""
        self._begin(int(task.params["game"]))
        return Observation(text=self._said[0], goal=str(self._state["objective"]).strip())

    def _begin(self, game: int) -> None:
        # An interpreter is kept for further episodes of its game: to start one takes time.
        if self._env is None or game != self._game:
            # One game file per interpreter.
            self.close()
            self._env, self._game = self._world.open(game), game
        self._state = self._env.reset()
        self._actions, self._said, self._score, self._over = [], [self._text()], 0.0, False

    def _text(self) -> str:
        return str(self._state["feedback"]).strip()

    def step(self, action: str) -> StepResult:
        """Type one command. Raises RuntimeError after the end."""
        if self._over:
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        # One line of ASCII: a line end would begin another command.
        command = " ".join("".join(c if c.isascii() and c.isprintable() else " " for c in action[:200]).split())
        # As it was written, since a replay passes through the same cleaning.
        self._actions.append(action)
        score, done = self._score, False
        if is_outside(command):
            self._said.append(SLIP)
        else:
            self._state, score, done = self._env.step(command or "wait")
            self._said.append(self._text())
        # The game tells its score so far, and a reward is what the step added.
        gained, self._score = float(score) - self._score, float(score)
        cut = len(self._actions) >= self._world.max_turns and not done
        self._over = bool(done) or cut
        return StepResult(
            observation=self._said[-1],
            # A game without points would divide by zero.
            reward=gained / max(float(self._state["max_score"]), 1.0),
            terminated=bool(done),
            truncated=cut,
            success=bool(self._state["won"]) if self._over else None,
        )

    def winning_command(self) -> str:
        """The next of the commands that win; `look` where there are none."""
        # TextWorld keeps them up to date: they lead on from wherever the policy has gone.
        commands = self._state["policy_commands"] or ["look"]
        return str(commands[0])

    def possible_commands(self) -> list[str]:
        """What TextWorld's grammar allows here, sorted; `look` where it lists nothing."""
        # Sorted: TextWorld lists them in an order of its own, and draws from the list have to repeat.
        return sorted(map(str, self._state["admissible_commands"] or ["look"]))

    def fingerprint(self) -> str:
        """Game and commands: a game has no chance in it."""
        return state_key(str(self._game), *self._actions, str(self._over))

    def snapshot(self) -> bytes:
        """Game and commands, from which the episode is played again."""
        return json.dumps({"game": self._game, "actions": self._actions, "said": self._said}).encode()

    def restore(self, state: bytes) -> None:
        """Play the commands again.

        Raises:
            EnvironmentFault: an observation came out differently.
        """
        saved = json.loads(state)
        self._begin(saved["game"])
        for action in saved["actions"]:
            self.step(action)
        if self._said != saved["said"]:
            raise EnvironmentFault("the replay of a TextWorld game differs: the game file has changed")

    def close(self) -> None:
        """Close the interpreter. Idempotent."""
        env, self._env = self._env, None
        if env is not None:
            env.close()


class Winner:
    """Plays the commands that win."""

    def act(self, env: Environment, observation: Observation) -> str:
        """The game's own next winning command. Raises TypeError in another world's environment."""
        if not isinstance(env, TextWorldEnvironment):
            raise TypeError(f"this teacher plays TextWorld, not {type(env).__name__}")
        return env.winning_command()


class TextWorldWorld:
    """Games of one size. Build it with `build`."""

    name = "text.textworld_game"
    execution: Execution = "thread"
    snapshots: SnapshotKind = "replay"
    fingerprint_kind: FingerprintKind = "history"
    instructions = "You play a text adventure. Answer with one command, such as: look, inventory, go east, open door."

    def __init__(self, *, rooms: int, things: int, quest: int, games: int, folder: Path, max_turns: int) -> None:
        self.max_turns = max_turns
        self._size = (rooms, things, quest)
        self._games, self._folder = games, folder

    def tasks(self, split: Split) -> list[Task]:
        """The games of a split, made from numbers that no other split has."""
        numbers = range(_FIRST_GAME[split], _FIRST_GAME[split] + self._games)
        return [Task(id=f"game/{number}", split=split, params={"game": number}) for number in numbers]

    def make(self) -> TextWorldEnvironment:
        """A fresh environment."""
        return TextWorldEnvironment(self)

    def teacher(self, task: Task) -> Winner:
        """Follows the walkthrough."""
        return Winner()

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A command that is possible here."""
        if not isinstance(env, TextWorldEnvironment):
            raise TypeError(f"this world plays TextWorld, not {type(env).__name__}")
        return draws.choice(env.possible_commands())

    def open(self, game: int) -> Any:
        """An interpreter with that game, which is generated if it is not there yet."""
        textworld = textworld_package()
        # The size belongs to the name: one seed gives another game in another size.
        path = self._folder / f"{'-'.join(map(str, self._size))}-{game}.z8"
        # The test for the file too: two episodes would otherwise generate the same game at once.
        with _COMPILING:
            if not path.exists():
                self._generate(textworld, path, game)
        wanted = ("feedback", "objective", "max_score", "won", "policy_commands", "admissible_commands")
        infos = textworld.EnvInfos(**{name: True for name in wanted})
        return textworld.start(str(path), infos)

    def _generate(self, textworld: Any, path: Path, game: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        options = textworld.GameOptions()
        options.nb_rooms, options.nb_objects, options.quest_length = self._size
        options.seeds, options.path = game, str(path)
        textworld.make(options)

    def close(self) -> None:
        """Game files stay: they cost a second each."""


def build(
    *, rooms: int = 3, things: int = 4, quest: int = 3, games: int = 100, folder: str = "", max_turns: int = 50
) -> TextWorldWorld:
    """TextWorld games.

    Args:
        rooms, things, quest: size of a game: rooms, things in them, steps of the quest.
        games: tasks per split.
        folder: where game files are kept; "" for a folder among the machine's temporary files.
        max_turns: commands before the episode is cut.

    Raises:
        ConfigError: a number is below 1.
        MissingDependency: TextWorld is not installed.
    """
    if min(rooms, things, quest, games, max_turns) < 1 or games > 100_000:
        raise ConfigError(
            "text.textworld_game needs rooms, things, quest, games and max_turns of 1 or more, and games up to 100000, "
            f"got {rooms}, {things}, {quest}, {games}, {max_turns}"
        )
    textworld_package()
    kept = Path(folder) if folder else Path(tempfile.gettempdir()) / "rollwright-textworld"
    return TextWorldWorld(rooms=rooms, things=things, quest=quest, games=games, folder=kept, max_turns=max_turns)
