"""Writes docs/configuration.md: every key of every recipe, with what several recipes share written once.

A settings class that is used more than once is a *shared* section. A recipe's own part lists the sections that it takes
as they are, and only those keys that differ from the shared ones.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rollwright.config import Config, section_of
from rollwright.config.help import default_text, first_sentence, readers_text, type_text

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
INTRO = """# Configuration

Every key of every recipe. `make docs` writes this page from the code. The first part lists the sections that several
recipes share; the second part lists, for each recipe, which shared sections it takes and every key of its own.
`rollwright train RECIPE --help` prints all keys of one recipe together. [Settings](settings.md) says how files and
`key=value` words are merged and what is checked.
"""
HEAD = "| key | default | type | meaning |\n|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """One key as the page shows it; two rows that are equal say the same."""

    name: str
    default: str
    kind: str
    meaning: str

    def line(self, prefix: str) -> str:
        """The row of a Markdown table, with the key's full name."""
        default = f"`{self.default}`" if self.default != "REQUIRED" else "**required**"
        cells = (f"`{prefix}{self.name}`", default, self.kind, self.meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@dataclass(frozen=True)
class Use:
    """One section of one recipe: under which key, of which class, and which of its keys the recipe does not read."""

    key: str
    cls: type[Config]
    unread: frozenset[str]


def recipe_config(name: str) -> type[Config] | None:
    """The configuration class that a recipe's own module defines and no other class of it contains."""
    module = importlib.import_module(f"rollwright.recipes.{name}")
    own = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Config)]
    own = [cls for cls in own if cls.__module__ == module.__name__]
    sections = {section_of(field.annotation) for cls in own for field in cls.model_fields.values()}
    return next((cls for cls in own if cls not in sections), None)


def recipes() -> dict[str, type[Config]]:
    """The recipes with their configuration classes, by name."""
    package = importlib.import_module("rollwright.recipes")
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.ispkg]
    return {name: cls for name in names if (cls := recipe_config(name)) is not None}


def rows(cls: type[Config]) -> list[Row]:
    """The keys of one class that are no sections."""
    return [
        Row(name, default_text(field), type_text(field), f"{field.description or ''}{readers_text(cls, name)}".strip())
        for name, field in cls.model_fields.items()
        if not section_of(field.annotation)
    ]


def uses(cls: type[Config], prefix: str = "", unread: frozenset[str] = frozenset()) -> Iterator[Use]:
    """All sections of a recipe, those within sections too, in the order of its help."""
    unread |= {f"{prefix}{path}" for path in cls.unread}
    for name, field in cls.model_fields.items():
        section = section_of(field.annotation)
        if section and f"{prefix}{name}" not in unread:
            key = f"{prefix}{name}"
            yield Use(key, section, frozenset(path[len(key) + 1 :] for path in unread if path.startswith(f"{key}.")))
            yield from uses(section, f"{key}.", unread)


def shared(all_uses: dict[str, list[Use]]) -> dict[type[Config], str]:
    """Classes that are used more than once -> title of their section: the key, or the class where the keys differ."""
    count = Counter(use.cls for own in all_uses.values() for use in own)
    keys = defaultdict(list)
    for own in all_uses.values():
        for use in own:
            if count[use.cls] > 1 and use.key not in keys[use.cls]:
                keys[use.cls].append(use.key)
    titles: dict[type[Config], str] = {}
    for cls, names in keys.items():
        title = names[0] if len(names) == 1 else cls.__name__
        titles[cls] = title if title not in titles.values() else f"{title} ({cls.__name__})"
    return titles


def base_of(use: Use, titles: dict[type[Config], str]) -> type[Config] | None:
    """The shared class that a section is compared with: an ancestor, else the first one under the same key."""
    ancestor = next((cls for cls in use.cls.__mro__ if cls in titles), None)
    return ancestor or next((cls for cls, title in titles.items() if title == use.key), None)


def anchor(title: str) -> str:
    """The address of a heading within the page."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def shared_part(cls: type[Config], title: str) -> str:
    """One shared section with all of its keys."""
    prefix = "." if title == cls.__name__ else f"{title.split(' ')[0]}."
    listed = "\n".join(row.line(prefix) for row in rows(cls))
    return f"### {title}\n\n{first_sentence(cls.__doc__)}\n\n{HEAD}\n{listed}\n"


def recipe_part(name: str, cls: type[Config], own: list[Use], titles: dict[type[Config], str]) -> str:
    """One recipe: what it takes from the shared sections, then the keys that are its own or differ."""
    taken, tables = [], []
    top = [row.line("") for row in rows(cls)]
    if top:
        tables.append(f"{HEAD}\n" + "\n".join(top) + "\n")
    for use in own:
        base = base_of(use, titles)
        known = rows(base) if base else []
        here = [row for row in rows(use.cls) if row.name not in use.unread]
        names, same = {row.name for row in here}, [row for row in here if row in known]
        left_out = [row.name for row in known if row.name not in names]
        if base and same:
            without = f" without {', '.join(f'`{gone}`' for gone in left_out)}" if left_out else ""
            link = f"[`{use.key}`](#{anchor(titles[base])})"
            taken.append(link if titles[base].split(" ")[0] == use.key else f"{link} as `{titles[base]}`")
            taken[-1] += without
        differ = [row for row in here if row not in known]
        if differ:
            listed = "\n".join(row.line(f"{use.key}.") for row in differ)
            tables.append(f"**`{use.key}`**: {first_sentence(use.cls.__doc__)}\n\n{HEAD}\n{listed}\n")
    says = f"### recipes/{name}.py\n\n{first_sentence(cls.__doc__)}\n\n"
    shares = f"Shared sections: {'; '.join(taken)}.\n\n" if taken else ""
    return says + shares + "\n".join(tables)


def page() -> str:
    """The whole page."""
    found = recipes()
    all_uses = {name: list(uses(cls)) for name, cls in found.items()}
    titles = shared(all_uses)
    parts = [INTRO, "## Shared sections\n", *(shared_part(cls, title) for cls, title in titles.items())]
    parts += ["## Recipes\n", *(recipe_part(name, cls, all_uses[name], titles) for name, cls in found.items())]
    return "\n".join(parts)


def main() -> None:
    """Writes the page."""
    text = page()
    TARGET.write_text(text, encoding="utf-8")
    print(f"wrote {TARGET.name}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
