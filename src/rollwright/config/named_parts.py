"""Keys that name a part: ours by a short word, anybody's own by `package.module:Attribute`.

`curriculum.name`, `algorithm.advantage` and others are such keys. The words of one kind stand in one table, which maps
each of them to the place of its code as text, so that a table can be read without importing what it lists. Types in
the help, messages and lookups are all made from the table. What a user's own part takes is set in a section of free
keys beside the name and is held against the part's own signature (see `components`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

OWN = "package.module:Attribute"
"""How a user's own part is named; among the readers of a key (`Config.only_for`) it stands for any such name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One kind of parts, and the annotation of a key that names one: `name: Annotated[str, CURRICULA]`."""

    what: str
    """What one of them is called in messages."""
    # A dict has no hash, and typing hashes what stands in an annotation to cache it.
    ours: Mapping[str, str] = field(hash=False)
    """Short word -> `module:Attribute`. Ours take the keys of their section that their signature names."""
    options: str = "options"
    """The key of the same section that holds the options of a user's own part."""
    given: tuple[str, ...] = ()
    """Arguments that a run passes to those parts that name them; none of them is an option."""
    contract: tuple[str, ...] = ("__call__",)
    """Methods that the finished object must have."""
    trial: str = ""
    """`module:function` that tries a user's own object on a small example and raises ValueError; empty = none."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Text that is one of our words or the name of a user's own part; that part is not imported here."""
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def _known(self, name: str) -> str:
        # A user's module is imported by the checks of a start; reading a file must stay without effect.
        if name not in self.ours and not is_own(name):
            raise PydanticCustomError("no_part", "no such part")
        return name

    @property
    def choices(self) -> str:
        """What the key may be, as the help prints it: `uniform | band | package.module:Attribute`."""
        return " | ".join((*self.ours, OWN))


def is_own(name: object) -> bool:
    """Whether a name is that of a user's own part, `package.module:Attribute`."""
    # No word of ours has a colon.
    return isinstance(name, str) and ":" in name


def is_read(value: object, readers: tuple[Any, ...]) -> bool:
    """Whether a chooser's value is among those that read a key; OWN among them stands for every part of a user's."""
    return value in readers or (OWN in readers and is_own(value))


def parts_in(field_info: FieldInfo) -> Parts | None:
    """The kind of parts that a key names; None where its value is no such name."""
    return next((entry for entry in field_info.metadata if isinstance(entry, Parts)), None)


def keys_of_parts(fields: Mapping[str, FieldInfo]) -> Iterator[tuple[str, Parts]]:
    """The keys of one section that name a part, with their kinds."""
    for name, info in fields.items():
        parts = parts_in(info)
        if parts is not None:
            yield name, parts
