"""The `rollwright` command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rollwright.cli import commands as cli
from rollwright.cli.argument_types import key_values
from rollwright.contracts.environment import episode_seed
from rollwright.contracts.record import StopReason, Trajectory
from rollwright.evaluation import EpisodeRow, Evaluation, save_evaluation
from rollwright.store.trajectory_store import TrajectoryStore
from tests import builders


def save(run: Path, name: str, outcomes: str, split: str = "test") -> Path:
    """Eight tasks; the letters are the outcomes of the starts of every task."""
    rows = tuple(
        EpisodeRow(
            task=f"task{task}",
            seed=episode_seed(split, index),  # type: ignore[arg-type]
            attempt=0,
            success=letter == "1",
            total_return=float(letter),
            num_turns=1,
            stop_reason=StopReason.TERMINATED,
        )
        for task in range(8)
        for index, letter in enumerate(outcomes)
    )
    found = Evaluation(
        name=name,
        split=split,  # type: ignore[arg-type]
        policy="tiny",
        version=1,
        temperature=0.0,
        rows=rows,
        sampling={},
    )
    return save_evaluation(found, run)


def store(path: Path) -> None:
    def episode(name: str, task: str, success: bool) -> Trajectory:
        return builders.episode(name, builders.turn(text=f"do {name}"), task=task, success=success)

    opened = TrajectoryStore(path)
    opened.append([episode("a", "click", True), episode("b", "drag", False)], tag="step_0")
    opened.append([episode("c", "click", False)], tag="step_1")


@pytest.mark.parametrize("command", [(), *[(name,) for name in cli.COMMANDS]])
def test_every_command_explains_itself(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    try:
        code = cli.main([*command, "--help"])
    except SystemExit as stop:  # argparse's own help
        code = stop.code  # type: ignore[assignment]
    assert code == 0
    shown = capsys.readouterr().out
    assert "usage: rollwright" in shown and (command or all(name in shown for name in cli.COMMANDS))


def test_compare_prints_both_tables_and_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save(tmp_path / "sft", "final", "0010")
    save(tmp_path / "rl", "final", "1110")
    save(tmp_path / "rl", "start", "0000")
    assert cli.main(["compare", str(tmp_path / "sft"), str(tmp_path / "rl")]) == 0
    shown = capsys.readouterr().out
    assert "sft: tiny version 1, greedy" in shown and "rl: tiny version 1, greedy" in shown
    # every task goes from 1/4 to 3/4
    assert "success difference: +0.500 [" in shown
    assert shown.splitlines()[-1].startswith("rl is better than sft: +0.50 [")


def test_compare_takes_files_and_named_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before, after = save(tmp_path, "start", "0000"), save(tmp_path, "final", "1111")
    assert cli.main(["compare", str(before), str(after), "--target", "these", "--confidence", "0.9"]) == 0
    shown = capsys.readouterr().out
    assert "final is better than start: +1.00" in shown and "(90% CI, on these 8 tasks)" in shown
    assert cli.main(["compare", str(tmp_path), str(after), "--eval", "start"]) == 0
    assert "final is better than start" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "nothing", "nothing"], "there is no evaluation nothing"),
        (["compare", "empty", "empty"], "empty holds no evaluation"),
        (["compare", "run", "run", "--eval", "fnal"], "run has no evaluation 'fnal'; it has: final"),
        (["compare", "run", "other"], "one is of split 'test', the other of 'validation'"),
        (["compare", "run", "run", "--confidence", "95"], "--confidence is 95.0"),
        (["compare", "odd.json", "run"], "odd.json is not an evaluation"),
        (["compare", "deep.json", "run"], "deep.json cannot be read as an evaluation"),
        (["report", "nothing"], "there is no run folder nothing"),
        (["report", "empty"], "empty is not a run folder: expected config.yaml"),
        (["report", "x" * 5000], "File name too long"),
        (["show", "x" * 5000], "File name too long"),
        (["score", "run", "--into", "made", "--reward", "env"], "made is a run folder, which keeps a store of its own"),
        (["check-env", "text.maze", "max_turns=many"], "`max_turns` must be int"),
        (["check-env", "text.maze", "maze=" + "[" * 100_000], "no maze is called"),
        (["show", "empty"], "empty holds no trajectory store"),
        (["check-env", "text.maize"], "Did you mean `text.maze`"),
        (["check-env", "text.maze", "oops"], "write key=value"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("made/trajectories/trajectories").mkdir(parents=True)
    Path("odd.json").write_text("[1, 2]")
    Path("deep.json").write_text("[" * 100_000)
    save(Path("run"), "final", "01")
    save(Path("other"), "final", "01", split="validation")
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.startswith("rollwright: ") and "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: rollwright"),
        (["compar", "a", "b"], "there is no command 'compar'. Did you mean `rollwright compare`?"),
        (["-v", "xyzzy"], "there is no command 'xyzzy'. The commands are"),
    ],
)
def test_a_command_that_does_not_exist_gets_the_nearest_name(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert message in shown.out + shown.err


def test_a_misspelt_option_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["show", "--lmit=3", "run"])
    shown = capsys.readouterr().err
    assert stop.value.code == 2 and "unknown argument '--lmit=3', did you mean --limit" in shown
    assert shown.count("\n") == 1 and shown.startswith("rollwright show: ")


@pytest.mark.parametrize("words", [["-v", "show", "nothing"], ["show", "nothing", "--verbose"]])
def test_the_traceback_is_shown_only_when_asked_for(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "run", "--limit", "-3"], "'-3' is not a whole number of 0 or more"),
        (["report", "run", "--replays", "-1"], "'-1' is not a whole number of 0 or more"),
        (["check-env", "text.maze", "--tasks", "0"], "'0' is not a whole number of 1 or more"),
        (["check-env", "text.maze", "--seeds", "x"], "'x' is not a whole number of 1 or more"),
        (["check-env", "text.maze", "--max-steps", "-1"], "'-1' is not a whole number of 1 or more"),
        (["check-env", "text.maze", "--call-s", "nan"], "'nan' is not a finite number"),
        (["check-env", "text.maze", "--call-s", "0"], "'0' is not a time above 0 seconds"),
        (["score", "run", "--into", "x", "--reward", "env", "--verdict", "nan"], "'nan' is not a finite number"),
        (["score", "run", "--into", "x", "--reward", "env", "--keep", "inf"], "'inf' is not a finite number"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_report_of_damaged_files_is_still_a_report(tmp_path: Path) -> None:
    save(tmp_path, "final", "01")
    (tmp_path / "metrics.jsonl").write_bytes(b'\xff\xfe{\n[1]\n3\nnull\n{"a/b": 1}\n{"step": 1, "a/b": 2.0}\n')
    (tmp_path / "config.yaml").write_bytes(b"\xff: [")
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "a/b" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_show_filters_and_says_how_many_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store(tmp_path / "run" / "trajectories")

    def shown(*options: str) -> list[str]:
        assert cli.main(["show", str(tmp_path / "run"), *options]) == 0
        return [line[4] for line in capsys.readouterr().out.splitlines() if line.startswith("--- ")]

    assert shown() == ["a", "b", "c"]
    assert shown("--task", "click") == ["a", "c"]
    assert shown("--task", "click", "--unsolved", "--brief") == ["c"]
    assert shown("--solved") == ["a"]
    assert shown("--tag", "step_0", "--limit", "1") == ["a"]
    cli.main(["show", str(tmp_path / "run"), "--limit", "2"])
    both = capsys.readouterr()
    assert "do a" in both.out and "2 of 3 episodes" in both.err
    assert cli.main(["show", str(tmp_path / "run" / "trajectories"), "--task", "clik"]) == 2
    assert "none of the 3 trajectories matches; tags here: step_0 2, step_1 1" in capsys.readouterr().err


def test_report_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    store(tmp_path / "trajectories")
    assert cli.main(["report", str(tmp_path)]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert "do a" in (tmp_path / "report.html").read_text()


def test_check_env_proves_a_world(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["check-env", "text.guess_number", "--seeds", "1", "--tasks", "1"]) == 0
    assert "text.guess_number keeps the environment contract (3 episodes of the teacher's)" in capsys.readouterr().out


SHY = """
import itertools, math, random

