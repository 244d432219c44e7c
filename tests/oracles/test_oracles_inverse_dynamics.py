"""Labels by inverse dynamics (arXiv:2210.06518) at their limits, and the episodes that judge them.

Without a label the store is that of the labelled episodes alone; with every label right it is that of all episodes;
and whole episodes are held out, so that what measures the labels never taught them. The recipe runs on walks of the
small maze, all but its model: in its place stands a table of answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.config import load_config
from rollwright.contracts.record import Trajectory
from rollwright.generation.engine import Generation, Sampling
from rollwright.generation.scripted_engine import ScriptedEngine
from rollwright.methods.inverse_dynamics import InversePrompt, LabelReport, inverse_rows, judge_labels, passages
from rollwright.models.codec import ChatCodec
from rollwright.recipes import inverse_dynamics
from rollwright.rollout import Collector, FaultLog, Limits, TeacherActor
from rollwright.rollout.rerendering import NewContext
from rollwright.store.replay import Transition, TurnTable, valid_turns
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.open_world import open_world
from rollwright.training.stage import open_context


class Reader(ScriptedEngine):
    """A labeller that knows some of the questions, and how sure it is of each token."""

    def __init__(self, answers: dict[tuple[int, ...], str], codec: ChatCodec, *, logprob: float) -> None:
        super().__init__(lambda prompt_ids, _: answers.get(prompt_ids, "nothing"), codec.encode_action)
        self.logprob = logprob

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling, *, request_id: str) -> Generation:
        answer = await super().generate(prompt_ids, sampling, request_id=request_id)
        return Generation(
            token_ids=answer.token_ids,
            logprobs=(self.logprob,) * len(answer.token_ids),
            finish_reason=answer.finish_reason,
            spans=answer.spans,
        )


class Labelling:
    """The recipe on walks of the small maze, all but its model: that is a `Reader`.

    optimal_frac: 1 walks straight: no move into a wall, of which two look alike and no labeller could tell them apart.
    """

    def __init__(self, tmp_path: Path, patch: pytest.MonkeyPatch, *, optimal_frac: float) -> None:
        patch.chdir(Path(__file__).parents[2])
        self.tmp_path, self.patch = tmp_path, patch
        self.words = [
            "recipes/text/maze_inverse.yaml",
            *("model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1"),
            *("world.options.maze=umaze", f"world.options.teacher_optimal_frac={optimal_frac}"),
            *("data.hide_frac=0.5", "data.held_out_frac=0.4", f"data.stores=[{tmp_path / 'data'}]"),
        ]
        config = load_config(inverse_dynamics.InverseConfig, self.words)
        self.prompt: InversePrompt = config.label.prompt()
        _, self.codec, new_context = open_context(config.world, config.model, config.rollout, tmp_path / "start")
        self.episodes = self.walks(open_world(config.world), new_context)
        TrajectoryStore(tmp_path / "data").append(self.episodes)

    def walks(self, world: Any, new_context: NewContext) -> list[Trajectory]:
        collector = Collector(
            world,
            TeacherActor(world, self.codec.encode_action),
            new_context,
            sampling=Sampling(max_tokens=8),
            limits=Limits(max_turns=3),
            faults=FaultLog(self.tmp_path / "faults.jsonl", max_frac=0.0),
        )
        try:
            tasks = [(task, seed) for task in world.tasks("train") for seed in range(6)]
            return collector.play([collector.request(f"{t.id}/{seed}", t, seed) for t, seed in tasks])
        finally:
            collector.close()

    def questions(self, episodes: Sequence[Trajectory]) -> dict[tuple[int, ...], str]:
        """What is asked about each step of these episodes, and a true answer."""
        return dict(pair for trajectory in episodes for pair in self.asked(trajectory))

    def asked(self, trajectory: Trajectory) -> list[tuple[tuple[int, ...], str]]:
        return [
            (self.codec.encode_start(self.prompt.messages(passage)), turn.text)
            for passage, turn in zip(passages(trajectory, self.prompt), trajectory.turns, strict=True)
            if passage.after is not None
        ]

    def run(self, name: str, answers: dict[tuple[int, ...], str], *words: str, logprob: float = 0.0) -> None:
        """Afterwards `store`, `report`, the `rows` that the model was given to learn from, the ids of the episodes that
        they came from (`taught`), and of those that labels were `judged` by."""
        self.judged: list[list[str]] = []
        rows_of, judge = inverse_rows, judge_labels

        def taught(episodes: Sequence[Trajectory], *more: Any, **settings: Any) -> list[dict[str, list[int]]]:
            self.taught = [t.id for t in episodes]
            return rows_of(episodes, *more, **settings)

        def judged(truths: Sequence[Trajectory], *more: Any, **settings: Any) -> LabelReport:
            self.judged.append([t.id for t in truths])
            return judge(truths, *more, **settings)

        def fit(rows: list[dict[str, Any]], start: Path, *_: Any, **__: Any) -> Path:
            self.rows = rows
            return start

        def engine(*_: Any, **__: Any) -> Reader:
            return Reader(answers, self.codec, logprob=logprob)

        for what, by in (("inverse_rows", taught), ("judge_labels", judged), ("fit", fit), ("open_engine", engine)):
            self.patch.setattr(inverse_dynamics, what, by)
        folder = self.tmp_path / name
        inverse_dynamics.main([*self.words, f"run.folder={folder}", *words])
        self.store = TrajectoryStore(folder / "trajectories", mode="read")
        self.report = json.loads((folder / "labels.json").read_text())

    def named(self, ids: Sequence[str]) -> list[Trajectory]:
        return [next(t for t in self.episodes if t.id == name) for name in ids]


def batches(store: TrajectoryStore) -> list[Transition]:
    """What an offline learner draws from, in the order of the store."""
    table = TurnTable(store)
    return table.transitions(valid_turns(table))


@pytest.mark.long
def test_without_a_label_the_store_is_that_of_the_labelled_episodes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No confidence reaches the threshold: any offline learner sees what it would see without the logs."""
    labelling = Labelling(tmp_path, monkeypatch, optimal_frac=0.5)
    labelling.run("none", labelling.questions(labelling.episodes), "label.threshold=0.95", logprob=-0.1)
    known = [*labelling.taught, *labelling.judged[0]]
    plain = TrajectoryStore(tmp_path / "plain")
    plain.append(labelling.named(known))
    assert batches(labelling.store) == batches(plain)
    assert list(labelling.store.iter_trajectories()) == list(plain.iter_trajectories())
    assert 0 < len(known) < len(labelling.episodes) and labelling.report["store"]["labelled"] == 0
    labelling.run("some", labelling.questions(labelling.episodes), "label.threshold=0.1", logprob=-0.1)
    assert len(batches(labelling.store)) > len(batches(plain)), "the threshold alone left them out"


