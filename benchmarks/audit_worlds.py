"""Audit every world that ships, one after another, and write the tables of docs/worlds.

    python benchmarks/audit_worlds.py runs/audits                 # everything that this machine can play
    python benchmarks/audit_worlds.py runs/audits text. code.     # names that begin so
    python benchmarks/audit_worlds.py runs/audits --tables        # only the tables, of reports that are there

Each audit runs in a process of its own and leaves `<world>.txt` and `<world>.json`. What a machine lacks (a browser, a
sandbox, an engine of chess) is said in the table and makes no result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAID = {0: "fit", 1: "unfit", 2: "not run", 3: "cannot tell"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One line of a table: a world, its options, and the options of the audit."""

    world: str
    options: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name of the files."""
        return "_".join([self.world, *(option.replace("=", "-") for option in self.options)])

    @property
    def words(self) -> list[str]:
        """What stands behind `rollwright audit`."""
        return [self.world, *self.options, *self.audit]


TEXT = (
    *(AuditLine(world=f"text.{name}") for name in ("maze", "navigation", "wordle", "twenty_questions", "guess_city")),
    *(AuditLine(world=f"text.{name}") for name in ("car_dealer", "household", "combination_lock", "guess_number")),
    AuditLine(world="text.bandit"),
    AuditLine(world="text.second_attempt"),
    AuditLine(world="text.chess_game", options=("start=endgames",), audit=("--quick",)),
    AuditLine(world="text.textworld_game", audit=("--quick",)),
)
CODE = tuple(
    AuditLine(world=f"code.{name}", audit=("--quick",))
    for name in ("maths", "synthesis", "unit_tests", "correction", "repair", "humaneval")
)
WEB = (
    AuditLine(world="web.sites", audit=("--quick", "--starts", "2")),
    AuditLine(world="web.miniwob", options=("tasks=all",), audit=("--quick", "--tasks", "390")),
)
DEVICE = (AuditLine(world="device.phone", audit=("--tasks", "1000")),)
GROUPS = {"text": TEXT, "code": CODE, "web": WEB, "device": DEVICE}


def main() -> None:
    """Run the audits that were asked for, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the reports lie")
    parser.add_argument("names", nargs="*", help="only worlds whose names begin so")
    parser.add_argument("--tables", action="store_true", help="run nothing, print the tables of what is there")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    lines = [line for group in GROUPS.values() for line in group]
    for line in lines:
        if not arguments.tables and (not arguments.names or line.world.startswith(tuple(arguments.names))):
            code = run_audit(line, arguments.folder)
            print(f"{line.label}: {SAID.get(code, f'failed with code {code}')}", file=sys.stderr, flush=True)
    for name, group in GROUPS.items():
        print(f"\n{name}\n", *table(group, arguments.folder), sep="\n")


def run_audit(line: AuditLine, folder: Path) -> int:
    """One audit in a process of its own; -> its exit code."""
    report = folder / f"{line.label}.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "rollwright.cli", "audit", *line.words, "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (folder / f"{line.label}.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    return done.returncode


def table(group: tuple[AuditLine, ...], folder: Path) -> Iterator[str]:
    """A table in Markdown: a line per world."""
    yield "| world | tasks | episodes | false accepts | false rejects | floor | headroom | verdict | command |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for line in group:
        file = folder / f"{line.label}.json"
        cells = row_of(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else ["-"] * 6 + ["not run"]
        yield "| " + " | ".join([f"`{line.world}`", *cells, f"`rollwright audit {' '.join(line.words)}`"]) + " |"


def row_of(report: dict[str, Any]) -> list[str]:
    """Tasks, episodes, false accepts, false rejects, floor, headroom over chance, verdict."""
    panel = {row["policy"]: row for row in report["panel"]}
    others = [row for row in panel.values() if row["truth"] != "solves" and row["policy"] != "random"]
    accepted, played = sum(row["accepted"] for row in others), sum(row["episodes"] for row in others)
    golden, random = panel["golden"], panel["random"]
    judged = golden["episodes"] - golden["undecided"]
    floor = next((c["measured"].get("floor", "-") for c in report["checks"] if c["name"] == "floor and gap"), "-")
    solved = golden["rate"][0] if golden["rate"] else None
    chance = (random["accepted"] + random["explained"]) / random["episodes"] if random["episodes"] else None
    headroom = "-" if solved is None or chance is None else f"{solved - chance:.2f}"
    return [
        str(report["tasks"]),
        str(sum(row["episodes"] for row in panel.values())),
        f"{accepted}/{played}",
        f"{judged - golden['accepted']}/{judged}",
        floor,
        headroom,
        f"**{report['verdict']}**",
    ]


if __name__ == "__main__":
    main()
