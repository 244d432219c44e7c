"""Logs of inspect_ai (`.eval`, format versions 2 and 3), read without the package.

The format is a zip of JSON files: `header.json`, and `samples/<id>_epoch_<n>.json` for each sample. Source: the package
inspect_ai and the files that it writes (https://github.com/UKGovernmentBEIS/inspect_ai).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollwright.contracts import DataError, StopReason
from rollwright.evaluation.foreign.archive_members import BoundedArchive
from rollwright.evaluation.foreign.log_reading import (
    EvaluationReading,
    JudgedRow,
    content_hash,
    exact_number,
    file_hash,
    json_value,
    key_seed,
    reading_of,
    temperature_of,
)

READER = "inspect_ai log"
VERSIONS = (2, 3)
WORDS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
"""What inspect_ai's own metrics take these values for: correct, partial, incorrect, no answer."""
_LIMITS = {
    "time": StopReason.TIMEOUT,
    "working": StopReason.TIMEOUT,
    "token": StopReason.MAX_TOKENS,
    "context": StopReason.MAX_TOKENS,
    "cost": StopReason.MAX_TOKENS,
}
"""By the limit that ended a sample; any other is a limit on messages or turns."""
_COMPARED = ("task_version", "task_args", "dataset", "model_generate_config", "revision", "packages")
_CONFIG = ("epochs", "limit", "message_limit", "token_limit", "time_limit", "working_limit")


def read_inspect_log(path: Path, *, scorer: str | None = None) -> EvaluationReading:
    """One row per sample and epoch: task `<task>/<sample id>`, attempt `epoch - 1`.

    A sample that failed is a fault. One that a limit ended counts with the score it got.

    Args:
        path: the `.eval` file.
        scorer: whose scores to take; `name.key` for one entry of a scorer that gives several.

    Raises:
        DataError: the run did not finish, several scorers and none named, or a score that is not one number.
        MissingDependency: Zstandard is needed and not installed.
    """
    with BoundedArchive(str(path)) as archive:
        header = _header(archive, path)
        head = _mapping(header["eval"])
        # Slimmed one by one: a log can unpack to far more than the memory holds.
        samples = [_slim(_parsed(archive.read(name), f"{path}: {name}")) for name in archive.names if _is_sample(name)]
    scorers = _scorers(samples)
    chosen = _chosen(scorer, scorers, path)
    rows = [_row(str(head.get("task", "")), sample, chosen, path) for sample in samples]
    config = _mapping(head.get("config"))
    facts = {name: head.get(name) for name in _COMPARED} | {name: config.get(name) for name in _CONFIG}
    return reading_of(
        rows,
        path=path,
        sha256=file_hash(path),
        reader=READER,
        policy=str(head.get("model", "")),
        world=f"inspect_ai:{head.get('task', '')}",
        world_version=str(head.get("task_version", "")),
        temperature=_temperature(head),
        choice={"scorer": chosen},
        facts=facts,
        warnings=_warnings(rows, head),
    )


def _header(archive: BoundedArchive, path: Path) -> Mapping[str, Any]:
    if "header.json" not in archive.names:
        raise DataError(
            f"{path} has no header.json: the evaluation did not finish. Finish it with `inspect eval-retry`, since the "
            "samples that finish first may be the easy ones"
        )
    header = _parsed(archive.read("header.json"), f"{path}: header.json")
    if header.get("version") not in VERSIONS:
        raise DataError(f"{path} has log version {header.get('version')!r}; versions 2 and 3 are read")
    if header.get("status") != "success":
        raise DataError(
            f"{path} is of a run that ended as {str(header.get('status'))[:40]!r}: its samples are incomplete. Finish "
            "it with `inspect eval-retry`"
        )
    if header.get("invalidated"):
        raise DataError(f"{path} was marked as invalid by its authors, so no verdict can rest on it")
    if not isinstance(header.get("eval"), dict):
        raise DataError(f"{path}: header.json has no part `eval`, which names task and model")
    return header


def _is_sample(name: str) -> bool:
    return name.startswith("samples/") and name.endswith(".json")


