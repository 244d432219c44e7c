"""`rollwright check-env`: whether a world keeps the environment contract."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

from rollwright.cli.argument_types import key_values, one_or_more, positive_seconds
from rollwright.contracts import ConfigError


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright check-env`."""
    parser.add_argument("name", metavar="NAME", help="a world such as text.maze, or package.module:Attribute")
    parser.add_argument("options", metavar="KEY=VALUE", nargs="*", help="options of the world; values as JSON or text")
    parser.add_argument(
        "--actions",
        metavar="TEXT|FILE",
        action="append",
        help="a well-formed action, to be played in turn; may be given again; a file holds one on each line",
    )
    parser.add_argument("--tasks", metavar="N", type=one_or_more, default=2, help="tasks tried per split (2)")
    parser.add_argument("--seeds", metavar="N", type=one_or_more, default=3, help="episodes per task (3)")
    parser.add_argument("--max-steps", metavar="N", type=one_or_more, default=30, help="actions per episode (30)")
    parser.add_argument(
        "--call-s", metavar="S", type=positive_seconds, default=60.0, help="longest single call, seconds (60)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Play the world and print that it keeps the contract.

    Raises:
        ContractViolation: it does not. ConfigError: an option is wrong, or no well-formed action was played.
    """
    from rollwright.checks import check_env
    from rollwright.config import create, require

    actions = _actions(arguments.actions)
    options = key_values(arguments.options)
    require("envs", arguments.name, options)  # their types too, which the world itself may trust
    world = create("envs", arguments.name, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it would warn of is an error below
        played = check_env(
            world,
            tasks_per_split=arguments.tasks,
            seeds=arguments.seeds,
            max_steps=arguments.max_steps,
            actions=actions,
            call_s=arguments.call_s,
        )
    # An episode of malformed actions alone proves little, so no breach is not enough.
    if not played.well_formed:
        raise ConfigError(f"{arguments.name}: no breach was found, but {played}: name some with --actions TEXT or FILE")
    print(f"{arguments.name} keeps the environment contract ({played})")


def _actions(given: Sequence[str] | None) -> list[str] | None:
    """Actions as they are given; one that is a file stands for its lines."""
    if given is None:
        return None
    found: list[str] = []
    for text in given:
        # An action may be any text, and `is_file` raises where it is longer than a name can be.
        is_file = len(text) < 4096 and "\n" not in text and "\0" not in text and Path(text).is_file()
        lines = Path(text).read_text(encoding="utf-8", errors="replace").splitlines() if is_file else [text]
        if is_file and not any(line.strip() for line in lines):
            raise ConfigError(f"--actions {text}: the file holds no action; expected one on each line")
        found += [line for line in lines if line.strip()] if is_file else lines
    return found
