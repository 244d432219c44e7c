"""`rollwright init`: a folder with a world, a reward, settings and a test of one's own, all working as they are."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import keyword
import os
import sys
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from rollwright.contracts import ConfigError, RunFolderError

_PLACEHOLDER = "my_world"
# The templates end in .txt, so that no test runner takes them for tests of ours.
_FILES = {
    "{name}.py": "world.py.txt",
    "{name}_reward.py": "reward.py.txt",
    "test_{name}.py": "test.py.txt",
    "world.yaml": "world.yaml.txt",
    "sft.yaml": "sft.yaml.txt",
    "grpo.yaml": "grpo.yaml.txt",
    "README.md": "readme.md.txt",
}


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `rollwright init`."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder to write into; it may be there already")
    parser.add_argument("--name", default=_PLACEHOLDER, help=f"of the world's Python module ({_PLACEHOLDER})")


def run(arguments: argparse.Namespace) -> None:
    """Write the files and print the commands that come next.

    Raises:
        ConfigError: the name cannot be that of a module.
        RunFolderError: a file is there already, or the folder cannot be written; then nothing is.
    """
    folder, name = arguments.folder, arguments.name
    _require_module_name(name)
    targets = {folder / target.format(name=name): source for target, source in _FILES.items()}
    # A link to nothing is there too, though `exists` denies it.
    there = [str(path) for path in targets if os.path.lexists(path)]
    if there:
        raise RunFolderError(f"{', '.join(there)}: already there, and nothing is overwritten. Name another folder")
    # Before anything is made: only what was missing is removed after an error, the innermost first.
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, source in targets.items():
            text = files("rollwright.cli.scaffold").joinpath(source).read_text(encoding="utf-8")
            path.write_text(text.replace(_PLACEHOLDER, name), encoding="utf-8")
    except OSError as error:
        _remove(targets, made)
        raise RunFolderError(f"{folder} cannot be written: {error.strerror or error}") from error
    print(_told(folder, name))


def _remove(files_made: Iterable[Path], folders_made: Iterable[Path]) -> None:
    """Take back what was written before an error: none of it was there before."""
    with contextlib.suppress(OSError):
        for path in files_made:
            if os.path.isfile(path):
                path.unlink()
        # A folder that holds something else by now stays: `rmdir` removes empty ones alone.
        for path in folders_made:
            path.rmdir()


def _require_module_name(name: str) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii() or name != name.lower():
        raise ConfigError(
            f"--name {name!r} cannot name a Python module: use lower-case letters, digits and underscores"
        )
    # In this order: `find_spec` raises for a loaded module without a spec, such as `__main__`.
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        raise ConfigError(f"--name {name}: a module of that name is installed already, and would be taken for yours")


def _told(folder: Path, name: str) -> str:
    go = [] if folder.resolve() == Path.cwd() else [f"  cd {folder}"]
    steps = [
        *go,
        "  pytest",
        f"  rollwright audit {name}:build",
        "  rollwright train sft sft.yaml",
        "  rollwright train grpo grpo.yaml",
        "  rollwright view runs",
        "  rollwright compare runs/grpo/eval/start.json runs/grpo/eval/final.json",
    ]
    written = ", ".join(target.format(name=name) for target in _FILES)
    return "\n".join([f"{folder}: written {written}", "next:", *steps])
