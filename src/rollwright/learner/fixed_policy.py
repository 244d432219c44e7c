"""A policy that stands still while another one learns: the reference of a phase, taken from the learner and renewed."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from rollwright.batching import TokenBatch
from rollwright.contracts import ConfigError
from rollwright.learner.learner import Learner
from rollwright.learner.weights import full_weights
from rollwright.learner.zero import shard_frozen, zero_stage
from rollwright.models import TokenScorer, causal_lm, is_adapted, mark, marked


class FixedPolicy:
    """A frozen copy of the learner's policy as it was when `renew` was last called; a part of checkpoints.

    Unlike the learner's own reference, which is the starting policy for good, it can follow in steps. It is kept whole
    on every rank, adapters merged.

    Args:
        temperature: the one of the learner, so that both score the same distribution.
        name: of its file in a checkpoint.

    Attributes:
        version: the learner's optimiser step at which the copy was taken.

    Raises:
        ConfigError: under ZeRO-3, where no rank has the weights whole.
    """

    def __init__(self, learner: Learner, *, temperature: float = 1.0, name: str = "reference") -> None:
        if zero_stage(learner.accelerator) == 3:
            raise ConfigError(f"the {name} policy needs its weights whole on each rank: use ZeRO-1 or ZeRO-2 for it")
        self.learner, self.name, self.version = learner, name, 0
        self._model = plain_copy(learner.policy).to(learner.accelerator.device)
        self._model.requires_grad_(False).eval()
        scorer = TokenScorer(self._model, temperature=temperature)
        precise = bool(zero_stage(learner.accelerator))  # DeepSpeed switches off what is set around a forward pass
        self._scorer = shard_frozen(learner.accelerator, scorer, learner.autocast_dtype) if precise else scorer.eval()
        # The copy of an adapted policy holds random weights until here.
        self.renew()

    @torch.no_grad()
    def renew(self) -> None:
        """Take over the learner's policy as it is now. All ranks call."""
        mine = dict(self._model.named_parameters())
        # Merged and under plain names, as the copy has them; every rank must iterate to the end.
        for name, tensor in full_weights(self.learner.policy):
            mine[name].copy_(tensor)
        self.version = self.learner.step

    def logprobs(self, batch: TokenBatch) -> Tensor:
        """As `Learner.logprobs`, by the copy. -> [N] float32 on the CPU."""
        return self.learner.logprobs_by(self._scorer, batch)

    def save_state(self, folder: Path) -> None:
        """Write the copy into a checkpoint; the first rank does."""
        if self.learner.ranks.first:
            # safetensors refuses tensors that are not contiguous, and its metadata holds strings alone.
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in self._model.named_parameters()}
            save_file(state, folder / f"{self.name}.safetensors", metadata={"version": str(self.version)})
        self.learner.ranks.wait()

    @torch.no_grad()
    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote."""
        from safetensors import safe_open

        file = folder / f"{self.name}.safetensors"
        saved = load_file(file)
        for name, parameter in self._model.named_parameters():
            parameter.copy_(saved[name])
        # `load_file` does not return the metadata.
        with safe_open(file, framework="pt") as opened:
            self.version = int(opened.metadata()["version"])


def plain_copy(policy: torch.nn.Module) -> PreTrainedModel:
    """A model of the same shape without adapters; its weights are filled in afterwards where there were some."""
    inner = causal_lm(policy)
    if not is_adapted(policy):
        return copy.deepcopy(inner)
    config = copy.deepcopy(inner.config)
    # Left to itself from_config may choose another attention than the one that packed rows need.
    made: PreTrainedModel = AutoModelForCausalLM.from_config(
        config, dtype=inner.dtype, attn_implementation=inner.config._attn_implementation
    )
    # The ids that the policy never says stand in no configuration: a new model does not know them.
    mark(made, marked(inner))
    return made
