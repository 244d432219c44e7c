"""Trees: the policy itself with one simulation, back-up along real paths, and trees as trajectories."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rollwright.contracts import ConfigError, StopReason
from rollwright.rollout import RoundsActor
from rollwright.rollout.trees import SearchSettings, SearchTree, TreeNode, TreeRequest, grow_trees
from tests.rollout.tree_toys import SEED, Guesses, collector_of, grown, lock

RULES = ("uct", "puct", "beam", "best_of_n", "lookahead")
ONE: dict[str, dict[str, Any]] = {
    "uct": {"simulations": 1, "children": 1},
    # One iteration expands one state; the policy plays the rest.
    "beam": {"simulations": 1, "children": 1},
    "best_of_n": {"simulations": 1},
    "lookahead": {"children": 1},
}


def oracle(task: Any, turns: Any, prompt_ids: Any) -> float:
    """Half the share of the lock that is open, 1 where it is, -1 where it is blocked."""
    text = "".join(map(chr, prompt_ids)).rsplit("<", 1)[-1]
    return 1.0 if "open" in text else -1.0 if "blocked" in text else 0.1 * len(turns)


@pytest.mark.parametrize("rule", ONE)
def test_a_tree_of_one_child_is_the_episode_of_its_key(rule: str) -> None:
    world = lock(5)
    for key in map(str, range(8)):
        collector = collector_of(world)
        episode = collector.play([collector.request(key, world.tasks("train")[0], SEED)])[0]
        tree = grown(collector, key, rule=rule, **ONE[rule])
        (found,) = tree.trajectories()
        assert (found.id, found.stop_reason, found.success) == (episode.id, episode.stop_reason, episode.success)
        assert [t.action_ids for t in found.turns] == [t.action_ids for t in episode.turns]
        assert [t.prompt_ids for t in found.turns] == [t.prompt_ids for t in episode.turns]
        assert [(t.rewards, t.state_key, t.observed, t.spans, t.truncated) for t in found.turns] == [
            (t.rewards, t.state_key, t.observed, t.spans, t.truncated) for t in episode.turns
        ]
        assert (found.version, found.policy, found.next_prompt_ids) == (
            episode.version,
            episode.policy,
            episode.next_prompt_ids,
        )
        assert tree.tokens == sum(len(turn.action_ids) for turn in episode.turns)
        assert (tree.env_calls, tree.replayed_calls) == (1 + len(episode.turns), 0)


def test_puct_with_one_child_that_is_played_out_is_the_episode() -> None:
    world = lock(5)
    collector = collector_of(world)
    episode = collector.play([collector.request("k", world.tasks("train")[0], SEED)])[0]
    settings = SearchSettings(rule="puct", simulations=1, children=1, value="critic")
    request = TreeRequest(key="k", task=world.tasks("train")[0], seed=SEED)
    tree = grow_trees(collector, [request], settings, oracle, sees_verdict=False)[0]
    collector.close()
    found = tree.trajectory(tree.chosen or 0)
    assert [t.action_ids for t in found.turns] == [t.action_ids for t in episode.turns]
    assert found.success == episode.success


def test_a_tree_does_not_depend_on_what_is_grown_beside_it() -> None:
    world, settings = lock(4), SearchSettings(rule="uct", simulations=6, children=2)
    requests = [TreeRequest(key=key, task=world.tasks("train")[0], seed=SEED) for key in "abcde"]
    collector = collector_of(world, parallel_episodes=3)
    together = grow_trees(collector, requests, settings)
    collector.close()
    for tree in together:
        alone = grown(collector_of(lock(4)), tree.key, rule="uct", simulations=6, children=2)
        assert shape(alone) == shape(tree)
    assert len({str(shape(tree)) for tree in together}) > 1, "other keys, other draws"


def shape(tree: SearchTree) -> list[tuple[Any, ...]]:
    return [(n.parent, n.visits, n.total, n.score, n.turn.action_ids if n.turn else ()) for n in tree.nodes]


def test_rounds_ask_for_all_answers_of_all_trees_at_once() -> None:
    world, engine = lock(4), Guesses()
    settings = SearchSettings(rule="beam", simulations=2, children=3)
    requests = [TreeRequest(key=key, task=world.tasks("train")[0], seed=SEED) for key in "ab"]
    collector = collector_of(world, actor=RoundsActor(engine, engine_call_s=2.0))
    trees = grow_trees(collector, requests, settings)
    collector.close()
    assert sorted(engine.batches[0]) == sorted(f"{k}{line}/0" for k in "ab" for line in ("", "/0.1", "/0.2"))
    apart = [grown(collector_of(lock(4)), key, rule="beam", simulations=2, children=3) for key in "ab"]
    assert [shape(tree) for tree in trees] == [shape(tree) for tree in apart]


def test_values_are_summed_up_along_the_path() -> None:
    """Root-A-B pays 0.6, a second leaf under A 0.2: A has n = 2, q = 0.8, mean 0.4 (Agent-R's card)."""
    from rollwright.rollout.trees.rules import add_up

    tree = SearchTree(key="k", task=lock().tasks("train")[0], seed=SEED)
    a = tree.add(0)
    b, other = tree.add(a.number), tree.add(a.number)

    class Play:
        def __init__(self) -> None:
            self.tree = tree

        def worth(self, node: TreeNode) -> float:
            return 0.6 if node is b else 0.2

    add_up(Play(), b)  # type: ignore[arg-type]
    assert [(n.visits, n.total) for n in (tree.root, a, b)] == [(1, 0.6)] * 3
    add_up(Play(), other)  # type: ignore[arg-type]
    assert (a.visits, a.total, a.value) == (2, pytest.approx(0.8), pytest.approx(0.4))


def test_a_node_whose_children_are_all_closed_is_closed() -> None:
    tree = SearchTree(key="k", task=lock().tasks("train")[0], seed=SEED)
    children = [tree.add(0) for _ in range(3)]
    for child in children[:2]:
        tree.end(child, StopReason.TERMINATED)
    assert not tree.root.closed
    tree.end(children[2], StopReason.TERMINATED)
    assert tree.root.closed


def test_uct_ends_when_everything_was_tried() -> None:
    tree = grown(collector_of(lock(3)), rule="uct", simulations=500, children=12)
    assert tree.root.closed
    # One path goes on at each of three dials, and one end hangs from each.
    assert len(tree.leaves()) == 4 and sum(bool(leaf.success) for leaf in tree.leaves()) == 1
    assert tree.root.visits == len(tree.leaves()) < 500
    assert tree.root.total == 1.0
    assert tree.nodes[tree.chosen or 0].success


def searched(value: Any, key: str = "a", length: int = 3, **settings: Any) -> SearchTree:
    collector = collector_of(lock(length))
    request = TreeRequest(key=key, task=collector.world.tasks("train")[0], seed=SEED)
    found = grow_trees(collector, [request], SearchSettings.model_validate(settings | {"value": "critic"}), value)[0]
    collector.close()
    return found


def test_puct_finds_the_path_in_three_expansions_with_an_oracle() -> None:
    tree = searched(oracle, rule="puct", simulations=3, children=12)
    assert sum(bool(node.children) for node in tree.nodes) == 3
    assert tree.nodes[tree.chosen or 0].success


def test_puct_visits_every_leaf_with_a_value_of_zero() -> None:
    zero = lambda task, turns, prompt_ids: 0.0  # noqa: E731
    tree = searched(zero, rule="puct", simulations=500, children=12, stop_at_end=False)
    assert tree.root.closed and len(tree.leaves()) == 4


def test_visits_of_puct_add_up() -> None:
    """A node's own n is the 1 that it began with (0 at the root), one for its expansion, and one for each below."""
    tree = searched(oracle, length=6, rule="puct", simulations=9, children=3, stop_at_end=False)
    for node in tree.nodes:
        below = [tree.nodes[child] for child in node.children]
        if below:
            assert node.visits == (node.parent is not None) + 1 + sum(child.visits - 1 for child in below)
            mean = sum(child.value * child.visits for child in below) / sum(child.visits for child in below)
            assert node.value == pytest.approx(0.96 * mean)
    lists = [id(node.children) for node in tree.nodes]
    assert len(set(lists)) == len(lists), "no two nodes share their children"


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_grows_a_tree_that_becomes_trajectories_with_parents(rule: str) -> None:
    settings = {"rule": rule, "simulations": 6, "children": 3}
    unread = {"best_of_n": "children", "lookahead": "simulations"}.get(rule)
    tree = searched(oracle, length=4, **{name: value for name, value in settings.items() if name != unread})
    found = tree.trajectories()
    assert found[0].id == tree.key and found[0].branch is None
    by_id = {trajectory.id: trajectory for trajectory in found}
    assert len(by_id) == len(found) == len(tree.leaves())
    for index, trajectory in enumerate(found[1:], 1):
        branch = trajectory.branch
        assert branch is not None and branch.parent in list(by_id)[:index], "a parent comes first"
        parent = by_id[branch.parent]
        assert trajectory.turns[: branch.turn] == parent.turns[: branch.turn]
        assert all(a is b for a, b in zip(trajectory.turns[: branch.turn], parent.turns, strict=False))
        if branch.turn < min(len(trajectory.turns), len(parent.turns)):
            assert trajectory.turns[branch.turn] is not parent.turns[branch.turn]
    # Each token once: what a path shares with its parent is counted there, dropped answers are counted too.
    once = sum(len(t.action_ids) for x in found for t in x.turns[x.branch.turn if x.branch else 0 :])
    assert once <= tree.tokens


def test_trees_tell_states_apart_that_were_left_and_come_back_to() -> None:
    """Whatever the search did in between, the observations of a path are those of the same actions alone."""
    world = lock(5)
    tree = grown(collector_of(world), rule="uct", simulations=40, children=3)
    draws = random.Random(0)
    for leaf in draws.sample(tree.leaves(), 4):
        env = world.make()
        observation = env.reset(tree.task, SEED)
        for turn in tree.turns(leaf.number):
            assert turn.observed[-1].content == getattr(observation, "text", observation)
            assert turn.state_key == env.fingerprint()
            observation = env.step(turn.action).observation


def test_settings_that_no_rule_reads_are_refused() -> None:
    with pytest.raises(ValueError, match="effect"):
        SearchSettings(simulations=3)
    with pytest.raises(ValueError, match="effect"):
        SearchSettings(rule="lookahead", simulations=3)
    with pytest.raises(ValueError, match="effect"):
        SearchSettings(rule="uct", rollouts=3)


def test_what_cannot_be_searched_is_refused() -> None:
    world = lock()
    world.snapshots = "none"
    with pytest.raises(ConfigError, match="declares `snapshots = 'none'`"):
        grown(collector_of(world), rule="uct")
    with pytest.raises(ConfigError, match="no `fork"):
        grown(collector_of(lock(), context=lambda: object()), rule="uct")
    with pytest.raises(ConfigError, match="no value model"):
        searched(None, rule="uct")
    with pytest.raises(ConfigError, match=r"search\.rule=off"):
        grown(collector_of(lock()))


@pytest.mark.parametrize("settings", [{"rule": "uct"}, {"rule": "puct"}, {"rule": "lookahead", "value": "rollouts"}])
def test_an_evaluation_may_not_search_with_the_tasks_own_rewards(settings: dict[str, str]) -> None:
    collector = collector_of(lock())
    with pytest.raises(ConfigError, match="evaluation must not show"):
        grow_trees(collector, [], SearchSettings.model_validate(settings), sees_verdict=False)
    collector.close()
