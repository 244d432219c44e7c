"""What a search tree adds to the calls that it makes: seconds of its own over seconds of engine and environment.

Trees are grown one after the other, so that nothing else runs while one waits. Busy is the time in which a call of the
engine or of the world is under way; everything else is the tree's own: choosing, copying contexts, rendering prompts,
making records, backing up. Both are of the same run. A tiny random model plays: with a larger one the share is smaller.

    python benchmarks/tree_cost.py            table; also written to benchmarks/results/tree_cost.md
    python benchmarks/tree_cost.py --json     one final JSON line: added_frac, the highest of all rows
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from _common import command, machine, publish, table

from rollwright.contracts import episode_seed, tasks_of
from rollwright.generation import EngineSettings
from rollwright.models import ModelSettings
from rollwright.rollout import EngineActor, RolloutSettings
from rollwright.rollout.trees import SearchSettings, TreeRequest, grow_trees
from rollwright.training import WorldSettings, open_stage

WORLDS: dict[str, dict[str, Any]] = {
    "text.maze": {"wording": "compact", "maze": "umaze"},
    "text.combination_lock": {"lengths": [8], "wording": "compact"},
    "text.household": {},
}
RULES: dict[str, dict[str, Any]] = {
    "uct": {"simulations": 8, "children": 4},
    "puct, value by simulations": {"simulations": 8, "children": 2, "value": "rollouts"},
    "beam": {"simulations": 4, "children": 2},
    "best_of_n": {"simulations": 8},
}


class Busy:
    """Seconds in which at least one of the watched calls is under way."""

    def __init__(self) -> None:
        self.seconds, self._open, self._since = 0.0, 0, 0.0

    def watching(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The same call, watched."""

        async def watched(*args: Any, **named: Any) -> Any:
            if not self._open:
                self._since = time.perf_counter()
            self._open += 1
            try:
                return await call(*args, **named)
            finally:
                self._open -= 1
                if not self._open:
                    self.seconds += time.perf_counter() - self._since

        return watched


def measure(world: str, folder: Path, trees: int, turns: int) -> list[list[str]]:
    """One row per rule, and the share that the tree added."""
    rows = []
    rollout = RolloutSettings(context="windowed", history=0, max_action_tokens=8, parallel_episodes=1, max_turns=turns)
    with open_stage(WorldSettings(name=world, options=WORLDS[world]), ModelSettings(path="tiny"), folder) as stage:
        engine = stage.open_engine(EngineSettings(name="transformers", dtype="float32"))
        collector = stage.open_collector(rollout, EngineActor(engine), context_length=engine.context_length)
        busy, host = Busy(), collector.host
        engine.generate = busy.watching(engine.generate)  # type: ignore[method-assign]
        host.call, host.acquire = busy.watching(host.call), busy.watching(host.acquire)  # type: ignore[method-assign]
        task = tasks_of(stage.world, "train")[0]
        for rule, settings in RULES.items():
            search = SearchSettings.model_validate({"rule": rule.split(",")[0], **settings})
            requests = [
                TreeRequest(key=f"{rule}/{number}", task=task, seed=episode_seed("train", "cost", number))
                for number in range(trees + 1)
            ]
            grow_trees(collector, requests[:1], search)  # what is made once is not the tree's
            busy.seconds, began = 0.0, time.perf_counter()
            grown = grow_trees(collector, requests[1:], search)
            own = time.perf_counter() - began - busy.seconds
            calls = sum(tree.env_calls + tree.replayed_calls for tree in grown)
            tokens = sum(tree.tokens for tree in grown)
            share = own / busy.seconds
            rows.append([world, rule, str(calls), str(tokens), f"{busy.seconds:.2f}", f"{own:.3f}", f"{share:.4f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--trees", type=int, default=4, help="per world and rule")
    parser.add_argument("--turns", type=int, default=12, help="turns after which a path is cut")
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    for world in WORLDS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(world, Path(folder), arguments.trees, arguments.turns)
    summary = {"added_frac": max(float(row[-1]) for row in rows)}
    heads = ["world", "rule", "calls of the world", "sampled tokens", "busy, s", "the tree's own, s", "own / busy"]
    text = "\n".join(
        [
            "# Search trees: what they add to the time of their calls",
            "",
            table(heads, rows),
            "",
            f"{arguments.trees} trees per row, one after the other; paths are cut after {arguments.turns} turns. A "
            "tiny random model on the transformers engine.",
            "",
            f"Machine: {machine('transformers')}",
            f"Command: `{command()}`",
        ]
    )
    publish("tree_cost", text, summary, as_json=arguments.json)


if __name__ == "__main__":
    main()
