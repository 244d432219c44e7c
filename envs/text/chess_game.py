"""LMRL-Gym's chess and chess endgames: white against a weak Stockfish, positions in FEN, moves in SAN.

Reward, the benchmark's own scale: +1 for mate, -1 for being mated, 0 for a draw and for any other legal move; a move
that is not legal costs -1 and the game goes on. The benchmark counts 400 moves and ends with the 401st, hence -401 for
a policy that never makes a legal move. Endgames start from random positions of king and queen, queen and rook, rook,
or two rooks against a king; `start="fixed"` are 645 fixed positions to be tested on, as many as the benchmark has.

The opponent. The benchmark names Stockfish at Elo 1200, which is below the engine's own scale (it begins at 1350, the
skill level 0), and Stockfish weakened by its own option plays differently each time. Ours asks it for the four best
moves at depth 1 + level and chooses among them with an error that is drawn from the seed: the same game each time.
Level 0 is the default. Its strength in Elo is not measured.

Threefold repetition is no draw, as in the benchmark; the game ends by mate, stalemate, dead position, or 75 moves
without a capture or pawn move. The state is the FEN, so five times the same position does not end it either.

Source: arXiv:2311.18232.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from rollwright.contracts import ConfigError, Environment, Execution, Observation, SnapshotKind, Split, StepResult, Task
from rollwright.envs.text.boards.chess_engine import EnginePool, chess_package, find_stockfish
from rollwright.envs.text.game import GameEnvironment, check_seed, draw, state_in

Start = Literal["full", "endgames", "fixed"]
Opponent = Literal["stockfish", "random"]
Wording = Literal["lmrl", "compact"]

MIN_RETURN = -401.0
# The benchmark's 400 moves and the one that ends the game.
MAX_TURNS = 401
MATERIALS: tuple[str, ...] = ("KQk", "KQRk", "KRk", "KRRk")
NUM_FIXED = 645
ILLEGAL = "That is no legal move."
GOALS: dict[Start, str] = {"full": "Win as white.", "endgames": "Mate the black king.", "fixed": "Mate the black king."}
# Moves that the engine ranks for the opponent to err among.
_CHOICES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """White to move at `fen`, after `moves` moves of white's; the seed draws the opponent's errors."""

    fen: str
    seed: int
    moves: int = 0


def endgame(material: str, seed: int) -> str:
    """A random legal position with these pieces, white to move, nobody in check; as FEN."""
    package = chess_package()
    rng = draw(seed, "endgame", material)
    # Illegal positions, such as two kings side by side, and checks are drawn again.
    while True:
        board = package.Board(None)
        squares = rng.sample(range(64), len(material))
        for symbol, square in zip(material, squares, strict=True):
            board.set_piece_at(square, package.Piece.from_symbol(symbol))
        if board.is_valid() and not board.is_check() and not board.is_game_over():
            return str(board.fen())


def erring_choice(lines: list[tuple[str, int]], level: int, error: list[float]) -> str:
    """The move with the best score once each score is raised by its share of an error.

    Args:
        lines: (move, centipawns), best first.
        level: 0 to 20; the error reaches 120 - 6 * level centipawns, or the difference to the worst of the moves if
            that is more; at 20 there is none.
        error: one number in [0, 1) per line.
    """
    # Without an error the choice below is the best move too; this one does not depend on rounding.
    if level == 20:
        return lines[0][0]
    reach = max(120 - 6 * level, min(lines[0][1] - lines[-1][1], 100))
    return max(zip(lines, error, strict=True), key=lambda pair: pair[0][1] + reach * pair[1])[0][0]


def understood(board: Any, action: str) -> Any:
    """The legal move that the action names in SAN, with or without blanks between the characters; None for no move."""
    try:
        # Blanks are taken out, since positions are shown with them and a policy copies that.
        move = board.parse_san("".join(action[:40].split()))
    except ValueError:
        return None
    return move or None  # SAN has a sign for passing, which is no move of the game


class Master:
    """Plays Stockfish's best move."""

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool

    def act(self, env: Environment, observation: Observation) -> str:
        """A move of the engine. Raises TypeError in another world's environment."""
        if not isinstance(env, GameEnvironment) or not isinstance(env.state, Position):
            raise TypeError(f"this teacher plays chess, not {type(env).__name__}")
        board = chess_package().Board(env.state.fen)
        # A mate with few pieces lies many moves ahead; with many pieces a glance beats this opponent.
        nodes = 100_000 if len(board.piece_map()) <= 5 else 2_000
        # By nodes and not by time, which would give another move on another machine.
        best = self._pool.lines(env.state.fen, nodes=nodes)[0][0]
        return str(board.san(board.parse_uci(best)))


