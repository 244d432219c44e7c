"""The base class of all configurations, and what can be asked of one: its keys, its sections, which keys are idle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Self, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from rollwright.config.limits import Limits, counts_truth, limit_of
from rollwright.config.named_parts import is_read
from rollwright.config.secrets import names_variable

Readers = Mapping[str, Mapping[str, tuple[Any, ...]]]
"""Key -> {chooser: the values with which the key is read}; all choosers must agree. Dotted paths from the model."""
Unread = Mapping[str, str]
"""Key or section that a recipe never reads -> what does its work there. Dotted paths from the model."""
Presets = Mapping[str, Mapping[str, Any]]
"""Value of the section's key `preset` -> the keys that it fills in where nobody set them."""


class Config(BaseModel):
    """A section of keys. Frozen, unknown keys forbidden; the meaning of a key is its description or docstring.

    `only_for` says which keys only some methods read:

        only_for = {"clip_eps": {"loss": ("ppo", "dual_clip")}}

    Setting `clip_eps` with another `loss` is then an error; its default does no harm. `shorthand` names the key that
    a bare value stands for: with `shorthand = "name"`, `engine=vllm` means `engine.name=vllm` and leaves the
    section's other keys alone. `unread` names keys that came with a shared section and that this recipe never reads;
    setting one is an error too, and the help leaves it out. `presets` gives a section with a key `preset` other
    defaults for each value of that key: a key that was set wins, and one that was filled in does not count as set.
    `limits` names the largest value of a key that makes sense, and what breaks beyond it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    only_for: ClassVar[Readers] = {}
    unread: ClassVar[Unread] = {}
    limits: ClassVar[Limits] = {}
    shorthand: ClassVar[str | None] = None
    presets: ClassVar[Presets] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        # The tables name keys as text: a renamed key would leave a rule that never applies.
        for key, choosers in cls.only_for.items():
            for path in (key, *choosers):
                if field_at(cls, path) is None:
                    raise TypeError(f"{cls.__name__}.only_for names `{path}`, which is not one of its keys")
        for what in ("unread", "limits"):
            for path in getattr(cls, what):
                if field_at(cls, path) is None:
                    raise TypeError(f"{cls.__name__}.{what} names `{path}`, which is not one of its keys")
        for path in {"preset", *(key for keys in cls.presets.values() for key in keys)} if cls.presets else ():
            if path not in cls.model_fields:
                raise TypeError(f"{cls.__name__}.presets names `{path}`, which is not one of its keys")
        if cls.shorthand is not None and cls.shorthand not in cls.model_fields:
            raise TypeError(f"{cls.__name__}.shorthand names `{cls.shorthand}`, which is not one of its keys")
        for name, field in cls.model_fields.items():
            section = section_of(field.annotation)
            # pydantic takes a default whole or not at all: with one key set, the rest comes from the section's class.
            if section and isinstance(field.default, section) and field.default != _as_filled_in(field.default):
                raise TypeError(
                    f"{cls.__name__}.{name} begins with other values than {section.__name__} has, which would be lost "
                    "as soon as one of its keys is set: give the section a class of its own with these defaults"
                )

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, value: Any) -> Any:
        if cls.shorthand is not None and isinstance(value, str | int | float):
            return {cls.shorthand: value}
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _means_what_it_says(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts True as 1, so that `steps: yes` would pass for one step.
        if counts_truth(value, cls.model_fields[info.field_name or ""].annotation):
            raise PydanticCustomError("number_type", "a truth value is not a number")
        if isinstance(value, str) and "\0" in value:
            raise PydanticCustomError("nul_character", "a NUL character is in no name and no path")
        # The value is not in the message, for it may be the secret itself.
        if isinstance(value, str) and value and not names_variable(info.field_name or "", value):
            raise PydanticCustomError("no_variable", "not the name of an environment variable")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _within_reason(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.field_name or ""
        limit = limit_of(name, cls.model_fields[name].annotation, cls.limits)
        # By size: a seed of -2**40 fits the generators as little as 2**40 does.
        if limit is not None and isinstance(value, int | float) and abs(value) > limit.most:
            raise PydanticCustomError("beyond_reason", "beyond reason", {"most": limit.most, "why": limit.why})
        return value

    @model_validator(mode="wrap")
    @classmethod
    def _preset_fills_the_rest(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # Declared before the next validator, which therefore sees what nobody set as not set.
        filled = _filled_in(cls, value)
        # What was set wins over what the preset says.
        config = handler({**filled, **value} if filled else value)
        # The model is frozen, this set is not. If filled keys counted as set, those without a reader would be errors.
        config.__pydantic_fields_set__.difference_update(filled)
        return config

    @model_validator(mode="after")
    def _every_set_key_is_read(self) -> Config:
        # A default does no harm: it was not written down by anybody who expects an effect.
        idle = [entry for entry in keys_without_effect(self) if _is_set(self, entry[0])]
        if idle:
            raise PydanticCustomError("no_effect", "keys without effect", {"idle": idle})
        return self


def keys_without_effect(config: Config) -> list[tuple[str, str, Any, tuple[Any, ...]]]:
    """Keys of this section that the chosen method does not read, set or not; those of sub-sections not included.

    Returns:
        One (key, chooser, the chooser's value, the values that would read the key) per idle key; of one that is never
        read, (key, "", what does its work, ()).
    """
    idle: list[tuple[str, str, Any, tuple[Any, ...]]] = [(key, "", why, ()) for key, why in config.unread.items()]
    for key, choosers in config.only_for.items():
        for chooser, readers in choosers.items():
            value = _value_at(config, chooser)
            if not is_read(value, readers):
                idle.append((key, chooser, value, tuple(readers)))
                # One reason is enough for a message.
                break
    return idle


def section_of(annotation: Any) -> type[Config] | None:
    """The `Config` class that an annotation holds, through `X | None` and `Annotated`; None for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    if get_origin(annotation) is Annotated:
        return section_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        found = {section for arg in get_args(annotation) if arg is not NoneType and (section := section_of(arg))}
        # Of two kinds of section nobody could say which keys there are.
        return found.pop() if len(found) == 1 else None
    return None


def field_at(cls: type[Config], path: str) -> FieldInfo | None:
    """The field that a dotted path names, or None."""
    head, _, rest = path.partition(".")
    field = cls.model_fields.get(head)
    if field is None or not rest:
        return field
    section = section_of(field.annotation)
    return field_at(section, rest) if section else None


Section = TypeVar("Section", bound="Config")


def sections(config: Config, kind: type[Section]) -> Iterator[tuple[str, Section]]:
    """The sections of that class, or of one made from it, by name."""
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, kind):
            yield name, value


