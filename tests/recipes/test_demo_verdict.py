"""The last line of the demo says what its numbers say, whatever comes out: gains, no change, a loss."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rollwright.contracts import StopReason, episode_seed
from rollwright.evaluation import EpisodeRow, Evaluation, compare, load_evaluation, save_evaluation
from rollwright.recipes.demo import summary

PAGES = ("click-button", "click-dialog", "click-option", "enter-text", "focus-text", "login-user")
NUMBERS = re.compile(r"([+-]\d\.\d+) \[(-?\d\.\d+), (-?\d\.\d+)\]")


def judged(folder: Path, name: str, rates: np.ndarray, draws: np.random.Generator, starts: int = 50) -> None:
    rows = tuple(
        EpisodeRow(
            task=page,
            seed=episode_seed("test", page, start),
            attempt=0,
            success=bool(draws.random() < rate),
            total_return=0.0,
            num_turns=3,
            stop_reason=StopReason.TERMINATED,
        )
        for page, rate in zip(PAGES, rates, strict=True)
        for start in range(starts)
    )
    save_evaluation(
        Evaluation(name=name, split="test", policy="p", version=0, temperature=1.0, rows=rows, sampling={}), folder
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gain", [0.24, 0.02, 0.0, -0.15])
def test_the_closing_line_agrees_with_the_numbers(seed: int, gain: float, tmp_path: Path) -> None:
    draws = np.random.default_rng(seed)
    rates = draws.uniform(0.2, 0.7, len(PAGES))
    judged(tmp_path / "before", "before", rates / 4, draws, starts=15)
    judged(tmp_path / "grpo", "start", rates, draws)
    judged(tmp_path / "grpo", "final", rates + gain, draws)
    last = summary(tmp_path / "before", tmp_path / "grpo", minutes=20.0).splitlines()[-1]
    start, final = (load_evaluation(tmp_path / "grpo" / "eval" / f"{name}.json") for name in ("start", "final"))
    seen = np.mean([row.success for row in final.rows]) - np.mean([row.success for row in start.rows])
    numbers = NUMBERS.search(last)
    assert numbers is not None and "on these 6 tasks" in last and "(95% CI)" in last
    point, low, high = map(float, numbers.groups())
    if last.startswith("after RL is better than after SFT"):
        assert low > 0 and point == pytest.approx(seen, abs=0.006)
    elif last.startswith("after SFT is better than after RL"):
        assert low > 0 and point == pytest.approx(-seen, abs=0.006)
    else:
        assert last.startswith("no significant difference") and low <= 0 <= high
    if abs(gain) > 0.1:
        assert last.startswith("after RL is better") == (gain > 0)
    assert last == compare(start, final, name_a="after SFT", name_b="after RL").verdict()
