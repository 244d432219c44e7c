"""What `--help` prints: every key with its type, default and meaning, section by section."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from rollwright.config.named_parts import parts_in
from rollwright.config.schema import Config, section_of

_USAGE = "usage: [file.yaml ...] [key.sub=value ...] [~key ...] [--plan] [--check] [--help]\n"
_WIDTH = 110


def help_text(cls: type[Config]) -> str:
    """All keys of a configuration, for a terminal. Keys of one section stand together under its dotted name."""
    summary = (cls.__doc__ or "").strip()
    explain = (
        "Later files and words win. `~key` forgets what an earlier file set; `--plan` prints the resolved settings "
        "and ends before any weight is loaded."
    )
    parts = [_USAGE, _wrap(summary, 0), "", _wrap(explain, 0), *_sections(cls, "")]
    return "\n".join(parts) + "\n"


def _sections(cls: type[Config], prefix: str, unread: frozenset[str] = frozenset()) -> Iterator[str]:
    # Those of the models above go on: they name keys of this section by dotted paths.
    unread |= {f"{prefix}{path}" for path in cls.unread}
    fields = {name: field for name, field in cls.model_fields.items() if f"{prefix}{name}" not in unread}
    keys = {name: field for name, field in fields.items() if not section_of(field.annotation)}
    if prefix and keys:
        yield f"\n{prefix.rstrip('.')}: {first_sentence(cls.__doc__)}"
    elif keys:
        yield "\nkeys:"
    # Plain keys come before all sections: after the heading of one they would seem to be in it.
    for name, field in keys.items():
        yield f"  {prefix}{name} = {default_text(field)}   ({type_text(field)})"
        yield _wrap(f"{field.description or ''}{readers_text(cls, name)}".strip(), 6)
    for name, field in fields.items():
        section = section_of(field.annotation)
        if section:
            yield from _sections(section, f"{prefix}{name}.", unread)


def type_text(field: FieldInfo) -> str:
    """The type of a key in plain words, with its bounds: `int >= 1`, `ppo | grpo`, `list of str`."""
    parts = parts_in(field)
    if parts is not None:
        return parts.choices
    bounds = []
    for limit in field.metadata:
        for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
            # pydantic keeps each bound as an object of its own (annotated_types.Ge and the like).
            value = getattr(limit, name, None)
            if value is not None:
                bounds.append(f"{sign} {value}")
    return " ".join((annotation_text(field.annotation), ", ".join(bounds))).strip()


def annotation_text(annotation: Any) -> str:
    """A type in plain words: `int`, `ppo | grpo`, `list of str`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(choice) for choice in arguments)
    if origin is Annotated:
        return annotation_text(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(annotation_text(choice) for choice in arguments)
    if origin in (list, tuple, set, frozenset):
        return f"{origin.__name__} of {' and '.join(annotation_text(a) for a in arguments if a is not Ellipsis)}"
    if origin is dict:
        return "section of free keys"
    if annotation is NoneType:
        return "null"
    return getattr(annotation, "__name__", str(annotation))


def default_text(field: FieldInfo) -> str:
    """The default of a key as the help prints it."""
    if field.is_required():
        return "REQUIRED"
    # A factory that reads other keys is refused by pydantic unless it is given `validated_data`.
    value = field.get_default(call_default_factory=True, validated_data={})
    # An empty text would leave nothing to see after the equals sign.
    return "null" if value is None else str(value) if not isinstance(value, str) else (value or "''")


def readers_text(cls: type[Config], name: str) -> str:
    """Which choices read a key, and its largest sensible value; empty where neither is limited."""
    conditions = [
        f"{chooser}={'|'.join(str(value) for value in values)}"
        for chooser, values in cls.only_for.get(name, {}).items()
    ]
    only = f" Only with {' and '.join(conditions)}." if conditions else ""
    most, why = cls.limits.get(name, (0, ""))
    # Plain `g` keeps six digits, and would print 4294967295 as 4.29497e+09.
    return only + (f" At most {most:.17g}: {why}." if why else "")


def first_sentence(doc: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((doc or "").split("\n\n")[0].split())


def _wrap(text: str, indent: int) -> str:
    pad = " " * indent
    paragraphs = textwrap.dedent(text).split("\n\n")
    return "\n\n".join(
        textwrap.fill(" ".join(p.split()), _WIDTH, initial_indent=pad, subsequent_indent=pad) for p in paragraphs
    )
