"""LMRL-Gym's maze: walk to the goal in the fewest moves. Fully observed ("fo") or walls only ("po").

Reward per move, the benchmark's own scale: 0 for the move that reaches the goal, -1 for every other move (into a wall
too), -4 for a string that is not a move. An episode that has used up its 100 moves earns one more -1 and ends. So a
start at distance d is worth -(d - 1) at best: -6.84 on average over the 25 starts of the double T, and -101 at worst
for a policy that only writes moves.

These things differ from the benchmark's program. The first three change no return. There the -1 for the time-out comes
in a 101st turn whose action is ignored; here it comes with the 100th move, as the part `timeout`. There the time-out
is answered by a word; here by the usual observation, since a critic that looks beyond a cut reads the state's value
there. An unknown string is answered by a sentence that says so, before the usual observation. A move may have blanks
around it; there, " move up" is no move and costs -4. And what a policy is shown of the past is the run's
`rollout.context`; there, 40 pieces of text, and none of those before an unknown string.

Starts are tasks. With `starts="held_out"` every cell belongs to one split, so a policy is judged on starts that it was
never trained from; in the double T the 5 validation and the 5 test starts are worth -6.8 each on average, the 15 for
training -6.87. With `starts="all"` every cell is a test task and there is nothing to train on: the evaluation that
published numbers use.

Sources: arXiv:2311.18232 (task, rewards, limits); layouts and wording of observations as in the public benchmark.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Literal, get_args

from rollwright.contracts import (
    ConfigError,
    Environment,
    Execution,
    Observation,
    SnapshotKind,
    Split,
    StepResult,
    Task,
    state_key,
)

from .boards.maze_layouts import MOVES, Cell, Layout, layout_of, shortest_paths

Variant = Literal["fo", "po"]
Wording = Literal["lmrl", "compact"]
Starts = Literal["held_out", "all"]
Outcome = Literal["playing", "success", "failure"]

# The line end belongs to the benchmark's observations.
SUCCESS, FAILURE, GOAL = "Success\n", "Failure\n", "Walk to the goal."
# The order in which the benchmark lists walls, and its words for them.
_SIDES: dict[str, Cell] = {"right": (0, 1), "left": (0, -1), "above": (-1, 0), "below": (1, 0)}
_PHRASES = {"right": "to your right", "left": "to your left", "above": "above you", "below": "below you"}


def describe(layout: Layout, cell: Cell, variant: Variant, wording: Wording) -> str:
    """What the policy sees at `cell`.

    "lmrl" is the benchmark's wording (digits of a number stand apart). "compact" says the same in a few tokens:
    `at r3c5 goal r8c6 walls left right`, sides in the order up, down, left, right, named by their moves. A cell is one
    word, so a model of words need not learn first what a row and a column have to do with each other.
    """
    # In the benchmark's order, which is not that of the moves.
    walls = [side for side, (r, c) in _SIDES.items() if not layout.is_free((cell[0] + r, cell[1] + c))]
    if wording == "compact":
        moves = [move for move, (r, c) in MOVES.items() if not layout.is_free((cell[0] + r, cell[1] + c))]
        blocked = " ".join(["walls", *(move.removeprefix("move ") for move in moves)]) if moves else "no walls"
        place = f"at r{cell[0]}c{cell[1]} goal r{layout.goal[0]}c{layout.goal[1]} " if variant == "fo" else ""
        return " ".join([place + blocked, *(f"hazard {move.removeprefix('move ')}" for move in _risky(layout, cell))])
    place = f"The goal is at position {_spaced(layout.goal)}. Your current position is at position {_spaced(cell)}. "
    risks = "".join(f" There is a hazard if you {move}." for move in _risky(layout, cell))
    return f"{place if variant == 'fo' else ''}{_wall_sentence(walls)}{risks}\n"


def _risky(layout: Layout, cell: Cell) -> list[str]:
    """The moves from a cell that enter a hazard."""
    return [move for move, (r, c) in MOVES.items() if layout.is_hazard((cell[0] + r, cell[1] + c))]


def slip_sentence(wording: Wording) -> str:
    """What stands before the observation after a string that is no move."""
    return "unknown move " if wording == "compact" else f"That is not one of {', '.join(MOVES)}. "


def _spaced(cell: Cell) -> str:
    return ", ".join(" ".join(str(number)) for number in cell)


def _wall_sentence(walls: Sequence[str]) -> str:
    phrases = [_PHRASES[side] for side in walls]
    if not phrases:
        return "There are no walls near you."
    if len(phrases) == 1:
        return f"There is a wall {phrases[0]}."
    return f"There are walls {', '.join(phrases)}."


class MazeEnvironment:
    """One walk. The start comes from the task; the seed changes nothing, since the maze has no chance in it."""

    def __init__(self, world: MazeWorld) -> None:
        self.world = world
        # Any cell of the maze: it is not looked at before `reset`.
        self._cell: Cell = world.layout.goal
        self.seed = 0
        self._moves_used = 0
        self._outcome: Outcome = "failure"  # no episode yet: only `reset` or `restore` opens one

    @property
    def cell(self) -> Cell:
        """Where the walker stands."""
        return self._cell

    @property
    def moves_used(self) -> int:
        """Actions so far, slips included."""
        return self._moves_used

    def reset(self, task: Task, seed: int) -> Observation:
        """Begin in the task's cell. Raises ValueError for a cell that is no start."""
        # Parameters that were read back from disk are lists and no tuples.
        start = (int(task.params["start"][0]), int(task.params["start"][1]))
        if start not in self.world.layout.starts:
            raise ValueError(f"task {task.id!r} starts at {start}, which is no start of maze {self.world.maze!r}")
        self.seed = seed
        self._cell, self._moves_used, self._outcome = start, 0, "playing"
        return Observation(text=self._look(), goal="" if self.world.wording == "compact" else GOAL)

    def step(self, action: str) -> StepResult:
        """Take a move. Raises RuntimeError after the end."""
        if self._outcome != "playing":
            raise RuntimeError("the episode is over; call `reset` before the next `step`")
        move = MOVES.get(action.strip())
        self._moves_used += 1
        came_from = self._cell
        if move is not None:
            target = (self._cell[0] + move[0], self._cell[1] + move[1])
            # Into a wall: the move is used up and the walker stays.
            self._cell = target if self.world.layout.is_free(target) else self._cell
        costs = self._costs(came_from)
        # Before the limit is asked: the goal in the last move is a success and pays no time-out.
        if self._cell == self.world.layout.goal:
            self._outcome = "success"
            return StepResult(observation=SUCCESS, reward=0.0, costs=costs, terminated=True, success=True)
        reward = -4.0 if move is None else -1.0
        if self._moves_used >= self.world.max_turns:
            self._outcome = "failure"
            # Two parts, so that the price of the time-out can be told apart.
            parts = {"env": reward, "timeout": -1.0}
            return StepResult(observation=self._answer(move), reward=parts, costs=costs, truncated=True, success=False)
        return StepResult(observation=self._answer(move), reward=reward, costs=costs)

    def _costs(self, came_from: Cell) -> dict[str, float]:
        """What the last move cost: 1 for entering a hazard. A maze without any counts no costs at all."""
        if not self.world.layout.hazards:
            return {}
        return {"hazard": float(self._cell != came_from and self.world.layout.is_hazard(self._cell))}

    def fingerprint(self) -> str:
        """Maze, cell and outcome. Moves used up are left out: the policy is not told, and the cell is the state."""
        return state_key(self.world.maze, str(self._cell), self._outcome)

    def snapshot(self) -> bytes:
        """The state as JSON."""
        state = {"maze": self.world.maze, "cell": self._cell, "used": self._moves_used, "outcome": self._outcome}
        return json.dumps(state).encode()

    def restore(self, state: bytes) -> None:
        """Take up the episode of a snapshot, also one that another environment of this maze took."""
        saved = json.loads(state)
        # A cell means something else in another maze, and may be a wall there.
        if saved["maze"] != self.world.maze:
            raise ValueError(f"the snapshot is of maze {saved['maze']!r}, this world is {self.world.maze!r}")
        self._cell = (saved["cell"][0], saved["cell"][1])
        self._moves_used, self._outcome = saved["used"], saved["outcome"]

    def close(self) -> None:
        """Nothing is held."""

    def _look(self) -> str:
        return describe(self.world.layout, self._cell, self.world.variant, self.world.wording)

    def _answer(self, move: Cell | None) -> str:
        return self._look() if move is not None else slip_sentence(self.world.wording) + self._look()


