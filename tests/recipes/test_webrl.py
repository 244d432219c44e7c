"""WebRL: the reference of a phase, what is replayed, both losses, resume in and between phases, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from rollwright.batching import Segment, TokenBatch
from rollwright.contracts.errors import ConfigError, DataError
from rollwright.contracts.record import Trajectory
from rollwright.critics.outcome_values import outcomes
from rollwright.critics.replay_updates import WebRLObjective, WeightedLikelihood, stored_batch
from rollwright.envs.text.maze import MOVES
from rollwright.envs.text.maze import build as build_maze
from rollwright.learner.fixed_policy import FixedPolicy
from rollwright.learner.learner import Learner
from rollwright.maths.losses import webrl_released_loss, webrl_squared
from rollwright.models.codec import ChatCodec
from rollwright.models.loading import load_policy, load_tokenizer, with_lora
from rollwright.models.tiny_model import make_tiny_model
from rollwright.recipes import webrl as recipe
from rollwright.rollout.contexts import Windowed
from rollwright.run_io.tracking import read_metrics
from rollwright.store.data_checks import require_success_is_seen
from rollwright.store.replay import TurnTable, latest_per_task, valid_turns
from tests import builders
from tests.builders import table_of

pytestmark = pytest.mark.usefixtures("at_root")


def episode(name: str, *, task: str = "t", reward: float, success: bool | None, ids: int = 5) -> Trajectory:
    turn = builders.turn((ids, 6), (7, 8), reward)
    return builders.episode(name, turn, task=task, success=success)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    make_tiny_model(path, texts=["some words to make a vocabulary of"], hidden=32, layers=2, context_length=64, seed=0)
    return path


def learner_of(folder: Path, *, lora: bool = False) -> Learner:
    policy, _ = load_policy(folder, "float32")
    return Learner(Accelerator(), with_lora(policy, rank=4) if lora else policy, learning_rate=1e-2)


# The fixed policy


@pytest.mark.parametrize("lora", [False, True])
def test_the_reference_stands_still_until_it_is_renewed(folder: Path, tmp_path: Path, lora: bool) -> None:
    learner, table = learner_of(folder, lora=lora), table_of(tmp_path / "s", episode("a", reward=1.0, success=True))
    batch = stored_batch(table.transitions([0]), [1.0])
    fixed = FixedPolicy(learner)
    before = fixed.logprobs(batch)
    torch.testing.assert_close(before, learner.logprobs(batch), rtol=0, atol=1e-5)
    for _ in range(5):
        learner.update(batch, WeightedLikelihood())
    assert torch.equal(fixed.logprobs(batch), before) and fixed.version == 0
    now = learner.logprobs(batch)
    assert float((now - before).abs().max()) > 0.05
    fixed.renew()
    torch.testing.assert_close(fixed.logprobs(batch), now, rtol=0, atol=1e-5)
    assert fixed.version == 5


def test_the_reference_survives_in_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    learner, table = learner_of(folder), table_of(tmp_path / "s", episode("a", reward=1.0, success=True))
    batch = stored_batch(table.transitions([0]), [1.0])
    learner.update(batch, WeightedLikelihood())
    fixed = FixedPolicy(learner)
    learner.update(batch, WeightedLikelihood())
    fixed.save_state(tmp_path)
    other = FixedPolicy(learner)  # of the policy as it is now
    assert not torch.equal(other.logprobs(batch), fixed.logprobs(batch)) and other.version == 2
    other.load_state(tmp_path)
    assert torch.equal(other.logprobs(batch), fixed.logprobs(batch)) and other.version == 1


# Losses: numbers of the method card


def flat(rows: list[tuple[float, int]]) -> torch.Tensor:
    return torch.cat([torch.full((tokens,), total / tokens) for total, tokens in rows])


def test_the_released_loss_divides_each_turn_by_its_own_tokens() -> None:
    """Turns of 10 and 5 tokens, target 1. The first: rho (-4 + 5) / 10, beta 1. Second: p_ref = exp(-0.5 / 5) > 0.8, so
    beta 5, rho 0.25 / 5 = 0.05. The third has a negative target."""
    now, before = flat([(-4.0, 10), (-0.25, 5), (-3.0, 2)]), flat([(-5.0, 10), (-0.5, 5), (-9.0, 2)])
    index = torch.tensor([0] * 10 + [1] * 5 + [2] * 2)
    now.requires_grad_()
    losses = webrl_released_loss(
        now,
        before,
        torch.tensor([1.0, 1.0, -0.6]),
        torch.ones(17, dtype=torch.bool),
        index,
        num_sequences=3,
        num_tokens="turn",
    )
    expected = torch.tensor([0.5 * 0.9**2, 0.5 * 0.75**2 / 5, 0.0])
    torch.testing.assert_close(losses.detach(), expected, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(losses.sum(), now)
    torch.testing.assert_close(gradient[0], torch.tensor(-0.9 / 10), rtol=0, atol=1e-6)
    assert not gradient[15:].any()


def test_gradient_of_the_squared_loss() -> None:
    """-2 beta (A - beta log-ratio) grad log pi, card: verification 4."""
    now, before = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True), torch.tensor([-1.5, -1.0, -0.25])
    index, beta, advantages = torch.tensor([0, 0, 1]), 0.7, torch.tensor([0.3, -0.8])
    losses = webrl_squared(now, before, advantages, torch.ones(3, dtype=torch.bool), index, num_sequences=2, beta=beta)
    (gradient,) = torch.autograd.grad(losses.sum(), now)
    ratios = torch.tensor([0.5 - 1.0, -0.25])
    per_turn = -2 * beta * (advantages - beta * ratios)
    torch.testing.assert_close(gradient, per_turn[index], rtol=0, atol=1e-6)


@pytest.mark.long
def test_a_larger_beta_keeps_the_policy_nearer(folder: Path, tmp_path: Path) -> None:
    """Random advantages, card: verification 9, through the learner."""
    generator = np.random.default_rng(0)
    table = table_of(tmp_path / "s", *(episode(str(i), reward=1.0, success=True, ids=i) for i in range(5, 17)))
    advantages = generator.uniform(-1, 1, 12).tolist()
    drift = []
    for beta in (0.1, 1.0, 10.0):
        learner = learner_of(folder)
        steps = table.transitions(valid_turns(table))
        batch = stored_batch(steps, advantages)
        before = learner.logprobs(batch)
        batch = batch.with_columns(logprobs_ref=before)
        for _ in range(150):
            learner.update(batch, WebRLObjective(form="squared", beta=beta))
        moved = batch.by_turn(learner.logprobs(batch) - before)
        drift.append(float(torch.stack([row.sum().square() for row in moved]).mean()))
    assert drift[0] > 4 * drift[1] > 16 * drift[2]


# What counts as a success, what is kept of it


def test_the_reward_decides_where_it_is_asked(tmp_path: Path) -> None:
    """An outcome model that calls a failure a success is believed, and one that doubts a success too."""
    table = table_of(tmp_path / "s", episode("a", reward=0.0, success=True), episode("b", reward=1.0, success=False))
    assert outcomes(table).tolist() == [1.0, 0.0]
    assert outcomes(table, by="reward").tolist() == [0.0, 1.0]


def test_successes_that_no_reward_shows_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path / "s", episode("a", reward=-3.0, success=True), episode("b", reward=-9.0, success=False))
    turns = valid_turns(table)
    with pytest.raises(DataError, match="1 of 2 episodes a success, but no return is above 0"):
        require_success_is_seen(table, turns, outcomes(table, by="reward"))
    require_success_is_seen(table, turns, outcomes(table))


@pytest.mark.parametrize(("reward", "refused"), [("env", True), ("rollwright.rewards.judge", False)])
def test_an_outcome_model_may_miss_the_only_success(tmp_path: Path, reward: str, refused: bool) -> None:
    """The world's own reward that shows no success is a wrong setting; a model that doubts one is not."""
    table = table_of(tmp_path / "s", episode("a", reward=0.0, success=True), episode("b", reward=0.0, success=False))
    learner: Any = object.__new__(recipe.Webrl)
    learner.table, learner.valid, learner.labels = table, valid_turns(table), outcomes(table, by="reward")
    learner.rewards_are_the_worlds = reward == "env"
    if refused:
        with pytest.raises(DataError, match="1 of 2 episodes a success"):
            learner.require_seen()
    else:
        learner.require_seen()


