"""The full weights of a policy, one parameter at a time, whatever it is wrapped in or sharded over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from rollwright.adapters import adapter_of, is_adapted, merged, merged_parameters
from rollwright.generation.base import AdapterEngine, Engine
from rollwright.scoring import causal_lm


def full_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of every weight, under the names transformers gives them.

    A tied vocabulary head comes once, as the input embedding. LoRA adapters are merged. Under ZeRO-3 each parameter is
    gathered while it is yielded and released afterwards, so every rank must iterate to the end, in lockstep, and a
    consumer that keeps a tensor must copy it.
    """
    if is_adapted(model):
        for name, parameter, layer in merged_parameters(model):
            partners = [] if layer is None else [p for key, p in layer.named_parameters() if "lora_" in key]
            with gathered([parameter, *partners]):
                yield name, merged(parameter, layer)
        return
    for name, parameter in causal_lm(model).named_parameters():
        with gathered([parameter]):
            yield name, parameter.detach()


def hand_over(model: nn.Module, engine: Engine, *, version: int) -> None:
    """Give an engine the policy: its weights, or its LoRA adapter alone where the engine takes adapters.

    Every rank calls, as for `full_weights`.
    """
    if isinstance(engine, AdapterEngine) and engine.takes_adapters:
        engine.load_adapter(adapter_of(model, gathered), version=version)
    else:
        engine.load_weights(full_weights(model), version=version)


def gathered(parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
    """Inside this context the parameters are whole on every rank; nothing to do unless ZeRO-3 has sharded them."""
    # DeepSpeed marks a sharded parameter with `ds_id`; without the mark it need not even be installed.
    sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not sharded:
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters(sharded)
