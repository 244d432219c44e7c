"""Commands that README and documentation show: each exists, and the settings of each run are settings of its recipe."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from rollwright.cli.commands import COMMANDS
from rollwright.cli.launching.recipe_names import launch_path, settings_word, yaml_names
from rollwright.config import Config, load_config, section_of
from rollwright.contracts import ConfigError
from rollwright.training.preflight import require_components, require_siblings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNS = ("train", "plan", "evaluate", "collect")


def shown(page: Path) -> list[str]:
    """Every `rollwright` command of a page: lines of its shell blocks, and cells of tables that hold one."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return [
        line for line in [*lines, *re.findall(r"\| `(rollwright [^`]+)` \|", text)] if line.startswith("rollwright ")
    ]


COMMANDS_SHOWN = sorted({line for page in PAGES for line in shown(page)})


def recipe_settings(name: str) -> type[Config]:
    """The configuration class of a recipe."""
    module = importlib.import_module(f"rollwright.recipes.{name}")
    own = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Config)]
    own = [cls for cls in own if cls.__module__ == module.__name__]
    sections = {section_of(field.annotation) for cls in own for field in cls.model_fields.values()}
    [whole] = [cls for cls in own if cls not in sections]
    return whole


def load(command: str) -> Config | None:
    """The settings of a command that starts a recipe, held against what is installed; None for any other command.

    Raises:
        ConfigError: the command names what is not there.
    """
    _, name, *words = shlex.split(command, comments=True)
    if name not in COMMANDS:
        raise ConfigError(f"no command {name}")
    if name not in RUNS or "--help" in words:
        return None
    recipe = words.pop(0) if name in ("train", "plan") else name
    if "--config-file" in words:
        place = words.index("--config-file")
        launch_path(words[place + 1])
        del words[place : place + 2]
    words = [word for word in words if word not in ("--plan", "--check")]
    files = [word for word in words if "=" not in word and word[0] not in "-~"]
    if not all(word.removesuffix(".yaml") in yaml_names() for word in files):
        return None  # a file that the reader writes
    config = load_config(recipe_settings(recipe), [settings_word(word) for word in words])
    if not any(re.search(r"\.name=\w+:", word) for word in words):  # a module that the reader writes
        require_components(config)
    require_siblings(config)
    return config


def test_the_reward_of_the_tutorial_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "tutorials" / "own_reward.md").read_text(encoding="utf-8")
    [reward, proof] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "short_and_right.py").write_text(reward, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict = {}
    exec(compile(proof, "own_reward.md", "exec"), names)
    scores = names["ShortAndRight"]().score(names["group"])
    assert [score.value for score in scores] == pytest.approx([0.99, -0.03])


def test_there_is_something_to_check() -> None:
    runs = [line for line in COMMANDS_SHOWN if line.split()[1] in RUNS]
    assert len(COMMANDS_SHOWN) > 50 and len(runs) > 35


@pytest.mark.parametrize("command", COMMANDS_SHOWN)
def test_a_command_of_the_documentation_can_be_started(command: str) -> None:
    load(command)


@pytest.mark.parametrize(
    "command",
    [
        "rollwright trian grpo text/maze_grpo",
        "rollwright train grpo text/maze_grpo algorithm.presett=gspo",
        "rollwright train grpo text/maze_grpo algorithm.preset=gspoo",
        "rollwright train grpo text/maze_grpo world.name=text.mase",
        "rollwright train grpo text/maze_grpo --config-file cpu_zero9",
    ],
)
def test_a_command_that_is_wrong_would_be_found(command: str) -> None:
    with pytest.raises(ConfigError):
        load(command)
