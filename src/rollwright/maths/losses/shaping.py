"""DAPO's two rules about rollouts: a soft penalty on overlong answers, and which groups can teach anything."""

from __future__ import annotations

from torch import Tensor


def overlong_penalty(
    lengths: Tensor, *, max_length: int, buffer: int, factor: float = 1.0, saturate: bool = True
) -> Tensor:
    """A penalty that falls linearly from 0 to -factor over the last `buffer` tokens before `max_length`. [S] -> [S].

    Args:
        lengths: [S] number of action tokens.
        max_length: length at which the full penalty is reached.
        buffer: width of the ramp, in tokens.
        factor: depth of the ramp, in reward units.
        saturate: True stays at -factor beyond `max_length`; False goes on falling.

    Raises:
        ValueError: the buffer is not in 1..max_length, or the factor is negative.

    Sources: arXiv:2503.14476 section 3.4.
    """
    if not 0 < buffer <= max_length or factor < 0:
        raise ValueError(f"need 0 < buffer <= max_length and factor >= 0, got {buffer}, {max_length}, {factor}")
    # Below the ramp the excess is negative; without the clamp a short answer would earn a bonus.
    excess = ((lengths - (max_length - buffer)).float() / buffer).clamp(min=0.0)
    return -factor * (excess.clamp(max=1.0) if saturate else excess)
