"""ALP-GMM, learnability, level replay: the cards' numbers, exact resume, and a student that needs a frontier."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rollwright.contracts.environment import Parametrised
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Group, StopReason, Task, Trajectory
from rollwright.curriculum.alp_gmm import AlpGmmCurriculum, absolute_progress, in_proportion
from rollwright.curriculum.curriculum_settings import CurriculumSettings
from rollwright.curriculum.learnability import LearnabilityCurriculum
from rollwright.curriculum.level_replay import LevelReplayCurriculum, rank_shares
from rollwright.curriculum.samplers import Curriculum
from rollwright.curriculum.select_curriculum import open_curriculum
from rollwright.curriculum.task_space import BoxSpace, ListSpace
from rollwright.envs.text import combination_lock
from rollwright.maths.mixtures import GaussianMixture, best_mixture, fit_mixture
from tests import builders

TASKS = [Task(id=f"t{k}", split="train") for k in range(8)]


def group(task: Task, *successes: bool) -> Group:
    turn = builders.turn(text="a")
    return builders.group(*(builders.episode(str(k), turn, task=task, success=won) for k, won in enumerate(successes)))


# Learning progress


def test_progress_is_the_change_against_the_nearest_earlier_task() -> None:
    points = np.array([[0.1], [0.5], [0.52], [0.8], [0.9]])
    outcomes = np.array([0.0, 1.0, 0.3, 0.0, 0.0])
    assert absolute_progress(np.array([0.53]), 0.8, points, outcomes) == pytest.approx(0.5)
    assert absolute_progress(np.array([0.53]), 0.8, points[:4], outcomes[:4]) == 0, "fewer than five are known"


def test_gaussians_are_drawn_by_their_mean_progress() -> None:
    assert in_proportion(np.array([0.1, 0.3, 0.0])).tolist() == pytest.approx([0.25, 0.75, 0.0])
    assert in_proportion(np.zeros(3)).tolist() == pytest.approx([1 / 3] * 3)
    assert in_proportion(np.array([-1.0, 2.0])).tolist() == [0.0, 1.0]


@pytest.mark.long
def test_the_shares_of_all_draws_with_a_random_part() -> None:
    means = np.array([[0.1, 0.1], [0.5, 0.3], [0.9, 0.0]])
    teacher = AlpGmmCurriculum(ListSpace(TASKS), seed=0, random_frac=0.05)
    teacher.mixture = GaussianMixture(
        weights=np.full(3, 1 / 3), means=means, covariances=np.tile(np.eye(2) * 1e-8, (3, 1, 1))
    )
    draws = np.random.default_rng(0)
    points = np.array([teacher.draw(draws)[0] for _ in range(20_000)])
    near = [(np.abs(points - mean) < 0.01).mean() for mean in means[:, 0]]
    # 0.95 times 0.25, 0.75 and 0; of the uniform 0.05 a fiftieth falls near each
    assert near == pytest.approx([0.2385, 0.7135, 0.001], abs=0.01)


def test_covariance_with_time_weighs_what_improves() -> None:
    times, outcomes = [0, 0.25, 0.5, 0.75], [0, 0.2, 0.4, 0.6]
    assert np.cov(times, outcomes)[0, 1] == pytest.approx(0.08333, abs=1e-5)
    for listed, wanted in ((outcomes, 0.0625), (outcomes[::-1], -0.0625)):
        vectors = np.column_stack([[0.5] * 4, times, listed])
        mixture = fit_mixture(vectors, 1, np.random.default_rng(0))  # divides by n, not by n - 1
        assert mixture.covariances[0, 1, 2] == pytest.approx(wanted)
        teacher = AlpGmmCurriculum(ListSpace(TASKS), seed=0, progress="covariance")
        teacher.mixture = GaussianMixture(
            weights=np.array([0.5, 0.5]),
            means=np.zeros((2, 3)),
            covariances=np.stack([mixture.covariances[0], np.diag([1.0, 1.0, 1.0])]),
        )
        assert teacher.weights().tolist() == pytest.approx([max(wanted, 0.0), 0.0])


def test_without_any_progress_draws_are_uniform_and_not_where_they_were_before() -> None:
    teacher = AlpGmmCurriculum(ListSpace(TASKS), seed=0, random_frac=0.0)
    narrow = np.tile(np.eye(2) * 1e-8, (2, 1, 1))
    teacher.mixture = GaussianMixture(
        weights=np.full(2, 0.5), means=np.array([[0.1, 0.0], [0.2, 0.0]]), covariances=narrow
    )
    draws = np.random.default_rng(0)
    assert np.mean([teacher.draw(draws)[0] for _ in range(2000)]) == pytest.approx(0.5, abs=0.03)


# The mixtures


def two_clumps() -> np.ndarray:
    draws = np.random.default_rng(1)
    return np.vstack([draws.normal([0, 0], 0.1, (150, 2)), draws.normal([3, 1], [0.3, 0.1], (50, 2))])


def test_a_mixture_finds_two_clumps() -> None:
    mixture = fit_mixture(two_clumps(), 2, np.random.default_rng(0))
    order = mixture.means[:, 0].argsort()
    assert mixture.weights[order] == pytest.approx([0.75, 0.25], abs=0.01)
    assert mixture.means[order] == pytest.approx(np.array([[0, 0], [3, 1]]), abs=0.1)
    assert mixture.covariances[order[1]] == pytest.approx(np.diag([0.09, 0.01]), abs=0.03)


@pytest.mark.parametrize("criterion", ["aic", "bic"])
def test_the_criterion_chooses_two(criterion: Any) -> None:
    chosen = best_mixture(two_clumps(), range(1, 5), np.random.default_rng(0), criterion=criterion)
    assert len(chosen.weights) == 2 if criterion == "bic" else len(chosen.weights) >= 2


def test_density_and_criteria_by_hand() -> None:
    mixture = GaussianMixture(weights=np.array([1.0]), means=np.zeros((1, 2)), covariances=np.diag([4.0, 1.0])[None])
    # N(0, diag(4, 1)) at (2, 1): 1 / (2 pi 2) exp(-(1 + 1) / 2)
    points = np.array([[2.0, 1.0]])
    logged = math.log(1 / (4 * math.pi)) - 1
    assert mixture.log_likelihood(points) == pytest.approx(logged)
    assert mixture.num_parameters == 5  # two means, three of the covariance
    assert mixture.score(points, "aic") == pytest.approx(10 - 2 * logged)
    assert mixture.score(np.repeat(points, 3, axis=0), "bic") == pytest.approx(5 * math.log(3) - 6 * logged)


def test_expectation_maximisation_never_loses_likelihood() -> None:
    points = np.random.default_rng(2).random((200, 3))
    found = [
        fit_mixture(points, 4, np.random.default_rng(0), iterations=count).log_likelihood(points)
        for count in (1, 2, 5, 20)
    ]
    assert found == sorted(found)


def test_points_that_are_all_alike_and_too_few_points() -> None:
    alike = fit_mixture(np.zeros((10, 2)), 3, np.random.default_rng(0))
    assert np.isfinite(alike.log_likelihood(np.zeros((1, 2))))
    with pytest.raises(ValueError, match="3 components cannot be fitted to 2 points"):
        fit_mixture(np.zeros((2, 2)), 3, np.random.default_rng(0))


# Tasks as points


def test_a_list_of_tasks_is_a_line() -> None:
    space = ListSpace(TASKS)
    assert [space.task_at(space.point_of(task)).id for task in TASKS] == [task.id for task in TASKS]
    assert space.task_at(np.array([1.0])) is TASKS[-1] and space.task_at(np.array([0.0])) is TASKS[0]
    assert space.point_of(Task(id="elsewhere", split="train")) is None


def test_a_declared_box_is_searched() -> None:
    world = combination_lock.build(lengths=range(2, 11))
    assert isinstance(world, Parametrised)
    space = BoxSpace(world)
    assert space.task_at(np.array([0.0])).params["length"] == 2
    assert space.task_at(np.array([0.51])).params["length"] == 6
    assert space.point_of(world.tasks("train")[-1]).tolist() == [1.0]
    made = open_curriculum(CurriculumSettings(name="alp_gmm"), world.tasks("train"), seed=0, world=world)
    assert isinstance(made, AlpGmmCurriculum) and isinstance(made.space, BoxSpace)
    single = combination_lock.build()
    listed = open_curriculum(CurriculumSettings(name="alp_gmm"), single.tasks("train"), seed=0, world=single)
    assert isinstance(listed, AlpGmmCurriculum) and isinstance(listed.space, ListSpace)


def test_a_box_that_makes_held_out_tasks_is_refused() -> None:
    class Leaky:
        def parameter_box(self) -> dict[str, tuple[float, float]]:
            return {"size": (0.0, 1.0)}

        def task_at(self, values: Any) -> Task:
            return Task(id="t", split="test", params=values)

    with pytest.raises(ConfigError, match="held-out"):
        BoxSpace(Leaky()).task_at(np.array([0.5]))


# Where draws go


def test_draws_go_where_outcomes_change() -> None:
    """Solved below 0.4, hopeless above 0.6, a coin between: all progress lies in a fifth of the line."""
    many = [Task(id=f"t{k}", split="train") for k in range(100)]
    teacher = AlpGmmCurriculum(ListSpace(many), seed=0, fit_every=100, random_frac=0.2, max_components=4)
    coin = np.random.default_rng(0)

    def outcome(task: Task) -> bool:
        place = int(task.id[1:])
        return bool(coin.random() < 0.5) if 40 <= place < 60 else place < 40

    def between(step: int) -> float:
        tasks = teacher.next(step, 100)
        teacher.update([group(task, outcome(task)) for task in tasks])
        return float(np.mean([40 <= int(task.id[1:]) < 60 for task in tasks]))

    shares = [between(step) for step in range(12)]
    assert shares[0] == pytest.approx(0.2, abs=0.12), "before the first fit draws are uniform"
    # of the four fifths that follow progress at least 70 % fall there, of the uniform fifth 20 %
    assert np.mean(shares[2:]) > 0.6


def mastered(seed: int, teacher: AlpGmmCurriculum | None, *, tasks: int = 2000) -> float:
    """Radius at which a student ends that learns from tasks up to 0.1 beyond what it can do; None = drawn uniformly."""
    draws, radius = np.random.default_rng(seed), 0.1
    for _ in range(tasks):
        point = draws.random(2) if teacher is None else teacher.draw(draws)
        distance = float(np.hypot(*point))
        if teacher is not None:
            teacher.report(point, float(distance <= radius))
        radius += 0.001 * (radius < distance <= radius + 0.1)
    return radius


@pytest.mark.long
def test_a_student_with_a_frontier_masters_more_than_at_random() -> None:
    """Three seeds on a square; `benchmarks/curriculum.py` is the long form. The widths of the reference: nothing."""
    square = BoxSpace(Square())
    at_random, wide, narrow = (
        np.array([mastered(seed, teacher(seed)) ** 2 for seed in range(3)])
        for teacher in (
            lambda seed: None,
            lambda seed: AlpGmmCurriculum(square, seed=seed),
            lambda seed: AlpGmmCurriculum(square, seed=seed, min_width=0.001),
        )
    )
    assert wide.min() > 1.5 * at_random.max(), (wide, at_random)
    assert narrow.mean() < 1.5 * at_random.mean() and wide.max() < 1.0


class Square:
    """A box of two numbers."""

    def parameter_box(self) -> dict[str, tuple[float, float]]:
        return {"x": (0.0, 1.0), "y": (0.0, 1.0)}

    def task_at(self, values: Any) -> Task:
        return Task(id="t", split="train", params=values)


# Discrete pools


def test_learnability_by_hand() -> None:
    tasks = TASKS[:3]
    pool = LearnabilityCurriculum(tasks, seed=0, random_frac=0.0, mastered_frac=0.0)
    for task, wins in zip(tasks, (0, 2, 4), strict=True):
        pool.update([group(task, *(k < wins for k in range(4)))])
    chances = [pool.chance(task) for task in tasks]
    assert chances == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert [p * (1 - p) for p in chances] == pytest.approx([0.1389, 0.25, 0.1389], abs=1e-4)
    counts = Counter(t.id for t in pool.next(0, 20_000))
    total = 0.25 + 2 * 0.13889
    assert counts["t1"] / 20_000 == pytest.approx(0.25 / total, abs=0.015)
    assert pool.metrics()["curriculum/learnability_mean"] == pytest.approx(total / 3, abs=1e-4)


def test_the_chance_of_a_mixed_pair_is_twice_the_learnability() -> None:
    draws = np.random.default_rng(0)
    for p in (0.1, 0.5, 0.8):
        pairs = draws.random((50_000, 2)) < p
        assert (pairs[:, 0] != pairs[:, 1]).mean() == pytest.approx(2 * p * (1 - p), abs=0.01)


def test_learnability_forgets_beyond_its_window_and_revisits_the_mastered() -> None:
    pool = LearnabilityCurriculum(TASKS[:2], seed=0, window=20, random_frac=0.0, mastered_frac=1.0)
    pool.update([group(TASKS[0], *[False] * 20), group(TASKS[0], *[True] * 20)])
    assert pool.chance(TASKS[0]) == pytest.approx(21 / 22)
    assert {t.id for t in pool.next(0, 50)} == {"t0"}
    assert pool.metrics() == {
        "curriculum/learnability_mean": pytest.approx((21 / 22 / 22 + 0.25) / 2),
        "curriculum/mastered_frac": 0.5,
        "curriculum/seen_frac": 0.5,
    }


def test_ranks_by_hand() -> None:
    # 1, 1/2, 1/3 to the power of 1 / 0.5: 1, 1/4, 1/9 of 49/36
    assert rank_shares([0.2, 0.9, 0.1], 0.5) == pytest.approx([9 / 49, 36 / 49, 4 / 49])


def test_level_replay_mixes_rank_and_age() -> None:
    pool = LevelReplayCurriculum(TASKS[:3], seed=0, temperature=0.5, stale_frac=0.1)
    pool.update([group(TASKS[0], True, False), group(TASKS[1], True, True, True, False), group(TASKS[2], True, True)])
    assert pool.scores == {"t0": 0.5, "t1": 0.375, "t2": 0.0}
    # ages 2, 1, 0 of 3
    by_hand = [0.9 * 36 / 49 + 0.1 * 2 / 3, 0.9 * 9 / 49 + 0.1 / 3, 0.9 * 4 / 49]
    assert pool.weights(TASKS[:3]) == pytest.approx(by_hand)
    assert sum(by_hand) == pytest.approx(1.0)


def test_level_replay_draws_what_it_never_saw_by_its_share() -> None:
    pool = LevelReplayCurriculum(TASKS, seed=0)
    pool.update([group(task, True, False) for task in TASKS[:2]])
    counts = Counter(t.id for t in pool.next(0, 8000))
    assert sum(counts[t.id] for t in TASKS[2:]) / 8000 == pytest.approx(6 / 8, abs=0.02)


def test_a_lone_episode_is_compared_with_the_one_before() -> None:
    pool = LevelReplayCurriculum(TASKS, seed=0)
    pool.update([group(TASKS[0], True)])
    assert pool.scores["t0"] == 0.5
    pool.update([group(TASKS[0], True)])
    assert pool.scores["t0"] == 0.0
    pool.update([group(TASKS[0], False)])
    assert pool.scores["t0"] == 1.0


# All of them


def make(name: str) -> Curriculum:
    settings = {"alp_gmm": {"fit_every": 20}}.get(name, {})
    return open_curriculum(CurriculumSettings(name=name, **settings), TASKS, seed=3)


def feed(curriculum: Curriculum, first: int, last: int) -> list[list[str]]:
    """Steps of drawing and reporting; whether a task succeeds is a matter of its number and the step."""
    drawn: list[list[str]] = []
    for step in range(first, last):
        tasks = curriculum.next(step, 4)
        drawn.append([task.id for task in tasks])
        curriculum.update([group(t, (int(t.id[1:]) * 7 + step) % 5 < 2, step % 3 == 0) for t in tasks])
    return drawn


@pytest.mark.parametrize("name", ["learnability", "level_replay", "alp_gmm"])
def test_a_restored_curriculum_goes_on_as_if_nothing_had_happened(name: str) -> None:
    whole = make(name)
    feed(whole, 0, 137)
    saved = json.loads(json.dumps(whole.state_dict()))
    restored = make(name)
    restored.load_state_dict(saved)
    assert restored.metrics() == whole.metrics()
    assert feed(restored, 137, 187) == feed(whole, 137, 187)
    assert feed(make(name), 137, 187) != feed(whole, 137, 187), "what was learned must matter"


@pytest.mark.parametrize("name", ["learnability", "level_replay", "alp_gmm"])
def test_faults_and_strangers_teach_nothing(name: str) -> None:
    curriculum = make(name)
    before = json.dumps(curriculum.state_dict())
    broken = group(TASKS[0], True)
    lost = tuple(
        Trajectory(id=t.id, task=t.task, seed=0, turns=t.turns, stop_reason=StopReason.ENV_ERROR)
        for t in broken.trajectories
    )
    curriculum.update([broken.with_trajectories(lost), group(Task(id="stranger", split="train"), True, False)])
    assert json.dumps(curriculum.state_dict()) == before


@pytest.mark.parametrize("name", ["learnability", "level_replay", "alp_gmm"])
def test_held_out_tasks_and_no_tasks_are_refused(name: str) -> None:
    held_out: Sequence[Task] = [Task(id="t", split="validation")]
    for tasks, said in ((held_out, "held-out split"), ([], "no training tasks")):
        with pytest.raises(ConfigError, match=said):
            open_curriculum(CurriculumSettings(name=name), tasks, seed=0)


@pytest.mark.parametrize(
    "wrong", [{"window": 3}, {"name": "band", "fit_every": 9}, {"name": "level_replay", "random_frac": 0.1}]
)
def test_keys_that_a_curriculum_does_not_read_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="without effect"):
        CurriculumSettings.model_validate(wrong)
    with pytest.raises(ValueError, match="above 1"):
        CurriculumSettings(name="learnability", random_frac=0.9, mastered_frac=0.2)
