"""Models, tokens and room for prompts, as far as they can be checked before a weight is loaded."""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from rollwright.config import Config, require, sections
from rollwright.contracts import ConfigError, ModelNotFound, SmallLanguage, as_observation, episode_seed
from rollwright.critics import TurnCriticFit
from rollwright.generation import EngineSettings, choose_engine
from rollwright.learner import LearnerSettings
from rollwright.methods import JudgeModel
from rollwright.models import (
    ChatCodec,
    ModelSettings,
    base_of,
    config_of,
    embedded_is_there,
    is_adapter,
    open_codec,
    require_embedded,
    require_positions,
    resolve_model,
    tiny_tokenizer,
    unknown_ids,
)
from rollwright.rollout import ActorSettings, RolloutSettings, context_factory
from rollwright.training.open_world import WorldSettings, close_world, open_world

log = logging.getLogger(__name__)
_NOT_SYNCED = ("gpt2",)
"""Kinds of models whose log-probs in vLLM were wrong after an update of their weights (scripts/write_models.py)."""
_TINY, _EMBEDDED = "tiny", "smollm2"


def require_models(config: Config) -> None:
    """Model folders are there and hold a model; a hub name is looked up where nothing may be fetched anyway."""
    for name, model in (*sections(config, ModelSettings), *sections(config, JudgeModel)):
        _require_model(f"{name}.path", str(getattr(model, "path", "")))
    for name, actor in sections(config, ActorSettings):
        if actor.guide == "model":
            _require_model(f"{name}.model", actor.model)
    for name, critic in sections(config, TurnCriticFit):
        if critic.model and f"{name}.model" not in type(config).unread:
            _require_model(f"{name}.model", critic.model)


def _require_model(key: str, text: str) -> None:
    if text == _TINY:
        return
    path = Path(text).expanduser()
    if path.is_dir() and is_adapter(path):
        # The base is held to the same rules, under a key that tells where its name was found.
        _require_model(f"{key} (the model of the adapter in {text})", base_of(path))
    elif path.is_dir():
        _require_model_files(key, path)
    elif text == _EMBEDDED:
        require_embedded()
    # A hub name can still be downloaded when the run begins, unless the hub is not to be asked.
    elif text.count("/") == 1 and not text.startswith((".", "/", "~")):
        if os.environ.get("HF_HUB_OFFLINE", "0") == "1":
            try:
                resolve_model(text)
            except ModelNotFound as error:
                first = str(error).splitlines()[0][:200]
                raise ModelNotFound(f"`{key}`: {first}{near_path(path)}") from error
    else:
        raise ModelNotFound(
            f"`{key}` is {text!r}: no model folder is there; expected one with config.json, a hub name such as "
            f"'organisation/model', or {_EMBEDDED!r}.{near_path(path) or _not_made_yet(path)}"
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
            # An adapter has the positions of its base model, whose folder is another one.
            if path.is_dir() and is_adapter(path):
                path = Path(base_of(path)).expanduser()
            if path.is_dir() or (str(path) == _EMBEDDED and embedded_is_there()):
                folder = resolve_model(path)
                require_positions(folder, engine.max_context, key=f"{name}.max_context")
                unknown_ids(folder)
                # Without a learner no new weights come, and sampling alone works.
                if any(sections(config, LearnerSettings)):
                    _require_sync(name, engine, folder)


def _require_sync(name: str, engine: EngineSettings, folder: Path) -> None:
    """vLLM takes new weights of this model (docs/models.md); it samples from all that it opens."""
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
    # The annotation of `build` tells what it makes, so nothing has to be made to know it.
    built = get_type_hints(require("envs", settings.name, settings.options)).get("return")
    return getattr(built, "execution", "") == "inline"


def _require_room(
    config: Config, settings: WorldSettings, rollout: RolloutSettings, key: str, max_context: int
) -> None:
    # Nobody starts a Ray cluster to look at a few prompts.
    world = open_world(settings.model_copy(update={"placement": "local"}))
    try:
        lengths = list(_first_prompts(config, world, rollout))
    finally:
        close_world(world)
    # The run is without hope only if not even the shortest one fits.
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
    codec = _codec_of(config, world)
    env = world.make()
    try:
        # A few tasks are enough for a look; `Lessons` watches the run itself.
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
    # An adapter, or a hub name that is not on this disk yet: no tokens can be counted.
    return None


def near_path(path: Path) -> str:
    """The folder beside it, or beside the first parent that is missing, whose name is the most alike."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    beside = [entry.name for entry in missing.parent.iterdir() if entry.is_dir()] if missing.parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, beside, n=1)
    return f" Did you mean {str(missing.parent / near[0])!r}?" if near else ""
