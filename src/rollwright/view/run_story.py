"""What `run.json` says, in lines for a person: what the whole run spent, and each of its starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollwright.run_io import read_facts


def run_story(folder: Path) -> list[str]:
    """One line for the whole run, then one for each start; none where the folder has no `run.json`.

    A field that is not there, or is of another kind, is left out: the file may be an older one, or a damaged one.
    """
    facts = read_facts(folder)
    if not facts:
        return []
    totals = _mapping(facts.get("totals"))
    # Unknown totals are shown as well: a later version may count more.
    spent = ", ".join(f"{name} {value:,.0f}" for name, value in totals.items() if _is_size(value))
    sessions = facts["sessions"]
    return [f"{len(sessions)} starts: {spent}", *map(session_line, sessions)]


def session_line(session: Mapping[str, Any]) -> str:
    """When, how it ended, of which code, on what, from which seeds, and by which command."""
    hardware = _mapping(session.get("hardware"))
    resumed = session.get("resumed_at_step")
    parts = [
        f"{session.get('started')} to {session.get('ended') or '?'}: {session.get('outcome')}",
        f"went on at step {resumed}" if resumed is not None else "",
        _code(session.get("commit")),
        f"Python {session.get('python')}",
        ", ".join(f"{name} {version}" for name, version in _mapping(session.get("packages")).items()),
        f"{hardware.get('cpu')}, {hardware.get('cores')} cores, {hardware.get('memory_gib')} GiB",
        ", ".join(map(str, _list(hardware.get("gpus")))) or "no GPU",
        f"ranks {session.get('ranks')}",
        ", ".join(f"{name}={seed}" for name, seed in _mapping(session.get("seeds")).items()),
        str(session.get("command")),
    ]
    return "; ".join(part for part in parts if part)


def _code(commit: object) -> str:
    found = _mapping(commit)
    if not found:
        return "no commit: an installed package"
    return f"commit {str(found.get('id'))[:12]}{' with changes' if found.get('dirty') else ''}"


def _is_size(value: object) -> bool:
    # Also false for NaN; larger numbers come from a damaged file and would fill the line.
    return isinstance(value, int | float) and abs(value) < 1e18


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
