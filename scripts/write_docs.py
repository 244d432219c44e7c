"""Writes docs/configuration.md: what `--help` of every recipe prints."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from rollwright.config import Config, help_text, section_of

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"


def recipe_config(name: str) -> type[Config] | None:
    """The configuration class that a recipe's own module defines and no other class of it contains."""
    module = importlib.import_module(f"rollwright.recipes.{name}")
    own = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Config)]
    own = [cls for cls in own if cls.__module__ == module.__name__]
    sections = {section_of(field.annotation) for cls in own for field in cls.model_fields.values()}
    return next((cls for cls in own if cls not in sections), None)


def main() -> None:
    package = importlib.import_module("rollwright.recipes")
    parts = ["# Configuration\n\nEvery key of every recipe. Written by `make docs`.\n"]
    for info in pkgutil.iter_modules(package.__path__):
        cls = None if info.ispkg else recipe_config(info.name)
        if cls is not None:
            parts.append(f"## recipes/{info.name}.py\n\n```text\n{help_text(cls)}```\n")
    TARGET.write_text("\n".join(parts), encoding="utf-8")
    print(f"wrote {TARGET.name}: {len(parts) - 1} recipes")


if __name__ == "__main__":
    main()
