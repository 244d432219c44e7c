"""One function that makes an engine by name."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rollwright.config import is_own, load_part, make_own_part, make_part
from rollwright.contracts import UnknownComponent
from rollwright.generation.engine import Engine
from rollwright.generation.engine_settings import ENGINES
from rollwright.generation.vllm_engine import vllm_importable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rollwright.generation.server.make_servers import ServerSetup

logger = logging.getLogger(__name__)
Dtype = Literal["float32", "bfloat16", "float16"]


def choose_engine(name: str = "auto") -> str:
    """The engine that a name stands for: "auto" is vLLM where it is installed, else transformers.

    Raises:
        UnknownComponent: no engine has that name.
    """
    if name not in ENGINES.ours and not is_own(name):
        raise UnknownComponent(f"no engine is called {name!r}; expected one of {', '.join(ENGINES.ours)}")
    if name == "auto":
        return "vllm" if vllm_importable() else "transformers"
    return name


def takes_batches(name: str) -> bool:
    """Whether the named engine can be asked for a batch as a whole, as `rollout.schedule=rounds` needs it.

    What a user's own function makes is not known before it has made it: it counts as one that can.
    """
    if not is_own(name):
        return name != "vllm_server"  # timing decides how a server batches its requests
    build = load_part(ENGINES, name)
    return not inspect.isclass(build) or hasattr(build, "generate_together")


def make_engine(
    name: str = "auto",
    *,
    model_path: str | Path,
    dtype: Dtype = "float32",
    context_length: int = 1024,
    stop_token_ids: tuple[int, ...] = (),
    max_batch: int = 64,
    seed: int = 0,
    learner_model: PreTrainedModel | None = None,
    servers: ServerSetup | None = None,
    options: Mapping[str, Any] | None = None,
) -> Engine:
    """An engine with the weights of a model folder.

    Args:
        name: "auto", "vllm", "vllm_server", "transformers", or a user's own as `package.module:Attribute`.
        model_path: a folder, "smollm2", or a hub name (see `rollwright.models.loading.resolve_model`).
        stop_token_ids: what ends an action (`ChatCodec.stop_token_ids`).
        learner_model: the transformers engine samples from this very object instead of a copy of its own; it needs no
            weight updates then, and no second model in memory. vLLM keeps its own copy whatever is given here.
        servers: how "vllm_server" runs its servers; None is one server, started here.
        options: of a user's own engine.

    Raises:
        UnknownComponent: no engine has that name.
        ConfigError: the model has fewer positions than `context_length`, or fewer rows than its tokenizer has ids; or
            a user's own engine breaks its contract.
        MissingDependency: vLLM was asked for by name and is not installed.
    """
    from rollwright.models import require_positions, resolve_model

    chosen = choose_engine(name)
    folder = resolve_model(model_path)
    # This reads config.json alone: a model that is too short for the run is refused before it is loaded.
    require_positions(folder, context_length)
    logger.info("engine %s (asked for: %s), %s, %s", chosen, name, folder, dtype)
    given = {
        "model_path": folder,
        "dtype": dtype,
        "context_length": context_length,
        "stop_token_ids": stop_token_ids,
        "max_batch": max_batch,
        "seed": seed,
    }
    if is_own(chosen):
        own: Engine = make_own_part(ENGINES, "engine.name", chosen, options or {}, given)
        return own
    # Each builder gets only the words that its signature names.
    made: Engine = make_part(ENGINES, chosen, given | {"learner_model": learner_model, "servers": servers})
    return made


def open_server_engine(
    *,
    model_path: Path,
    dtype: Dtype,
    context_length: int,
    stop_token_ids: tuple[int, ...],
    max_batch: int,
    seed: int,
    servers: ServerSetup | None,
) -> Engine:
    """vLLM in processes of its own (see `server.make_servers.open_servers`)."""
    from rollwright.generation.server.make_servers import ServerSetup, open_servers

    return open_servers(
        model_path,
        servers or ServerSetup(),
        dtype=dtype,
        context_length=context_length,
        stop_token_ids=stop_token_ids,
        max_batch=max_batch,
        seed=seed,
    )


def open_transformers_engine(
    *,
    model_path: Path,
    dtype: Dtype,
    context_length: int,
    stop_token_ids: tuple[int, ...],
    max_batch: int,
    seed: int,
    learner_model: PreTrainedModel | None,
) -> Engine:
    """Sampling by transformers, from the learner's own model where that is given."""
    from rollwright.generation.transformers_engine import TransformersEngine
    from rollwright.models import load_model

    return TransformersEngine(
        load_model(model_path, dtype) if learner_model is None else learner_model,
        owns_weights=learner_model is None,
        context_length=context_length,
        stop_token_ids=stop_token_ids,
        max_batch=max_batch,
        seed=seed,
    )
