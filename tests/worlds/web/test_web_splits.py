"""Which MiniWoB++ tasks go where, without a browser."""

import importlib.util
from pathlib import Path

import pytest

from rollwright.contracts.environment import Taught, episode_seed, split_of_seed
from rollwright.contracts.errors import ConfigError
from rollwright.envs.web.miniwob import build
from rollwright.envs.web.miniwob_tasks.scripts import SCRIPTS
from rollwright.envs.web.miniwob_tasks.splits import (
    ALL_TASKS,
    BROWSERGYM_TEST,
    BROWSERGYM_TRAIN,
    HIDDEN_18,
    MAX_TURNS,
    POINTING,
    RELOAD_ON_RESET,
    TASK_SETS,
    WEBGUM_56,
    task_names,
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("miniwob") is None, reason="needs miniwob: pip install .[web]")


def test_the_tables_have_their_published_sizes_and_only_real_tasks() -> None:
    assert [len(set(names)) for names in (WEBGUM_56, HIDDEN_18, BROWSERGYM_TRAIN, BROWSERGYM_TEST)] == [56, 18, 62, 63]
    assert not set(BROWSERGYM_TRAIN) & set(BROWSERGYM_TEST)
    spec = importlib.util.find_spec("miniwob")
    assert spec is not None and spec.submodule_search_locations
    html = Path(spec.submodule_search_locations[0]) / "html" / "miniwob"
    assert set(ALL_TASKS) == {page.stem for page in html.glob("*.html")}
    for names in (*TASK_SETS.values(), RELOAD_ON_RESET, POINTING, MAX_TURNS, SCRIPTS):
        assert set(names) <= set(ALL_TASKS)


def test_named_sets_and_lists_make_worlds() -> None:
    assert [task.id for task in build(tasks="hidden18").tasks("test")] == list(HIDDEN_18)
    world = build(train_tasks="browsergym_train", test_tasks=["click-test", "click-tab"])
    assert [task.id for task in world.tasks("test")] == ["click-test", "click-tab"]
    assert len(world.tasks("train")) == 62
    assert isinstance(world, Taught)
    assert world.max_turns == max(task.params["max_turns"] for split in ("train", "validation", "test")
                                  for task in world.tasks(split))  # fmt: skip


def test_one_task_in_two_splits_has_disjoint_seeds() -> None:
    world = build(tasks=["click-tab"])
    train, test = world.task("click-tab", "train"), world.task("click-tab", "test")
    assert train != test and train.id == test.id
    assert split_of_seed(episode_seed("train", 0)) != split_of_seed(episode_seed("test", 0))


def test_a_wrong_name_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(ConfigError, match="click-button"):
        task_names(["click-buton"])
    with pytest.raises(ConfigError, match="webgum56"):
        task_names("webgum65")
    with pytest.raises(ConfigError, match="empty"):
        task_names([])
    with pytest.raises(ConfigError, match="reward"):
        build(reward="dense")  # type: ignore[arg-type]


def test_a_task_of_the_wrong_split_is_a_clear_error() -> None:
    world = build(train_tasks=["click-tab"], validation_tasks=["click-tab"], test_tasks=["click-test"])
    with pytest.raises(ConfigError, match="belongs to test"):
        world.task("click-test", "train")


async def test_a_seed_of_another_split_is_refused_before_any_browser_starts() -> None:
    world = build(tasks=["click-tab"])
    with pytest.raises(ValueError, match="test seed"):
        await world.make().reset(world.task("click-tab", "train"), episode_seed("test", 0))
    await world.close()