class Walker:
    """Takes the shortest path with probability `optimal_frac`, else any of the four moves.

    1.0 is the perfect teacher, 0.15 the mixture of the benchmark's offline data, 0.0 teaches the grammar of moves and
    nothing else. It reads the cell from the environment, so it solves the partially observed maze too. Its draws are
    fixed by the episode's seed and the number of moves made.

    part: cells it never leaves (into a wall it may run); then a path that leads out of them is not taken.
    """

    def __init__(self, optimal_frac: float, *, part: frozenset[Cell] | None = None) -> None:
        self.optimal_frac, self.part = optimal_frac, part

    def act(self, env: Environment, observation: Observation) -> str:
        """A step of a shortest path, or at times any step. Raises TypeError in another world's environment."""
        if not isinstance(env, MazeEnvironment):
            raise TypeError(f"this teacher walks mazes, not {type(env).__name__}")
        # By seed, cell and moves: the same walk each time, and another choice at each visit of a cell.
        rng = random.Random(f"{env.seed}/{env.cell}/{env.moves_used}")
        best = shortest_paths(env.world.maze)[env.cell][1]
        if rng.random() < self.optimal_frac and self._stays(env, best):
            return best
        # Never empty: every cell of a part has a neighbour in it.
        return rng.choice([move for move in MOVES if self._stays(env, move)])

    def _stays(self, env: MazeEnvironment, move: str) -> bool:
        target = (env.cell[0] + MOVES[move][0], env.cell[1] + MOVES[move][1])
        return self.part is None or target in self.part or not env.world.layout.is_free(target)


