"""`rollwright train`, `plan`, `evaluate` and `collect`: a recipe by its name, started through `accelerate launch`."""

from __future__ import annotations

import argparse
import difflib
import sys

from rollwright.cli.argument_types import one_or_more
from rollwright.cli.launching.recipe_launch import (
    default_launch,
    launch_recipe,
    launch_words,
    run_alone,
    share_cores,
    shown_line,
)
from rollwright.cli.launching.recipe_names import launch_path, recipe_names, recipe_path, settings_word
from rollwright.contracts import ConfigError

# Commands that are recipes of the same name.
_OWN_RECIPE = ("evaluate", "collect")
_PASSED_ON = ("--plan", "--check")


def add(parser: argparse.ArgumentParser) -> None:
    """The options of these commands; all other words are the recipe's."""
    if parser.get_default("command") not in _OWN_RECIPE:
        # Optional to argparse, as `rollwright train --help` names none; `_named` asks for it.
        parser.add_argument("recipe", metavar="RECIPE", nargs="?", help=f"{', '.join(recipe_names())}; or a path")
    parser.add_argument(
        "words",
        metavar="YAML|KEY=VALUE",
        nargs="*",
        help="settings: a YAML file by its path or its shipped name (text/maze_grpo), key=value, ~key; later words win",
    )
    parser.add_argument("--plan", action="store_true", help="print the resolved settings and end; no weight is loaded")
    parser.add_argument("--check", action="store_true", help="load the models and compare engine and learner first")
    parser.add_argument(
        "--config-file",
        metavar="NAME|PATH",
        help="the accelerate configuration (this machine's: single_gpu with a GPU, cpu without one)",
    )
    parser.add_argument("--processes", metavar="N", type=one_or_more, help="processes of the learner (1)")
    # After a recipe's name, --help is about the recipe: its keys, their types and their meaning.
    parser.add_argument(
        "-h", "--help", action="store_true", help="this text; after a recipe's name, all keys of the recipe"
    )
    # `run` prints the help itself where no recipe is named.
    parser.set_defaults(parser=parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe; the exit code is the recipe's own.

    Raises:
        ConfigError: there is no such recipe, YAML file or launch configuration.
        SystemExit: with the code of a recipe that failed.
    """
    name = arguments.command if arguments.command in _OWN_RECIPE else arguments.recipe
    if arguments.help and (name is None or (name == arguments.command and not arguments.words)):
        print(arguments.parser.format_help(), end="")
        return
    code = start_recipe(
        _named(name, arguments.command),
        arguments.words,
        options=[
            *(option for option in _PASSED_ON if getattr(arguments, option[2:])),
            # `rollwright plan --plan` must not pass it twice.
            *(["--plan"] if arguments.command == "plan" and not arguments.plan else []),
            *(["--help"] if arguments.help else []),
            *(["-v"] if arguments.verbose else []),
        ],
        config_file=arguments.config_file,
        processes=arguments.processes,
    )
    if code:
        raise SystemExit(code)


def start_recipe(
    recipe: str, words: list[str], *, options: list[str], config_file: str | None, processes: int | None
) -> int:
    """Run a recipe by name, through the launcher where it computes; -> its exit code.

    Args:
        options: words with dashes that the recipe takes, such as `--plan`.
        config_file: name or path of a launch configuration; None = the one for this machine.

    Raises:
        ConfigError: there is no such recipe, YAML file or launch configuration.
    """
    script = recipe_path(recipe)
    taken = [*map(settings_word, words), *options]
    # With --check even a plan loads the models, for which it needs the launcher.
    if "--help" in options or ("--plan" in options and "--check" not in options):
        return run_alone(script, taken)
    from rollwright.config import has_gpu

    config = launch_path(config_file or default_launch(gpu=has_gpu(), processes=processes or 1))
    line = launch_words(script, taken, config=config, processes=processes)
    # Before the launch: the processes inherit the variable.
    share_cores(config, processes)
    # Flushed, so that it stands above what the child processes write.
    print(shown_line(line), file=sys.stderr, flush=True)
    return launch_recipe(line, verbose="-v" in options)


def _named(name: str | None, command: str) -> str:
    if name is None:
        raise ConfigError(
            f"name a recipe: {', '.join(recipe_names())}. For example: rollwright {command} grpo text/maze_grpo"
        )
    if "/" in name and not name.endswith(".py"):
        # Shipped files end in the name of their recipe, as `text/maze_grpo`.
        last = difflib.get_close_matches(name.rpartition("/")[2].rpartition("_")[2], recipe_names(), n=1)
        raise ConfigError(
            f"`{name}` is a file of settings, and the recipe comes first: rollwright {command} "
            f"{last[0] if last else 'RECIPE'} {name}. The recipes are {', '.join(recipe_names())}."
        )
    return name
