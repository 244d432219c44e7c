"""Strict configuration: frozen pydantic models, YAML files and `key=value`, and errors that name the nearest key.

A recipe declares its keys as a `Config` and calls `load_config(ItsConfig, sys.argv[1:])`. Every key has a type, a
default and a meaning; a key that does not exist, or that the chosen method would not read, is an error before any
weight is loaded.
Lives here: the schema and its sources (`schema`, `layers`, `yaml_file`, `resolve`, `help`), what a value may be
(`limits`, `references`, `secrets`), the sections that several rooms read (`settings`), parts that are named in a
configuration (`components`), methods that set keys (`presets`), and the environment of a launch (`launch_env`,
`loopback`).
May import: contracts. No torch: its thread pools read the environment once, and `prepare_environment` comes first.
"""

from rollwright.config.components import Kind, available, create, engine_note, load, require
from rollwright.config.help import help_text
from rollwright.config.launch_env import has_gpu, prepare_environment, usable_cores
from rollwright.config.limits import Limits
from rollwright.config.plan import memory_text, method_of, plan_text
from rollwright.config.presets import METHODS, MethodChoice, method_name
from rollwright.config.resolve import build, dump, load_config, same_settings
from rollwright.config.schema import Config, Presets, Readers, Unread, all_keys, keys_without_effect, section_of
from rollwright.config.secrets import credentials, redact
from rollwright.config.settings import (
    NO_GROUPS,
    ONE_EVALUATION,
    OWN_UPDATES,
    CurriculumSettings,
    EngineName,
    EngineSettings,
    EvaluationSettings,
    LearnerSettings,
    LoopConfig,
    ModelSettings,
    OnlineReplaySettings,
    PolicyLoopConfig,
    PolicyLossSettings,
    ReplaySettings,
    RewardSettings,
    RolloutSettings,
    RunSettings,
    StartSettings,
    TokenCriticFit,
    TurnCriticFit,
    WorldSettings,
)

__all__ = [
    "METHODS",
    "NO_GROUPS",
    "ONE_EVALUATION",
    "OWN_UPDATES",
    "Config",
    "CurriculumSettings",
    "EngineName",
    "EngineSettings",
    "EvaluationSettings",
    "Kind",
    "LearnerSettings",
    "Limits",
    "LoopConfig",
    "MethodChoice",
    "ModelSettings",
    "OnlineReplaySettings",
    "PolicyLoopConfig",
    "PolicyLossSettings",
    "Presets",
    "Readers",
    "ReplaySettings",
    "RewardSettings",
    "RolloutSettings",
    "RunSettings",
    "StartSettings",
    "TokenCriticFit",
    "TurnCriticFit",
    "Unread",
    "WorldSettings",
    "all_keys",
    "available",
    "build",
    "create",
    "credentials",
    "dump",
    "engine_note",
    "has_gpu",
    "help_text",
    "keys_without_effect",
    "load",
    "load_config",
    "memory_text",
    "method_name",
    "method_of",
    "plan_text",
    "prepare_environment",
    "redact",
    "require",
    "same_settings",
    "section_of",
    "usable_cores",
]
