"""The ids that a model may say: those that its tokenizer knows.

Many heads have more rows than the tokenizer has ids, so that their number divides well (Qwen2.5: 151,936 rows, 151,665
ids). What such a row stands for cannot be decoded. Engines never sample it, and the learner's distribution leaves it
out too: both normalise over the ids that are left. A model without such rows is computed as if nothing of this existed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollwright.contracts import ConfigError
from rollwright.models.model_files import config_of

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
_BUFFER = "unknown_ids"
_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "added_tokens.json")
_PLACEHOLDERS = ("image_token", "audio_token", "video_token")
"""Tokens of other senses, which no text holds: a text-only model shares the tokenizer and has no row (Gemma 3 1B)."""
MAX_BIASES = 1024
"""Ids that vLLM's sampler on a GPU can be told to leave out."""


def rows_of(folder: str | Path) -> int:
    """Ids that the model in a folder has a row for."""
    return int(config_of(folder).get_text_config().vocab_size)


def unknown_ids(folder: str | Path) -> tuple[int, ...]:
    """The model's ids that its tokenizer does not know, in order; none where the folder has no tokenizer to ask.

    Raises:
        ConfigError: the tokenizer knows ids that the model has no row for.
    """
    tokens = tokens_of(folder)
    if not tokens:
        return ()
    rows = rows_of(folder)
    if beyond := sorted((index, token) for token, index in tokens.items() if index >= rows):
        index, token = beyond[0]
        raise ConfigError(
            f"the tokenizer in {folder} knows {len(beyond)} ids that the model has no row for, the first of them "
            f"{index} for {token!r}; the model has {rows} rows (vocab_size in config.json). Added tokens need rows: "
            "call model.resize_token_embeddings(len(tokenizer)) and save both, or use the tokenizer that belongs to "
            "the model"
        )
    known = set(tokens.values())
    return tuple(index for index in range(rows) if index not in known) if len(known) < rows else ()


def tokens_of(folder: str | Path) -> dict[str, int]:
    """Token -> id, without placeholders of pictures and sounds; empty where there is no tokenizer that can be read."""
    files = [Path(folder) / name for name in _FILES]
    # Times and sizes are part of the cache's key, so that a tokenizer that was changed is read again.
    found = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists())
    return _tokens_of(str(folder), found) if found else {}


@lru_cache(maxsize=4)  # learner and engine read the same folder
def _tokens_of(folder: str, files: tuple[Any, ...]) -> dict[str, int]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception:  # whoever needs the tokenizer says what is wrong with it (`models.load_tokenizer`)
        return {}
    spare = {getattr(tokenizer, name, None) for name in _PLACEHOLDERS}
    return {token: index for token, index in tokenizer.get_vocab().items() if token not in spare}


def leave_out_unknown(model: Any, folder: str | Path) -> None:
    """Mark a model that was read from a folder, so that `without_unknown` leaves out what its tokenizer does not know.

    The mark moves and is copied with the model, and is not saved with it.

    Raises:
        ConfigError: the tokenizer knows ids that the model has no row for.
    """
    import torch

    if ids := unknown_ids(folder):
        log.info("%s: %d of %d ids stand for no token and are never sampled", folder, len(ids), rows_of(folder))
        mark(model, torch.tensor(ids))


def mark(model: Any, ids: Tensor | None) -> None:
    """Let `without_unknown` leave out these ids [K]; nothing where there are none."""
    if ids is not None:
        # A buffer goes along to other devices. It is not a weight, so it must not reach a saved folder.
        model.register_buffer(_BUFFER, ids.clone(), persistent=False)


def marked(model: Any) -> Tensor | None:
    """[K] the ids that a model never says; None where it may say all."""
    ids: Tensor | None = getattr(model, _BUFFER, None)
    return ids


def without_unknown(model: Any, logits: Tensor) -> Tensor:
    """[..., V] logits of a model, with -inf at ids that it never says; the very tensor where it may say all."""
    ids = marked(model)
    return logits if ids is None else logits.index_fill(-1, ids.to(logits.device), float("-inf"))


def padding_text(found: int, rows: int) -> str:
    """What is said of data that hold such an id."""
    return (
        f"the trajectories hold token id {found}, for which the model has a row (of {rows}) and its tokenizer no "
        "token: nobody can read it, and the model never says it; collect these trajectories again with this model"
    )


def biases_against(ids: Sequence[int], folder: str | Path) -> dict[int, float] | None:
    """What vLLM adds to the logits of these ids, so that their probability is 0; None where there are none.

    Not -inf, which JSON does not know: the sampler's float32 makes 0 of it all the same.

    Raises:
        ConfigError: they are more than vLLM takes.
    """
    if len(ids) > MAX_BIASES:
        raise ConfigError(
            f"the model in {folder} has {len(ids)} ids that its tokenizer does not know, and vLLM can leave out "
            f"{MAX_BIASES} at most: cut the model's head (model.resize_token_embeddings), or use "
            "engine.name=transformers"
        )
    return dict.fromkeys(ids, -1e30) or None
