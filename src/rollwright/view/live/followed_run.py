"""One run folder that is followed while it grows: its facts, its state and its parts, read again when they change."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollwright.contracts import MAX_PICTURE_BYTES, DataError, is_hash, picture_type
from rollwright.evaluation import Evaluation, load_evaluation
from rollwright.run_io import RunFolder, is_held, open_regular, read_facts, settings_tree
from rollwright.store import TokenLog
from rollwright.view.live.episode_answers import (
    MAX_SHOWN_TOKENS,
    episode_answer,
    episode_rows,
    ref_of,
    shown_ids,
)
from rollwright.view.live.episode_index import EpisodeIndex
from rollwright.view.live.episode_query import EpisodeQuery, EpisodeSearch
from rollwright.view.live.metric_columns import MetricColumns
from rollwright.view.live.token_strings import TokenStrings

SUCCESS, REWARD = "rollout/success_frac", "reward/total_mean"
MAX_TEXT_BYTES = 2_000_000


class FollowedRun:
    """A run as the page asks for it. Made by the catalogue, lives as long as the server; one caller at a time.

    Args:
        folder: the run's.
        name: its id in addresses.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = RunFolder(folder), name
        # The server answers each request in a thread of its own, and refreshing changes what others read.
        self.lock = threading.RLock()
        self.metrics = MetricColumns(self.folder.metrics)
        self.index = EpisodeIndex(self.folder.trajectories)
        self.search = EpisodeSearch(self.index)
        self.token_log = TokenLog(self.folder.path)
        self._kept: dict[str, tuple[object, Any]] = {}

    def refresh(self) -> None:
        """Read on in what has grown."""
        self.metrics.refresh()
        self.index.refresh()

    def cached(self, what: str, stamp: object, make: Any) -> Any:
        """What `make` gives, made again only where the stamp has changed."""
        known = self._kept.get(what)
        if known is None or known[0] != stamp:
            # The stamp was taken before `make` reads, so what is written meanwhile is read again the next time.
            known = self._kept[what] = (stamp, make())
        return known[1]

    def facts(self) -> Mapping[str, Any]:
        """The content of `run.json`; empty where there is none."""
        path = self.folder.path / "run.json"
        found: Mapping[str, Any] = self.cached("facts", stamp_of(path), lambda: read_facts(self.folder.path))
        return found

    def config_text(self) -> str:
        """The settings as text; "" where there are none."""
        return str(self.cached("config", stamp_of(self.folder.config), lambda: read_text(self.folder.config)))

    def settings(self) -> Mapping[str, Any]:
        """The settings as a tree; empty where they cannot be read."""
        found: Mapping[str, Any] = self.cached("settings", stamp_of(self.folder.config), self._load_settings)
        return found

    def _load_settings(self) -> Mapping[str, Any]:
        with suppress(ValueError):
            return settings_tree(self.config_text())
        return {}

    def setting(self, path: str) -> Any:
        """One setting by its dotted path; None where it is not there."""
        found: Any = self.settings()
        for key in path.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def state(self) -> tuple[str, str]:
        """`running`, `finished`, `stopped` or `ill`, and why where it is one of the last two."""
        sessions = self.facts().get("sessions") or [{}]
        outcome = str(sessions[-1].get("outcome") or "")
        if outcome == "running":
            # A process that was killed leaves "running" behind; its lock tells.
            if is_held(self.folder.path):
                return "running", ""
            return "stopped", "its process has ended without a word: it was killed, or the machine went down"
        if outcome == "finished" or not outcome:
            return "finished" if outcome else "stopped", ""
        stopped = outcome.startswith(("KeyboardInterrupt", "killed", "SystemExit", "Interrupted"))
        return ("stopped" if stopped else "ill"), outcome

    def command(self) -> str:
        """The command line of its latest start; "" where nobody wrote it down."""
        sessions = self.facts().get("sessions") or [{}]
        return str(sessions[-1].get("command") or "")

    def summary(self) -> dict[str, Any]:
        """The row of the list of runs."""
        sessions = self.facts().get("sessions") or [{}]
        commit = sessions[-1].get("commit")
        recipe, shipped = started_by(self.command())
        state, why = self.state()
        steps, seed = self.setting("run.steps"), self.setting("run.seed")
        # Rows of evaluations alone are no training step.
        trained = [step for step, _ in self.metrics.known("time/step_s")] or self.metrics.steps
        return {
            "id": self.name,
            "name": self.folder.path.name,
            "folder": str(self.folder.path),
            "recipe": recipe,
            "config": shipped,
            "method": str(self.setting("algorithm.preset") or recipe),
            "world": str(self.setting("world.name") or ""),
            "state": state,
            "why": why,
            "step": max(trained) + 1 if trained else 0,
            "steps": steps if isinstance(steps, int) else None,
            "started": str(sessions[0].get("started") or ""),
            "updated": self.updated(),
            "success": self.metrics.spark(SUCCESS),
            "reward": self.metrics.spark(REWARD),
            "faults": self.num_faults(),
            "episodes": self.index.table.num_rows,
            "evaluations": [evaluation.name for evaluation in self.evaluations()],
            "seed": seed if isinstance(seed, int) else None,
            "commit": str(commit.get("id") or "")[:12] if isinstance(commit, dict) else "",
            "has_tokens": bool(self.token_log.steps()),
        }

    def updated(self) -> float:
        """Seconds since the epoch when the run last wrote something."""
        files = (self.folder.metrics, self.folder.path / "run.json", self.folder.config)
        return max((stamp[1] / 1e9 for stamp in map(stamp_of, files)), default=0.0)

    def num_faults(self) -> int:
        """Lines of `faults.jsonl`."""
        path = self.folder.faults
        return int(self.cached("faults", stamp_of(path), lambda: _count_lines(path)))

    def evaluations(self) -> list[Evaluation]:
        """All evaluations that can be read, the earlier weights first."""
        return [found for found in self._evaluations() if isinstance(found, Evaluation)]

    def unreadable(self) -> list[str]:
        """Why evaluations and episodes cannot be read, a sentence each."""
        return [found for found in self._evaluations() if isinstance(found, str)] + self.index.notes

    def _evaluations(self) -> list[Evaluation | str]:
        # Stamps of all files: an evaluation may be written anew under its name.
        paths = sorted(self.folder.evaluations.glob("*.json"))
        stamps = {path: stamp_of(path) for path in paths}
        found: list[Evaluation | str] = self.cached("evaluations", stamps, lambda: _load_all(paths))
        return found

    def episode_list(self, query: EpisodeQuery) -> dict[str, Any]:
        """One page of the episodes that match."""
        places, searched, more = self.search.places(query)
        return {
            "total": self.index.table.num_rows,
            "matching": len(places),
            "offset": query.offset,
            "limit": query.limit,
            "rows": self.rows_at(places[query.offset : query.offset + query.limit]),
            # The table is replaced whenever shards are added, so it is its own stamp.
            "choices": self.cached("choices", self.index.table, self.search.choices),
            "searched": searched,
            "more": more,
        }

    def rows_at(self, places: list[int]) -> list[dict[str, Any]]:
        """Rows of the list by their places in the index."""
        return episode_rows(self.index, places, frozenset(f"step_{step}" for step in self.token_log.steps()))

    def episode(self, key: str, *, max_tokens: int = MAX_SHOWN_TOKENS) -> dict[str, Any] | None:
        """One episode, turn by turn; None where there is none.

        Args:
            max_tokens: turns behind so many tokens are left out.

        Raises:
            DataError: it cannot be read.
        """
        ref = ref_of(key)
        place = None if ref is None else self.index.place_of(ref)
        if ref is None or place is None:
            return None
        assert self.index.store is not None
        row = self.rows_at([place])[0]
        # Episodes of evaluations belong to no step, and the token log has nothing of them.
        logged = self.token_log.read(row["step"]) if row["step"] is not None else {}
        answer = episode_answer(self.index.store.read(ref), logged, max_tokens)
        strings, note = self._strings()
        ids = shown_ids(answer["turns"])
        branch = answer["branch"]
        if branch is not None:
            branch["key"] = self.key_of(branch["parent"], tag=row["tag"])
        return {
            "row": row,
            "previous": self._key_at(place - 1),
            "next": self._key_at(place + 1),
            "vocabulary": None if strings is None else strings.vocabulary(ids),
            "tokenizer_note": note,
        } | answer

    def key_of(self, episode: str, *, tag: str) -> str | None:
        """The key of an episode by its id and tag; None where it is not stored."""
        table = self.index.table
        keys: dict[tuple[str, str], str] = self.cached("keys", table, lambda: _keys(table))
        return keys.get((tag, episode))

    def _key_at(self, place: int) -> str | None:
        if not 0 <= place < self.index.table.num_rows:
            return None
        row = self.index.table.slice(place, 1).select(["shard", "row"]).to_pylist()[0]
        return f"{row['shard']}.{row['row']}"

    def group(self, group: str) -> dict[str, Any] | None:
        """The episodes of one group; None where there is none."""
        places, _, _ = self.search.places(EpisodeQuery(exact={}, group=group, sort="old"))
        if not places:
            return None
        # A bound: where names say nothing, task, seed and tag alone may gather many episodes.
        rows = self.rows_at(places[:64])
        rewards = [row["reward"] for row in rows if not row["is_fault"]]
        first = rows[0]
        return {
            **{name: first[name] for name in ("group", "task", "seed", "tag", "split")},
            "rows": rows,
            "mean_reward": sum(rewards) / len(rewards) if rewards else None,
            # Rounded, since sums of equal parts may differ in the last bits.
            "informative": len({round(reward, 9) for reward in rewards}) > 1,
        }

    def attachment(self, name: str, *, largest: int = MAX_PICTURE_BYTES) -> tuple[bytes, str] | None:
        """A picture of the store by its hash, with the media type that its own first bytes say.

        None where there is no such file, it is no PNG, JPEG or WebP, or has more than `largest` bytes.
        """
        if not is_hash(name):
            return None
        for path in sorted((self.folder.trajectories / "attachments").glob(f"{name}.*")):
            # A link could lead out of the store, and the size is asked before anything is read.
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= largest:
                content = path.read_bytes()
                # By its first bytes and not by its name: a browser must not be sent a page as a picture.
                kind = picture_type(content)
                if kind is not None:
                    return content, kind
        return None

    def _strings(self) -> tuple[TokenStrings | None, str]:
        """The run's tokenizer, or why there is none."""
        # The run's own copies first: the model at `model.path` may have changed since.
        places = [self.folder.path / "token_log", self.folder.path / "policy"]
        model = self.setting("model.path")
        if isinstance(model, str) and model:
            places += [Path(os.path.expanduser(model)), self.folder.path / model]
        files = [place / "tokenizer.json" for place in places]
        found = next((file for file in files if os.path.isfile(file)), None)  # a foreign word: it may be no path
        if found is None:
            return None, "no tokenizer.json was found: in token_log/, in policy/, or at model.path"
        result: tuple[TokenStrings | None, str] = self.cached("strings", stamp_of(found), lambda: _opened(found))
        return result


