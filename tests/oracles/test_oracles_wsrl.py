"""WSRL (arXiv:2412.07762) at the switch from offline to online, and what it reduces to.

How many steps each online step takes, that nothing moves before the first of them, and that optimisers go on counting;
without stores and warm-up it is the plain recipe. Whole runs are ArCHer's, with a tiny policy in the small maze.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rollwright.contracts.record import Group, Trajectory
from rollwright.critics.fresh_actions import sample_actions
from rollwright.critics.replay_updates import WeightedLikelihood, stored_batch
from rollwright.critics.turn_critic import ValueLearner
from rollwright.recipes import archer
from rollwright.run_io.tracking import read_metrics
from rollwright.store.replay import Transition, TurnTable, valid_turns
from rollwright.store.replay.replay_settings import OnlineReplaySettings
from rollwright.store.trajectory_store import TrajectoryStore
from rollwright.training.loop import Training
from rollwright.training.replay_loop import ReplayPhases

pytestmark = pytest.mark.usefixtures("at_root")

SMALL = [
    "model.path=tiny",
    "model.tiny_hidden=32",
    "model.tiny_layers=1",
    "world.options.maze=umaze",
    "run.checkpoint_every=1",
    "run.keep_checkpoints=9",
    "run.transcripts_every=0",
    "rollout.schedule=rounds",
    "rollout.groups_per_step=3",
    "rollout.max_turns=5",
    "evaluation.seeds_per_task=1",
    "evaluation.max_turns=2",
]
CRITIC_STEPS, ACTOR_STEPS, BATCH = 3, 2, 6


def train(folder: Path, *words: str) -> Path:
    """ArCHer; -> its run folder."""
    fits = [f"critic.updates={CRITIC_STEPS}", f"critic.batch_size={BATCH}", "algorithm.warmup_steps=0"]
    fits += [f"algorithm.actor_updates={ACTOR_STEPS}", "algorithm.batch_size=6"]
    archer.main(["recipes/text/maze_archer.yaml", *SMALL, *fits, f"run.folder={folder}", *words])
    return folder


def states(folder: Path, name: str) -> list[dict[str, Any]]:
    """What the checkpoints hold of a learner, step by step."""
    return [torch.load(step / name, weights_only=True) for step in sorted((folder / "checkpoints").glob("step_*"))]


def same(one: Any, two: Any) -> bool:
    """Equal to the bit, however deep."""
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics, less what is measured in time."""
    left_out = ("time/", "ledger/", "engine/")
    return [
        {k: v for k, v in row.items() if not k.startswith(left_out)} for row in read_metrics(folder / "metrics.jsonl")
    ]


# WSRL: two offline steps, one of warm-up, three online ones


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, at_root: None) -> Path:
    """Stored walks of a tiny policy; every other one is paid half, so that they differ."""
    run = train(tmp_path_factory.mktemp("walked"), "run.steps=2", "run.seed=7", "algorithm.actor_updates=0")
    folder = tmp_path_factory.mktemp("logged") / "trajectories"
    walks = TrajectoryStore(run / "trajectories", mode="read").iter_trajectories(split="train")
    TrajectoryStore(folder).append([paid(walk, 1.0 - (k % 2) / 2) for k, walk in enumerate(walks)])
    return folder


def paid(walk: Trajectory, share: float) -> Trajectory:
    turns = [replace(t, rewards={name: share * value for name, value in t.rewards.items()}) for t in walk.turns]
    return replace(walk, turns=tuple(turns))


def switching(logged: Path) -> list[str]:
    return [
        f"replay.stores=[{logged}]",
        "algorithm.offline_steps=2",
        "replay.retain=false",
        "replay.warmup_turns=20",
    ]


@dataclass
class Watched:
    """A run, and what was seen of it from within."""

    folder: Path
    events: list[tuple[int, str]] = field(default_factory=list)
    batches: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """Of each online step: the turns drawn for the critic, and those of its minibatches in turn."""
    probes: dict[str, Any] = field(default_factory=dict)


