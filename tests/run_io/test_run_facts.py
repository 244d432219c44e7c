"""What a run says of itself: one entry per start, whole at every moment, without secrets, true of this checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rollwright.contracts import ConfigError, DataError, RunFolderError, Span, UserError
from rollwright.run_io import machine_facts, run_facts
from rollwright.run_io.run_facts import FACTS, RunFacts, read_facts, seeds_of, without_secret
from rollwright.run_io.tracking import RunFolder
from tests.builders import episode, turn

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = "run:\n  folder: somewhere\n  seed: 7\nworld:\n  options:\n    seed: 3\n    seeds: [1, 2]\n"


def sessions(folder: Path) -> list[dict]:
    return json.loads((folder / FACTS).read_text())["sessions"]


def test_a_run_folder_says_what_its_run_was(tmp_path: Path) -> None:
    with RunFolder.opened(tmp_path / "run", config_yaml=SETTINGS) as folder:
        (begun,) = sessions(folder.path)
        assert begun["outcome"] == "running" and begun["ended"] is None
        folder.facts.add(tokens_trained=12, learner_s=0.5)
        folder.facts.add(tokens_trained=3)
        folder.facts.set_clocks({"engine": 2.0, "environment": 1.0, "queue": 9.0})
    (done,) = sessions(folder.path)
    assert done["outcome"] == "finished" and done["ended"] >= done["started"]
    assert done["seeds"] == {"run.seed": 7, "world.options.seed": 3}
    assert done["python"] == ".".join(map(str, sys.version_info[:3]))
    assert done["packages"]["torch"] and done["packages"]["rollwright"]
    assert done["hardware"]["cores"] >= 1 and done["hardware"]["memory_gib"] > 0
    spent = done["spent"]
    assert (spent["tokens_trained"], spent["learner_s"], spent["engine_s"], spent["world_s"]) == (15, 0.5, 2.0, 1.0)
    assert spent["wall_s"] > 0
    assert not list(folder.path.glob(".run*"))


def test_the_commit_is_the_checkouts_own() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("no git checkout")
    found = machine_facts.commit()
    assert found is not None and len(found["id"]) == 40 and isinstance(found["dirty"], bool)


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the site-packages folder lies inside somebody else's checkout."""
    site = tmp_path / "lib" / "site-packages" / "rollwright"
    site.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(machine_facts.rollwright, "__file__", str(site / "__init__.py"))
    assert machine_facts.commit() is None


def test_a_changed_file_of_the_code_makes_the_commit_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "src" / "rollwright" / "__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    (tmp_path / "README.md").write_text("")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(machine_facts.rollwright, "__file__", str(source))
    (tmp_path / "README.md").write_text("a page is no code")
    clean = machine_facts.commit()
    assert clean is not None and not clean["dirty"]
    source.write_text("x = 1")
    dirty = machine_facts.commit()
    assert dirty is not None and dirty["dirty"] and dirty["id"] == clean["id"]


def test_an_error_is_told_without_its_secrets_and_goes_on(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="no answer"),
        RunFolder.opened(tmp_path, config_yaml=SETTINGS),
    ):
        raise ValueError("no answer from http://me:hunter2@host/v1\nsecond line")
    (entry,) = sessions(tmp_path)
    assert entry["outcome"] == "ValueError: no answer from http://***@host/v1" and entry["ended"]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_start_that_is_refused_before_it_played_leaves_the_file_as_it_was(tmp_path: Path, earlier: bool) -> None:
    if earlier:
        with RunFacts.recorded(tmp_path, settings=SETTINGS) as facts:
            facts.played([episode("a", turn())])
    before = (tmp_path / FACTS).read_bytes() if earlier else None
    for refusal in (ConfigError("other weights"), DataError("an empty store")):
        with pytest.raises(UserError), RunFacts.recorded(tmp_path, settings=SETTINGS):
            raise refusal
    assert ((tmp_path / FACTS).read_bytes() if earlier else None) == before
    assert (tmp_path / FACTS).exists() is earlier and not list(tmp_path.glob(".run*"))
    with pytest.raises(ConfigError), RunFacts.recorded(tmp_path, settings=SETTINGS) as facts:
        facts.played([episode("a", turn())])
        raise ConfigError("too late for that")
    assert sessions(tmp_path)[-1]["outcome"].startswith("ConfigError")


def test_a_run_that_is_interrupted_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunFolder.opened(tmp_path, config_yaml=SETTINGS):
        raise KeyboardInterrupt
    assert [entry["outcome"] for entry in sessions(tmp_path)] == ["KeyboardInterrupt"]


