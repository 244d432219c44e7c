"""The `rollwright` command: train language agents, judge them, look at what runs leave behind, and prove worlds."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from rollwright.contracts import RollwrightError

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "start": {
        "init": ("scaffold.init_command", "Write a folder with a world, a reward, settings and a test of your own."),
    },
    "train": {
        "train": ("launching.train_command", "Run a recipe: SFT, GRPO, PPO, DigiRL and the others, on any world."),
        "plan": ("launching.train_command", "Print what a run would do: its settings, batches and memory."),
        "collect": ("launching.train_command", "Fill a store with episodes, for methods that learn from stored ones."),
    },
    "judge": {
        "evaluate": ("launching.train_command", "Judge a policy on held-out tasks: success with intervals."),
        "compare": ("compare_command", "Which run or method is better: intervals, tests, costs and a verdict."),
    },
    "look at runs": {
        "view": ("view_command", "Serve a local web page over run folders, live while they run."),
        "report": ("report_command", "Write report.html of a run folder: curves, evaluations, replays."),
        "runs": ("runs_command", "A table of runs: filter, sort, group over seeds, plot, export."),
        "doctor": ("doctor_command", "Say what is wrong with a run, with evidence, and what to try."),
        "show": ("stores.show_command", "Print stored episodes turn by turn."),
    },
    "data": {
        "import": ("stores.import_command", "Import logs or tasks of others; says what is left out, and why."),
        "export": ("stores.export_command", "Write a store's episodes as OpenAI messages."),
        "score": ("stores.score_command", "Score stored episodes again with any reward, into a new store."),
        "upgrade": ("stores.upgrade_command", "Bring a store of an older version to the present one, in its place."),
    },
    "worlds and parts": {
        "audit": ("audit_command", "Put a world and its verifier on trial: does the reward mean success?"),
        "check-env": ("check_env_command", "Prove that a world keeps the environment contract."),
        "components": ("listing.components_command", "List every part that a configuration can name."),
        "methods": ("listing.methods_command", "List the methods: paper, recipe, what each learns from and needs."),
        "rules": ("rules_command", "Say what temporal rules mean in a world, and which of them mean the same."),
        "worlds": ("listing.worlds_command", "List the worlds: what is done there, what each needs."),
    },
    "this program": {
        "completion": ("completion_command", "Print the completion script of your shell: bash, zsh or fish."),
        "version": ("version_command", "Print the version."),
    },
}
"""Heading -> command -> (module in this folder, one-line help). A module is imported only when its command is named."""

COMMANDS = {name: entry for commands in GROUPS.values() for name, entry in commands.items()}
# 130 is 128 + SIGINT, as shells count.
USER_ERROR, INTERRUPTED = 2, 130
# Not taken from `config`, which loads pydantic: the overview and completion should come at once.
DEBUG = "ROLLWRIGHT_DEBUG"
_VERBOSE = ("-v", "--verbose")


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one paragraph, with the nearest name for a misspelt option."""

    def error(self, message: str) -> NoReturn:
        """Print one paragraph on standard error and leave with exit code 2."""
        self.exit(USER_ERROR, f"{self.prog}: {message}. See `{self.prog} --help`.\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse these words; a word that is left over is an error."""
        # Intermixed: `compare a --json b` would leave `b` over otherwise, as argparse fills `nargs="+"` once.
        found, left = self.parse_known_intermixed_args(None if args is None else self._joined(args), namespace)
        if left:
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(left[0].partition("=")[0], known, n=1)
            self.error(f"unknown argument {left[0]!r}" + (f", did you mean {near[0]}" if near else ""))
        return found

    def _joined(self, words: Sequence[str]) -> list[str]:
        """`--sort -success` as `--sort=-success`: argparse takes a value that begins with a minus for an option."""
        options = {name: action for action in self._actions for name in action.option_strings}
        found: list[str] = []
        for word in words:
            option = options.get(found[-1]) if found else None
            is_value = word[:1] == "-" and word[:2] != "--" and word not in options
            # Only after an option that takes exactly one value.
            if option is not None and option.nargs is None and is_value:
                found[-1] += f"={word}"
            else:
                found.append(word)
        return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; -> the exit status.

    0, or 2 where the user has to change something, 1 where something broke under way, 130 after Ctrl-C.

    Raises:
        SystemExit: after `--help`, or where the words themselves are wrong (code 2).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = os.environ.get(DEBUG, "") not in ("", "0")
    # In front of the command, where no parser of a command sees it.
    while words and words[0] in _VERBOSE:
        verbose = bool(words.pop(0))
    if not words or words[0] in ("-h", "--help", "help"):
        with _until_the_reader_leaves():
            print(overview(), flush=True)
        # Asked for, the overview is an answer; without a word it says what is missing.
        return 0 if words else USER_ERROR
    name = "version" if words[0] == "--version" else words[0]
    if name not in COMMANDS:
        print(f"rollwright: {_no_such_command(name)}", file=sys.stderr)
        return USER_ERROR
    arguments = parser_of(name).parse_args(words[1:])
    return _run(command_module(name), arguments, verbose or arguments.verbose)


def command_module(name: str) -> Any:
    """The module of a command: `add(parser)` declares its options, `run(arguments)` does it."""
    # By name, so that one command does not pay for the imports of all others.
    return importlib.import_module(f"rollwright.cli.{COMMANDS[name][0]}")


def overview() -> str:
    """What `rollwright --help` prints; no module of a command is imported for it."""
    lines = ["usage: rollwright COMMAND ...", "", (__doc__ or "").strip(), ""]
    for heading, commands in GROUPS.items():
        lines += [f"{heading}:", *(f"  {name:<12}{text}" for name, (_, text) in commands.items()), ""]
    return "\n".join([*lines, "`rollwright COMMAND --help` explains one. -v shows the traceback of an error."])


def parser_of(name: str) -> CommandParser:
    """The parser of one command, with what all commands have."""
    # Abbreviated options would change their meaning with each new one. `resolve` lets a command declare a --help of
    # its own, as `train` does.
    parser = CommandParser(
        prog=f"rollwright {name}", description=COMMANDS[name][1], allow_abbrev=False, conflict_handler="resolve"
    )
    parser.add_argument(*_VERBOSE, action="store_true", help="show the traceback of an error")
    parser.set_defaults(command=name)
    command_module(name).add(parser)
    return parser


def _run(module: Any, arguments: argparse.Namespace, verbose: bool) -> int:
    try:
        with _until_the_reader_leaves():
            # What is not caught below is a mistake in code, and shows its traceback.
            module.run(arguments)
    except RollwrightError as error:
        # Only at an error: `config` loads pydantic, and commands without settings do without.
        from rollwright.config import redact

        return _say(redact(str(error)), error.exit_code, verbose)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED, verbose)
    except OSError as error:  # a path that cannot be: too long, a folder in place of a file, not to be read
        return _say(f"{str(error.filename or '')[:200]}: {error.strerror or error}", USER_ERROR, verbose)
    return 0


@contextlib.contextmanager
def _until_the_reader_leaves() -> Iterator[None]:
    """A reader such as `head` may close the pipe early: this is no error, and nothing complains at exit."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes standard output once more at exit, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str, code: int, verbose: bool) -> int:
    if verbose:
        # The traceback comes first, so that the paragraph ends what stands in the terminal.
        traceback.print_exc()
    print(f"rollwright: {message}", file=sys.stderr)
    return code


def _no_such_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" Did you mean `rollwright {near[0]}`?" if near else ""
    return f"there is no command {name!r}.{hint} The commands are {', '.join(COMMANDS)}."
