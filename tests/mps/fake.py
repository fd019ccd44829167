"""A device without float64, as Apple's GPUs (MPS) are, without one.

PyTorch's builds for Linux cannot move a tensor to `mps`, not even a fake one, so a fake CUDA device stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.cuda.fake import HostTraffic

DOUBLE = (torch.float64, torch.complex128)


class WithoutFloat64(HostTraffic):
    """Refuses, as MPS does, whatever would lie in float64 on the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.device.type == "cuda" and each.dtype in DOUBLE:
                raise TypeError(f"{func}: the MPS framework doesn't support float64. Please use float32 instead.")
        return result


@contextmanager
def no_float64() -> Iterator[None]:
    """Inside, the device of `fake_cuda` has none, and the project knows it."""
    with patch("tests.cuda.fake.HostTraffic", WithoutFloat64), patch("earface.data.pixels.NO_FLOAT64", ("cuda",)):
        yield