class MazeWorld:
    """The starts of one maze as tasks. Build it with `build`."""

    name = "text.maze"
    execution: Execution = "inline"
    snapshots: SnapshotKind = "exact"
    events = ("up", "down", "left", "right", "bump", "hazard", "slip")

    def __init__(
        self,
        *,
        variant: Variant,
        maze: str,
        max_turns: int,
        wording: Wording,
        starts: Starts,
        seed_starts: int,
        optimal_frac: float,
        teacher_stays: bool,
    ) -> None:
        self.layout = layout_of(maze)
        self.variant = variant
        self.maze = maze
        self.max_turns = max_turns
        self.wording = wording
        # A tiny model is given no rules: beside them the two numbers that matter would drown.
        rules = f"You walk through a maze. Answer with exactly one of: {', '.join(MOVES)}."
        self.instructions = rules if wording == "lmrl" else ""
        self._starts = starts
        self._seed_starts = seed_starts
        self._optimal_frac = optimal_frac
        self._teacher_stays = teacher_stays

    def tasks(self, split: Split) -> list[Task]:
        """One task per start, in reading order."""
        # A task belongs to one split for good: the start that is for training here is another task under "all".
        if self._starts == "all":
            cells, prefix = (self.layout.starts if split == "test" else ()), f"{self.maze}/all"
        else:
            cells, prefix = self.layout.starts_of(split), self.maze
        if split == "train" and self._seed_starts:
            # The nearest starts: from them chance finds the goal soonest.
            cells = tuple(sorted(cells, key=self._difficulty)[: self._seed_starts])
        return [Task(id=f"{prefix}/{r},{c}", split=split, params={"start": [r, c]}) for r, c in cells]

    def steps_left(self, env: Environment) -> int:
        """Moves of a shortest path from where the walker stands. Raises TypeError in another world's environment."""
        if not isinstance(env, MazeEnvironment):
            raise TypeError(f"distances are known in mazes, not in {type(env).__name__}")
        return shortest_paths(self.maze)[env.cell][0]

    def event_of(self, env: Environment, action: str) -> str:
        """The way the walker would go; `bump` into a wall, `hazard` into one, `slip` for what is no move.

        Raises TypeError in another world's environment.
        """
        if not isinstance(env, MazeEnvironment):
            raise TypeError(f"events are named in mazes, not in {type(env).__name__}")
        move = MOVES.get(action.strip())
        if move is None:
            return "slip"
        target = (env.cell[0] + move[0], env.cell[1] + move[1])
        if self.layout.is_hazard(target):
            return "hazard"
        return action.strip().removeprefix("move ") if self.layout.is_free(target) else "bump"

    def propose(self, task: Task, count: int, seed: int) -> list[Task]:
        """Other training starts, the one most like this one in its distance to the goal first; ties as `seed` says."""
        here, draws = (int(task.params["start"][0]), int(task.params["start"][1])), random.Random(seed)
        others = [cell for cell in self.layout.starts_of("train") if cell != here]
        # Before the sort, which is stable: ties stay in the drawn order.
        draws.shuffle(others)
        others.sort(key=lambda cell: abs(self._difficulty(cell) - self._difficulty(here)))
        return [Task(id=f"{self.maze}/{r},{c}", split="train", params={"start": [r, c]}) for r, c in others[:count]]

    def _difficulty(self, cell: Cell) -> int:
        return shortest_paths(self.maze)[cell][0]

    def make(self) -> MazeEnvironment:
        """A fresh environment."""
        return MazeEnvironment(self)

    def teacher(self, task: Task) -> Walker:
        """Walks the shortest path, as often as the world's option says."""
        start = (int(task.params["start"][0]), int(task.params["start"][1]))
        return Walker(self._optimal_frac, part=self.layout.part_of(start) if self._teacher_stays else None)

    def truly_solved(self, env: Environment) -> bool | None:
        """For the audit: whether the walker stands in the one cell from which no path leads on."""
        return env.cell not in shortest_paths(self.maze) if isinstance(env, MazeEnvironment) else None

    def override(self, env: Environment, observation: Observation, action: str) -> str | None:
        """For an overseer: a move into a wall is replaced by a step of a shortest path, all else may be done."""
        move = MOVES.get(action.strip())
        if not isinstance(env, MazeEnvironment) or move is None:
            return None
        free = self.layout.is_free((env.cell[0] + move[0], env.cell[1] + move[1]))
        return None if free else shortest_paths(self.maze)[env.cell][1]

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """Any of the four moves, also into a wall."""
        return draws.choice(list(MOVES))

    def texts(self) -> list[str]:
        """Everything that is said in this maze, and the benchmark's word for a time-out, which its logs hold."""
        cells = [*self.layout.starts, *self.layout.hazards, self.layout.goal]
        seen = [describe(self.layout, cell, self.variant, self.wording) for cell in cells]
        slips = [slip_sentence(self.wording) + text for text in seen[:1]]
        return [self.instructions, GOAL, SUCCESS, FAILURE, *slips, *seen, *MOVES]

    def close(self) -> None:
        """Nothing is held."""


