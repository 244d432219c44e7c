"""What can be known to go wrong before a weight is loaded and before anything is written: under `--plan` as in a run.

Every check looks at the sections that a recipe has, whichever recipe it is. None writes, starts a server or a browser,
or draws from a generator that the run draws from.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from pathlib import Path

from rollwright.config import Config, Kind, require, require_own_parts, sections
from rollwright.contracts import ConfigError, MissingDependency, RunFolderError, UnknownComponent
from rollwright.generation import EngineSettings, takes_batches
from rollwright.models import ModelSettings
from rollwright.rollout import ActorSettings, RolloutSettings
from rollwright.run_io import RunSettings
from rollwright.store.replay import ReplaySettings
from rollwright.training.open_world import RewardSettings, WorldSettings
from rollwright.training.preflight_models import near_path, require_context, require_models, require_room
from rollwright.training.token_q_config import TokenQConfig

_LONGEST_PATH = 3800  # bytes; systems take 4096, and the files of a run need some for themselves
_VLLM = "pip install 'rollwright[vllm]' with a GPU, 'rollwright[cpu]' without"


def preflight(config: Config) -> None:
    """Hold a recipe's settings against this machine.

    Raises:
        UserError: something that they name is not here, or cannot work as they are put together.
    """
    # Cheap ones first: the last three open configurations, tokenizers and worlds.
    for check in (
        require_folder,
        require_trackers,
        require_own_parts,
        require_siblings,
        require_engine,
        require_named_stores,
        require_components,
        require_models,
        require_context,
        require_room,
    ):
        check(config)


def folder_of(config: Config) -> tuple[str, str]:
    """The key of the run folder, and its value."""
    run = getattr(config, "run", None)
    return ("folder", str(getattr(config, "folder", ""))) if run is None else ("run.folder", str(run.folder))


def require_folder(config: Config) -> None:
    """The run folder is there or can be made. Nothing is made."""
    key, text = folder_of(config)
    if not text.strip():
        raise RunFolderError(f"`{key}` is empty: name the folder that the run is to write, such as runs/mine.")
    try:
        path = Path(text).expanduser()
        # `lexists`, so that a link to nowhere is found and named instead of its parent.
        there = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    except (OSError, RuntimeError, ValueError) as error:
        raise RunFolderError(f"`{key}` is {text!r}, which is not a path here: {error}") from error
    if not there.is_dir():
        what = f"a link to {there.readlink()}, where nothing is" if there.is_symlink() else "a file"
        raise RunFolderError(
            f"`{key}` is {text!r}, but {there} is {what}: name a folder, such as `{key}=runs/mine`; the run makes it."
        )
    # Linux counts a name in bytes, and 255 is the most that its file systems take.
    if any(len(os.fsencode(part)) > 255 for part in path.parts) or len(os.fsencode(path.absolute())) > _LONGEST_PATH:
        raise RunFolderError(
            f"`{key}` is {text[:60]!r}..., a name of more than 255 bytes, or {_LONGEST_PATH} with its folders: name a "
            "shorter one."
        )
    # X as well: without it nothing can be made in a folder that may be written.
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunFolderError(
            f"`{key}` is {text!r}, but {there} cannot be written: name a folder where you may write, such as "
            f"`{key}=runs/mine`."
        )


def require_trackers(config: Config) -> None:
    """Trackers have names that accelerate knows, and their packages are installed; it would drop others in silence."""
    for name, run in sections(config, RunSettings):
        if not run.trackers:
            continue
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        known = sorted(str(tracker) for tracker in LOGGER_TYPE_TO_CLASS)
        there = {str(tracker.value) for tracker in get_available_trackers()}
        for tracker in run.trackers:
            if tracker not in known:
                raise ConfigError(
                    f"`{name}.trackers` names {tracker!r}, which is not a tracker.{_near(tracker, known)} Known: "
                    f"{', '.join(known)}."
                )
            if tracker not in there:
                raise MissingDependency(
                    f"`{name}.trackers` names {tracker!r}, whose package is not installed: pip install {tracker}"
                )


def require_siblings(config: Config) -> None:
    """An estimator that compares an episode with the others of its group needs others."""
    from rollwright.batching import ADVANTAGES, estimator_needs, estimators_that_need

    estimator = getattr(getattr(config, "algorithm", None), "advantage", "")
    for name, rollout in sections(config, RolloutSettings):
        if rollout.group_size < 2 and estimator_needs(estimator, "siblings"):
            alone = ", ".join(sorted(set(ADVANTAGES.ours) - set(estimators_that_need("siblings"))))
            raise ConfigError(
                f"`{name}.group_size=1`: `algorithm.advantage={estimator}` compares each episode with the others of "
                f"its group, so nothing would ever be learned. Use 2 or more, or an estimator that needs none: {alone}."
            )


def require_engine(config: Config) -> None:
    """The engine that is named is installed, and its keys agree with each other and with the policy's."""
    lora = next((model.lora_rank for _, model in sections(config, ModelSettings)), 0)
    # `find_spec` only looks; an import would load torch.
    if lora and importlib.util.find_spec("peft") is None:
        raise MissingDependency(f"`model.lora_rank={lora}` needs the package peft: pip install 'rollwright[peft]'")
    if getattr(getattr(config, "collect", None), "by", "policy") != "policy":
        return  # nobody is asked
    for name, engine in sections(config, EngineSettings):
        _require_installed(name, engine)
        if engine.devices and len(engine.devices) != engine.replicas:
            raise ConfigError(
                f"`{name}.devices` names {len(engine.devices)} groups of devices for {engine.replicas} "
                f"`{name}.replicas`: one group for each"
            )
        if engine.lora_sync == "adapter" and not lora:
            raise ConfigError(
                f"`{name}.lora_sync=adapter` swaps LoRA adapters, but `model.lora_rank` is 0: the policy has none"
            )
        for key, rollout in sections(config, RolloutSettings):
            # A round hands all waiting requests to the engine as one batch; docs/decisions/0006 says why.
            if rollout.schedule == "rounds" and not takes_batches(engine.name):
                raise ConfigError(
                    f"`{key}.schedule=rounds` needs an engine that takes whole batches, and "
                    f"`{name}.name={engine.name}` does not: use vllm or transformers, or `rollout.schedule=continuous`"
                )


