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

from rollwright.contracts import ConfigError

_MOST_BYTES = 256 << 10
_MOST_VALUES = 20_000
_DEEPEST = 50
_PREFIX = "tag:yaml.org,2002:"
# SafeLoader would also take !!binary, !!set and !!omap, which no setting is.
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
    node, content = _parsed(_text_of(path), str(path))
    if node is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, got a {type(content).__name__}.")
    return content


def read_value(text: str, source: str) -> Any:
    """What one value means, read as in a file: of a word `key=value`, say. Of nothing, None.

    Args:
        source: what the value is called in messages.

    Raises:
        ConfigError: it cannot be read, or a part of it is a comment, which a word is not meant to have.
    """
    node, content = _parsed(text, source)
    # Of `a #b` YAML reads `a`, and of `#b` nothing: what was cut off has to be found in the text.
    rest = text[node.end_mark.index :] if isinstance(node, ScalarNode) else "" if node else text
    if rest.lstrip().startswith("#"):
        raise ConfigError(f"{source}: YAML takes what begins with # for a comment: quote the value, as \"'a #b'\".")
    return content


def _parsed(text: str, source: str) -> tuple[Node | None, Any]:
    """The node that a text describes, checked, and its content; (None, None) of an empty one."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        # On the nodes, before any value is made: aliases are still references, and cost nothing.
        _check(node, source)
        return node, loader.construct_document(node)  # type: ignore[no-untyped-call]
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_said(source, error)) from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{source} holds the character U+{int(error.character):04X} at position {error.position}, which YAML does "
            "not allow: is it a text file?"
        ) from error
    # The parser itself recurses, before `_check` can count how deep the text goes.
    except RecursionError as error:
        raise ConfigError(f"{source} is nested too deeply for settings, which is {_DEEPEST} at most") from error
    # ValueError: Python reads no whole number of more than 4300 digits.
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"{source} cannot be read as YAML: {' '.join(str(error).split())}") from error


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            # One byte more than allowed tells a longer file, without reading all of it.
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"{path} has more than {_MOST_BYTES >> 10} KiB: that is not a settings file")
    try:
        # Some editors on Windows put a byte order mark in front.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path} cannot be read as YAML: it is not UTF-8 text (byte 0x{raw[error.start]:02x} in line {line}); save "
            "it as UTF-8"
        ) from error


def _said(source: str, error: yaml.MarkedYAMLError) -> str:
    """The parser's finding in one sentence, without the text around it, which may be a secret."""
    mark = error.problem_mark or error.context_mark
    where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
    problem = " ".join(filter(None, (error.context, error.problem)))
    if "'\\t'" in problem:
        return f"{where}: a tab stands where YAML wants blanks; indent by blanks alone"
    return f"{where} cannot be read as YAML: {problem or 'unknown mistake'}"


def _check(root: Node, source: str) -> None:
    """Raises ConfigError for what plain settings have no use for: tags, keys written twice, values without end."""
    sizes: dict[int, int] = {}  # of a node that is referred to many times, once
    _size(root, source, sizes, above=())
    if sizes[id(root)] > _MOST_VALUES:
        raise ConfigError(
            f"{source} holds more than {_MOST_VALUES} values once its aliases (`*name`) are written out: that is no "
            "file of settings"
        )


def _size(node: Node, source: str, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    line = node.start_mark.line + 1
    # First, since the next check would call an anchor that holds itself merely too deep.
    if id(node) in above:
        raise ConfigError(f"{source}, line {line}: the anchor here contains itself")
    if len(above) >= _DEEPEST:
        raise ConfigError(
            f"{source}, line {line}: nested too deeply for a file of settings, which is {_DEEPEST} at most"
        )
    # Aliases of aliases ("billion laughs") would take exponential time without this; the size still counts each use.
    if id(node) in sizes:
        return sizes[id(node)]
    if node.tag not in _PLAIN:
        tag = node.tag.replace(_PREFIX, "!!")
        raise ConfigError(f"{source}, line {line}: the tag {tag} is not taken; write plain text, numbers and lists")
    if isinstance(node, MappingNode):
        _each_key_once(node, source)
    _means_what_it_says(node, source)
    size = 1 + sum(_size(child, source, sizes, (*above, id(node))) for child in _children(node))
    sizes[id(node)] = size
    return size


def _means_what_it_says(node: Node, source: str) -> None:
    """YAML 1.1 reads 010 in base 8 and 1:30 in base 60: another number than the one that stands there."""
    if node.tag not in (f"{_PREFIX}int", f"{_PREFIX}float"):
        return
    base = 60 if ":" in node.value else 8 if re.fullmatch(r"[-+]?0[0-7_]+", node.value) else 10
    if base != 10:
        raise ConfigError(
            f"{source}, line {node.start_mark.line + 1}: YAML reads {node.value} as a number in base {base}; write it "
            "in base 10, or in quotes where it is a text"
        )


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, SequenceNode):
        yield from node.value


def _each_key_once(node: MappingNode, source: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            raise ConfigError(f"{source}, line {line}: a key must be a word, not a list or a section")
        # Several `<<` are one way to merge several sections.
        if key.value in lines and key.tag != f"{_PREFIX}merge":
            raise ConfigError(
                f"{source}: the key `{key.value}` stands twice in one section, in lines {lines[key.value]} and {line}; "
                "remove one of them"
            )
        lines[key.value] = line
