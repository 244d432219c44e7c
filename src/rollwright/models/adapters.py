"""What the learner needs of a PEFT model: look past its adapter, and read the full weights that it amounts to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from rollwright.contracts import ConfigError


def is_adapted(model: nn.Module) -> bool:
    """Whether this is a PEFT model."""
    # By its methods: `isinstance` would need an import of peft, which not everybody has installed.
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
        # LoRA's factors and the untrained originals of `modules_to_save` are no weights of the model.
        if any(part.startswith("lora_") for part in parts) or "original_module" in parts:
            continue
        if "modules_to_save" in parts:
            place = parts.index("modules_to_save")
            # PEFT puts two parts into the name, `modules_to_save` and the adapter's own name.
            yield ".".join(parts[:place] + parts[place + 2 :]), parameter, None
        elif "base_layer" in parts:
            layer = _layer_of(base.get_submodule(".".join(parts[: parts.index("base_layer")])), parts[-1])
            if layer is not None:
                _check_mergeable(layer, name)
            yield ".".join(part for part in parts if part != "base_layer"), parameter, layer
        else:
            yield name, parameter, None


def _layer_of(outermost: Any, parameter: str) -> Any | None:
    """The LoRA layer that changes `parameter`, None where none does: experts are wrapped once for each of theirs."""
    layer = outermost
    while layer is not None and hasattr(layer, "get_delta_weight"):
        if getattr(layer, "parameter_name", "weight") == parameter:
            return layer
        layer = getattr(layer, "base_layer", None)
    return None


def _check_mergeable(layer: Any, name: str) -> None:
    # `use_dora` lists the adapters of a layer that rescale the merged weight by its norm.
    if any(dict(getattr(layer, "use_dora", {})).values()):
        raise ConfigError(f"{name} carries a DoRA adapter, which cannot be handed to an engine: use plain LoRA")


@torch.no_grad()
def merged(parameter: Tensor, layer: Any | None) -> Tensor:
    """The frozen weight plus the updates of the active adapters. Same shape and dtype as the weight."""
    if layer is None:
        return parameter.detach()
    # The sum goes into a copy: the frozen weight must stay as it is.
    total = parameter.detach().clone()
    for adapter in layer.active_adapters:
        total += layer.get_delta_weight(adapter).to(total.dtype)
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter on its way to an engine: PEFT's config as JSON, and its tensors under PEFT's names on disk."""

    config: dict[str, Any]
    weights: Iterable[tuple[str, Tensor]]


def adapter_of(model: Any, whole: Callable[[list[nn.Parameter]], AbstractContextManager[Any]]) -> Adapter:
    """The active adapter of a PEFT model.

    Args:
        whole: makes sharded parameters whole while they are read (`learner.weights.gathered`); every rank iterates.

    Raises:
        ConfigError: no adapter, several, or one that changes more than LoRA's two factors per layer.
    """
    if not is_adapted(model) or len(model.active_adapters) != 1:
        raise ConfigError("lora_sync=adapter needs a policy with exactly one LoRA adapter: set model.lora_rank")
    (name,) = model.active_adapters
    config = model.peft_config[name]
    if config.modules_to_save or getattr(config, "use_dora", False):
        raise ConfigError(
            "an engine takes plain LoRA adapters only, this one has modules_to_save or DoRA: use lora_sync=merge"
        )

    # PEFT gives this name to layers that wrap a bare parameter, as it does for experts that share a tensor.
    if any(hasattr(module, "parameter_name") for module in model.modules()):
        raise ConfigError(
            "this adapter changes the experts of a mixture, all of them in one factor, and engines take an adapter "
            "expert by expert: use lora_sync=merge"
        )

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for key, parameter in model.named_parameters():
            if ".lora_" in key and f".{name}." in key:
                # Making a parameter whole is collective: a rank that stops early leaves the others waiting.
                with whole([parameter]):
                    # On disk PEFT's names lack the adapter's own, and that is how engines read them.
                    yield key.replace(f".{name}.", "."), parameter.detach()

    return Adapter(config=_as_json(config.to_dict()), weights=tensors())


def _as_json(value: Any) -> Any:
    """Sets as lists and enumerations as their values, all the way down."""
    if isinstance(value, dict):
        return {str(key): _as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        # Sorted, because the order of a set changes from process to process.
        return [_as_json(entry) for entry in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value.value if isinstance(value, Enum) else value
