"""The world `device.phone`: the contract, every template, actions in both forms, chance, bad input."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rollwright.checks.env_check import MALFORMED_ACTIONS, check_env
from rollwright.contracts.environment import episode_seed
from rollwright.contracts.errors import ConfigError
from rollwright.contracts.record import Task
from rollwright.envs.device.backend import InProcess
from rollwright.envs.device.handset import contents as data
from rollwright.envs.device.phone import Setup, build
from rollwright.envs.device.phone_actions import ActionError, DeviceAction, carry_out, parse_action
from rollwright.envs.device.phone_world import PhoneEnv, PhoneWorld
from rollwright.envs.device.screen.tree import elements
from rollwright.envs.device.templates.all_templates import TEMPLATES
from rollwright.envs.device.templates.template import GiveUp, Hands, instance_seed, same_answer

WORDS = re.compile(r" ?\w+| ?[^\w\s]|\s")
EVERYWHERE = build(splits="seed")


def task_of(name: str) -> Task:
    return next(task for task in EVERYWHERE.tasks("train") if task.id == name)


def play(world: PhoneWorld, env: PhoneEnv, task: Task, seed: int) -> tuple[list[str], bool | None]:
    """An episode of the teacher: its actions and the verdict."""
    observation, teacher, actions = env.reset(task, seed), world.teacher(task), []
    while True:
        actions.append(teacher.act(env, observation))
        result = env.step(actions[-1])
        if result.terminated or result.truncated:
            return actions, result.success
        observation = result.observation  # type: ignore[assignment]


# The contract


@pytest.mark.parametrize("options", [{}, {"rendering": "lines", "finish": "automatic", "templates": "easy"}])
def test_the_contract_is_kept(options: dict) -> None:
    check_env(build(**options), seeds=2)


def test_there_are_enough_templates_and_the_splits_are_apart() -> None:
    assert len(TEMPLATES) >= 60
    world = build()
    names = {split: {task.id for task in world.tasks(split)} for split in ("train", "validation", "test")}
    assert not names["train"] & names["test"] and not names["train"] & names["validation"]
    assert set().union(*names.values()) == set(TEMPLATES)
    for split in names:
        assert {TEMPLATES[name].difficulty for name in names[split]} == {"easy", "medium", "hard"}
    assert len({t.goal for t in TEMPLATES.values()}) == len(TEMPLATES)
    with pytest.raises(ValueError, match="test seed"):
        world.make().reset(world.tasks("train")[0], episode_seed("test", 1))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_not_done_at_first_its_solver_does_it_and_a_near_miss_does_not_count(name: str) -> None:
    template, task, env = TEMPLATES[name], task_of(name), EVERYWHERE.make()
    for number in range(3):
        seed = episode_seed("train", "template", number)
        env.reset(task, seed)
        assert not env.reached()
        json.dumps(env.params)
        actions, success = play(EVERYWHERE, env, task, seed)
        assert success, f"{env.params}: {actions}"
        assert len(actions) <= 0.9 * template.budget, "the budget leaves no room for a detour"
        if template.feasible:
            assert not near_miss(env, task, seed)


def near_miss(env: PhoneEnv, task: Task, seed: int) -> bool:
    """Do the neighbouring task, say `done`: the verdict."""
    template, hands = TEMPLATES[task.id], Hands()
    env.reset(task, seed)
    hands.look(env.elements, env.backend.activity()[0])
    try:
        for action in template.solve(hands, template.near(dict(env.params))):
            if env.turns >= template.budget - 1:
                break
            env.step(action)
            hands.look(env.elements, env.backend.activity()[0])
    except GiveUp:
        pass
    return bool(env.step("done").success)


def test_solvers_cope_with_distractors() -> None:
    world = build(splits="seed", distractors="many")
    env, solved = world.make(), Counter[bool]()
    for task in world.tasks("train"):
        solved[bool(play(world, env, task, episode_seed("train", "busy"))[1])] += 1
    assert solved[True] >= 0.95 * len(TEMPLATES), solved


def test_solvers_stay_calm_when_somebody_else_touches_the_phone() -> None:
    rng, env, recovered = random.Random(3), EVERYWHERE.make(), 0
    for task in EVERYWHERE.tasks("train"):
        observation, teacher = env.reset(task, episode_seed("train", "strays")), EVERYWHERE.teacher(task)
        while True:
            action = teacher.act(env, observation)  # must not raise, whatever the screen
            result = env.step(random_action(rng, env) if rng.random() < 0.3 and action != "done" else action)
            if result.terminated or result.truncated:
                recovered += result.success is True
                break
            observation = result.observation  # type: ignore[assignment]
    assert recovered > 0.1 * len(TEMPLATES), "many solvers look where they are and go on"


def test_a_careless_teacher_is_worse_and_repeats_itself() -> None:
    names = [name for name in TEMPLATES if name.startswith("settings_")]
    world = build(templates=names, splits="seed", distractors="none", teacher_optimal_frac=0.7)
    env, rate = world.make(), Counter[bool | None]()
    for task in world.tasks("train"):
        one, two = (play(world, env, task, episode_seed("train", "careless")) for _ in range(2))
        assert one == two
        rate[one[1]] += 1
    assert 0 < rate[True] < len(names), rate


# The verdict


def test_a_reached_goal_counts_only_once_it_is_declared() -> None:
    env, task = EVERYWHERE.make(), task_of("settings_wifi")
    actions, _ = play(EVERYWHERE, env, task, episode_seed("train", 1))
    env.reset(task, episode_seed("train", 1))
    for action in actions[:-1]:
        result = env.step(action)
        assert result.rewards == {"env": 0.0} and not result.terminated
    assert env.reached()
    while not result.truncated:
        result = env.step("wait")
    assert result.success is False and env.turns == TEMPLATES["settings_wifi"].budget
    env.reset(task, episode_seed("train", 1))
    assert env.step("done").success is False, "declared without the state"
    env.reset(task, episode_seed("train", 1))
    assert env.step("infeasible").success is False, "what can be done is not infeasible"


def test_automatic_finish_ends_with_the_state() -> None:
    world = build(templates=["settings_wifi"], splits="seed", finish="automatic")
    env = world.make()
    env.reset(world.tasks("test")[0], episode_seed("test", 1))
    actions, success = play(world, env, world.tasks("test")[0], episode_seed("test", 1))
    assert success and actions[-1].startswith("tap")


def test_what_cannot_be_done_is_solved_by_saying_so() -> None:
    env, task = EVERYWHERE.make(), task_of("phone_call_unknown")
    for action, verdict in (("done", False), ("infeasible", True)):
        env.reset(task, episode_seed("train", 2))
        assert env.step(action).success is verdict


def test_answers_by_hand() -> None:
    assert same_answer("Meeting with Anna", "meeting with Ana")  # 2*16/(17+16) = 0.970
    assert not same_answer("Buy milk", "Buy silk")  # 2*7/16 = 0.875
    assert same_answer("5, 3", [3, 5]) and not same_answer("3", [3, 5]) and not same_answer("3, 3", [3, 5])
    assert same_answer("3.05", [3], tolerance=0.1) and not same_answer("3.2", [3], tolerance=0.1)
    assert not same_answer("3.1", [3.0], tolerance=0.1), "strictly within"
    assert not same_answer("1234567890", "1234567891"), "a number is never nearly right"
    assert not same_answer("", "x") and not same_answer("three", [3])


def test_instance_seeds_by_androidworlds_formula() -> None:
    assert instance_seed(30, "ContactsAddContact", 0) == 1155463587
    assert instance_seed(30, "ContactsAddContact", 1) == 1324763856


# Actions


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("tap 3", {"action_type": "click", "index": 3}),
        ("tap 540 1200", {"action_type": "click", "x": 540, "y": 1200}),
        ("TAP 0\nsecond line", {"action_type": "click", "index": 0}),
        ("hold 2", {"action_type": "long_press", "index": 2}),
        ("type 5 hello  world", {"action_type": "input_text", "index": 5, "text": "hello  world", "clear_text": True}),
        ("type 5", {"action_type": "input_text", "index": 5, "text": "", "clear_text": True}),
        ("scroll down", {"action_type": "scroll", "direction": "down"}),
        ("open Settings", {"action_type": "open_app", "app_name": "Settings"}),
        ("answer 5, 3", {"action_type": "answer", "text": "5, 3"}),
        ("done", {"action_type": "status", "goal_status": "complete"}),
        ("infeasible", {"action_type": "status", "goal_status": "infeasible"}),
        ('{"action_type": "click", "index": 0}', {"action_type": "click", "index": 0}),
        (
            '{"action_type": "scroll", "direction": "up", "index": 0}',
            {"action_type": "scroll", "index": 0, "direction": "up"},
        ),
        (
            '{"action_type": "status", "goal_status": "successful"}',
            {"action_type": "status", "goal_status": "complete"},
        ),
        ('{"action_type": "wait", "x": null}', {"action_type": "wait"}),
    ],
)
def test_actions_in_both_forms(text: str, fields: dict) -> None:
    assert parse_action(text).as_json() == fields
    if not text.startswith("type"):  # the JSON's typing ends with Enter, the short form's does not
        assert parse_action(json.dumps(fields)) == parse_action(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("tap", "number of an element"),
        ("tap -1", "number of an element"),
        ("tap ٣", "number of an element"),
        ("tap 99999999", "number of an element"),
        ("fly 3", "unknown action"),
        ("done now", "stands alone"),
        ("scroll sideways", "direction"),
        ("open", "app_name"),
        ("answer", "text"),
        ("{", "no JSON"),
        ("[" * 5, "unknown action"),
        ('{"a":' * 10_000, "no JSON"),
        ('{"action_type": "click", "index": 1, "x": 2, "y": 3}', "not with both"),
        ('{"action_type": "click", "x": 2}', "both be pixels"),
        ('{"action_type": "click", "x": NaN, "y": 1}', "pixels"),
        ('{"action_type": "click", "index": true}', "no index"),
        ('{"action_type": "explode"}', "unknown action_type"),
        ('{"action_type": ["click"]}', "unknown action_type"),
        ('{"action_type": "click", "indx": 1}', "no field"),
        ('{"action_type": "status"}', "goal_status"),
        ('{"action_type": "status", "goal_status": []}', "goal_status"),
    ],
)
def test_a_wrong_action_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ActionError, match=message):
        parse_action(text)


def test_scroll_shows_what_lies_there_and_swipe_moves_the_finger() -> None:
    for name in ("scroll", "swipe"):
        for direction, sign in (("down", 1), ("up", -1)):
            backend = InProcess()
            moves: list[tuple[int, int]] = []
            backend.swipe = lambda x1, y1, x2, y2, moves=moves: moves.append((y1, y2))  # type: ignore[method-assign]
            action = DeviceAction(action_type=name, direction=direction)  # type: ignore[arg-type]
            carry_out(action, backend, elements(backend.tree()))
            finger = moves[0][1] - moves[0][0]
            assert finger * sign * (-1 if name == "scroll" else 1) > 0


def test_androidworlds_typing_appends_and_presses_enter() -> None:
    backend = InProcess()
    backend.reset(Setup())
    backend.open_app("Browser")
    field = next(e for e in elements(backend.tree()) if e.role == "input")
    for extra, expected in (("", "abab"), (', "clear_text": true', "ab")):
        backend.phone.frame.fields["address"] = "ab"
        backend.phone.invalidate()
        shown = elements(backend.tree())
        text = f'{{"action_type": "input_text", "index": {field.id}, "text": "ab"{extra}}}'
        carry_out(parse_action(text), backend, shown)
        assert backend.activity()[1] == ".ResultsActivity", "Enter starts the search"
        assert backend.phone.frame.args == {"words": expected}
        backend.key("KEYCODE_BACK")


def test_slips_are_said_and_cost_a_turn_but_no_time() -> None:
    env = EVERYWHERE.make()
    env.reset(task_of("settings_wifi"), episode_seed("train", 1))
    backend = env.backend
    assert isinstance(backend, InProcess)
    before = backend.phone.now_ms
    for action in ("nonsense", "tap 99", "type 0 x", "open Nosuch", "tap 5000 1"):
        result = env.step(action)
        assert "Error: " in result.observation.text and result.notes["error"]  # type: ignore[union-attr]
    assert env.turns == 5 and backend.phone.now_ms == before
    assert "Error" not in env.step("open Settings").observation.text  # type: ignore[union-attr]


# Chance and bad input


SCRIPT = """
import hashlib, random, sys
from rollwright.contracts.environment import episode_seed
from rollwright.envs.device.phone import build
world = build(splits="seed", distractors="many")
env, digest, rng = world.make(), hashlib.sha256(), random.Random(5)
for task in world.tasks("train")[::9]:
    observation = env.reset(task, episode_seed("train", 4))
    digest.update((observation.goal + observation.text).encode())
    for _ in range(env.template.budget - 1):
        text = env.step(f"tap {rng.randrange(len(env.elements))}").observation.text
        digest.update(text.encode() + env.fingerprint().encode())
