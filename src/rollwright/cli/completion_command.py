"""`rollwright completion`: what the Tab key knows of commands, options, recipes, settings and worlds.

The script that a shell reads asks this command again at each Tab, with the words so far in `ROLLWRIGHT_COMPLETE`, one
in a line and the unfinished one last. So it never grows old.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from rollwright.cli.launching.recipe_names import launch_names, recipe_names, yaml_names

_WORDS = "ROLLWRIGHT_COMPLETE"
_TAKE_SETTINGS = ("train", "plan", "evaluate", "collect")
_TAKE_A_WORLD = ("audit", "check-env", "worlds")
_SCRIPTS = {
    "bash": """_rollwright() {
  local IFS=$'\\n'
  local words="${COMP_WORDS[*]:1:COMP_CWORD}"
  COMPREPLY=($(compgen -W "$(ROLLWRIGHT_COMPLETE="$words" rollwright completion bash)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _rollwright rollwright""",
    "zsh": """#compdef rollwright
_rollwright() {
  local -a found
  found=("${(@f)$(ROLLWRIGHT_COMPLETE="${(F)words[2,CURRENT]}" rollwright completion zsh)}")
  compadd -a found
  _files
}
compdef _rollwright rollwright""",
    "fish": """function __rollwright
  set -l before (commandline -opc)
  set -lx ROLLWRIGHT_COMPLETE (string join \\n $before[2..] (commandline -ct | string collect --allow-empty))
  rollwright completion fish
end
complete -c rollwright -a '(__rollwright)'""",
}
_HOW = {
    "bash": 'put this into ~/.bashrc: eval "$(rollwright completion bash)"',
    "zsh": 'put this into ~/.zshrc, below compinit: eval "$(rollwright completion zsh)"',
    "fish": "put this into ~/.config/fish/config.fish: rollwright completion fish | source",
}


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright completion`."""
    parser.add_argument("shell", choices=tuple(_SCRIPTS), help="; ".join(_HOW.values()))


def run(arguments: argparse.Namespace) -> None:
    """Print the script of a shell, or the answers to one Tab of it."""
    # As arguments, the unfinished words could be taken for options of this command.
    if _WORDS in os.environ:
        print("\n".join(answers(os.environ[_WORDS].split("\n"))))
        return
    print(f"# {_HOW[arguments.shell]}\n{_SCRIPTS[arguments.shell]}")


def answers(words: Sequence[str]) -> list[str]:
    """What can stand in place of the last word, which is unfinished and may be empty; the shell adds its own files.

    Args:
        words: those after `rollwright`.
    """
    from rollwright.cli.commands import COMMANDS

    *before, current = words
    if not before:
        return [name for name in COMMANDS if name.startswith(current)]
    # Nothing to say at a Tab is no error: the shell shows the names of files.
    if before[0] not in COMMANDS:
        return []
    return [name for name in _candidates(before, current) if name.startswith(current)]


def _candidates(before: Sequence[str], current: str) -> list[str]:
    command, last = before[0], before[-1]
    options = _options_of(command)
    if last in options and options[last].nargs != 0:  # an option that waits for its value
        return launch_names() if last == "--config-file" else list(map(str, options[last].choices or ()))
    if current.startswith("-"):
        return sorted(options)
    if command in ("train", "plan") and not any(word in recipe_names() for word in before[1:]):
        return recipe_names()
    if command in _TAKE_SETTINGS:
        return yaml_names()
    if command in _TAKE_A_WORLD:
        from rollwright.cli.listing.tables import world_catalogue

        return list(world_catalogue())
    return list(_SCRIPTS) if command == "completion" else []


def _options_of(command: str) -> dict[str, argparse.Action]:
    """Option -> what it takes."""
    from rollwright.cli.commands import parser_of

    # argparse has no public list of the options of a parser.
    return {option: action for action in parser_of(command)._actions for option in action.option_strings}
