"""Build a configuration, or say exactly what is wrong with it."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rollwright.config.help import help_text, type_text
from rollwright.config.layers import Layers, add_file, read_words
from rollwright.config.part_builder import own_parts_help, own_parts_text
from rollwright.config.schema import Config, field_at, keys_without_effect
from rollwright.config.secrets import credentials, redact
from rollwright.config.unknown_keys import section_at, source_of, unknown_keys
from rollwright.contracts import ConfigError

ConfigT = TypeVar("ConfigT", bound=Config)


def load_config(
    cls: type[ConfigT],
    argv: Sequence[str],
    *,
    default: Path | None = None,
    plan: Callable[[ConfigT], str] | None = None,
    check: Callable[[ConfigT], None] | None = None,
) -> ConfigT:
    """The configuration that a command line asks for. Later words win over earlier ones.

    Args:
        argv: YAML files, `key.sub=value`, `~key` (forget what an earlier file set), `--help`, `--plan`.
        default: YAML file to start from where `argv` names none.
        plan: what `--plan` prints above the resolved configuration, such as the batch arithmetic.
        check: called with the finished configuration, before `--plan` prints; raises where it cannot work.

    Raises:
        ConfigError: with every problem found, each with its dotted key, the value, and what would be right.
        SystemExit: code 0, after `--help` or `--plan` has printed.
    """
    words = [word for word in argv if word not in ("-h", "--help", "--plan")]
    # Before any word is read, since a wrong one must not stand in the way of the help.
    if len(set(argv) & {"-h", "--help"}) > 0:
        _print_once(help_text(cls) + _own_help(cls, words))
        raise SystemExit(0)
    # An override may end in .yaml too: `data.path=x.yaml` names no file of settings.
    if default is not None and not any(Path(word).suffix in (".yaml", ".yml") and "=" not in word for word in words):
        # First, so that every word wins over it.
        words.insert(0, str(default))
    layers = read_words(cls, words)
    config = _validate(cls, layers.resolved(), layers.set_by)
    if check is not None:
        check(config)
    if "--plan" in argv:
        _print_once("\n".join(filter(None, (plan(config) if plan else "", own_parts_text(config), dump(config)))))
        raise SystemExit(0)
    return config


def _own_help(cls: type[Config], words: Sequence[str]) -> str:
    """What the help says besides of parts of the user's own that the words name."""
    try:
        return own_parts_help(cls, read_words(cls, words).resolved())
    except ConfigError:  # a mistake in the words is no reason to withhold the help: it may be why somebody asks
        return ""


def build(cls: type[ConfigT], values: Mapping[str, Any] | Path) -> ConfigT:
    """The configuration that a mapping or one YAML file describes.

    Raises:
        ConfigError: as `load_config`.
    """
    layers = Layers(cls=cls)
    if isinstance(values, Path):
        add_file(layers, values)
    else:
        layers.add(values, "")
    return _validate(cls, layers.resolved(), layers.set_by)


def dump(config: Config) -> str:
    """The whole configuration as YAML, defaults included; `build` reads it back to an equal one.

    Keys that the chosen method does not read are left out: written down, they would be an error.
    """
    return OmegaConf.to_yaml(OmegaConf.create(_effective(config)))


def same_settings(config: Config, file: Path) -> bool:
    """Whether a YAML file asks for these settings.

    Keys that an earlier version did not write have their defaults; those that it wrote though nothing ever read them do
    not count.
    """
    cls, layers = type(config), Layers(cls=type(config))
    try:
        add_file(layers, file)
        values = layers.resolved()
        # Set, such a key would be an error now, though it never had an effect.
        for path in cls.unread:
            _forget(values, path)
        # Compared as they are dumped: a key that the method does not read may differ.
        return dump(_validate(cls, values, layers.set_by)) == dump(config)
    except ConfigError:
        return False


def _forget(values: dict[str, Any], path: str) -> None:
    head, _, rest = path.partition(".")
    if not rest:
        values.pop(head, None)
    elif isinstance(values.get(head), dict):
        _forget(values[head], rest)


def _effective(config: Config, idle: frozenset[str] = frozenset()) -> dict[str, Any]:
    idle |= {key for key, *_ in keys_without_effect(config)}
    # Paths and tuples become plain data, which OmegaConf can write.
    plain = config.model_dump(mode="json")
    kept: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            below = frozenset(path.removeprefix(f"{name}.") for path in idle if path.startswith(f"{name}."))
            # By itself, for it knows which of its own keys are idle, and `plain` does not.
            kept[name] = _effective(value, below)
        elif name not in idle:
            kept[name] = plain[name]
    # A whole section can be idle.
    return {name: value for name, value in kept.items() if name not in idle}


def _validate(cls: type[ConfigT], values: dict[str, Any], set_by: Mapping[str, str]) -> ConfigT:
    try:
        config = cls.model_validate(values)
        _refuse(_credentials_told(config, set_by))
        return config
    except ValidationError as error:
        details = error.errors()
    # Told together by section, with one list of the keys there; all other findings stand for themselves.
    unknown = [".".join(map(str, detail["loc"])) for detail in details if detail["type"] == "extra_forbidden"]
    problems = [text for d in details if d["type"] != "extra_forbidden" for text in _explain(cls, d, set_by)]
    _refuse([*unknown_keys(cls, unknown, set_by), *problems])
    raise AssertionError("pydantic found a mistake and named none")


