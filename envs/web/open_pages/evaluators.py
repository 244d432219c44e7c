"""WebArena's evaluators: string match, URL match, page content. Pure functions; the score of a task is their product.

A reference may join alternatives by `|OR|`, and parts that must all hold by `|AND|`. What a task file asks for and what
can be judged is compared when it is loaded: a task that nobody could solve, or anybody, is refused.

Source: WebArena, arXiv:2307.13854, with the rules of its published code. The fuzzy match needs a judge: it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rollwright.contracts import ConfigError

KINDS = ("string_match", "url_match", "program_html")
_MATCHES = ("exact_match", "must_include")
_OR = re.compile(r"\s*\|OR\|\s*", re.IGNORECASE)
_AND = re.compile(r"\s*\|AND\|\s*", re.IGNORECASE)
_NOTES = (None, "", "GOLD in PRED")


def check_evaluation(task: str, evaluation: Any) -> None:
    """Refuse what cannot be judged, before anything is played.

    Raises:
        ConfigError: an evaluator or a way of matching that is not known here, or a reference that is missing, of the
            wrong type, empty, or Python to be run.
    """
    if not isinstance(evaluation, Mapping):
        raise ConfigError(f"task {task}: eval must be an object with eval_types, got {evaluation!r}")
    kinds = evaluation.get("eval_types")
    if not isinstance(kinds, list) or not kinds or any(kind not in KINDS for kind in kinds):
        raise ConfigError(f"task {task}: eval_types must be some of {', '.join(KINDS)}, got {kinds!r}")
    if "string_match" in kinds:
        _check_ways(task, "reference_answers", evaluation.get("reference_answers"))
        if clean(str(evaluation["reference_answers"].get("exact_match", "x"))) == "":
            raise ConfigError(f"task {task}: reference_answers.exact_match is empty: an empty answer would be right")
    if "url_match" in kinds:
        _check_reference_url(task, evaluation)
    if "program_html" in kinds:
        targets = evaluation.get("program_html")
        if not isinstance(targets, list) or not targets:
            raise ConfigError(f"task {task}: program_html needs a list of targets, got {targets!r}")
        for target in targets:
            _check_target(task, target)


def _check_ways(task: str, key: str, wanted: Any) -> None:
    """The references of one evaluator, by their way of matching."""
    ways = set(wanted) if isinstance(wanted, Mapping) else set()
    if not ways or ways - set(_MATCHES):
        raise ConfigError(f"task {task}: {key} must be given as {' or '.join(_MATCHES)}, got {wanted!r}")
    for way, reference in wanted.items():
        where = f"{key}.{way}"
        if way == "exact_match":
            if not isinstance(reference, str):
                raise ConfigError(f"task {task}: {where} must be one text, got {reference!r}; see must_include")
            if _AND.search(reference):
                raise ConfigError(f"task {task}: {where} joins texts by |AND|: nothing equals two; see must_include")
        else:
            pieces = [reference] if isinstance(reference, str) else reference
            if not isinstance(pieces, list) or not pieces or not all(isinstance(piece, str) for piece in pieces):
                raise ConfigError(f"task {task}: {where} must be a list of texts, got {reference!r}")
            if not all(clean(one) for piece in pieces for any_of in _all_of(piece) for one in any_of):
                raise ConfigError(f"task {task}: {where} holds an empty text, which everything includes: {reference!r}")


def _check_reference_url(task: str, evaluation: Mapping[str, Any]) -> None:
    reference = evaluation.get("reference_url")
    if not isinstance(reference, str) or not reference.strip():
        raise ConfigError(f"task {task}: url_match needs reference_url, an address, got {reference!r}")
    if _AND.search(reference):
        raise ConfigError(f"task {task}: reference_url joins addresses by |AND|: a page has one; join them by |OR|")
    if (note := evaluation.get("url_note")) not in _NOTES:
        raise ConfigError(f"task {task}: url_note must be 'GOLD in PRED', the only rule known here, got {note!r}")
    for one in _OR.split(reference):
        _check_no_code(task, "reference_url", one)
        _check_address(task, "reference_url", one)


def _check_target(task: str, target: Any) -> None:
    """One page of `program_html`, what to take from it, and what that must be."""
    if not isinstance(target, Mapping):
        raise ConfigError(f"task {task}: a target of program_html must be an object, got {target!r}")
    for key in ("url", "locator"):
        if not isinstance(target.get(key, ""), str | None):
            raise ConfigError(f"task {task}: program_html has {key}: {target[key]!r}; expected a text")
        _check_no_code(task, f"program_html has {key}:", str(target.get(key) or ""))
    if target.get("prep_actions"):
        raise ConfigError(f"task {task}: program_html has prep_actions, which are not carried out here")
    if (address := str(target.get("url") or "last")) != "last":
        _check_address(task, "program_html has url:", address)
    _check_ways(task, "required_contents", target.get("required_contents"))


def _check_no_code(task: str, key: str, text: str) -> None:
    """WebArena's `func:` names Python to be evaluated by the trainer: that is refused, whatever it says."""
    if text.strip().startswith("func:"):
        raise ConfigError(
            f"task {task}: {key} {text!r}, which WebArena runs as Python; expected an address, `last`, or an "
            "expression in JavaScript. Leave this task out"
        )


