"""From a name in the configuration to the function that builds the thing. The folder is the registry.

`web.miniwob` of kind `envs` is the function `build` of the module `rollwright.envs.web.miniwob`; somebody else's
package is named `package.module:Attribute`. Nothing is registered by being imported, so nothing can be overwritten.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from rollwright.config.help import type_text
from rollwright.config.limits import counts_truth
from rollwright.config.named_parts import is_own
from rollwright.contracts import ConfigError, RollwrightError, UnknownComponent

Kind = Literal["envs", "rewards"]
_SINGULAR: dict[Kind, str] = {"envs": "environment", "rewards": "reward"}
_ENGINE_PACKAGE = {"vllm": "vllm", "vllm_server": "vllm", "transformers": "transformers"}
# Searched in the text of a module, since importing it could need packages that are not installed.
_DEFINES_BUILD = re.compile(r"^(def build\b|build\b\s*[:=])", re.MULTILINE)


def available(kind: Kind) -> list[str]:
    """The names of all components that ship with the package, such as `web.miniwob`, sorted.

    Modules are looked at, not imported: a component whose optional packages are missing is listed all the same.
    """
    package = importlib.import_module(f"rollwright.{kind}")
    # Two levels, as `web.miniwob`: what lies deeper belongs to one component.
    return sorted(_names(package.__path__, depth=2))


def engine_note(name: str) -> str:
    """What a machine lacks for an engine: "" where nothing, or where the name leaves the choice to the machine."""
    package = _ENGINE_PACKAGE.get(name)
    if package is None or importlib.util.find_spec(package) is not None:
        return ""
    # Servers that run elsewhere are spoken to by HTTP: only starting one needs the package here.
    return f"{package} is not installed" + (": only with engine.urls" if name == "vllm_server" else "")


def load(kind: Kind, name: str) -> Callable[..., Any]:
    """The function (or class) that builds the named component.

    Raises:
        UnknownComponent: no such module or attribute; the message lists what there is.
        MissingDependency: from the module itself, where an optional package is not installed.
    """
    if is_own(name):
        return foreign(_SINGULAR[kind], name)
    # A helper module could be imported as well, but without `build` it is no component.
    if name not in available(kind):
        raise UnknownComponent(_no_such(kind, name))
    build: Callable[..., Any] = importlib.import_module(f"rollwright.{kind}.{name}").build
    return build


def require(kind: Kind, name: str, options: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """The builder of the named component, which takes these options; nothing is built.

    Raises:
        UnknownComponent, MissingDependency: as `load`.
        ConfigError: an option is unknown, missing, or not of the kind that the builder's signature declares; or the
            module of somebody else's component cannot be imported.
    """
    try:
        build = load(kind, name)
    # UnknownComponent and MissingDependency already say what to do.
    except RollwrightError:
        raise
    except Exception as error:
        raise import_failure(_SINGULAR[kind], name, error) from error
    check_options(f"{_SINGULAR[kind]} `{name}`", build, options or {})
    return build


def create(kind: Kind, name: str, options: Mapping[str, Any] | None = None) -> Any:
    """Build the named component with `options` as its keyword arguments.

    Raises:
        UnknownComponent: as `load`.
        ConfigError: an option that the builder does not take, or one that it needs and was not given; or a builder of
            the user's own failed, in whatever way.
    """
    build = load(kind, name)
    options = dict(options or {})
    _check_names(f"{_SINGULAR[kind]} `{name}`", build, options)
    try:
        return build(**options)
    except RollwrightError:
        raise
    # SystemExit too: a builder may parse arguments with argparse, which leaves the process.
    except (Exception, SystemExit) as error:
        # One of ours should not fail like this: its traceback has to show.
        if not is_own(name):
            raise
        raise ConfigError(
            f"{_SINGULAR[kind]} `{name}` cannot be built: {_said(error)}. Its own code says so; ROLLWRIGHT_DEBUG=1 "
            "shows where."
        ) from error


def _names(path: Any, depth: int, prefix: str = "") -> Iterator[str]:
    for module in pkgutil.iter_modules(path):
        if module.name.startswith("_"):
            continue
        spec = module.module_finder.find_spec(module.name, None)
        if spec is None or spec.origin is None:
            continue
        if _DEFINES_BUILD.search(Path(spec.origin).read_text(encoding="utf-8")):
            yield f"{prefix}{module.name}"
        if module.ispkg and depth > 1:
            yield from _names(spec.submodule_search_locations, depth - 1, f"{prefix}{module.name}.")


def _no_such(kind: Kind, name: str) -> str:
    names = available(kind)
    # The last part counts too: `miniwob` should find `web.miniwob`.
    by_last = {known.rpartition(".")[2]: known for known in names}
    near = difflib.get_close_matches(name, names, n=1) or [
        by_last[last] for last in difflib.get_close_matches(name.rpartition(".")[2], list(by_last), n=1)
    ]
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return (
        f"no {_SINGULAR[kind]} named `{name}`.{hint} Available: {', '.join(names) or 'none'}; "
        "your own is named `package.module:Attribute`."
    )


def foreign(what: str, name: str) -> Callable[..., Any]:
    """What a user's own name, `package.module:Attribute`, stands for.

    Args:
        what: what it is to be, in messages: "environment".

    Raises:
        UnknownComponent: there is no such module, or no such callable in it. Whatever else the module raises.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = _own_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise  # the module was found; what it imports was not
        raise UnknownComponent(
            f"{what} `{name}`: there is no module `{error.name}` on the import path. "
            f"Install its package, or start in the folder that holds it; this is {Path.cwd()}."
        ) from error
    except SystemExit as error:  # a script that was meant to be run, not imported
        raise import_failure(what, name, error) from error
    except ValueError as error:
        raise UnknownComponent(f"{what} `{name}` must read `package.module:Attribute`.") from error
    found = vars(module).get(attribute)
    if not callable(found):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=1)
        hint = f" Did you mean `{module_name}:{near[0]}`?" if near else ""
        raise UnknownComponent(f"{what} `{name}`: module `{module_name}` has no callable `{attribute}`.{hint}")
    return found  # type: ignore[no-any-return]


