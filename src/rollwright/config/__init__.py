"""Strict configuration: frozen pydantic models, YAML files and `key=value`, and errors that name the nearest key.

A recipe declares its keys as a `Config` and calls `load_config(ItsConfig, sys.argv[1:])`. Every key has a type, a
default and a meaning; a key that does not exist, or that the chosen method would not read, is an error before any
weight is loaded.
"""

from rollwright.config.help import help_text
from rollwright.config.limits import Limits
from rollwright.config.load import build, dump, load_config, same_settings
from rollwright.config.model import Config, Presets, Readers, Unread, all_keys, keys_without_effect
from rollwright.config.secrets import credentials, redact

__all__ = [
    "Config",
    "Limits",
    "Presets",
    "Readers",
    "Unread",
    "all_keys",
    "build",
    "credentials",
    "dump",
    "help_text",
    "keys_without_effect",
    "load_config",
    "redact",
    "same_settings",
]
