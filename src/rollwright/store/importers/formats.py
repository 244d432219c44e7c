"""The formats of logs and tasks that are known by name, and a user's own."""

from __future__ import annotations

import importlib

from rollwright.contracts import FORMATS, ConfigError
from rollwright.store.importers.log_records import Format


def load_format(name: str) -> Format:
    """The format of that name, or somebody's own, named `package.module:Attribute`.

    Raises:
        ConfigError: there is none.
    """
    # FORMATS maps names to `module:Attribute` as text, so that a format's module is imported only when it is asked for.
    module, sign, attribute = FORMATS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if sign else None
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the format {name!r} cannot be loaded: {error}") from error
    if not isinstance(found, Format):
        raise ConfigError(f"there is no format {name!r}; known are {', '.join(FORMATS)}, or package.module:Attribute")
    return found