def _slim(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed of a sample: its messages and events can be a thousand times as large."""
    messages = sample.get("messages")
    written = messages if isinstance(messages, list) else []
    said = sum(isinstance(message, dict) and message.get("role") == "assistant" for message in written)
    kept = ("id", "epoch", "input", "target", "scores", "error", "limit", "completed", "invalidation")
    slim = {name: sample.get(name) for name in kept}
    # A hash is enough to tell questions apart; an input can hold images.
    slim["question"] = content_hash([_unnamed(slim.pop("input")), slim.pop("target")])
    # Where the log counts no turns, each answer of the model is one.
    return slim | {"turns": sample.get("turn_count") or said, "has_input": "input" in sample}


def _unnamed(value: Any) -> Any:
    """The input without the ids that inspect_ai gives each message anew in every run."""
    if not isinstance(value, list):
        return value
    return [{k: v for k, v in item.items() if k != "id"} if isinstance(item, dict) else item for item in value]


def _scorers(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    # Over all samples: one that failed may lack a scorer.
    return sorted({str(name) for sample in samples for name in _mapping(sample["scores"])})


def _chosen(wanted: str | None, scorers: Sequence[str], path: Path) -> str:
    if not scorers:
        raise DataError(f"{path} holds no score at all: score it with `inspect score`")
    if wanted is None and len(scorers) > 1:
        raise DataError(f"{path} has {len(scorers)} scorers: {', '.join(scorers)}. Name one with --scorer")
    # NAME.ENTRY: the last dot divides, since the name of a scorer may hold others.
    if wanted is None or wanted in scorers or wanted.rpartition(".")[0] in scorers:
        return wanted or scorers[0]
    near = difflib.get_close_matches(wanted, scorers, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise DataError(f"{path} has no scorer {wanted!r}. {hint}It has: {', '.join(scorers)}")


def _row(task: str, sample: Mapping[str, Any], scorer: str, path: Path) -> JudgedRow:
    name, epoch = f"{task}/{sample['id']}", sample["epoch"]
    # `type`, because True is an int to isinstance.
    if type(epoch) is not int or not 1 <= epoch < 10**9 or not isinstance(sample["id"], int | str):
        raise DataError(f"{path}: a sample has id {sample['id']!r} and epoch {epoch!r}; expected an id and 1, 2, ...")
    where = f"{path}: score {scorer!r} of sample {sample['id']!r}, epoch {epoch},"
    error, limit = sample["error"], sample["limit"]
    score = _mapping(_score(sample, scorer))
    fault = _fault(sample)
    stop = StopReason.TERMINATED
    if limit:
        # A limit is a mapping with a type, or the type alone.
        stop = _LIMITS.get(str(_mapping(limit).get("type", limit)), StopReason.MAX_TURNS)
    return JudgedRow(
        task=name,
        seed=key_seed(task, sample["id"]),
        attempt=epoch - 1,
        # A sample that failed is a fault, whatever score it holds.
        score=None if error else exact_number(_value(score, scorer, where), what=where, words=WORDS),
        num_turns=sample["turns"] if isinstance(sample["turns"], int) else 1,
        stop_reason=StopReason.ENV_ERROR if fault else stop,
        fault=fault,
        # inspect_ai keeps the earlier values of an edited score under this key.
        edited=bool(score.get("history")),
        question=sample["question"] if sample["has_input"] else "",
    )


def _score(sample: Mapping[str, Any], scorer: str) -> Any:
    scores = _mapping(sample["scores"])
    # The whole name wins over NAME.ENTRY, where both could be meant.
    return scores.get(scorer, scores.get(scorer.rpartition(".")[0]))


def _value(score: Mapping[str, Any], scorer: str, where: str) -> Any:
    """The current value; of a scorer with several entries the named one."""
    value = score.get("value")
    if not isinstance(value, dict):
        return value
    key = scorer.rpartition(".")[2]
    if key not in value:
        raise DataError(f"{where} has the entries {', '.join(map(str, value))}. Name one, as --scorer NAME.ENTRY")
    return value[key]


def _fault(sample: Mapping[str, Any]) -> str:
    """What broke; "" where nothing did. Logs before `completed` existed lack the key."""
    if sample["error"]:
        return str(_mapping(sample["error"]).get("message", sample["error"]))[:500]
    if sample["invalidation"]:
        return "marked as invalid by the log's authors"
    return "not completed" if sample["completed"] is False else ""


def _temperature(head: Mapping[str, Any]) -> float:
    return temperature_of(_mapping(head.get("model_generate_config")).get("temperature"))


def _warnings(rows: Sequence[JudgedRow], head: Mapping[str, Any]) -> list[str]:
    found = []
    if edited := sum(row.edited for row in rows):
        found.append(f"scores edited after the run: {edited}; the edited values are used")
    if _mapping(head.get("revision")).get("dirty"):
        found.append("the run's code had changes that were not committed")
    epochs, samples = _mapping(head.get("config")).get("epochs"), _mapping(head.get("dataset")).get("samples")
    # A sample that never ran leaves no member in the archive.
    if isinstance(epochs, int) and isinstance(samples, int) and len(rows) < epochs * samples:
        found.append(f"the header states {samples} samples in {epochs} epochs, but the log holds {len(rows)} rows")
    return found


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    found = json_value(content, where)
    if not isinstance(found, dict):
        raise DataError(f"{where} is a {type(found).__name__}; expected a JSON object")
    return found


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
