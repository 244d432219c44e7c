"""Passwords, keys and tokens: found, hidden in all that is shown, refused as settings, which are written down.

A run's settings reach config.yaml, error texts, logs and trackers. A password among them would reach all of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# A password may hold an @ itself: all up to the last one before the path is secret.
_USER = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)(?P<secret>[^\s/?#@]*(?:@[^\s/?#@]*)*)@")
_QUERY = re.compile(
    r"(?P<name>[?&;#](?:[A-Za-z0-9_.-]*[_.-])?(?:key|apikey|token|secret|password|passwd|pwd|auth|sig|signature)=)"
    r"(?P<secret>[^\s&;#'\"]+)",
    re.IGNORECASE,
)

_KEY = re.compile(  # as the services write them that models, trackers and code are fetched from or judged by
    # Twelve characters or more, for `sk-learn` is a word.
    r"\b(?P<kind>Bearer\s+|sk-|hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA)(?P<secret>[A-Za-z0-9_.~+/=-]{12,})"
)
_NAMES: tuple[str, ...] = (
    *("api_key", "apikey", "password", "passwd", "secret", "secret_key", "private_key", "authorization", "cookie"),
    *("access_token", "auth_token", "api_token", "hf_token", "bearer_token"),
)


def redact(text: str) -> str:
    """The text with `***` for the user and password of every URL, the keys and tokens of its query, and known keys."""
    return _KEY.sub(r"\g<kind>***", _QUERY.sub(r"\g<name>***", _USER.sub(r"\g<scheme>***@", text)))


def credentials(value: Any, path: str = "") -> Iterator[str]:
    """The dotted paths of all texts in a nested value that hold a URL with credentials, or are a key or a password.

    A text is one by its own key's name: `api_key`, `password`; or it stands where the name of a variable is asked for.
    """
    if isinstance(value, str):
        # An element of a list goes by the name of the list.
        name = re.sub(r"(\.\d+)+$", "", path).rpartition(".")[2]
        named = _is_secrets(name) or not names_variable(name, value)
        if value and (named or redact(value) != value):
            yield path
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            # A free key can be a URL as well. Its path is in the message, so it is redacted there too.
            if redact(str(name)) != name:
                yield f"{path}.{redact(str(name))}" if path else redact(str(name))
            yield from credentials(entry, f"{path}.{name}" if path else str(name))
    elif isinstance(value, Sequence):
        for place, entry in enumerate(value):
            yield from credentials(entry, f"{path}.{place}")


def _is_secrets(name: str) -> bool:
    """Whether a key of this name holds a secret: `password`, `X-Api-Key`, `db_password`, `token`."""
    plain = name.lower().replace("-", "_")
    # By the whole name alone: keys such as `pad_token` hold no secret.
    return plain == "token" or plain.endswith(_NAMES)


def names_variable(key: str, value: str) -> bool:
    """Whether the value of a key `..._variable` or `..._env` is a variable's name, not the secret itself."""
    wanted = key.endswith(("_variable", "_env")) and bool(value)
    return not wanted or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value) is not None
