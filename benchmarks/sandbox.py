"""What a run in the sandbox costs: warm (fork in a box that is up), cold (a box per command), a box's own start.

    python benchmarks/sandbox.py --json

Keys of the last line: `warm_ms_p50`, `warm_ms_p95`, `cold_ms_p50`, `start_ms_p50`, `judge_ms_p50` (12 hidden cases),
`humaneval_ms_p50` (tests in a second box, over the benchmark's problems), `repo_judge_ms_p50` and `repo_tests_ms_p50`
(a small repository: the verdict, pytest as feedback).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from _common import command, machine, publish, table

from rollwright.envs.code import humaneval
from rollwright.envs.code.judging import Case, judge_cases
from rollwright.envs.code.repairs import repositories
from rollwright.envs.code.sandbox import BoxPool, ColdBox, WarmBox, pytest_packages


def times_ms(work: Callable[[], object], count: int) -> list[float]:
    """Wall-clock milliseconds of each of `count` calls, after one that is not counted."""
    work()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1e3)
    return found


def start_and_stop() -> None:
    with WarmBox() as box:
        box.start()


def measure(runs: int) -> dict[str, list[float]]:
    """Each kind of run, `runs` times (the slow ones a tenth of that)."""
    code, few = "def f(x):\n    return x + 1\n", max(5, runs // 10)
    cases = [Case(args=(n,), expected=n + 1) for n in range(12)]
    pool = BoxPool(limits=repositories.LIMITS, preload=("pytest",), packages=pytest_packages())
    shop = repositories.load("shop")
    world = humaneval.build()
    answers = {key: problem["prompt"] + problem["canonical_solution"] for key, problem in humaneval.problems().items()}
    judging = [partial(world.judge, task, answers[task.id]) for task in world.tasks("test")]
    with WarmBox() as box:
        found = {
            "warm": times_ms(lambda: box.run({"mode": "calls", "code": code}), runs),
            "judge": times_ms(lambda: judge_cases(box, code, "f", cases), runs),
            "cold": times_ms(lambda: ColdBox().run(["/usr/bin/true"]), few),
            "start": times_ms(start_and_stop, few),
            "humaneval": [ms for judge in judging for ms in times_ms(judge, 1)],
            "repo_judge": times_ms(lambda: repositories.judge(pool, shop, shop.files), few),
            "repo_tests": times_ms(lambda: repositories.run_tests(pool, shop, shop.files), few),
        }
    pool.close()
    world.close()
    return found


WHAT = {
    "warm": "warm: fork, run, empty the box",
    "judge": "warm: a function on 12 hidden cases",
    "humaneval": "warm: HumanEval's tests in a second box",
    "repo_judge": "warm: the verdict on a repository of 6 modules",
    "repo_tests": "warm: pytest, 15 tests on 6 modules",
    "cold": "cold: a box for one command",
    "start": "a warm box up and down",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="warm runs; the slow kinds get a tenth")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    found = measure(arguments.runs)
    rows = [
        [WHAT[name], statistics.median(ms), statistics.quantiles(ms, n=20)[-1], min(ms)]
        for name, ms in ((name, found[name]) for name in WHAT)
    ]
    text = "\n\n".join(
        [
            "# Sandbox: what a run costs",
            f"`{command()}`, {arguments.runs} warm runs; wall-clock milliseconds.",
            table(["run", "median", "95th percentile", "lowest"], rows),
            f"Machine: {machine()}.",
        ]
    )
    summary = {f"{name}_ms_p50": round(statistics.median(ms), 3) for name, ms in found.items()}
    summary["warm_ms_p95"] = round(statistics.quantiles(found["warm"], n=20)[-1], 3)
    publish("sandbox", text, summary, as_json=arguments.json)


if __name__ == "__main__":
    main()
