"""What can be known to go wrong before a weight is loaded and before anything is written: under `--plan` as in a run.

Every check looks at the sections that a recipe has, whichever recipe it is. None writes, starts a server or a browser,
or draws from a generator that the run draws from.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from rollwright.config import Config, Kind, require, require_own_parts
from rollwright.contracts import ConfigError, MissingDependency, ModelNotFound, RunFolderError, UnknownComponent
from rollwright.critics import TurnCriticFit
from rollwright.generation import EngineSettings
from rollwright.learner import LearnerSettings
from rollwright.methods import JudgeModel
from rollwright.models import ModelSettings
from rollwright.rollout import RolloutSettings
from rollwright.run_io import RunSettings
from rollwright.store.replay import ReplaySettings
from rollwright.training.world_settings import RewardSettings, WorldSettings

log = logging.getLogger(__name__)
Section = TypeVar("Section", bound=Config)
_NOT_SYNCED = ("gpt2",)
"""Kinds of models whose log-probs in vLLM were wrong after an update of their weights (scripts/write_models.py)."""
_TINY, _EMBEDDED = "tiny", "smollm2"
_LONGEST_PATH = 3800  # bytes; systems take 4096, and the files of a run need some for themselves
_VLLM = "pip install 'rollwright[vllm]' with a GPU, 'rollwright[cpu]' without"


def preflight(config: Config) -> None:
    """Hold a recipe's settings against this machine.

    Raises:
        UserError: something that they name is not here, or cannot work as they are put together.
    """
    for check in (
        require_folder,
        require_trackers,
        require_own_parts,
        require_siblings,
        require_engine,
        require_stores,
        require_components,
        require_models,
        require_context,
        require_room,
    ):
        check(config)


def sections(config: Config, kind: type[Section]) -> Iterator[tuple[str, Section]]:
    """The sections of that class, or of one made from it, by name."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, kind):
            yield name, value


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
        there = next(place for place in (path.absolute(), *path.absolute().parents) if os.path.lexists(place))
    except (OSError, RuntimeError, ValueError) as error:
        raise RunFolderError(f"`{key}` is {text!r}, which is no path here: {error}") from error
    if not there.is_dir():
        what = f"a link to {there.readlink()}, where nothing is" if there.is_symlink() else "a file"
        raise RunFolderError(
            f"`{key}` is {text!r}, but {there} is {what}: name a folder, such as `{key}=runs/mine`; the run makes it."
        )
    if any(len(os.fsencode(part)) > 255 for part in path.parts) or len(os.fsencode(path.absolute())) > _LONGEST_PATH:
        raise RunFolderError(
            f"`{key}` is {text[:60]!r}..., a name of more than 255 bytes, or {_LONGEST_PATH} with its folders: name a "
            "shorter one."
        )
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
                    f"`{name}.trackers` names {tracker!r}, which is no tracker.{_near(tracker, known)} Known: "
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
            if engine.name == "vllm_server" and rollout.schedule == "rounds":
                raise ConfigError(
                    f"`{key}.schedule=rounds` needs an engine that takes whole batches, and `{name}.name=vllm_server` "
                    "does not: use vllm or transformers, or `rollout.schedule=continuous`"
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
            raise ConfigError(f"`{name}.urls` holds {url!r}, which is no address such as http://10.0.0.2:8000")


def require_stores(config: Config) -> None:
    """Stores that are named are there, and steps that only learn from stores have some."""
    for name in type(config).model_fields:
        section = getattr(config, name)
        for key in ("stores", "logs"):
            for place in getattr(section, key, ()) if isinstance(section, Config) else ():
                _require_store(f"{name}.{key}", str(place))
    offline = getattr(getattr(config, "algorithm", None), "offline_steps", 0)
    for name, replay in sections(config, ReplaySettings):
        if offline and not replay.stores:
            raise ConfigError(
                f"`algorithm.offline_steps={offline}` learn from stored trajectories alone: name some in "
                f"`{name}.stores`"
            )


def _require_store(key: str, text: str) -> None:
    path = Path(text).expanduser()
    if (path / "trajectories").is_dir() and (path / "turns").is_dir():
        return
    inner = path / "trajectories"
    if (inner / "trajectories").is_dir():
        raise ConfigError(f"`{key}` names {text!r}, a run folder; its store is {str(inner)!r}")
    if path.is_dir():
        raise ConfigError(f"`{key}` names {text!r}, which holds no trajectory store (recipes/collect.py writes them)")
    what = "a file, not the folder of a store" if path.exists() else "which does not exist"
    raise ConfigError(f"`{key}` names {text!r}, {what}.{_near_path(path)} recipes/collect.py writes stores.")


def require_components(config: Config) -> None:
    """World and reward are there and take the options that they are given."""
    kinds: tuple[tuple[Kind, type[WorldSettings] | type[RewardSettings]], ...] = (
        ("envs", WorldSettings),
        ("rewards", RewardSettings),
    )
    for component, kind in kinds:
        for name, settings in sections(config, kind):
            if name in type(config).unread:
                continue
            try:
                require(component, settings.name, settings.options)
            except UnknownComponent as error:
                raise UnknownComponent(f"`{name}.name`: {error}") from error
            except ConfigError as error:
                raise ConfigError(f"`{name}.options`: {error}") from error


def require_models(config: Config) -> None:
    """Model folders are there and hold a model; a hub name is looked up where nothing may be fetched anyway."""
    for name, model in (*sections(config, ModelSettings), *sections(config, JudgeModel)):
        _require_model(f"{name}.path", str(getattr(model, "path", "")))
    for name, critic in sections(config, TurnCriticFit):
        if critic.model and f"{name}.model" not in type(config).unread:
            _require_model(f"{name}.model", critic.model)


def _require_model(key: str, text: str) -> None:
    from rollwright.models import base_of, is_adapter, require_embedded, resolve_model

    if text == _TINY:
        return
    path = Path(text).expanduser()
    if path.is_dir() and is_adapter(path):
        _require_model(f"{key} (the model of the adapter in {text})", base_of(path))
    elif path.is_dir():
        _require_model_files(key, path)
    elif text == _EMBEDDED:
        require_embedded()
    elif text.count("/") == 1 and not text.startswith((".", "/", "~")):
        if os.environ.get("HF_HUB_OFFLINE", "0") == "1":
            try:
                resolve_model(text)
            except ModelNotFound as error:
                first = str(error).splitlines()[0][:200]
                raise ModelNotFound(f"`{key}`: {first}{_near_path(path)}") from error
    else:
        raise ModelNotFound(
            f"`{key}` is {text!r}: no model folder is there; expected one with config.json, a hub name such as "
            f"'organisation/model', or {_EMBEDDED!r}.{_near_path(path) or _not_made_yet(path)}"
        )


def _not_made_yet(path: Path) -> str:
    return " An earlier run writes such a folder at its end: start that one first." if path.name == "policy" else ""


def _require_model_files(key: str, path: Path) -> None:
    try:
        description = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if not isinstance(description, dict):
            raise ValueError(f"it holds a {type(description).__name__}")
    except FileNotFoundError as error:
        raise ModelNotFound(
            f"`{key}` is {str(path)!r}, a folder without config.json: expected a Hugging Face model folder, such as "
            "the `policy` of a finished run"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelNotFound(f"`{key}` is {str(path)!r}, whose config.json cannot be read: {error}") from error
    if not any(path.glob("*.safetensors")):
        raise ModelNotFound(f"`{key}` is {str(path)!r}, a folder without weights (*.safetensors)")


def require_context(config: Config) -> None:
    """No engine is asked for longer sequences than the policy has positions, or for ids that it has no row for."""
    from rollwright.models import base_of, embedded_is_there, is_adapter, require_positions, resolve_model, unknown_ids

    if getattr(getattr(config, "collect", None), "by", "policy") != "policy":
        return  # nobody is asked
    for _, model in sections(config, ModelSettings):
        for name, engine in sections(config, EngineSettings):
            if "max_context" not in engine.model_fields_set:
                continue  # the default gives way to the model
            if model.path == _TINY:
                if engine.max_context > model.tiny_context:
                    raise ConfigError(
                        f"`{name}.max_context={engine.max_context}`, but `model.tiny_context={model.tiny_context}` is "
                        "the longest sequence of the policy: raise the second or lower the first"
                    )
                continue
            path = Path(model.path).expanduser()
            if path.is_dir() and is_adapter(path):
                path = Path(base_of(path)).expanduser()
            if path.is_dir() or (str(path) == _EMBEDDED and embedded_is_there()):
                folder = resolve_model(path)
                require_positions(folder, engine.max_context, key=f"{name}.max_context")
                unknown_ids(folder)
                if any(sections(config, LearnerSettings)):
                    _require_sync(name, engine, folder)


def _require_sync(name: str, engine: EngineSettings, folder: Path) -> None:
    """vLLM takes new weights of this model (docs/models.md); it samples from all that it opens."""
    from rollwright.generation import choose_engine
    from rollwright.models import config_of

    kind = config_of(folder).model_type
    if kind in _NOT_SYNCED and choose_engine(engine.name) in ("vllm", "vllm_server"):
        raise ConfigError(
            f"`{name}.name={engine.name}` is vLLM, which does not take over new weights of models of the kind {kind} "
            f"(log-probs are off after the first update): use `{name}.name=transformers`"
        )


def require_room(config: Config) -> None:
    """The first prompt of a text world fits into the context, with an action behind it.

    Only worlds that answer at once are opened for this; others would have to start something (a browser, a game).
    """
    for _, world in sections(config, WorldSettings):
        for key, engine in sections(config, EngineSettings):
            for _, rollout in sections(config, RolloutSettings):
                if world.name.startswith("text.") and _answers_at_once(world):
                    _require_room(config, world, rollout, key, engine.max_context)


def _answers_at_once(settings: WorldSettings) -> bool:
    built = get_type_hints(require("envs", settings.name, settings.options)).get("return")
    return getattr(built, "execution", "") == "inline"


def _require_room(
    config: Config, settings: WorldSettings, rollout: RolloutSettings, key: str, max_context: int
) -> None:
    from rollwright.training.assembly import close_world, open_world

    world = open_world(settings.model_copy(update={"placement": "local"}))
    try:
        lengths = list(_first_prompts(config, world, rollout))
    finally:
        close_world(world)
    shortest = min(lengths, default=None)
    if shortest is not None and shortest + rollout.max_action_tokens > max_context:
        raise ConfigError(
            f"`{key}.max_context={max_context}` is too small: the first prompt of {settings.name} has {shortest} "
            f"tokens, and an action takes up to `rollout.max_action_tokens={rollout.max_action_tokens}`, so that every "
            f"episode would end before its first action. Set at least {shortest + rollout.max_action_tokens}, and more "
            "where later prompts are longer."
        )
    if lengths and (longest := max(lengths)) + rollout.max_action_tokens > max_context:
        log.warning(
            "some first prompts of %s do not fit: one of %d tokens and an action of up to rollout.max_action_tokens=%d "
            "need more than %s.max_context=%d. Such episodes end before their first action and teach nothing",
            *(settings.name, longest, rollout.max_action_tokens, key, max_context),
        )


def _first_prompts(config: Config, world: Any, rollout: RolloutSettings) -> Iterator[int]:
    """Tokens of the first prompts of some tasks; none where the tokenizer or the world cannot be had this way."""
    from rollwright.contracts import as_observation, episode_seed
    from rollwright.training.assembly import context_factory

    codec = _codec_of(config, world)
    env = world.make()
    try:
        for task in list(world.tasks("train"))[:4] if codec is not None else ():
            context = context_factory(rollout, codec, world, context_length=1 << 30)()  # type: ignore[arg-type]
            context.observe(as_observation(env.reset(task, episode_seed("train", "first prompt"))))
            yield len(context.prompt_ids(0))
    except Exception:  # the run will meet it too, where it is counted and retried
        return
    finally:
        env.close()


def _codec_of(config: Config, world: Any) -> Any:
    """Tokenizer and template of the policy, without its weights; None where only its weights' package has them."""
    from rollwright.contracts import SmallLanguage
    from rollwright.models import ChatCodec, embedded_is_there, is_adapter, resolve_model, tiny_tokenizer
    from rollwright.training.assembly import open_codec

    for name, model in sections(config, ModelSettings):
        if model.path == _TINY:
            if not isinstance(world, SmallLanguage):
                raise ConfigError(
                    f"`{name}.path=tiny` needs a world with `texts()`; {world.name} has none: name a model folder"
                )
            return ChatCodec(tiny_tokenizer(list(world.texts())))
        path = Path(model.path).expanduser()
        if (path.is_dir() and not is_adapter(path)) or (model.path == _EMBEDDED and embedded_is_there()):
            return open_codec(resolve_model(model.path))
    return None


def _near(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean `{near[0]}`?" if near else ""


def _near_path(path: Path) -> str:
    """The folder beside it, or beside the first parent that is missing, whose name is the most alike."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    beside = [entry.name for entry in missing.parent.iterdir() if entry.is_dir()] if missing.parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, beside, n=1)
    return f" Did you mean {str(missing.parent / near[0])!r}?" if near else ""
