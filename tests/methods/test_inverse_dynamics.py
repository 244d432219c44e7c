"""Labels for logs without actions: what identifies an action, what is left open, and the store that comes out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import ConfigError, DataError
from rollwright.contracts.record import Message, StopReason, Task, Trajectory
from rollwright.envs.text.maze import build
from rollwright.evaluation import load_evaluation
from rollwright.generation.engine import Sampling
from rollwright.methods.demonstrations import IGNORED, imitable, sft_rows
from rollwright.methods.inverse_dynamics import (
    CONFIDENCE,
    InversePrompt,
    Label,
    Passage,
    held_out,
    inverse_rows,
    judge_labels,
    label,
    labelled,
    passages,
    require_logs,
    without_actions,
)
from rollwright.models.codec import ChatCodec
from rollwright.models.tiny_model import tiny_tokenizer
from rollwright.recipes import collect, filtered_bc, inverse_dynamics
from rollwright.rollout import Collector, FaultLog, Limits, TeacherActor
from rollwright.rollout.contexts import AppendOnly, Context, Windowed
from rollwright.store.replay import TurnTable, valid_turns
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders

TASK = Task(id="t", split="train")
PROMPT = InversePrompt(system="")


def codec_of(*more: str) -> ChatCodec:
    return ChatCodec(tiny_tokenizer([*build(wording="compact").texts(), *more]))


CODEC = codec_of("F B N")


def contexts() -> dict[str, Callable[[], Context]]:
    common = {"codec": CODEC, "instructions": "", "context_length": 1 << 20}
    return {
        "append": AppendOnly(**common),  # type: ignore[arg-type]
        "windowed": Windowed(**common, history=0),  # type: ignore[arg-type]
        "history": Windowed(**common, history=2),  # type: ignore[arg-type]
    }


def walks(tmp_path: Path, kind: str, count: int = 3) -> list[Trajectory]:
    """Episodes of the maze by its teacher."""
    world = build(wording="compact", teacher_optimal_frac=0.5)
    collector = Collector(
        world,
        TeacherActor(world, CODEC.encode_action),
        contexts()[kind],
        sampling=Sampling(max_tokens=4),
        limits=Limits(max_turns=25),
        faults=FaultLog(tmp_path / "faults.jsonl", max_frac=0.5),
    )
    try:
        tasks = world.tasks("train")[:count]
        return collector.play([collector.request(t.id, t, episode_seed("train", t.id)) for t in tasks])
    finally:
        collector.close()


class Counted:
    """The tabular model: of every passage, the most frequent action and its share."""

    def __init__(self, taught: Sequence[Trajectory], prompt: InversePrompt = PROMPT) -> None:
        self.table: dict[Passage, Counter[tuple[int, ...]]] = {}
        for trajectory in taught:
            for passage, turn in zip(passages(trajectory, prompt), trajectory.turns, strict=True):
                self.table.setdefault(passage, Counter())[turn.action_ids] += 1

    def __call__(self, asked: Sequence[Passage]) -> list[Label]:
        return [self.best(self.table.get(passage, Counter({(1,): 0}))) for passage in asked]

    def best(self, seen: Counter[tuple[int, ...]]) -> Label:
        (action, count), *_ = seen.most_common(1)
        return Label(action_ids=action, confidence=count / max(1, seen.total()))


def episode(name: str, *steps: tuple[str, str]) -> Trajectory:
    """(what was seen, what was done) ..., the last action ends the task."""
    turns = [
        builders.turn(
            action=CODEC.encode_action(done), logprobs=0.0, text=done, observed=(Message(role="user", content=seen),)
        )
        for seen, done in steps
    ]
    return builders.episode(name, *turns, task=TASK)


CHAIN = [episode("a", ("0", "B"), ("0", "F"), ("1", "B"), ("0", "F"), ("1", "F"), ("2", "B"), ("1", "F"), ("2", "F"))]
"""CHAIN-3: F moves on, from 2 to the end, B moves back, from 0 to 0."""


def test_every_step_of_the_chain_tells_its_action() -> None:
    found = label(CHAIN, Counted(CHAIN), PROMPT)
    report = judge_labels(CHAIN, found, CODEC, threshold=0.9)
    assert (report.steps, report.accuracy, report.kept_frac, report.mean_confidence) == (8, 1.0, 1.0, 1.0)


def test_an_action_that_cannot_be_told_gets_no_label() -> None:
    """N does nothing, so at state 0 it looks like B: probability one half each, entropy ln 2."""
    taught = [episode("a", ("0", "B"), ("0", "F"), ("1", "F"), ("2", "F")), episode("b", ("0", "N"), ("0", "F"))]
    seen = Counted(taught).table[Passage(seen=("0",), after="0")]
    shares = [count / seen.total() for count in seen.values()]
    assert -sum(p * math.log(p) for p in shares) == pytest.approx(math.log(2))
    report = judge_labels(taught[:1], label(taught[:1], Counted(taught), PROMPT), CODEC, threshold=0.9)
    assert report.kept_frac == 0.75 and report.kept_accuracy == 1.0


def test_an_earlier_observation_tells_what_two_cannot() -> None:
    """A thing that drifts the way it last went: whether "F" or "N" came between 2 and 3 shows in what was before."""
    taught = [episode("a", ("1", "F"), ("2", "N"), ("3", "F")), episode("b", ("2", "F"), ("2", "F"), ("3", "F"))]
    for history, expected in ((0, 0.5), (1, 1.0)):
        prompt = InversePrompt(system="", history=history)
        middle = Counted(taught, prompt).best(Counted(taught, prompt).table[passages(taught[0], prompt)[1]])
        assert middle.confidence == expected


def test_what_followed_a_cut_is_not_known() -> None:
    cut = replace(CHAIN[0], stop_reason=StopReason.MAX_TURNS)
    assert passages(cut, PROMPT)[-1].after is None and passages(CHAIN[0], PROMPT)[-1].after == "(the task ended)"
    assert label([cut], Counted(CHAIN), PROMPT)[0][-1] is None


def test_the_question_shows_both_sides() -> None:
    prompt = InversePrompt(history=1)
    text = prompt.messages(Passage(seen=("s0", "s1"), after="s2"))[-1].content
    assert text == "Before:\ns0\nBefore:\ns1\nAfter:\ns2"
    assert [m.role for m in prompt.messages(Passage(seen=("x",), after="y"))] == ["system", "user"]
    assert len(PROMPT.messages(Passage(seen=("x",), after="y"))) == 1


@pytest.mark.parametrize("kind", ["append", "windowed", "history"])
def test_right_labels_give_back_the_episode(tmp_path: Path, kind: str) -> None:
    """Prompts and actions id by id, rewards and verdict as they were; nothing of the actions was in the log."""
    for played in walks(tmp_path, kind):
        log = without_actions(played)
        assert not log.has_actions and not log.learnable and log.rewards == played.rewards
        assert not any(move in str(log) for move in ("move up", "move down", "move left", "move right"))
        truth = [Label(action_ids=turn.action_ids, confidence=1.0) for turn in played.turns]
        again = labelled(log, truth, contexts()[kind], threshold=0.9)
        for new, old in zip(again.turns, played.turns, strict=True):
            assert (new.prompt_ids, new.action_ids, new.text) == (old.prompt_ids, old.action_ids, old.text)
            assert new.rewards == old.rewards and all(new.action_mask) and not any(new.policy_mask)
            assert new.values == {CONFIDENCE: (1.0,) * len(new.action_ids)}
        assert again.learnable and again.success == played.success and again.origin == "log"


@pytest.mark.parametrize("kind", ["append", "windowed", "history"])
def test_doubtful_turns_teach_nothing_and_keep_their_reward(tmp_path: Path, kind: str) -> None:
    played = walks(tmp_path, kind)[0]
    sure = [k % 2 == 0 for k in range(len(played.turns))]
    labels = [
        Label(action_ids=t.action_ids, confidence=0.95 if s else 0.5) for t, s in zip(played.turns, sure, strict=True)
    ]
    again = labelled(without_actions(played), labels, contexts()[kind], threshold=0.9)
    assert [bool(turn.action_ids) for turn in again.turns] == sure and again.rewards == played.rewards
    assert [t.prompt_ids for t in again.turns] == [t.prompt_ids for t in played.turns], "the guess is in the history"
    store = TrajectoryStore(tmp_path / "store")
    store.append([again], tag="inverse_dynamics")
    table = TurnTable(store)
    assert valid_turns(table).tolist() == [k for k, s in enumerate(sure) if s]
    rows = sft_rows([store.read(ref) for ref in store.refs()], vocab_size=len(CODEC.tokenizer), max_length=4096)
    taught = [[label for label in row["labels"] if label != IGNORED] for row in rows]
    assert all(taught) and sum(map(len, taught)) == sum(len(turn.action_ids) for turn in again.turns)
    assert imitable([again], only_success=False) == [again]
    nothing = labelled(without_actions(played), [None] * len(labels), contexts()[kind], threshold=0.9)
    assert not nothing.has_actions and not nothing.learnable


def test_bad_data_are_refused(tmp_path: Path) -> None:
    played = walks(tmp_path, "windowed", count=1)
    log = without_actions(played[0])
    assert require_logs([log]) == [log]
    with pytest.raises(DataError, match="never overwritten"):
        require_logs(played)
    with pytest.raises(DataError, match="none of 1 logs"):
        require_logs([replace(log, task=Task(id="t", split="test"))])
    blind = replace(log, turns=tuple(replace(turn, observed=()) for turn in log.turns))
    with pytest.raises(DataError, match="no observation on record"):
        label([blind], Counted(CHAIN), PROMPT)
    with pytest.raises(DataError, match="another tokenizer"):
        inverse_rows(played, ChatCodec(tiny_tokenizer(["other words"])), PROMPT, max_length=1000)
    with pytest.raises(DataError, match="none of"):
        inverse_rows(played, CODEC, PROMPT, max_length=3)
    with pytest.raises(DataError, match="no trajectory to imitate"):
        imitable([log], only_success=False)
    with pytest.raises(DataError, match="held_out_frac"):
        judge_labels([], [], CODEC, threshold=0.5)


def test_whole_episodes_are_held_out() -> None:
    many = [replace(CHAIN[0], id=str(k)) for k in range(400)]
    out = [held_out(t, 0.25, seed=0, what="held-out") for t in many]
    assert 70 < sum(out) < 130 and out == [held_out(t, 0.25, seed=0, what="held-out") for t in many]
    assert out != [held_out(t, 0.25, seed=1, what="held-out") for t in many]
    assert out != [held_out(t, 0.25, seed=0, what="hidden") for t in many]
    assert not any(held_out(t, 0.0, seed=0, what="hidden") for t in many)


def test_rows_ask_with_the_prompt_and_answer_with_the_action() -> None:
    rows = inverse_rows(CHAIN, CODEC, PROMPT, max_length=1000)
    ids = CODEC.encode_start(PROMPT.messages(Passage(seen=("0",), after="0")))
    action = CODEC.encode_action("B")
    assert rows[0] == {"input_ids": [*ids, *action], "labels": [IGNORED] * len(ids) + [*action]} and len(rows) == 8


UMAZE = ["model.path=tiny", "model.tiny_hidden=64", "model.tiny_layers=2", "world.options.maze=umaze"]


@pytest.mark.slow
def test_labels_read_off_walks_teach_a_policy_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the walks lose their moves; what the other half teaches labels them; a policy learns from the labels.

    Two walls look alike to one who runs into them: nearly half of the moves cannot be told, and must not be labelled.
    """
    monkeypatch.chdir(Path(__file__).parents[2])
    data, labels, run = tmp_path / "data", tmp_path / "labels", tmp_path / "run"
    straying = ["world.options.teacher_stays=false", "collect.per_task=40", f"run.folder={data}"]
    collect.main(["recipes/text/maze_collect.yaml", *UMAZE, *straying])
    words = [f"run.folder={labels}", f"data.stores=[{data / 'trajectories'}]", "data.hide_frac=0.5"]
    more = ["label.with_known=false", "sft.epochs=10", "data.held_out_frac=0.2"]
    inverse_dynamics.main(["recipes/text/maze_inverse.yaml", *UMAZE, *words, *more])
    report = json.loads((labels / "labels.json").read_text())
    for part in ("held_out", "hidden"):
        assert report[part]["kept_accuracy"] > 0.9 and 0.3 < report[part]["kept_frac"] < 0.9
        assert report[part]["accuracy"] == pytest.approx(report[part]["mean_confidence"], abs=0.1)
    store = TrajectoryStore(labels / "trajectories", mode="read")
    assert store.tags() == {"inverse_dynamics": report["store"]["labelled"]}
    with pytest.raises(ConfigError, match="labelled episodes already"):
        inverse_dynamics.main(["recipes/text/maze_inverse.yaml", *UMAZE, *words, *more])

    # Best by return means nearest at the start: a narrow filter would leave the far starts without a single walk.
    # 0.6 was enough while all that tied with the quantile were kept.
    steps = ["run.steps=5", "algorithm.offline_steps=5", "evaluation.max_turns=30", "algorithm.top_frac=0.75"]
    taught = [f"run.folder={run}", f"replay.stores=[{labels / 'trajectories'}]", "learner.learning_rate=3e-3"]
    filtered_bc.main(["recipes/text/maze_filtered.yaml", *UMAZE, *steps, *taught])
    rows = load_evaluation(run / "eval" / "final.json").rows
    assert sum(row.total_return for row in rows) / len(rows) >= -8, "the best way is -4, straying -15 and below"
