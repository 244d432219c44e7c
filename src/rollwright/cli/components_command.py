"""`rollwright components`: every part that a configuration can name."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """`rollwright components` takes no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the names, kind by kind."""
    from rollwright.config import available, engine_note
    from rollwright.generation import ENGINES

    for heading, names in (("worlds", available("envs")), ("rewards", available("rewards"))):
        print(f"{heading}:", *(f"  {name}" for name in names), sep="\n")
    print("engines:")
    for name in ENGINES.ours:
        note = engine_note(name)
        print(f"  {name}" + (f" ({note})" if note else ""))
