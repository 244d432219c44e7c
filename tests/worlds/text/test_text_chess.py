"""Chess: the benchmark's rewards, an opponent that repeats itself exactly, engines that die, hang, or are not there."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from rollwright.checks.env_check import check_env
from rollwright.contracts.environment import as_observation, episode_seed
from rollwright.contracts.errors import ConfigError, EnvironmentFault, MissingDependency
from rollwright.envs.text import chess_game
from rollwright.envs.text.boards import chess_engine
from rollwright.envs.text.game import Episode

chess = pytest.importorskip("chess")
try:
    STOCKFISH = chess_engine.find_stockfish()
except MissingDependency:
    STOCKFISH = ""
needs_stockfish = pytest.mark.skipif(not STOCKFISH, reason="stockfish is not installed")


def at(world: chess_game.ChessWorld, fen: str) -> Any:
    env = world.make()
    env._episode = Episode(state=chess_game.Position(fen=fen, seed=0))
    return env


def test_rewards_of_the_benchmark() -> None:
    world = chess_game.build(opponent="random", wording="compact")
    mate = at(world, "k7/8/1K6/8/8/8/8/7R w - - 0 1").step("R h 8 #")
    assert (mate.reward, mate.terminated, mate.success) == (1.0, True, True)
    drawn = at(world, "k7/8/2K5/8/8/8/8/1Q6 w - - 0 1").step("Qb6")
    assert (drawn.reward, drawn.terminated, drawn.success) == (0.0, True, False)
    mated = chess.Board("rnb1kbnr/pppp1ppp/8/4p3/6Pq/5P2/PPPPP2P/RNBQKBNR w KQkq - 1 3")
    lost = world._result(mated)
    assert (lost.reward, lost.terminated, lost.success) == (-1.0, True, False)


def test_an_illegal_move_costs_one_and_the_game_goes_on() -> None:
    world = chess_game.build(opponent="random", wording="compact")
    env = world.make()
    first = env.reset(world.tasks("train")[0], episode_seed("train", 0))
    assert first.text == chess.STARTING_FEN
    for slip in ("e5", "Ke2", "--", "Z0", "", "resign", "e4 e5 " * 100, "\x00"):
        result = env.step(slip)
        assert result.rewards == {"env": -1.0} and not result.terminated
        assert result.observation == f"{chess_game.ILLEGAL} {chess.STARTING_FEN}"
    assert env.step(" e 4\n").rewards == {"env": 0.0}


def test_never_a_legal_move_is_worth_minus_401() -> None:
    world = chess_game.build(opponent="random")
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    results = [env.step("no") for _ in range(401)]
    assert sum(r.rewards["env"] for r in results) == chess_game.MIN_RETURN == -401.0
    assert results[-1].truncated and not results[-2].truncated


def test_positions_are_spelled_as_in_the_benchmark() -> None:
    world = chess_game.build(opponent="random")
    text = world.make().reset(world.tasks("train")[0], episode_seed("train", 0)).text
    assert text.startswith("r n b q k b n r / p p p p p p p p / 8") and text.endswith("0   1")


def test_endgames_are_legal_quiet_and_from_the_seed() -> None:
    world = chess_game.build(start="endgames", opponent="random", wording="compact")
    for task in world.tasks("train"):
        fens = {world.begin(task, episode_seed("train", i))[0].fen for i in range(20)}
        assert len(fens) == 20
        for fen in fens:
            board = chess.Board(fen)
            assert board.is_valid() and not board.is_check() and board.turn == chess.WHITE
            assert sorted(p.symbol() for p in board.piece_map().values()) == sorted(task.params["material"])


def test_the_fixed_positions_are_645_and_only_for_testing() -> None:
    world = chess_game.build(start="fixed", opponent="random")
    tasks = world.tasks("test")
    assert len(tasks) == 645 and world.tasks("train") == [] and world.tasks("validation") == []
    starts = [world.begin(task, episode_seed("test", i))[0].fen for i, task in enumerate(tasks)]
    assert starts[:9] == [world.begin(t, episode_seed("test", 7))[0].fen for t in tasks[:9]] and len(set(starts)) > 640


def test_errors_grow_with_weakness() -> None:
    lines = [("a", 100), ("b", 60), ("c", 0)]
    assert chess_game.erring_choice(lines, 20, [0.0, 0.9, 0.9]) == "a"
    assert chess_game.erring_choice(lines, 0, [0.0, 0.5, 0.0]) == "b"  # 60 + 0.5 * 120 is more than 100
    assert chess_game.erring_choice(lines, 0, [0.5, 0.5, 0.99]) == "a"
    assert chess_game.erring_choice(lines, 0, [0.0, 0.0, 0.99]) == "c"


@needs_stockfish
def test_the_opponent_repeats_itself_exactly_for_a_seed() -> None:
    world = chess_game.build(wording="compact")
    games = []
    for key in (0, 0, 1, 2, 3):
        env = world.make()
        env.reset(world.tasks("train")[0], episode_seed("train", key))
        games.append([as_observation(env.step(move).observation).text for move in ("e4", "d3", "Nf3")])
    world.close()
    assert games[0] == games[1] and len({tuple(game) for game in games}) > 1


@needs_stockfish
@pytest.mark.slow
@pytest.mark.parametrize("start", ["full", "endgames"])
def test_the_contract_with_stockfish(start: chess_game.Start) -> None:
    check_env(chess_game.build(start=start), tasks_per_split=1, seeds=1, max_steps=8)


@needs_stockfish
@pytest.mark.slow
def test_the_master_wins_the_endgames() -> None:
    world = chess_game.build(start="endgames")
    won = 0
    for i in range(12):
        task = world.tasks("test")[i % 4]
        env, teacher = world.make(), world.teacher(task)
        observation = env.reset(task, episode_seed("test", "master", i))
        result = env.step(teacher.act(env, observation))
        while not (result.terminated or result.truncated):
            result = env.step(teacher.act(env, observation))
        won += result.success is True
    world.close()
    assert won >= 10


def test_the_contract_against_random_moves() -> None:
    check_env(
        chess_game.build(opponent="random"), seeds=2, actions=["e4", "Nf3", "d4", "Bd3", "Nc3", "O-O", "a3", "h3"]
    )


@needs_stockfish
def test_an_engine_that_dies_is_a_fault_and_is_replaced() -> None:
    pool = chess_engine.EnginePool(STOCKFISH, size=1, deadline_s=30.0)
    world = chess_game.ChessWorld(start="full", opponent="stockfish", level=0, wording="compact", pool=pool)
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    env.step("e4")
    before = env.fingerprint()
    engine = pool._slots.get()
    os.kill(engine.transport.get_pid(), signal.SIGKILL)
    pool._slots.put(engine)
    with pytest.raises(EnvironmentFault, match="failed"):
        env.step("Nf3")
    assert env.fingerprint() == before
    assert env.step("Nf3").reward == 0.0 and pool.started == 2
    world.close()
    world.close()
    with pytest.raises(EnvironmentFault, match="closed"):
        env.step("d3")


def test_an_engine_that_hangs_is_a_fault(tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nsleep 600\n")
    mute.chmod(0o755)
    world = chess_game.build(engine=str(mute), engine_deadline_s=0.5)
    env = world.make()
    env.reset(world.tasks("train")[0], episode_seed("train", 0))
    with pytest.raises(EnvironmentFault):
        env.step("e4")
    world.close()


def test_a_missing_engine_is_said_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependency, match="apt-get install stockfish"):
        chess_game.build(engine="/no/such/engine")
    monkeypatch.setattr(chess_engine.shutil, "which", lambda *args, **words: None)
    with pytest.raises(MissingDependency, match="stockfish"):
        chess_game.build()
    assert chess_game.build(opponent="random").teacher is not None


@pytest.mark.parametrize(
    "wrong", [{"start": "end"}, {"opponent": "me"}, {"wording": "long"}, {"level": 21}, {"engines": 0}]
)
def test_options_without_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        chess_game.build(**wrong)