def test_one_per_task_keeps_the_latest(tmp_path: Path) -> None:
    names = ["x", "y", "x", "z"]
    table = table_of(tmp_path / "s", *(episode(str(i), task=t, reward=1.0, success=True) for i, t in enumerate(names)))
    assert latest_per_task(table, among=np.array([0, 1, 2])).tolist() == [1, 2]


# Whole runs of a tiny model in the small maze

WORDS = [
    "recipes/text/maze_webrl.yaml",
    "world.options.maze=umaze",
    "rollout.groups_per_step=6",
    "rollout.max_turns=12",
    "rollout.schedule=rounds",
    "algorithm.phase_steps=2",
    "algorithm.outcome=verdict",
    "replay.low=0",
    "replay.high=1",
    "evaluation.seeds_per_task=1",
    "evaluation.max_turns=3",
    "run.transcripts_every=0",
]
Train = Callable[..., list[dict]]


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy that knows the four moves and no more: in the small maze it reaches the goal now and then."""
    world, path = build_maze(maze="umaze", wording="compact"), tmp_path_factory.mktemp("walker")
    make_tiny_model(path / "random", texts=world.texts(), hidden=32, layers=1, context_length=128, seed=0)
    codec, env = ChatCodec(load_tokenizer(path / "random")), world.make()
    spec, segments = Windowed(codec=codec, instructions="", context_length=128, history=0), []
    for task in world.tasks("train"):
        context = spec()
        context.observe(env.reset(task, 0))
        for move in MOVES:
            action = codec.encode_action(move)
            segments.append(Segment(prompt_ids=context.prompt_ids(8), action_ids=action, sequence=len(segments)))
    batch = TokenBatch.of(segments)
    batch = batch.with_columns(advantages=torch.ones(len(batch)))
    learner = learner_of(path / "random")
    for _ in range(60):
        learner.update(batch, WeightedLikelihood())
    learner.save_pretrained(path / "policy")
    load_tokenizer(path / "random").save_pretrained(path / "policy")
    return path / "policy"


@pytest.fixture(scope="module")
def train(walker: Path) -> Train:
    """Start a run; -> its lines of metrics, one per step."""

    def start(run: Path, *words: str) -> list[dict]:
        recipe.main([*WORDS, f"model.path={walker}", f"run.folder={run}", *words])
        return [row for row in read_metrics(run / "metrics.jsonl") if "webrl/reference_version" in row]

    return start


@pytest.fixture(scope="module")
def whole(train: Train, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """Six steps, three phases, undisturbed."""
    run = tmp_path_factory.mktemp("whole")
    return run, train(run, "run.steps=6")


@pytest.mark.long
def test_the_reference_changes_between_phases_only(whole: tuple[Path, list[dict]]) -> None:
    versions = [row["webrl/reference_version"] for row in whole[1]]
    assert versions[0] == versions[1] == 0.0
    assert versions[1] < versions[2] == versions[3] < versions[4] == versions[5]


def test_successes_of_earlier_phases_are_replayed(whole: tuple[Path, list[dict]]) -> None:
    """The band is wide open here: every turn of every earlier success may come back, at most twice the new ones."""
    table = TurnTable(whole[0] / "trajectories")
    tags = np.array(table.names["tag"])[table.trajectories["tag"]]
    won = (table.trajectories["success"] == 1) & table.trajectories["train"]
    for phase, rows in enumerate((whole[1][:2], whole[1][2:4], whole[1][4:])):
        earlier = np.isin(tags, [f"step_{step}" for step in range(2 * phase)])
        stored = table.trajectories["num_turns"][won & earlier].sum()
        assert [row["webrl/eligible_count"] for row in rows] == [stored, stored]
        assert all(row["webrl/replayed_frac"] <= 2 / 3 for row in rows)
    assert whole[1][0]["webrl/replayed_frac"] == 0 < whole[1][4]["webrl/replayed_frac"]


def test_tasks_grow_between_phases(train: Train, tmp_path: Path) -> None:
    """One start is given, the three others of the small maze can be proposed where it was not always left."""
    words = ["world.options.seed_starts=1", "curriculum=evolving", "curriculum.every=2", "rollout.max_turns=8"]
    rows, table = train(tmp_path, *words, "run.steps=6"), TurnTable(tmp_path / "trajectories")
    counts = [row["curriculum/tasks_count"] for row in rows]
    assert counts[0] == counts[1] == 1 and counts == sorted(counts) and counts[0] < counts[-1] <= 4
    assert [step for step, row in enumerate(rows) if "curriculum/failed_count" in row] == [2, 4]
    tags = np.array(table.names["tag"])[table.trajectories["tag"]]
    tasks = np.array(table.names["task"])[table.trajectories["task"]]
    played = [set(tasks[tags == f"step_{step}"]) for step in range(6)]
    assert played[0] == played[1] == {"umaze/2,3"} and len(played[5]) > 1


@pytest.mark.long
@pytest.mark.parametrize("every", [1, 2], ids=["inside a phase", "between phases"])
def test_a_killed_run_ends_as_the_undisturbed_one(
    whole: tuple[Path, list[dict]], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Death in step 3, after its critic was fitted: the last checkpoint lies inside the second phase, or before it."""

    class Killed(Exception):
        pass

    update = recipe.Webrl.update

    def die(self: recipe.Webrl) -> dict[str, float]:
        if self.run.next_step == 3:
            raise Killed
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(recipe.Webrl, "update", die)
        with pytest.raises(Killed):
            train(tmp_path, "run.steps=6", f"run.checkpoint_every={every}")
    rows = train(tmp_path, "run.steps=6", f"run.checkpoint_every={every}")
    assert [without_times(row) for row in rows] == [without_times(row) for row in whole[1]]
    one, two = (load_file(run / "policy" / "model.safetensors") for run in (whole[0], tmp_path))
    assert all(torch.equal(one[name], two[name]) for name in one)