def _own_module(name: str) -> ModuleType:
    """A module of the user's own: installed, on PYTHONPATH, or in the folder where the command was started.

    That folder is looked at last, and only for a module that it holds: no file in it can stand in for another module.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        here = Path.cwd()
        # Another name means that the module was found and something that it imports is missing.
        if error.name != top or not ((here / f"{top}.py").is_file() or (here / top).is_dir()):
            raise
        # At the end, so that a `random.py` in this folder does not hide the module of that name.
        sys.path.append(str(here))
        return importlib.import_module(name)


def _said(error: BaseException) -> str:
    """Kind and text of a foreign error, in one line."""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def import_failure(what: str, name: str, error: BaseException) -> ConfigError:
    """The error for a module of the user's own that raised while it was imported; it may fail in any way."""
    return ConfigError(
        f"{what} `{name}` cannot be imported: {_said(error)}. Its module says so, not the settings; "
        "ROLLWRIGHT_DEBUG=1 shows where."
    )


def check_options(
    what: str, build: Callable[..., Any], options: Mapping[str, Any], *, given: tuple[str, ...] = ()
) -> None:
    """Hold options against the signature of what takes them: their names, and the plain types of its annotations.

    Args:
        given: arguments that are passed besides, and are no options.

    Raises:
        ConfigError: an option is unknown (the nearest is named), missing, or of another type.
    """
    _check_names(what, build, options, given)
    _check_types(what, build, options)


def takes_of(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The arguments that can be passed to a builder by name."""
    # Of a class it is the signature of `__init__` without `self`.
    parameters = inspect.signature(build).parameters
    return {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _check_names(what: str, build: Callable[..., Any], options: Mapping[str, Any], given: tuple[str, ...] = ()) -> None:
    """Compare `options` with the builder's signature, so that a misspelt one is named before anything starts."""
    parameters = inspect.signature(build).parameters
    takes = [name for name in takes_of(build) if name not in given]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in options:
        if name not in takes and not takes_any:
            near = difflib.get_close_matches(name, takes, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"{what} takes no option `{name}`.{hint} Options: {', '.join(takes) or 'none'}.")
    missing = [name for name in takes if parameters[name].default is inspect.Parameter.empty and name not in options]
    if missing:
        raise ConfigError(f"{what} needs the option{'s' if len(missing) > 1 else ''} {', '.join(missing)}.")


def _check_types(what: str, build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Hold each option against its annotation, where that is one of plain data."""
    try:
        # Of a class itself `get_type_hints` tells the attributes, not the arguments.
        made = build.__init__ if inspect.isclass(build) else build  # type: ignore[misc]
        hints = get_type_hints(made, include_extras=True)  # bounds too: Annotated[float, Field(gt=0)]
    except Exception:  # names that only a type checker can look up
        return
    for name, value in options.items():
        try:
            adapter = TypeAdapter(hints[name]) if name in hints else None
        except PydanticUserError:
            continue  # a type of the builder's own
        # The value goes on as it was given: the builder converts it, or does not.
        if adapter is not None and (counts_truth(value, hints[name]) or not _fits(adapter, value)):
            expected = type_text(FieldInfo.from_annotation(hints[name]))
            # The words of a Literal are written with this sign between them (`type_text`).
            near = difflib.get_close_matches(str(value), expected.split(" | "), n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"{what}: the option `{name}` must be {expected}, got {value!r}.{hint}")


def _fits(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True