class ChessWorld:
    """The game and its world; owns the engines. Build it with `build`."""

    name = "text.chess_game"
    execution: Execution = "thread"
    snapshots: SnapshotKind = "exact"
    state_type = Position
    max_turns = MAX_TURNS
    instructions = (
        "You play chess as white. You are shown the position in FEN. Answer with one move in standard algebraic "
        "notation, such as e4, Nf3, O-O or Qxf7#."
    )

    def __init__(
        self, *, start: Start, opponent: Opponent, level: int, wording: Wording, pool: EnginePool | None
    ) -> None:
        self._start, self._opponent, self._level, self._wording = start, opponent, level, wording
        self._pool = pool
        self.identity = f"{self.name}/{start}/{opponent}/{level}/{wording}"

    def tasks(self, split: Split) -> list[Task]:
        """One task per material for endgames, whose positions the seed draws; the fixed positions are test tasks."""
        if self._start == "full":
            return [Task(id=f"{split}/chess", split=split)]
        if self._start == "endgames":
            return [
                Task(id=f"{split}/{material}", split=split, params={"material": material}) for material in MATERIALS
            ]
        numbers = range(NUM_FIXED) if split == "test" else ()
        params = [{"material": MATERIALS[n % len(MATERIALS)], "number": n} for n in numbers]
        return [Task(id=f"fixed/{p['number']}", split=split, params=p) for p in params]

    def make(self) -> GameEnvironment[Position]:
        """A fresh environment."""
        return GameEnvironment(self)

    def teacher(self, task: Task) -> Master | None:
        """None where no engine was asked for: the random opponent needs none."""
        return Master(self._pool) if self._pool is not None else None

    def random_action(self, env: Environment, observation: Observation, draws: random.Random) -> str:
        """A legal move; it needs no engine."""
        board = chess_package().Board(state_in(env, Position).fen)
        # Sorted: the draw must not depend on the order in which moves are generated.
        return str(draws.choice(sorted(board.san(move) for move in board.legal_moves)))

    def begin(self, task: Task, seed: int) -> tuple[Position, Observation]:
        """Set the pieces up: the usual position, or a drawn endgame."""
        check_seed(task, seed)
        fen = str(chess_package().STARTING_FEN)
        if "material" in task.params:
            if task.params["material"] not in MATERIALS:  # from disk, say: no position might fit it
                raise ValueError(f"task {task.id!r} asks for the pieces {task.params['material']!r}, not {MATERIALS}")
            # A fixed position is drawn from its number, so the episode's seed does not change it.
            fen = endgame(task.params["material"], int(task.params.get("number", seed)))
        state = Position(fen=fen, seed=seed)
        return state, Observation(text=self._say(fen), goal=GOALS[self._start])

    def play(self, state: Position, action: str) -> tuple[Position, StepResult]:
        """The policy's move, and the reply to it."""
        board = chess_package().Board(state.fen)
        move = understood(board, action)
        # Counted for illegal moves too, so black's errors are drawn anew after each attempt.
        after = replace(state, moves=state.moves + 1)
        if move is None:
            return after, StepResult(observation=f"{ILLEGAL} {self._say(state.fen)}", reward=-1.0)
        board.push(move)
        # Mate, stalemate and draws by the rules end the game before black answers.
        if not board.is_game_over():
            board.push(board.parse_uci(self._answer(board, after)))
        after = replace(after, fen=str(board.fen()))
        return after, self._result(board)

    def _answer(self, board: Any, state: Position) -> str:
        """Black's move in UCI."""
        rng = draw(state.seed, "black", state.moves)
        if self._pool is None or self._opponent == "random":
            return str(rng.choice(sorted(move.uci() for move in board.legal_moves)))
        lines = self._pool.lines(board.fen(), depth=1 + self._level, count=_CHOICES)
        return erring_choice(lines, self._level, [rng.random() for _ in lines])

    def _result(self, board: Any) -> StepResult:
        text = self._say(str(board.fen()))
        if not board.is_game_over():
            return StepResult(observation=text)
        won = board.is_checkmate() and not board.turn  # black is to move and mated
        # Stalemate and other draws pay 0, as any legal move does.
        reward = 1.0 if won else -1.0 if board.is_checkmate() else 0.0
        return StepResult(observation=text, reward=reward, terminated=True, success=won)

    def _say(self, fen: str) -> str:
        return " ".join(fen) if self._wording == "lmrl" else fen

    def key(self, state: Position) -> str:
        """The position. Whose errors come next is not to be seen."""
        return state.fen

    def texts(self) -> list[str]:
        """FEN and SAN consist of these characters; a tokenizer for chess spells."""
        spelled = " ".join("abcdefghKQRBNkqrbnpPw-/x+#=O0123456789")
        return [self.instructions, *GOALS.values(), ILLEGAL, spelled, spelled.replace(" ", "\n")]

    def close(self) -> None:
        """End the engines."""
        if self._pool is not None:
            self._pool.close()


def build(
    *,
    start: Start = "full",
    opponent: Opponent = "stockfish",
    level: int = 0,
    wording: Wording = "lmrl",
    engine: str = "",
    engines: int = 2,
    engine_deadline_s: float = 20.0,
) -> ChessWorld:
    """Chess against an engine.

    Args:
        start: "full" games, "endgames" from positions that the seed draws, or "fixed": 645 test positions.
        opponent: "stockfish", or "random" moves, for which no engine is needed (and there is then no teacher).
        level: 0 (weakest) to 20; how deep Stockfish looks, and how little it errs.
        wording: "lmrl" puts a blank between the characters of a position, "compact" does not.
        engine: program of a UCI engine; "" finds Stockfish.
        engines: how many engine processes at most.
        engine_deadline_s: seconds after which an engine that does not answer is taken for broken.

    Raises:
        ConfigError: an option has no such value.
        MissingDependency: python-chess or the engine is not installed.
    """
    for key, value, allowed in (
        ("start", start, get_args(Start)),
        ("opponent", opponent, get_args(Opponent)),
        ("wording", wording, get_args(Wording)),
    ):
        if value not in allowed:
            raise ConfigError(f"text.chess_game has no {key} {value!r}; expected one of {', '.join(allowed)}")
    if not 0 <= level <= 20 or engines < 1 or engine_deadline_s <= 0:
        raise ConfigError(
            "text.chess_game needs a level within 0 to 20, 1 engine or more and a deadline above 0, "
            f"got {level}, {engines} and {engine_deadline_s}"
        )
    chess_package()
    pool = None
    if opponent == "stockfish":
        pool = EnginePool(find_stockfish(engine), size=engines, deadline_s=engine_deadline_s)
    return ChessWorld(start=start, opponent=opponent, level=level, wording=wording, pool=pool)
