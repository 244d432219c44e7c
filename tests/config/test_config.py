"""Strict configuration: what is accepted, and that every mistake is named with its key, its source and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from rollwright.config import Config, Readers, Unread, build, dump, help_text, load_config, same_settings
from rollwright.config.schema import all_keys
from rollwright.contracts.errors import ConfigError


class Loss(Config):
    """The policy loss."""

    shorthand: ClassVar[str] = "name"
    only_for: ClassVar[Readers] = {"clip_eps": {"name": ("ppo", "dual_clip")}}

    name: Literal["ppo", "dual_clip", "cispo"] = "ppo"
    """Which ratio is clipped, and how."""
    clip_eps: float = Field(0.2, gt=0, description="Half width of the clip range.")


class Rollout(Config):
    """How episodes are played."""

    group_size: int = Field(8, ge=2, description="Rollouts per task.")
    max_turns: int = 12
    """Turns before the cut."""


class Recipe(Config):
    """A recipe for tests."""

    only_for: ClassVar[Readers] = {"rollout.max_turns": {"loss.name": ("ppo", "cispo")}}

    steps: int = 3
    """Optimiser steps."""
    rate: float = 1e-4
    """Learning rate."""
    shuffle: bool = True
    """Whether tasks are shuffled."""
    label: str = "run"
    """A name."""
    tasks: list[str] = Field([], description="Tasks to draw from.")
    options: dict[str, Any] = Field({}, description="Handed on.")
    loss: Loss = Loss()
    rollout: Rollout = Rollout()


def load(*words: str) -> Recipe:
    return load_config(Recipe, words)


def failure(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*words)
    return str(caught.value)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "base.yaml"
    file.write_text("steps: 10\nloss:\n  clip_eps: 0.1\nrollout:\n  group_size: 4\n  max_turns: 6\n")
    return file


# --- what is accepted ------------------------------------------------------------------------------------------------


def test_nothing_said_is_all_defaults() -> None:
    assert load() == Recipe()


def test_later_words_win_key_by_key(base: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    second.write_text("rollout: {group_size: 16}\n")
    config = load(str(base), str(second), "steps=20")
    assert (config.steps, config.rollout.group_size, config.rollout.max_turns) == (20, 16, 6)
    assert load(str(second), str(base)).rollout.group_size == 4


def test_a_file_extends_another_relative_to_itself(base: Path, tmp_path: Path) -> None:
    child = tmp_path / "deeper" / "child.yaml"
    child.parent.mkdir()
    child.write_text("extends: ../base.yaml\nsteps: 11\n")
    config = load(str(child))
    assert (config.steps, config.rollout.max_turns, config.loss.clip_eps) == (11, 6, 0.1)


@pytest.mark.parametrize("text", ["1e-6", "1E-6", "0.000001", "1.0e-06"])
def test_scientific_notation_is_a_number(text: str, tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-6, without a dot, as a string."""
    file = tmp_path / "rate.yaml"
    file.write_text(f"rate: {text}\noptions: {{deep: {text}}}\n")
    assert load(str(file)).rate == load(f"rate={text}").rate == 1e-6
    assert load(str(file)).options == load(f"options.deep={text}").options == {"deep": 1e-6}


def test_lists_and_free_sections() -> None:
    config = load("tasks=[click-test, 'a b']", "options.a-b.c=3", "label=x=y")
    assert config.tasks == ["click-test", "a b"]
    assert config.options == {"a-b": {"c": 3}}
    assert config.label == "x=y"


def test_a_shorthand_leaves_the_other_keys_of_its_section(base: Path) -> None:
    assert load(str(base), "loss=dual_clip", "~rollout.max_turns").loss == Loss(name="dual_clip", clip_eps=0.1)
    assert load("loss=dual_clip", "loss.clip_eps=0.3").loss == Loss(name="dual_clip", clip_eps=0.3)


def test_references_between_keys() -> None:
    assert load("steps=7", "rollout.max_turns=${steps}").rollout.max_turns == 7


def test_a_tilde_goes_back_to_the_default(base: Path) -> None:
    assert load(str(base), "~rollout.group_size", "~loss").rollout == Rollout(max_turns=6)


