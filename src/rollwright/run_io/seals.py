"""JSON documents that vouch for themselves: a digit that changed on the disk is noticed when the document is read.

A seal is no signature: it finds damage and slips of an editor, not somebody who means to deceive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_SEAL, _MARK = "seal", "sealed"


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document, as JSON will give it back, with the digest of its content.

    `sealed` says that there is a seal: where one of the two is missing, the document was changed.
    """
    plain: dict[str, Any] = json.loads(json.dumps({**document, _MARK: True}))
    return plain | {_SEAL: _digest(plain)}


def seal_fault(document: Mapping[str, Any]) -> str:
    """What says that the document was changed; "" where nothing does, or where an older release wrote it unsealed."""
    if _SEAL not in document and _MARK not in document:
        return ""
    inner = {key: value for key, value in document.items() if key != _SEAL}
    if document.get(_SEAL) == _digest(inner) and inner.get(_MARK) is True:
        return ""
    return "its content is not what was written (the seal does not fit)"


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
