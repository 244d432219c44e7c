"""Keys that do not exist: all of one section in one sentence, each with the nearest name that does."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from rollwright.config.schema import Config, all_keys, field_at, section_of

_FOREIGN = 2
"""Unknown keys of one file, none of them like a known one, from which on it is taken for another recipe's."""


def unknown_keys(cls: type[Config], paths: Sequence[str], set_by: Mapping[str, str]) -> list[str]:
    """What to say of keys that do not exist.

    Args:
        paths: dotted, as they were given.
        set_by: dotted key -> the file that set it, or "command line".

    Returns:
        One text for each section and source, and one more for a file that seems to be meant for another recipe.
    """
    grouped: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        grouped.setdefault((source_of(set_by, path), path.rpartition(".")[0]), []).append(path)
    said = [_of_section(cls, source, parent, group) for (source, parent), group in grouped.items()]
    return [*said, *_foreign_files(cls, paths, set_by)]


def source_of(set_by: Mapping[str, str], path: str) -> str:
    """Who set a key, or the section or list that holds it; empty where nobody did."""
    # An element of a list has no entry of its own.
    while path and path not in set_by:
        path = path.rpartition(".")[0]
    return set_by.get(path, "")


def section_at(cls: type[Config], path: str) -> type[Config] | None:
    """The section that a dotted path names; None where it names a plain key, or nothing."""
    if not path:
        return cls
    field = field_at(cls, path)
    return section_of(field.annotation) if field else None


def _of_section(cls: type[Config], source: str, parent: str, paths: Sequence[str]) -> str:
    section = section_at(cls, parent)
    here = list(section.model_fields) if section else []
    named = ", ".join(f"`{path}`" for path in paths)
    hints = [hint for path in paths if (hint := _hint(cls, path, here))]
    before = f"{source}: " if source else ""
    return (
        f"{before}unknown {'key' if len(paths) == 1 else 'keys'} {named}.{''.join(hints)} Keys here: {', '.join(here)}."
    )


def _hint(cls: type[Config], path: str, here: Sequence[str]) -> str:
    """The nearest key of the section; else where a key of that name, or one much like it, really is."""
    key = path.rpartition(".")[2]
    if near := difflib.get_close_matches(key, here, n=1):
        return f" Did you mean `{near[0]}`?"
    if elsewhere := [known for known, _ in all_keys(cls) if known.rpartition(".")[2] == key]:
        return " There is " + " and ".join(f"`{known}`" for known in elsewhere) + "."
    names = {known.rpartition(".")[2]: known for known, _ in all_keys(cls)}
    # Stricter than 0.6, the default: among the keys of all sections something is always a little alike.
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.8)
    return f" Did you mean `{names[close[0]]}`?" if close else ""


def _foreign_files(cls: type[Config], paths: Sequence[str], set_by: Mapping[str, str]) -> list[str]:
    """A file with several keys that are like none here was written for another recipe."""
    counts: dict[str, int] = {}
    for path in paths:
        section = section_at(cls, path.rpartition(".")[0])
        source = source_of(set_by, path)
        # A key with a near name is a typing mistake; one like none here belongs to another recipe.
        if source.endswith((".yaml", ".yml")) and not _hint(cls, path, list(section.model_fields) if section else []):
            counts[source] = counts.get(source, 0) + 1
    return [
        f"{source} seems to be written for another recipe: the shipped files are named after theirs, as "
        "`maze_sft.yaml` is for `sft`."
        for source, count in counts.items()
        if count >= _FOREIGN
    ]