def test_the_default_file_is_read_only_where_none_is_named(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("label: other\n")
    assert load_config(Recipe, ["label=mine"], default=base).steps == 10
    assert load_config(Recipe, [str(other)], default=base).steps == 3


@pytest.mark.long
@given(
    steps=st.integers(-(10**9), 10**9),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    label=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])).filter(
        lambda s: "$" not in s and s != "???"
    ),
    name=st.sampled_from(["ppo", "dual_clip", "cispo"]),
    tasks=st.lists(st.sampled_from(["1e-6", "true", "null", "a: b", "- c", "007", "# no comment", ""])),
)
def test_what_is_dumped_builds_the_same_again(
    steps: int, rate: float, label: str, name: str, tasks: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = build(Recipe, {"steps": steps, "rate": rate, "label": label, "loss": name, "tasks": tasks})
    file = tmp_path_factory.mktemp("dump") / "config.yaml"
    file.write_text(dump(config), encoding="utf-8")
    assert build(Recipe, file) == config


def test_the_dump_leaves_out_what_the_method_does_not_read() -> None:
    assert "clip_eps" not in dump(load("loss=cispo"))
    assert "max_turns" not in dump(load("loss=dual_clip"))
    assert "clip_eps: 0.2" in dump(load())


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_unknown_key_names_its_file_the_nearest_key_and_all_keys_there(tmp_path: Path) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text("rollout: {grp_size: 4}\n")
    assert failure(str(file)) == (
        f"{file}: unknown key `rollout.grp_size`. Did you mean `group_size`? Keys here: group_size, max_turns."
    )


def test_a_key_of_another_section_is_pointed_to() -> None:
    assert "command line: unknown key `group_size`. There is `rollout.group_size`." in failure("group_size=4")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps=many", "`steps` must be int, got 'many'"),
        ("steps=2.5", "`steps` must be int, got 2.5"),
        ("steps=true", "`steps` must be int, got True"),
        ("rate=true", "`rate` must be float, got True"),
        ("rate=nan", "`rate` must be float, got 'nan'"),
        ("rate=.inf", "`rate` must be float, got inf"),
        ("steps=null", "`steps` must be int, got None"),
        ("shuffle=perhaps", "`shuffle` must be bool, got 'perhaps'"),
        ("label=7", "`label` must be str, got 7"),
        ("tasks=[a,1]", "`tasks.1` must be list of str, got 1"),
        ("rollout.group_size=1", "`rollout.group_size` must be int >= 2, got 1"),
        ("loss.clip_eps=-0.1", "`loss.clip_eps` must be float > 0, got -0.1"),
        ("loss=dual", "`loss.name` must be ppo | dual_clip | cispo, got 'dual'. Did you mean `dual_clip`?"),
        ("rollout=4", "`rollout` must be a section of keys, got 4"),
        ("options=4", "`options` must be a section of keys, got 4"),
    ],
)
def test_a_wrong_value_is_shown_beside_what_is_right(word: str, message: str) -> None:
    assert f"command line: {message}" in failure(word)


def test_all_problems_are_told_at_once() -> None:
    lines = failure("steps=x", "lable=y", "rollout.group_size=0").splitlines()
    assert lines[0] == "3 problems:"
    assert len(lines) == 4


def test_a_key_that_the_method_ignores_is_an_error_when_set() -> None:
    assert failure("loss=cispo", "loss.clip_eps=0.1") == (
        "command line: `loss.clip_eps` has no effect with `loss.name=cispo`; it is read only with ppo, dual_clip. "
        "Remove it (`~loss.clip_eps` on the command line) or choose one of those."
    )
    assert "`rollout.max_turns` has no effect with `loss.name=dual_clip`" in failure(
        "loss=dual_clip", "rollout.max_turns=3"
    )
    assert load("loss=cispo").loss.clip_eps == 0.2  # its default does no harm


def test_a_method_chosen_over_a_file_names_the_file_that_set_the_idle_key(base: Path) -> None:
    message = failure(str(base), "loss=cispo")
    assert message.startswith(f"{base}: `loss.clip_eps` has no effect")
    assert load(str(base), "loss=cispo", "~loss.clip_eps").loss.name == "cispo"


