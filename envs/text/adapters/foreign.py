"""The border to environments that are not ours: what the policy says can be declined there, and is then its slip.

One rule for every adapter. What is sent is text of bounded length that UTF-8 can hold. An answer that means "this is
no action" is the policy's slip (`Declined`): it is told so and has used up a turn. Everything else that goes wrong
there (a connection, a clock, a process) is a fault, which no action may bring about.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rollwright.contracts import ConfigError, whole
from rollwright.envs.text.game import plain

log = logging.getLogger(__name__)
MAX_ACTION = 100_000
"""Characters of an action. JSON spells one with six bytes at most, and servers commonly take messages of 1 MB."""
SLIP = "That is not one of the actions."
# What code raises at a value that it does not know. Files, sockets, memory and time-outs are not among them.
_DECLINES = (ValueError, LookupError, TypeError, AssertionError, ArithmeticError, RecursionError, NotImplementedError)


class Declined(Exception):
    """The other side does not take the action; the message is what the policy is told.

    Args:
        raised: code of the other side raised at it instead of saying so. It may be broken: see `warn_of_raising`.
    """

    def __init__(self, message: str, *, raised: bool = False) -> None:
        super().__init__(message)
        self.raised = raised


def warn_of_raising(name: str, raised: int, actions: int) -> None:
    """Say so where the other side raised at every action of an episode. A fault it must not be: it could be chosen."""
    # At every action: single ones are slips of any policy.
    if raised and raised == actions:
        log.warning(
            "%s raised at each of the %d actions of an episode, which counts as slips of the policy; if right actions "
            "fare the same, the environment behind it is broken",
            name,
            actions,
        )


def sendable(action: str) -> str:
    """The action as every protocol can carry it: half a surrogate pair becomes U+FFFD.

    Raises:
        Declined: it is longer than `MAX_ACTION`.
    """
    # Declined and not cut: half an action could be another action.
    if len(action) > MAX_ACTION:
        raise Declined(f"The action has {len(action)} characters; at most {MAX_ACTION} are taken.")
    return whole(action)


@contextmanager
def may_decline() -> Iterator[None]:
    """Free text is handed to foreign code here: what that raises at a value it does not know is a slip.

    The words of the exception are left out: they may hold an address or a time, and an episode has to repeat itself.

    Raises:
        Declined: in place of such an exception.
    """
    try:
        yield
    except _DECLINES as error:
        raise Declined(f"{SLIP} ({type(error).__name__})", raised=True) from error


def told(message: object) -> str:
    """What a foreign server says about an action, on one line of bounded length."""
    # Foreign words enter the policy's prompt, so they are cut and made printable.
    return plain(whole(str(message)), limit=500)


def named_function(name: str, option: str) -> Callable[..., Any]:
    """The function that a configuration names as `package.module:function`.

    Raises:
        ConfigError: the name is not of that form, or there is no such function.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute) if attribute else None
    # ValueError: an empty module name.
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{option}={name!r} cannot be loaded: {error}. Is its folder on the import path?") from error
    if not callable(found):
        raise ConfigError(f"{option}={name!r} must read `package.module:function` and name a function")
    return found  # type: ignore[no-any-return]
