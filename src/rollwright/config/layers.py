"""From YAML files and `key=value` words to one mapping, knowing of each key who set it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollwright.config.references import resolve
from rollwright.config.schema import Config, section_of
from rollwright.config.yaml_file import read_value, read_yaml
from rollwright.contracts import ConfigError

COMMAND_LINE = "command line"


@dataclass(kw_only=True)
class Layers:
    """What was set so far: later layers win key by key. Made for one configuration, then dropped."""

    cls: type[Config]
    values: dict[str, Any] = field(default_factory=dict)
    set_by: dict[str, str] = field(default_factory=dict)  # dotted key -> file, or COMMAND_LINE

    def add(self, layer: Mapping[str, Any], source: str) -> None:
        """Lay `layer` over what is there. Lists and plain values replace, sections merge."""
        # First, so that `engine=vllm` merges with the keys of `engine` that an earlier layer set.
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
            ConfigError: a reference points nowhere or to a section, or a value is still `???`.
        """
        return resolve(self.values)


def read_words(cls: type[Config], words: Sequence[str]) -> Layers:
    """Read the words of a command line in order: YAML files, `key.sub=value`, and `~key` (back to the default).

    Raises:
        ConfigError: a file is missing or is no mapping, or a word is of none of the three kinds.
    """
    layers = Layers(cls=cls)
    for word in words:
        if word.startswith("~"):
            layers.remove(word[1:])
        # Before the test for a file: the value of `data.path=x.yaml` is a text.
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
    _require_file(path, asked_by=including[-1] if including else None)
    # Only the chain above this file counts: two files may extend the same third one.
    if path.resolve() in [parent.resolve() for parent in including]:
        raise ConfigError(f"{including[-1]}: `extends` leads back to {path}; break the circle.")
    content = read_yaml(path)
    # Parents come first and are overwritten; `extends` itself is no key, so it is taken out.
    for parent in _parents(content.pop("extends", []), path):
        add_file(layers, path.parent / parent, (*including, path))
    _require_words_as_keys(layers.cls, content, path)
    layers.add(content, str(path))


def _parents(extends: Any, path: Path) -> list[str]:
    parents = [extends] if isinstance(extends, str) else extends
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise ConfigError(f"{path}: `extends` must be the name of a YAML file or a list of names, got {extends!r}.")
    # `Path.resolve` raises a bare ValueError at a NUL.
    if any(Path(parent).suffix not in (".yaml", ".yml") or "\0" in parent for parent in parents):
        raise ConfigError(f"{path}: `extends` names YAML files (.yaml or .yml), got {extends!r}.")
    return parents


def _require_file(path: Path, asked_by: Path | None) -> None:
    if path.is_file():
        return
    where = f"{asked_by}: `extends` names {path}, which " if asked_by else f"{path} "
    # All that follows looks for the most helpful message.
    if path.is_dir():
        raise ConfigError(f"{where}is a folder, not a YAML file.")
    if path.exists():
        raise ConfigError(f"{where}is no ordinary file.")
    if path.is_symlink():
        raise ConfigError(f"{where}is a link to {path.readlink()}, where nothing is.")
    near = difflib.get_close_matches(path.name, sorted(p.name for p in path.parent.glob("*.y*ml")), n=1)
    hint = f" Did you mean {path.parent / near[0]}?" if near else ""
    raise ConfigError(f"{where}does not exist.{hint}" if asked_by else f"no file {path}.{hint}")


def _require_words_as_keys(cls: type[Config], content: Mapping[Any, Any], path: Path, prefix: str = "") -> None:
    """Keys of sections are words: `on: 1` is not one, since YAML reads a bare on, off, yes or no as a truth value."""
    for name, value in content.items():
        if not isinstance(name, str):
            where = f" in `{prefix.rstrip('.')}`" if prefix else ""
            hint = "; YAML reads a bare on, off, yes and no as truth values" if isinstance(name, bool) else ""
            raise ConfigError(f"{path}: the key {name!r}{where} must be a word, got a {type(name).__name__}{hint}.")
        head, dot, rest = name.partition(".")
        # pydantic would call it unknown; here the message can say why.
        if dot and head in cls.model_fields:
            raise ConfigError(
                f"{path}: `{prefix}{name}`: in a YAML file a section is a line `{head}:` with `{rest}:` indented below "
                "it; dotted keys are for the command line."
            )
        section = section_of(cls.model_fields[name].annotation) if name in cls.model_fields else None
        if section and isinstance(value, Mapping):
            _require_words_as_keys(section, value, path, f"{prefix}{name}.")


def _override(word: str) -> dict[str, Any]:
    key, _, text = word.partition("=")
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(f"`{word}`: `{key}` is not a dotted key such as `rollout.group_size`.")
    content = read_value(text, source=f"`{word}`")
    for name in reversed(key.split(".")):
        content = {name: content}
    return dict(content)


def _expand_shorthands(cls: type[Config], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`engine: vllm` becomes `engine: {name: vllm}`, so that it can merge with the section's other keys."""
    expanded = {}
    for name, value in layer.items():
        section = section_of(cls.model_fields[name].annotation) if name in cls.model_fields else None
        # Only a value that is no mapping is short for something.
        if section and section.shorthand and not isinstance(value, Mapping):
            value = {section.shorthand: value}
        expanded[name] = _expand_shorthands(section, value) if section and isinstance(value, Mapping) else value
    return expanded


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for name, value in layer.items():
        if isinstance(value, Mapping):
            # A dict of its own: later layers must not write into the mapping that a caller gave.
            if not isinstance(into.get(name), dict):
                into[name] = {}
            _merge(into[name], value)
        else:
            into[name] = value


def _dotted(layer: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in layer.items():
        # The section itself too: an error may be about it as a whole, and names who set it.
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
