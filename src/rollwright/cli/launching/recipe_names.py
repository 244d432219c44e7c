"""Recipes, YAML files and launch configurations by their names, wherever the package is installed.

Files are listed, nothing is imported: completion and errors call this too, and they have to answer at once.
"""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from pathlib import Path

from rollwright.contracts import ConfigError

_YAML = (".yaml", ".yml")


def recipe_names() -> list[str]:
    """The recipes that ship with the package, such as `grpo`."""
    return sorted(file.stem for file in _folder("recipes").glob("*.py") if file.stem != "__init__")


def yaml_names() -> list[str]:
    """The shipped files of settings, such as `text/maze_grpo`."""
    home = _folder("recipes")
    return sorted(file.relative_to(home).with_suffix("").as_posix() for file in home.rglob("*.yaml"))


def launch_names() -> list[str]:
    """The shipped configurations of `accelerate launch`, such as `cpu`."""
    return sorted(file.stem for file in _folder("accelerate_configs").glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe: a shipped one by its name, one's own by its path.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    # Only with its ending, so that a file `grpo` here does not hide the recipe of that name.
    if name.endswith(".py") and Path(name).is_file():
        return Path(name)
    stem = name.removesuffix(".py").removeprefix("recipes/")
    if stem in recipe_names():
        return _folder("recipes") / f"{stem}.py"
    near = difflib.get_close_matches(stem, recipe_names(), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    raise ConfigError(
        f"there is no recipe `{name}`.{hint} The recipes are {', '.join(recipe_names())}; one of your own is named by "
        "its path, such as ./my_recipe.py."
    )


def settings_word(word: str) -> str:
    """A word of a recipe's command line, with the name of a YAML file replaced by its path.

    A file of one's own comes first; then the shipped one of that name, with or without `.yaml` and `recipes/`.

    Raises:
        ConfigError: it can only be meant as a file, and no such file exists.
    """
    # Overrides and options are the recipe's own to read.
    if "=" in word or word.startswith(("-", "~")) or Path(word).is_file():
        return word
    name = word.removesuffix(".yaml").removesuffix(".yml")
    if name == word and Path(f"{word}.yaml").is_file():
        return f"{word}.yaml"
    name = name.removeprefix("./").removeprefix("recipes/")
    if name in yaml_names():
        return str(_folder("recipes") / f"{name}.yaml")
    if Path(word).exists():  # a folder, say: the recipe says what is wrong with it
        return word
    raise ConfigError(_no_such_settings(word, name))


def launch_path(name: str) -> Path:
    """The file of a launch configuration: a shipped one by its name, one's own by its path.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    # A path is never looked up among the shipped names: a missing file must not become another one.
    if "/" in name or name.endswith(_YAML):
        if Path(name).is_file():
            return Path(name)
    elif name in launch_names():
        return _folder("accelerate_configs") / f"{name}.yaml"
    near = difflib.get_close_matches(Path(name).stem, launch_names(), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    raise ConfigError(
        f"--config-file {name}: there is no such file.{hint} It takes a path, or one of {', '.join(launch_names())}."
    )


def _folder(package: str) -> Path:
    """Where a package of plug-ins lies; it is found, not imported."""
    spec = find_spec(f"rollwright.{package}")
    if spec is None or spec.origin is None:
        raise ConfigError(f"the package rollwright.{package} is not installed: install rollwright again")
    return Path(spec.origin).parent


def _no_such_settings(word: str, name: str) -> str:
    names = yaml_names()
    # The last part counts too: `maze_grpo` should find `text/maze_grpo`.
    by_last = {known.rpartition("/")[2]: known for known in names}
    near = difflib.get_close_matches(name, names, n=1) or [
        by_last[last] for last in difflib.get_close_matches(name.rpartition("/")[2], list(by_last), n=1)
    ]
    here = difflib.get_close_matches(f"{name}.yaml", sorted(file.name for file in Path.cwd().glob("*.yaml")), n=1)
    hint = f" Did you mean `{(here or near)[0]}`?" if here or near else ""
    return (
        f"`{word}` is neither a YAML file here, nor the name of a shipped one, nor `key=value`.{hint} Keys are set "
        "without dashes, for example `run.steps=10`; shipped files are named like `text/maze_grpo`."
    )
