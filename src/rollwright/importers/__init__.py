"""Logs and tasks from elsewhere: files in the formats that are about, into a store or a file of tasks, and back.

A format turns rows into records or says why not; nothing of a row is ever evaluated. See docs/bring_your_logs.md.
"""

from __future__ import annotations

import importlib

from rollwright.errors import ConfigError
from rollwright.importers.records import Format

FORMATS = {
    "messages": "rollwright.importers.chat:OPENAI",
    "sharegpt": "rollwright.importers.chat:SHAREGPT_FORMAT",
    "lmrl-gym": "rollwright.importers.lmrl_gym:LMRL_GYM",
    "gymnasium": "rollwright.importers.env_logs:GYMNASIUM",
    "openenv": "rollwright.importers.env_logs:OPENENV",
    "aitw": "rollwright.envs.device.logs:AITW",
    "android-control": "rollwright.envs.device.logs:ANDROID_CONTROL",
    "mbpp": "rollwright.importers.code_tasks:MBPP",
    "humaneval": "rollwright.importers.code_tasks:HUMANEVAL",
    "swe-bench": "rollwright.importers.repair_tasks:SWE_BENCH",
}
"""Name of each format -> where its `Format` stands; looked up, so that only the one that is used is loaded."""


def load_format(name: str) -> Format:
    """The format of that name, or somebody's own, named `package.module:Attribute`.

    Raises:
        ConfigError: there is none.
    """
    module, sign, attribute = FORMATS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if sign else None
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the format {name!r} cannot be loaded: {error}") from error
    if not isinstance(found, Format):
        raise ConfigError(f"there is no format {name!r}; known are {', '.join(FORMATS)}, or package.module:Attribute")
    return found