def test_with_every_label_right_a_learner_sees_the_episodes_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State, action, reward, next state and return of every turn, but for the last one before a cut: what followed it
    is not on record in a log."""
    labelling = Labelling(tmp_path, monkeypatch, optimal_frac=1.0)
    labelling.run("all", labelling.questions(labelling.episodes))
    hidden = set(labelling.judged[1])
    once = sorted(t.id for t in labelling.store.iter_trajectories())
    assert once == sorted(t.id for t in labelling.episodes), "no episode is lost and none is there twice"
    assert hidden and labelling.report["hidden"]["accuracy"] == labelling.report["hidden"]["kept_frac"] == 1.0

    def seen(trajectories: Sequence[Trajectory], name: str) -> dict[tuple[str, int], tuple[Any, ...]]:
        store = TrajectoryStore(tmp_path / name)
        store.append(sorted(trajectories, key=lambda t: t.id))
        ids = [t.id for t in store.iter_trajectories()]
        return {
            (ids[t.trajectory], t.turn): (
                *(t.prompt_ids, t.action_ids, t.action_mask, t.reward, t.next_prompt_ids),
                *(t.terminated, t.truncated, t.return_to_go, t.success, t.turns_left),
            )
            for t in batches(store)
        }

    cut = {t.id: len(t.turns) - 1 for t in labelling.episodes if t.stop_reason.is_truncation and t.id in hidden}
    expected = seen(labelling.episodes, "expected")
    assert cut and len(cut) < len(hidden) and all(expected.pop((name, last)) for name, last in cut.items())
    assert seen(list(labelling.store.iter_trajectories()), "found") == expected


def test_what_judges_the_labels_never_taught_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole episodes are held out; a labeller that knows their steps alone is perfect there and not elsewhere."""
    labelling = Labelling(tmp_path, monkeypatch, optimal_frac=0.3)
    labelling.run("once", {})
    taught, (aside, hidden) = labelling.taught, labelling.judged
    everything = [t.id for t in labelling.episodes]
    assert taught and aside and hidden and sorted([*taught, *aside, *hidden]) == sorted(everything)
    rows = inverse_rows(labelling.named(taught), labelling.codec, labelling.prompt, max_length=4096)
    assert labelling.rows == rows and labelling.report["held_out"]["accuracy"] == 0.0

    answers = labelling.questions(labelling.named(aside))
    labelling.run("twice", answers)
    assert (labelling.taught, labelling.judged) == (taught, [aside, hidden]), "the same split from the same seed"
    for part, ids in (("held_out", aside), ("hidden", hidden)):
        steps = [pair for t in labelling.named(ids) for pair in labelling.asked(t)]
        right = sum(answers.get(question) == action for question, action in steps)
        assert labelling.report[part]["steps"] == len(steps)
        assert labelling.report[part]["accuracy"] == pytest.approx(right / len(steps))
    assert labelling.report["held_out"]["accuracy"] > labelling.report["hidden"]["accuracy"] > 0
