"""One YAML file as plain data: bounded, without tags, every key once, each mistake with its line.

A recipe's YAML names Python to run (`package.module:Attribute`), so it is as trusted as a script. Reading it alone
still runs nothing, and a file of another kind that got here by mistake costs no more than its size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from rollwright.errors import ConfigError

_MOST_BYTES = 256 << 10
_MOST_VALUES = 20_000
_DEEPEST = 50
_PREFIX = "tag:yaml.org,2002:"
_PLAIN = {_PREFIX + name for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge")}


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-6 as a number (YAML 1.1 wants a dot) and dates as the text that they are."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_PREFIX}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    f"{_PREFIX}float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[Any, Any]:
    """The mapping that a YAML file holds; an empty file holds an empty one.

    Raises:
        ConfigError: it cannot be read, or is not plain `key: value` data; with the line where it is known.
    """
    text = _text_of(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}
        _check(node, path)
        content = loader.construct_document(node)  # type: ignore[no-untyped-call]
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_said(path, error)) from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{path} holds the character U+{int(error.character):04X} at position {error.position}, which YAML does "
            "not allow: is it a text file?"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply for a file of settings, which is {_DEEPEST} at most") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, got a {type(content).__name__}.")
    return content


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"{path} has more than {_MOST_BYTES >> 10} KiB: that is no file of settings")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} cannot be read as YAML: it is not UTF-8 text (byte 0x{raw[error.start]:02x} in line {line}); save "
            "it as UTF-8"
        ) from error


def _said(path: Path, error: yaml.MarkedYAMLError) -> str:
    """The parser's finding in one sentence, without the text around it, which may be a secret."""
    mark = error.problem_mark or error.context_mark
    where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
    problem = " ".join(filter(None, (error.context, error.problem)))
    if "'\\t'" in problem:
        return f"{where}: a tab stands where YAML wants blanks; indent by blanks alone"
    return f"{where} cannot be read as YAML: {problem or 'unknown mistake'}"


def _check(root: Node, path: Path) -> None:
    """Raises ConfigError for what plain settings have no use for: tags, keys written twice, values without end."""
    sizes: dict[int, int] = {}  # of a node that is referred to many times, once
    _size(root, path, sizes, above=())
    if sizes[id(root)] > _MOST_VALUES:
        raise ConfigError(
            f"{path} holds more than {_MOST_VALUES} values once its aliases (`*name`) are written out: that is no file "
            "of settings"
        )


def _size(node: Node, path: Path, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    line = node.start_mark.line + 1
    if id(node) in above:
        raise ConfigError(f"{path}, line {line}: the anchor here contains itself")
    if len(above) >= _DEEPEST:
        raise ConfigError(f"{path}, line {line}: nested too deeply for a file of settings, which is {_DEEPEST} at most")
    if id(node) in sizes:
        return sizes[id(node)]
    if node.tag not in _PLAIN:
        tag = node.tag.replace(_PREFIX, "!!")
        raise ConfigError(f"{path}, line {line}: the tag {tag} is not taken; write plain text, numbers and lists")
    if isinstance(node, MappingNode):
        _each_key_once(node, path)
    size = 1 + sum(_size(child, path, sizes, (*above, id(node))) for child in _children(node))
    sizes[id(node)] = size
    return size


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, SequenceNode):
        yield from node.value


def _each_key_once(node: MappingNode, path: Path) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise ConfigError(f"{path}, line {line}: a key must be a word, not a list or a section")
        if key.value in lines and key.tag != f"{_PREFIX}merge":
            raise ConfigError(
                f"{path}: the key `{key.value}` stands twice in one section, in lines {lines[key.value]} and {line}; "
                "remove one of them"
            )
        lines[key.value] = line