def started_by(command: str) -> tuple[str, str]:
    """The recipe, and its YAML by the short name (`text/maze_grpo`), of a command line; "" where it names none."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is never closed: the file may be anybody's
        words = command.split()
    while words and words[0] in ("rollwright", "train", "python", "accelerate", "launch"):
        words = words[1:]
    recipe = Path(words[0]).stem if words else ""
    named = next((word for word in words[1:] if word.endswith((".yaml", ".yml"))), "")
    if not named:  # a shipped one is also named without its ending
        return recipe, next((word for word in words[1:2] if "=" not in word), "")
    path = Path(named).with_suffix("").as_posix()
    return recipe, path.rpartition("recipes/")[2] if "recipes/" in path else Path(path).name


def stamp_of(path: Path) -> tuple[int, int, int]:
    """File, time of writing in ns, and size; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """The beginning of a text file; "" where it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(limit).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _count_lines(path: Path) -> int:
    try:
        with open_regular(path) as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0


def _load_all(paths: list[Path]) -> list[Evaluation | str]:
    found: list[tuple[int, float, Evaluation | str]] = []
    for path in paths:
        try:
            evaluation = load_evaluation(path)
            found.append((evaluation.version, path.stat().st_mtime, evaluation))
        except DataError as error:
            # Kept as a sentence, so that one broken file does not hide the others.
            found.append((0, 0.0, str(error)))
    # By version and time alone: evaluations themselves have no order.
    return [evaluation for _, _, evaluation in sorted(found, key=lambda entry: entry[:2])]


def _opened(path: Path) -> tuple[TokenStrings | None, str]:
    try:
        return TokenStrings(path), ""
    except (OSError, ValueError, RecursionError) as error:
        return None, f"the tokenizer {path} cannot be read: {error}"


def _keys(table: Any) -> dict[tuple[str, str], str]:
    rows = table.select(["tag", "id", "shard", "row"]).to_pylist()
    return {(row["tag"], row["id"]): f"{row['shard']}.{row['row']}" for row in rows}
