"""The demo's folder: finished stages are reused only for the settings they were made with."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwright.config import build, dump
from rollwright.errors import ConfigError
from rollwright.recipes import demo


def test_a_folder_of_other_settings_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(demo, "stage", lambda config, title, *rest, **more: started.append(title))
    monkeypatch.setattr(demo, "summary", lambda *parts, **more: "table")
    demo.main([f"folder={tmp_path}", "seed=0"])
    demo.main([f"folder={tmp_path}", "seed=0"])
    assert len(started) == 6, "the same settings go on"
    with pytest.raises(ConfigError, match="other settings"):
        demo.main([f"folder={tmp_path}", "seed=1"])
    assert len(started) == 6
    kept = build(demo.DemoConfig, tmp_path / "config.yaml")
    assert dump(kept) == dump(build(demo.DemoConfig, {"folder": str(tmp_path), "seed": 0}))
