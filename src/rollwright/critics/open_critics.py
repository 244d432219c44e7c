"""From a recipe's settings to its critics: whole turns and tokens, packed and computed as the policy's learner does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rollwright.config import build_part, is_own
from rollwright.critics.critic_settings import RegressedCriticFit, TokenCriticFit, TurnCriticFit
from rollwright.learner import CriticLoss, LearnerSettings
from rollwright.models import resolve_precision
from rollwright.run_io import RunSettings

if TYPE_CHECKING:
    from torch import Tensor

    from rollwright.critics.critic_body import CriticBody
    from rollwright.critics.critic_learner import TokenValues, TurnValues
    from rollwright.critics.critic_targets import HeadLoss
    from rollwright.critics.token_q import TokenQSettings
    from rollwright.critics.value_beside import ValueBeside
    from rollwright.learner import Learner
    from rollwright.models import ChatCodec


class CriticRun(Protocol):
    """The sections of a run's configuration that a critic follows."""

    @property
    def run(self) -> RunSettings:
        """The seed of new weights, and the number of steps."""
        ...

    @property
    def learner(self) -> LearnerSettings:
        """How the policy's learner packs and computes."""
        ...


def open_turn_critic(
    config: CriticRun,
    learner: Learner,
    codec: ChatCodec,
    fit: TurnCriticFit,
    heads: Mapping[str, int],
    *,
    name: str,
    losses: Mapping[str, HeadLoss] | None = None,
    bias: float = 0.0,
    polyak: float | None = None,
    deeper: Sequence[int] = (),
) -> TurnValues:
    """A critic of whole turns, in the learner's precision; its body starts from the policy's, unless told otherwise.

    Args:
        heads: name -> how many.
        losses: name -> the loss of these heads; where left out the squared error, or what `fit.loss` names for it.
        bias: what all heads say at first.
        polyak: how far a slow copy follows at each step; None = no slow copy.
        deeper: widths of further hidden layers of the heads, after `fit.width`.
    """
    import torch

    from rollwright.critics.critic_body import cut_to
    from rollwright.critics.frozen_critic import FrozenValueLearner
    from rollwright.critics.turn_critic import TurnCriticSettings, ValueLearner
    from rollwright.learner import OptimiserSettings

    body = cut_to(_body_of(fit, learner, codec), fit.depth)
    # New heads are alike on every rank, and in every run of this seed whatever was drawn before.
    torch.manual_seed(config.run.seed)
    shape = TurnCriticSettings(heads=heads, width=fit.width, layer_norm=fit.layer_norm, bias=bias, deeper=tuple(deeper))
    kind = FrozenValueLearner if fit.frozen else ValueLearner
    return kind(
        learner.accelerator,
        body,
        shape,
        OptimiserSettings(learning_rate=fit.learning_rate, max_grad_norm=fit.max_grad_norm),
        losses=losses_of(fit, heads, losses or {}),
        polyak=polyak,
        **_packing_of(config, learner),
        name=name,
    )


def losses_of(fit: TurnCriticFit, heads: Iterable[str], losses: Mapping[str, HeadLoss]) -> dict[str, HeadLoss]:
    """Name -> the loss of every head. A loss of the user's own takes the place of the squared error, of no other.

    Raises:
        ConfigError: it cannot be made, or breaks its contract.
    """
    from rollwright.critics.critic_targets import squared_error

    found = {head: losses.get(head, squared_error) for head in heads}
    if not isinstance(fit, RegressedCriticFit) or not is_own(fit.loss):
        return found
    own: CriticLoss = build_part(fit, "loss")

    def regression(values: Tensor, targets: Tensor) -> Tensor:
        # Users write for [N]; heads of one name come as rows.
        flat = values.flatten()
        return own(flat, targets.flatten(), flat.detach()).view_as(values)

    # Compared by identity: a head with another loss of its own (an expectile) keeps it.
    return {head: regression if loss is squared_error else loss for head, loss in found.items()}


def _body_of(fit: TurnCriticFit, learner: Learner, codec: ChatCodec) -> CriticBody:
    from rollwright.critics.critic_body import other_body, policy_body
    from rollwright.models import load_model

    if fit.model:
        # The policy's tokenizer turns its ids back into words, which the other model's tokenizer reads.
        return other_body(fit.model, codec.tokenizer)
    # A frozen body is in no checkpoint, and the policy of a run that goes on is not the one that it began with.
    return policy_body(load_model(codec.tokenizer.name_or_path) if fit.frozen else learner.policy)


def open_vocabulary_critic(
    config: CriticRun, learner: Learner, settings: TokenQSettings, *, q_heads: int, polyak: float | None
) -> TokenValues:
    """A token-level Q over the vocabulary that reads with the policy's own layers, in the learner's precision."""
    import torch

    from rollwright.critics.critic_body import CriticBody
    from rollwright.critics.critic_learner import CriticLearner
    from rollwright.critics.vocabulary_critic import FrozenVocabularyLearner, VocabularyQSettings, vocabulary_q
    from rollwright.learner import OptimiserSettings

    torch.manual_seed(config.run.seed)
    shape = VocabularyQSettings(q_heads=q_heads, width=settings.width, bias=settings.bias)
    critic = vocabulary_q(learner.policy, shape, depth=settings.depth)
    # One optimiser step per update: the rate reaches 0 with the last step of the run.
    decay_steps = config.run.steps * settings.updates if settings.decay else 0
    optimiser = OptimiserSettings(learning_rate=settings.learning_rate, decay_steps=decay_steps)
    more = {"polyak": polyak, **_packing_of(config, learner)}
    if settings.frozen:
        # The policy of these methods never learns: a resumed run copies the same body.
        return FrozenVocabularyLearner(learner.accelerator, CriticBody(critic.body), critic.heads, optimiser, **more)
    return CriticLearner(learner.accelerator, critic, optimiser, **more)


def open_value_beside(config: CriticRun, learner: Learner, fit: TokenCriticFit, *, name: str) -> ValueBeside:
    """A token critic beside the learner's own, from the policy's layers, with an optimiser and a state of its own.

    name: area of its metrics, and of its file in a checkpoint.
    """
    import torch

    from rollwright.critics.critic_learner import CriticLearner
    from rollwright.critics.value_beside import ValueBeside, ValueModule
    from rollwright.learner import OptimiserSettings

    # Its head is drawn from torch's global generator: alike in every run of this seed, whatever was drawn before.
    torch.manual_seed(config.run.seed)
    critic = CriticLearner(
        learner.accelerator,
        ValueModule(learner.policy),
        OptimiserSettings(learning_rate=fit.learning_rate),
        **_packing_of(config, learner),
        name=name,
    )
    return ValueBeside(critic, build_part(fit, "loss"))


def _packing_of(config: CriticRun, learner: Learner) -> dict[str, Any]:
    """How a critic packs and computes: as the policy's learner does."""
    import torch

    bfloat16 = resolve_precision(config.learner.precision) == "bfloat16"
    return {
        "token_budget": config.learner.token_budget,
        # Found for the policy, whose layers the critic has; a body with another tokenizer is padded all the same.
        "layout": learner.checked.layout,
        "autocast_dtype": torch.bfloat16 if bfloat16 else None,
    }
