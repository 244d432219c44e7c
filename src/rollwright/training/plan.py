"""What `--plan` prints: the arithmetic of a step and a bound on memory, without loading a weight.

With `--check` besides, the models that a recipe names are loaded once and compared with themselves.
"""

from __future__ import annotations

import json
import os
import struct
from math import prod
from pathlib import Path
from typing import Any

from rollwright.config import Config, sections
from rollwright.generation import EngineSettings
from rollwright.learner import LearnerSettings
from rollwright.models import ModelSettings
from rollwright.training.loop_config import LoopConfig

_GIB = 2**30
CHECK = "--check"


def plan_text(config: LoopConfig) -> str:
    """Batch arithmetic and memory of a run, a few lines."""
    rollout, learner = config.rollout, config.learner
    episodes = rollout.groups_per_step * rollout.group_size
    turns = f"{rollout.max_turns}" if rollout.max_turns else "the world's limit of"
    offline = int(getattr(getattr(config, "algorithm", None), "offline_steps", 0))
    # Offline steps play nothing.
    played = max(0, config.run.steps - offline)
    lines = [
        f"each step: {rollout.groups_per_step} groups x {rollout.group_size} = {episodes} episodes of at most {turns} "
        f"turns, {rollout.max_action_tokens} tokens an action; {rollout.parallel_episodes} episodes at once",
        f"the run: {config.run.steps} steps, {f'the first {offline} without episodes, ' if offline else ''}"
        f"{played * episodes} episodes",
        memory_text(config),
    ]
    if method := method_of(config):
        lines.insert(0, f"method: {method}")
    if "learner.epochs" not in type(config).unread:
        passes = f"each step: {learner.epochs} epoch(s) x {learner.minibatches} minibatch(es)"
        # In front of the line about the whole run.
        lines.insert(-2, f"{passes} = {learner.epochs * learner.minibatches} optimiser step(s)")
    return "\n".join(lines)


def method_of(config: Config) -> str:
    """The name of the run's method where its recipe has several, or "own mix" and what differs; else empty."""
    return str(getattr(getattr(config, "algorithm", None), "method", ""))


def memory_text(config: LoopConfig) -> str:
    """What learner and engine will hold, in one line."""
    folder = Path(config.model.path).expanduser()
    count = parameter_count(folder)
    if count is None:
        return f"memory: not known before model {config.model.path!r} is opened"
    # LoRA trains so few weights that their gradient and moments are left out of the sum.
    trained = 16 if config.model.lora_rank == 0 else 4  # fp32 weights; gradient and Adam's two moments besides
    # With LoRA the reference is the model without its adapter, which is in memory anyway.
    if config.model.lora_rank == 0 and _has_reference(config):
        trained += 4
    gib = (trained + 4) * count / _GIB  # the engine's own copy, in fp32 at most
    return f"memory: {count / 1e6:.0f}M parameters, about {gib:.1f} GiB for learner and engine, activations apart"


def _has_reference(config: LoopConfig) -> bool:
    """Whether a frozen copy of the starting policy is kept for a KL."""
    algorithm = getattr(config, "algorithm", None)
    # A KL in the loss and one inside the reward read the same copy.
    return any(getattr(algorithm, key, 0) > 0 for key in ("kl_coef", "kl_in_reward"))


def parameter_count(folder: Path) -> int | None:
    """Parameters in a model folder's safetensors files, read from their headers; None where there are none."""
    # An adapter's file holds only what is added to the model.
    files = sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_"))
    if not files:
        return None
    return sum(prod(shape) for file in files for shape in _shapes(file))


def _shapes(file: Path) -> list[list[int]]:
    """The shapes in a safetensors header: 8 bytes of length, then JSON."""
    with file.open("rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        header = json.loads(handle.read(length))
    # This one key of the header is no tensor.
    return [entry["shape"] for name, entry in header.items() if name != "__metadata__"]


def check_models(config: Config) -> None:
    """Load the policy, compare what learner and engine would compute with its own forward, and print what was found.

    Raises:
        UserError: it cannot be read, trained or sampled from; the message says why.
    """
    for name, model in sections(config, ModelSettings):
        if model.path == "tiny":
            _print(f"{name}.path=tiny: a Llama made by the run, nothing to check")
            continue
        policy = _load(model)
        for _, learner in sections(config, LearnerSettings):
            _print(f"{name}.path: {_of_learner(policy, learner)}")
        for key, engine in sections(config, EngineSettings):
            _print(f"{key}: {_of_engine(policy, engine)}")


def _load(model: ModelSettings) -> Any:
    from rollwright.models import load_policy, with_lora

    # In float32, so that a difference is one of the computation and not of rounding.
    policy, _ = load_policy(model.path, "float32")
    return with_lora(policy, rank=model.lora_rank) if model.lora_rank else policy


def _of_learner(policy: Any, learner: LearnerSettings) -> str:
    from rollwright.models import causal_lm, check_model

    checked = check_model(policy, layout=learner.layout, token_budget=learner.token_budget)
    gaps = ", ".join(f"{layout} {gap:.1e}" for layout, gap in checked.differences.items())
    told = f" ({checked.note})" if checked.note else ""
    return f"{type(causal_lm(policy)).__name__} with layout {checked.layout}{told}; nats from its own forward: {gaps}"


def _of_engine(policy: Any, engine: EngineSettings) -> str:
    from rollwright.generation import check_cache, choose_engine
    from rollwright.models import causal_lm

    chosen = choose_engine(engine.name)
    if chosen != "transformers":
        return f"{chosen} is compared with the learner at the first batches (run.parity_checks)"
    return f"transformers, nats from whole sequences: {check_cache(causal_lm(policy)):.1e}"


def _print(line: str) -> None:
    # All processes of a launcher come here, and one of each machine speaks.
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line)
