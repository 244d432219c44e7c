"""Does GRPO learn a family of a world? A tiny model from scratch: imitation, then GRPO, judged on held-out starts.

Runs the world's two recipes as a user does and compares greedy success before and after GRPO with Wilson intervals over
the episodes. `apart` says whether the intervals do not overlap. Besides that, the success of what was sampled for
training, in the first and in the last steps.

    python benchmarks/world_learning.py --world sites
    python benchmarks/world_learning.py --world device --sft data.per_task=48 --grpo run.steps=60 --json
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import command, machine, publish, table

from rollwright.evaluation import load_evaluation
from rollwright.maths.statistics import Interval, wilson_interval
from rollwright.run_io import read_metrics

STEPS = 5
ROOT = Path(__file__).resolve().parent.parent
WORLDS = {
    "code": ("code/synthesis_sft.yaml", "code/synthesis_grpo.yaml"),
    "device": ("device/phone_sft.yaml", "device/phone_grpo.yaml"),
    "household": ("text/household_sft.yaml", "text/household_grpo.yaml"),
    "sites": ("web/sites_sft.yaml", "web/sites_grpo.yaml"),
}


def launch(recipe: str, settings: str, *words: str) -> float:
    """Run a recipe; the seconds it took."""
    begun = time.perf_counter()
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    subprocess.run([*start, f"recipes/{recipe}", f"recipes/{settings}", *words], cwd=ROOT, check=True)
    return time.perf_counter() - begun


def success(run: Path, name: str) -> tuple[Interval, int]:
    """Success with its interval, and the number of episodes."""
    rows = load_evaluation(run / "eval" / f"{name}.json").rows
    return wilson_interval(sum(bool(row.success) for row in rows), len(rows)), len(rows)


def sampled(run: Path) -> list[float]:
    """Success of the training episodes, step by step."""
    rows = read_metrics(run / "metrics.jsonl")
    return [row["rollout/success_frac"] for row in rows if "rollout/success_frac" in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=sorted(WORLDS), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sft", nargs="*", default=[], help="further words for recipes/sft.py")
    parser.add_argument("--grpo", nargs="*", default=[], help="further words for recipes/grpo.py")
    parser.add_argument("--start", type=Path, help="a policy that the imitation recipe has made; else one is made")
    parser.add_argument("--folder", type=Path, help="where the runs are kept; a temporary folder if not given")
    parser.add_argument("--json", action="store_true", help="print one final JSON line")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="world_learning"))
    sft, grpo = folder / "sft", folder / "grpo"
    settings = WORLDS[arguments.world]
    start, taken = arguments.start, "of an earlier run"
    if start is None:
        seconds = launch("sft.py", settings[0], f"run.folder={sft}", f"run.seed={arguments.seed}", *arguments.sft)
        start, taken = sft / "policy", f"{seconds:.0f} s"
    words = [f"run.folder={grpo}", f"model.path={start}", f"run.seed={arguments.seed}"]
    grpo_s = launch("grpo.py", settings[1], *words, "evaluation.at_start=true", *arguments.grpo)
    judged = {name: success(grpo, file) for name, file in (("imitation", "start"), ("GRPO", "final"))}
    rows = [[name, f"{i.point:.3f} [{i.low:.3f}, {i.high:.3f}]", n] for name, (i, n) in judged.items()]
    trained = sampled(grpo)
    first, last = statistics.fmean(trained[:STEPS]), statistics.fmean(trained[-STEPS:])
    text = "\n\n".join(
        [
            f"# GRPO on {arguments.world}",
            "Greedy success on held-out starts, 95% Wilson intervals over episodes.",
            table(["policy after", "success", "episodes"], rows),
            f"Sampled in training: {first:.2f} in the first {STEPS} of {len(trained)} steps, {last:.2f} in the last.",
            f"Imitation {taken}, GRPO {grpo_s:.0f} s; seed {arguments.seed}.",
            # Where the runs were kept is the machine's own affair.
            f"`{re.sub(r' --(folder|start) [^ ]+', '', command())}`\n\n{machine('torch', 'transformers')}",
        ]
    )
    before, after = judged["imitation"][0], judged["GRPO"][0]
    summary = {
        "world": arguments.world,
        "ours": after.point,
        "peer": before.point,
        "ratio": round(after.point / before.point, 3) if before.point else None,
        "apart": after.low > before.high,
    }
    publish(f"world_learning_{arguments.world}", text, summary, as_json=arguments.json)


if __name__ == "__main__":
    main()
