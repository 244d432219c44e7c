"""`${other.key}` inside a value stands for that key's value. Nothing else does: no environment, no functions.

What a reference brings in is written into config.yaml like any other setting, so a secret must not come this way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rollwright.contracts import ConfigError

# A backslash before it keeps `${` as text.
_REFERENCE = re.compile(r"(?<!\\)\$\{([^{}]*)\}")
_KEY = re.compile(r"[\w-]+(\.[\w-]+)*")
_MISSING = "???"
_LONGEST = 10_000
_DEEPEST, _MOST = 4, 20  # references behind one another, and in one text: together they bound the work


def resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with every reference replaced by the plain value that it names.

    A text that is one reference becomes that value, whatever its type; inside a longer text it becomes part of it.

    Raises:
        ConfigError: a reference names no key, a section or itself, is of another kind (`${env:NAME}`), or a value is
            still `???`.
    """
    return {name: _resolved(value, values, name, ()) for name, value in values.items()}


def _resolved(value: Any, root: Mapping[str, Any], path: str, through: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {name: _resolved(entry, root, f"{path}.{name}", through) for name, entry in value.items()}
    if isinstance(value, list):
        return [_resolved(entry, root, f"{path}.{place}", through) for place, entry in enumerate(value)]
    if not isinstance(value, str):
        return value
    if value == _MISSING:
        raise ConfigError(f"`{path}` is still `???`: set it in the YAML or as `{path}=...`.")
    return _text(value, root, path, through)


def _text(value: str, root: Mapping[str, Any], path: str, through: tuple[str, ...]) -> Any:
    whole = _REFERENCE.fullmatch(value)
    # The value keeps its type: `${run.steps}` alone stays a number.
    if whole:
        return _named(whole.group(1), root, path, through)
    if len(_REFERENCE.findall(value)) > _MOST:
        raise ConfigError(f"`{path}` holds more than {_MOST} references, which is the most of one text.")
    text = _REFERENCE.sub(lambda found: _as_text(_named(found.group(1), root, path, through)), value)
    # An opening without its end; taken for plain text it would reach the run unnoticed.
    if re.search(r"(?<!\\)\$\{", value) and not _REFERENCE.search(value):
        raise ConfigError(f"`{path}`: the reference in it has no end: write it as `${{other.key}}`.")
    # A long text that no reference made is the user's own affair.
    if len(text) > _LONGEST and text != value:
        raise ConfigError(f"`{path}` becomes longer than {_LONGEST} characters by its references.")
    return text.replace("\\${", "${")


def _named(reference: str, root: Mapping[str, Any], path: str, through: tuple[str, ...]) -> Any:
    name = reference.strip()
    if not _KEY.fullmatch(name):
        raise ConfigError(
            f"`{path}`: the reference `${{{name}}}` cannot be resolved: only `${{other.key}}` is known, from the top "
            "of the settings. The environment is not read, since a secret would be written into config.yaml; where a "
            "key is needed, name its variable (`key_variable`)."
        )
    # The depth is bounded as well: each level may multiply the text by the references of one.
    if name in through or len(through) >= _DEEPEST:
        why = "it leads back to itself" if name in through else f"more than {_DEEPEST} stand behind one another"
        raise ConfigError(f"`{path}`: the reference `${{{name}}}` cannot be resolved: {why}.")
    found: Any = root
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ConfigError(
                f"`{path}`: the reference `${{{name}}}` cannot be resolved: no file or word sets `{name}`."
            )
        found = found[part]
    if isinstance(found, Mapping | list):
        raise ConfigError(f"`{path}`: the reference `${{{name}}}` cannot be resolved: `{name}` is not a single value.")
    return _resolved(found, root, name, (*through, name))


def _as_text(value: Any) -> str:
    # As YAML writes them, not as Python does: true, false, null.
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