def probe(run: Training) -> dict[str, Any]:
    """What policy, engine and critic say of some states, and the moments of both optimisers."""
    critic, table = cast(ValueLearner, run.parts[0]), TurnTable(*run.config.replay.stores)  # type: ignore[attr-defined]
    batch = table.transitions(valid_turns(table)[:6])
    acted = [t.prompt_ids + t.action_ids for t in batch]
    said = sample_actions(run.engine, [t.prompt_ids for t in batch], run.collector.sampling, key="probe")
    moments = [critic._fast.state_dict()["optimizer"], run.learner.state_dict()["policy"]["optimizer"]]  # type: ignore[union-attr]
    copied = [{k: {n: v.clone() for n, v in row.items()} for k, row in one["state"].items()} for one in moments]
    return {
        "fast": critic.read(acted),
        "slow": critic.read(acted, slow=True),
        "policy": run.learner.logprobs(stored_batch(batch, [0.0] * len(batch))),
        "engine": [(answer.token_ids, answer.logprobs) for answer in said],
        "moments": copied,
    }


@pytest.fixture(scope="module")
def switched(logged: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The run, with its critic steps, slow-copy steps and policy steps in the order in which they were taken."""
    seen = Watched(tmp_path_factory.mktemp("switched"))
    step_now = [-1]

    def note(kind: type, method: str, name: str) -> Callable[..., Any]:
        plain = getattr(kind, method)

        def noted(self: Any, *args: Any, **more: Any) -> Any:
            seen.events.append((step_now[0], name))
            return plain(self, *args, **more)

        return noted

    sample, targets, draw, finish = archer.Archer.sample, archer.Archer.targets, archer.Archer.draw, Training.finish
    phase = ReplayPhases.begin

    def enter(self: ReplayPhases, step: int) -> bool:
        step_now[0] = step
        return phase(self, step)

    def begun(self: archer.Archer, step: int, groups: Sequence[Group]) -> None:
        draw(self, step, groups)
        seen.probes[f"before {step}"] = probe(self.run)

    def drawn(self: archer.Archer, size: int) -> list[Transition]:
        found = sample(self, size)
        if size == CRITIC_STEPS * BATCH:
            seen.batches.append(([t.index for t in found], []))
        return found

    def targeted(self: archer.Archer, batch: Sequence[Transition], judged: Sequence[tuple[int, ...]]) -> Any:
        assert len(batch) == len(judged) == BATCH
        assert all(ids[: len(t.prompt_ids)] == t.prompt_ids for t, ids in zip(batch, judged, strict=True))
        seen.batches[-1][1].extend(t.index for t in batch)
        return targets(self, batch, judged)

    def finished(self: Training, step: int, *args: Any) -> None:
        seen.probes[f"after {step}"] = probe(self)
        finish(self, step, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ValueLearner, "update", note(ValueLearner, "update", "critic"))
        patch.setattr(ValueLearner, "_follow", note(ValueLearner, "_follow", "slow copy"))
        patch.setattr(WeightedLikelihood, "__call__", note_call(seen, step_now))
        patch.setattr(ReplayPhases, "begin", enter)
        for name, method in {"draw": begun, "sample": drawn, "targets": targeted}.items():
            patch.setattr(archer.Archer, name, method)
        patch.setattr(Training, "finish", finished)
        train(seen.folder, "run.steps=6", *switching(logged))
    return seen


def note_call(seen: Watched, step_now: list[int]) -> Callable[..., Any]:
    """One call of the policy's loss is one optimiser step here: six short turns make one micro-batch."""
    plain = WeightedLikelihood.__call__

    def noted(self: WeightedLikelihood, tokens: Any) -> Any:
        seen.events.append((step_now[0], "policy"))
        return plain(self, tokens)

    return noted


@pytest.mark.long
def test_every_online_step_takes_its_critic_steps_each_with_one_of_the_slow_copy_then_those_of_the_policy(
    switched: Watched,
) -> None:
    """n online steps after the warm-up: n times the ratio of critic and slow-copy steps, and the policy's beside."""
    one_step = ["critic", "slow copy"] * CRITIC_STEPS + ["policy"] * ACTOR_STEPS
    taken = {step: [name for at, name in switched.events if at == step] for step in range(6)}
    assert taken == {0: one_step, 1: one_step, 2: [], 3: one_step, 4: one_step, 5: one_step}
    rows = [row for row in read_metrics(switched.folder / "metrics.jsonl") if "replay/warmup_frac" in row]
    collected = [row["replay/turns_count"] for row in rows]
    assert rows[1]["replay/offline_frac"] == 1.0 and rows[2]["replay/offline_frac"] == 0.0
    assert collected[2] <= 20 + 1 < collected[3] < collected[4] < collected[5]
    assert [state["step"] for state in states(switched.folder, "critic.pt")] == [3, 6, 6, 9, 12, 15]
    assert [state["step"] for state in states(switched.folder, "learner.pt")] == [2, 4, 4, 6, 8, 10]


def test_minibatches_of_the_critic_partition_what_was_drawn_for_the_step(switched: Watched) -> None:
    assert len(switched.batches) == 5
    for whole, parts in switched.batches:
        assert len(whole) == CRITIC_STEPS * BATCH and parts == whole


def test_before_the_first_online_update_all_is_as_the_offline_steps_left_it(switched: Watched) -> None:
    """Values by the critic and its slow copy, log-probs, sampled actions, both optimisers: bit by bit."""
    left, probes = switched.probes["after 1"], switched.probes
    assert same(left, probes["after 2"]), "the warm-up changes nothing"
    assert same(left, probes["before 3"]), "nor does the switch"
    for name, value in left.items():
        assert not same(value, probes["before 1"][name]), f"{name}: the second offline step moved it"
        assert not same(value, probes["after 3"][name]), f"{name}: the first online step moves it"
    saved = [(states(switched.folder, name)[1:3]) for name in ("critic.pt", "learner.pt")]
    assert all(same(before, after) for before, after in saved)


def test_both_optimisers_go_on_counting_through_the_switch(switched: Watched) -> None:
    """Moments that began anew would be corrected for their beginning anew."""
    critic, learner = states(switched.folder, "critic.pt")[-1], states(switched.folder, "learner.pt")[-1]
    for state, steps in ((critic["fast"], 5 * CRITIC_STEPS), (learner["policy"], 5 * ACTOR_STEPS)):
        counts = {float(row["step"]) for row in state["optimizer"]["state"].values()}
        assert counts == {float(steps)}


@pytest.mark.parametrize("stop", [2, 3], ids=["before the warm-up", "before the first update"])
def test_a_run_that_is_stopped_at_the_switch_goes_on_with_the_same_bits(
    switched: Watched, logged: Path, tmp_path: Path, stop: int
) -> None:
    """The online learner is then a loaded one."""
    train(tmp_path, f"run.steps={stop}", *switching(logged))
    train(tmp_path, "run.steps=6", *switching(logged))
    for name in ("critic.pt", "learner.pt"):
        assert same(states(tmp_path, name)[-1], states(switched.folder, name)[-1])


# WSRL: what it reduces to


@pytest.mark.long
def test_without_stores_and_warm_up_it_is_the_plain_recipe(tmp_path: Path) -> None:
    """K = 0, nothing to retain: the same bits; with a warm-up they differ, since the first step updates nothing."""
    plain, reduced, warmed = (
        train(tmp_path / name, "run.steps=2", *words)
        for name, words in {
            "plain": [],
            "reduced": ["replay.warmup_turns=0", "replay.retain=false", "algorithm.offline_steps=0"],
            "warmed": ["replay.warmup_turns=20"],
        }.items()
    )
    assert curve(plain) == curve(reduced) != curve(warmed)
    for name in ("critic.pt", "learner.pt"):
        last = [states(folder, name)[-1] for folder in (plain, reduced, warmed)]
        assert same(last[0], last[1]) and not same(last[0], last[2])


def test_without_offline_steps_and_warm_up_old_and_new_turns_are_learned_from_at_once(
    logged: Path, tmp_path: Path
) -> None:
    """From fresh weights, with the stores beside the buffer from the first step on."""
    store = TrajectoryStore(tmp_path / "own")
    found = ReplayPhases(OnlineReplaySettings(stores=[str(logged)]), store, offline_steps=0, batch_size=64)
    own = [t for t in TrajectoryStore(logged, mode="read").iter_trajectories(split="train")][:2]
    old = len(valid_turns(TurnTable(logged)))
    assert found.begin(0)
    store.append(own)
    assert found.may_update()
    turns = valid_turns(found.table)
    assert len(turns) == old + sum(len(t.turns) for t in own)
    assert found.metrics()["replay/offline_frac"] == pytest.approx(old / len(turns))
