"""`rollwright version`, also `rollwright --version`."""

from __future__ import annotations

import argparse

from rollwright import __version__


def add(parser: argparse.ArgumentParser) -> None:
    """`rollwright version` takes no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the version."""
    print(f"rollwright {__version__}")
