"""The full weights of a policy, one parameter at a time, whatever it is wrapped in or sharded over."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, revert_weight_conversion

from rollwright.contracts import ConfigError
from rollwright.generation import AdapterEngine, Engine
from rollwright.models import adapter_of, body_of, causal_lm, is_adapted, merged, merged_parameters


def full_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of every weight, under the names transformers gives them.

    A tied vocabulary head comes once, as the input embedding. LoRA adapters are merged. Under ZeRO-3 each parameter is
    gathered while it is yielded and released afterwards, so every rank must iterate to the end, in lockstep, and a
    consumer that keeps a tensor must copy it.
    """
    if is_adapted(model):
        for name, parameter, layer in merged_parameters(model):
            # The merge needs both LoRA matrices whole at the same time as the frozen weight.
            partners = [] if layer is None else [p for key, p in layer.named_parameters() if "lora_" in key]
            with gathered([parameter, *partners]):
                yield name, merged(parameter, layer)
        return
    for name, parameter in causal_lm(model).named_parameters():
        with gathered([parameter]):
            yield name, parameter.detach()


def checkpoint_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The same under the names of checkpoints, by which vLLM loads: experts that are computed together come one by one.

    As for `full_weights`, every rank iterates to the end.
    """
    inner = causal_lm(model)
    known = getattr(inner, "_weight_conversions", None)
    if known is None:
        # transformers looks here too when it saves a model that from_pretrained did not make.
        known = get_model_conversion_mapping(inner, add_legacy=False)
    if not any(isinstance(entry, WeightConverter) for entry in known):
        yield from full_weights(model)
        return
    for name, tensor in full_weights(model):
        # One at a time: under ZeRO-3 a tensor is whole only until the next one is asked for.
        yield from revert_weight_conversion(inner, {name: tensor}).items()


def copied_body(model: nn.Module) -> PreTrainedModel:
    """A whole copy of the transformer without its vocabulary head, to start a critic from.

    A LoRA adapter comes along, and is then all that is trained of the copy. Under ZeRO-3 the copy is built anew and
    filled parameter by parameter, on every rank at once: the sharded module is full of DeepSpeed's hooks.

    Raises:
        ConfigError: an adapted model under ZeRO-3.
    """
    body = body_of(model)
    if not any(hasattr(parameter, "ds_id") for parameter in body.parameters()):
        return copy.deepcopy(body)
    if is_adapted(model):
        raise ConfigError("a critic cannot start from a LoRA policy under ZeRO-3: use ZeRO-1 or ZeRO-2, or no LoRA")
    with torch.random.fork_rng(devices=[]):  # what is drawn afterwards, such as heads, is the same as without ZeRO
        copied = type(body)(body.config)
    for name, parameter in body.named_parameters():
        with gathered([parameter]):
            # To the CPU at once: a whole copy may not fit on a device beside a model that needs ZeRO-3.
            copied.get_parameter(name).data = parameter.detach().cpu().clone()
    for name, buffer in body.named_buffers():
        copied.get_buffer(name).data = buffer.detach().cpu().clone()
    return copied


def hand_over(model: nn.Module, engine: Engine, *, version: int) -> None:
    """Give an engine the policy: its weights, or its LoRA adapter alone where the engine takes adapters.

    Every rank calls, as for `full_weights`.
    """
    if isinstance(engine, AdapterEngine) and engine.takes_adapters:
        engine.load_adapter(adapter_of(model, gathered), version=version)
    else:
        # The transformers engine loads by the names of its modules, vLLM by those of checkpoints.
        weights = full_weights(model) if engine.name == "transformers" else checkpoint_weights(model)
        engine.load_weights(weights, version=version)


def gathered(parameters: list[nn.Parameter]) -> AbstractContextManager[Any]:
    """Inside this context the parameters are whole on every rank; nothing to do unless ZeRO-3 has sharded them."""
    # DeepSpeed marks a sharded parameter with `ds_id`; without the mark it need not even be installed.
    sharded = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not sharded:
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    return GatheredParameters(sharded)
