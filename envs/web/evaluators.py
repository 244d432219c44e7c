"""WebArena's evaluators: string match, URL match, page content. Pure functions; the score of a task is their product.

Source: WebArena, arXiv:2307.13854, with the rules of its published code. The fuzzy match needs a judge: it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rollwright.errors import ConfigError

KINDS = ("string_match", "url_match", "program_html")
_MATCHES = frozenset(["exact_match", "must_include"])
_OR = " |OR| "


def check_evaluation(task: str, evaluation: Mapping[str, Any]) -> None:
    """Refuse what cannot be judged, before anything is played.

    Raises:
        ConfigError: an evaluator or a way of matching that is not known here, or a reference that is missing.
    """
    kinds = evaluation.get("eval_types") or []
    unknown = [kind for kind in kinds if kind not in KINDS]
    if not kinds or unknown:
        raise ConfigError(f"task {task}: eval_types must be some of {', '.join(KINDS)}, got {kinds}")
    if "string_match" in kinds:
        _check_ways(task, evaluation.get("reference_answers"))
    if "url_match" in kinds and not evaluation.get("reference_url"):
        raise ConfigError(f"task {task}: url_match needs reference_url")
    if "program_html" in kinds:
        if not evaluation.get("program_html"):
            raise ConfigError(f"task {task}: program_html needs a list of targets")
        for target in evaluation["program_html"]:
            _check_ways(task, target.get("required_contents"))
            _check_no_code(task, target)


def _check_ways(task: str, wanted: Any) -> None:
    ways = set(wanted or ())
    if not ways or ways - _MATCHES:
        raise ConfigError(
            f"task {task}: references must be given as {' or '.join(sorted(_MATCHES))}, got {sorted(ways) or 'none'}"
        )


def _check_no_code(task: str, target: Mapping[str, Any]) -> None:
    """WebArena's `func:` names Python to be evaluated by the trainer: that is refused, whatever it says."""
    for key in ("url", "locator"):
        if str(target.get(key) or "").strip().startswith("func:"):
            raise ConfigError(
                f"task {task}: program_html has {key}: {target[key]!r}, which WebArena runs as Python; expected an "
                f"{'address or last' if key == 'url' else 'expression in JavaScript'}. Leave this task out"
            )


def string_match(answer: str, wanted: Mapping[str, Any]) -> float:
    """1 where the answer meets every reference, else 0. A reference of one letter or digit must stand as a word."""
    score = 1.0
    for way, reference in wanted.items():
        if way == "exact_match":
            score *= clean(answer) == clean(str(reference))
        else:
            pieces = [reference] if isinstance(reference, str) else list(reference)
            score *= all(_includes(answer, piece, alone=len(pieces) == 1) for piece in pieces)
    return score


def url_match(address: str, reference: str) -> float:
    """1 where the path holds one of the references joined by ` |OR| `, with all keys and values of its query."""
    given, found = urlsplit(_tidy(address)), 0.0
    query = parse_qs(given.query, keep_blank_values=True)
    for other in reference.split(_OR):
        wanted = urlsplit(_tidy(other))
        wanted_query = parse_qs(wanted.query, keep_blank_values=True)
        held = all(any(value in query.get(key, []) for value in values) for key, values in wanted_query.items())
        found = max(found, float(wanted.netloc + wanted.path in given.netloc + given.path and held))
    return found


def content_match(content: str, wanted: Mapping[str, Any]) -> float:
    """1 where a page's content meets every reference; alternatives of one are joined by ` |OR| `."""
    score = 1.0
    for way, reference in wanted.items():
        if way == "exact_match":
            score *= clean(content) == clean(str(reference))
        else:
            pieces = [reference] if isinstance(reference, str) else list(reference)
            score *= all(any(clean(one) in clean(content) for one in piece.split(_OR)) for piece in pieces)
    return score


def clean(text: str) -> str:
    """Letter case, blanks and quotes at the ends aside."""
    return text.strip().strip("'\"").strip().lower()


def _includes(answer: str, piece: str, *, alone: bool) -> bool:
    wanted = clean(piece)
    if alone and len(wanted) == 1:
        return wanted in re.findall(r"\w+|[^\w\s]", clean(answer))
    return wanted in clean(answer)


def _tidy(address: str) -> str:
    return address.strip().rstrip("/")


def total(scores: Sequence[float]) -> float:
    """The product: an evaluator that is not asked for counts as 1."""
    product = 1.0
    for score in scores:
        product *= score
    return product
