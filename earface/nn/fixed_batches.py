"""Inference whose numbers are the same bit for bit whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {  # kernels and which of their arguments hold the rows of images
    "mm": (0,),
    "addmm": (1,),
    "bmm": (0, 1),
    "_scaled_dot_product_flash_attention_for_cpu": (0, 1, 2),
}


class ProductsApart(TorchDispatchMode):
    """Inside, on a CPU, what each of `count` images has in a matrix product or in attention is multiplied by itself.

    Kernels round the last rows of a block otherwise: MKL's of AVX2 the last two of eight, with several threads more.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        places = PRODUCTS.get(func.overloadpacket.__name__, ())
        if not places:
            return func(*args, **kwargs)
        split = [args[place] for place in places]
        if isinstance(mask := kwargs.get("attn_mask"), Tensor):
            split.append(mask)
        rows = len(split[0])
        apart = rows % self.count == 0 and all(len(each) == rows and each.device.type == "cpu" for each in split)
        if not apart or (places == (1,) and args[0].ndim > 1):  # addmm's bias is one for all rows
            return func(*args, **kwargs)
        results = []
        for parts in zip(*(each.split(rows // self.count) for each in split), strict=True):
            own = list(args)
            for place, part in zip(places, parts, strict=False):
                own[place] = part.clone()  # aligned in memory as every other
            results.append(func(*own, **kwargs | ({"attn_mask": parts[-1]} if len(parts) > len(places) else {})))
        if isinstance(results[0], Tensor):
            return torch.cat(results)
        return tuple(torch.cat(each) for each in zip(*results, strict=True))


def in_fixed_batches(function: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """function(rows) of rows (B, ...), which it is only ever given `size` at a time: the last are filled up by zeros.

    function: (size, ...) -> tensors (size, ...), each row of them made of the same row. Kernels, and with them the last
    bit, are chosen by the shape and sometimes by the place in memory: each part is a fresh tensor of that shape. Nor
    does a row's place among the others matter, in products by construction, in convolutions and the like as measured:
    docs/BENCHMARKS.md.
    """
    parts = []
    with ProductsApart(size):
        for part in rows.split(size):
            filled = rows.new_zeros(size, *rows.shape[1:])
            filled[: len(part)] = part
            parts.append([made[: len(part)] for made in function(filled)])
    return tuple(torch.cat(made) for made in zip(*parts, strict=True))
