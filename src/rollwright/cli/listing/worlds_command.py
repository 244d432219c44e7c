"""`rollwright worlds`: every world, what is done there and what it needs; of one world, also how to begin."""

from __future__ import annotations

import argparse
import re

from rollwright.cli.launching.recipe_names import settings_word, yaml_names
from rollwright.contracts import UnknownComponent


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright worlds`."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="tell more of this world, such as text.maze")


def run(arguments: argparse.Namespace) -> None:
    """Print the table, or what there is to say of one world.

    Raises:
        UnknownComponent: there is no such world; the message names the nearest.
    """
    from rollwright.cli.listing.tables import format_columns, world_catalogue

    worlds = world_catalogue()
    if arguments.name:
        print(_of_one(arguments.name, worlds))
        return
    rows = [(name, of["what"], of["needs"], "yes" if of["teacher"] else "no") for name, of in worlds.items()]
    print(format_columns(("world", "what is done there", "needs", "teacher"), rows))
    print("\n`rollwright worlds NAME` tells more of one; `rollwright audit NAME` puts it on trial.")


def settings_of(world: str) -> list[str]:
    """The shipped files of settings that name a world, themselves or in a file that they extend."""
    found = []
    for name in yaml_names():
        with open(settings_word(name), encoding="utf-8") as file:
            text = file.read()
        # Shipped files extend one file of their own folder at most, so no loader is needed.
        shared = re.search(r"^extends: (\S+)\.yaml$", text, re.MULTILINE)
        if shared:
            base = f"{name.rpartition('/')[0]}/{shared[1]}".lstrip("/")
            with open(settings_word(base), encoding="utf-8") as file:
                text += file.read()
        # Two blanks: the `name` of a section at the top.
        if re.search(rf"^  name: {re.escape(world)}$", text, re.MULTILINE):
            found.append(name)
    return found


def _of_one(name: str, worlds: dict[str, dict[str, str]]) -> str:
    from rollwright.config import load

    if name not in worlds:
        load("envs", name)  # raises UnknownComponent, with the nearest name
        raise UnknownComponent(f"`{name}` is not a world that ships with rollwright; `rollwright worlds` lists those")
    of, settings = worlds[name], settings_of(name)
    lines = [f"{name}: {of['what']}", f"needs: {of['needs']}", f"teacher: {'yes' if of['teacher'] else 'no'}"]
    lines += [f"settings: {', '.join(settings)}"] if settings else []
    lines += [f"page: docs/{of['page']}", f"try it: rollwright audit {name}"]
    first = [setting for setting in settings if setting.endswith("_sft")][:1]
    return "\n".join([*lines, *(f"        rollwright train sft {setting}" for setting in first)])
