"""One function that makes an engine by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from rollwright.contracts import UnknownComponent
from rollwright.generation.engine import Engine
from rollwright.generation.vllm_engine import vllm_importable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rollwright.generation.server.make_servers import ServerSetup

logger = logging.getLogger(__name__)

_NAMES = ("auto", "vllm", "vllm_server", "transformers")


def choose_engine(name: str = "auto") -> Literal["vllm", "vllm_server", "transformers"]:
    """The engine that a name stands for: "auto" is vLLM where it is installed, else transformers.

    Raises:
        UnknownComponent: no engine has that name.
    """
    if name not in _NAMES:
        raise UnknownComponent(f"no engine is called {name!r}; expected one of {', '.join(_NAMES)}")
    if name == "vllm_server":
        return "vllm_server"
    if name == "vllm" or (name == "auto" and vllm_importable()):
        return "vllm"
    return "transformers"


def make_engine(
    name: str = "auto",
    *,
    model_path: str | Path,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    context_length: int = 1024,
    stop_token_ids: tuple[int, ...] = (),
    max_batch: int = 64,
    seed: int = 0,
    learner_model: PreTrainedModel | None = None,
    servers: ServerSetup | None = None,
) -> Engine:
    """An engine with the weights of a model folder.

    Args:
        name: "auto", "vllm", "vllm_server" or "transformers".
        model_path: a folder, "smollm2", or a hub name (see `rollwright.models.loading.resolve_model`).
        stop_token_ids: what ends an action (`ChatCodec.stop_token_ids`).
        learner_model: the transformers engine samples from this very object instead of a copy of its own; it needs no
            weight updates then, and no second model in memory. vLLM keeps its own copy whatever is given here.
        servers: how "vllm_server" runs its servers; None is one server, started here.

    Raises:
        UnknownComponent: no engine has that name.
        ConfigError: the model has fewer positions than `context_length`, or fewer rows than its tokenizer has ids.
        MissingDependency: vLLM was asked for by name and is not installed.
    """
    from rollwright.models import require_positions, resolve_model

    chosen = choose_engine(name)
    folder = resolve_model(model_path)
    require_positions(folder, context_length)
    logger.info("engine %s (asked for: %s), %s, %s", chosen, name, folder, dtype)
    if chosen == "vllm":
        from rollwright.generation.vllm_engine import VLLMEngine

        return VLLMEngine(
            folder,
            dtype=dtype,
            context_length=context_length,
            stop_token_ids=stop_token_ids,
            max_batch=max_batch,
            seed=seed,
        )
    if chosen == "vllm_server":
        from rollwright.generation.server.make_servers import ServerSetup, open_servers

        return open_servers(
            folder,
            servers or ServerSetup(),
            dtype=dtype,
            context_length=context_length,
            stop_token_ids=stop_token_ids,
            max_batch=max_batch,
            seed=seed,
        )
    if chosen == "transformers":
        from rollwright.generation.transformers_engine import TransformersEngine
        from rollwright.models import load_model

        return TransformersEngine(
            load_model(folder, dtype) if learner_model is None else learner_model,
            owns_weights=learner_model is None,
            context_length=context_length,
            stop_token_ids=stop_token_ids,
            max_batch=max_batch,
            seed=seed,
        )
    assert_never(chosen)
