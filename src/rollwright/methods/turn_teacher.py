"""A teacher's view of a batch of turns: its own prompts, its scores, and the proof that it stands where it should."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import torch
from torch import Tensor

from rollwright.batching import TokenBatch
from rollwright.contracts import ConfigError, Group, TemplateError
from rollwright.learner import FrozenTeacher, Learner, require_same_vocabulary, require_same_width
from rollwright.methods.script_scores import script_logprobs
from rollwright.methods.teachers import HintGiver, TeacherSettings
from rollwright.models import ChatCodec, load_policy
from rollwright.rollout import Collector, teacher_prompts

log = logging.getLogger(__name__)
ContextKind = Literal["append", "windowed"]
SAME = 1e-5
"""A teacher that is the student, with the student's prompts, gives every log-prob back to within this."""


class PromptMaking(TypedDict):
    """How the teacher's prompts are made: `context` as the student's, `longest` tokens of prompt and action."""

    context: ContextKind
    longest: int


class TurnTeacher:
    """Scores a batch of the student's turns by the teacher's own prompts; a part of checkpoints.

    Args:
        context: how the student's prompts are made.
        longest: tokens of prompt and action that a model can read here.
        top_k: of a loss over so many tokens; 0 = over the whole vocabulary, None = of the sampled token alone.

    Raises:
        ConfigError: another tokenizer, or a head that cannot be compared with the policy's.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        learner: Learner,
        collector: Collector,
        codec: ChatCodec,
        *,
        temperature: float,
        context: ContextKind,
        longest: int,
        top_k: int | None,
    ) -> None:
        self.settings, self.learner, self.codec = settings, learner, codec
        self.world = collector.world
        self.hints = HintGiver(settings, collector, codec)
        model = None
        if settings.teacher == "model":
            model, tokenizer = load_policy(settings.path, "float32")
            require_same_vocabulary(codec.tokenizer, tokenizer, name=settings.path)
        self.model = FrozenTeacher(learner, model, temperature=temperature)
        # A teacher of another size may have fewer positions than the student.
        positions = longest if model is None else int(model.config.get_text_config().max_position_embeddings)
        self._making = PromptMaking(context=context, longest=min(longest, positions))
        self.whole = top_k is not None
        if top_k is not None:
            require_same_width(learner, self.model, top_k=top_k or None)
        self._proven = False
        told = settings.hint if settings.hint_from == "text" else settings.hint_from != "none"
        if settings.teacher == "self" and not told:
            log.warning(
                "the teacher is the policy's own weights without a hint (distill.hint_from=%s): it says what the "
                "student says, and nothing is learned from it",
                settings.hint_from,
            )

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """[n, H] the teacher's states -> [n, V] logits at the policy's temperature."""
        return self.model.scorer.logits

    @property
    def version(self) -> float:
        """The optimiser step of the policy whose weights the teacher last took over."""
        return float(self.model.version)

    def taught(self, batch: TokenBatch, groups: Sequence[Group]) -> TokenBatch:
        """The batch with the teacher's log-probs (`logprobs_ref`) and states; tokens without a score are masked.

        Args:
            batch: of these groups, with `logprobs_old`.

        Raises:
            RollwrightError: at the first batch, a teacher that is the student does not agree with it.
        """
        if not self._proven:
            self._prove(batch)
        if self.settings.teacher == "script":
            scores, states = self._script(batch), None
        else:
            told = self.hints.hints(groups)
            prompts = prompts_of(batch, [told[name] for name in groups_of(batch)], self.codec, **self._making)
            states = self.model.states(batch, prompts) if self.whole else None
            scores = self.model.logprobs(batch, prompts) if states is None else states[:, 0]
        known = scores.isfinite()
        # What is unknown is masked, so the number in its place is never read; NaN would pass a product with 0.
        filled = batch.with_columns(
            logprobs_ref=torch.where(known, scores, 0.0),
            teacher_hidden=None if states is None else states[:, 1:].nan_to_num(0.0),
        )
        return filled.masked(batch.mask & known)

    def _prove(self, batch: TokenBatch) -> None:
        """Ask for the student's own prompts without a hint: the ids must be the same, and so must every log-prob."""
        prompts = prompts_of(batch, [""] * batch.num_sequences, self.codec, **self._making)
        odd = sum(p is not None and p != tuple(s.prompt_ids) for p, s in zip(prompts, batch.segments, strict=True))
        if odd or all(prompt is None for prompt in prompts):
            raise TemplateError(
                f"the teacher's prompts cannot be made from the recorded messages: without a hint, {odd} of "
                f"{len(prompts)} differ from the student's and {sum(p is None for p in prompts)} could not be made. "
                "Use rollout.context=windowed, and a chat template that gives equal messages equal ids"
            )
        if self.settings.teacher == "self" and self.model.is_the_policy:
            gap = (self.model.logprobs(batch, prompts) - batch.logprobs_old).abs()  # type: ignore[operator]
            if float(gap[gap.isfinite()].max()) >= SAME:
                raise ConfigError(
                    f"a teacher that is the student differs from it by {float(gap.nan_to_num(0.0).max()):.2g} nats at "
                    f"a token, with the same prompts (at most {SAME:g} is rounding): set learner.precision=float32, "
                    "and learner.layout=padded if that is not enough"
                )
        self._proven = True

    def _script(self, batch: TokenBatch) -> Tensor:
        vocabulary = len(self.codec.tokenizer)
        said = script_logprobs(
            self.world, batch.trajectories, self.codec, sureness=self.settings.sureness, vocabulary=vocabulary
        )
        owners = batch.trajectory_index.tolist()
        scores: list[float] = []
        for turn, owner in zip(batch.turns, owners, strict=True):
            episode = batch.trajectories[owner]
            place = next(index for index, known in enumerate(episode.turns) if known is turn)
            told = said[episode.id][place]
            scores += [x for x, chosen in zip(told, turn.policy_mask, strict=True) if chosen]
        return torch.tensor(scores)

    def follow(self, step: int) -> None:
        """After the update of a step: a live teacher takes the policy's weights over, an average moves towards them."""
        settings = self.settings
        if settings.teacher != "self" or settings.weights == "base" or (step + 1) % settings.refresh_every:
            return
        self.model.follow(1.0 if settings.weights == "live" else settings.rate)

    def save_state(self, folder: Path) -> None:
        """Write the teacher's weights into a checkpoint, where they are the run's own."""
        self.model.save_state(folder)

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote."""
        self.model.load_state(folder)


def groups_of(batch: TokenBatch) -> list[str]:
    """[S] the id of the group of each trajectory."""
    return [batch.group_ids[place] for place in batch.group_index.tolist()]


def prompts_of(
    batch: TokenBatch,
    hints: Sequence[str | None],
    codec: ChatCodec,
    *,
    context: ContextKind,
    longest: int,
) -> list[tuple[int, ...] | None]:
    """[U] the teacher's prompt of every turn of a batch of groups; None where it can have none.

    Args:
        hints: [S] one per trajectory of the batch.
    """
    found: list[tuple[int, ...] | None] = []
    owners = batch.trajectory_index.tolist()
    for turn, owner in zip(batch.turns, owners, strict=True):
        hint, episode = hints[owner], batch.trajectories[owner]
        if hint is None:
            found.append(None)
        else:
            found += teacher_prompts(episode, [turn], hint, codec, context=context, longest=longest)
    return found
