"""A stand-in for kernels whose last bit depends on how many rows they get, and on a row's place, as some CPUs' do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

VECTOR = 32  # elements
ALIGNMENT = 16  # elements
PRODUCTS = {"mm", "addmm", "bmm", "_scaled_dot_product_flash_attention_for_cpu"}
FUNCTIONS = {"exp", "log", "sigmoid", "sigmoid_", "gelu", "silu", "silu_", "tanh", "pow"}
INEXACT = {  # what no standard rounds: kernels add up in an order, and approximate functions, as suits their shape
    *PRODUCTS,
    *("baddbmm", "mv", "dot", "convolution", "native_layer_norm", "native_group_norm", "native_batch_norm"),
    *("sum", "mean", "var", "var_mean", "linalg_vector_norm", "_softmax", "avg_pool2d", "_adaptive_avg_pool2d"),
    *("upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa"),
    *("hardswish", "hardswish_", *FUNCTIONS),
}


class RowDependentKernels(TorchDispatchMode):
    """Whatever is not correctly rounded by itself is rounded differently for every number of rows, or of pictures.

    The results are those of the same operator scaled by 1 + n x 2^-12, and scaled back: the same for the same n, and
    different in the last bits otherwise. n is the number of rows; added to it are, in a product, the row's place; in a
    product of 1x1 filters, how far the row lies from where memory is aligned; in an approximate function, 1 for what no
    whole vector holds at the end of each thread's part.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in INEXACT:
            return given
        first = given[0] if isinstance(given, tuple) else given
        places: Tensor | int = 0
        if name in PRODUCTS:
            places = by_row(torch.arange(len(first)), first)
        elif name == "convolution" and max(args[1].shape[2:]) == 1:
            off = sum(torch.arange(len(first)) * each[0].numel() % ALIGNMENT for each in (args[0], first))
            places = by_row(off, first)
        elif name in FUNCTIONS:
            places = left_over(first)
        rounded = self.rounded(first, places)
        if isinstance(given, tuple):  # a norm's result, and what its gradient needs
            return rounded, *given[1:]
        return given.copy_(rounded) if name.endswith("_") else rounded

    @staticmethod
    def rounded(values: Tensor, places: Tensor | int) -> Tensor:
        factor = 1.0 + ((len(values) if values.ndim else 1) + places) * 2.0**-12
        return values * factor / factor


def by_row(places: Tensor, values: Tensor) -> Tensor:
    return places.to(values.dtype).view(-1, *[1] * (values.ndim - 1))


def left_over(values: Tensor) -> Tensor:
    """1 where `values` has what is left over behind the whole vectors of a thread's part, 0 elsewhere."""
    parts = torch.zeros(values.numel(), dtype=values.dtype).chunk(torch.get_num_threads())
    for part in parts:
        part[len(part) // VECTOR * VECTOR :] = 1
    return torch.cat(parts).view(values.shape)
