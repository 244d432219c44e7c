"""Untrusted programs in a box: bubblewrap namespaces, a seccomp filter, limits; warm for tests, cold for commands.

`BoxPool` lends warm boxes to worlds, `WarmBox` and `ColdBox` are single ones, `call_trusted` and `rules.rule` call
code of ours on foreign text. `zygote.py`, `guest.py`, `plain.py` and `remote.py` run inside the box and import each
other and the standard library only. Imports nothing else of `rollwright.envs`; rewards may use it too.
"""

from rollwright.envs.code.sandbox.box import is_available, unavailable_reason
from rollwright.envs.code.sandbox.cold import ColdBox, CommandResult
from rollwright.envs.code.sandbox.limits import Limits, Outcome
from rollwright.envs.code.sandbox.packages import pytest_packages
from rollwright.envs.code.sandbox.plain import NotPlain
from rollwright.envs.code.sandbox.pool import BoxPool
from rollwright.envs.code.sandbox.session import BoxLost, Ended, Session
from rollwright.envs.code.sandbox.trusted import Called, call_trusted
from rollwright.envs.code.sandbox.warm import WarmBox

__all__ = [
    "BoxLost",
    "BoxPool",
    "Called",
    "ColdBox",
    "CommandResult",
    "Ended",
    "Limits",
    "NotPlain",
    "Outcome",
    "Session",
    "WarmBox",
    "call_trusted",
    "is_available",
    "pytest_packages",
    "unavailable_reason",
]
