"""Which episodes a list shows: filters over the index, order, one page; and text search, shard by shard.

What a browser sends is data: a name that is no column is refused, text is compared and never a pattern.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rollwright.contracts import ConfigError, StopReason
from rollwright.store import TABLES, pack_text, unpack_text
from rollwright.view.live.episode_index import EpisodeIndex, owners_of_block

MAX_PAGE = 500
# A menu with more entries is of no use to a reader and slow to send.
MAX_CHOICES = 500
SEARCH_S = 2.0
"""A text search answers after so long with what it has; the page asks on."""
_KEPT_SEARCHES = 8
# Names of the address -> columns. Nothing else in an address can name a column.
_EXACT = {"task": "task", "split": "split", "stop": "stop", "tag": "tag", "origin": "origin", "start": "start"}
_ORDERS = {"reward": "reward", "turns": "turns", "seconds": "seconds"}

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeQuery:
    """What to list. "" and None ask for nothing; see `api/run/ID/episodes` in docs/view.md."""

    exact: Mapping[str, str]
    success: Literal["", "yes", "no", "none"] = ""
    fault: Literal["", "yes", "no"] = ""
    group: str = ""
    step: int | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    channel: str = ""
    channel_sign: Literal["", "pos", "neg", "zero"] = ""
    text: str = ""
    sort: str = "new"
    offset: int = 0
    limit: int = 100

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> EpisodeQuery:
        """The query of an address; keys that it does not know are left alone.

        Raises:
            ConfigError: a value that is none of those allowed.
        """
        return cls(
            exact={key: asked[key] for key in _EXACT if asked.get(key)},
            success=_one_of(asked, "success", ("", "yes", "no", "none")),
            fault=_one_of(asked, "fault", ("", "yes", "no")),
            group=asked.get("group", ""),
            step=_number(asked, "step", int),
            min_reward=_number(asked, "min_reward", float),
            max_reward=_number(asked, "max_reward", float),
            channel=asked.get("channel", ""),
            channel_sign=_one_of(asked, "channel_sign", ("", "pos", "neg", "zero")),
            text=asked.get("text", "").strip(),
            sort=_one_of(asked, "sort", ("new", "old", *_ORDERS, *(f"-{name}" for name in _ORDERS))) or "new",
            offset=max(0, _number(asked, "offset", int) or 0),
            # Clamped and not refused: the page may ask for more than it gets.
            limit=min(MAX_PAGE, max(1, _number(asked, "limit", int) or 100)),
        )


class EpisodeSearch:
    """Answers queries on one run's index. Made with the run; remembers what the latest text searches found."""

    def __init__(self, index: EpisodeIndex) -> None:
        self.index = index
        self._found: OrderedDict[str, dict[int, Mask]] = OrderedDict()

    def places(self, query: EpisodeQuery) -> tuple[list[int], int, bool]:
        """Rows of the index that match, in the order asked for; episodes searched for text; whether some are left."""
        mask, searched, more = self._mask(query), self.index.table.num_rows, False
        if query.text:
            found, searched, more = self._with_text(query.text, mask)
            # After the search: the cheap filters decide first which shards have to be read.
            mask &= found
        return self._ordered(np.flatnonzero(mask), query.sort).tolist(), searched, more

    def choices(self) -> dict[str, list[str]]:
        """The values that each exact filter can take, the channels among them."""
        table = self.index.table
        found = {
            key: sorted(unpack_text(v) for v in pc.unique(table[column]).to_pylist()) for key, column in _EXACT.items()
        }
        tags = [unpack_text(value) for value in pc.unique(table["tag"]).to_pylist()]  # in the order of the run
        return {key: values[:MAX_CHOICES] for key, values in (found | {"tag": tags}).items()} | {
            "channel": self.index.channel_names()[:MAX_CHOICES]
        }

    def _mask(self, query: EpisodeQuery) -> Mask:
        table = self.index.table
        # Packed like the stored texts, since that is what they are compared with.
        tests = [pc.equal(table[_EXACT[key]].cast(pa.string()), pack_text(value)) for key, value in query.exact.items()]
        if query.group:
            tests.append(pc.equal(table["group"], query.group))
        if query.step is not None:
            tests.append(pc.equal(table["step"], query.step))
        if query.success:
            # None stands for "no verdict", which Arrow holds as null and which equals nothing.
            wanted = {"yes": True, "no": False}.get(query.success)
            tests.append(pc.is_null(table["success"]) if wanted is None else pc.equal(table["success"], wanted))
        if query.fault:
            faulted = pc.is_in(table["stop"].cast(pa.string()), value_set=_FAULTS)
            tests.append(faulted if query.fault == "yes" else pc.invert(faulted))
        if query.min_reward is not None:
            tests.append(pc.greater_equal(table["reward"], query.min_reward))
        if query.max_reward is not None:
            tests.append(pc.less_equal(table["reward"], query.max_reward))
        mask = np.ones(table.num_rows, np.bool_)
        for test in tests:
            # A comparison with null is null: an episode without the value does not match.
            mask &= pc.fill_null(test, False).to_numpy()
        return mask & self._in_channel(query) if query.channel else mask

    def _in_channel(self, query: EpisodeQuery) -> Mask:
        sums = self.index.channel(query.channel)
        # Comparisons with NaN are false, so episodes without the part match none of the signs.
        tests = {"": ~np.isnan(sums), "pos": sums > 0, "neg": sums < 0, "zero": sums == 0}
        found: Mask = tests[query.channel_sign]
        return found

    def _ordered(self, places: np.ndarray[Any, Any], sort: str) -> np.ndarray[Any, Any]:
        if sort in ("new", "old"):
            return places[::-1] if sort == "new" else places
        values = self.index.table[_ORDERS[sort.lstrip("-")]].to_numpy()[places]
        # Stable, so that episodes of equal value stay in the order of the run.
        order = np.argsort(-values if sort.startswith("-") else values, kind="stable")
        return places[order]

    def _with_text(self, text: str, wanted: Mask) -> tuple[Mask, int, bool]:
        """Episodes that hold the text, the newest shards first; how many were searched, and whether time ran out."""
        key = text.lower()
        known = self._found.setdefault(key, {})
        self._found.move_to_end(key)
        while len(self._found) > _KEPT_SEARCHES:
            self._found.popitem(last=False)
        shards = self.index.table["shard"].to_numpy()
        mask, searched, ends = np.zeros(len(shards), np.bool_), 0, time.monotonic() + SEARCH_S
        for number in np.unique(shards)[::-1].tolist():
            mine = shards == number
            # Counted as searched: no episode of the shard could be shown anyway.
            if not (wanted & mine).any():
                searched += int(mine.sum())
                continue
            # A shard that has another number of episodes now is searched again.
            if number not in known or len(known[number]) != mine.sum():
                # Asked before a shard and not within it, so each call finishes at least one.
                if time.monotonic() > ends:
                    return mask, searched, True
                # Without the other filters, so that the result holds for them all.
                known[number] = self._search_shard(number, mine, key)
            mask[mine] = known[number]
            searched += int(mine.sum())
        return mask, searched, False

    def _search_shard(self, number: int, mine: Mask, text: str) -> Mask:
        rows = self.index.table.filter(pa.array(mine))
        found = _holds(rows["task"].cast(pa.string()), text) | _holds(rows["fault"], text) | _holds(rows["id"], text)
        places, turns = rows["row"].to_numpy(), rows["turns"].to_numpy()
        assert self.index.store is not None
        for first, block in self.index.store.columns(number, TABLES[1], ("text", "observed")):
            owners = owners_of_block(places, turns, first, block.num_rows)
            observed = block["observed"].combine_chunks()
            said = _holds(pc.struct_field(pc.list_flatten(observed), "content"), text)
            hits = _holds(block["text"], text)
            hits[pc.list_parent_indices(observed).to_numpy()[said]] = True
            found[owners[hits & (owners >= 0)]] = True
        return found


_FAULTS = pa.array([reason.value for reason in StopReason if reason.is_fault])


def _holds(column: Any, text: str) -> Mask:
    found = pc.fill_null(pc.match_substring(column, text, ignore_case=True), False)
    whole = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    return np.array(whole.to_numpy(zero_copy_only=False), np.bool_)


def _one_of(asked: Mapping[str, str], key: str, allowed: tuple[str, ...]) -> Any:
    value = asked.get(key, "")
    if value and value not in allowed:
        raise ConfigError(f"`{key}` is {value[:80]!r}; it takes {', '.join(filter(None, allowed))}")
    return value


def _number(asked: Mapping[str, str], key: str, kind: type[int] | type[float]) -> Any:
    text = asked.get(key, "")
    if not text:
        return None
    try:
        value = kind(text)
        # Beyond 2**53 a browser's numbers are no longer exact.
        if math.isfinite(value) and abs(value) < 2**53:
            return value
    except (ValueError, OverflowError):
        pass
    raise ConfigError(f"`{key}` is {text[:80]!r}; expected a number")
