"""What is installed is what is here: every package, every data file, and the one top-level name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS: dict[str, str] = SETUPTOOLS["package-dir"]
DATA = {".yaml", ".json", ".js", ".html", ".txt"}


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done  # type: ignore[no-any-return]


def files_on_disk() -> set[str]:
    """Every source and data file, under the path that it has once installed."""
    found = set()
    for name, folder in FOLDERS.items():
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in DATA | {".py"} or file.name == "py.typed":
                found.add("/".join((name.replace(".", "/"), *file.relative_to(ROOT / folder).parts)))
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that no earlier build folder leaks into it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", target, source)
    return next(target.glob("rollwright-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the wheel, not this checkout, is `rollwright`."""
    site = tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-q", "--target", site, wheel)
    return {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}


def test_every_package_on_disk_is_listed() -> None:
    on_disk = {
        ".".join((name, *init.parent.relative_to(ROOT / folder).parts))
        for name, folder in FOLDERS.items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert on_disk == set(SETUPTOOLS["packages"])


def test_every_folder_with_a_module_is_a_package() -> None:
    bare = [
        str(file.parent.relative_to(ROOT))
        for folder in FOLDERS.values()
        for file in (ROOT / folder).rglob("*.py")
        if not (file.parent / "__init__.py").exists()
    ]
    assert not bare, f"add an __init__.py to {sorted(set(bare))}"


@pytest.mark.long
def test_the_wheel_installs_one_name_and_misses_no_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        top_level = next(name for name in archive.namelist() if name.endswith("top_level.txt"))
        assert archive.read(top_level).decode().split() == ["rollwright"]
    assert files_on_disk() - names == set()
    assert {name.split("/")[0] for name in names} == {"rollwright"}


@pytest.mark.long
def test_the_installed_wheel_finds_its_plug_ins_and_launch_configs(installed: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import rollwright, rollwright.envs as e, importlib.resources as r;"
        "from rollwright.config.components import available;"
        "print(rollwright.__file__); print(e.__file__); print(available('envs'));"
        "print((r.files('rollwright.accelerate_configs') / 'cpu.yaml').is_file())"
    )
    core, envs, names, config = run(sys.executable, "-c", code, cwd=tmp_path, env=installed).stdout.splitlines()
    assert core.startswith(installed["PYTHONPATH"])
    assert envs.startswith(installed["PYTHONPATH"])
    assert "text.maze" in names
    assert config == "True"


@pytest.mark.slow
def test_a_new_user_in_an_empty_folder(installed: dict[str, str], tmp_path: Path) -> None:
    """From the wheel alone: a world of one's own, its test, a plan, and a run of a shipped file by its name."""
    env = {key: value for key, value in installed.items() if key != "ROLLWRIGHT_DEBUG"}

    def rollwright(*words: str, folder: Path = tmp_path) -> str:
        done = run(sys.executable, "-m", "rollwright.cli", *words, cwd=folder, env=env)
        return done.stdout + done.stderr

    rollwright("init", "mine", "--name", "heating")
    assert "keeps the environment contract" in rollwright("check-env", "heating:build", folder=tmp_path / "mine")
    assert "text.maze" in rollwright("worlds") and "DigiRL" in rollwright("methods")
    assert "name: text.maze" in rollwright("plan", "sft", "text/maze_sft")
    said = rollwright("train", "sft", "text/maze_sft", "data.per_task=1", "sft.epochs=1", "run.folder=out")
    assert f"accelerate launch --config_file {installed['PYTHONPATH']}/rollwright/accelerate_configs/" in said
    assert (tmp_path / "out" / "policy" / "config.json").is_file()


@pytest.mark.slow
def test_tests_pass_against_the_wheel(installed: dict[str, str]) -> None:
    names = ("config/test_config", "config/test_components", "run_io/test_tracking", "worlds/text/test_text_worlds")
    files = [f"tests/{name}.py" for name in names]
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, cwd=ROOT, env=installed)
    assert " passed" in done.stdout
    assert " failed" not in done.stdout