def all_keys(cls: type[Config], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every plain key with its dotted path, sections opened, in the order of declaration."""
    for name, field in cls.model_fields.items():
        section = section_of(field.annotation)
        if section:
            yield from all_keys(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _filled_in(cls: type[Config], values: Any) -> dict[str, Any]:
    """What the preset of a section adds to the keys that were set."""
    if not cls.presets or not isinstance(values, Mapping):
        return {}
    # The values are not validated yet, so the preset may be anything.
    preset = values.get("preset", cls.model_fields["preset"].default)
    keys = cls.presets.get(preset, {}) if isinstance(preset, str) else {}
    return {name: value for name, value in keys.items() if name not in values}


def _as_filled_in(default: Config) -> Config:
    """What becomes of a section whose keys are all named but those that its class fills in."""
    named = {name: getattr(default, name) for name, field in type(default).model_fields.items() if field.is_required()}
    return type(default)(**named)


def _value_at(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        # A section that is None has no chooser, and its keys no reader.
        value = None if value is None else getattr(value, name)
    return value


def _is_set(config: Config, path: str) -> bool:
    """Whether somebody wrote this key down, rather than leaving it at its default."""
    head, _, rest = path.partition(".")
    if head not in config.model_fields_set:
        return False
    value = getattr(config, head)
    return _is_set(value, rest) if rest and isinstance(value, Config) else True
