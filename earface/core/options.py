"""Typed options: a dataclass field with its default, its reason and its range in one place."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from earface.core.errors import InputError


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    affects_result: bool = True,
) -> Any:
    """A dataclass field. `low <= value <= high`, `value > above`.

    affects_result: whether the value is part of what a run computes; a resumed run must have the same. Workers,
    devices, paths and logging are not.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": help, "low": low, "high": high, "above": above, "affects_result": affects_result},
    )


class HelpLayout(NamedTuple):
    """How the help of a command with many options shows them."""

    first: tuple[str, ...]  # the fields that most people need: all that plain help shows
    groups: Mapping[str, tuple[str, ...]]  # every field, in exactly one


def check_options(options: Any) -> None:
    """Raise InputError for the first field that is outside its range or not one of its choices."""
    for field in dataclasses.fields(options):
        check_field(type(options), field.name, getattr(options, field.name))


def check_field(options_type: type, name: str, value: Any) -> None:
    """Raise InputError where `value` is outside the range of the field `name`, or not one of its choices."""
    meta = next(field.metadata for field in dataclasses.fields(options_type) if field.name == name)
    choices = literal_choices(_hints(options_type)[name])
    if choices and value not in choices:
        raise InputError(f"`{name}` {value!r}: choose one of {', '.join(map(str, choices))}")
    if value is None or not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    low, high, above = meta.get("low"), meta.get("high"), meta.get("above")
    outside = (
        not math.isfinite(value)
        or (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    )
    if outside:
        raise InputError(f"`{name}` {value}: must be {range_text(meta)}")


@cache
def _hints(options_type: type) -> dict[str, Any]:
    return get_type_hints(options_type)


def range_text(meta: Any) -> str:
    """The range of a field in words; empty when it has none."""
    low, high, above = meta.get("low"), meta.get("high"), meta.get("above")
    parts = [
        f"above {above:g}" if above is not None else "",
        f"at least {low:g}" if low is not None else "",
        f"at most {high:g}" if high is not None else "",
    ]
    return " and ".join(part for part in parts if part) or "a number"


def literal_choices(hint: Any) -> tuple[Any, ...]:
    """The values of `Literal[...]`, also inside `... | None`."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        inner = [literal_choices(part) for part in get_args(hint)]
        if any(inner):
            return (*(value for values in inner for value in values), None)
    return ()


def result_fields(options: Any) -> set[str]:
    """Names of the fields that a resumed run must share."""
    return {field.name for field in dataclasses.fields(options) if field.metadata.get("affects_result", True)}


def to_plain(options: Any) -> dict[str, Any]:
    """A dataclass as dicts, lists, strings and numbers: what a checkpoint may hold."""
    return {key: _listed(value) for key, value in dataclasses.asdict(options).items()}


def _listed(value: Any) -> Any:
    return [_listed(each) for each in value] if isinstance(value, tuple) else value
