"""Branching episodes against their controls: attempts, guides, restarts, trees and distillation on held-out tasks.

    python benchmarks/learning_branching.py attempts --seeds 6
    python benchmarks/learning_branching.py attempts --arms score two_turn --seeds 5
    python benchmarks/learning_branching.py attempts --finished    from the figures that are there; starts nothing
    python benchmarks/learning_branching.py --write        the page from the results that are there; starts nothing

One part is one file `benchmarks/_branching_<part>.py` with

    TITLE: str                      heading of its section
    ABOUT: str                      what is played, from which start, and what is equal between the arms (Markdown)
    ARMS: dict[str, str]            name -> what it is; the first is the named baseline or the start
    METRICS: dict[str, str]         name -> what it means, with its unit; in the order of the columns
    CLAIMS: list[Claim]             or tuples (higher arm, lower arm, metric, sentence[, margin]); see `Claim`
    MISSING: list[str]              optional: one sentence for each row that the table lacks, with the reason
    def play(arm, seed, folder) -> dict[str, float]
                                    runs one arm from one seed in `folder` (made, maybe with the remains of a run that
                                    was stopped) and returns held-out figures and what was spent (all of METRICS)

`folder` is `<--folder>/<part>/<arm>/<seed>`; what the arms share (a start policy, a store) belongs in
`folder.parents[1] / "common"`, made by whoever comes first. `_branching.py` has helpers: `play_recipe` (a recipe in a
forked process), `held_out_success`, `training_total`. Settings are chosen on seeds from 100 on, which are never in the
table. Figures that are finished are kept in `figures.json` beside the run and not computed again.

The table gives the mean over seeds with its 95% interval (Student, over seeds). Each claim is decided by the paired
difference of the two arms over seeds: "reproduced" where its 95% interval lies above 0 (above -margin), "not
reproduced" where it lies below, "cannot tell" where it has both. Intervals are not widened for the number of claims.
"""

from __future__ import annotations

import os

# Before torch is imported: its thread pools read the environment once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import importlib
import json
import re
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from _branching import Claim
from _common import RESULTS, command, machine, table

