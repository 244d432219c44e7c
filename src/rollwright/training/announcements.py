"""What a run says at its start, what was chosen and why, and at its end: where things are and what to type next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollwright.config import Config, sections, usable_cores
from rollwright.evaluation import Evaluation, EvaluationSettings, attempt_metrics_of
from rollwright.evaluation import metrics as evaluation_metrics
from rollwright.generation import EngineSettings
from rollwright.learner import LearnerSettings
from rollwright.models import ModelSettings
from rollwright.run_io import duration, evaluation_line, say
from rollwright.training.open_world import RewardSettings, WorldSettings
from rollwright.training.plan import method_of
from rollwright.training.preflight import folder_of

_PACKED = {
    "tree": "prefix trees",
    "padded": "padded rows",
    "auto": "prefix trees or padded rows, whichever costs less",
}


def announce(
    config: Config,
    *,
    tasks: Mapping[str, Sequence[Any]] | None = None,
    resumed_at: int | None = None,
    layout: str = "",
    note: str = "",
    device: str = "",
    plays: bool = True,
) -> None:
    """Print what a recipe is about to do; see `start_lines`."""
    say(
        "\n".join(
            start_lines(
                config, tasks=tasks, resumed_at=resumed_at, layout=layout, note=note, device=device, plays=plays
            )
        )
    )


def start_lines(
    config: Config,
    *,
    tasks: Mapping[str, Sequence[Any]] | None = None,
    resumed_at: int | None = None,
    layout: str = "",
    note: str = "",
    device: str = "",
    plays: bool = True,
) -> list[str]:
    """What was chosen for a run, and why: one line each for run, method, model, learner, engine, world and machine.

    A line is there where the recipe has such a section.

    Args:
        tasks: of the world, by split.
        resumed_at: step before which the run goes on; None = it is new.
        layout: how turns are packed for this model; empty = as set. note: why not as set.
        device: of the learner; empty = found by asking torch.
        plays: false where no policy is asked, and the engine is not opened.
    """
    lines = [_run(config, resumed_at)]
    if method := method_of(config):
        lines.append(f"method: {method}")
    lines += [f"model: {_model(model)}" for name, model in sections(config, ModelSettings) if _read(config, name)]
    lines += [
        f"learner: {_learner(s, layout, note)}" for name, s in sections(config, LearnerSettings) if _read(config, name)
    ]
    # A collection by teachers has the section too, and opens no engine.
    lines += [f"engine: {_engine(engine)}" for _, engine in sections(config, EngineSettings) if plays]
    lines += [f"world: {_world(world, config, tasks)}" for _, world in sections(config, WorldSettings)]
    return [*lines, f"machine: {_machine(device)}"]


def announce_evaluation(result: Evaluation, settings: EvaluationSettings) -> dict[str, float]:
    """Print the line of an evaluation; -> its figures as metrics."""
    by_attempt = attempt_metrics_of(result)
    found = evaluation_metrics(result) | by_attempt
    rate = [found.get(f"eval/success_{part}") for part in ("frac", "low", "high")]
    judged = [value for value in rate if value is not None]
    say(
        evaluation_line(
            result.name,
            success=(judged[0], judged[1], judged[2]) if len(judged) == 3 else None,
            reward=found.get("eval/return_mean"),
            tasks=len(result.tasks),
            starts=settings.seeds_per_task,
            attempts=settings.attempts,
            # The metrics hold a share, and the line tells a number.
            faults=round(found["eval/fault_frac"] * found["eval/episodes_count"]),
            first_and_last=(
                (by_attempt["eval/accuracy_first_frac"], by_attempt["eval/accuracy_last_frac"]) if by_attempt else None
            ),
        )
    )
    return found


def announce_end(folder: Path, *, done: int, steps: int, seconds: float) -> None:
    """Print where a finished run has put things, and the commands that look at them."""
    say("\n".join(end_lines(folder, done=done, steps=steps, seconds=seconds)))


def announce_next(folder: Path, *commands: str) -> None:
    """Print the command that shows a run folder, and others that come next, one a line."""
    shown = f"rollwright view {shlex.quote(str(folder))}"
    say("\n".join(("next: " if not place else "      ") + command for place, command in enumerate((shown, *commands))))


def end_lines(folder: Path, *, done: int, steps: int, seconds: float) -> list[str]:
    """The same as lines. What a folder does not hold is not named.

    Args:
        done: steps that the run has behind it, of `steps`.
        seconds: since this start of it.
    """
    things = {
        "policy": "policy",
        "best policy on validation": "best",
        "report": "report.html",
        "episodes": "trajectories",
        "evaluations": "eval",
    }
    there = [f"{label} in {folder / name}" for label, name in things.items() if _holds(folder / name)]
    lines = [f"finished: step {done} of {steps}, in {duration(seconds)}", *(f"  {line}" for line in there)]
    shown = shlex.quote(str(folder))
    lines.append(f"next: rollwright view {shown}")
    # Both evaluations play the same start states, so that the two can be compared in pairs.
    before, after = folder / "eval" / "start.json", folder / "eval" / "final.json"
    if before.exists() and after.exists():
        lines.append(f"      rollwright compare {shlex.quote(str(before))} {shlex.quote(str(after))}")
    return lines


def _holds(path: Path) -> bool:
    # The start of a run makes folders that a short run leaves empty.
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _read(config: Config, section: str) -> bool:
    """Whether anything of a section is read: recipes without an update leave some of it aside."""
    return section not in type(config).unread


def _run(config: Config, resumed_at: int | None) -> str:
    folder, run = folder_of(config)[1], getattr(config, "run", None)
    parts = [folder, "new" if resumed_at is None else f"resumed after step {resumed_at}"]
    # Recipes that train once have no steps.
    if steps := getattr(run, "steps", 0):
        parts.append("1 step" if steps == 1 else f"{steps} steps")
    if (seed := getattr(run, "seed", None)) is not None:
        parts.append(f"seed {seed}")
    return f"run: {', '.join(parts)}"


def _model(model: ModelSettings) -> str:
    if model.path == "tiny":
        return f"tiny, made for this world, {model.tiny_layers} layers of width {model.tiny_hidden}"
    adapter = f", LoRA of rank {model.lora_rank}" if model.lora_rank else ""
    return f"{model.path}{adapter}"


def _learner(settings: LearnerSettings, layout: str, note: str) -> str:
    chosen = layout or settings.layout
    why = note or ("auto" if settings.layout == "auto" else "as set")
    return f"{_dtype('precision', settings.precision)}; turns packed as {_PACKED[chosen]} (layout: {why})"


def _engine(settings: EngineSettings) -> str:
    from rollwright.generation import choose_engine

    name = choose_engine(settings.name)
    why = ""
    if settings.name == "auto":
        why = " (auto: vLLM is installed)" if name == "vllm" else " (auto: vLLM is not installed)"
    return f"{name}{why}, {_dtype('dtype', settings.dtype)}, at most {settings.max_context} tokens of context"


def _dtype(key: str, wanted: Any) -> str:
    """The floating-point format, and why where nobody chose it."""
    import torch

    from rollwright.models import resolve_precision

    found = resolve_precision(wanted)
    if wanted != "auto":
        return f"{found} ({key} as set)"
    place = "GPU" if torch.cuda.is_available() else "CPU"
    return f"{found} (auto: this {place} is {'' if found == 'bfloat16' else 'not '}fast in bfloat16)"


def _world(settings: WorldSettings, config: Config, tasks: Mapping[str, Sequence[Any]] | None) -> str:
    counts = ", ".join(f"{split} {len(found)}" for split, found in (tasks or {}).items() if found)
    rewards = [reward.name for name, reward in sections(config, RewardSettings) if _read(config, name)]
    parts = [settings.name, f"tasks: {counts}" if counts else "", f"reward {rewards[0]}" if rewards else ""]
    return ", ".join(filter(None, parts))


def _machine(device: str) -> str:
    import torch

    found = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if found.startswith("cuda") and torch.cuda.is_available():
        found = f"{found} ({torch.cuda.get_device_name()})"
    return ", ".join((found, *_processes()))


def _processes() -> Iterator[str]:
    # `_machine` has imported it.
    torch = sys.modules["torch"]
    count, threads = int(os.environ.get("WORLD_SIZE", "1")), torch.get_num_threads()
    yield f"{usable_cores()} cores"
    yield f"{count} processes" if count > 1 else "1 process"
    where = "OMP_NUM_THREADS" if "OMP_NUM_THREADS" in os.environ else "all cores"
    yield f"{threads} {'thread' if threads == 1 else 'threads'} each ({where})"