def test_every_start_has_its_entry_and_a_killed_one_is_called_so(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from rollwright.run_io import RunFolder\n"
        f"with RunFolder.opened(sys.argv[1], config_yaml={SETTINGS!r}) as folder:\n"
        "    folder.facts.add(tokens_sampled=40)\n"
        "    folder.facts.save()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode < 0
    assert [entry["outcome"] for entry in sessions(tmp_path)] == ["running"]
    with RunFolder.opened(tmp_path, config_yaml=SETTINGS) as folder:
        folder.facts.add(tokens_sampled=2)
        folder.facts.resumed(5)
    first, second = sessions(tmp_path)
    assert (first["outcome"], first["ended"], first["spent"]["tokens_sampled"]) == ("killed", None, 40)
    assert (second["outcome"], second["resumed_at_step"]) == ("finished", 5)
    facts = read_facts(tmp_path)
    assert facts["starts"] == 2 and facts["totals"]["tokens_sampled"] == 42


def test_a_file_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / FACTS).write_text('{"sessions": [')
    with RunFolder.opened(tmp_path, config_yaml=SETTINGS):
        pass
    assert (tmp_path / "run.damaged.json").read_text() == '{"sessions": ['
    assert [entry["outcome"] for entry in sessions(tmp_path)] == ["finished"]


def test_a_session_that_another_process_followed_leaves_that_one_alone(tmp_path: Path) -> None:
    """As after a takeover: the first one still ends, and says so in its own entry only."""
    with RunFacts.recorded(tmp_path, settings=SETTINGS) as old:
        with RunFacts.recorded(tmp_path, settings=SETTINGS) as new:
            new.add(tokens_trained=5)
        old.save()
    entries = {entry["id"]: entry for entry in sessions(tmp_path)}
    assert len(entries) == 2
    assert entries[new.session["id"]]["spent"]["tokens_trained"] == 5


def test_a_rank_that_does_not_write_counts_and_leaves_no_file(tmp_path: Path) -> None:
    with RunFacts.recorded(tmp_path, settings=SETTINGS, ranks=2, writes=False) as facts:
        facts.add(tokens_trained=1)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"run\.json"), RunFacts.recorded(tmp_path / "gone", settings=SETTINGS):
        raise AssertionError("the body must not run")


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("run.steps=3", "run.steps=3"),
        ("engine.url=http://me:hunter2@host:8000/v1", "engine.url=http://***@host:8000/v1"),
        ("reward.options.api_key=abc", "reward.options.api_key=***"),
        ("reward.options.key_variable=MY_KEY", "reward.options.key_variable=MY_KEY"),
        ("model.path=hub?token=abcdef", "model.path=hub?token=***"),
        ("sk-abcdefghijklmnopq", "sk-***"),
    ],
)
def test_no_secret_of_a_command_line_is_written_down(word: str, shown: str) -> None:
    assert without_secret(word) == shown


def test_a_secret_on_the_command_line_of_a_process_is_hidden_in_its_file(tmp_path: Path) -> None:
    code = (
        "import sys; from rollwright.run_io import RunFolder\n"
        "with RunFolder.opened(sys.argv[1], config_yaml='seed: 1'): pass\n"
    )
    words = ["model.path=https://someone:hunter2@host/model?token=abcdef", "judge.api_key=0x5ec3e7", "run.steps=2"]
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *words], check=True)
    text = (tmp_path / FACTS).read_text()
    assert not any(secret in text for secret in ("hunter2", "abcdef", "0x5ec3e7"))
    assert "https://***@host/model?token=***" in text and "run.steps=2" in text


def test_the_command_line_is_the_recipes_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_facts, "_words", [])
    run_facts.remember_command(["grpo.py", "a b.yaml", "run.steps=2"])
    assert run_facts.command_line() == "grpo.py 'a b.yaml' run.steps=2"


def test_seeds_are_found_at_any_depth() -> None:
    assert seeds_of("seed: 1\na:\n  b:\n    env_seed: 2\n    seeded: 3\n    seed: text\n") == {
        "seed": 1,
        "a.b.env_seed": 2,
    }


def test_only_the_policys_tokens_count_as_sampled() -> None:
    facts = RunFacts(None)
    guided = (Span(start=0, end=1, version=0, producer="forced"), Span(start=1, end=2, version=0))
    own = episode("a", turn((1,), (2, 3)), turn((4,), (5, 6), spans=guided))
    facts.played([own, episode("b", turn(), origin="teacher")])
    spent = facts.session["spent"]
    assert (spent["episodes"], spent["turns"], spent["tokens_sampled"]) == (2, 3, 3)


@pytest.mark.parametrize(
    ("visible", "left"),
    [(None, ["a", "b", "c"]), ("", []), ("2,0", ["c", "a"]), ("7", []), ("GPU-1f,GPU-2e", ["a", "b"])],
)
def test_only_the_gpus_that_a_process_may_use_are_told(visible: str | None, left: list[str]) -> None:
    assert machine_facts.visible_gpus(["a ", "b", "", "c"], visible) == left
