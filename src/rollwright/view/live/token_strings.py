"""Token ids as the exact strings that they stand for, read from a run's own tokenizer file.

The `tokenizers` library alone reads the file: loading transformers takes seconds, which a page would wait for. A token
is shown by its own bytes, since decoding one id at a time drops leading spaces in some tokenizers.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

# The file is parsed at once, and it may be anybody's.
MAX_TOKENIZER_BYTES = 100_000_000
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenStrings:
    """The strings of one tokenizer. Made once per run, when its first episode is opened.

    Args:
        path: a `tokenizer.json` of the tokenizers library.

    Raises:
        OSError, ValueError: the file cannot be read, or is not a tokenizer.
    """

    def __init__(self, path: Path) -> None:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise ValueError(f"{path} is larger than {MAX_TOKENIZER_BYTES} bytes")
        content = path.read_text(encoding="utf-8")
        # Read as JSON too: the library does not tell what kind its decoder is.
        described = json.loads(content)
        try:
            self._tokenizer = Tokenizer.from_str(content)
        except Exception as error:  # the library raises a bare Exception for a file that it cannot read
            raise ValueError(f"{path} is not a tokenizer: {error}") from error
        # Only byte-level tokenizers write bytes as signs; in others the same signs are letters.
        self._bytes = _byte_alphabet() if "ByteLevel" in _kinds(described.get("decoder")) else None
        self._special = {entry["id"] for entry in described.get("added_tokens") or () if entry.get("special")}
        self._added = {entry["id"]: entry["content"] for entry in described.get("added_tokens") or ()}

    def vocabulary(self, ids: Iterable[int]) -> dict[str, dict[str, Any]]:
        """id as text -> its string, and whether it is a special token. Ids that the tokenizer lacks are left out."""
        found = {}
        for token in sorted(set(ids)):
            text = self.text_of(token)
            if text is not None:
                found[str(token)] = {"text": text, "special": token in self._special}
        return found

    def text_of(self, token: int) -> str | None:
        """The string of one id; bytes that are no whole character are written as `<0xE2>`."""
        # Added tokens stand in the file as plain text, in byte-level tokenizers too.
        if token in self._added:
            return str(self._added[token])
        try:
            # The library takes unsigned 32-bit numbers and raises OverflowError beyond them.
            piece = self._tokenizer.id_to_token(token) if token >= 0 else None
        except OverflowError:
            return None
        if piece is None:
            return None
        if self._bytes is None:
            # U+2581 is SentencePiece's sign for a space.
            return piece if _BYTE_TOKEN.fullmatch(piece) else piece.replace("\u2581", " ")
        raw = [self._bytes.get(sign) for sign in piece]
        # A sign outside the alphabet: the piece is text, whatever the decoder says.
        if any(byte is None for byte in raw):
            return piece
        return bytes(byte for byte in raw if byte is not None).decode("utf-8", errors=_AS_HEX)


def _byte_alphabet() -> dict[str, int]:
    """The sign of GPT-2's byte-level alphabet -> its byte.

    Printable bytes stand for themselves, the others for the signs from U+0100 on, in order.

    Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _kinds(part: object) -> set[str]:
    """The kinds of a decoder and of those that it is a sequence of."""
    if not isinstance(part, dict):
        return set()
    inner = part.get("decoders")
    found = {str(part.get("type"))}
    return found.union(*map(_kinds, inner)) if isinstance(inner, list) else found


def _hex_of(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"<0x{byte:02X}>" for byte in error.object[error.start : error.end]), error.end


_AS_HEX = "rollwright.byte_as_hex"
codecs.register_error(_AS_HEX, _hex_of)
