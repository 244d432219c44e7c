"""`rollwright score`: stored episodes under another reward."""

from __future__ import annotations

import argparse
from pathlib import Path

from rollwright.cli.argument_types import finite_number, key_values, store_folder
from rollwright.contracts import ConfigError, DataError


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright score`."""
    parser.add_argument("store", metavar="STORE", type=Path, help="a trajectory store or a run folder")
    parser.add_argument("--into", metavar="FOLDER", type=Path, required=True, help="folder of the new store")
    parser.add_argument(
        "--reward",
        metavar=("NAME", "KEY=VALUE"),
        nargs="+",
        required=True,
        help="such as outcome_model path=runs/outcome/verifier; values as JSON or text",
    )
    parser.add_argument("--verdict", metavar="T", type=finite_number, help="call T or more a success, the rest not")
    parser.add_argument("--keep", metavar="T", type=finite_number, help="keep only what scores T or more")
    parser.add_argument("--parallel", metavar="N", type=int, default=1, help="groups scored at once, for a judge (1)")


def run(arguments: argparse.Namespace) -> None:
    """Score every episode into a new store and print the counts.

    Raises:
        ConfigError, DataError: an option or a folder is wrong.
    """
    from rollwright.run_io import Progress
    from rollwright.store import TrajectoryStore, score_store
    from rollwright.training import RewardSettings, open_reward

    if arguments.parallel < 1:
        raise ConfigError(f"--parallel is {arguments.parallel}; it counts groups scored at once, 1 or more")
    # A run writes config.yaml before its store, so it is looked for as well.
    if store_folder(arguments.into) != arguments.into or (arguments.into / "config.yaml").exists():
        raise DataError(f"--into {arguments.into} is a run folder, which keeps a store of its own: name a new folder")
    source = TrajectoryStore(store_folder(arguments.store), mode="read")
    name, *options = arguments.reward
    reward = open_reward(RewardSettings(name=name, options=key_values(options)))
    # A judge asks a model for each group, which can take hours.
    with Progress("episodes scored", total=len(source)) as bar:
        found = score_store(
            source,
            TrajectoryStore(arguments.into),
            reward,
            verdict_from=arguments.verdict,
            keep_from=arguments.keep,
            parallel=arguments.parallel,
            progress=bar.advance,
        )
    print(f"{found}: {arguments.into}")
