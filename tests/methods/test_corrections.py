"""Own corrections as demonstrations: which episodes are kept, and which of their tokens are learned."""

from __future__ import annotations

import pytest

from rollwright.contracts import DataError
from rollwright.methods import IGNORED, corrections, imitable, sft_rows
from tests import builders


def tried(name: str, first: float, second: float):
    """Two attempts; the second prompt holds the first attempt."""
    one = builders.turn((1, 2), (3,), first, attempt=0)
    two = builders.turn((1, 2, 3, 4), (5, 6), second, attempt=1)
    return builders.episode(name, one, two, success=second > 0.5)


STORED = [tried("wr", 0, 1), tried("rr", 1, 1), tried("ww", 0, 0), tried("rw", 1, 0)]


def test_which_episodes_are_kept() -> None:
    assert [t.id for t in corrections(STORED, "wrong_to_right")] == ["wr"]
    assert [t.id for t in corrections(STORED, "ends_right")] == ["wr", "rr"]
    assert corrections(STORED, "all") == STORED


def test_first_attempts_are_read_and_not_learned() -> None:
    rows = sft_rows(imitable(corrections(STORED, "wrong_to_right")), vocab_size=10, max_length=20)
    assert rows == [{"input_ids": [1, 2, 3, 4, 5, 6], "labels": [IGNORED] * 4 + [5, 6]}]
    whole = sft_rows(imitable(corrections(STORED[:1], "all")), vocab_size=10, max_length=20)
    assert whole[0]["labels"] == [IGNORED, IGNORED, 3, IGNORED, 5, 6]


def test_what_cannot_be_kept_is_said() -> None:
    single = builders.episode("s", builders.turn((1,), (2,), 1.0), success=True)
    with pytest.raises(DataError, match="of 1 episodes 0 have two attempts"):
        corrections([single], "ends_right")
    with pytest.raises(
        DataError, match="of 2 episodes 2 have two attempts, and none of these goes from wrong to right"
    ):
        corrections(STORED[1:3], "wrong_to_right")
    with pytest.raises(ValueError, match="kept"):
        corrections(STORED, "best")  # type: ignore[arg-type]
