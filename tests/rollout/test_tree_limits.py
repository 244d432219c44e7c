"""What a tree may spend, and what goes wrong in it: hard budgets, worlds that only replay, faults, no room."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rollwright.contracts import EngineFault, FaultBudgetExceeded, StepResult, StopReason
from rollwright.generation import Generation, Sampling
from rollwright.rollout import FaultLog
from rollwright.rollout.trees import SearchSettings, SearchTree, TreeRequest, grow_trees
from rollwright.rollout.trees import grounds as grounds_module
from tests.rollout.test_trees import RULES, oracle, shape
from tests.rollout.tree_toys import SEED, Characters, Guesses, collector_of, grown, lock


class Counting:
    """A lock whose calls are counted, and which can be told to misbehave."""

    def __init__(self, world: Any, snapshots: str = "exact") -> None:
        self.world, self.snapshots = world, snapshots
        self.calls, self.made = {"reset": 0, "step": 0, "restore": 0, "snapshot": 0}, 0
        self.broken: set[int] = set()
        self.drifts = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def make(self) -> Any:
        self.made += 1
        return _Counted(self, self.world.make())


class _Counted:
    def __init__(self, world: Counting, env: Any) -> None:
        self.counted, self.env = world, env

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.env, name)
        if name not in self.counted.calls:
            return found

        def call(*words: Any) -> Any:
            self.counted.calls[name] += 1
            if name == "step" and self.counted.calls["step"] in self.counted.broken:
                raise RuntimeError("the dial came off")
            answer = found(*words)
            if name == "reset" and self.counted.drifts and self.counted.calls["reset"] > 1:
                return StepResult(observation="elsewhere").observation
            return answer

        call.__name__ = name
        return call

    def reset(self, *words: Any) -> Any:
        return self.__getattr__("reset")(*words)

    def step(self, action: str) -> Any:
        return self.__getattr__("step")(action)

    def snapshot(self) -> bytes:
        return bytes(self.__getattr__("snapshot")())

    def restore(self, state: bytes) -> None:
        self.__getattr__("restore")(state)


def tree_of(world: Any, value: Any = None, engine: Any = None, **options: Any) -> SearchTree:
    options |= {"value": options.pop("by")} if "by" in options else {}
    own = {k: options.pop(k) for k in ("faults", "retries", "context", "max_turns") if k in options}
    collector = collector_of(world, engine, **own)
    request = TreeRequest(key="a", task=world.tasks("train")[0], seed=SEED)
    try:
        return grow_trees(collector, [request], SearchSettings.model_validate(options), value)[0]
    finally:
        collector.close()


@pytest.mark.parametrize("snapshots", ["exact", "replay"])
@pytest.mark.parametrize("rule", RULES)
def test_calls_are_counted_as_they_are_made(rule: str, snapshots: str) -> None:
    world = Counting(lock(5), snapshots)
    settings = {"uct": {"simulations": 8}, "puct": {"simulations": 5, "by": "critic"}, "beam": {"simulations": 2}}
    more: dict[str, Any] = settings.get(rule, {"by": "critic"})
    tree = tree_of(world, oracle if "by" in more else None, rule=rule, **more)
    assert tree.env_calls + tree.replayed_calls == world.calls["reset"] + world.calls["step"]
    assert tree.env_calls == 1 + sum(node.turn is not None for node in tree.nodes)
    assert (tree.replayed_calls > 0) == ((snapshots == "replay" and rule != "best_of_n") or world.calls["reset"] > 1)
    if snapshots == "replay":
        assert world.calls["restore"] == world.calls["snapshot"] == 0


def test_a_world_that_replays_gives_the_same_tree() -> None:
    exact = tree_of(Counting(lock(5)), rule="uct", simulations=12, children=3)
    replay = tree_of(Counting(lock(5), "replay"), rule="uct", simulations=12, children=3)
    assert shape(replay) == shape(exact)
    assert replay.replayed_calls > 0 == exact.replayed_calls


def test_a_world_that_does_not_repeat_itself_fails_loudly(tmp_path: Path) -> None:
    world = Counting(lock(5), "replay")
    world.drifts = True
    log = FaultLog(tmp_path / "faults.jsonl", max_frac=1.0)
    tree = tree_of(world, rule="uct", simulations=12, children=8, faults=log, retries=0)
    assert tree.faults > 0
    lines = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert all("leads elsewhere now: the observation before turn 0" in line["fault"] for line in lines)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("budget", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("name", ["max_env_calls", "max_tokens"])
def test_budgets_are_hard_and_leave_a_path(name: str, budget: int, rule: str) -> None:
    world = Counting(lock(6, slip="back"), "exact")
    engine = Guesses()
    settings: dict[str, Any] = {"rule": rule, name: budget, "by": "critic"}
    settings |= {} if rule == "lookahead" else {"simulations": 50}
    tree = tree_of(world, oracle, engine, **settings)
    spent = tree.tokens if name == "max_tokens" else world.calls["reset"] + world.calls["step"]
    assert spent <= budget
    found = tree.trajectories()
    assert found and found[0].id == "a" and not found[0].stop_reason.is_fault
    assert tree.chosen is not None
    if budget == 20 and rule != "lookahead":  # which ends after eight turns anyway
        assert spent >= 16, "a budget is there to be used"


def test_a_child_that_faults_is_tried_again_and_then_counted_and_never_scored(tmp_path: Path) -> None:
    world = Counting(lock(3))
    world.broken = {1}
    once = tree_of(world, rule="uct", simulations=20, children=12)
    assert once.faults == 0 and len(once.leaves()) == 4, "the second try went through"
    world = Counting(lock(3))
    world.broken = {1, 2, 3}
    log = FaultLog(tmp_path / "faults.jsonl", max_frac=1.0)
    lost = tree_of(world, rule="uct", simulations=20, children=12, faults=log)
    assert lost.faults == 1 and log.lost == 1 and log.episodes == 1 + len(lost.leaves())
    assert len(lost.root.children) == 1
    assert len((tmp_path / "faults.jsonl").read_text().splitlines()) == 3
    assert lost.root.visits == len(lost.leaves()), "nothing was backed up for it"


def test_a_tree_whose_start_is_broken_is_a_fault_and_counts() -> None:
    class Shut(Guesses):
        async def generate(self, prompt_ids: Any, sampling: Sampling, *, request_id: str) -> Generation:
            raise EngineFault("no engine")

    tree = tree_of(lock(3), engine=Shut(), rule="uct", simulations=3, retries=1)
    (found,) = tree.trajectories()
    assert found.stop_reason is StopReason.ENV_ERROR and found.score is None and "no engine" in found.fault
    assert tree.root.visits == 0 and tree.faults == 4
    with pytest.raises(FaultBudgetExceeded):
        tree_of(lock(3), engine=Shut(), rule="uct", faults=FaultLog(None, max_frac=0.2, grace=3), simulations=3)


def test_a_prompt_without_room_ends_its_path() -> None:
    tree = tree_of(lock(6, slip="back"), rule="uct", simulations=4, context=lambda: Characters(room=40), children=2)
    assert tree.leaves() and {leaf.stop for leaf in tree.leaves()} == {StopReason.MAX_TOKENS}
    assert all(leaf.success is False for leaf in tree.leaves())


def test_a_shorter_limit_of_the_search_is_no_failure_of_the_policy() -> None:
    cut = tree_of(lock(6, slip="back"), rule="uct", simulations=4, children=2, max_depth=3)
    assert {(leaf.stop, leaf.success, leaf.depth) for leaf in cut.leaves()} == {(StopReason.MAX_TURNS, None, 3)}
    whole = tree_of(lock(6, slip="back"), rule="uct", simulations=4, children=2, max_turns=3)
    assert {leaf.success for leaf in whole.leaves()} == {False}


def test_simulations_value_states_and_leave_the_tree_as_it_is() -> None:
    """With three dials of two digits, the mean return of many simulations is the chance to guess the rest."""
    tree = tree_of(lock(3), rule="uct", simulations=1, children=12, by="rollouts", rollouts=400)
    (right,) = [child for child in map(tree.nodes.__getitem__, tree.root.children) if child.stop is None]
    assert right.estimate == pytest.approx(0.25, abs=0.07)
    assert len(tree.nodes) == 3, "simulated states are no nodes"
    assert tree.root.visits == 2 and tree.root.total == pytest.approx(right.estimate)


def test_snapshots_of_states_that_are_left_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    forget = grounds_module.Grounds.forget

    def watched(self: Any, number: int) -> None:
        forget(self, number)
        open_nodes = [n for n in self.tree.nodes if not n.children and not n.closed]
        held.append(len(self.places) - len(open_nodes))

    monkeypatch.setattr(grounds_module.Grounds, "forget", watched)
    tree_of(lock(6, slip="back"), rule="uct", simulations=30, children=3)
    assert held and max(held) <= 0, "a place is kept for open states alone"


def test_equal_actions_are_one_child_whatever_was_thought_before() -> None:
    from rollwright.contracts import ActionRule

    class Thinks(Guesses):
        def __init__(self) -> None:
            super().__init__([f"<think>{i}</think> {digit}" for i in range(50) for digit in "01"])

    tree = tree_of(lock(2), engine=Thinks(), rule="beam", simulations=1, children=30)
    assert len(tree.root.children) > 10, "without a rule all of it is the action"
    collector = collector_of(lock(2), Thinks(), rule=ActionRule("after_think"), max_tokens=40)
    told = grown(collector, rule="beam", simulations=1, children=30)
    assert [told.nodes[child].turn.action for child in told.root.children] in (["0", "1"], ["1", "0"])
    assert told.duplicates >= 28


def test_values_are_asked_for_together_where_they_can_be() -> None:
    class Batched:
        def __init__(self) -> None:
            self.sizes: list[int] = []

        def __call__(self, task: Any, turns: Any, prompt_ids: Any) -> float:
            raise AssertionError("one by one")

        async def values(self, states: Sequence[Any]) -> list[float]:
            self.sizes.append(len(states))
            return [oracle(*state) for state in states]

    value = Batched()
    one = tree_of(lock(4, slip="back"), oracle, rule="lookahead", children=6, by="critic")
    together = tree_of(lock(4, slip="back"), value, rule="lookahead", children=6, by="critic")
    assert shape(one) == shape(together)
    assert max(value.sizes) == 2
