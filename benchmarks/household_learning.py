"""It learns the household: a tiny model from scratch, imitation of the teacher, then Dr. GRPO, judged on unseen rooms.

Runs the two recipes as a user does (`recipes/text/household_sft.yaml`, `household_grpo.yaml`) and compares the success
on the test tasks (other kitchens, other goals) before and after GRPO, with Wilson intervals over the episodes.

    python benchmarks/household_learning.py                     report; also benchmarks/results/household_learning.md
    python benchmarks/household_learning.py --steps 60 --json   longer; one final JSON line
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import command, machine, publish, table

from rollwright.evaluation import load_evaluation

ROOT = Path(__file__).resolve().parent.parent


def launch(recipe: str, settings: str, *words: str) -> float:
    """Run a recipe; the seconds it took."""
    begun = time.perf_counter()
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    subprocess.run([*start, f"recipes/{recipe}", f"recipes/text/{settings}", *words], cwd=ROOT, check=True)
    return time.perf_counter() - begun


def wilson(wins: int, number: int, z: float = 1.96) -> tuple[float, float]:
    """95% interval of a success rate (Wilson 1927)."""
    rate, spread = wins / number, z * z / number
    centre = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / number + spread / number / 4)
    return centre - half, centre + half


def success(run: Path, name: str) -> dict[str, Any]:
    rows = load_evaluation(run / "eval" / f"{name}.json").rows
    wins = sum(bool(row.success) for row in rows)
    low, high = wilson(wins, len(rows))
    return {"episodes": len(rows), "success_frac": wins / len(rows), "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    parser.add_argument("--steps", type=int, default=30, help="GRPO steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs are kept; a temporary folder if not given")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="household_learning"))
    sft, grpo = folder / "sft", folder / "grpo"
    sft_s = launch("sft.py", "household_sft.yaml", f"run.folder={sft}", f"run.seed={arguments.seed}")
    words = [f"run.folder={grpo}", f"model.path={sft / 'policy'}", f"run.seed={arguments.seed}"]
    more = [f"run.steps={arguments.steps}", "evaluation.at_start=true", "evaluation.seeds_per_task=4"]
    grpo_s = launch("grpo.py", "household_grpo.yaml", *words, *more)
    start, final = success(grpo, "start"), success(grpo, "final")
    rows = [
        [n, f"{r['success_frac']:.2f} [{r['low']:.2f}, {r['high']:.2f}]", r["episodes"]]
        for n, r in (("after imitation", start), ("after GRPO", final))
    ]
    text = "\n\n".join(
        [
            "# The household is learned",
            "Success on held-out tasks (rooms and goals that training never had), greedy, 95% Wilson intervals.",
            table(["policy", "success", "episodes"], rows),
            f"Imitation {sft_s:.0f} s, {arguments.steps} GRPO steps {grpo_s:.0f} s; seed {arguments.seed}.",
            f"`{command()}`\n\n{machine('torch', 'transformers')}",
        ]
    )
    apart = final["low"] > start["high"]
    publish("household_learning", text, {"start": start, "final": final, "apart": apart}, as_json=arguments.json)


if __name__ == "__main__":
    main()