from rollwright.maths.statistics import (
    Interval,
    clustered_bootstrap,
    interquartile_mean,
    paired_difference,
    stratified_bootstrap,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE, DATA = RESULTS / "learning_branching.md", RESULTS / "learning_branching"
Figures = dict[str, dict[int, dict[str, float]]]
"""arm -> seed -> metric -> value."""


def part_of(name: str) -> ModuleType:
    """The file of a part. Raises SystemExit where there is none."""
    found = sorted(file.stem.removeprefix("_branching_") for file in Path(__file__).parent.glob("_branching_*.py"))
    if name not in found:
        raise SystemExit(f"there is no part {name!r}; there are {', '.join(found)}")
    return importlib.import_module(f"_branching_{name}")


def figures_of(part: ModuleType, arm: str, seed: int, folder: Path) -> dict[str, float]:
    """What an arm reached from a seed: kept figures, or those of a run that is played now."""
    kept = folder / "figures.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    found = {name: float(value) for name, value in part.play(arm, seed, folder).items()}
    if lacking := [name for name in part.METRICS if name not in found]:
        raise KeyError(f"play({arm!r}, {seed}) gave no {', '.join(lacking)}, which METRICS promises")
    kept.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{arm} {seed}: {time.monotonic() - begun:.1f} s, {found}", flush=True)
    return found


def play_all(
    part: ModuleType, arms: list[str], seeds: int, folder: Path, *, finished: bool
) -> tuple[Figures, list[str]]:
    """Every arm from every seed; one that fails is reported, and the others go on. `finished`: play nothing."""
    figures: Figures = {arm: {} for arm in arms}
    failed = []
    # Seeds outside, so that a table that is stopped early has whole seeds.
    for seed in range(seeds):
        for arm in arms:
            if finished and not (folder / arm / str(seed) / "figures.json").exists():
                continue
            try:
                figures[arm][seed] = figures_of(part, arm, seed, folder / arm / str(seed))
            except Exception as error:
                traceback.print_exc()
                failed.append(f"`{arm}` from seed {seed} failed: {type(error).__name__}: {str(error).splitlines()[0]}")
    return {arm: found for arm, found in figures.items() if found}, failed


def mean_of(values: list[float]) -> Interval:
    """Mean over seeds with its interval; of one seed alone an interval that excludes nothing."""
    if len(values) < 2:
        return Interval(point=values[0], low=-np.inf, high=np.inf, confidence=0.95)
    return clustered_bootstrap({str(i): [value] for i, value in enumerate(values)}, generator=np.random.default_rng(0))


def iqm_of(values: list[float]) -> Interval | None:
    """Interquartile mean over seeds with its bootstrap interval; None of fewer than four."""
    if len(values) < 4:
        return None
    scores = np.array(values)[:, None]
    return stratified_bootstrap(scores, interquartile_mean, generator=np.random.default_rng(0))


def difference(higher: Mapping[int, float], lower: Mapping[int, float]) -> Interval | None:
    """Mean of the paired differences over the seeds that both have; None for fewer than two."""
    shared = sorted(set(higher) & set(lower))
    if len(shared) < 2:
        return None
    one, two = ({str(seed): [side[seed]] for seed in shared} for side in (lower, higher))
    return paired_difference(one, two, pair_episodes=False).interval


def verdict_of(found: Interval | None, margin: float) -> str:
    """One of the three words."""
    if found is None:
        return "cannot tell"
    if found.low > -margin:
        return "reproduced"
    return "not reproduced" if found.high <= -margin else "cannot tell"


def claim_rows(claims: list[Claim], figures: Figures) -> list[dict[str, Any]]:
    """Each claim with its difference and its verdict."""
    rows = []
    for claim in claims:
        sides = [{s: f[claim.metric] for s, f in figures.get(arm, {}).items()} for arm in (claim.higher, claim.lower)]
        found = difference(*sides)
        edges = None if found is None else [found.point, *_edges(found)]
        shared = len(set(sides[0]) & set(sides[1]))
        verdict = verdict_of(found, claim.margin)
        rows.append(claim._asdict() | {"difference": edges, "verdict": verdict, "seeds": shared})
    return rows


def _edges(found: Interval) -> list[float | None]:
    # JSON has no infinity: an open end is null.
    return [edge if np.isfinite(edge) else None for edge in (found.low, found.high)]


def record(part: ModuleType, figures: Figures, failed: list[str]) -> dict[str, Any]:
    """All that the page needs, and every run's figures."""
    cells: dict[str, dict[str, Any]] = {}
    for arm, runs in figures.items():
        for metric in part.METRICS:
            values = [run[metric] for run in runs.values()]
            mean, iqm = mean_of(values), iqm_of(values)
            cells.setdefault(arm, {})[metric] = {
                "mean": [mean.point, *_edges(mean)],
                "iqm": None if iqm is None else [iqm.point, *_edges(iqm)],
            }
    return {
        "title": part.TITLE,
        "about": part.ABOUT,
        # Where the runs were kept is the machine's own affair.
        "command": re.sub(r" --folder [^ ]+", "", command()),
        "machine": machine("torch", "transformers"),
        "arms": part.ARMS,
        "metrics": part.METRICS,
        "seeds": {arm: sorted(runs) for arm, runs in figures.items()},
        "table": cells,
        "claims": claim_rows([Claim(*claim) for claim in part.CLAIMS], figures),
        "missing": [*getattr(part, "MISSING", []), *failed],
        "runs": {arm: {str(seed): run for seed, run in runs.items()} for arm, runs in figures.items()},
    }


def shown(cell: list[float | None] | None) -> str:
    """`0.81 [0.70, 0.92]`; large numbers without decimals, an open interval or none left out."""
    if cell is None:
        return "-"
    point, low, high = cell
    digits = 0 if abs(point or 0.0) >= 100 else 3
    if low is None or high is None or low == high:
        return f"{point:.{digits}f}"
    return f"{point:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def section(found: Mapping[str, Any]) -> str:
    """The part's section of the page."""
    counts = sorted({len(seeds) for seeds in found["seeds"].values()})
    rows = [
        [f"`{arm}`", *(shown(cells[metric]["mean"]) for metric in found["metrics"])]
        for arm, cells in found["table"].items()
    ]
    claims = [
        [
            row["sentence"] + (f" (by at most {row['margin']:g})" if row["margin"] else ""),
            f"`{row['metric']}`: `{row['higher']}` - `{row['lower']}`",
            shown(row["difference"]),
            # Fewer than five seeds decide little, whatever their spread.
            f"**{row['verdict']}**" + (f" ({row['seeds']} seeds only)" if row.get("seeds", 5) < 5 else ""),
        ]
        for row in found["claims"]
    ]
    lines = [f"## {found['title']}", "", found["about"], ""]
    lines += [f"- `{arm}`: {text}" for arm, text in found["arms"].items()]
    lines += ["", *(f"- `{metric}`: {text}" for metric, text in found["metrics"].items())]
    lines += ["", f"Means over {' to '.join(map(str, counts))} seeds with 95% intervals.", ""]
    lines += [table(["arm", *found["metrics"]], rows), ""]
    if claims:
        lines += [table(["claim", "compared", "paired difference", "verdict"], claims), ""]
    lines += [f"- Missing: {text}" for text in found["missing"]] + ([""] if found["missing"] else [])
    return "\n".join([*lines, f"`{found['command']}`", "", found["machine"] + "."])


def write_page() -> None:
    """The page from all results that are there."""
    head = (
        "# Branching episodes against their controls\n\n"
        "Written by `benchmarks/learning_branching.py`; its docstring says how a claim is decided. The figures of\n"
        "every run are in `learning_branching/<part>.json`."
    )
    parts = [section(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(DATA.glob("*.json"))]
    PAGE.write_text("\n\n".join([head, *parts]) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", help="which file _branching_<part>.py")
    parser.add_argument("--seeds", type=int, default=6, help="how many training seeds, from 0")
    parser.add_argument("--arms", nargs="+", help="these alone; default all. The record then has these alone too")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "branching", help="where the runs are kept")
    parser.add_argument("--finished", action="store_true", help="play nothing: only the figures that are there")
    parser.add_argument("--draft", action="store_true", help="print the section, write nothing to the results")
    parser.add_argument("--write", action="store_true", help="only write the page from the results that are there")
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    arguments = parser.parse_args()
    if arguments.part is None:
        if not arguments.write:
            parser.error("name a part, or say --write")
        write_page()
        return
    part = part_of(arguments.part)
    arms = arguments.arms or list(part.ARMS)
    if unknown := [arm for arm in arms if arm not in part.ARMS]:
        parser.error(f"no arm {', '.join(unknown)}; there are {', '.join(part.ARMS)}")
    figures, failed = play_all(
        part, arms, arguments.seeds, arguments.folder.resolve() / arguments.part, finished=arguments.finished
    )
    found = record(part, figures, failed)
    print(section(found))
    if not arguments.draft:
        DATA.mkdir(parents=True, exist_ok=True)
        (DATA / f"{arguments.part}.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
        write_page()
    if arguments.json:
        verdicts = {row["sentence"]: row["verdict"] for row in found["claims"]}
        print(json.dumps({"benchmark": f"learning_branching/{arguments.part}", "verdicts": verdicts}), flush=True)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
