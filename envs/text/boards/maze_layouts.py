"""The mazes of `text.maze`: walls, goals, which starts belong to which split, and the shortest way from each.

Source of the layouts: the public benchmark of arXiv:2311.18232.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache

from rollwright.contracts import ConfigError, Split

Cell = tuple[int, int]  # row, column, counted from the top left corner

MOVES: dict[str, Cell] = {"move up": (-1, 0), "move down": (1, 0), "move left": (0, -1), "move right": (0, 1)}
_OPPOSITE = {"move up": "move down", "move down": "move up", "move left": "move right", "move right": "move left"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A maze: `#` is wall. Validation and test starts are spread over near and far cells; the rest is for training.

    `~` is a hazard: free to be walked on, at a cost.

    parts: overlap in the cells through which one goes from part to part; the goal's part comes first.
    """

    rows: tuple[str, ...]
    goal: Cell
    validation: tuple[Cell, ...]
    test: tuple[Cell, ...]
    parts: tuple[frozenset[Cell], ...]

    def is_free(self, cell: Cell) -> bool:
        """Whether there is no wall."""
        return self.rows[cell[0]][cell[1]] != "#"

    def is_hazard(self, cell: Cell) -> bool:
        """Whether to enter the cell costs something."""
        return self.rows[cell[0]][cell[1]] == "~"

    @property
    def hazards(self) -> tuple[Cell, ...]:
        """The cells that cost something, in reading order; none in most mazes."""
        cells = [(r, c) for r, row in enumerate(self.rows) for c in range(len(row))]
        return tuple(cell for cell in cells if self.is_hazard(cell))

    @property
    def starts(self) -> tuple[Cell, ...]:
        """Every free cell except the goal and the hazards, in reading order."""
        cells = [(r, c) for r, row in enumerate(self.rows) for c in range(len(row))]
        return tuple(c for c in cells if self.is_free(c) and c != self.goal and not self.is_hazard(c))

    def part_of(self, start: Cell) -> frozenset[Cell]:
        """The part that a walker from `start` stays in."""
        # The first part that holds it: cells in an overlap belong to the goal's part.
        return next(part for part in self.parts if start in part)

    def starts_of(self, split: Split) -> tuple[Cell, ...]:
        """The cells in which episodes of a split begin; the splits share none."""
        held_out = {"validation": self.validation, "test": self.test}
        if split == "train":
            return tuple(cell for cell in self.starts if cell not in self.validation + self.test)
        return held_out[split]


def corridors(*spans: tuple[int, int, int, int]) -> frozenset[Cell]:
    """The cells of these blocks: first and last row, first and last column."""
    return frozenset((r, c) for top, bottom, left, right in spans for r, c in _block(top, bottom, left, right))


def _block(top: int, bottom: int, left: int, right: int) -> list[Cell]:
    return [(r, c) for r in range(top, bottom + 1) for c in range(left, right + 1)]


MAZES: dict[str, Layout] = {
    "double_t": Layout(
        rows=(
            "#############",
            "#.....#.....#",
            "###.#####.###",
            "###.#####.###",
            "###.#####.###",
            "###.......###",
            "######.######",
            "######.######",
            "######.######",
            "#############",
        ),
        goal=(8, 6),
        validation=((1, 11), (1, 3), (3, 9), (5, 8), (5, 5)),
        test=((1, 1), (1, 8), (4, 9), (5, 3), (5, 6)),
        parts=(
            corridors((5, 5, 3, 9), (5, 8, 6, 6)),
            corridors((1, 1, 1, 5), (1, 5, 3, 3)),
            corridors((1, 1, 7, 11), (1, 5, 9, 9)),
        ),
    ),
    "umaze": Layout(
        rows=("#####", "#...#", "#.#.#", "#.#.#", "#####"),
        goal=(3, 3),
        validation=((1, 1),),
        test=((2, 1),),
        parts=(corridors((1, 1, 2, 3), (1, 3, 3, 3)), corridors((1, 1, 1, 2), (1, 3, 1, 1))),
    ),
    # Ours: the short way from the left to the goal leads through the hazard, the safe one around it is 4 moves longer.
    "hazard": Layout(
        rows=("#######", "#...#.#", "#.#.~.#", "#.#.#.#", "#.....#", "#######"),
        goal=(1, 5),
        validation=((1, 2), (4, 4)),
        test=((1, 1), (2, 3)),
        parts=(corridors((1, 1, 1, 3), (2, 3, 1, 1), (2, 3, 3, 3), (1, 3, 5, 5), (4, 4, 1, 5)) | {(2, 4)},),
    ),
}


def layout_of(maze: str) -> Layout:
    """The layout of that name.

    Raises:
        ConfigError: there is none.
    """
    if maze not in MAZES:
        raise ConfigError(f"no maze is called {maze!r}; expected one of {', '.join(MAZES)}")
    return MAZES[maze]


@cache
def shortest_paths(maze: str) -> dict[Cell, tuple[int, str]]:
    """For every start its distance to the goal in moves, and the first move of a shortest path."""
    layout = layout_of(maze)
    # Outwards from the goal, so that one search serves all starts.
    found: dict[Cell, tuple[int, str]] = {layout.goal: (0, "")}
    frontier = deque([layout.goal])
    while frontier:
        cell = frontier.popleft()
        for move, (down, right) in MOVES.items():
            neighbour = (cell[0] + down, cell[1] + right)
            if neighbour not in found and layout.is_free(neighbour):
                # The search walks away from the goal, and the walker goes the other way.
                found[neighbour] = (found[cell][0] + 1, _OPPOSITE[move])
                frontier.append(neighbour)
    # `MazeWorld.truly_solved` relies on it: the goal is the one cell without a way on.
    del found[layout.goal]
    return found


def optimal_return(start: Cell, maze: str = "double_t") -> float:
    """The best undiscounted return from `start`: -(distance - 1), since the last move is free."""
    return 1.0 - shortest_paths(maze)[start][0]
