"""Run folders for tests of the page that shows them: an ordinary one, and one whose every text is hostile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models

from rollwright.contracts import Message, StopReason, Trajectory, Turn, WorldMark, attach_picture, episode_seed
from rollwright.evaluation import record_evaluation, save_evaluation
from rollwright.run_io import RunFolder
from rollwright.store import TokenColumns, TokenLog, TrajectoryStore
from tests import builders

WORDS = (
    "<|start|>",
    "<|end|>",
    "go",
    " north",
    " south",
    "\n",
    "you",
    " are",
    " here",
    "<script>globalThis.hit=1</script>",
)
"""Piece of each token id from 0 on; the first two are special."""
NORTH, SOUTH = (2, 3, 1), (2, 4, 1)
HOSTILE = (
    "<script>globalThis.hit=1</script>",
    "</script><script>globalThis.hit=1</script>",
    "<img src=x onerror=globalThis.hit=1>",
    "javascript:globalThis.hit=1",
    "\u202egnitirw\u2066 \x1b[2J\x00\u2028",
    "${globalThis.hit=1} {{hit}} <!-- ]]> &lt;b&gt;",
)
WORLD = WorldMark(name="text.maze", version="1", fingerprint="ab12")
STEPS = 4


def tokenizer_json() -> str:
    """A tokenizer whose pieces are `WORDS`."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.add_special_tokens(list(WORDS[:2]))
    return str(tokenizer.to_str())


def walk(number: int, action: tuple[int, ...], seen: tuple[int, ...], text: str = "") -> Turn:
    """One turn whose prompt goes on from `seen`; it pays 1 for north."""
    return builders.turn(
        (*seen, 0, 6, 7, 8, 5),
        action,
        {"env": float(action == NORTH), "format": 0.25},
        logprobs=(-0.1, -0.7, -0.01),
        text=text or "".join(WORDS[token] for token in action[:-1]),
        observed=(Message(role="user", content=text or f"you are here, move {number}"),),
    )


def walked(name: str, task: str, seed: int, moves: Sequence[tuple[int, ...]], **fields: object) -> Trajectory:
    """An episode of these moves; it succeeds where the last one is north."""
    turns: list[Turn] = []
    for number, action in enumerate(moves):
        seen = turns[-1].prompt_ids + turns[-1].action_ids if turns else ()
        turns.append(walk(number, action, seen))
    given = {"success": moves[-1] == NORTH, "policy": "tiny", "version": 1, "world": WORLD, **fields}
    return builders.episode(name, *turns, task=task, seed=seed, **given)  # type: ignore[arg-type]


def maze_run(folder: Path, *, good_from: int = 2, config: str = "run:\n  seed: 0\n", siblings: int = 4) -> RunFolder:
    """A run of `STEPS` steps on two tasks, solved by all siblings from step `good_from` on, with two evaluations."""
    metrics = [
        {"rollout/success_frac": 0.5 + 0.5 * (step >= good_from), "reward/total_mean": 0.5 * step,
         "reward/env_mean": 0.4,
         "policy/entropy_mean": 1.0 - 0.2 * step, "policy/kl_old_mean": 0.01, "rollout/num_turns_mean": 3.0,
         "rollout/env_error_frac": 0.0, "optim/grad_norm": 0.5, "optim/taught_count": 1.0,
         "time/step_s": 3.0, "time/collect_s": 2.0, "time/update_s": 0.8, "time/sync_s": 0.1}
        for step in range(STEPS)
    ]  # fmt: skip
    metrics[0] |= {"eval/success_frac": 0.5, "eval/success_low": 0.3, "eval/success_high": 0.7}
    metrics[-1] |= {"eval/success_frac": 1.0, "eval/success_low": 0.8, "eval/success_high": 1.0}
    run = builders.run_of(folder, metrics=metrics, config=config)
    store = TrajectoryStore(run.trajectories)
    log = TokenLog(folder)
    log.write_tokenizer(tokenizer_json())
    for step in range(STEPS):
        played = _step(step, good_from, siblings)
        store.append(played, tag=f"step_{step}")
        log.write(step, [logged(played)])
    for name, solved in (("start", 2), ("final", 4)):
        _evaluate(folder, store, name, solved)
    fault = {"step": 1, "kind": "browser", "stop_reason": "env_error", "task": "maze/2", "fault": "it closed"}
    run.faults.write_text(json.dumps(fault) + "\n", encoding="utf-8")
    return run


