"""The sides of `grpo_step.py`. Each runs in a process of its own, does one iteration when told to, and reports it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

Side = Literal["ours:vllm", "ours:transformers", "trl:vllm", "trl:transformers"]
MARK = "ITERATION "


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The work of one iteration, the same on both sides."""

    groups: int
    group_size: int
    turns: int
    prompt_words: int
    action_tokens: int

    @property
    def episodes(self) -> int:
        return self.groups * self.group_size

    @property
    def completion_tokens(self) -> int:
        """Actions and answers of an episode, at most."""
        return self.turns * (self.action_tokens + 48)


@dataclass(kw_only=True)
class Iteration:
    """What one iteration took and did. Seconds by part; `total_s` is measured around all of it."""

    total_s: float = 0.0
    generate_s: float = 0.0
    collect_s: float = 0.0
    update_s: float = 0.0
    sync_s: float = 0.0
    other_s: float = 0.0
    sampled_tokens: int = 0
    trained_tokens: int = 0
    forwarded_tokens: int = 0


def told() -> None:
    """Wait for the next order; end the process when there is none."""
    if sys.stdin.readline().strip() != "go":
        sys.stdout.flush()
        os._exit(0)  # the engine's library may take its time to go, or not go at all


def tell(iteration: Iteration | None) -> None:
    print(MARK + json.dumps(asdict(iteration) if iteration else {}), flush=True)


def ours(engine: str, folder: Path, shape: Shape, scratch: Path) -> None:
    """The loop of `recipes/grpo.py`, with a clock between its lines. Every group is kept, as TRL keeps it."""
    from rollwright.batching import flatten
    from rollwright.config import build_part, load_config
    from rollwright.learner import objective_of
    from rollwright.recipes.grpo import GrpoConfig
    from rollwright.training import Training

    file = scratch / "run.yaml"
    file.write_text(json.dumps(_our_settings(engine, folder, shape, scratch)), encoding="utf-8")
    config = load_config(GrpoConfig, [str(file)])
    objective, estimator = objective_of(config.algorithm), build_part(config.algorithm, "advantage")
    with Training.start(config) as run:
        tell(None)
        for step in run.steps():
            told()
            clock = [time.perf_counter()]
            groups = run.collect(step)
            clock.append(time.perf_counter())
            groups = run.score(groups)
            batch = flatten(groups, min_members=2)
            batch = batch.with_columns(advantages=estimator(batch))
            clock.append(time.perf_counter())
            metrics = run.update(batch, objective)
            clock.append(time.perf_counter())
            run.sync()
            clock.append(time.perf_counter())
            run.finish(step, groups, metrics)
            clock.append(time.perf_counter())
            parts = [after - before for before, after in pairwise(clock)]
            naive = sum(len(s.prompt_ids) + len(s.action_ids) for s in batch.segments)
            tell(
                Iteration(
                    total_s=clock[-1] - clock[0],
                    collect_s=parts[0],
                    update_s=parts[2],
                    sync_s=parts[3],
                    other_s=parts[1] + parts[4],
                    sampled_tokens=sum(len(s.action_ids) for s in batch.segments),
                    trained_tokens=len(batch),
                    forwarded_tokens=round(naive / metrics["batch/sharing_ratio"]),
                )
            )


def _our_settings(engine: str, folder: Path, shape: Shape, scratch: Path) -> dict[str, Any]:
    return {
        "run": {"folder": str(scratch / "run"), "steps": 1000, "transcripts_every": 0},
        "model": {"path": str(folder)},
        "world": {"name": "_game:build", "options": {"prompt_words": shape.prompt_words, "turns": shape.turns}},
        "engine": {"name": engine, "dtype": "float32", "max_context": context_length(shape)},
        "rollout": {
            "groups_per_step": shape.groups,
            "group_size": shape.group_size,
            "max_turns": shape.turns,
            "max_action_tokens": shape.action_tokens,
            "context": "append",
            "parallel_episodes": shape.episodes,
        },
        "learner": {"learning_rate": 1e-5, "precision": "float32", "token_budget": 2048},
        "algorithm": {"preset": "grpo", "aggregation": "token-mean", "kl_coef": 0.0},
    }


