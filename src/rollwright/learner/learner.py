"""The learner: model, optimiser and accelerator behind `update`, `logprobs`, `values` and `weights`."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rollwright.batching import (
    CostModel,
    FilteringObjective,
    Layout,
    PackedBatch,
    Segment,
    TokenBatch,
    TokenObjective,
    pack,
    pays_on,
)
from rollwright.contracts import ConfigError
from rollwright.learner.optimisation import (
    Averages,
    Optimisation,
    OptimiserSettings,
    WholeOptimisation,
    set_training,
    split_minibatches,
)
from rollwright.learner.ranks import Ranks, check_world, share
from rollwright.learner.token_critic import CriticSettings, TokenCritic
from rollwright.learner.token_notes import TokenTap
from rollwright.learner.update_step import UpdateStep
from rollwright.learner.weights import full_weights
from rollwright.learner.zero import ZeroOptimisation, check_checkpoint, shard_frozen, zero_stage
from rollwright.models import TokenScorer, adapter_off, causal_lm, check_model

Reference = Literal["copy", "adapter"]
_STATE = "learner.pt"


class Learner:
    """A policy in training. Made once per run by a recipe; owns the policy, its reference, its critic and optimisers.

    With several ranks each of them calls every method with the same arguments, the whole batch included, and gets the
    same answer; inside, a rank works on its share. Under DeepSpeed policy, critic and copied reference are sharded.

    Args:
        accelerator: decides device, precision of prepared modules and distribution.
        policy: a transformers causal LM, or a PEFT model around one (then only the adapter is trained).
        learning_rate, weight_decay, betas: of AdamW.
        max_grad_norm: the gradient is scaled down to this norm.
        warmup_steps: the learning rate rises linearly over as many steps, then stays.
        temperature: the one the sampler used; log-probs are of the tempered distribution.
        token_budget: positions per micro-batch, padding included.
        layout: how turns are packed (see `batching.pack`); `costs` are for "auto". A model that cannot share prefixes
            is packed "padded" (see `model_check.check_model`; `checked` holds what it found).
        autocast_dtype: bfloat16 computes in it and keeps float32 master weights; None leaves the model's own dtype.
        reference: "copy" keeps a frozen second model, "adapter" switches the adapter off, None has no reference.
        critic: settings of a token critic, None for critic-free methods.
        dropout: leave the dropout of the model's configuration on in updates; ratios then differ from 1 by noise alone.
        seed: of the split into minibatches.

    Raises:
        ConfigError: processes that did not join, a model whose log-probs would be wrong, a reference without adapter.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        policy: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        max_grad_norm: float = 1.0,
        warmup_steps: int = 0,
        temperature: float = 1.0,
        token_budget: int = 4096,
        layout: Layout = "auto",
        costs: CostModel | None = None,
        autocast_dtype: torch.dtype | None = None,
        reference: Reference | None = None,
        critic: CriticSettings | None = None,
        dropout: bool = False,
        seed: int = 0,
    ) -> None:
        check_world(accelerator)
        self.accelerator = accelerator
        self.ranks = Ranks(accelerator)
        self._zero_stage = zero_stage(accelerator)
        # What ZeRO-3 shards need not fit on one device before.
        self.policy = policy if self._zero_stage == 3 else policy.to(accelerator.device)
        # Dropout would make the ratio differ from 1 before anything was learned; `set_training` decides about updates.
        self.policy.eval()
        self.checked = check_model(self.policy, layout=layout, token_budget=token_budget)
        self.step = 0
        self.tokens_trained = 0  # by this process: what a run says it spent, no part of a checkpoint
        # Of the check and not of the argument: a model that cannot share prefixes is packed "padded".
        self._layout, self._token_budget = self.checked.layout, token_budget
        # Whether joining prefixes pays depends on the attention that will run: blocks on a CPU, a dense mask elsewhere.
        self._costs = costs or CostModel(dense=not pays_on(accelerator.device))
        self._autocast_dtype, self._seed, self._dropout = autocast_dtype, seed, dropout
        self._reference, self._reference_scorer = reference, self._make_reference(reference, temperature)
        # Before the policy is prepared: its own transformer begins as a copy of the policy's.
        self._critic = self._make_critic(critic, warmup_steps) if critic else None
        self._critic_loss = critic.loss if critic else None
        settings = OptimiserSettings(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            betas=betas,
            max_grad_norm=max_grad_norm,
            warmup_steps=warmup_steps,
        )
        self._policy = self._optimisation(TokenScorer(self.policy, temperature=temperature), settings, name="policy")

    def _optimisation(self, module: nn.Module, settings: OptimiserSettings, *, name: str) -> Optimisation:
        if not self._zero_stage:
            return WholeOptimisation(self.accelerator, module, settings, name=name)
        return ZeroOptimisation(self.accelerator, module, settings, name=name, autocast_dtype=self._autocast_dtype)

    def _make_reference(self, reference: Reference | None, temperature: float) -> nn.Module | None:
        if reference == "adapter":
            # Entered once for nothing: a policy without an adapter fails here, not at the first step.
            with adapter_off(self.policy):
                return None
        if reference != "copy":
            return None
        # Copied before the optimiser is made: a prepared or sharded module cannot be copied.
        frozen = copy.deepcopy(self.policy).requires_grad_(False)
        scorer = TokenScorer(frozen, temperature=temperature)
        return shard_frozen(self.accelerator, scorer, self._autocast_dtype) if self._zero_stage else scorer.eval()

    def _make_critic(self, settings: CriticSettings, warmup_steps: int) -> Optimisation:
        critic = TokenCritic(self.policy, kind=settings.kind)
        # As for the policy: what ZeRO-3 shards need not fit on one device before.
        critic = critic if self._zero_stage == 3 else critic.to(self.accelerator.device)
        optimiser = OptimiserSettings(
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            warmup_steps=warmup_steps,
        )
        return self._optimisation(critic, optimiser, name=settings.name)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What forward passes compute in; None = the model's own."""
        return self._autocast_dtype

    def update(
        self,
        batch: TokenBatch,
        loss: TokenObjective,
        *,
        minibatches: int = 1,
        epochs: int = 1,
        tap: TokenTap | None = None,
        fit_critic: bool = True,
    ) -> dict[str, float]:
        """Train on a batch: `epochs` passes, each cut into `minibatches` optimiser steps by whole sequences.

        Where the batch gets a single step, the old log-probs are those of the step's own forward pass; otherwise, and
        for a loss that filters, they are computed first, unless the batch brings them. A step whose tokens are all
        filtered away is left out.

        Args:
            tap: notes what the first pass finds out about tokens.
            fit_critic: False leaves the token critic and its optimiser as they are.

        Returns:
            Metrics averaged over all tokens, ranks and steps.

        Raises:
            NonFiniteUpdate: loss or gradient norm is NaN or infinite. The step that would have moved did not.
            ValueError: no unmasked token, or a critic without targets.
        """
        if epochs < 1:
            raise ValueError(f"an update needs at least one epoch, got {epochs}")
        self.ranks.require_same(batch)
        # After the first optimiser step the policy is no longer the one whose log-probs the ratio needs.
        if minibatches * epochs > 1 or (isinstance(loss, FilteringObjective) and loss.filters):
            batch = self._with_old(batch)
        averages = Averages()
        self._set_training(True)
        try:
            for epoch in range(epochs):
                # Seeded by the step: a resumed run shuffles as the undisturbed one would have.
                order = random.Random(f"{self._seed}/{self.step}")
                for part in split_minibatches(batch, minibatches, order):
                    # Later passes see a policy that has moved.
                    self._optimiser_step(part, loss, averages, tap if epoch == 0 else None, fit_critic)
        finally:
            self._set_training(False)
        return averages.reduce(self.accelerator)

    def _set_training(self, training: bool) -> None:
        for module in (self._policy, self._critic):
            if module is not None:
                set_training(module.prepared, training, dropout=self._dropout)

    def _with_old(self, batch: TokenBatch) -> TokenBatch:
        """The batch with the log-probs and values that hold before the first step."""
        if batch.logprobs_old is None:
            batch = batch.with_columns(logprobs_old=self.logprobs(batch))
        if getattr(self._critic_loss, "needs_old", False) and batch.values is None:
            batch = batch.with_columns(values=self.values(batch))
        return batch

    def _optimiser_step(
        self, batch: TokenBatch, loss: TokenObjective, averages: Averages, tap: TokenTap | None, fit_critic: bool
    ) -> None:
        mine, num_tokens = share(batch.segments, rank=self.ranks.index, count=self.ranks.count), int(batch.mask.sum())
        batch = batch.select_turns(mine.turns)
        # The stand-in takes part in every collective call; with all of it masked it adds no gradient.
        if mine.idle:
            batch = batch.masked(torch.zeros_like(batch.mask))
        packs = self._pack(batch.segments, whole_sequences=loss.whole_sequences)
        moved = UpdateStep(
            accelerator=self.accelerator,
            policy=self._policy,
            critic=self._critic if fit_critic else None,
            critic_loss=self._critic_loss,
            autocast=self._autocast,
            step=self.step,
            averages=averages,
            tap=None if mine.idle else tap,
            stand_in=mine.idle,
        ).run(packs, batch.to(self.accelerator.device), loss)
        if not moved:
            return
        self.step += 1
        self.tokens_trained += num_tokens
        positions = sum(packed.input_ids.numel() for packed in packs)
        real = sum(packed.num_real_tokens for packed in packs)
        # What one row per turn would forward: the sharing ratio compares with it.
        naive = sum(len(segment.prompt_ids) + len(segment.action_ids) - 1 for segment in batch.segments)
        averages.add({"batch/padding_frac": (positions - real, positions), "batch/sharing_ratio": (naive, real)})

    def logprobs(self, batch: TokenBatch) -> Tensor:
        """Log-probs of the batch's tokens by the policy now. -> [N] float32 on the CPU."""
        return self._score(batch, lambda packed: self._policy.prepared(packed)[0])

    def reference_logprobs(self, batch: TokenBatch) -> Tensor:
        """The same by the frozen reference.

        Raises:
            ConfigError: the learner was made without one.
        """
        if self._reference == "adapter":
            with adapter_off(self.policy):
                return self.logprobs(batch)
        scorer = self._reference_scorer
        if scorer is None:
            raise ConfigError("this learner has no reference: make it with reference 'copy' or 'adapter'")
        return self.logprobs_by(scorer, batch)

    def logprobs_by(self, scorer: nn.Module, batch: TokenBatch) -> Tensor:
        """The same by another policy: a `TokenScorer` around it, whole on every rank."""
        return self._score(batch, lambda packed: scorer(packed)[0])

    def states_by(self, scorer: TokenScorer, batch: TokenBatch) -> Tensor:
        """[N, 1 + H] its log-prob of each token and the last hidden state before it; float32 on the CPU."""
        width = 1 + causal_lm(scorer.model).config.get_text_config().hidden_size

        def states(packed: PackedBatch) -> Tensor:
            logprobs, _, hidden = scorer(packed)
            return torch.cat([logprobs[:, None], hidden[packed.slots].to(logprobs.dtype)], dim=1)

        return self._score(batch, states, width=(width,))

    def values(self, batch: TokenBatch) -> Tensor:
        """The critic's value before each token. -> [N] float32 on the CPU.

        Raises:
            ConfigError: the learner was made without a critic.
        """
        critic = self._critic
        if critic is None:
            raise ConfigError("this learner has no critic: make it with CriticSettings")
        module = critic.module
        assert isinstance(module, TokenCritic)
        # A head reads the policy's hidden states, so the policy runs once more.
        if module.body is None:
            return self._score(batch, lambda packed: critic.prepared(packed, self._policy.prepared(packed)[2]))
        return self._score(batch, lambda packed: critic.prepared(packed, None))

    @torch.no_grad()
    def _score(
        self, batch: TokenBatch, per_token: Callable[[PackedBatch], Tensor], width: tuple[int, ...] = ()
    ) -> Tensor:
        mine = share(batch.segments, rank=self.ranks.index, count=self.ranks.count)
        part = batch.select_turns(mine.turns)
        scores = torch.zeros(len(part), *width)
        packs = self._pack(part.segments, whole_sequences=False)
        # All ranks run as often as the one with most to do: sharded layers are gathered in each forward pass.
        for index in range(max(self.ranks.gather(len(packs)))):
            packed = packs[index % len(packs)]
            with self._autocast():
                scores[packed.entries.cpu()] = per_token(packed).float().cpu()
        places, whole = batch.entries_of(mine.own), torch.zeros(len(batch), *width)
        # An idle rank has no places, so nothing of its stand-in gets in.
        for where, found in self.ranks.gather((places, scores[: len(places)])):
            whole[where] = found
        return whole

    def _pack(self, segments: Sequence[Segment], *, whole_sequences: bool) -> list[PackedBatch]:
        packs = pack(
            segments,
            token_budget=self._token_budget,
            layout=self._layout,
            costs=self._costs,
            whole_sequences=whole_sequences,
        )
        return [packed.to(self.accelerator.device) for packed in packs]

    def _autocast(self) -> AbstractContextManager[object]:
        # Nested autocast contexts of different types would change the result silently.
        if self._autocast_dtype is None or self._zero_stage:  # DeepSpeed's engines have theirs inside
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=self._autocast_dtype)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight of the policy under its transformers name, adapters merged (see `weights.full_weights`).

        All ranks must iterate to the end. A tensor is valid until the next one is asked for.
        """
        return full_weights(self.policy)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the full model, adapters merged, as transformers reads it. All ranks call; the first one writes."""
        main = self.accelerator.is_main_process
        # Every rank iterates, since ZeRO-3 gathers with all of them; the first alone keeps what it sees.
        state = {name: tensor.cpu().clone() for name, tensor in self.weights() if main}
        if main:
            causal_lm(self.policy).save_pretrained(folder, state_dict=state)
        self.accelerator.wait_for_everyone()

    def save_state(self, folder: Path) -> None:
        """Write what a resumed run needs: through accelerate where the state is sharded, else one file of our own.

        All ranks call with the same folder.
        """
        if self._zero_stage:
            self.accelerator.save_state(str(folder / "accelerate"))
        if self.ranks.first:
            # Stage and number of processes go with it: a sharded state fits no others.
            sharded = {"step": self.step, "zero_stage": self._zero_stage, "processes": self.ranks.count}
            torch.save(sharded if self._zero_stage else self.state_dict(), folder / _STATE)
        self.ranks.wait()

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote into a run folder of the user's own.

        Raises:
            ConfigError: saved under another ZeRO stage or, if sharded, by another number of processes.
        """
        # weights_only: a checkpoint is data, and no code in it is run.
        state = torch.load(folder / _STATE, map_location=self.accelerator.device, weights_only=True)
        check_checkpoint(state, zero_stage=self._zero_stage, processes=self.ranks.count, where=folder)
        if self._zero_stage:
            self.accelerator.load_state(str(folder / "accelerate"))
            self.step = int(state["step"])
        else:
            self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of an unsharded learner: trained weights, optimisers, and the step counter.

        The learning rate is a function of the step; frozen weights come from the model that the learner was made with.
        """
        state: dict[str, Any] = {"step": self.step, "policy": self._policy.state_dict()}
        return state | ({"critic": self._critic.state_dict()} if self._critic else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`, bit for bit on the same machine.

        Raises:
            ValueError: saved with another set of trained parameters, or with a critic where there is none.
        """
        if ("critic" in state) != (self._critic is not None):
            raise ValueError("the checkpoint and this learner differ in whether they have a critic")
        self.step = int(state["step"])
        self._policy.load_state_dict(state["policy"])
        if self._critic:
            self._critic.load_state_dict(state["critic"])
