"""How a phone starts, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from ..apps.storage import Value

START_MS = 1_772_442_000_000  # Monday, 2 March 2026, 09:00:00 UTC
Distractors = Literal["none", "some", "many"]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a phone starts, as plain data: the same over ADB as in process.

    `rows`: content uri to rows; `settings`: namespace to name to value; `files`: path to text. Folders are made.
    """

    rows: Mapping[str, Sequence[Mapping[str, Value]]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    now_ms: int = START_MS
    distractors: Distractors = "none"
    seed: int = 0

    def as_json(self) -> str:
        """As text that `from_json` reads; equal setups give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Setup:
        """Raises ValueError for what `as_json` did not write."""
        try:
            return cls(**json.loads(text))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"this is not the JSON of a phone's setup: {error}") from error