def _require_installed(name: str, engine: EngineSettings) -> None:
    from rollwright.generation import vllm_importable

    if engine.name == "vllm" and not vllm_importable():
        raise MissingDependency(f"`{name}.name=vllm`: vLLM is not installed: {_VLLM}; or use transformers")
    if engine.name != "vllm_server":
        return
    if not engine.urls and not vllm_importable():
        raise MissingDependency(
            f"`{name}.name=vllm_server` starts vLLM, which is not installed: {_VLLM}; or name running servers in "
            f"`{name}.urls`"
        )
    if importlib.util.find_spec("aiohttp") is None:
        raise MissingDependency(f"`{name}.name=vllm_server` needs aiohttp, which vLLM brings: {_VLLM}")
    for url in engine.urls:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"`{name}.urls` holds {url!r}, which is not an address such as http://10.0.0.2:8000")


def require_named_stores(config: Config) -> None:
    """Stores that are named are there, and steps that only learn from stores have some."""
    for name in type(config).model_fields:
        section = getattr(config, name)
        for key in ("stores", "logs"):
            for place in getattr(section, key, ()) if isinstance(section, Config) else ():
                _require_store(f"{name}.{key}", str(place))
    if isinstance(config, TokenQConfig) and not config.replay.stores:
        raise ConfigError(
            "`replay.stores` is empty, and this method learns from stored trajectories alone: name some, such as "
            "`replay.stores=[runs/collect/trajectories]`. recipes/collect.py writes stores."
        )
    for name, actor in sections(config, ActorSettings):
        if actor.guide == "store":
            _require_store(f"{name}.store", actor.store)
    offline = getattr(getattr(config, "algorithm", None), "offline_steps", 0)
    for name, replay in sections(config, ReplaySettings):
        if offline and not replay.stores:
            raise ConfigError(
                f"`algorithm.offline_steps={offline}`: these first steps learn from stored trajectories alone, so name "
                f"some in `{name}.stores`."
            )


def _require_store(key: str, text: str) -> None:
    path = Path(text).expanduser()
    # These two tables make a folder a store.
    if (path / "trajectories").is_dir() and (path / "turns").is_dir():
        if not any((path / "trajectories").glob("*.parquet")):
            raise ConfigError(
                f"`{key}` names {text!r}, a store without episodes: name another, or fill it (recipes/collect.py)."
            )
        return
    # An easy slip: a run folder is named in place of the store inside it.
    inner = path / "trajectories"
    if (inner / "trajectories").is_dir():
        raise ConfigError(f"`{key}` names {text!r}, a run folder; its store is {str(inner)!r}")
    if path.is_dir():
        raise ConfigError(f"`{key}` names {text!r}, which holds no trajectory store (recipes/collect.py writes them)")
    what = "a file, not the folder of a store" if path.exists() else "which does not exist"
    raise ConfigError(f"`{key}` names {text!r}, {what}.{near_path(path)} recipes/collect.py writes stores.")


def require_components(config: Config) -> None:
    """World and reward are there and take the options that they are given."""
    kinds: tuple[tuple[Kind, type[WorldSettings] | type[RewardSettings]], ...] = (
        ("envs", WorldSettings),
        ("rewards", RewardSettings),
    )
    for component, kind in kinds:
        for name, settings in sections(config, kind):
            # What is not read may name anything.
            if name in type(config).unread:
                continue
            try:
                require(component, settings.name, settings.options)
            except UnknownComponent as error:
                raise UnknownComponent(f"`{name}.name`: {error}") from error
            except ConfigError as error:
                raise ConfigError(f"`{name}.options`: {error}") from error


def _near(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean `{near[0]}`?" if near else ""
