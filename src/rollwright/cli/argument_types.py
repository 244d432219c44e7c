"""What words of a command line may be: numbers in their bounds, `key=value` options, stores and run folders."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollwright.contracts import ConfigError


def natural_number(text: str, least: int = 0) -> int:
    """A whole number of `least` or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    with suppress(ValueError):
        if (number := int(text)) >= least:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")


def one_or_more(text: str) -> int:
    """A whole number of 1 or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    return natural_number(text, least=1)


def finite_number(text: str) -> float:
    """A number that is neither NaN nor infinite.

    Raises:
        ArgumentTypeError: it is none.
    """
    with suppress(ValueError):
        # `float` takes the words nan and inf.
        if math.isfinite(number := float(text)):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")


def positive_seconds(text: str) -> float:
    """A time above 0, in seconds.

    Raises:
        ArgumentTypeError: it is none.
    """
    # `finite_number` has refused NaN and infinity, which would be no deadline.
    if (number := finite_number(text)) > 0:
        return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a time above 0 seconds")


def key_values(pairs: Sequence[str]) -> dict[str, Any]:
    """`size=3 name=x` -> {"size": 3, "name": "x"}: each value as JSON, or as text where it is none.

    Raises:
        ConfigError: a word has no `=`.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise ConfigError(f"{pair!r} is not an option: write key=value")
        try:
            # JSON, so that `size=3` is a number and `name=x` needs no quotes in a shell.
            found[key] = json.loads(value)
        # RecursionError: a text of thousands of brackets is still a text.
        except (ValueError, RecursionError):
            found[key] = value
    return found


def store_folder(path: Path) -> Path:
    """The store itself, or the one inside a run folder."""
    # A run folder keeps its store under this name, and a store a table under the same one: hence twice.
    inner = path / "trajectories"
    return inner if (inner / "trajectories").is_dir() else path
