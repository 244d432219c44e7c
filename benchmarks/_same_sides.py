"""The two sides of `same_run.py`: a commit's code, installed apart, and the runs that are made with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORKS = Path(__file__).with_name("_same_forks.py")


@dataclass(frozen=True)
class Run:
    """A run of a recipe with the settings file `recipes/<config>` of its own side, into the folder `runs/<name>`."""

    name: str
    recipe: str
    config: str
    words: tuple[str, ...]


@dataclass
class Side:
    """One of the two commits: its code, installed apart, and the folder that its runs go to."""

    name: str
    folder: Path
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def package(self) -> Path:
        return self.folder / "package"

    def install(self, commit: str) -> bool:
        """Check the commit out and install it without its dependencies, which both sides share.

        A folder that holds the same commit from an earlier comparison stays, with the runs that were made of it.

        Returns:
            Whether the folder is new.
        """
        mark, exact = self.folder / "commit", "" if commit == "." else _output("git", "rev-parse", commit).decode()
        if exact and mark.exists() and mark.read_text() == exact:
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        source = self.folder / "source"
        source.mkdir(parents=True)
        if commit == ".":
            listed = _output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
            there = [name for name in listed.split(b"\0") if name and (ROOT / name.decode()).is_file()]
            packed = _output("tar", "--null", "--files-from=-", "-c", given=b"\0".join(there))
        else:
            packed = _output("git", "archive", commit)
        _output("tar", "-x", "-C", str(source), given=packed)
        pip = ("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index")
        _output(sys.executable, *pip, "--target", str(self.package), str(source))
        lies_at = self.python("-c", "import rollwright; print(rollwright.__file__)").strip()
        if not lies_at.startswith(str(self.package)):
            raise SystemExit(f"the {self.name} side would run {lies_at}, and not what was installed for it")
        mark.write_text(exact)
        return True

    def python(self, *words: str, given: str | None = None) -> str:
        """Run Python with this side's code. -> what it printed.

        Args:
            given: its standard input.
        """
        (self.folder / "work").mkdir(exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": str(self.package),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder / "work",
            env=environment,
            input=given,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{self.name} side: {' '.join(words)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
        return done.stdout

    def make(self, runs: Sequence[Run]) -> dict[str, str]:
        """Make these runs one after the other; one that was made before with the same words stays.

        Returns:
            For each run that failed: the end of what it printed.
        """
        asked = {run.name: self._command(run) for run in runs}
        marks = {name: self.run_folder(name).with_suffix(".made") for name in asked}
        missing = [n for n in asked if not marks[n].exists() or json.loads(marks[n].read_text()) != asked[n]]
        for name in missing:
            marks[name].unlink(missing_ok=True)
            shutil.rmtree(self.run_folder(name), ignore_errors=True)
        (self.folder / "work" / "runs").mkdir(parents=True, exist_ok=True)
        jobs = [[*asked[name], str(marks[name].with_suffix(".log"))] for name in missing]
        ends = self.python(str(FORKS), given=json.dumps(jobs)).split() if jobs else []
        failed = {}
        for name, end in zip(missing, ends, strict=True):
            if end == "ended":
                marks[name].write_text(json.dumps(asked[name]))
            else:
                failed[name] = self.said(name)
        return failed

    def _command(self, run: Run) -> list[object]:
        file = self.package / "rollwright" / "recipes" / run.config
        return [run.recipe, [str(file), *map(self._named, run.words), f"run.folder=runs/{run.name}"]]

    def said(self, name: str) -> str:
        """The end of what a run printed."""
        return self.run_folder(name).with_suffix(".log").read_text(encoding="utf-8", errors="replace")[-2000:]

    def _named(self, word: str) -> str:
        key, sign, value = word.partition("=")
        return f"{self.renamed.get(key, key)}{sign}{value}"

    def run_folder(self, case: str) -> Path:
        return self.folder / "work" / "runs" / case


def _output(*words: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(words, cwd=ROOT, input=given, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def module_that_defines(function: str, package: Path) -> str:
    """The module of a public function, wherever that commit keeps it."""
    for path in sorted((package / "rollwright").rglob("*.py")):
        if re.search(rf"^def {function}\(", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            return ".".join(path.relative_to(package).with_suffix("").parts)
    raise SystemExit(f"no module of {package} defines {function}")
