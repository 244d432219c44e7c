"""What the learner needs of a PEFT model: look past its adapter, and read the full weights that it amounts to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rollwright.errors import ConfigError


def is_adapted(model: nn.Module) -> bool:
    """Whether this is a PEFT model."""
    return hasattr(model, "disable_adapter") and hasattr(model, "get_base_model")


def adapter_off(model: Any) -> AbstractContextManager[None]:
    """Inside this context the model computes what it did before the adapter was added.

    Raises:
        ConfigError: there is no adapter to switch off.
    """
    if not is_adapted(model):
        raise ConfigError("reference 'adapter' needs a policy with a LoRA adapter: add one, or use reference 'copy'")
    return model.disable_adapter()


def merged_parameters(model: Any) -> Iterator[tuple[str, nn.Parameter, Any | None]]:
    """Every weight of the adapted model under its transformers name, with the LoRA layer that changes it, if any.

    Raises:
        ConfigError: an adapter type whose effect is not a sum with the frozen weight.
    """
    base = model.get_base_model()
    for name, parameter in base.named_parameters():
        parts = name.split(".")
        if any(part.startswith("lora_") for part in parts) or "original_module" in parts:
            continue
        if "modules_to_save" in parts:
            place = parts.index("modules_to_save")
            yield ".".join(parts[:place] + parts[place + 2 :]), parameter, None
        elif "base_layer" in parts:
            layer = base.get_submodule(".".join(parts[: parts.index("base_layer")]))
            _check_mergeable(layer, name)
            parts.remove("base_layer")
            yield ".".join(parts), parameter, layer if parts[-1] == "weight" else None
        else:
            yield name, parameter, None


def _check_mergeable(layer: Any, name: str) -> None:
    # `use_dora` lists the adapters of a layer that rescale the merged weight by its norm.
    if any(dict(getattr(layer, "use_dora", {})).values()):
        raise ConfigError(f"{name} carries a DoRA adapter, which cannot be handed to an engine: use plain LoRA")


@torch.no_grad()
def merged(parameter: Tensor, layer: Any | None) -> Tensor:
    """The frozen weight plus the updates of the active adapters. Same shape and dtype as the weight."""
    if layer is None:
        return parameter.detach()
    total = parameter.detach().clone()
    for adapter in layer.active_adapters:
        total += layer.get_delta_weight(adapter).to(total.dtype)
    return total
