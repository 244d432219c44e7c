"""What the README shows is true: its Python runs, its files are there, it fits on one screen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rollwright

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
[CODE] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SMALL = {
    "sft": {"data.per_task": 4, "sft.epochs": 1, "model.tiny_hidden": 32},
    "grpo": {
        "run.steps": 1,
        "model.path": "runs/maze_sft/policy",
        "rollout.groups_per_step": 2,
        "rollout.group_size": 2,
        "rollout.max_turns": 4,
        "evaluation.seeds_per_task": 2,
        "evaluation.max_turns": 4,
    },
}


@pytest.mark.slow
def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, but with settings that make both runs small."""
    monkeypatch.chdir(tmp_path)
    train = rollwright.train

    def small(recipe: str, *words: str, settings: dict | None = None, **others: object) -> object:
        return train(recipe, *words, settings={**(settings or {}), **SMALL[recipe]}, quiet=True, **others)

    monkeypatch.setattr(rollwright, "train", small, raising=False)
    exec(compile(CODE, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert ", -" in printed[0] and len(printed) > 4 and printed[1].startswith("double_t")
    assert "final" in printed[-1] and "start" in printed[-1]


def test_every_file_it_names_is_there() -> None:
    named = set(re.findall(r"\]\(([\w/.-]+)(?:#[\w-]*)?\)", README))
    named |= set(re.findall(r"recipes/[\w/]+\.(?:py|yaml)", README))
    assert len(named) > 15
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing


def test_it_stays_short() -> None:
    assert len(README.splitlines()) <= 100, "a README answers in one screen; details belong in docs/"
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 10
