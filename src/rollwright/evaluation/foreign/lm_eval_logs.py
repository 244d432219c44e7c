"""Sample logs of lm-evaluation-harness (`--log_samples`): JSON lines, one per document and filter.

The sums of a run lie beside them in `results_<date>.json`. Source: the package lm_eval and the files that it writes
(https://github.com/EleutherAI/lm-evaluation-harness).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollwright.contracts import DataError
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

READER = "lm-evaluation-harness samples"
MAX_LINE_BYTES = 64 << 20
MAX_ROWS = 5_000_000
MAX_RESULTS_BYTES = 256 << 20
# A task's name may hold underscores itself, so the form of the date marks its end.
_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
_FACTS = ("lm_eval_version", "git_hash", "chat_template_sha", "system_instruction_sha", "fewshot_as_multiturn")
_TASK_FACTS = ("versions", "n-shot", "n-samples", "task_hashes")


def read_lm_eval_log(path: Path, *, filter_name: str | None = None, metric: str | None = None) -> EvaluationReading:
    """One row per document: task `<task>/<doc_id>`, attempt 0.

    Scores of a metric of which less is better are negated, so that more is better everywhere.

    Args:
        path: `samples_<task>_<date>.jsonl`.
        filter_name: which filter's scores to take. Filters are never pooled.
        metric: which metric to take, where a line has several.

    Raises:
        DataError: several filters or metrics and none named, a document that is logged twice, a score that is not one
            number, or a line that is not a sample.
    """
    task, results = _task_of(path), _results(path)
    lines = list(_lines(path))
    if not lines:
        raise DataError(f"{path} holds no sample: it is empty. Run lm_eval with --log_samples again")
    chosen_filter = _choose(filter_name, sorted({str(line.get("filter")) for line in lines}), "filter", path)
    # A document has one line per filter; pooled, it would count several times.
    kept = [line for line in lines if str(line.get("filter")) == chosen_filter]
    chosen = _choose(metric, _metrics(kept), "metric", path)
    higher = _mapping(_mapping(results.get("higher_is_better")).get(task)).get(chosen)
    # Only a plain False turns the sign: a direction that nobody states is taken for higher.
    rows = [_row(task, line, chosen, sign=-1.0 if higher is False else 1.0, path=path) for line in kept]
    warnings = ["less of this metric is better, so its scores are negated"] if higher is False else []
    if not results:
        warnings.append("no results_*.json lies beside it, so versions and settings cannot be compared")
    return reading_of(
        rows,
        path=path,
        sha256=file_hash(path),
        reader=READER,
        # `model_name` is the checkpoint, `config.model` only the kind of backend, such as hf.
        policy=str(results.get("model_name") or _mapping(results.get("config")).get("model") or ""),
        world=f"lm_eval:{task}" if results else "",
        world_version=str(_mapping(results.get("versions")).get(task, "")),
        temperature=_temperature(results),
        choice={"filter": chosen_filter, "metric": chosen},
        facts=_facts(results, task),
        warnings=warnings,
    )


def find_sample_file(folder: Path) -> Path:
    """The one sample log below a folder, as `--output_path` made it.

    Raises:
        DataError: there is none, or several.
    """
    # lm_eval puts a folder with the model's name in between.
    found = sorted(folder.rglob("samples_*.jsonl"))[:20]
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{folder} holds no samples_*.jsonl; run lm_eval with --log_samples and --output_path")
    names = ", ".join(str(file.relative_to(folder)) for file in found)
    raise DataError(f"{folder} holds {len(found)} sample logs: {names}. Name one of them")


def _task_of(path: Path) -> str:
    """From the file's name, since the lines do not say. In a renamed file the hashes alone tell documents apart."""
    match = _NAME.fullmatch(path.name)
    return match["task"] if match else "samples"


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        # One line more than allowed, so that a file of just MAX_ROWS lines meets its end inside the loop.
        for number in range(1, MAX_ROWS + 2):
            # A file without line breaks would fill the memory.
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB, which no sample is")
            if line.strip():
                yield _sample(line, f"{path}, line {number}")
    raise DataError(f"{path} has more than {MAX_ROWS:,} lines")


def _sample(line: bytes, where: str) -> dict[str, Any]:
    """What is needed of one line; prompts and answers can be large."""
    sample = json_value(line, where)
    if not isinstance(sample, dict) or not {"doc_id", "filter", "metrics"} <= sample.keys():
        raise DataError(f"{where} is not a sample of lm_eval: expected a JSON object with doc_id, filter and metrics")
    if not isinstance(sample["metrics"], list):
        raise DataError(f"{where}: `metrics` is a {type(sample['metrics']).__name__}; expected a list of names")
    # `metrics` names the metrics; each score is a key of the line itself.
    names = [str(name) for name in sample["metrics"]]
    kept = {name: sample.get(name) for name in ("doc_id", "filter", "doc_hash", "target_hash", "prompt_hash")}
    return kept | {"metrics": names, "scores": {name: sample.get(name) for name in names}}


def _metrics(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({name for line in lines for name in line["metrics"]})


def _choose(wanted: str | None, found: Sequence[str], what: str, path: Path) -> str:
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted in found:
        return str(wanted)
    listed = ", ".join(found) or "none"
    if wanted is None:
        raise DataError(f"{path} has {len(found)} {what}s: {listed}. Name one with --{what}; they are never pooled")
    near = difflib.get_close_matches(wanted, found, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise DataError(f"{path} has no {what} {wanted!r}. {hint}It has: {listed}")


def _row(task: str, line: Mapping[str, Any], metric: str, *, sign: float, path: Path) -> JudgedRow:
    doc = line["doc_id"]
    if not isinstance(doc, int | str):
        raise DataError(f"{path}: doc_id {doc!r} is a {type(doc).__name__}; expected a number or text")
    score = exact_number(line["scores"].get(metric), what=f"{path}: metric {metric!r} of doc_id {doc}")
    # The prompt stays out: another template is a warning, another question an error (`check_same_content`).
    hashes = [line["doc_hash"], line["target_hash"]]
    return JudgedRow(
        task=f"{task}/{doc}",
        seed=key_seed(task, doc),
        score=None if score is None else sign * score,
        question=content_hash(hashes) if any(hashes) else "",
        prompt=str(line["prompt_hash"] or ""),
    )


def _results(path: Path) -> Mapping[str, Any]:
    """The sums of the same run; empty where they do not lie beside the log or cannot be read."""
    match = _NAME.fullmatch(path.name)
    # Both files of a run carry the same date.
    beside = path.with_name(f"results_{match['date']}.json") if match else path.with_name("results.json")
    try:
        if not beside.is_file() or beside.stat().st_size > MAX_RESULTS_BYTES:
            return {}
        return _mapping(json_value(beside.read_bytes(), str(beside)))
    # The file adds facts and names; the scores can be judged without it.
    except (OSError, DataError):
        return {}


def _facts(results: Mapping[str, Any], task: str) -> dict[str, Any]:
    config = _mapping(results.get("config"))
    facts = {name: results.get(name) for name in _FACTS} if results else {}
    facts |= {name: _mapping(results.get(name)).get(task) for name in _TASK_FACTS if name in results}
    return facts | {name: config.get(name) for name in ("gen_kwargs", "limit") if name in config}


def _temperature(results: Mapping[str, Any]) -> float:
    return temperature_of(_mapping(_mapping(results.get("config")).get("gen_kwargs")).get("temperature"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
