"""docs/rewards.md knows every reward and every option, and what it shows can be written in a configuration."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path

import pytest
import yaml

from rollwright.cli.commands import command_module
from rollwright.config.components import available, load
from rollwright.contracts.errors import MissingDependency
from rollwright.training.open_world import RewardSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^rollwright (score .*)$", PAGE.replace("\\\n", ""), re.MULTILINE)


def takes(name: str) -> set[str]:
    """The options of a reward."""
    return set(inspect.signature(load("rewards", name)).parameters)


@pytest.mark.parametrize("name", available("rewards"))
def test_every_reward_and_option_is_on_the_page(name: str):
    assert f"| `{name}` |" in PAGE
    try:
        options = inspect.signature(load("rewards", name)).parameters
    except MissingDependency as error:
        pytest.skip(str(error))
    assert [option for option in options if f"`{option}`" not in PAGE] == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_names_a_reward_and_its_options(example: str):
    settings = RewardSettings.model_validate(yaml.safe_load(example)["reward"])
    named = {settings.name: settings.options, **settings.options.get("rewards", {})}
    assert [name for name, options in named.items() if set(options) - takes(name)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str):
    parser = argparse.ArgumentParser()
    command_module("score").add(parser)
    found = parser.parse_args(command.split()[1:])
    name, *options = found.reward
    assert {option.split("=")[0] for option in options} <= takes(name)


def test_there_are_examples_and_commands():
    assert len(EXAMPLES) == 5 and len(COMMANDS) == 3
