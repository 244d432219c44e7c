"""Every metric name in the code stands in docs/metrics.md, and every line of it says what a bad value means."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AREAS = (
    "rollout",
    "reward",
    "policy",
    "critic",
    "optim",
    "time",
    "eval",
    "eval_task",
    "engine",
    "sft",
    "batch",
    "curriculum",
    "starts",
    "replay",
    "ledger",
    "actor",
    "constraint",
    "guide_critic",
    "rlgf",
    "archer",
    "attempts",
    "revisions",
    "reasoner",
    "search",
    "baseline",
    "bc",
    "digirl",
    "distill",
    "webrl",
)
NAME = re.compile(rf"(?:{'|'.join(AREAS)}|<>(?=/[a-z_]+$))/[\w.<>*/]*[\w>]")
NO_METRIC = {"<>/fault", "<>/metrics", "<>/episodes", "eval/<>/<>"}
"""Of the same form and no metric: an id of a check, addresses of the view, columns of the table of runs."""
HOLE = re.compile(r"<[^>]*>")


def documented() -> dict[str, list[str]]:
    """Name -> the other cells of its line in the tables of docs/metrics.md."""
    rows = {}
    for line in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1:]
    return rows


def names_in(source: str) -> Iterator[str]:
    """Metric names in string literals; what an f-string fills in reads `<>`."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(p.value) if isinstance(p, ast.Constant) else "<>" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            text = node.value
        if NAME.fullmatch(text) and text not in NO_METRIC:
            yield text


def names_logged() -> dict[str, str]:
    """Name -> one file that has it."""
    files = [f for folder in ("src/rollwright", "recipes") for f in sorted((ROOT / folder).rglob("*.py"))]
    return {name: str(f.relative_to(ROOT)) for f in files for name in names_in(f.read_text(encoding="utf-8"))}


def matches(name: str, pattern: str) -> bool:
    """Whether `name` is `pattern` with its `<holes>` filled in; a hole of the name fits any hole or word."""
    expression = ".+".join(re.escape(part) for part in HOLE.split(pattern))
    return re.fullmatch(expression, name) is not None


def test_every_metric_name_is_explained() -> None:
    table, logged = documented(), names_logged()
    assert len(logged) > 10
    unknown = [f"{n} ({file})" for n, file in logged.items() if not any(matches(n, k) or matches(k, n) for k in table)]
    assert not unknown, "add a line to docs/metrics.md for each of:\n" + "\n".join(sorted(unknown))


def test_nothing_is_explained_that_nobody_logs() -> None:
    logged = names_logged()
    idle = [k for k in documented() if not any(matches(name, k) or matches(k, name) for name in logged)]
    assert not idle, f"no code logs {idle}"


def test_every_line_has_its_three_cells() -> None:
    thin = [name for name, cells in documented().items() if len(cells) != 3 or not all(cells)]
    assert not thin, f"formula, healthy range and what a bad value means are needed for {thin}"


def test_the_reader_of_names_sees_through_f_strings() -> None:
    source = 'x = {"policy/loss_mean": 1, f"reward/{part}_mean": 2, "see policy/loss_mean here": 3}'
    assert set(names_in(source)) == {"policy/loss_mean", "reward/<>_mean"}
    assert matches("reward/<>_mean", "reward/<part>_mean")
    assert not matches("reward/<>_max", "reward/<part>_mean")
