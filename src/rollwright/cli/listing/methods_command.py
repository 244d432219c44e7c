"""`rollwright methods`: every method, its paper, its recipe and what it learns from."""

from __future__ import annotations

import argparse


def add(parser: argparse.ArgumentParser) -> None:
    """`rollwright methods` takes no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    from rollwright.cli.listing.tables import format_columns, method_catalogue

    rows = [
        (
            entry["name"],
            f"train {entry['recipe']}" + (f" algorithm.preset={entry['preset']}" if "preset" in entry else ""),
            entry["data"],
            entry["needs"],
            entry["papers"],
        )
        for entry in method_catalogue()
    ]
    print(format_columns(("method", "rollwright ...", "learns from", "needs", "paper"), rows))
    print("\nfor example: rollwright train sft text/maze_sft, then rollwright train grpo text/maze_grpo")
