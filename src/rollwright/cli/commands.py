"""The `rollwright` command: look at what runs left behind, and check worlds. Recipes start the training."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollwright import __version__
from rollwright.cli.import_command import add_export, add_import, run_export, run_import
from rollwright.cli.upgrade_command import add_upgrade, run_upgrade
from rollwright.contracts import SPLITS, ConfigError, DataError, RollwrightError

if TYPE_CHECKING:
    from rollwright.evaluation import Evaluation

# Heavy modules are imported by the command that needs them: `rollwright --help` answers at once.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; -> the exit status: 0, 1 where something was wrong (on standard error), 130 after Ctrl-C."""
    arguments = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], None] = arguments.command
    try:
        command(arguments)
    except RollwrightError as error:
        from rollwright.config import redact

        print(f"rollwright: {redact(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader (`head`, `less`) has seen enough; a closed stdout must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("rollwright: interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # a path that cannot be: too long, a folder in place of a file, not to be read
        print(f"rollwright: {str(error.filename or '')[:200]}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="rollwright", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=run)
        return command

    _add_compare(add("compare", _compare, "Two evaluations: both tables and the paired difference with its verdict."))
    report = add("report", _report, "Write report.html of a run folder: curves, evaluations, replays.")
    report.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    report.add_argument("--replays", metavar="N", type=_count, default=24, help="episodes shown at most (24)")
    _add_show(add("show", _show, "Print stored episodes turn by turn."))
    add_import(
        add("import", run_import, "Logs or tasks of others into a store or a file; says what is left out, and why.")
    )
    add_export(add("export", run_export, "Write a store's episodes as OpenAI messages."))
    add_upgrade(add("upgrade", run_upgrade, "Bring a store of an older version to the present one, in its place."))
    _add_score(add("score", _score, "Score stored episodes again by any reward, into a new store."))
    add("components", _components, "List the worlds, rewards and engines that a configuration can name.")
    _add_check_env(add("check-env", _check_env, "Prove that a world keeps the environment contract."))
    add("version", _version, "Print the version.")
    return parser


def _add_compare(parser: argparse.ArgumentParser) -> None:
    for name, which in (("a", "the baseline"), ("b", "the one judged against it")):
        parser.add_argument(name, metavar=name.upper(), type=Path, help=f"{which}: a run folder or an eval JSON")
    parser.add_argument(
        "--eval", metavar="NAME", help="which eval/<NAME>.json of a run folder (final, else the latest)"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="of the interval (0.95)")
    parser.add_argument(
        "--fixed-tasks",
        action="store_true",
        help="speak about exactly these tasks; otherwise about tasks like these, which is the wider interval",
    )


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", type=Path, help="a trajectory store or a run folder")
    parser.add_argument("--task", help="only this task")
    parser.add_argument("--tag", help="only trajectories stored under this tag")
    parser.add_argument("--split", choices=SPLITS, help="only tasks of this split")
    parser.add_argument("--origin", choices=("policy", "scripted", "human", "teacher", "log"), help="only from there")
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument("--solved", action="store_true", help="only successes")
    outcome.add_argument("--unsolved", action="store_true", help="only the others, faults included")
    parser.add_argument("--limit", metavar="N", type=_count, default=10, help="episodes printed at most (10)")
    parser.add_argument("--brief", action="store_true", help="one line per episode")


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", type=Path, help="a trajectory store or a run folder")
    parser.add_argument("--into", metavar="FOLDER", type=Path, required=True, help="folder of the new store")
    parser.add_argument(
        "--reward",
        metavar=("NAME", "KEY=VALUE"),
        nargs="+",
        required=True,
        help="such as outcome_model path=runs/outcome/verifier; values as JSON or text",
    )
    parser.add_argument("--verdict", metavar="T", type=_finite, help="call T or more a success, the rest not")
    parser.add_argument("--keep", metavar="T", type=_finite, help="keep only what scores T or more")
    parser.add_argument("--parallel", metavar="N", type=int, default=1, help="groups scored at once, for a judge (1)")


def _add_check_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a world such as text.maze, or package.module:Attribute")
    parser.add_argument("options", metavar="KEY=VALUE", nargs="*", help="options of the world; values as JSON or text")
    parser.add_argument(
        "--actions",
        metavar="TEXT|FILE",
        action="append",
        help="a well-formed action, to be played in turn; may be given again; a file holds one on each line",
    )
    parser.add_argument("--tasks", metavar="N", type=_one_or_more, default=2, help="tasks tried per split (2)")
    parser.add_argument("--seeds", metavar="N", type=_one_or_more, default=3, help="episodes per task (3)")
    parser.add_argument("--max-steps", metavar="N", type=_one_or_more, default=30, help="actions per episode (30)")
    parser.add_argument("--call-s", metavar="S", type=_seconds, default=60.0, help="longest single call, seconds (60)")


def _count(text: str, least: int = 0) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= least:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {least} or more")


def _one_or_more(text: str) -> int:
    return _count(text, least=1)


def _finite(text: str) -> float:
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no finite number")


def _seconds(text: str) -> float:
    if (number := _finite(text)) > 0:
        return number
    raise argparse.ArgumentTypeError(f"{text!r} is no time above 0 seconds")


def _compare(arguments: argparse.Namespace) -> None:
    from rollwright.evaluation import compare, format_comparison, format_table

    if not 0 < arguments.confidence < 1:
        raise ConfigError(f"--confidence is {arguments.confidence}; it lies between 0 and 1, such as 0.95")
    a, b = _find_evaluation(arguments.a, arguments.eval), _find_evaluation(arguments.b, arguments.eval)
    name_a, name_b = _labels(arguments.a, a, arguments.b, b)
    print(format_table(a, title=name_a), end="\n\n")
    print(format_table(b, title=name_b), end="\n\n")
    fixed = True if arguments.fixed_tasks else None
    found = compare(a, b, name_a=name_a, name_b=name_b, fixed_tasks=fixed, confidence=arguments.confidence)
    print(format_comparison(found))


def _find_evaluation(path: Path, name: str | None) -> Evaluation:
    """The evaluation in a file, or the chosen one of a run folder."""
    from rollwright.evaluation import load_evaluation

    if not path.is_dir():
        return load_evaluation(path)
    files = {file.stem: file for file in sorted((path / "eval").glob("*.json"))}
    if not files:
        raise DataError(f"{path} holds no evaluation: expected files eval/*.json in it. Is it a run folder?")
    if name is not None and name not in files:
        raise DataError(f"{path} has no evaluation {name!r}; it has: {', '.join(files)}")
    latest = max(files.values(), key=lambda file: file.stat().st_mtime)
    return load_evaluation(files[name] if name is not None else files.get("final", latest))


def _labels(path_a: Path, a: Evaluation, path_b: Path, b: Evaluation) -> tuple[str, str]:
    """The shortest names that tell the two apart."""
    runs = [path.resolve() if path.is_dir() else path.resolve().parent.parent for path in (path_a, path_b)]
    full = [f"{run.name}/{evaluation.name}" for run, evaluation in zip(runs, (a, b), strict=True)]
    for first, second in ((a.name, b.name), (runs[0].name, runs[1].name), (full[0], full[1])):
        if first != second:
            return first, second
    return "A", "B"


def _report(arguments: argparse.Namespace) -> None:
    from rollwright.view import write_report

    run: Path = arguments.run
    traces = ("config.yaml", "metrics.jsonl", "eval", "trajectories/trajectories")
    if run.is_dir() and not any((run / trace).exists() for trace in traces):
        raise DataError(f"{run} is no run folder: expected config.yaml, metrics.jsonl or eval/ in it")
    print(f"written to {write_report(run, num_replays=arguments.replays)}")


def _show(arguments: argparse.Namespace) -> None:
    from rollwright.store import TrajectoryStore
    from rollwright.view import format_trajectory, headline

    store = TrajectoryStore(_store_folder(arguments.store), mode="read")

    def wanted(row: Any) -> bool:
        solved = bool(row["success"])
        return solved if arguments.solved else not (arguments.unsolved and solved)

    chosen = {key: getattr(arguments, key) for key in ("task", "tag", "split", "origin")}
    found = sum(1 for _ in store.refs(**chosen, where=wanted))
    for trajectory in islice(store.iter_trajectories(**chosen, where=wanted), arguments.limit):
        print(headline(trajectory) if arguments.brief else format_trajectory(trajectory) + "\n")
    for warning in store.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not found:
        tags = ", ".join(f"{tag or '(none)'} {count}" for tag, count in store.tags().items())
        raise DataError(f"none of the {len(store)} trajectories matches; tags here: {tags or 'none'}")
    if found > arguments.limit:
        print(f"{arguments.limit} of {found} episodes; --limit shows more", file=sys.stderr)


def _store_folder(path: Path) -> Path:
    """The store itself, or the one of a run folder."""
    inner = path / "trajectories"
    return inner if (inner / "trajectories").is_dir() else path


def _score(arguments: argparse.Namespace) -> None:
    from rollwright.run_io import Progress
    from rollwright.store import TrajectoryStore, score_store
    from rollwright.training import RewardSettings, open_reward

    if arguments.parallel < 1:
        raise ConfigError(f"--parallel is {arguments.parallel}; it counts groups scored at once, 1 or more")
    if _store_folder(arguments.into) != arguments.into or (arguments.into / "config.yaml").exists():
        raise DataError(f"--into {arguments.into} is a run folder, which keeps a store of its own: name a new folder")
    source = TrajectoryStore(_store_folder(arguments.store), mode="read")
    name, *options = arguments.reward
    reward = open_reward(RewardSettings(name=name, options=_options(options)))
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


def _components(arguments: argparse.Namespace) -> None:
    from rollwright.config import available, engine_note
    from rollwright.generation import ENGINES

    for heading, names in (("worlds", available("envs")), ("rewards", available("rewards"))):
        print(f"{heading}:", *(f"  {name}" for name in names), sep="\n")
    print("engines:")
    for name in ENGINES.ours:
        note = engine_note(name)
        print(f"  {name}" + (f" ({note})" if note else ""))


def _check_env(arguments: argparse.Namespace) -> None:
    from rollwright.checks import check_env
    from rollwright.config import create, require

    actions = _actions(arguments.actions)
    options = _options(arguments.options)
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
    if not played.well_formed:
        raise ConfigError(f"{arguments.name}: no breach was found, but {played}: name some with --actions TEXT or FILE")
    print(f"{arguments.name} keeps the environment contract ({played})")


def _actions(given: Sequence[str] | None) -> list[str] | None:
    """Actions as they are given; one that is a file stands for its lines."""
    if given is None:
        return None
    found: list[str] = []
    for text in given:
        is_file = len(text) < 4096 and "\n" not in text and "\0" not in text and Path(text).is_file()
        lines = Path(text).read_text(encoding="utf-8", errors="replace").splitlines() if is_file else [text]
        if is_file and not any(line.strip() for line in lines):
            raise ConfigError(f"--actions {text}: the file holds no action; expected one on each line")
        found += [line for line in lines if line.strip()] if is_file else lines
    return found


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """`size=3 name=x` -> {"size": 3, "name": "x"}."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise ConfigError(f"{pair!r} is no option: write key=value")
        try:
            found[key] = json.loads(value)
        except (ValueError, RecursionError):
            found[key] = value
    return found


def _version(arguments: argparse.Namespace) -> None:
    print(f"rollwright {__version__}")


if __name__ == "__main__":
    sys.exit(main())
