"""Exact resume: what a checkpoint holds besides the learner, and how a run is put back to it.

A checkpoint is taken between two steps. What has happened since then is played again: the journal answers for the
policy what it answered before, the learner repeats its updates, and what was written to disk meanwhile is set aside.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_core import to_jsonable_python

from rollwright.config import Config, all_keys
from rollwright.contracts import ConfigError, Reward, RunFolderError, StatefulReward
from rollwright.learner import hand_over
from rollwright.run_io import Checkpoint, Checkpoints, deadline
from rollwright.training import inventory

if TYPE_CHECKING:
    from rollwright.curriculum import Curriculum
    from rollwright.generation import Engine
    from rollwright.learner import Learner, TokenNotes
    from rollwright.rollout import Collector, Journal
    from rollwright.run_io import RunFolder, Tracker
    from rollwright.store import TrajectoryStore
    from rollwright.training.loop_config import LoopConfig

log = logging.getLogger(__name__)

_WATCHED = (
    "run.folder",
    "run.rank_timeout_s",
    "run.steps",
    "run.max_minutes",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "run.score_s",
    "run.sync_s",
    "run.checkpoint_s",
)
FREE_KEYS = (
    *_WATCHED,
    "run.transcripts_every",
    "run.token_log",
    "run.trackers",
    "run.resume",
    "evaluation.",
    "algorithm.preset",
)
"""How long a run lasts, how it is watched and judged, and where its folder lies may change on the way. A preset
only names other keys, which are compared themselves."""


class Part(Protocol):
    """Something of a recipe's own that a checkpoint holds: a further critic, a replay sampler."""

    def save_state(self, folder: Path) -> None:
        """Write the part's state into the folder of a checkpoint."""
        ...

    def load_state(self, folder: Path) -> None:
        """Read it back."""
        ...


class Run(Protocol):
    """What is saved and put back: the parts of `rollwright.training.loop.Training` that change while it runs."""

    config: LoopConfig
    folder: RunFolder
    tracker: Tracker
    notes: TokenNotes
    curriculum: Curriculum
    reward: Reward
    learner: Learner
    engine: Engine
    collector: Collector
    store: TrajectoryStore
    checkpoints: Checkpoints
    journal: Journal
    next_step: int
    parity_checks: int
    inputs: Mapping[str, str]
    parts: list[Part]
    resumed: Checkpoint | None


def save(run: Run) -> None:
    """Write a checkpoint of the run as it stands between two steps, then forget the journal that led to it."""
    limit_s, faults = run.config.run.checkpoint_s, run.collector.faults
    # A timeout is in the file of faults even if the process has to be ended.
    report = partial(faults.note, subject="checkpoint")
    with deadline("writing a checkpoint", limit_s, setting="run.checkpoint_s", report=report):
        run.checkpoints.save(run.next_step, lambda folder: _write_rank(run, folder), capture(run))
    # Not earlier: until the checkpoint is complete, a run that is killed needs the journal.
    run.journal.clear(after=run.next_step)


def capture(run: Run) -> dict[str, Any]:
    """Everything but weights, optimiser and random generators, as JSON."""
    return {
        "curriculum": run.curriculum.state_dict(),
        "reward": dict(run.reward.state_dict()) if isinstance(run.reward, StatefulReward) else None,
        "version": run.engine.version,
        "stored": run.store.position,
        "logged": run.tracker.position,
        # Only the first rank's state is written, so the others need not read the files.
        "inventory": inventory.counted(run.store, run.folder.metrics) if run.learner.ranks.first else {},
        "inputs": dict(run.inputs),
        "faults": run.collector.faults.state_dict(),
        "parity_checks": run.parity_checks,
        "world_size": run.learner.accelerator.num_processes,
        "config": run.config.model_dump(mode="json"),
    }


