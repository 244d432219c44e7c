"""The demo's folder: finished stages are reused only for the settings they were made with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rollwright.config import build, dump
from rollwright.contracts.errors import ConfigError
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
    older = [line for line in (tmp_path / "config.yaml").read_text().splitlines() if "base_seeds_per_task" not in line]
    (tmp_path / "config.yaml").write_text("\n".join(older))  # as a version would have written that had no such key
    demo.main([f"folder={tmp_path}", "seed=0"])
    with pytest.raises(ConfigError, match="other settings"):
        demo.main([f"folder={tmp_path}", "seed=0", "base_seeds_per_task=3"])
    kept = build(demo.DemoConfig, tmp_path / "config.yaml")
    assert dump(kept) == dump(build(demo.DemoConfig, {"folder": str(tmp_path), "seed": 0}))


def test_a_stage_is_launched_without_what_the_demos_own_launcher_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # by accelerate_configs/cpu.yaml, which starts the demo
    monkeypatch.setenv("ACCELERATE_LOG_LEVEL", "INFO")  # by the user
    program = f"import os; open({str(tmp_path / 'names')!r}, 'w').write(' '.join(os.environ))"
    (tmp_path / "python").write_text(f"#!{sys.executable}\n{program}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    config = build(demo.DemoConfig, {"folder": str(tmp_path), "config_file": "cpu_zero3"})
    demo.stage(config, "a stage", "evaluate web/miniwob_eval", [], done=tmp_path / "never")
    names = (tmp_path / "names").read_text().split()
    assert "ACCELERATE_USE_CPU" not in names and "ACCELERATE_LOG_LEVEL" in names


def test_a_launch_config_that_does_not_exist_is_named_with_those_that_do() -> None:
    assert demo.config_path("cpu").endswith("cpu.yaml")
    with pytest.raises(ConfigError, match=r"'cpu_zero9': no such file.*cpu_zero3"):
        demo.config_path("cpu_zero9")
