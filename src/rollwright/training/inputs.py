"""Fingerprints of what a run reads from elsewhere by its path: starting weights, stores, the models of rewards.

A path in the settings stays the same while what lies there changes: the SFT run that a run began from is made again, a
store grows. A resumed run would go on with the other content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rollwright.store import TABLES

WHOLE_BYTES = 2 << 30
"""Files up to this size are read whole (about a second per GB); of larger ones the ends and evenly spaced blocks."""
BLOCKS, BLOCK_BYTES = 1024, 1 << 16
_PATH_KEYS = ("path", "stores", "logs")
_MAX_FILE_BYTES = 64 << 20
_FOOTER_BYTES = 1 << 12  # of a shard: it holds the mark that no other shard has


def fingerprints(settings: Mapping[str, Any], start: Path, *, skip: tuple[str, ...]) -> dict[str, str]:
    """Dotted key -> kind and digest of what lies at the path that it names, where something lies there.

    Args:
        settings: the configuration as nested mappings.
        start: the folder of the starting policy, which `model.path` names.
        skip: keys, or their first parts, that are not looked at.

    Returns:
        Values such as "weights:9f2c...", "store:..." or "file:...".
    """
    # `model.path` may be `tiny` or a hub name; `start` is the folder where the weights lie.
    found = {"model.path": f"weights:{weights_digest(start)}"}
    for key, value in _paths(settings):
        # `model.path` is in already, by the folder of its weights.
        if key not in found and not key.startswith(skip) and (mark := _fingerprint(Path(value).expanduser())):
            found[key] = mark
    return found


def weights_digest(folder: Path, *, whole_bytes: int = WHOLE_BYTES) -> str:
    """A digest of a model folder's weights: of names, sizes and contents of its safetensors files."""
    total = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        # Names and sizes mark where one file ends and the next begins.
        total.update(f"{file.name} {file.stat().st_size} ".encode())
        total.update(_content(file) if file.stat().st_size <= whole_bytes else _sampled(file))
    return total.hexdigest()[:32]


def _content(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def _sampled(file: Path) -> bytes:
    """Of the header, which names every tensor, of the end, and of blocks between: training moves all of a weight."""
    last = file.stat().st_size - BLOCK_BYTES
    total = hashlib.sha256()
    with file.open("rb") as content:
        # Index 0 reads the header, and the last one the end of the file.
        for index in range(BLOCKS + 1):
            content.seek(last * index // BLOCKS)
            total.update(content.read(BLOCK_BYTES))
    return total.digest()


def _paths(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Texts among the settings that may be paths: by the name of their key, or because they look like one."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _paths(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list | tuple):
        for place, value in enumerate(tree):
            yield from _paths(value, f"{key}[{place}]")
    elif isinstance(tree, str) and _may_be_path(key, tree):
        yield key, tree


def _may_be_path(key: str, text: str) -> bool:
    # `data.stores[0]` is named by `stores`. Prompts are settings too, and such long texts are no paths.
    named = "/" in text or key.rpartition(".")[2].partition("[")[0] in _PATH_KEYS
    return named and len(text) < 1024 and text.isprintable()


def _fingerprint(path: Path) -> str:
    """ "" where nothing lies there that could be told apart."""
    if path.is_file() and path.stat().st_size <= _MAX_FILE_BYTES:
        return f"file:{_content(path).hex()[:32]}"
    if not path.is_dir():
        return ""
    if any(path.glob("*.safetensors")):
        return f"weights:{weights_digest(path)}"
    if all((path / table).is_dir() for table in TABLES):
        return f"store:{_store_digest(path)}"
    return ""


def _store_digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(file for table in TABLES for file in (folder / table).glob("*.parquet")):
        with file.open("rb") as content:
            content.seek(max(0, file.stat().st_size - _FOOTER_BYTES))
            # Both tables name their shards alike.
            total.update(f"{file.parent.name}/{file.name} {file.stat().st_size} ".encode() + content.read())
    return total.hexdigest()[:32]
