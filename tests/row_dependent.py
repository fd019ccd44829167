"""A stand-in for kernels whose last bit depends on how many rows they get, as some processors' do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class RowDependentKernels(TorchDispatchMode):
    """Matrix products and convolutions round differently for every number of rows, or of pictures.

    The products are those of the same operator with its first input scaled by 1 + rows x 2^-12, and scaled back: equal
    for equal shapes, and different in the last bits otherwise.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.convolution):
            return self.rounded(given, len(args[0]))
        return self.rounded(given, len(args[1])) if func.overloadpacket is torch.ops.aten.addmm else given

    @staticmethod
    def rounded(values: Tensor, rows: int) -> Tensor:
        factor = 1.0 + rows * 2.0**-12
        return values * factor / factor
