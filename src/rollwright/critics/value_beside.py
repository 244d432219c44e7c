"""A second value function beside the learner's own critic: of what a guide earns, where a guide ends the episodes.

It is a transformer of its own that begins as a copy of the policy's, like the learner's critic (`TokenCritic`), with an
optimiser of its own. Both live through a whole run, whichever of them a step trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from rollwright.batching import PackedBatch, TokenBatch
from rollwright.critics.critic_learner import TokenValues
from rollwright.critics.critic_targets import Columns
from rollwright.learner import CriticLoss, TokenCritic

_HEAD = "value"


class ValueModule(nn.Module):
    """`TokenCritic` as a `CriticLearner` takes it: a packed micro-batch -> its values by name."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.critic = TokenCritic(policy, kind="model")

    def forward(self, packed: PackedBatch) -> dict[str, Tensor]:
        """name -> [1, N]."""
        return {_HEAD: self.critic(packed, None)[None]}


class ValueBeside:
    """Values of action tokens by a critic that the learner does not own.

    Args:
        critic: of a `ValueModule`.
        loss: of its values against the returns.
    """

    def __init__(self, critic: TokenValues, loss: CriticLoss) -> None:
        self.critic, self.loss = critic, loss

    def values(self, batch: TokenBatch) -> Tensor:
        """[N] float32, read one position before each token."""
        return self.critic.read_tokens(batch.segments)[_HEAD][0]

    def fit(self, batch: TokenBatch, turns: Sequence[int], *, updates: int) -> dict[str, float]:
        """Regress the values of these turns' tokens on their returns; metrics of the last of so many steps.

        Args:
            batch: with `returns`, and with the values before the first step in `values`.

        Raises:
            ValueError: returns or values are not known, or there is no turn.
        """
        if batch.returns is None or batch.values is None or not len(turns):
            raise ValueError("a value function is fitted to turns with `returns` and `values`: some are missing")
        part = batch.select_turns(turns)
        assert part.returns is not None and part.values is not None
        columns = {"returns": part.returns, "values": part.values}
        metrics: dict[str, float] = {}
        for _ in range(updates):
            metrics = self.critic.update_tokens(part.segments, columns, self._losses)
        return metrics

    def _losses(self, values: Mapping[str, Tensor], columns: Columns) -> Tensor:
        return self.loss(values[_HEAD][0], columns["returns"], columns["values"])
