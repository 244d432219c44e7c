"""Every mistake in the settings ends in one paragraph and exit code 2, under `--plan` too, and leaves nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollwright.config import build
from rollwright.contracts.errors import EngineFault
from rollwright.recipes import collect, demo, evaluate, grpo, ilql, sft
from rollwright.training.preflight import preflight
from rollwright.training.recipe_entry import new_folders, recipe_config, remove_empty_run, run_recipe
from tests.user_mistakes import told

ROOT = Path(__file__).resolve().parents[2]
GOOD: dict[str, str] = {
    "world": "{name: text.maze}",
    "model": "{path: tiny}",
    "engine": "{name: transformers, dtype: float32}",
    "run": "{folder: out/run, steps: 1}",
    "rollout": "{group_size: 2, groups_per_step: 2, history: 0, max_action_tokens: 4}",
    "learner": "{precision: float32}",
    "evaluation": "{seeds_per_task: 2}",
}


def text(**changed: str | None) -> str:
    """The lines of a file that works, with some sections replaced."""
    sections = {**GOOD, **changed}
    return "".join(f"{name}: {value}\n" for name, value in sections.items() if value is not None)


DEEP = text() + "reward: " + "[" * 2000 + "]" * 2000
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)

# name -> what the file holds, and words that the message must have: the key, what was expected, the nearest name.
FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "missing_extends": ("extends: nothere.yaml\n" + text(), ("`extends` names", "nothere.yaml", "does not exist")),
    "extends_near": ("extends: goodd.yaml\n" + text(), ("Did you mean", "good.yaml")),
    "extends_number": ("extends: [1, 2]\n" + text(), ("`extends` must be", "[1, 2]")),
    "extends_null": ("extends:\n" + text(), ("`extends` must be", "None")),
    "extends_folder": ("extends: folder.yaml\n" + text(), ("is a folder",)),
    "extends_itself": ("extends: mistake.yaml\n" + text(), ("`extends` leads back",)),
    "extends_nul": ('extends: "a\\0b.yaml"\n' + text(), ("`extends` names YAML files",)),
    "model_absent": (text(model="{path: runs/no_such/policy}"), ("`model.path`", "runs/no_such/policy")),
    "model_near": (text(model="{path: models/polcy}"), ("`model.path`", "models/policy")),
    "model_without_config": (text(model="{path: models/policy}"), ("`model.path`", "config.json")),
    "model_config_damaged": (text(model="{path: models/damaged}"), ("`model.path`", "cannot be read")),
    "model_without_weights": (text(model="{path: models/weightless}"), ("`model.path`", "safetensors")),
    "model_not_tiny": (text(model="{path: tiny, tiny_hidden: 20000}"), ("`model.tiny_hidden`", "8192 at most")),
    "reward_absent": (text(reward="{name: 'json:Nothing'}"), ("`reward.name`", "json", "Nothing")),
    "reward_near": (text(reward="{name: judg}"), ("`reward.name`", "Did you mean `judge`?")),
    "reward_option": (text(reward="{name: env, options: {x: 1}}"), ("`reward.options`", "`x`")),
    "reward_breaks": (text(reward="{name: 'antigravity_no:X'}"), ("antigravity_no", "import path")),
    "group_huge": (text(rollout="{group_size: 1000000000000}"), ("group_size=1000000000000", "1000000 at most")),
    "token_budget_huge": (text(learner="{token_budget: 1099511627776}"), ("`learner.token_budget`", "at most")),
    "learning_rate_huge": (text(learner="{learning_rate: 100}"), ("`learner.learning_rate`", "1 at most")),
    "steps_beyond_64_bits": (text(run="{steps: 99999999999999999999}"), ("`run.steps`", "at most")),
    "seconds_beyond_clocks": (text(run="{sync_s: 1e300}"), ("`run.sync_s`", "at most", "clocks")),
    "seed_big": (text(run="{seed: 99999999999999999999999}"), ("`run.seed`", "4294967295 at most", "32 bits")),
    "seed_negative": (text(run="{seed: -1}"), ("`run.seed`", ">= 0", "-1")),
    "overflows_to_infinity": (text(learner="{learning_rate: 1e400}"), ("`learner.learning_rate`", "float", "inf")),
    "infinite": (text(learner="{learning_rate: .inf}"), ("`learner.learning_rate`", "inf")),
    "not_a_number": (text(learner="{learning_rate: .nan}"), ("`learner.learning_rate`", "nan")),
    "nan_for_int": (text(run="{steps: .nan}"), ("`run.steps`", "int")),
    "fraction_for_int": (text(run="{steps: 2.5}"), ("`run.steps`", "int", "2.5")),
    "list_for_number": (text(run="{steps: [1]}"), ("`run.steps`", "int", "[1]")),
    "text_for_number": (text(run="{steps: ten}"), ("`run.steps`", "int", "'ten'")),
    "text_for_list": (text(run="{trackers: wandb}"), ("`run.trackers`", "list of str", "'wandb'")),
    "truth_for_number": (text(run="{steps: yes}"), ("`run.steps`", "int", "True")),
    "truth_for_optional_number": (text(algorithm="{dual_clip: on}"), ("`algorithm.dual_clip`", "True")),
    "truth_for_text": (text(run="{folder: off}"), ("`run.folder`", "str", "False", "quote")),
    "text_for_truth": (text(evaluation="{at_start: perhaps}"), ("`evaluation.at_start`", "bool", "'perhaps'")),
    "null_section": (text(rollout=""), ("`rollout`", "section of keys", "None")),
    "scalar_section": (text(rollout="4"), ("`rollout`", "section of keys", "4")),
    "list_section": (text(rollout="[4]"), ("`rollout`", "section of keys", "[4]")),
    "unknown_section": (text(rolout="{group_size: 2}"), ("`rolout`", "Did you mean `rollout`?")),
    "unknown_key": (text(rollout="{grup_size: 2}"), ("`rollout.grup_size`", "Did you mean `group_size`?")),
    "dashes": (text(rollout="{group-size: 2}"), ("`rollout.group-size`", "Did you mean `group_size`?")),
    "dotted_key": (text() + "rollout.group_size: 4\n", ("rollout.group_size", "indented")),
    "key_is_a_number": (text() + "1: 2\n", ("the key 1", "int")),
    "key_is_truth": (text(run="{on: 2}"), ("the key True in `run`", "bool")),
    "key_is_a_list": (text() + "? [a]\n: 1\n", ("a key must be a word",)),
    "option_key_is_a_number": (text(world="{name: text.maze, options: {1: 2}}"), ("`world.options`", "words as keys")),
    "duplicate_key": (
        text(rollout=None) + "rollout:\n  group_size: 2\n  groups_per_step: 2\n  group_size: 4\n",
        ("`group_size` stands twice", "lines 8 and 10"),
    ),
    "duplicate_section": (text() + "run: {steps: 2}\n", ("`run` stands twice", "lines 4 and 8")),
    "tab": (text(rollout=None) + "rollout:\n\tgroup_size: 2\n", ("a tab stands", "line 8")),
    "unclosed": (text() + "reward: {name: env\n", ("line 9", "cannot be read as YAML")),
    "two_documents": (text() + "---\n" + text(), ("single document",)),
    "no_mapping": ("- world\n- model\n", ("must hold `key: value` lines, got a list",)),
    "plain_text": ("hello\n", ("must hold `key: value` lines, got a str",)),
    "empty": ("", ("missing section `world`", "`world.name=...`")),
    "base_8": (text(run="{steps: 010}"), ("line 4", "reads 010 as a number in base 8", "base 10")),
    "base_60": (text(run="{max_minutes: 1:30}"), ("line 4", "reads 1:30 as a number in base 60")),
    "base_60_fraction": (text(world="{name: text.maze, options: {x: 0:0.5}}"), ("line 1", "0:0.5", "base 60")),
    "extends_dangling": ("extends: dangling.yaml\n" + text(), ("dangling.yaml", "link to nowhere.yaml")),
    "key_of_elsewhere": (text(run="{learning_rates: 1}"), ("Did you mean `learner.learning_rate`?",)),
    "folder_is_a_dangling_link": (text(run="{folder: dangling.yaml}"), ("`run.folder`", "a link to nowhere.yaml")),
    "folder_of_many_parts": (text(run=f"{{folder: {'a/' * 3000}}}"), ("`run.folder`", "shorter")),
    "python_tag": (text(reward="!!python/object/apply:os.system ['touch pwned']"), ("the tag !!python", "not taken")),
    "python_name": (text(world="!!python/name:os.system"), ("the tag !!python", "line 1")),
    "binary_tag": (text(model="{path: !!binary aGVsbG8=}"), ("the tag !!binary",)),
    "undefined_alias": (text(reward="*nowhere"), ("undefined alias",)),
    "endless_alias": (text() + "reward: &a {options: *a}\n", ("contains itself",)),
    "billion_laughs": (LAUGHS, ("more than 20000 values",)),
    "nested_deeply": (DEEP, ("nested too deeply",)),
    "too_large": (text() + "# " + "x" * (300 << 10), ("more than 256 KiB",)),
    "utf_16": (text().encode("utf-16"), ("not UTF-8 text", "line 1")),
    "latin_1": ("# caf\xe9\n".encode("latin-1") + text().encode(), ("not UTF-8 text", "0xe9 in line 1")),
    "control_character": (text() + 'reward: "\x07"\n', ("U+0007",)),
    "nul_in_file": (text() + "reward: \0\n", ("U+0000",)),
    "nul_in_folder": (text(run='{folder: "a\\0b"}'), ("`run.folder`", "NUL")),
    "nul_in_model": (text(model='{path: "a\\0b"}'), ("`model.path`", "NUL")),
    "env_reference": (text(run="{folder: '${oc.env:SECRET_OF_MINE}'}"), ("`run.folder`", "environment is not read")),
    "env_reference_short": (text(model="{path: '${env:HOME}'}"), ("`model.path`", "environment is not read")),
    "reference_nowhere": (text(run="{folder: '${no.where}'}"), ("`run.folder`", "no file or word sets `no.where`")),
    "reference_circle": (text(run="{folder: '${model.path}'}", model="{path: '${run.folder}'}"), ("back to itself",)),
    "reference_section": (text(run="{folder: '${model}'}"), ("`run.folder`", "not a single value")),
    "reference_open": (text(run="{folder: '${model.path'}"), ("`run.folder`", "has no end")),
    "missing_value": (text(run="{folder: '???'}"), ("`run.folder`", "???")),
    "unknown_world": (text(world="{name: text.mase}"), ("`world.name`", "Did you mean `text.maze`?")),
    "world_without_name": (text(world="{options: {}}"), ("missing key `world.name`",)),
    "world_module_absent": (text(world="{name: 'no_such_pkg:World'}"), ("`world.name`", "no_such_pkg")),
    "world_option": (
        text(world="{name: text.maze, options: {wordin: compact}}"),
        ("`world.options`", "`wordin`", "Did you mean `wording`?"),
    ),
    "world_option_choice": (
        text(world="{name: text.maze, options: {variant: fop}}"),
        ("`variant` must be fo | po", "'fop'"),
    ),
    "world_option_type": (text(world="{name: text.maze, options: {max_turns: many}}"), ("`max_turns` must be int",)),
    "world_option_value": (text(world="{name: text.maze, options: {maze: nowhere}}"), ("nowhere",)),
    "options_a_list": (text(world="{name: text.maze, options: [1]}"), ("`world.options`", "section of keys")),
    "group_of_one": (text(rollout="{group_size: 1}"), ("`rollout.group_size=1`", "Use 2 or more", "reinforce")),
    "tracker_typo": (text(run="{trackers: [wandbb]}"), ("`run.trackers`", "Did you mean `wandb`?")),
    "tracker_absent": (text(run="{trackers: [clearml]}"), ("`run.trackers`", "pip install clearml")),
    "context_too_small": (
        text(engine="{name: transformers, max_context: 16}"),
        ("`engine.max_context=16` is too small", "text.maze", "Set at least"),
    ),
    "engine_typo": (text(engine="{name: transformer}"), ("`engine.name`", "Did you mean `transformers`?")),
    "engine_key_idle": (text(engine="{name: transformers, replicas: 2}"), ("`engine.replicas` has no effect",)),
    "rounds_on_servers": (
        text(engine="{name: vllm_server, urls: ['http://h:1']}", rollout="{schedule: rounds}"),
        ("`rollout.schedule=rounds`",),
    ),
    "adapter_without_lora": (
        text(engine="{name: vllm_server, urls: ['http://h:1'], lora_sync: adapter}"),
        ("`engine.lora_sync=adapter`", "`model.lora_rank`"),
    ),
    "server_is_no_address": (text(engine="{name: vllm_server, urls: ['h:1']}"), ("`engine.urls`", "not an address")),
    "folder_is_a_file": (text(run="{folder: README.md}"), ("`run.folder`", "is a file")),
    "folder_below_a_file": (text(run="{folder: README.md/run}"), ("`run.folder`", "is a file")),
    "folder_empty": (text(run="{folder: ''}"), ("`run.folder` is empty",)),
    "folder_too_long": (text(run=f"{{folder: {'x' * 300}}}"), ("`run.folder`", "shorter")),
    "launch_settings": (text(deepspeed_config="{zero_stage: 3}"), ("unknown key `deepspeed_config`",)),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some things to name rightly and wrongly."""
    (tmp_path / "good.yaml").write_text(text())
    (tmp_path / "README.md").write_text("a file")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nowhere.yaml")
    for name, files in {"policy": {}, "damaged": {"config.json": "{"}, "weightless": {"config.json": "{}"}}.items():
        (tmp_path / "models" / name).mkdir(parents=True)
        for file, content in files.items():
            (tmp_path / "models" / name / file).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_OF_MINE", "hunter2")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("ROLLWRIGHT_DEBUG", raising=False)
    return tmp_path