from rollwright.contracts.environment import StepResult
from rollwright.contracts.record import Task


class Shy:
    \"\"\"Knows one word, which nobody says by accident, and answers it by NaN and by chance of the whole process.\"\"\"

    def reset(self, task, seed):
        self.over = False
        return "?"

    def step(self, action):
        if action != "sesame":
            return StepResult(observation="no")
        return StepResult(observation=str(random.random()), reward=math.nan)

    def fingerprint(self):
        return "the same"

    def close(self):
        pass


class ShyWorld:
    name, instructions, execution, snapshots, max_turns = "shy", "", "inline", "none", 5

    def tasks(self, split):
        return [Task(id="t", split=split)]

    def make(self):
        return Shy()

    def close(self):
        pass
"""


def test_check_env_says_that_it_played_no_well_formed_action_and_takes_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "shy_world.py").write_text(SHY)
    (tmp_path / "words.txt").write_text("open\n\nsesame\n")
    monkeypatch.syspath_prepend(tmp_path)
    asked = ["check-env", "shy_world:ShyWorld", "--tasks", "1", "--seeds", "1"]
    assert cli.main(asked) != 0
    said = capsys.readouterr()
    assert "no well-formed action was played" in said.err and "--actions" in said.err and "keeps" not in said.out
    for words in (
        ["--actions", "sesame"],
        ["--actions", "x", "--actions", "sesame"],
        ["--actions", f"{tmp_path}/words.txt"],
    ):
        assert cli.main([*asked, *words]) != 0
        said = capsys.readouterr()
        assert "a reward is not finite" in said.err and "after a second reset" in said.err
    (tmp_path / "words.txt").write_text("\n\n")
    assert cli.main([*asked, "--actions", f"{tmp_path}/words.txt"]) != 0
    assert "holds no action" in capsys.readouterr().err


def test_options_are_json_or_text():
    assert key_values(["size=3", "name=x=y", "deep=[1]"]) == {"size": 3, "name": "x=y", "deep": [1]}


@pytest.mark.parametrize("words", [["--help"], ["version"], ["train", "--help"], ["trian"]])
def test_what_loads_nothing_heavy(words: list[str]) -> None:
    """Answers come at once because torch and its like stay on the disk."""
    heavy = ("torch", "pyarrow", "numpy", "pydantic", "transformers", "rich", "omegaconf")
    code = f"import sys; from rollwright import cli; cli.main({words}); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.long
def test_a_reader_that_stops_early_is_no_error(tmp_path: Path):
    store(tmp_path)
    opened = TrajectoryStore(tmp_path)
    opened.append([t for t in opened.iter_trajectories()] * 2000)
    command = f"{sys.executable} -m rollwright.cli show {tmp_path} --limit 9999 | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "0" and done.stderr == ""
