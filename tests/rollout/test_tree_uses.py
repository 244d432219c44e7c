"""What trees are for: stores that are filled by search and continued after a stop, and evaluations that search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from rollwright.contracts import EnvReward, Score, Task, Turn
from rollwright.evaluation import (
    EvaluationSettings,
    evaluate_policy,
    evaluate_search,
    held_out_seeds,
    load_evaluation,
    save_evaluation,
    search_line,
    success_cost,
)
from rollwright.methods import fill_store
from rollwright.rollout.trees import RewardValue, SearchSettings, TreePlayer, TreeRequest, ValuedSearch, grow_trees
from rollwright.run_io import RunFacts
from rollwright.store import TrajectoryStore
from tests.rollout.test_trees import oracle
from tests.rollout.tree_toys import SEED, collector_of, lock

UCT = SearchSettings(rule="uct", simulations=5, children=3)
KEPT = ("id", "turns", "stop_reason", "success", "branch", "score", "next_prompt_ids")


def filled(folder: Path, wanted: int, *, shard: int = 2) -> tuple[list[Any], TreePlayer, RunFacts]:
    """A store of trees of the lock's first task, its content, and what was counted."""
    world = lock(4)
    collector, store, facts = collector_of(world), TrajectoryStore(folder), RunFacts(None)
    trees = TreePlayer(collector, UCT, facts)
    requests = [collector.request(f"tree/{n}", world.tasks("train")[0], SEED) for n in range(wanted)]
    fill_store(store, requests, collector, EnvReward(), facts, shard=shard, tag="t", play=trees)
    collector.close()
    return [[getattr(t, name) for name in KEPT] for t in TrajectoryStore(folder).iter_trajectories()], trees, facts


def test_a_store_of_trees_is_continued_where_it_stopped(tmp_path: Path) -> None:
    whole, trees, facts = filled(tmp_path / "whole", 6)
    filled(tmp_path / "parts", 2)
    parts, later, _ = filled(tmp_path / "parts", 6)
    # Timings are a clock's, and turns hold them.
    strip = lambda rows: [[r[0], [t.action_ids for t in r[1]], *r[2:]] for r in rows]  # noqa: E731
    assert strip(parts) == strip(whole)
    assert (trees.trees, later.trees) == (6, 4)
    assert [row[0] for row in whole if row[4] is None] == [f"tree/{n}" for n in range(6)]
    assert len(whole) > 6, "trees have several paths"
    assert facts.session["spent"]["tokens_sampled"] == trees.tokens, "each sampled token once"
    assert "sampled tokens" in trees.cost()


def evaluated(folder: Path, search: SearchSettings | None, value: Any = None, world: Any = None) -> Any:
    """Evaluation on 40 held-out starts."""
    world = world or lock(4)
    collector, settings = collector_of(world), EvaluationSettings(split="test", seeds_per_task=40, temperature=1.0)
    tasks = world.tasks("test")
    try:
        if search is None:
            return evaluate_policy(collector, tasks, settings, name="plain")[0]
        return evaluate_search(collector, tasks, settings, search, name="search", value=value)[0]
    finally:
        collector.close()


def test_an_evaluation_with_search_says_what_a_success_costs(tmp_path: Path) -> None:
    plain = evaluated(tmp_path, None)
    found = evaluated(tmp_path, SearchSettings(rule="lookahead", children=4, value="critic"), oracle)
    assert [row.key for row in found.rows] == [row.key for row in plain.rows], "the same starts, to be paired"
    assert fmean(bool(row.success) for row in found.rows) > fmean(bool(row.success) for row in plain.rows) + 0.3
    cost = success_cost(found, found.scored)
    assert cost is not None and cost.steps == sum(row.env_calls or 0 for row in found.rows) / cost.num_successes
    assert all((row.env_calls or 0) > row.num_turns for row in found.rows)
    assert "calls of the world per success" in search_line(found)
    assert found.sampling["search"] == "lookahead"
    again = load_evaluation(save_evaluation(found, tmp_path))
    assert again.rows == found.rows
    # Without a search the file is what it was before there was one.
    assert "env_calls" not in save_evaluation(plain, tmp_path).read_text()


def test_no_reward_of_the_world_reaches_the_search_in_an_evaluation(tmp_path: Path) -> None:
    """A world that praises every dead end: the same paths are chosen, and the verdict alone differs in its reward."""

    class Praises:
        def __init__(self, world: Any) -> None:
            self.world = world

        def __getattr__(self, name: str) -> Any:
            return getattr(self.world, name)

        def make(self) -> Any:
            env, step = self.world.make(), None
            step = env.step

            def praised(action: str) -> Any:
                result = step(action)
                return replace(result, reward=100.0, success=not result.success) if result.terminated else result

            env.step = praised
            return env

    for settings in ({"rule": "puct", "simulations": 6, "children": 3}, {"rule": "best_of_n", "simulations": 6}):
        search = SearchSettings.model_validate(settings | {"value": "critic"})
        honest = evaluated(tmp_path, search, oracle)
        praised = evaluated(tmp_path, search, oracle, Praises(lock(4)))
        assert [(r.num_turns, r.num_tokens, r.env_calls) for r in praised.rows] == [
            (r.num_turns, r.num_tokens, r.env_calls) for r in honest.rows
        ]
        assert any(row.success for row in honest.rows)


def test_a_reward_as_a_value_is_shown_no_reward_of_the_world() -> None:
    seen: list[Turn] = []

    class Looks:
        name = "looks"

        def score(self, group: Any) -> list[Score]:
            seen.extend(turn for trajectory in group.trajectories for turn in trajectory.turns)
            assert all(trajectory.success is None for trajectory in group.trajectories)
            return [Score(value=float(len(t.turns)), verifier="looks") for t in group.trajectories]

    task = Task(id="t", split="train")
    turn = Turn(
        prompt_ids=(1,), action_ids=(2,), action_logprobs=(0.0,), text="a", rewards={"env": 1.0}, terminated=True
    )
    assert RewardValue(Looks()).values([(task, (turn,), ()), (task, (turn, turn), ())]) == [1.0, 2.0]
    assert {(t.reward, t.terminated) for t in seen} == {(0, False)}
    assert RewardValue(EnvReward())(task, (turn,), ()) == 0.0


def test_a_critic_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="name the folder of a value model"):
        ValuedSearch(rule="puct", value="critic")


def test_search_beats_best_of_n_beats_one_episode_at_equal_tokens() -> None:
    """With an oracle value and 36 tokens for a start, on a lock of six dials (the blueprint's card, verify 10)."""
    world = lock(6)
    rules: dict[str, dict[str, Any]] = {
        "chain": {"rule": "best_of_n", "simulations": 1},
        "best_of_n": {"rule": "best_of_n", "simulations": 50},
        "search": {"rule": "puct", "simulations": 50, "children": 5, "stop_at_end": False},
    }
    solved = {}
    for name, settings in rules.items():
        collector = collector_of(world)
        (task,) = world.tasks("test")
        requests = [TreeRequest(key=f"{s}", task=task, seed=s) for s in held_out_seeds("test", task, 120)]
        search = SearchSettings.model_validate(settings | {"value": "critic", "max_tokens": 36})
        trees = grow_trees(collector, requests, search, oracle, sees_verdict=False)
        collector.close()
        assert max(tree.tokens for tree in trees) <= 36
        solved[name] = fmean(bool(tree.nodes[tree.chosen or 0].success) for tree in trees)
    assert solved["chain"] + 0.05 < solved["best_of_n"] and solved["best_of_n"] + 0.05 < solved["search"], solved
