"""Half precision where it is wanted, and float32 where it must be."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["32", "16", "bf16"]
AMPERE = (8, 0)  # the first compute capability with bfloat16


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


def has_native_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 matrices itself. PyTorch's names for it are private: one may go."""
    try:
        instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return bool(instructions and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def automatic_precision(device: str) -> tuple[str, str]:
    """Lightning's name of the fastest precision that training is safe in, and why. device: `cpu`, `cuda` or `mps`."""
    if device == "cuda":
        capability = torch.cuda.get_device_capability()
        known = f"compute capability {capability[0]}.{capability[1]}"
        if capability >= AMPERE:
            return "bf16-mixed", f"{known} has bfloat16"
        return "16-mixed", f"{known} has float16 but no bfloat16"
    if device == "cpu" and has_native_bfloat16():
        return "bf16-mixed", "this processor has native bfloat16"
    if device == "cpu":
        return "32", "this processor has no native bfloat16"
    return "32", f"mixed precision is not safe on {device}"


def emulation(device: str, precision: str) -> str:
    """What half precision costs where a processor emulates it; empty where it does not.

    Measured for a convolution, forward and backward, against float32.
    """
    if device != "cpu" or precision.startswith("32") or has_native_bfloat16():
        return ""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return f"this processor emulates bfloat16, {'about 4' if wide else '12 to 40'} times slower than float32"
