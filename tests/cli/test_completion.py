"""What the Tab key offers, and a real bash that asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rollwright.cli import commands as cli
from rollwright.cli.completion_command import answers
from rollwright.cli.launching.recipe_names import launch_names, recipe_names, yaml_names


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        ([""], list(cli.COMMANDS)),
        (["train", "gr"], ["grpo"]),
        (["train", ""], recipe_names()),
        (["train", "--plan", "pp"], ["ppo"]),
        (["train", "grpo", "text/maze_gr"], ["text/maze_grpo"]),
        (["evaluate", ""], yaml_names()),
        (["train", "--config-file", ""], launch_names()),
        (["show", "--split", "v"], ["validation"]),
        (["show", "--sol"], ["--solved"]),
        (["worlds", "text.maz"], ["text.maze"]),
        (["completion", "z"], ["zsh"]),
        (["nonsense", ""], []),
        (["compare", ""], []),
    ],
)
def test_every_place_of_a_line_has_its_words(words: list[str], expected: list[str]) -> None:
    assert answers(words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script_that_says_where_it_goes(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# put this into ~/.") and "ROLLWRIGHT_COMPLETE" in shown


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_line(tmp_path: Path) -> None:
    program = tmp_path / "rollwright"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rollwright.cli "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(rollwright completion bash)"\n'
        'try() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _rollwright; echo "${#COMPREPLY[@]} ${COMPREPLY[0]}"; }\n'
        'try rollwright compl\ntry rollwright train grpo ""\n'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
    )
    assert done.stdout.splitlines() == ["1 completion", f"{len(yaml_names())} {yaml_names()[0]}"]
