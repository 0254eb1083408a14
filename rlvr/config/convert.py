"""Plain YAML values to the typed configuration and back: every key known, every type checked, every check run.

Hydra merges; it accepts `+typo=1` and never calls `__post_init__`. So the merged mapping becomes real dataclasses here.
"""

import contextlib
import dataclasses
import math
import types
import typing
from difflib import get_close_matches
from typing import Any

from rlvr.config.schema import RunConfig
from rlvr.errors import UserError
from rlvr.registry import load_variants

CHOSEN = ("advantage", "selection", "objective", "data")
"""Sections of a run that hold one variant; its name stands under the key `name`."""

STORED = (*CHOSEN, "decoding")
"""Groups whose variants a composition chooses by name."""

NAME_KEY = "name"


def _suggest(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"


def config_fields(cls: type) -> dict[str, dataclasses.Field]:
    """The fields of a dataclass that a configuration may set."""
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _scalar(value: Any, expected: Any, path: str) -> Any:
    """A value of a basic type; an int passes for a float, and a number or bool never for a string."""
    if expected is Any:
        return value
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected is float and isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-6 as a string
            value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path} is {value}; expected a finite number")
    if isinstance(value, expected) and not (isinstance(value, bool) and expected is not bool):
        return value
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    raise UserError(f"{path} is {value!r}; expected {names.get(expected, expected.__name__)}")


def convert(value: Any, expected: Any, path: str) -> Any:
    """A YAML value as the annotated type.

    Raises:
        UserError: naming the key, what was given and what was expected.
    """
    origin = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType):
        inner = [option for option in typing.get_args(expected) if option is not type(None)]
        if value is None and len(inner) < len(typing.get_args(expected)):
            return None
        return convert(value, inner[0], path) if len(inner) == 1 else value
    if dataclasses.is_dataclass(expected):
        return build(expected, value, path)  # type: ignore[arg-type]
    if origin is list:
        item = typing.get_args(expected)[0]
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise UserError(f"{path} is {value!r}; expected a list, e.g. [{getattr(item, '__name__', 'item')}, ...]")
        return [convert(entry, item, f"{path}[{index}]") for index, entry in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{path} is {value!r}; expected a mapping of keys to values")
        return value
    return _scalar(value, expected, path)


def build(cls: type, values: Any, path: str) -> Any:
    """A dataclass from a mapping; missing keys take the class's defaults.

    Raises:
        UserError: for a key that the class does not have, with the nearest one.
    """
    if not isinstance(values, dict):
        raise UserError(f"{path} is {values!r}; expected a mapping with {', '.join(config_fields(cls))}")
    return cls(**_typed(cls, values, f"{path}.", f"is not a field of {cls.__name__}"))


def _typed(cls: type, values: dict[str, Any], prefix: str, unknown: str) -> dict[str, Any]:
    """The values as the fields of a dataclass want them; `unknown` is what to say of a key that it lacks."""
    known, hints = config_fields(cls), typing.get_type_hints(cls)
    for key in values:
        if key not in known:
            raise UserError(f"{prefix}{key} {unknown}; {_suggest(str(key), list(known))}")
    return {key: convert(value, hints[key], f"{prefix}{key}") for key, value in values.items()}


def build_variant(group: str, values: Any) -> Any:
    """The chosen variant of a group from its name and numbers.

    Raises:
        UserError: for an unknown name or number, with the nearest one.
    """
    known = load_variants().get(group, {})
    name = values.get(NAME_KEY) if isinstance(values, dict) else values
    if name is None:
        raise UserError(f"{group} chooses nothing; set {group}=NAME: known are {', '.join(sorted(known))}")
    if name not in known:
        raise UserError(f"{group}={name} is unknown; {_suggest(str(name), list(known))}")
    numbers = {key: value for key, value in values.items() if key != NAME_KEY} if isinstance(values, dict) else {}
    for key in numbers:
        others = [other for other, cls in sorted(known.items()) if key in config_fields(cls)]
        if key not in config_fields(known[name]) and others:
            raise UserError(
                f"{group}.{key} belongs to {group}={' or '.join(others)}, not to {group}={name}; choose it too"
            )
    return build(known[name], numbers, group)


def _rewards(values: Any) -> dict[str, Any]:
    known = load_variants().get("reward", {})
    if not isinstance(values, dict) or not values:
        raise UserError(f"reward is {values!r}; expected at least one of {', '.join(sorted(known))} with its fields")
    for name in values:
        if name not in known:
            raise UserError(f"reward.{name} is unknown; {_suggest(str(name), list(known))}")
    return {
        name: build(known[name], {} if numbers is None else numbers, f"reward.{name}")
        for name, numbers in values.items()
    }


def convert_section(cls: type, values: dict[str, Any], **parts: Any) -> Any:
    """A configuration without sections around its fields, such as that of an evaluation.

    Args:
        cls: the dataclass.
        values: by key; missing ones take the class's defaults.
        parts: fields that are built already.

    Raises:
        UserError: for the first key or value that does not fit.
    """
    return cls(**_typed(cls, values, "", "is not a setting of this command"), **parts)


def to_config(values: dict[str, Any]) -> RunConfig:
    """The typed configuration of a merged mapping.

    Raises:
        UserError: for the first key or value that does not fit.
    """
    sections, hints = config_fields(RunConfig), typing.get_type_hints(RunConfig)
    for key in values:
        if key not in sections:
            raise UserError(f"{key} is not a section of the configuration; {_suggest(str(key), list(sections))}")
    missing = [key for key in (*CHOSEN, "reward") if key not in values]
    if missing:
        raise UserError(f"the configuration has no section {missing[0]}; expected {', '.join((*CHOSEN, 'reward'))}")
    parts: dict[str, Any] = {group: build_variant(group, values[group]) for group in CHOSEN}
    parts["reward"] = _rewards(values["reward"])
    for key, value in values.items():
        if key not in parts:
            parts[key] = convert({} if value is None else value, hints[key], key)
    return RunConfig(**parts)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in config_fields(type(value))}
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values; `to_config` gives the same configuration back."""
    values = _plain(config)
    for group in CHOSEN:
        values[group] = {NAME_KEY: getattr(config, group).name, **values[group]}
    return values
