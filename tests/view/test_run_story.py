"""The report's lines about a run: true of its run.json, silent without one, and never more than text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rollwright.run_io.tracking import RunFolder
from rollwright.view.report_page import write_report
from rollwright.view.run_story import run_story, session_line


def test_a_run_without_facts_has_no_story(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, config_yaml="seed: 1\n")
    assert run_story(tmp_path) == []
    assert '"story":[]' in write_report(tmp_path).read_text()


def test_the_story_has_a_line_for_the_run_and_one_for_each_start(tmp_path: Path) -> None:
    for tokens in (1200, 34):
        with RunFolder.opened(tmp_path, config_yaml="run:\n  seed: 11\n") as folder:
            folder.facts.add(tokens_sampled=tokens)
    whole, first, second = run_story(tmp_path)
    assert whole.startswith("2 starts: ") and "tokens_sampled 1,234" in whole
    assert ": finished" in first and "run.seed=11" in second and "torch " in second
    assert '"story":["2 starts: ' in write_report(tmp_path).read_text()


def test_what_a_session_says_is_said() -> None:
    session: dict[str, Any] = {
        "started": "a",
        "ended": None,
        "outcome": "killed",
        "resumed_at_step": 0,
        "commit": {"id": "0123456789abcdef", "dirty": True},
        "hardware": {"cpu": "c", "cores": 4, "memory_gib": 8.0, "gpus": ["H", "H"]},
        "command": "grpo.py x",
    }
    line = session_line(session)
    assert line.startswith("a to ?: killed; went on at step 0; commit 0123456789ab with changes; ")
    assert "c, 4 cores, 8.0 GiB; H, H" in line and line.endswith("; grpo.py x")
    assert "no commit" in session_line({}), "an installed package, or an older file"


def test_foreign_text_of_the_file_stays_text(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    entry = {"id": "0", "outcome": attack, "command": attack, "packages": {attack: attack}, "commit": attack}
    (tmp_path / "run.json").write_text(json.dumps({"sessions": [entry], "totals": {attack: 1}}))
    html = write_report(tmp_path).read_text()
    assert attack not in html and "\\u003cscript\\u003ealert(1)" in html


def test_a_damaged_file_is_left_out(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"sessions": 3}', '{"sessions": [4]}'):
        (tmp_path / "run.json").write_text(text)
        assert run_story(tmp_path) == []
