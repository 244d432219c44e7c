"""The page on own environments stays true: its code runs, its names load, and its checks really check."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollwright.checks.env_check import check_env
from rollwright.config.components import create
from rollwright.contracts.environment import StepResult
from rollwright.contracts.errors import ContractViolation

PAGE = (Path(__file__).parents[2] / "docs" / "own_environment.md").read_text(encoding="utf-8")
ENVIRONMENT, REWARD, CHECKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(CONFIG,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def run_page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "own_environment_page"}
    for block in (ENVIRONMENT, REWARD, CHECKS):
        exec(compile(block, "docs/own_environment.md", "exec"), names)
    return names


def test_the_code_of_the_page_runs_and_passes_its_checks():
    assert {"BackwardsWorld", "FewTries", "attempts"} <= run_page().keys()


def test_the_checks_of_the_page_would_notice_a_broken_environment():
    page = run_page()

    class Sloppy(page["Backwards"]):  # type: ignore[misc]
        def step(self, action: str) -> StepResult:
            return StepResult(observation={"word": self.word})  # type: ignore[arg-type]

    class SloppyWorld(page["BackwardsWorld"]):  # type: ignore[misc]
        def make(self) -> Sloppy:
            return Sloppy()

    with pytest.raises(ContractViolation, match="must give an Observation or text"):
        check_env(SloppyWorld(), actions=["enots"])


def test_the_names_of_the_page_load_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "backwards.py").write_text(ENVIRONMENT)
    (tmp_path / "few_tries.py").write_text(REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load(CONFIG)
    try:
        assert create("envs", config["world"]["name"]).tasks("test")[0].id == "grape"
        assert create("rewards", config["reward"]["name"]).name == "few_tries"
    finally:
        for module in ("backwards", "few_tries"):
            sys.modules.pop(module, None)


def test_the_environment_and_the_reward_are_as_short_as_promised():
    def lines_of(block: str) -> int:
        return sum(bool(line.strip()) for line in block.splitlines())

    assert lines_of(ENVIRONMENT) <= 35 and lines_of(REWARD) <= 12
