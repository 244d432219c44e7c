"""`--plan --check`: the models that a recipe names are loaded once and held against themselves before anything runs."""

from __future__ import annotations

import os
from typing import Any

from rollwright.config import Config, EngineSettings, LearnerSettings, ModelSettings
from rollwright.training.preflight import sections

CHECK = "--check"


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
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line)