def without_times(row: dict) -> dict:
    return {k: v for k, v in row.items() if not k.startswith(("time/", "ledger/", "engine/"))}


def test_the_released_form_runs_and_differs(whole: tuple[Path, list[dict]], train: Train, tmp_path: Path) -> None:
    rows = train(tmp_path, "run.steps=2", "algorithm.form=released")
    assert rows[0]["v_step/loss"] != whole[1][0]["v_step/loss"]


def test_settings_of_the_other_form_are_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="beta"):
        train(tmp_path, "algorithm.form=released", "algorithm.beta=0.5")
    with pytest.raises(ConfigError, match="gamma"):
        train(tmp_path, "algorithm.gamma=0.5")


def test_tasks_cannot_change_inside_a_phase(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="would change the tasks inside a phase"):
        train(tmp_path, "curriculum=evolving", "curriculum.every=3")


def test_a_store_of_another_tokenizer_is_refused(train: Train, tmp_path: Path) -> None:
    table_of(tmp_path / "s", episode("a", reward=1.0, success=True, ids=49_000))
    with pytest.raises(DataError, match="token id 49000"):
        train(tmp_path / "run", f"replay.stores=[{tmp_path / 's'}]")


def test_a_reward_without_any_success_is_refused(train: Train, tmp_path: Path) -> None:
    """The maze's own reward is never above 0."""
    with pytest.raises(DataError, match="no return is above 0"):
        train(tmp_path, "reward.name=env", "algorithm.outcome=reward", "rollout.max_turns=60")
