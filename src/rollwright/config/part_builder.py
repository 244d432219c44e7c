"""From a key that names a part to the part: looked up, its options checked, made, and held against its contract."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from rollwright.config.components import check_options, foreign, import_failure, takes_of
from rollwright.config.help import type_text
from rollwright.config.named_parts import OWN, Parts, is_own, keys_of_parts, parts_in
from rollwright.config.schema import Config, section_of
from rollwright.contracts import ConfigError, RollwrightError, UnknownComponent


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPart:
    """A key of a configuration that names a part, with what the part is to be made of."""

    path: str
    """Dotted path of the key, such as `algorithm.advantage`."""
    parts: Parts
    name: str
    options: Mapping[str, Any]
    """Of a user's own part."""

    @property
    def said(self) -> str:
        """How messages call it."""
        return f"{self.parts.what} `{self.name}`"

    @property
    def options_path(self) -> str:
        """Dotted path of the section with the options."""
        return ".".join((*self.path.split(".")[:-1], self.parts.options))


def load_part(parts: Parts, name: str) -> Callable[..., Any]:
    """What makes the named part.

    Raises:
        UnknownComponent: none of ours, or one of a user's own whose module or attribute is not there.
        ConfigError: its module cannot be imported.
    """
    if not is_own(name):
        if name not in parts.ours:
            raise UnknownComponent(_no_such(parts, name))
        # Imported only now: the module of a part may load torch.
        module, _, attribute = parts.ours[name].partition(":")
        build: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return build
    try:
        return foreign(parts.what, name)
    # Such an error already says what to do.
    except RollwrightError:
        raise
    except Exception as error:
        raise import_failure(parts.what, name, error) from error


def _no_such(parts: Parts, name: object) -> str:
    near = difflib.get_close_matches(str(name), parts.ours, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return f"no {parts.what} named `{name}`.{hint} There are {', '.join(parts.ours)}, and your own as `{OWN}`."


def named_parts(config: Config, prefix: str = "") -> Iterator[NamedPart]:
    """Every key of a configuration that names a part, sections opened; those that are not read are left out."""
    for name, parts in keys_of_parts(type(config).model_fields):
        options = getattr(config, parts.options, {})
        yield NamedPart(path=f"{prefix}{name}", parts=parts, name=getattr(config, name), options=options)
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, Config) and name not in type(config).unread:
            yield from named_parts(section, f"{prefix}{name}.")