def context_length(shape: Shape) -> int:
    """Room for the prompt and all turns."""
    return 2 * shape.prompt_words + 128 + shape.completion_tokens


class TrlClock:
    """Patches a trainer so that one iteration waits for its order and is timed by part."""

    def __init__(self, trainer: Any) -> None:
        self.now = Iteration()
        self.began = 0.0
        self._generation = trainer._generate_single_turn
        self._rollout = trainer._generate
        trainer._generate_single_turn = self._timed_generation
        trainer._generate = self._timed_rollout

    def _timed_generation(self, *args: Any, **kwargs: Any) -> Any:
        before = time.perf_counter()
        ids, logprobs = self._generation(*args, **kwargs)
        self.now.generate_s += time.perf_counter() - before
        self.now.sampled_tokens += sum(map(len, ids))
        return ids, logprobs

    def _timed_rollout(self, prompts: list[Any]) -> Any:
        before = time.perf_counter()
        result = self._rollout(prompts)
        self.now.collect_s += time.perf_counter() - before
        prompt_ids, completion_ids, mask = result[:3]
        self.now.trained_tokens += sum(map(sum, mask)) if mask else sum(map(len, completion_ids))
        # Every row is padded to the longest prompt and the longest completion.
        self.now.forwarded_tokens += len(prompt_ids) * (max(map(len, prompt_ids)) + max(map(len, completion_ids)))
        return result

    def start(self) -> None:
        told()
        self.now, self.began = Iteration(), time.perf_counter()

    def stop(self) -> None:
        self.now.total_s = time.perf_counter() - self.began
        self.now.update_s = self.now.total_s - self.now.collect_s
        tell(self.now)


def trl(engine: str, folder: Path, shape: Shape, scratch: Path, *, micro_batch: int = 16) -> None:
    """GRPOTrainer as it comes, with the game as `environment_factory`; one optimiser step per batch of episodes."""
    from _game import GameTool, rules, tool_rewards
    from _trl import grpo_trainer, repair_vllm_on_cpu
    from datasets import Dataset
    from transformers import TrainerCallback

    if engine == "vllm":
        repair_vllm_on_cpu()
    prompt = [{"role": "system", "content": rules(shape.prompt_words)}, {"role": "user", "content": ""}]
    micro_batch = min(micro_batch, shape.episodes)
    trainer = grpo_trainer(
        folder,
        output=scratch / "run",
        rewards=tool_rewards,
        dataset=Dataset.from_list([{"prompt": prompt, "seed": seed} for seed in range(4000)]),
        environment=GameTool,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=shape.episodes // micro_batch,
        num_generations=shape.group_size,
        max_steps=1000,
        learning_rate=1e-5,
        max_completion_length=shape.completion_tokens,
        max_tool_calling_iterations=shape.turns - 1,
        use_vllm=engine == "vllm",
        **({"vllm_mode": "colocate", "vllm_max_model_length": context_length(shape)} if engine == "vllm" else {}),
    )
    # TRL has one limit for the whole episode; a turn's limit is set where each backend reads it.
    if engine == "vllm":
        trainer.vllm_generation.max_completion_length = shape.action_tokens
    else:
        trainer.generation_config.max_new_tokens = shape.action_tokens
    clock = TrlClock(trainer)

    class Paced(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.start()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.stop()

    trainer.add_callback(Paced())
    tell(None)
    trainer.train()


SIDES: dict[str, Callable[[str, Path, Shape, Path], None]] = {"ours": ours, "trl": trl}


def main() -> None:
    """`python _grpo_sides.py SIDE FOLDER SHAPE SCRATCH`, started by `grpo_step.py`."""
    side, folder, shape, scratch = sys.argv[1:]
    name, _, engine = side.partition(":")
    SIDES[name](engine, Path(folder), Shape(**json.loads(shape)), Path(scratch))


if __name__ == "__main__":
    from rollwright.config import prepare_environment

    prepare_environment()  # before torch is imported; the same threads on both sides
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    main()
