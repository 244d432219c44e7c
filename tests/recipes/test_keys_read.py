"""Every key that a recipe accepts is read by that very recipe: watched while it runs."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rollwright.config import Config, all_keys, build
from rollwright.config.schema import section_of
from rollwright.contracts.errors import ConfigError
from rollwright.training.loop_config import NO_GROUPS, ONE_EVALUATION
from rollwright.training.replay_loop import ReplayMethod

TINY = [
    "world.name=text.maze",
    "world.options.maze=umaze",
    "world.options.max_turns=3",
    "world.options.wording=compact",
]
MODEL = ["model.path=tiny", "model.tiny_hidden=32", "model.tiny_layers=1", "rollout.max_action_tokens=4"]
ENGINE = ["engine=transformers", "engine.dtype=float32"]
ONE = ["evaluation.seeds_per_task=1"]

# Set by files that recipes share.
SHARED = {"inverse_dynamics": {"rollout.parallel_episodes"}}


class Watched:
    """The keys of one configuration that somebody outside the configuration's own code has read."""

    def __init__(self, cls: type[Config]) -> None:
        self.root, self.on, self.seen = cls, False, set[str]()
        self.paths: dict[type, str] = dict(_sections(cls, ""))

    def note(self, section: object, key: str) -> None:
        prefix = self.paths.get(type(section))
        if self.on and prefix is not None and key in type(section).model_fields:  # type: ignore[attr-defined]
            self.seen.add(f"{prefix}{key}")


def _sections(cls: type[Config], prefix: str) -> Iterator[tuple[type, str]]:
    yield cls, prefix
    for name, field in cls.model_fields.items():
        if (section := section_of(field.annotation)) is not None:
            yield from _sections(section, f"{prefix}{name}.")


@contextmanager
def watching(module: Any, cls: type[Config], patch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Reads count from the moment at which the recipe has its configuration."""
    watched, plain, dumped, made = Watched(cls), Config.__getattribute__, Config.model_dump, module.recipe_config

    def read(self: Config, key: str) -> Any:
        if watched.on and not sys._getframe(1).f_globals.get("__name__", "").startswith(
            ("rollwright.config", "pydantic")
        ):
            watched.note(self, key)
        return plain(self, key)

    def dump(self: Config, **options: Any) -> Any:
        if not sys._getframe(1).f_globals.get("__name__", "").startswith("rollwright.config") and type(self) is not cls:
            for key in type(self).model_fields.keys() - set(options.get("exclude") or ()):
                watched.note(self, key)
        return dumped(self, **options)

    def configured(*args: Any, **options: Any) -> Any:
        config = made(*args, **options)
        watched.on = True
        return config

    patch.setattr(Config, "__getattribute__", read)
    patch.setattr(Config, "model_dump", dump)
    patch.setattr(module, "recipe_config", configured)
    yield watched
    watched.on = False


def copied(
    rows: Any, start: Path, folder: Path, settings: Config, *, seed: int, name: str = "policy", facts: Any = None
) -> Path:
    """In place of a training: the model as it was; the settings are its own section, read as a whole."""
    settings.model_dump()
    shutil.copytree(start, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few stored walks of the maze's teacher, good and bad."""
    folder = tmp_path_factory.mktemp("walks")
    collect = importlib.import_module("rollwright.recipes.collect")
    words = ["collect.by=teacher", "collect.random_frac=0.5", "collect.per_task=12", "world.options.max_turns=12"]
    collect.main([*TINY, *MODEL, *ENGINE, *words, f"run.folder={folder}"])
    return folder / "trajectories"


RUNS: dict[str, tuple[str, list[str]]] = {
    "sft": ("SftConfig", [*MODEL, "data.per_task=2", "data.only_success=false"]),
    "evaluate": ("EvaluateConfig", [*MODEL, *ENGINE, *ONE]),
    "collect": ("CollectConfig", [*MODEL, *ENGINE, "collect.per_task=1"]),
    "return_conditioned": ("ReturnConfig", [*MODEL, *ENGINE, *ONE, "replay.stores=[{walks}]", "algorithm.levels=2"]),
    "inverse_dynamics": ("InverseConfig", [*MODEL, *ENGINE, "data.stores=[{walks}]", "data.hide_frac=0.5"]),
}


@pytest.mark.parametrize("name", RUNS)
def test_every_key_that_a_recipe_accepts_is_read_by_it(
    name: str, walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls_name, words = RUNS[name]
    module = importlib.import_module(f"rollwright.recipes.{name}")
    cls = getattr(module, cls_name)
    if hasattr(module, "fit"):
        monkeypatch.setattr(module, "fit", copied)
    folder = "folder" if "folder" in cls.model_fields else "run.folder"
    with watching(module, cls, monkeypatch) as watched:
        module.main([*TINY, *(word.format(walks=walks) for word in words), f"{folder}={tmp_path / 'run'}"])
    accepted = {key for key, _ in all_keys(cls) if not any(_below(key, path) for path in cls.unread)}
    idle = {f"{prefix}{key}" for section, prefix in watched.paths.items() for key in section.only_for}  # type: ignore[attr-defined]
    unread = accepted - watched.seen - idle - SHARED.get(name, set())
    assert not unread, f"{name} accepts keys that it does not read: {sorted(unread)}"


def _below(key: str, path: str) -> bool:
    return key == path or key.startswith(f"{path}.")


@pytest.mark.parametrize("name", RUNS)
def test_a_key_of_loops_is_refused_where_there_is_none(name: str) -> None:
    cls = getattr(importlib.import_module(f"rollwright.recipes.{name}"), RUNS[name][0])
    for path in (*NO_GROUPS, *(ONE_EVALUATION if "evaluation" in cls.model_fields else ())):
        section, key = path.split(".")
        also = {"lora_rank": 3} if key.startswith("lora_") else {}  # without it they are refused for that alone
        told = [_told(cls, section, {**also, key: value}) for value in (3, 0.5, True, "rounds")]
        assert any(f"`{path}` is not read here" in text for text in told), told


def _told(cls: type[Config], section: str, keys: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        build(cls, {"world": {"name": "text.maze"}, section: keys})
    return str(refused.value)


LOOPS = ("archer", "digirl", "filtered_bc", "grpo", "hnpg", "ilql", "mc", "ppo", "webrl")


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_reads_what_its_verbs_read(name: str) -> None:
    """Keys of the shared sections are read by what a loop calls: whoever does not call it must refuse them."""
    module = importlib.import_module(f"rollwright.recipes.{name}")
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    (cls,) = (
        v
        for v in vars(module).values()
        if isinstance(v, type)
        and issubclass(v, Config)
        and v.__module__ == module.__name__
        and "world" in v.model_fields
    )
    plays = not any(
        isinstance(v, type) and issubclass(v, ReplayMethod) and v.__module__ == module.__name__ and not v.policy_moves
        for v in vars(module).values()
    )
    loop = ("replay_loop(",) if plays else ()  # which then collects and scores
    readers = {
        (".collect(", *loop): (
            "rollout.group_size",
            "rollout.groups_per_step",
            "rollout.max_staleness",
            "starts",
            "curriculum",
        ),
        (".score(", *loop): ("reward",),
        "run.update(": ("learner.minibatches", "learner.epochs"),
        ("learner.update(", "run.update(", "imitate("): ("learner.learning_rate", "learner.warmup_steps"),
    }
    for calls, keys in readers.items():
        called = any(call in source for call in ([calls] if isinstance(calls, str) else calls))
        for key in keys:
            assert called != (key in cls.unread), f"{name}: {calls} {'is' if called else 'is not'} called, {key}"
