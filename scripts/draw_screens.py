"""Draw the pictures of `rollwright view` in docs/images: three small maze runs are trained, and Chromium looks at them.

.venv/bin/python scripts/draw_screens.py                   # trains the runs, about four minutes on two cores
.venv/bin/python scripts/draw_screens.py --runs FOLDER     # looks at runs that an earlier call left there
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 300_000
BROWSERS = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "google-chrome")
RUNS = {
    "maze_grpo": (),
    "maze_grpo_seed1": ("run.seed=1",),
    "maze_grpo_high_rate": ("learner.learning_rate=2.0e-3",),
}
"""Folder -> what differs from the shipped settings."""
SMALL = ("run.steps=14", "evaluation.at_start=true", "evaluation.seeds_per_task=8", "rollout.groups_per_step=6")


def main() -> None:
    """Train where it is asked for, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", metavar="FOLDER", type=Path, help="where the runs are, or shall be trained")
    given = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        folder = given or Path(scratch) / "runs"
        if not (folder / "maze_grpo" / "eval" / "final.json").exists():
            train(folder)
        draw(folder)


def train(folder: Path) -> None:
    """SFT on walks that are mostly random, then GRPO from there, three times."""
    play("sft.py", "text/maze_sft.yaml", f"run.folder={folder / 'maze_sft'}")
    for name, changes in RUNS.items():
        start = f"model.path={folder / 'maze_sft' / 'policy'}"
        play("grpo.py", "text/maze_grpo.yaml", f"run.folder={folder / name}", start, *SMALL, *changes)


def play(recipe: str, settings: str, *changes: str) -> None:
    """Run one recipe as a user would."""
    command = [sys.executable, str(ROOT / "recipes" / recipe), str(ROOT / "recipes" / settings), *changes]
    environment = {"OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **os.environ}
    print("$", recipe, settings, *changes, flush=True)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def draw(folder: Path) -> None:
    """Serve the runs and take the pictures."""
    from playwright.sync_api import sync_playwright

    from rollwright.view import PageServer, RunCatalogue

    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit("no Chromium found: apt install chromium-headless-shell")
    server = PageServer(RunCatalogue([folder]), port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for name, address, height, dark in shots(browser, server.url):
            take(browser, server.url + address, IMAGES / f"view_{name}.png", height, dark)
        browser.close()
    server.shutdown()


def shots(browser: Any, home: str) -> list[tuple[str, str, int, bool]]:
    """(picture, address, height in pixels, dark) of each picture."""
    run = "api/run/maze_grpo/episodes"
    # An early step, where the siblings of a group still part; the longest success shows most colours.
    group = asked(browser, home, f"{run}?tag=step_1&success=yes&sort=-turns")["rows"]
    row = next(row for row in group if row["turns"] <= 12)
    return [
        ("runs", "#/runs?runs=maze_grpo,maze_grpo_seed1", 440, False),
        ("curves", f"#/curves?runs={','.join(RUNS)}&smooth=0.4", 880, False),
        ("episode", f"#/episode?run=maze_grpo&key={row['key']}&turn=2&lens=advantage", 760, False),
        ("group", f"#/group?run=maze_grpo&group={row['group']}&lens=advantage", 820, True),
        ("compare", "#/compare?a=maze_grpo/start&b=maze_grpo/final", 760, False),
    ]


def asked(browser: Any, home: str, path: str) -> Any:
    """The server's answer to one question."""
    context = browser.new_context()
    answer = context.request.get(home + path).json()
    context.close()
    return answer


def take(browser: Any, address: str, target: Path, height: int, dark: bool) -> None:
    """One picture of one page, when nothing is on its way any more."""
    context = browser.new_context(viewport={"width": 1320, "height": height}, color_scheme="dark" if dark else "light")
    tab = context.new_page()
    tab.goto(address)
    tab.wait_for_selector("main h1")
    tab.wait_for_function("() => !document.querySelector('main .waiting')")
    if token := tab.query_selector(".turn .tokens.action .tok:nth-child(2)"):
        token.hover()
    if chart := tab.query_selector(".curve .u-over"):
        chart.wait_for_element_state("stable")
    tab.wait_for_load_state("networkidle")
    tab.screenshot(path=target)
    context.close()
    size = target.stat().st_size
    print(f"{target.relative_to(ROOT)}: {size / 1000:.0f} kB")
    if size > MAX_BYTES:
        raise SystemExit(f"{target.name} has {size} bytes; a picture of the documentation has {MAX_BYTES} at most")


if __name__ == "__main__":
    main()