def test_a_config_made_in_python_is_as_strict() -> None:
    with pytest.raises(ValidationError, match="keys without effect"):
        Loss(name="cispo", clip_eps=0.1)
    with pytest.raises(ValidationError, match="frozen"):
        Loss().clip_eps = 0.3  # type: ignore[misc]


def test_a_declaration_that_names_no_key_fails_at_once() -> None:
    with pytest.raises(TypeError, match="only_for names `epsilon`"):

        class Wrong(Config):
            only_for: ClassVar[Readers] = {"epsilon": {"name": ("ppo",)}}
            name: str = "ppo"


class Unpaced(Recipe):
    """A recipe that plays no episodes."""

    unread: ClassVar[Unread] = {"rollout": "nothing is played", "steps": "epochs count"}


@pytest.mark.parametrize(
    ("words", "said"),
    [(["steps=3"], "`steps` is not read here: epochs count"), (["rollout.group_size=2"], "is played")],
)
def test_a_key_that_came_with_a_shared_section_and_is_never_read(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(Unpaced, words)
    assert "rollout" not in help_text(Unpaced) and "rollout" in help_text(Recipe)
    assert "rollout" not in dump(load_config(Unpaced, []))
    old = tmp_path / "config.yaml"  # of a version that did not know that nothing reads them
    old.write_text("label: mine\nsteps: 7\nrollout:\n  max_turns: 3\n")
    assert same_settings(load_config(Unpaced, ["label=mine"]), old)
    assert not same_settings(load_config(Unpaced, ["label=other"]), old)
    with pytest.raises(TypeError, match="unread names `pace`"):

        class Wrong(Config):
            unread: ClassVar[Unread] = {"pace": "nobody"}


def test_a_section_begins_with_the_defaults_of_its_class() -> None:
    """Others would be lost, and missing from the help, as soon as one key of the section is set."""
    with pytest.raises(TypeError, match=r"Wrong\.loss begins with other values than Loss has"):

        class Wrong(Config):
            loss: Loss = Loss(name="cispo")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--steps=3", "Keys are set without dashes"),
        ("steps", "is neither a YAML file"),
        ("=3", "is not a dotted key"),
        ("rollout..x=3", "is not a dotted key"),
        ("tasks=[a", "`tasks=[a`, line 1, column 3 cannot be read as YAML"),
        ("~steps", "nothing to remove"),
        ("label=${nowhere}", "the reference `${nowhere}` cannot be resolved: no file or word sets `nowhere`"),
    ],
)
def test_a_word_of_no_known_kind_is_explained(word: str, message: str) -> None:
    assert message in failure(word)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [1\n", "cannot be read as YAML"),
        ("steps: 1\nlabel: a\nsteps: 2\n", "the key `steps` stands twice in one section, in lines 1 and 3"),
        ("- a\n- b\n", "must hold `key: value` lines, got a list"),
        ("extends: bad.yaml\n", "`extends` leads back to"),
        ("extends: nowhere.yaml\n", "bad.yaml: `extends` names "),
        ("label: \xff\n", "cannot be read as YAML"),
    ],
)
def test_a_bad_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("latin-1"))  # the lone 0xff is no UTF-8
    told = failure(str(file))
    assert message in told
    assert str(tmp_path) in told


def test_a_missing_file_gets_the_nearest_one(base: Path) -> None:
    assert f"Did you mean {base}?" in failure(str(base.with_name("bas.yaml")))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load(str(tmp_path / "empty.yaml")) == Recipe()


# --- --help and --plan -----------------------------------------------------------------------------------------------


def test_help_tells_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load("steps=x", "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text == help_text(Recipe)
    for key, field in all_keys(Recipe):
        assert f"{key} = " in text
        assert field.description and field.description in text
    assert "loss.clip_eps = 0.2   (float > 0)" in text
    assert "Only with name=ppo|dual_clip." in text


def test_plan_prints_the_settings_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load_config(Recipe, ["steps=5", "--plan"], plan=lambda config: f"{config.steps * 8} episodes")
    assert stop.value.code == 0
    assert capsys.readouterr().out == "40 episodes\n" + dump(load("steps=5"))


def test_only_the_first_rank_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        load("--help")
    assert capsys.readouterr().out == ""
