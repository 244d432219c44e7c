"""Strict configuration: frozen pydantic models, YAML files and `key=value`, and errors that name the nearest key.

A recipe declares its keys as a `Config` and calls `load_config(ItsConfig, sys.argv[1:])`. Every key has a type, a
default and a meaning; a key that does not exist, or that the chosen method would not read, is an error before any
weight is loaded.
Lives here: the schema and its sources (`schema`, `layers`, `yaml_file`, `resolve`, `unknown_keys`, `help`), what a
value may be (`limits`, `references`, `secrets`), worlds and rewards by name (`components`), all other parts that a key
names (`named_parts`, `part_builder`), the environment of a launch (`launch_env`, `loopback`) and how much other
libraries print (`library_noise`). The section of a room lives in that room; `training/loop_config.py` joins them.
May import: contracts. No torch: its thread pools read the environment once, and `prepare_environment` comes first.
"""

from rollwright.config.components import Kind, available, create, engine_note, load, require
from rollwright.config.help import help_text
from rollwright.config.launch_env import has_gpu, prepare_environment, usable_cores
from rollwright.config.library_noise import DEBUG, VERBOSE_WORDS, noise_variables, wants_everything
from rollwright.config.limits import Limits
from rollwright.config.named_parts import OWN, Parts, is_own
from rollwright.config.part_builder import (
    build_part,
    load_part,
    make_own_part,
    make_part,
    require_contract,
    require_own_parts,
)
from rollwright.config.resolve import build, dump, load_config, same_settings
from rollwright.config.schema import (
    Config,
    Presets,
    Readers,
    Unread,
    all_keys,
    keys_without_effect,
    section_of,
    sections,
)
from rollwright.config.secrets import credentials, redact

__all__ = [
    "DEBUG",
    "OWN",
    "VERBOSE_WORDS",
    "Config",
    "Kind",
    "Limits",
    "Parts",
    "Presets",
    "Readers",
    "Unread",
    "all_keys",
    "available",
    "build",
    "build_part",
    "create",
    "credentials",
    "dump",
    "engine_note",
    "has_gpu",
    "help_text",
    "is_own",
    "keys_without_effect",
    "load",
    "load_config",
    "load_part",
    "make_own_part",
    "make_part",
    "noise_variables",
    "prepare_environment",
    "redact",
    "require",
    "require_contract",
    "require_own_parts",
    "same_settings",
    "section_of",
    "sections",
    "usable_cores",
    "wants_everything",
]
