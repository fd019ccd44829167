"""A stand-in for kernels whose last bit depends on how many rows they get, and on a row's place, as some CPUs' do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"mm", "addmm", "bmm", "_scaled_dot_product_flash_attention_for_cpu"}
INEXACT = {  # what no standard rounds: kernels add up in an order, and approximate functions, as suits their shape
    *PRODUCTS,
    *("baddbmm", "mv", "dot", "convolution", "native_layer_norm", "native_group_norm", "native_batch_norm"),
    *("sum", "mean", "var", "var_mean", "linalg_vector_norm", "_softmax", "avg_pool2d", "_adaptive_avg_pool2d"),
    *("upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa"),
    *("exp", "log", "sigmoid", "sigmoid_", "gelu", "silu", "silu_", "tanh", "hardswish", "hardswish_"),
}


class RowDependentKernels(TorchDispatchMode):
    """Whatever is not correctly rounded by itself is rounded differently for every number of rows, or of pictures.

    The results are those of the same operator scaled by 1 + rows x 2^-12, and scaled back: equal for equal shapes, and
    different in the last bits otherwise. Of a product each row is rounded otherwise than the next, too.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in INEXACT:
            return given
        if isinstance(given, tuple):  # a norm's result, and what its gradient needs
            return self.rounded(given[0], name in PRODUCTS), *given[1:]
        rounded = self.rounded(given, name in PRODUCTS)
        return given.copy_(rounded) if name.endswith("_") else rounded

    @staticmethod
    def rounded(values: Tensor, by_place: bool) -> Tensor:
        rows = len(values) if values.ndim else 1
        places = torch.arange(rows, dtype=values.dtype).view(-1, *[1] * (values.ndim - 1)) if by_place else 0
        factor = 1.0 + (rows + places) * 2.0**-12
        return values * factor / factor
