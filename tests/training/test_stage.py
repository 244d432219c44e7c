"""A world outside of a run's loop: whatever fails, everything that was opened is closed, once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollwright.rollout import RolloutSettings
from rollwright.training import stage as module
from rollwright.training.open_world import WorldSettings
from rollwright.training.stage import open_stage


class Parts:
    """What is opened in place of the real parts, and in which order it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.closed: list[str] = []
        self.fails = ""
        made = {
            "open_world": self.part("world"),
            "close_world": lambda world: world.close(),
            "open_codec": self.part("codec"),
            "open_engine": self.part("engine"),
            "open_collector": self.part("collector"),
            "world_mark": lambda *args: None,
            "FaultLog": lambda *args, **more: SimpleNamespace(watch=lambda engine: None),
        }
        for name, part in made.items():
            monkeypatch.setattr(module, name, part)

    def part(self, name: str) -> Any:
        def opened(*args: Any, **more: Any) -> Any:
            if name == self.fails:
                raise RuntimeError(name)
            return SimpleNamespace(name=name, close=lambda: self.closed.append(name))

        return opened

    def play(self, *, collects: bool = True) -> None:
        with open_stage(WorldSettings(name="w"), Path("policy"), Path("run")) as stage:
            stage.open_engine(None)  # type: ignore[arg-type]
            if collects:
                stage.open_collector(RolloutSettings(), None)  # type: ignore[arg-type]
            if self.fails == "play":
                raise RuntimeError("play")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


def test_a_collector_closes_the_world_that_it_plays_in(parts: Parts) -> None:
    parts.play()
    assert parts.closed == ["collector", "engine"]


def test_a_world_that_nobody_played_in_is_closed(parts: Parts) -> None:
    parts.play(collects=False)
    assert parts.closed == ["engine", "world"]


@pytest.mark.parametrize(
    ("fails", "closed"),
    [
        ("world", []),
        ("codec", ["world"]),
        ("engine", ["world"]),
        ("collector", ["engine", "world"]),
        ("play", ["collector", "engine"]),
    ],
)
def test_what_was_opened_before_an_error_is_closed_once(parts: Parts, fails: str, closed: list[str]) -> None:
    parts.fails = fails
    with pytest.raises(RuntimeError, match=fails):
        parts.play()
    assert parts.closed == closed
