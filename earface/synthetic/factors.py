"""Known factors of synthetic pictures: fields of frozen dataclasses, with a range and a group, and their checks."""

from __future__ import annotations

import dataclasses

import numpy as np

from earface.core.errors import InputError

PATTERN_LIMIT = 2**20  # patterns are seeds: whole numbers below this
MAX_SEED = 2**32 - 1


def factor(default: float, low: float, high: float, group: str) -> float:
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "group": group})


def pattern(group: str) -> int:
    return dataclasses.field(default=0, metadata={"low": 0, "high": PATTERN_LIMIT - 1, "group": group})


class Factors:
    """Checks that every field of a factor dataclass lies in its documented range."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if "low" not in field.metadata:
                continue
            value, low, high = getattr(self, field.name), field.metadata["low"], field.metadata["high"]
            if not (isinstance(value, int | float | np.number) and low <= value <= high):  # a NaN fails this too
                raise InputError(f"{type(self).__name__}.{field.name} must lie in [{low:g}, {high:g}], not {value!r}")


def check_seed(**numbers: int) -> None:
    for name, value in numbers.items():
        if not (isinstance(value, int | np.integer) and 0 <= value <= MAX_SEED):
            raise InputError(f"`{name}` {value}: must be a whole number from 0 to 2**32 - 1")
