"""Evaluations as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rollwright.evaluation.attempt_figures import attempt_lines
from rollwright.evaluation.comparison import Comparison
from rollwright.evaluation.evaluation_record import Evaluation
from rollwright.evaluation.evaluation_summary import Summary, TaskSummary, summarise
from rollwright.evaluation.success_cost import SuccessCost
from rollwright.maths.statistics import Interval

MOST_ROWS = 60
"""Tasks that a table lists; a log of a thousand questions would bury its verdict."""


def format_table(evaluation: Evaluation, *, title: str = "") -> str:
    """One line per task, then the mean over tasks, pass@k, figures by attempt and the faults."""
    summary = summarise(evaluation)
    rows = [["task", "success", "95% interval", "return", "turns", "episodes", "faults"]]
    rows += [_task_cells(task) for task in summary.tasks[:MOST_ROWS]]
    rows.append(_overall_cells(summary))
    return "\n".join(
        [
            f"{title or evaluation.name}: {describe(evaluation)}",
            *align(rows),
            *left_out_rows(len(summary.tasks)),
            *_footer(evaluation, summary),
        ]
    )


def format_side_by_side(evaluations: Mapping[str, Evaluation]) -> str:
    """Success per task with its interval, one column per evaluation; the keys are the headings."""
    summaries = {name: summarise(evaluation) for name, evaluation in evaluations.items()}
    # The evaluations may hold different tasks; a dict keeps the order in which they were met.
    tasks = dict.fromkeys(task for evaluation in evaluations.values() for task in evaluation.tasks)
    by_task = {name: {task.task: task.success for task in s.tasks} for name, s in summaries.items()}
    rows = [["success", *evaluations]]
    rows += [[task, *(_with_interval(found.get(task)) for found in by_task.values())] for task in tasks]
    rows.append([f"all {len(tasks)} tasks", *(_with_interval(s.success) for s in summaries.values())])
    if any(s.num_faults for s in summaries.values()):
        rows.append(["faults", *(f"{s.num_faults} of {s.num_episodes}" for s in summaries.values())])
    return "\n".join(align(rows))


def format_comparison(comparison: Comparison) -> str:
    """The difference per task, over all tasks, what a success cost, and the verdict."""
    lines = _per_task(comparison)
    for what, difference in (("success", comparison.success), ("return", comparison.returns)):
        if difference is not None and not (what == "return" and _returns_are_successes(comparison)):
            i = difference.interval
            numbers = f"{i.point:+.3f} [{i.low:.3f}, {i.high:.3f}]"
            lines.append(f"{what} difference: {numbers} ({i.confidence:.0%} CI, {difference.scope()})")
    lines += [
        f"{what}, difference: {found.interval.point:+.3f} [{found.interval.low:.3f}, {found.interval.high:.3f}]"
        for what, found in comparison.by_attempt.items()
    ]
    lines.append(_paired_line(comparison))
    lines += _cost_lines(comparison)
    lines += _world_lines(comparison)
    lines += [f"warning: {warning}" for warning in comparison.warnings]
    return "\n".join([*lines, comparison.verdict()])


def _returns_are_successes(comparison: Comparison) -> bool:
    # Many worlds pay 1 for a success and nothing else: the second line would repeat the first.
    return comparison.success is not None and comparison.success.interval == comparison.returns.interval


def left_out_rows(num_tasks: int, which: str = "the first ones") -> list[str]:
    """A line that says which of very many tasks a table lists; none where it lists all."""
    if num_tasks <= MOST_ROWS:
        return []
    return [f"{MOST_ROWS} of {num_tasks} tasks are listed, {which}; --csv FILE writes all"]


def p_text(value: float | None) -> str:
    """A p-value in three digits."""
    if value is None:
        return "-"
    # Rounded, a small p-value would read 0.000, which no test can claim.
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _per_task(comparison: Comparison) -> list[str]:
    tested = [one for one in comparison.screen if one.p_value is not None]
    heads = ["task", comparison.name_a, comparison.name_b, "difference"]
    # With one start per task no task is tested, and two columns would hold nothing but dashes.
    rows = [[*heads, "p", "adjusted p"] if tested else heads]
    largest = sorted(comparison.screen, key=lambda one: -abs(one.b - one.a))[:MOST_ROWS]
    # The largest differences are chosen, but the table keeps the order of the tasks.
    for one in (one for one in comparison.screen if one in largest):
        cells = [one.task, f"{one.a:.3f}", f"{one.b:.3f}", f"{one.b - one.a:+.3f}"]
        rows.append([*cells, p_text(one.p_value), p_text(one.adjusted_p)] if tested else cells)
    lines = [*align(rows), *left_out_rows(len(comparison.screen), "those with the largest differences")]
    if len(tested) > 1:
        lines.append(f"adjusted p: Benjamini-Hochberg over the {len(tested)} tasks, to screen them; not the verdict")
    return lines


def _paired_line(comparison: Comparison) -> str:
    line = f"paired episodes: {comparison.num_pairs}"
    if comparison.num_only_a + comparison.num_only_b:
        line += f"; only in {comparison.name_a}: {comparison.num_only_a}, only in {comparison.name_b}: "
        line += f"{comparison.num_only_b}"
    if comparison.num_lost_to_faults:
        line += f"; lost to faults: {comparison.num_lost_to_faults}"
    return line


def _cost_lines(comparison: Comparison) -> list[str]:
    found = []
    for name, cost in zip((comparison.name_a, comparison.name_b), comparison.costs, strict=True):
        if cost is not None:
            found.append(f"cost per success of {name}: {cost_text(cost)}")
    return found


def cost_text(cost: SuccessCost) -> str:
    """'5.2 environment steps, 93 tokens, 1.4 s'; 'no success' where there was none."""
    # The costs are infinite then, and a number would say less.
    if not cost.num_successes:
        return "no success"
    parts = [f"{cost.steps:.1f} environment steps"]
    if cost.tokens is not None:
        parts.append(f"{cost.tokens:,.0f} tokens")
    if cost.seconds:
        parts.append(f"{cost.seconds:.2f} s")
    return ", ".join(parts)


def _world_lines(comparison: Comparison) -> list[str]:
    first, second = comparison.worlds
    if first == second:
        return [f"world: {first}"] if first else []
    named = [
        f"{name} in {world or 'a world that it does not name'}"
        for name, world in ((comparison.name_a, first), (comparison.name_b, second))
    ]
    return [f"worlds: {', '.join(named)}"]


def describe(evaluation: Evaluation) -> str:
    """What was evaluated and how, in one line."""
    how = "greedy" if evaluation.greedy else f"temperature {evaluation.temperature:g}"
    # -1 stands for a log that states none.
    how = how if evaluation.temperature >= 0 else "temperature not stated"
    who = evaluation.policy or "policy"
    version = "" if evaluation.version < 0 else f" version {evaluation.version}"
    # Seeds of two tasks may be equal, and are two starts.
    seeds = {(row.task, row.seed) for row in evaluation.rows}
    starts = f"{len(evaluation.tasks)} tasks, {len(seeds)} starts x {evaluation.num_attempts} attempts"
    return f"{who}{version}, {how}, split {evaluation.split}, {starts}"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return lines


def _task_cells(task: TaskSummary) -> list[str]:
    counts = [str(task.num_episodes), str(task.num_faults)]
    return [task.task, *_success_cells(task.success), _number(task.mean_return), _number(task.mean_turns, 1), *counts]


def _overall_cells(summary: Summary) -> list[str]:
    returns = None if summary.mean_return is None else summary.mean_return.point
    name = f"all {len(summary.tasks)} tasks"
    counts = [str(summary.num_episodes), str(summary.num_faults)]
    return [name, *_success_cells(summary.success), _number(returns), "", *counts]


def _success_cells(interval: Interval | None) -> list[str]:
    return ["-", "-"] if interval is None else [f"{interval.point:.3f}", f"[{interval.low:.3f}, {interval.high:.3f}]"]


def _with_interval(interval: Interval | None) -> str:
    return " ".join(_success_cells(interval)) if interval is not None else "-"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _footer(evaluation: Evaluation, summary: Summary) -> list[str]:
    # pass@1 is the success rate, which the table has already.
    lines = [f"pass@{k}: {interval}" for k, interval in summary.pass_at.items() if k > 1]
    lines += attempt_lines(evaluation)
    if summary.num_faults:
        kinds = ", ".join(f"{count} {reason.value}" for reason, count in sorted(evaluation.faults.items()))
        lines.append(
            f"faults: {summary.num_faults} of {summary.num_episodes} episodes ({summary.fault_frac:.1%}): {kinds}; "
            "they are in no rate"
        )
    if summary.num_without_room:
        lines.append(
            f"no room to act: in {summary.num_without_room} of {summary.num_episodes} episodes the first prompt filled "
            "the context (engine.max_context less rollout.max_action_tokens); they are in no rate"
        )
    if summary.num_undecided and summary.success is not None:
        lines.append(f"without a verdict: {summary.num_undecided} episodes; they are in no success rate")
    return lines
