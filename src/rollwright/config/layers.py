"""From YAML files and `key=value` words to one mapping, knowing of each key who set it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rollwright.config.model import Config, section_of
from rollwright.errors import ConfigError

COMMAND_LINE = "command line"


@dataclass(kw_only=True)
class Layers:
    """What was set so far: later layers win key by key. Made for one configuration, then dropped."""

    cls: type[Config]
    values: dict[str, Any] = field(default_factory=dict)
    set_by: dict[str, str] = field(default_factory=dict)  # dotted key -> file, or COMMAND_LINE

    def add(self, layer: Mapping[str, Any], source: str) -> None:
        """Lay `layer` over what is there. Lists and plain values replace, sections merge."""
        expanded = _expand_shorthands(self.cls, layer)
        _merge(self.values, expanded)
        self.set_by.update(dict.fromkeys(_dotted(expanded), source))

    def remove(self, path: str) -> None:
        """Forget a key that an earlier layer set.

        Raises:
            ConfigError: nothing set it.
        """
        *parents, last = path.split(".")
        section: Any = self.values
        for name in parents:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise ConfigError(f"`~{path}`: no earlier file or word sets `{path}`, so there is nothing to remove.")
        del section[last]

    def resolved(self) -> dict[str, Any]:
        """The mapping with `${other.key}` references replaced.

        Raises:
            ConfigError: a reference points nowhere, or a value is still `???`.
        """
        try:
            plain = OmegaConf.to_container(OmegaConf.create(self.values), resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"a reference cannot be resolved: {_first_line(error)}") from error
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}


def read_words(cls: type[Config], words: Sequence[str]) -> Layers:
    """Read the words of a command line in order: YAML files, `key.sub=value`, and `~key` (back to the default).

    Raises:
        ConfigError: a file is missing or is no mapping, or a word is of none of the three kinds.
    """
    layers = Layers(cls=cls)
    for word in words:
        if word.startswith("~"):
            layers.remove(word[1:])
        elif "=" in word and not word.startswith("-"):
            layers.add(_override(word), COMMAND_LINE)
        elif Path(word).suffix in (".yaml", ".yml"):
            add_file(layers, Path(word))
        else:
            raise ConfigError(
                f"`{word}` is neither a YAML file, `key=value`, `~key`, --help nor --plan. "
                "Keys are set without dashes, for example `rollout.group_size=4`."
            )
    return layers


def add_file(layers: Layers, path: Path, including: tuple[Path, ...] = ()) -> None:
    """Add a YAML file, after the files that its `extends` names (relative to itself).

    Raises:
        ConfigError: the file is missing, is not valid YAML, holds no mapping, or includes itself.
    """
    if path.resolve() in including:
        raise ConfigError(f"{path}: `extends` leads back to this file; break the circle.")
    content = _read_yaml(path)
    parents = content.pop("extends", [])
    for parent in [parents] if isinstance(parents, str) else parents:
        add_file(layers, path.parent / str(parent), (*including, path.resolve()))
    layers.add(content, str(path))


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"no file {path}.{hint}")
    try:
        # OmegaConf's loader reads 1e-6 as a number (YAML 1.1 calls it a string) and refuses a key written twice.
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, got a {type(content).__name__}.")
    return {str(key): value for key, value in content.items()}


def _override(word: str) -> dict[str, Any]:
    key = word.split("=", 1)[0]
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(f"`{word}`: `{key}` is not a dotted key such as `rollout.group_size`.")
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist([word]), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"`{word}`: the value cannot be read: {_first_line(error)}") from error
    assert isinstance(content, dict)
    return {str(name): value for name, value in content.items()}


def _expand_shorthands(cls: type[Config], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`engine: vllm` becomes `engine: {name: vllm}`, so that it can merge with the section's other keys."""
    expanded = {}
    for name, value in layer.items():
        section = section_of(cls.model_fields[name].annotation) if name in cls.model_fields else None
        if section and section.shorthand and not isinstance(value, Mapping):
            value = {section.shorthand: value}
        expanded[name] = _expand_shorthands(section, value) if section and isinstance(value, Mapping) else value
    return expanded


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for name, value in layer.items():
        if isinstance(value, Mapping):
            if not isinstance(into.get(name), dict):
                into[name] = {}
            _merge(into[name], value)
        else:
            into[name] = value


def _dotted(layer: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in layer.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