def require_own_parts(config: Config) -> None:
    """Every part of the user's own is there, takes its options, and keeps its contract as far as a look can tell.

    Parts that need nothing of a run are made and tried; of the others the class is looked at.

    Raises:
        UnknownComponent, ConfigError: with the key that named it.
    """
    for named in named_parts(config):
        if not is_own(named.name):
            continue
        try:
            build = load_part(named.parts, named.name)
        except UnknownComponent as error:
            raise UnknownComponent(f"`{named.path}`: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"`{named.path}`: {error}") from error
        try:
            # Before it is made, so that a misspelt option is not taken for a fault of the user's code.
            check_options(named.said, build, named.options, given=named.parts.given)
        except ConfigError as error:
            raise ConfigError(f"`{named.options_path}`: {error}") from error
        # What a run has to give (tasks, a model folder) is not there yet.
        if not named.parts.given:
            _make_own(named, build, {})
        elif inspect.isclass(build):
            require_contract(named.path, named.said, build, named.parts.contract)


def build_part(section: Config, key: str, **given: Any) -> Any:
    """The part that a key of a section names. Ours is made of the section's keys, a user's own of its options.

    Args:
        given: what the run passes to parts whose signature names it.

    Raises:
        ConfigError: a user's own part raised while it was made, or what it made breaks its contract.
    """
    parts = parts_in(type(section).model_fields[key])
    assert parts is not None, f"`{key}` names no part"
    name = getattr(section, key)
    if is_own(name):
        return make_own_part(parts, key, name, getattr(section, parts.options), given)
    keys = {option: getattr(section, option) for option in type(section).model_fields}
    # What the run gives wins over a key of the same name.
    return make_part(parts, name, keys | given)


def make_part(parts: Parts, name: str, words: Mapping[str, Any]) -> Any:
    """One of our parts, made with those of the words that its signature names."""
    build = load_part(parts, name)
    # A word that its signature names and nobody has keeps the signature's default.
    return build(**{word: words[word] for word in takes_of(build) if word in words})


def make_own_part(parts: Parts, path: str, name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """A part of the user's own, made with its options and with what the run passes to those that name it.

    Args:
        path: the key that named it, for messages.

    Raises:
        UnknownComponent: it is not there. ConfigError: it raised while it was made, or breaks its contract.
    """
    named = NamedPart(path=path, parts=parts, name=name, options=options)
    return _make_own(named, load_part(parts, name), given)


def _make_own(named: NamedPart, build: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    takes = takes_of(build)
    try:
        made = build(**{word: value for word, value in given.items() if word in takes}, **named.options)
    except RollwrightError:
        raise
    except Exception as error:
        raise ConfigError(f"`{named.path}`: {named.said} cannot be made: {type(error).__name__}: {error}") from error
    require_contract(named.path, named.said, made, named.parts.contract)
    if named.parts.trial:
        # Named as text and imported here: trials compute with torch.
        module, _, function = named.parts.trial.partition(":")
        try:
            getattr(importlib.import_module(module), function)(made)
        except Exception as error:  # a stranger's code may fail in any way
            # A trial says by a ValueError what it found wrong; of any other error the kind helps as well.
            said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ConfigError(
                f"`{named.path}`: {named.said} breaks its contract (docs/extending.md) on a small example: {said}"
            ) from error
    return made


def require_contract(path: str, said: str, made: object, contract: Sequence[str]) -> None:
    """An object, or what a class will make, has the methods of its contract.

    Args:
        path, said: the key that named it, and how messages call it.

    Raises:
        ConfigError: one is missing.
    """
    missing = [method for method in contract if not _has(made, method)]
    if missing:
        lacks = "cannot be called" if missing == ["__call__"] else f"has no {', '.join(f'`{m}`' for m in missing)}"
        raise ConfigError(
            f"`{path}`: {said} breaks its contract (docs/extending.md): the object that it gives {lacks}."
        )


def _has(made: object, method: str) -> bool:
    # `callable` and `getattr` would answer for the class: each can be called, by its metaclass.
    if inspect.isclass(made):
        return any(method in vars(base) for base in made.__mro__)
    return callable(made) if method == "__call__" else callable(getattr(made, method, None))


def own_parts_text(config: Config) -> str:
    """One line per part of the user's own, with all of its options as they will be; empty where there is none."""
    lines = []
    for named in named_parts(config):
        if is_own(named.name):
            takes = _options_of(named.parts, load_part(named.parts, named.name))
            values = {name: named.options.get(name, p.default) for name, p in takes.items()} | dict(named.options)
            words = ", ".join(f"{name}={value!r}" for name, value in values.items())
            lines.append(f"{named.path}: {named.name}({words})")
    return "\n".join(lines)


def own_parts_help(cls: type[Config], values: Mapping[str, Any], prefix: str = "") -> str:
    """The help of the parts of the user's own that settings name: what each is, and its options.

    Args:
        values: the settings as far as they are there, not checked.
    """
    pieces = [
        _help_of(parts, str(values[name]), f"{prefix}{parts.options}")
        for name, parts in keys_of_parts(cls.model_fields)
        if is_own(values.get(name))
    ]
    for name, field in cls.model_fields.items():
        # The settings are not checked yet, so a section may be any value, or not be there.
        section, below = section_of(field.annotation), values.get(name)
        if section is not None and isinstance(below, Mapping):
            pieces.append(own_parts_help(section, below, f"{prefix}{name}."))
    return "".join(pieces)


def _help_of(parts: Parts, name: str, path: str) -> str:
    build = load_part(parts, name)
    doc = " ".join((inspect.getdoc(build) or "").split("\n\n")[0].split())
    lines = [f"\n{path}: of {parts.what} {name}. {doc}".rstrip()]
    for option, parameter in _options_of(parts, build).items():
        default = "REQUIRED" if parameter.default is parameter.empty else parameter.default
        lines.append(f"  {path}.{option} = {default}   ({_type_of(parameter)})")
    return "\n".join(lines) + "\n"


def _type_of(parameter: inspect.Parameter) -> str:
    kind = parameter.annotation
    if kind is parameter.empty:
        return "anything"
    # `from __future__ import annotations` leaves types as text.
    return kind if isinstance(kind, str) else type_text(FieldInfo.from_annotation(kind))


def _options_of(parts: Parts, build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in takes_of(build).items() if name not in parts.given}
