"""A teacher that scores what the policy sampled, by prompts of its own: another model, or the policy's own weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from rollwright.batching import TokenBatch
from rollwright.contracts import ConfigError
from rollwright.learner.fixed_policy import plain_copy
from rollwright.learner.learner import Learner
from rollwright.learner.weights import full_weights
from rollwright.learner.zero import shard_frozen, zero_stage
from rollwright.models import TokenScorer, causal_lm


class FrozenTeacher:
    """Weights without gradient that are asked for log-probs and hidden states; a part of checkpoints.

    Args:
        model: another model with the policy's tokenizer; None = a copy of the policy as it is now, which `follow`
            moves. It is kept whole on every rank.
        temperature: that of the policy: at another one, equal logits would differ (a log-ratio of .19 at 0.5 against
            1 and logits 1 and 0).

    Attributes:
        version: the learner's optimiser step whose weights it last took over, or moved towards.
        blended: whether it has only moved towards them, so that it is nobody's copy.

    Raises:
        ConfigError: under ZeRO-3, where no rank has the weights whole.
    """

    def __init__(self, learner: Learner, model: PreTrainedModel | None = None, *, temperature: float = 1.0) -> None:
        if zero_stage(learner.accelerator) == 3:
            raise ConfigError("a teacher needs its weights whole on each rank: use ZeRO-1 or ZeRO-2 with it")
        self.learner, self.version, self._own = learner, learner.step, model is None
        self.blended = False
        made = plain_copy(learner.policy) if model is None else model
        self.model = made.to(learner.accelerator.device).requires_grad_(False).eval()
        # DeepSpeed switches off what is set around a forward pass, so the copy has its precision inside.
        self.scorer = TokenScorer(self.model, temperature=temperature).eval()
        precise = bool(zero_stage(learner.accelerator))
        self._asked = shard_frozen(learner.accelerator, self.scorer, learner.autocast_dtype) if precise else self.scorer
        if self._own:
            # The copy of an adapted policy holds random weights until here.
            self.follow(1.0)

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Teacher = (1 - rate) teacher + rate policy; 1 takes the policy's weights over. All ranks call.

        Raises:
            ConfigError: a teacher of another model cannot follow.
        """
        if not self._own:
            raise ConfigError("this teacher is another model, which does not follow the policy's weights")
        mine = dict(self.model.named_parameters())
        # Merged and under plain names, as the copy has them; every rank must iterate to the end.
        for name, tensor in full_weights(self.learner.policy):
            if rate == 1.0:
                mine[name].copy_(tensor)  # lerp rounds, and a teacher that is the policy must be it to the bit
            else:
                mine[name].lerp_(tensor.to(mine[name]), rate)
        self.version, self.blended = self.learner.step, rate != 1.0

    @property
    def is_the_policy(self) -> bool:
        """Whether its weights are those that the policy has now."""
        return self._own and not self.blended and self.version == self.learner.step

    def logprobs(self, batch: TokenBatch, prompts: Sequence[tuple[int, ...] | None]) -> Tensor:
        """Log-probs of the batch's tokens given these prompts. -> [N] float32 on the CPU, NaN where a prompt is None.

        Args:
            prompts: [U] what the teacher reads before each turn's action.
        """
        return self._filled(batch, prompts, lambda asked: self.learner.logprobs_by(self._asked, asked))

    def states(self, batch: TokenBatch, prompts: Sequence[tuple[int, ...] | None]) -> Tensor:
        """Log-prob of each token and the last hidden state before it. -> [N, 1 + H] on the CPU, NaN where unknown.

        The head (`scorer.logits`) is applied to the states when the loss is computed: distributions over the
        vocabulary are never kept.
        """
        return self._filled(batch, prompts, lambda asked: self.learner.states_by(self.scorer, asked))

    def _filled(
        self, batch: TokenBatch, prompts: Sequence[tuple[int, ...] | None], score: Callable[[TokenBatch], Tensor]
    ) -> Tensor:
        asked = {place: prompt for place, prompt in enumerate(prompts) if prompt is not None}
        if not asked:
            return torch.full((len(batch),), torch.nan)
        known = list(asked)
        found = score(given_prompts(batch.select_turns(known), list(asked.values())))
        whole = torch.full((len(batch), *found.shape[1:]), torch.nan)
        # The order of a selection is that of its turns, so that the scores go back to where they belong.
        whole[batch.entries_of(known)] = found
        return whole

    def save_state(self, folder: Path) -> None:
        """Write its weights into a checkpoint, where they are the run's own; the first rank does."""
        if self._own and self.learner.ranks.first:
            # safetensors refuses tensors that are not contiguous, and its metadata holds strings alone.
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.named_parameters()}
            told = {"version": str(self.version), "blended": str(self.blended)}
            save_file(state, folder / "teacher.safetensors", metadata=told)
        self.learner.ranks.wait()

    @torch.no_grad()
    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote."""
        if not self._own:
            return
        file = folder / "teacher.safetensors"
        saved = load_file(file)
        for name, parameter in self.model.named_parameters():
            parameter.copy_(saved[name])
        # `load_file` does not return the metadata.
        with safe_open(file, framework="pt") as opened:
            told = opened.metadata()
        self.version, self.blended = int(told["version"]), told["blended"] == "True"


def given_prompts(batch: TokenBatch, prompts: Sequence[tuple[int, ...]]) -> TokenBatch:
    """The same action tokens, each turn read after another prompt.

    Raises:
        ValueError: not one prompt per turn, or an empty one.
    """
    if len(prompts) != len(batch.segments) or not all(prompts):
        raise ValueError(f"{len(batch.segments)} turns need a prompt each, got {sum(map(bool, prompts))}")
    segments = [replace(s, prompt_ids=prompt) for s, prompt in zip(batch.segments, prompts, strict=True)]
    return replace(batch, segments=tuple(segments))


def require_same_vocabulary(policy: object, teacher: object, *, name: str) -> None:
    """A teacher's scores are of token ids, so both tokenizers must give every id the same meaning.

    Raises:
        ConfigError: they do not; the message names the first difference.
    """
    ours, theirs = policy.get_vocab(), teacher.get_vocab()  # type: ignore[attr-defined]
    if ours == theirs:
        return
    odd = sorted(set(ours.items()) ^ set(theirs.items()), key=lambda pair: (pair[1], pair[0]))[0]
    raise ConfigError(
        f"the teacher {name!r} has another tokenizer than the policy: {len(theirs)} entries against {len(ours)}, and "
        f"the first that differs is {odd[0]!r} with the id {odd[1]}. Its scores would be of other tokens: use a "
        "teacher of the same model family, or distill.teacher=self"
    )


def require_same_width(learner: Learner, teacher: FrozenTeacher, *, top_k: int | None) -> None:
    """A loss over the vocabulary compares logits one by one.

    Raises:
        ConfigError: the two heads have different widths, or fewer entries than `top_k`.
    """
    ours, theirs = (causal_lm(m).config.get_text_config().vocab_size for m in (learner.policy, teacher.model))
    if ours != theirs:
        raise ConfigError(
            f"the teacher's head has {theirs} entries and the policy's {ours} (padded differently): use "
            "algorithm.form=sampled, which reads the log-prob of the sampled token alone"
        )
    if top_k is not None and top_k > ours:
        raise ConfigError(
            f"`algorithm.top_k={top_k}`, but the vocabulary has {ours} entries: use fewer, or algorithm.form=full"
        )
