"""Half precision where it is wanted, and float32 where it must be."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["32", "16", "bf16"]


def float32_island(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate a function of tensors: half precision arguments become float32, and autocast is off inside.

    float64 stays float64, integers stay integers; tensors may be positional or by name.
    """

    def widen(value: object) -> object:
        half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if half else value  # type: ignore[attr-defined]

    @functools.wraps(function)
    def run(*args: object, **kwargs: object) -> Tensor:
        device = [value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)][0]  # noqa: RUF015  # torch.compile traces no generators
        with torch.autocast(device, enabled=False):
            return function(*[widen(value) for value in args], **{name: widen(kwargs[name]) for name in kwargs})

    return run


def autocast(device: str, precision: str) -> torch.autocast:
    """precision: 16 or bf16; 32 leaves everything as it is. On a CPU 16 is bf16, as in training: far faster there."""
    kinds = {"16": torch.bfloat16 if device == "cpu" else torch.float16, "bf16": torch.bfloat16}
    return torch.autocast(device, kinds.get(precision), enabled=precision in kinds)