def resume(run: Run) -> None:
    """Put a run that has just been opened back to its last checkpoint, or to its beginning where there is none.

    Raises:
        ConfigError: the checkpoint is of a run with other settings, another number of processes, or other weights.
        RunFolderError: `run.resume` is "must" and there is no usable checkpoint.
    """
    wanted = run.config.run.resume
    found = run.checkpoints.latest() if wanted != "never" else None
    if found is None:
        if wanted == "must":
            raise RunFolderError(
                f"{run.folder.checkpoints} holds no usable checkpoint, and run.resume is 'must': see the warnings "
                "above, or start with run.resume=auto"
            )
        _begin_anew(run, keep_journal=wanted == "auto")
        return
    # Refused before the checkpoint is loaded or anything is moved: the folder stays another run's.
    refuse_changes(found, run.config, world_size=run.learner.accelerator.num_processes, folder=run.folder.path)
    refuse_other_weights(found, run.inputs, folder=run.folder.path)
    _say_what_is_lost(run, found)
    _restore(run, found)
    run.folder.facts.resumed(found.step)
    recorded = run.journal.load(after=found.step)
    log.warning("resumed from %s at step %d, %d sampled answers on record", found.path, found.step, recorded)
    if found.step >= run.config.run.steps:
        log.warning(
            "%s is finished: its %d steps are done. Only its end is made again: the last evaluation, the policy's "
            "folder, the report. To train on, raise run.steps (now %d); for another run, name another run.folder",
            run.folder.path,
            found.step,
            run.config.run.steps,
        )


def _begin_anew(run: Run, *, keep_journal: bool) -> None:
    """What an earlier start without a checkpoint left behind is set aside, so that nothing is kept twice."""
    left = inventory.leftovers(run.store, run.folder.metrics, run.checkpoints)
    if left and run.learner.ranks.first:
        log.warning(
            "%s holds %s, and %s: the run begins at step 0. What lies there is set aside (superseded/ in trajectories/ "
            "and checkpoints/, metrics.superseded.jsonl)",
            run.folder.path,
            ", ".join(left),
            "no usable checkpoint" if keep_journal else "run.resume is 'never'",
        )
    run.learner.ranks.wait()  # all have looked before the first moves anything
    if run.learner.ranks.first:
        run.store.rewind(0)
    run.tracker.rewind(0)
    run.notes.rewind(0)
    run.checkpoints.set_aside()
    # What was sampled before the first checkpoint is still of use; `never` asks for a new run.
    if keep_journal:
        run.journal.load()
    else:
        run.journal.clear()


def _say_what_is_lost(run: Run, found: Checkpoint) -> None:
    """Files that the checkpoint counted and that are gone: a run goes on without them, unless it learns from them."""
    # All ranks take the first one's finding: a store that is refused on some of them leaves the others waiting.
    episodes = run.learner.ranks.of_first(inventory.lost_episodes(found.state, run.store))
    metrics = run.learner.ranks.of_first(inventory.lost_metrics(found.state, run.folder.metrics))
    if episodes:
        log.warning("%s. The run goes on without them", episodes)
        run.store.lacking = (
            f"{episodes}. This run learns from its stored episodes and would learn otherwise without them: put the "
            "files back, name another run.folder, or begin anew with run.resume=never"
        )
    if metrics:
        log.warning("%s. The run goes on, and writes from step %d on", metrics, found.step)


def _restore(run: Run, found: Checkpoint) -> None:
    state = found.state
    run.learner.load_state(found.path)
    _read_random(found.path / _random_file(run))
    run.curriculum.load_state_dict(state["curriculum"])
    if isinstance(run.reward, StatefulReward) and state.get("reward") is not None:
        run.reward.load_state_dict(state["reward"])
    # The version is part of the journal's keys, so the engine has to count on from the same number.
    hand_over(run.learner.policy, run.engine, version=int(state["version"]))
    if run.learner.ranks.first:
        run.store.rewind(state["stored"])  # steps after the checkpoint are played again, not kept twice
    run.tracker.rewind(state["logged"])
    run.notes.rewind(found.step)
    run.collector.faults.load_state_dict(state["faults"])
    run.parity_checks = int(state["parity_checks"])
    run.next_step = found.step
    run.resumed = found