@pytest.mark.parametrize("plan", [["--plan"], []], ids=["plan", "run"])
@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_file_is_one_paragraph(
    name: str, plan: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, parts = FILES[name]
    (place / "mistake.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    said = told(grpo, ["mistake.yaml", *plan], monkeypatch, capsys)
    missing = [part for part in parts if part not in said]
    assert not missing, f"{missing} not in: {said}"


@pytest.mark.parametrize(
    ("recipe", "words", "parts"),
    [
        (grpo, ["folder.yaml"], ("folder.yaml is a folder",)),
        (grpo, ["god.yaml"], ("no file god.yaml", "Did you mean good.yaml?")),
        (grpo, ["good.yaml", "--steps=3"], ("Keys are set without dashes",)),
        (grpo, ["good.yaml", "run.steps"], ("neither a YAML file",)),
        (grpo, ["good.yaml", "run.steps=010"], ("`run.steps=010`", "base 8")),
        (grpo, ["good.yaml", "run.max_minutes=1:30"], ("`run.max_minutes=1:30`", "base 60")),
        (grpo, ["good.yaml", "run.folder=out/a #b"], ("`run.folder=out/a #b`", "comment", "quote")),
        (grpo, ["good.yaml", "run.folder=#b"], ("`run.folder=#b`", "comment")),
        (grpo, ["good.yaml", "run={steps: 1, steps: 2}"], ("`steps` stands twice",)),
        (grpo, ["good.yaml", "reward=!!set {a}"], ("the tag !!set",)),
        (grpo, ["dangling.yaml"], ("dangling.yaml", "a link to nowhere.yaml")),
        (grpo, ["good.yaml", "run.folder=${oc.env:SECRET_OF_MINE}"], ("environment is not read",)),
        (sft, ["good.yaml"], ("`engine`", "Keys here")),
        (sft, ["world.name=text.maze", "data.stores=[nowhere]"], ("`data.stores`", "'nowhere'", "does not exist")),
        (sft, ["world.name=text.maze", "data.stores=[models]"], ("`data.stores`", "holds no trajectory store")),
        (
            ilql,
            ["world.name=text.maze", "engine=transformers", "replay.stores=[README.md]"],
            ("`replay.stores`", "file"),
        ),
        (evaluate, ["world.name=text.maze", "folder=README.md"], ("`folder`", "is a file")),
        (evaluate, ["world.name=text.maze", "name=../up"], ("`name`", "'../up'")),
        (evaluate, ["world.name=text.maze", "name=''"], ("`name`", "''")),
        (demo, ["engine=vlm"], ("`engine`", "Did you mean `vllm`?")),
        (demo, ["config_file=nothere"], ("config_file is 'nothere'",)),
        (evaluate, ["world.name=text.maze", "model.path=models/polcy"], ("`model.path`", "models/policy")),
        (collect, ["world.name=text.maize"], ("`world.name`", "Did you mean `text.maze`?")),
        (collect, ["world.name=text.maze", "collect.by=techer"], ("`collect.by`", "Did you mean `teacher`?")),
    ],
)
def test_a_mistake_in_the_words_is_one_paragraph(
    recipe: Any,
    words: list[str],
    parts: tuple[str, ...],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for more in ([], ["--plan"]):
        said = told(recipe, [*words, *more], monkeypatch, capsys)
        assert not [part for part in parts if part not in said], said


def test_an_engine_that_is_not_installed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place_of_use in ("rollwright.generation", "rollwright.generation.vllm_engine"):
        monkeypatch.setattr(f"{place_of_use}.vllm_importable", lambda: False)
    for name in ("vllm", "vllm_server"):
        said = told(grpo, ["good.yaml", "~engine.dtype", f"engine.name={name}", "--plan"], monkeypatch, capsys)
        assert f"`engine.name={name}`" in said and "pip install 'rollwright[vllm]'" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "good.yaml").chmod(0)
    assert "good.yaml cannot be read" in told(grpo, ["good.yaml"], monkeypatch, capsys)
    (place / "good.yaml").chmod(0o644)
    (place / "models").chmod(0o555)
    assert "cannot be written" in told(grpo, ["good.yaml", "run.folder=models/run"], monkeypatch, capsys)


def test_a_name_that_nothing_is_like_gets_no_hint(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Did you mean" not in told(grpo, ["good.yaml", "rollout.top_p=0.9", "--plan"], monkeypatch, capsys)


def test_a_folder_that_may_not_be_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in told(grpo, ["good.yaml", "--plan"], monkeypatch, capsys)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["engine=vllm_server", "engine.urls=['http://me:hunter2@h:1']"], "engine.urls.0"),
        (["engine=vllm_server", "engine.urls=http://me:hunter2@h:1"], "engine.urls"),
        (["world.options.url=https://hunter2@h"], "world.options.url"),
        (["reward.options.url='https://h/v1?api_key=hunter2'"], "reward.options.url"),
        (["reward.options.key_env=hunter2-3-4"], "reward.options.key_env"),
        (["reward.options.api_key=hunter2"], "reward.options.api_key"),
        (["run.folder='s3://me:hunter2@h/x'"], "run.folder"),
        (["reward.options.X-Api-Key=hunter2"], "X-Api-Key"),
        (["reward.options={db_password: [hunter2]}"], "db_password.0"),
        (["reward.options={headers: ['Authorization: Bearer hunter2-hunter2']}"], "headers.0"),
        (["reward.options={'http://me:hunter2@h': 1}"], "***@h"),
        (["reward.options.url='https://h/#access_token=hunter2'"], "reward.options.url"),
        (["model.path=sk-hunter2hunter2hunter2"], "model.path"),
        (["run.folder=out/hf_hunter2hunter2hunter2"], "run.folder"),
        (["run.seed='http://me:hunter2@h'"], "run.seed"),
        (["http://me:hunter2@h"], "neither"),
        (["curriculum=evolving", "curriculum.generator=endpoint", "curriculum.key_variable=hunter2-1"], "key_variable"),
        (["engine.urls=[http://me:hunter2@h"], "cannot be read"),
    ],
)
def test_a_password_reaches_no_message_and_no_file(
    words: list[str], key: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(grpo, ["good.yaml", "~engine", *words], monkeypatch, capsys)
    assert key in said


def test_what_a_yaml_may_well_say(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A byte order mark, an anchor and its alias, a whole number as 1e3, a reference: none of them is a mistake."""
    content = text(
        rollout="{group_size: &two 2, groups_per_step: *two}", run="{steps: 1e3, folder: 'out/${model.path}'}"
    )
    (place / "fine.yaml").write_bytes(b"\xef\xbb\xbf" + content.encode())
    monkeypatch.setattr(sys, "argv", ["recipe.py", "fine.yaml", "--plan"])
    with pytest.raises(SystemExit) as stop:
        run_recipe(grpo.main)
    said = capsys.readouterr()
    assert stop.value.code == 0 and "steps: 1000\n" in said.out and "folder: out/tiny" in said.out
    assert not (place / "out").exists()


# --- how a recipe ends -----------------------------------------------------------------------------------------------


def test_a_fault_under_way_is_one_paragraph_and_its_traceback_lies_in_the_run_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        recipe_config(grpo.GrpoConfig)
        Path("out/broken").mkdir(parents=True)
        raise EngineFault("the server http://me:hunter2@h is gone")

    monkeypatch.setattr(sys, "argv", ["recipe.py", "good.yaml", "model.path=tiny", "run.folder=out/broken"])
    with pytest.raises(SystemExit) as stop:
        run_recipe(main)
    said = capsys.readouterr().err
    kept = place / "out" / "broken" / "traceback.txt"
    assert stop.value.code == 1 and "Traceback" not in said
    assert said.splitlines()[-1] == f"rollwright: the server http://***@h is gone (the traceback is in {kept})"
    assert "EngineFault" in kept.read_text() and "hunter2" not in kept.read_text()


def test_an_interrupt_is_one_line_and_leaves_no_empty_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        recipe_config(grpo.GrpoConfig)
        (place / "out/run/trajectories").mkdir(parents=True)
        raise KeyboardInterrupt

    before = sorted(Path().rglob("*"))
    monkeypatch.setattr(sys, "argv", ["recipe.py", "good.yaml"])
    with pytest.raises(SystemExit) as stop:
        run_recipe(main)
    said = capsys.readouterr().err
    assert stop.value.code == 130 and said == "\nrollwright: interrupted before anything was written.\n"
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("how", ["-v", "--verbose", "ROLLWRIGHT_DEBUG"])
def test_whoever_asks_gets_the_traceback_too(
    how: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["god.yaml"]
    monkeypatch.setenv("ROLLWRIGHT_DEBUG", "1" if how == "ROLLWRIGHT_DEBUG" else "")
    monkeypatch.setattr(sys, "argv", ["recipe.py", *words, *([how] if how.startswith("-") else [])])
    with pytest.raises(SystemExit) as stop:
        run_recipe(grpo.main)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith("Traceback (most recent call last)")
    assert said.splitlines()[-1].startswith("rollwright: no file god.yaml.")
    assert sys.argv[1:] == words  # the recipe does not see the switch


@pytest.mark.parametrize(
    ("recipe", "words", "part"),
    [
        (sft, ["world.name=text.maze", "world.options.maze=nowhere", "model.path=tiny"], "nowhere"),
        (evaluate, ["world.name=code.maths", "model.path=tiny", "engine=transformers"], "texts()"),
        (grpo, ["good.yaml", "~world", "world.name=code.maths"], "texts()"),
    ],
)
def test_a_mistake_that_shows_late_leaves_no_folder_either(
    recipe: Any, words: list[str], part: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    key = "folder" if recipe is evaluate else "run.folder"
    before = sorted(Path().rglob("*"))
    monkeypatch.setattr(sys, "argv", ["recipe.py", *words, f"{key}=out/deep/run"])
    with pytest.raises(SystemExit) as stop:
        run_recipe(recipe.main)
    assert stop.value.code == 2 and part in capfd.readouterr().err
    assert sorted(Path().rglob("*")) == before


def test_a_folder_with_anything_in_it_stays(place: Path) -> None:
    """What a run has written, what was there before, and what another process holds."""
    for name, kept in {"empty": False, "metrics.jsonl": True, "trajectories/a.parquet": True, "run.lock": True}.items():
        folder = place / "runs" / "tiny_model" / "run"
        made = new_folders(folder)
        assert made == [folder, folder.parent, folder.parent.parent]
        (folder / "trajectories").mkdir(parents=True)
        (folder / "config.yaml").write_text("a: 1")
        (folder / name).write_text("" if name in ("empty", "run.lock") else "x")
        remove_empty_run(made)
        assert folder.exists() == kept and (place / "runs").exists() == kept
        remove_empty_run(new_folders(folder))  # it was there before
        assert folder.exists() == kept
        shutil.rmtree(place / "runs", ignore_errors=True)


def test_of_several_ranks_one_speaks_and_all_end_alike(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setattr(sys, "argv", ["recipe.py", "god.yaml"])
        with pytest.raises(SystemExit) as stop:
            run_recipe(grpo.main)
        assert stop.value.code == 2
        said.append(capsys.readouterr().err)
    assert "no file god.yaml" in said[0] and said[1:] == ["", ""]


@pytest.mark.long
def test_ranks_that_are_launched_end_together_and_one_speaks(tmp_path: Path) -> None:
    """The first rank is late on purpose: the launcher must not end it before it has said what is wrong."""
    pytest.importorskip("deepspeed")
    (tmp_path / "wrong.py").write_text(
        "import os, time\n"
        "from rollwright.contracts.errors import ConfigError\n"
        "from rollwright.training.recipe_entry import new_folders, recipe_config, remove_empty_run, run_recipe\n\n\n"
        "def main():\n"
        "    time.sleep(2.0 if os.environ['RANK'] == '0' else 0.0)\n"
        "    raise ConfigError('this is wrong')\n\n\n"
        "run_recipe(main)\n"
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    config = str(ROOT / "accelerate_configs" / "cpu_zero1.yaml")
    done = subprocess.run([*launch, config, "wrong.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stderr.count("rollwright: this is wrong\n") == 1
    assert len(re.findall(r"exitcode\s*: 2 ", done.stderr)) == 2, done.stderr


@pytest.mark.long
def test_a_recipe_that_is_started_as_a_user_starts_it(tmp_path: Path) -> None:
    (tmp_path / "tab.yaml").write_text("run:\n\tsteps: 1\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "grpo.py"), "tab.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("rollwright: tab.yaml, line 2, column 1: a tab stands")
    assert "Traceback" not in done.stderr and sorted(p.name for p in tmp_path.iterdir()) == ["tab.yaml"]


@pytest.mark.parametrize("file", sorted((ROOT / "recipes").glob("[a-z]*.py")), ids=lambda file: file.stem)
def test_every_recipe_begins_and_ends_the_same_way(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert 'if __name__ == "__main__":\n    run_recipe(main)\n' in source
    assert "recipe_config(" in source and "load_config(" not in source


@pytest.mark.long
def test_the_launcher_adds_no_traceback_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text("import sys\n\nsys.exit('rollwright: said')\n")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    config = str(ROOT / "accelerate_configs" / "cpu.yaml")
    done = subprocess.run([*launch, config, "two.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1  # accelerate's own, whatever the recipe's was
    assert done.stderr.splitlines()[-1] == "rollwright: said" and "Traceback" not in done.stderr


def test_looking_ahead_draws_from_no_generator_and_writes_nothing(place: Path) -> None:
    """Else a run would sample something else than it did before its settings were checked."""
    import random

    import numpy as np
    import torch

    before = sorted(Path().rglob("*"))
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for world in ("text.maze", "text.wordle", "text.navigation", "text.combination_lock", "text.guess_city"):
        config = build(grpo.GrpoConfig, {"world": {"name": world}, "model": {"path": "tiny"}, "engine": "transformers"})
        preflight(config)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert sorted(Path().rglob("*")) == before