def _step(step: int, good_from: int, siblings: int) -> list[Trajectory]:
    played = []
    for task in ("maze/1", "maze/2"):
        for sibling in range(siblings):
            good = step >= good_from or sibling % 2 == 0
            moves = [SOUTH, NORTH if sibling else SOUTH, NORTH if good else SOUTH]
            stop = StopReason.TERMINATED if good else StopReason.MAX_TURNS
            played.append(walked(f"{step}/{task}/{sibling}", task, 100 + step, moves, stop=stop))
    return played


def logged(played: Sequence[Trajectory]) -> TokenColumns:
    """What an update knew of all action tokens but the last of each turn."""
    turns = [(trajectory, number) for trajectory in played for number in range(len(trajectory.turns))]
    advantages = [0.75 if trajectory.success else -0.5 for trajectory, _ in turns for _ in range(2)]
    total = 2 * len(turns)
    columns = {
        "positions": np.tile([0, 1], len(turns)).astype(np.int32),
        "advantages": np.array(advantages, np.float32),
        "diffs": np.linspace(-0.02, 0.02, total, dtype=np.float32),
        "entropies": np.linspace(0, 1.2, total, dtype=np.float32),
        "masks": np.ones(total, bool),
        "weights": np.ones(total, np.float32),
    }
    return TokenColumns(
        trajectory_ids=[trajectory.id for trajectory, _ in turns],
        turns=[number for _, number in turns],
        num_ids=[3] * len(turns),
        counts=[2] * len(turns),
        columns=columns,
    )


def _evaluate(folder: Path, store: TrajectoryStore, name: str, solved: int) -> None:
    played = [
        walked(f"{name}/{task}/{index}", task, episode_seed("test", index), [NORTH if index < solved else SOUTH])
        for task in ("maze/1", "maze/2")
        for index in range(4)
    ]
    store.append(played, tag=f"eval_{name}")
    save_evaluation(record_evaluation(played, name=name, split="test"), folder)


def hostile_run(folder: Path) -> RunFolder:
    """A run in which task, action, observation, tag, reward name, fault and settings are `HOSTILE`."""
    played = []
    for number, text in enumerate(HOSTILE):
        moves = (walk(0, (9, 3, 1), (), text), walk(1, (2, 9, 1), (), text))
        rewards = {text.replace("\x00", ""): 1.0}
        moves = tuple(builders.turn(t.prompt_ids, t.action_ids, rewards, text=text, observed=t.observed,
                                    attachments=(attach_picture(PICTURE),)) for t in moves)  # fmt: skip
        broken = number % 2 == 1
        given = {"stop": StopReason.ENV_ERROR, "fault": text} if broken else {"success": bool(number % 4)}
        played.append(builders.episode(f"{number}{text}", *moves, task=text, seed=number, policy=text, **given))
    run = builders.run_of(
        folder, metrics=[{"rollout/success_frac": 0.5}], config="world:\n  name: " + json.dumps(HOSTILE[0]) + "\n"
    )
    TrajectoryStore(run.trajectories).append(played, tag="step_0")
    TokenLog(folder).write_tokenizer(tokenizer_json())
    lines = [{"kind": text, "stop_reason": text, "task": text, "fault": text} for text in HOSTILE]
    run.faults.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return run


PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc000000301010018dd8db00000000049454e44ae426082"
)
"""A PNG of one pixel."""