def _refuse(problems: Sequence[str]) -> None:
    """Raises ConfigError where there are any; passwords in URLs are not repeated."""
    if problems:
        text = problems[0] if len(problems) == 1 else "\n".join((f"{len(problems)} problems:", *problems))
        raise ConfigError(redact(text))


def _credentials_told(config: Config, set_by: Mapping[str, str]) -> list[str]:
    return [
        f"{_from(set_by, path)}`{path}` holds a password, key or token. Settings are written into "
        "config.yaml, logs and trackers, so none may be in them: give the name of an environment variable where "
        "there is a key for it (`key_variable`, `key_env`); else name the URL without it, and reach the server through "
        "a tunnel or a local proxy that adds it."
        for path in credentials(config.model_dump())
    ]


def _explain(cls: type[Config], detail: ErrorDetails, set_by: Mapping[str, str]) -> list[str]:
    """One finding of pydantic, in the words of the user's own keys."""
    kind, context = detail["type"], detail.get("ctx", {})
    path = ".".join(str(part) for part in detail["loc"])
    # Raised by `Config` itself, as are the kinds beyond_reason, nul_character and no_variable below.
    if kind == "no_effect":
        prefix = f"{path}." if path else ""
        return [_from(set_by, prefix + entry[0]) + _idle(prefix, *entry) for entry in context["idle"]]
    source = _from(set_by, path)
    if kind == "missing":
        return [_missing(cls, path)]
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return [
            f"{source}`{path}` must be a section of keys, got {_shown(detail['input'])}."
            + _name_hint(cls, path, detail["input"])
        ]
    if kind in ("literal_error", "no_part"):
        return [source + _wrong_choice(cls, path, detail["input"])]
    if kind == "value_error":
        where = f"`{path}`: " if path else ""
        return [f"{source}{where}{context.get('error', detail['msg'])}"]
    if kind == "beyond_reason":
        return [
            f"{source}`{path}` must be {context['most']:.17g} at most, got {_shown(detail['input'])}: {context['why']}."
        ]
    if kind == "nul_character":
        return [f"{source}`{path}` holds a NUL character, which no name and no path can."]
    if kind == "no_variable":
        return [
            f"{source}`{path}` must be the NAME of an environment variable, such as MY_KEY. What it was given is not "
            "one, and is not repeated here: settings are written down, a key must not be among them."
        ]
    if kind == "string_pattern_mismatch":
        return [f"{source}`{path}` cannot be {_shown(detail['input'])}. What it is: {_meaning(cls, path)}"]
    # pydantic ends the location with [key] where the key of a mapping itself is wrong.
    if path.endswith(".[key]"):
        return [f"{source}`{path[:-6].rpartition('.')[0]}` takes words as keys, got {_shown(detail['input'])}."]
    hint = _list_hint(kind, path, detail["input"]) or _truth_hint(detail["input"])
    return [f"{source}`{path}` must be {_expected(cls, path)}, got {_shown(detail['input'])}.{hint}"]


def _missing(cls: type[Config], path: str) -> str:
    section = section_at(cls, path)
    if section is None:
        return f"missing key `{path}` ({_expected(cls, path)}): set it in the YAML or as `{path}=...`."
    keys = " ".join(f"`{path}.{name}=...`" for name, field in section.model_fields.items() if field.is_required())
    return f"missing section `{path}`: set it in the YAML, or by {keys}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


def _name_hint(cls: type[Config], path: str, value: Any) -> str:
    """A plain word where a section is wanted mostly is the name of what the section describes."""
    section = section_at(cls, path)
    named = isinstance(value, str) and section is not None and "name" in section.model_fields
    return f" Did you mean `{path}.name={value}`?" if named else ""


def _list_hint(kind: str, path: str, value: Any) -> str:
    return f" Write a list: `{path}=[{value}]`." if kind == "list_type" and isinstance(value, str) else ""


def _meaning(cls: type[Config], path: str) -> str:
    field = field_at(cls, path)
    return (field.description if field else None) or "see --help."


def _truth_hint(value: Any) -> str:
    return " YAML reads a bare yes, no, on and off as truth values: quote text." if isinstance(value, bool) else ""


def _from(set_by: Mapping[str, str], path: str) -> str:
    """The beginning of a message: who set the key."""
    source = source_of(set_by, path)
    return f"{source}: " if source else ""


def _idle(prefix: str, key: str, chooser: str, value: Any, readers: tuple[Any, ...]) -> str:
    if not chooser:
        return f"`{prefix}{key}` is not read here: {value}. Remove it (`~{prefix}{key}` on the command line)."
    wanted = ", ".join(str(reader) for reader in readers)
    return (
        f"`{prefix}{key}` has no effect with `{prefix}{chooser}={value}`; it is read only with {wanted}. "
        f"Remove it (`~{prefix}{key}` on the command line) or choose one of those."
    )


def _wrong_choice(cls: type[Config], path: str, value: Any) -> str:
    expected = _expected(cls, path)
    near = difflib.get_close_matches(str(value), expected.split(" | "), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    return f"`{path}` must be {expected}, got {_shown(value)}.{hint or _truth_hint(value)}"


def _expected(cls: type[Config], path: str) -> str:
    """The type of a key as help prints it; of a list's element, that of the list."""
    # The place of a list's element is no key: its parent is.
    while path:
        field = field_at(cls, path)
        if field is not None:
            return type_text(field)
        path = path.rpartition(".")[0]
    return "valid"


def _print_once(text: str) -> None:
    # Under a launcher every rank reads the same command line; one of them speaks.
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(text.rstrip("\n") + "\n")