def _check_address(task: str, key: str, address: str) -> None:
    try:
        urlsplit(address)
    except ValueError as error:
        raise ConfigError(f"task {task}: {key} {address!r} is no address: {error}") from error


def string_match(answer: str, wanted: Mapping[str, Any]) -> float:
    """1 where the answer meets every reference, else 0. A reference of one letter or digit must stand as a word."""
    score = 1.0
    for way, reference in wanted.items():
        if way == "exact_match":
            score *= _equals(answer, reference)
        else:
            pieces = [reference] if isinstance(reference, str) else list(reference)
            alone = len(pieces) == 1
            score *= all(
                any(_includes(answer, one, alone=alone) for one in any_of)
                for piece in pieces
                for any_of in _all_of(piece)
            )
    return score


def url_match(address: str, reference: str) -> float:
    """1 where the path holds one of the references joined by `|OR|`, with all keys and values of its query."""
    given, found = urlsplit(_tidy(address)), 0.0
    query = parse_qs(given.query, keep_blank_values=True)
    for other in _OR.split(reference):
        wanted = urlsplit(_tidy(other))
        wanted_query = parse_qs(wanted.query, keep_blank_values=True)
        held = all(any(value in query.get(key, []) for value in values) for key, values in wanted_query.items())
        found = max(found, float(wanted.netloc + wanted.path in given.netloc + given.path and held))
    return found


def content_match(content: str, wanted: Mapping[str, Any]) -> float:
    """1 where a page's content meets every reference."""
    score = 1.0
    for way, reference in wanted.items():
        if way == "exact_match":
            score *= _equals(content, reference)
        else:
            pieces = [reference] if isinstance(reference, str) else list(reference)
            text = clean(content)
            score *= all(any(clean(one) in text for one in any_of) for piece in pieces for any_of in _all_of(piece))
    return score


def _all_of(piece: str) -> list[list[str]]:
    """A reference as parts that must all hold, each a list of alternatives."""
    return [_OR.split(part) for part in _AND.split(piece)]


def _equals(text: str, reference: str) -> bool:
    return any(clean(text) == clean(one) for one in _OR.split(reference))


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


def alternatives(reference: str) -> list[str]:
    """The texts that a reference joins by `|OR|`."""
    return _OR.split(reference)


def references(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each text that a checked evaluation is judged by, with its key: `reference_url`, `url`, `locator`, ..."""
    kinds = evaluation["eval_types"]
    if "url_match" in kinds:
        yield "reference_url", evaluation["reference_url"]
    if "string_match" in kinds:
        yield from _texts("reference_answers", evaluation["reference_answers"])
    for target in evaluation["program_html"] if "program_html" in kinds else ():
        for key in ("url", "locator"):
            yield key, str(target.get(key) or "")
        yield from _texts("required_contents", target["required_contents"])


def _texts(key: str, wanted: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for reference in wanted.values():
        yield from ((key, one) for one in ([reference] if isinstance(reference, str) else reference))
