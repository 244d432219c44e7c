"""`rollwright compare`: which of two policies, or which of several methods, is better."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rollwright.contracts import ConfigError, DataError, RunFolderError

if TYPE_CHECKING:
    from rollwright.cli.compare_runs import Groups, NamedReading
    from rollwright.evaluation import Comparison, GroupComparison


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright compare`."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a run folder, an eval JSON, or a log of inspect_ai (.eval), lm-evaluation-harness (samples_*.jsonl) or a "
        ".csv of task, seed, score; NAME=RUN,RUN makes a group of training seeds; the first is the baseline; one run "
        "folder alone: its first against its last evaluation",
    )
    parser.add_argument(
        "--eval", metavar="NAME", help="which eval/<NAME>.json of a run folder (final, else the latest)"
    )
    parser.add_argument("--group-by", metavar="KEY", help="group runs by a configuration key, such as learner.loss")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the intervals (0.95)")
    parser.add_argument(
        "--target",
        choices=("these", "like-these"),
        help="speak about exactly these tasks, or about tasks like these (default: these, where tasks have 2 starts)",
    )
    parser.add_argument("--all-pairs", action="store_true", help="compare every pair of groups, not each to the first")
    parser.add_argument(
        "--screen", action="store_true", help="adjust by Benjamini-Hochberg, to screen many groups (default: Holm)"
    )
    parser.add_argument(
        "--across-versions",
        action="store_true",
        help="compare even where worlds or task lists differ; the verdict says so",
    )
    for name, what in (("scorer", "inspect_ai: whose scores"), ("filter", "lm-eval: which filter")):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"of a log of {what} to take")
    parser.add_argument("--metric", metavar="NAME", help="of a log of lm-eval or a table: which metric to take")
    parser.add_argument("--plot", metavar="FILE.svg", type=Path, help="draw aggregates, P(better) and profiles")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the score of every group, run and task")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON document, and nothing else")


def run(arguments: argparse.Namespace) -> None:
    """Print tables and verdicts.

    Raises:
        ConfigError, DataError: an option or a file is wrong. RunFolderError: a file cannot be written.
    """
    from rollwright.cli.compare_runs import ReadingChoice, read_groups
    from rollwright.evaluation import comparison_csv, comparison_json

    if not 0 < arguments.confidence < 1:
        raise ConfigError(f"--confidence is {arguments.confidence}; it lies between 0 and 1, such as 0.95")
    choice = ReadingChoice(
        name=arguments.eval, scorer=arguments.scorer, filter_name=arguments.filter, metric=arguments.metric
    )
    words = _first_and_last(arguments)
    groups = read_groups(words, choice, arguments.group_by)
    # Here and not in argparse: a pattern or --group-by tells only now how many groups there are.
    if len(groups) < 2:
        raise DataError(
            f"one group only ({next(iter(groups))}): name a second run or group to compare it with, such as "
            "base=runs/a,runs/b new=runs/c,runs/d"
        )
    notes = _held_together(groups)
    # Two single runs are paired episode by episode; anything more is compared by runs.
    several = len(groups) > 2 or any(len(members) > 1 for members in groups.values())
    found = _groups(arguments, groups) if several else _two(arguments, groups)
    if arguments.plot:
        _plot(arguments, groups, found)
    if arguments.csv:
        _write(arguments.csv, comparison_csv(found))
    # Before the notes, for the document is all that is printed then.
    if arguments.json:
        print(comparison_json(found))
        return
    for note in notes:
        print(note)
    _show(groups, found)


def _first_and_last(arguments: argparse.Namespace) -> list[str]:
    """The words; one run folder alone stands for its first and its last evaluation."""
    words: list[str] = list(arguments.runs)
    folder = Path(words[0])
    if len(words) != 1 or not (folder / "eval").is_dir():
        return words
    if arguments.eval:
        raise ConfigError("--eval chooses one evaluation of each of several runs; name a second run to compare with")
    start, final = folder / "eval" / "start.json", folder / "eval" / "final.json"
    if not (start.is_file() and final.is_file()):
        names = ", ".join(sorted(file.stem for file in (folder / "eval").glob("*.json"))) or "none"
        raise DataError(
            f"{folder} alone is compared by its evaluations start and final, but it has: {names}. Run it with "
            "evaluation.at_start=true, or name two evaluations or runs"
        )
    return [str(start), str(final)]


def _held_together(groups: Groups) -> list[str]:
    """Lines about logs of other tools; all readings are checked against the first.

    Raises:
        DataError: two logs ask different questions, or one is of our own.
    """
    from rollwright.evaluation import check_same_content

    named = [(name, one) for name, members in groups.items() for one in members]
    if all(one.reading.evaluation.origin == "own" for _, one in named):
        return []
    lines = [str(one.reading.report) for _, one in named if one.reading.report is not None]
    # Against the first alone: what asks the same as the first asks the same as all.
    (first_name, first), *others = named
    for name, other in others:
        pairing = check_same_content(first.reading, other.reading, name_a=first_name, name_b=name)
        lines.append(
            f"{first_name} and {name}: {pairing.num_paired} pairs, only in {first_name} {pairing.num_only_a}, only in "
            f"{name} {pairing.num_only_b}"
        )
        lines += [f"warning: {warning}" for warning in pairing.warnings]
    return [*lines, ""]


def _two(arguments: argparse.Namespace, groups: Groups) -> Comparison:
    from rollwright.evaluation import compare

    # `run` comes here only with two groups of one.
    (name_a, [a]), (name_b, [b]) = groups.items()
    return compare(
        a.reading.evaluation,
        b.reading.evaluation,
        name_a=name_a,
        name_b=name_b,
        target=arguments.target,
        across_versions=arguments.across_versions,
        confidence=arguments.confidence,
    )


def _groups(arguments: argparse.Namespace, groups: Groups) -> GroupComparison:
    from rollwright.cli.compare_runs import run_names
    from rollwright.evaluation import compare_groups

    return compare_groups(
        {
            name: dict(zip(run_names(members), (one.reading.evaluation for one in members), strict=True))
            for name, members in groups.items()
        },
        all_pairs=arguments.all_pairs,
        procedure="benjamini-hochberg" if arguments.screen else "holm",
        target=arguments.target,
        across_versions=arguments.across_versions,
        confidence=arguments.confidence,
    )


def _show(groups: Groups, found: Comparison | GroupComparison) -> None:
    from rollwright.evaluation import Comparison, format_comparison, format_groups, format_table

    if isinstance(found, Comparison):
        for name, [one] in groups.items():
            print(format_table(one.reading.evaluation, title=name), end="\n\n")
    lines = [line for members in groups.values() for one in members for line in _about_run(one)]
    if lines:
        print(*dict.fromkeys(lines), "", sep="\n")  # two evaluations of one run say the same about it
    print(format_comparison(found) if isinstance(found, Comparison) else format_groups(found))


def _about_run(one: NamedReading) -> list[str]:
    """What the run folder tells beside the evaluation: what it spent, its best checkpoint, alarms."""
    from rollwright.evaluation import best_checkpoint, checkpoint_scores, mismatch_alarms, training_cost
    from rollwright.run_io import read_metrics

    if one.run is None:
        return []
    lines = [f"{one.run.name}: {spent}"] if (spent := training_cost(one.run)) else []
    metrics = one.run / "metrics.jsonl"
    rows = checkpoint_scores(read_metrics(metrics)) if metrics.is_file() else []
    # With one evaluation there is nothing to choose.
    if len(rows) > 1:
        try:
            # A run that was judged on the test split alone has none to choose from, and the message says so.
            lines.append(f"{one.run.name}: {best_checkpoint(one.run)}")
        except DataError as error:
            lines.append(f"{one.run.name}: {error}")
    for alarm in mismatch_alarms(rows):
        sure = "" if alarm.beyond_noise else " (within the noise of the scores)"
        lines.append(f"alarm, {one.run.name}: {alarm.message}{sure}")
    return lines


def _plot(arguments: argparse.Namespace, groups: Groups, found: Comparison | GroupComparison) -> None:
    from rollwright.evaluation import Comparison, group_plot

    if arguments.plot.suffix != ".svg":
        raise ConfigError(f"--plot {arguments.plot}: the picture is an SVG; give the file a name that ends in .svg")
    # The picture shows aggregates, which two single runs have as two groups of one.
    drawn = _groups(arguments, groups) if isinstance(found, Comparison) else found
    _write(arguments.plot, group_plot(drawn))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}. Name another file") from error
    # Standard output may be the JSON document.
    print(f"written to {path}", file=sys.stderr)
