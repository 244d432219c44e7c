"""Numbers beyond reason: what no machine, clock or generator takes, whatever the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

Limits = Mapping[str, tuple[float, str]]
"""Key of a section -> the largest value that makes sense, and why."""


class Limit(NamedTuple):
    """The largest value of a key, and what breaks beyond it."""

    most: float
    why: str


_BITS_32 = Limit(2**32 - 1, "a seed has 32 bits in the generators of numpy and of the engines")
_BITS_64 = Limit(2**63 - 1, "whole numbers have 64 bits in tensors and files")
_YEARS = Limit(1e9, "seconds beyond it, 31 years, end no wait and overflow the clocks")
_BY_ENDING = {"seed": _BITS_32, "_s": _YEARS, "_minutes": _YEARS}  # a key's unit is part of its name


def limit_of(name: str, annotation: Any, own: Limits) -> Limit | None:
    """What bounds a key from above besides its declared range: its section's own limit, its unit's, or its type's."""
    # A section knows its keys better than an ending does.
    if name in own:
        return Limit(*own[name])
    kinds = leaves(annotation)
    if not kinds & {int, float}:
        return None
    # By the ending, so that `tiny_seed` is bound as `seed` is.
    ending = next((limit for end, limit in _BY_ENDING.items() if name.endswith(end)), None)
    # A key that takes fractions too is a float in the end, which reaches further than 64 bits.
    return ending or (_BITS_64 if int in kinds and float not in kinds else None)


def leaves(annotation: Any) -> set[Any]:
    """The plain types within an annotation: {int, NoneType} of `int | None`, {float} of `list[float]`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return leaves(get_args(annotation)[0])
    if origin in (Union, UnionType, list, tuple, set, frozenset):
        return set().union(*(leaves(entry) for entry in get_args(annotation)))
    return {annotation}


def counts_truth(value: Any, annotation: Any) -> bool:
    """Whether a truth value, or a list with one in it, would pass for a number: Python counts True as 1."""
    kinds = leaves(annotation)
    # A key of `bool | int` takes both on purpose.
    if not kinds & {int, float} or bool in kinds:
        return False
    return any(isinstance(entry, bool) for entry in (value if isinstance(value, list | tuple) else [value]))