def refuse_changes(found: Checkpoint, config: LoopConfig, *, world_size: int, folder: Path) -> None:
    """Compare a checkpoint with what was asked for.

    Raises:
        ConfigError: names the settings, or the numbers of processes, that differ.
    """
    if changed := changed_keys(found.state["config"], config):
        raise ConfigError(
            f"{folder} holds a run with other settings: {', '.join(changed)}. To go on with it, use the "
            "settings it was begun with (its config*.yaml); to start anew, name another run.folder"
        )
    saved = int(found.state.get("world_size", world_size))
    if saved != world_size:
        raise ConfigError(
            f"{found.path} was written by {saved} processes and {world_size} were started: the state is cut by rank, "
            f"and another number of ranks adds up other sums. Start {saved} processes (--num_processes {saved}); or "
            "take the weights alone into a new run: model.path=<run>/policy, which a finished run leaves"
        )


def refuse_other_weights(found: Checkpoint, inputs: Mapping[str, str], *, folder: Path) -> None:
    """Compare what lies at the paths of the settings with what lay there when the run was begun (`inputs`).

    Other weights are refused; a store that has changed is warned of, as a run may be meant to see it grow.

    Raises:
        ConfigError: names the settings whose weights are others.
    """
    before = found.state.get("inputs", {})
    # What was not looked at then, or is not there now, cannot be compared.
    changed = sorted(key for key in before.keys() & inputs.keys() if before[key] != inputs[key])
    if weights := [key for key in changed if inputs[key].startswith("weights:")]:
        raise ConfigError(
            f"{folder} holds a run that was begun from other weights than those that {', '.join(weights)} names now: "
            "they were trained anew since. Put the old ones back to go on with it; to begin from the new ones, name "
            "another run.folder, or set this run aside with run.resume=never"
        )
    for key in changed:
        log.warning("what %s names is not what it was when %s was written: the run goes on with it", key, found.path)


def run_name(config: LoopConfig) -> str:
    """A hash of every setting that must not change on the way."""
    # `startswith` takes all of them at once; an entry that ends in a dot stands for a whole section.
    kept = {k: v for k, v in _dotted(config.model_dump(mode="json")).items() if not k.startswith(FREE_KEYS)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def changed_keys(before: Mapping[str, Any], config: Config) -> list[str]:
    """Dotted keys that differ and would make a resumed run another run; what was not yet a key had its default."""
    fields = {k: field for k, field in all_keys(type(config)) if not field.is_required()}
    # The stored settings have been through JSON, so the defaults must have the same form.
    defaults = {k: to_jsonable_python(field.get_default(call_default_factory=True)) for k, field in fields.items()}
    then, now = _dotted(before), _dotted(config.model_dump(mode="json"))
    # Keys of both, as another release may have added some or dropped some.
    keys = (k for k in then.keys() | now.keys() if not k.startswith(FREE_KEYS))
    return sorted(k for k in keys if then.get(k, defaults.get(k)) != now.get(k))


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


# Random generators: one file per rank


def _write_rank(run: Run, folder: Path) -> None:
    # All ranks come here: sharded state is written by each of them, and each has generators of its own.
    run.learner.save_state(folder)
    for part in run.parts:
        part.save_state(folder)
    (folder / _random_file(run)).write_text(json.dumps(random_state()), encoding="utf-8")


def _random_file(run: Run) -> str:
    return f"random_{run.learner.accelerator.process_index:05d}.json"


def _read_random(file: Path) -> None:
    set_random_state(json.loads(file.read_text(encoding="utf-8")))


def random_state() -> dict[str, Any]:
    """The global generators of Python, numpy and torch, as JSON. Requests and task draws need none: they have seeds."""
    import numpy
    import torch

    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
    cuda = [_pack(state) for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else []
    return {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), numpy.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": _pack(torch.get_rng_state()),
        "cuda": cuda,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of `random_state`. Generators of GPUs that are not here are left out."""
    import numpy
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    numpy.random.set_state((name, numpy.asarray(keys, dtype=numpy.uint32), *rest))
    torch.set_rng_state(_unpack(state["torch"]))
    for index, packed in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(_unpack(packed), index)


def _pack(state: Any) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode()


def _unpack(packed: str) -> Any:
    import torch

    # A bytearray, as torch warns of buffers that cannot be written; the clone owns its memory.
    return torch.frombuffer(bytearray(base64.b64decode(packed)), dtype=torch.uint8).clone()
