"""The main job: SmolLM2-135M learns MiniWoB++ tasks in a real browser: demonstrations, SFT, then GRPO.

    1. evaluate   the untouched model on held-out start states
    2. sft        on a few demonstrations by scripted teachers
    3. grpo       from there, by trying: evaluated before its first step and after its last
    4. report     success per task before SFT, after SFT, after RL, with intervals; the paired gain of RL

Each stage is one of the other recipes, started as a user would start it. A stage that is complete is not run again.

    accelerate launch --config_file accelerate_configs/cpu.yaml recipes/demo.py [folder=runs/demo] [engine=transformers]
"""

from __future__ import annotations

from rollwright.config import prepare_environment

prepare_environment()  # before torch is imported: its thread pools read the environment once

import os
import shlex
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from rollwright.config import Config, dump
from rollwright.contracts import ConfigError, UserError
from rollwright.evaluation import Evaluation, compare, format_comparison, format_side_by_side, load_evaluation
from rollwright.generation import ENGINES
from rollwright.learner import require_trl
from rollwright.run_io import RunFolder
from rollwright.training import INTERRUPTED, recipe_config, run_recipe


class DemoConfig(Config):
    """What can be changed about the demo."""

    folder: str = Field("runs/demo", description="Folder for all results.")
    seed: int = Field(0, ge=0, description="Training seed; the start states used for evaluation do not depend on it.")
    engine: Annotated[str, ENGINES] = Field(
        "auto", description="Engine that generates the actions, as `engine.name` in the other recipes."
    )
    config_file: str = Field("cpu", description="Name or path of an accelerate configuration file.")
    demos_per_task: int = Field(10, ge=1, description="Number of demonstrations per task.")
    steps: int = Field(24, ge=1, description="Number of GRPO steps.")
    max_minutes: float = Field(18.0, gt=0, description="Stop GRPO cleanly after this many minutes.")
    seeds_per_task: int = Field(50, ge=2, description="Number of held-out start states per task.")
    base_seeds_per_task: int = Field(
        15,
        ge=2,
        description="Number of held-out start states per task for the untouched model, whose failures take long.",
    )

    @field_validator("config_file")
    @classmethod
    def _is_there(cls, name: str) -> str:
        config_path(name)
        return name


def main(argv: list[str] | None = None) -> None:
    """Run the recipe on these words of a command line; None is this process's own."""
    config = recipe_config(DemoConfig, argv)
    RunFolder.refuse_other_settings(
        config.folder,
        config=config,
        why="its finished stages would be reported as this one's. Give this one a folder of its own, such as "
        "folder=runs/demo_2, or use the same settings",
    )
    # Asked before the first stage, which takes minutes.
    require_trl("the demo's second stage, supervised fine-tuning,")
    with RunFolder.opened(config.folder, config_yaml=dump(config)) as folder:
        play(config, folder.path)


def play(config: DemoConfig, folder: Path) -> None:
    """The three stages and their result."""
    started = time.monotonic()
    before, sft, grpo = folder / "before", folder / "sft", folder / "grpo"
    # The test split may be used here, as nothing is chosen by these scores.
    judged = ["evaluation.split=test", f"engine={config.engine}"]
    stage(
        config,
        "1 of 3: the untouched model",
        "evaluate web/miniwob_eval",
        [f"folder={before}", "name=before", *judged, f"evaluation.seeds_per_task={config.base_seeds_per_task}"],
        done=before / "eval" / "before.json",
    )
    stage(
        config,
        "2 of 3: supervised fine-tuning on demonstrations",
        "sft web/miniwob_sft",
        [f"run.folder={sft}", f"run.seed={config.seed}", f"data.per_task={config.demos_per_task}"],
        done=sft / "policy" / "config.json",
    )
    length = [f"run.steps={config.steps}", f"run.max_minutes={config.max_minutes}"]
    learning = [f"run.folder={grpo}", f"run.seed={config.seed}", *length, f"model.path={sft / 'policy'}"]
    # `at_start` judges the policy after SFT, on the start states that the last evaluation plays too.
    stage(
        config,
        "3 of 3: reinforcement learning",
        "grpo web/miniwob_grpo",
        [*learning, *judged, f"evaluation.seeds_per_task={config.seeds_per_task}", "evaluation.at_start=true"],
        done=grpo / "eval" / "final.json",
    )
    print(f"\nTranscripts: {grpo / 'transcripts'}   Report: {grpo / 'report.html'}")
    print(summary(before, grpo, minutes=(time.monotonic() - started) / 60))


def stage(config: DemoConfig, title: str, recipe: str, words: list[str], *, done: Path) -> None:
    """Run one recipe by `rollwright train`, unless its result is there already.

    Raises:
        UserError: the recipe failed, and has said why.
    """
    # Flushed, as the stage writes to the same terminal.
    print(f"\n=== {title}", flush=True)
    # `refuse_other_settings` has made sure that it is a result of these settings.
    if done.exists():
        print(f"    already complete: {done}")
        return
    script, settings = recipe.split()
    words = ["train", script, settings, "--config-file", config_path(config.config_file), *words]
    before = time.monotonic()
    # A process for each stage, so that the memory of one is free for the next.
    code = finished([sys.executable, "-m", "rollwright.cli", *words])
    # The stage was ended by Ctrl-C and has said what is saved; the demo ends the same way.
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        command = shlex.join(["rollwright", *words])
        raise UserError(f"the stage `{title}` ended with exit code {code}; the command was: {command}")
    print(f"    took {time.monotonic() - before:.0f} s", flush=True)


def finished(command: list[str]) -> int:
    """Run a command to its end; -> its exit code. Ctrl-C reaches it too, and it may first say what it has saved."""
    process = subprocess.Popen(command, env=own_environment())
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def own_environment() -> dict[str, str]:
    """Ours without what the launcher of the demo itself wrote into it: "use the CPU" would keep DeepSpeed out."""
    launchers = ("ACCELERATE_USE_", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(launchers)}


def config_path(name: str) -> str:
    """A file of accelerate_configs by its name, or a path as it is.

    Raises:
        ConfigError: there is no such file.
    """
    shipped = Path(str(files("rollwright.accelerate_configs")))
    path = Path(name) if "/" in name or name.endswith(".yaml") else shipped / f"{name}.yaml"
    if not path.exists():
        names = ", ".join(sorted(file.stem for file in shipped.glob("*.yaml")))
        raise ConfigError(f"config_file is {name!r}: no such file; expected a path, or one of {names}")
    return str(path)


def summary(before: Path, grpo: Path, *, minutes: float) -> str:
    """The table of the three policies and the paired gain of RL over SFT; the last line is the verdict."""
    judged: dict[str, Evaluation] = {
        "before SFT": load_evaluation(before / "eval" / "before.json"),
        "after SFT": load_evaluation(grpo / "eval" / "start.json"),
        "after RL": load_evaluation(grpo / "eval" / "final.json"),
    }
    # The demo's claim is about its own tasks: they are all there are in its table.
    gain = compare(judged["after SFT"], judged["after RL"], name_a="after SFT", name_b="after RL", target="these")
    table = format_side_by_side(judged)
    return "\n".join(["", "=== Result", table, "", f"{minutes:.1f} minutes in all", "", format_comparison(gain)])


if __name__ == "__main__":
    run_recipe(main)