def build(
    *,
    variant: Variant = "fo",
    maze: str = "double_t",
    max_turns: int = 100,
    wording: Wording = "lmrl",
    starts: Starts = "held_out",
    seed_starts: int = 0,
    teacher_optimal_frac: float = 1.0,
    teacher_stays: bool = False,
) -> MazeWorld:
    """The maze world.

    Args:
        variant: "fo" shows goal, position and walls; "po" walls only (the moves made are the conversation itself).
        maze: "double_t" (25 starts, the benchmark's) or "umaze" (6 starts, for quick tests).
        max_turns: moves before the time-out; 100 in published results.
        wording: of observations; "lmrl" for the benchmark's sentences, "compact" for tiny models.
        starts: "held_out" keeps the starts of the splits apart; "all" makes every start a test task.
        seed_starts: only so many training starts, those nearest to the goal, are tasks from the beginning; the others
            are there to be proposed by an evolving curriculum. 0 = all of them are tasks.
        teacher_optimal_frac: share of the teacher's moves that follow a shortest path; the rest are random.
        teacher_stays: the teacher never leaves the part of the maze in which it starts, so that no episode of it joins
            a far start with the goal. The double T has three parts, two arms and what lies between them and the goal.

    Raises:
        ConfigError: an option has no such value.
    """
    for key, value, allowed in (
        ("variant", variant, get_args(Variant)),
        ("wording", wording, get_args(Wording)),
        ("starts", starts, get_args(Starts)),
    ):
        if value not in allowed:
            raise ConfigError(f"text.maze has no {key} {value!r}; expected one of {', '.join(allowed)}")
    if seed_starts < 0:
        raise ConfigError(f"text.maze needs seed_starts of 0 or more, got {seed_starts}")
    if max_turns < 1:
        raise ConfigError(f"text.maze needs max_turns of 1 or more, got {max_turns}")
    if not 0.0 <= teacher_optimal_frac <= 1.0:
        raise ConfigError(f"text.maze needs teacher_optimal_frac within [0, 1], got {teacher_optimal_frac}")
    return MazeWorld(
        variant=variant,
        maze=maze,
        max_turns=max_turns,
        wording=wording,
        starts=starts,
        seed_starts=seed_starts,
        optimal_frac=teacher_optimal_frac,
        teacher_stays=teacher_stays,
    )