print(digest.hexdigest())
"""


def test_two_processes_see_the_same_bytes() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], env={"PYTHONHASHSEED": seed, "PATH": ""}, capture_output=True)
        for seed in ("1", "2")
    ]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout) > 60


def random_action(rng: random.Random, env: PhoneEnv) -> str:
    """Mostly sensible, sometimes hostile."""
    texts = (
        "hello",
        "12",
        "2026-03-05",
        "14:30",
        "a@b.c",
        "ä<&\"'%_\\",
        "x" * 3000,
        "'; DROP TABLE people; --",
        "../..",
    )
    kind, number = rng.random(), rng.randrange(len(env.elements) + 1)
    if kind < 0.5:
        return f"{rng.choice(('tap', 'tap', 'tap', 'hold', 'double'))} {number}"
    if kind < 0.65:
        return f"type {number} {rng.choice(texts)}"
    if kind < 0.7:
        return rng.choice(MALFORMED_ACTIONS)
    if kind < 0.75:
        fields = {"action_type": rng.choice(("click", "scroll", "input_text", "keyboard_key", "open_app", "explode"))}
        extra = {"index": number, "text": rng.choice(texts), "direction": "left", "keycode": "KEYCODE_A", "x": -1}
        return json.dumps(fields | {key: extra[key] for key in rng.sample(sorted(extra), 2)})
    apps = tuple(
        f"open {app}" for app in ("Files", "Shop", "Clock", "Mail", "Phone", "Contacts", "Messages", "Calendar")
    )
    return rng.choice((*apps, "back", "home", "enter", "scroll down", "scroll up", "swipe left", "wait", "tap 500 700"))


def wander(env: PhoneEnv, tasks: list[Task], *, episodes: int, steps: int, seed: int) -> int:
    """Random episodes, with the budget out of the way; how many actions were taken."""
    rng, taken = random.Random(seed), 0
    for number in range(episodes):
        env.reset(tasks[number % len(tasks)], episode_seed("train", "random", seed, number))
        for _ in range(steps):
            result = env.step(random_action(rng, env))
            taken += 1
            assert isinstance(result.observation.text, str) and result.observation.text  # type: ignore[union-attr]
            assert env.elements[-1].texts == ("go back",)
            if result.terminated or result.truncated:
                break
    return taken


@pytest.mark.long
def test_a_thousand_random_episodes() -> None:
    world = build(splits="seed", distractors="many", rendering="lines")
    assert wander(world.make(), list(world.tasks("train")), episodes=1000, steps=6, seed=1) > 5000


@pytest.mark.slow
def test_ten_thousand_adversarial_actions() -> None:
    world = build(splits="seed", distractors="some", rendering="xml", max_chars=10**6)
    assert wander(world.make(), list(world.tasks("train")), episodes=1500, steps=40, seed=2) >= 10_000


def test_a_restored_episode_goes_on_and_shows_the_same() -> None:
    world = build(splits="seed", distractors="many")
    rng, one, two = random.Random(9), world.make(), world.make()
    for task in list(world.tasks("train"))[::7]:
        one.reset(task, episode_seed("train", 8))
        for _ in range(4):
            one.step(random_action(rng, one).replace("\n", " "))
        state, key, phone = one.snapshot(), one.fingerprint(), one.backend.snapshot()
        script = [random_action(rng, one) for _ in range(4)]
        texts = [one.step(action).observation.text for action in script]  # type: ignore[union-attr]
        for env in (one, two):
            env.restore(state)
            assert env.fingerprint() == key and env.backend.snapshot() == phone
            assert [env.step(action).observation.text for action in script] == texts  # type: ignore[union-attr]


def test_nothing_of_an_episode_is_left_in_the_next() -> None:
    env, task = EVERYWHERE.make(), task_of("contacts_add")
    first = env.reset(task, episode_seed("train", 1))
    rows = env.backend.rows("content://contacts/people")
    play(EVERYWHERE, env, task, episode_seed("train", 1))
    assert env.reset(task, episode_seed("train", 1)) == first
    assert env.backend.rows("content://contacts/people") == rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": ["contact_add"]}, "contacts_add"),
        ({"templates": []}, "empty"),
        ({"rendering": "json"}, "rendering"),
        ({"distractors": "loads"}, "distractors"),
        ({"splits": "both"}, "splits"),
        ({"finish": "never"}, "finish"),
        ({"teacher_optimal_frac": 2}, "teacher_optimal_frac"),
    ],
)
def test_wrong_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_templates_can_be_chosen_by_difficulty_and_app() -> None:
    assert {t.id.partition("_")[0] for t in build(templates="shop", splits="seed").tasks("train")} == {"shop"}
    easy = build(templates="easy", splits="seed").tasks("train")
    assert {task.params["difficulty"] for task in easy} == {"easy"}


def test_texts_hold_the_words_of_held_out_episodes() -> None:
    names = [name for name in TEMPLATES if name.startswith("settings_")]
    world = build(templates=names, splits="seed", rendering="lines", distractors="none", instructions=False)
    known = {word for text in world.texts() for word in WORDS.findall(text)}
    assert len(known) <= 700
    env, unknown = world.make(), Counter[str]()
    for task in world.tasks("test"):
        seed = episode_seed("test", "held out", 1)
        observation, teacher = env.reset(task, seed), world.teacher(task)
        for _ in range(env.template.budget):
            unknown.update(set(WORDS.findall(f"{observation.goal}\n{observation.text}")) - known)
            action = teacher.act(env, observation)
            unknown.update(set(WORDS.findall(action)) - known)
            result = env.step(action)
            if result.terminated:
                break
            observation = result.observation  # type: ignore[assignment]
    # A new device name is drawn from words that no screen has shown: those go by bytes.
    assert set(unknown) <= {word for text in (*data.WORDS,) for word in (text.title(), f" {text.title()}")}


def test_a_picture_of_every_screen_is_kept_under_its_hash(tmp_path: Path) -> None:
    world = build(screenshots=str(tmp_path / "pictures"))
    env, task = world.make(), world.tasks("train")[0]
    shown = [env.reset(task, 0), env.reset(task, 0)]
    (one,), (two,) = (observation.attachments for observation in shown)
    assert one == two and one.media_type == "image/png"
    (file,) = (tmp_path / "pictures").iterdir()
    assert one.path == str(file) and hashlib.sha256(file.read_bytes()).hexdigest() == one.sha256 == file.stem
