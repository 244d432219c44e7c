"""A trained outcome model as the reward: did this episode complete its task, as far as can be read off it?

The verdict is a reward like any other and lies on the last turn; `Trajectory.success` stays the world's own, so that an
evaluation never counts a model's opinion as a success. Models come from recipes/outcome.py and recipes/reward_pairs.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

from rollwright.contracts import ConfigError, Group, Score

if TYPE_CHECKING:
    from rollwright.methods import OutcomeModel

Value = Literal["verdict", "score"]
Dtype = Literal["float32", "bfloat16", "float16"]


class OutcomeModelReward:
    """1.0 or 0.0 by the model's threshold, or the score itself; no score where the model cannot read the episode."""

    def __init__(self, model: OutcomeModel, *, value: Value, threshold: float | None, name: str) -> None:
        self.name = name
        # The model's own threshold belongs to its scale: a pair model's scores are no probabilities.
        self.threshold = model.card.threshold if threshold is None else threshold
        self._model = model
        self._value = value

    def score(self, group: Group) -> Sequence[Score]:
        """What the model says of each episode."""
        return [self._score(found) for found in self._model.scores(group.trajectories)]

    def _score(self, found: float | None) -> Score:
        # No 0: the episode may well have succeeded.
        if found is None:
            said = "the outcome model cannot judge this episode: no text, longer than its prompt, or no finite score"
            return Score(value=None, verifier=self.name, message=said)
        verdict = float(found >= self.threshold)  # WebRL: a tie is a success
        return Score(
            value=verdict if self._value == "verdict" else found,
            verifier=self.name,
            message=f"scored {found:.4f}, a success from {self.threshold:.4g} on",
        )


def build(
    *,
    path: str,
    value: Value = "verdict",
    threshold: float | None = None,
    name: str = "outcome_model",
    dtype: Dtype = "float32",
    device: str = "auto",
    token_budget: int = 8192,
) -> OutcomeModelReward:
    """The reward of a trained outcome model.

    Args:
        path: folder of the model (`<run>/verifier` or `<run>/pair_model`).
        value: "verdict" pays 1.0 or 0.0; "score" the probability of success (verifier) or the scalar (pair model).
        threshold: a score from here on is a success; None takes the model's own (0.5 for a verifier).
        name: of the part that it lays on the last turn, for a sum of several rewards.
        dtype: of the weights.
        device: "auto" is the GPU where there is one.
        token_budget: tokens of one forward pass, padding included.

    Raises:
        ConfigError: an option without meaning.
        FileNotFoundError: no such folder.
        DataError: no outcome model in it, or another tokenizer than it was trained with.
    """
    from rollwright.methods import OutcomeModel

    for key, given, known in (("value", value, get_args(Value)), ("dtype", dtype, get_args(Dtype))):
        if given not in known:
            raise ConfigError(f"outcome_model: {key} is {given!r}; expected one of {', '.join(known)}")
    if not _is_number(threshold if threshold is not None else 0.5) or not isinstance(token_budget, int):
        raise ConfigError(
            f"outcome_model: threshold is {threshold!r}, token_budget is {token_budget!r}; expected a finite number "
            "(or null for the model's own) and a whole number"
        )
    if not name or token_budget < 1:
        raise ConfigError(f"outcome_model needs a name and a token_budget of 1 or more, got {name!r}, {token_budget}")
    model = OutcomeModel.load(path, dtype=dtype, device=device, token_budget=token_budget)
    return OutcomeModelReward(model, value=value, threshold=threshold, name=name)


def _is_number(value: object) -> bool:
    # `True` is an int in Python.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
