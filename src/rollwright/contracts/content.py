"""What a message holds: text that is whole, and pictures that are named by the hash of their content."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)

PICTURE_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
"""The kinds of pictures that are kept and shown. No SVG: it can hold a script."""
MAX_PICTURE_BYTES = 4_000_000
"""A larger picture is not kept: a store must not grow without bound by what a page draws."""

_HASH = re.compile(r"[0-9a-f]{64}")


def whole(text: str) -> str:
    """The text as UTF-8 and every tokenizer can hold it: the border that text from outside passes.

    JSON and JavaScript cut and spell text by UTF-16 units. Two halves of a sign beside each other become the sign, a
    lone half becomes U+FFFD.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """A piece of a message's text, whole."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", whole(self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """A picture's place in a message. The picture itself is the attachment of that hash.

    Raises:
        ValueError: the hash is no SHA-256 in hex, or the media type is none of `PICTURE_SUFFIX`.
    """

    sha256: str
    media_type: str

    def __post_init__(self) -> None:
        if not is_hash(self.sha256) or self.media_type not in PICTURE_SUFFIX:
            raise ValueError(
                f"a picture is named by its SHA-256 and one of {', '.join(PICTURE_SUFFIX)}; got {self.sha256!r}, "
                f"{self.media_type!r}"
            )


Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, in plain text that is whole (see `whole`), wherever it comes from.

    `content` is all of its text. `parts` are given where text and pictures take turns; empty means the text alone.

    Raises:
        ValueError: the parts hold another text than `content`.
    """

    role: Role
    content: str
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", whole(self.content))
        if self.parts and (found := text_of(self.parts)) != self.content:
            raise ValueError(f"the parts of a message read {found[:80]!r}, its content {self.content[:80]!r}")


def text_of(parts: tuple[Part, ...]) -> str:
    """The text of a message in parts: its pieces, a line break between two."""
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A picture or file that belongs to an observation, named by the hash of its content.

    `path` is where the content lies, `content` the bytes themselves until a store has written them: they are no part
    of what makes two attachments equal, and no row holds them.
    """

    sha256: str
    media_type: str
    path: str | None = None
    content: bytes | None = field(default=None, repr=False, compare=False)


def is_hash(text: str) -> bool:
    """Whether the text is a SHA-256 in hex, and so can be part of a file's name."""
    return _HASH.fullmatch(text) is not None


def picture_type(content: bytes) -> str | None:
    """The media type that a picture's first bytes say; None where they are those of no PNG, JPEG or WebP."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else None


def attach_picture(content: bytes, keep: bool | Path | str = True) -> Attachment:
    """A picture as an attachment.

    Args:
        keep: True carries the bytes along, for the store that the turn is written to; a folder keeps them there, under
            their hash: equal pictures are one file.

    Raises:
        ValueError: the bytes are no PNG, JPEG or WebP.
    """
    media_type = picture_type(content)
    if media_type is None:
        raise ValueError(f"these {len(content)} bytes are no picture: expected PNG, JPEG or WebP")
    digest = hashlib.sha256(content).hexdigest()
    if isinstance(keep, bool):
        return Attachment(sha256=digest, media_type=media_type, content=content)
    path = Path(keep) / f"{digest}{PICTURE_SUFFIX[media_type]}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Attachment(sha256=digest, media_type=media_type, path=str(path))
