"""A few chess engine processes, shared by all games: started when needed, replaced when they die, ended with the world.

python-chess (the extra `text`) speaks to the engine; any UCI engine will do, Debian's `stockfish` is the one tested.
"""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollwright.contracts import EnvironmentFault, MissingDependency

if TYPE_CHECKING:
    import chess
    import chess.engine

MATE_SCORE = 100_000
"""Centipawns that stand for a forced mate."""


def chess_package() -> Any:
    """The package `chess` with its engine module.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import chess.engine
    except ImportError as error:
        raise MissingDependency("text.chess_game needs python-chess: pip install 'rollwright[text]'") from error
    return chess


def find_stockfish(program: str = "") -> str:
    """The engine's path: `program` as given, or `stockfish` on the path, or where Debian puts games.

    Raises:
        MissingDependency: there is none.
    """
    # Debian's folder for games is on the path of users and seldom on that of services.
    found = shutil.which(program or "stockfish") or shutil.which("stockfish", path="/usr/games")
    # A program that was named must not be replaced by another in silence.
    if program and not shutil.which(program):
        found = None
    if found is None:
        raise MissingDependency(
            f"no chess engine {program or 'stockfish'!r} was found: apt-get install stockfish, "
            "or name the program of a UCI engine with the option `engine`"
        )
    return str(Path(found))


class EnginePool:
    """At most `size` engine processes. A game borrows one for one question; nothing of a game stays in an engine.

    Every question starts from an empty hash table on one thread, so the same position gets the same answer.
    """

    def __init__(self, program: str, *, size: int, deadline_s: float) -> None:
        self.program = program
        self.started = 0
        self._deadline_s = deadline_s
        self._closed = False
        self._lock = threading.Lock()
        # Last in, first out: engines that run already are borrowed first, so few are started where few are needed.
        self._slots: queue.LifoQueue[chess.engine.SimpleEngine | None] = queue.LifoQueue()
        for _ in range(size):
            self._slots.put(None)

    def lines(self, fen: str, *, depth: int = 0, nodes: int = 0, count: int = 1) -> list[tuple[str, int]]:
        """The best moves at a position, best first: (UCI move, centipawns for the side to move).

        Args:
            fen: the position; the game must not be over.
            depth: plies to search, or `nodes`: positions to look at; the other is 0.
            count: how many moves; fewer come back where there are fewer, or the search was too short.

        Raises:
            EnvironmentFault: the engine died, misbehaved, or gave no answer in time. The next call starts a fresh one.
            MissingDependency: the program cannot be started.
        """
        package = chess_package()
        # The time is no limit for play, only for a hang: past it the engine is told to stop, then it is killed.
        limit = package.engine.Limit(depth=depth or None, nodes=nodes or None, time=self._deadline_s)
        with self._borrowed() as engine:
            # A new `game` object makes python-chess send `ucinewgame`, which empties the engine's hash table.
            found = engine.analyse(package.Board(fen), limit, multipv=count, game=object())
        # Relative scores: positive is good for the side to move, whichever that is.
        ranked = [(str(line["pv"][0]), line["score"].relative.score(mate_score=MATE_SCORE)) for line in found]
        return sorted(ranked, key=lambda line: -line[1])

    @contextmanager
    def _borrowed(self) -> Iterator[Any]:
        package = chess_package()
        try:
            # Several others may be ahead in line, each of whom may take a whole deadline.
            engine = self._slots.get(timeout=10 * self._deadline_s)
        except queue.Empty as error:
            raise EnvironmentFault("all chess engines are busy, and none came free in time: raise `engines`") from error
        try:
            engine = engine or self._start()
            yield engine
        except (package.engine.EngineError, CancelledError, TimeoutError, OSError) as error:
            _end(engine)
            # Its place goes back empty, and the next question starts a fresh engine there.
            engine = None
            raise EnvironmentFault(f"the chess engine {self.program} failed: {error!r}") from error
        # Cancellation too: the engine may still be thinking, and its answer would go to the next question.
        except BaseException:
            _end(engine)
            engine = None
            raise
        finally:
            self._give_back(engine)

    def _start(self) -> Any:
        if self._closed:
            raise EnvironmentFault("the chess world is closed: build a new one")
        engine_module = chess_package().engine
        try:
            engine = engine_module.SimpleEngine.popen_uci(self.program, timeout=self._deadline_s)
        except (FileNotFoundError, PermissionError) as error:
            raise MissingDependency(f"the chess engine {self.program} cannot be started: {error}") from error
        # Several threads search in an order of chance. Not every UCI engine has both options.
        wanted = {"Threads": 1, "Hash": 16}
        engine.configure({name: value for name, value in wanted.items() if name in engine.options})
        with self._lock:
            self.started += 1
        return engine

    def _give_back(self, engine: Any) -> None:
        if self._closed:
            _end(engine)
            engine = None
        self._slots.put(engine)

    def close(self) -> None:
        """End every idle engine; one that is at work ends when it is given back. Idempotent."""
        # First of all, so that an engine given back from now on is ended.
        self._closed = True
        idle = []
        with suppress(queue.Empty):
            while True:
                idle.append(self._slots.get_nowait())
        # The places are put back: whoever waits for one is then told that the world is closed.
        for engine in idle:
            _end(engine)
            self._slots.put(None)


def _end(engine: Any) -> None:
    """Close the connection, which kills the process; an engine that is gone already cannot be asked to quit."""
    if engine is not None:
        with suppress(Exception):
            engine.close()
