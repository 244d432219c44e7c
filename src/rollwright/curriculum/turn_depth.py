"""How deep into an episode a student may go, by training step: the temporal curriculum of multi-turn distillation."""

from __future__ import annotations


def turn_depth(step: int, *, first: int, every: int, most: int) -> int:
    """min(first + floor(step / every), most): the turns of an episode that are played at this training step.

    Raises:
        ValueError: first or every below 1, or most below first.

    Sources: arXiv:2604.24005 (TCOD), forward to backward (F2B): first 1, every 6, most 30.
    """
    if first < 1 or every < 1 or most < first:
        raise ValueError(f"expected 1 <= first <= most and every >= 1, got first={first}, every={every}, most={most}")
    return min(first + step // every, most)


def replayed_turns(step: int, *, length: int, every: int) -> int:
    """max(0, length - 1 - floor(step / every)): actions of a teacher's episode that are replayed without loss.

    Args:
        length: turns of the teacher's episode.

    Raises:
        ValueError: length or every below 1.

    Sources: arXiv:2604.24005 (TCOD), backward to forward (B2F): every 5.
    """
    if length < 1 or every < 1:
        raise ValueError(f"expected length >= 1 and every >= 1, got length={length}, every={every}")
    return max(0, length - 1 - step // every)
