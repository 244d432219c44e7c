"""All task templates, and how some of them are chosen."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from rollwright.contracts import ConfigError

from . import alarms, calls, correspondence, documents, events, filing, online, people, preferences
from .template import Template

_MODULES = (preferences, people, calls, alarms, events, documents, filing, online, correspondence)
TEMPLATES: dict[str, Template] = {template.name: template for m in _MODULES for template in m.TEMPLATES}
"""By name. Names begin with the app: `contacts_add`."""


def chosen_templates(chosen: str | Sequence[str]) -> list[Template]:
    """Templates by "all", a difficulty, an app (the part of a name before the underscore), or names.

    Raises:
        ConfigError: nothing has that name; the message gives the nearest ones.
    """
    if isinstance(chosen, str):
        groups = {t.difficulty for t in TEMPLATES.values()} | {name.partition("_")[0] for name in TEMPLATES}
        if chosen == "all":
            return list(TEMPLATES.values())
        if chosen in groups:
            return [t for n, t in TEMPLATES.items() if chosen in (t.difficulty, n.partition("_")[0])]
        chosen = [chosen]
    for name in chosen:
        if name not in TEMPLATES:
            near = difflib.get_close_matches(name, TEMPLATES, n=3) or sorted(TEMPLATES)[:5]
            raise ConfigError(f"device.phone has no template {name!r}; nearest: {', '.join(near)}")
    if not chosen:
        raise ConfigError("the list of templates is empty; name at least one, or leave it at `all`")
    return [TEMPLATES[name] for name in dict.fromkeys(chosen)]
