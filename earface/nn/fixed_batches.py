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
FUNCTIONS = ("sigmoid", "silu", "gelu", "tanh", "exp", "expm1", "log", "log1p", "erf", "pow", "elu", "softplus", "mish")
APPROXIMATE = {name for function in FUNCTIONS for name in (function, f"{function}_")}
BLOCK = 64  # elements: a whole number of vectors in any kernel's step, and of the 64 bytes to which memory is aligned


class ImagesApart(TorchDispatchMode):
    """Inside, on a CPU, each of `count` images has its products, attention and approximate functions by itself.

    Kernels round the last rows of a product otherwise: MKL's of AVX2 the last two of eight, with several threads more.
    ATen's compute a function in vectors, and what is left over at the end by the C library: the last image's, or a
    thread's. Of 1x1 filters' products MKL may round those otherwise that lie otherwise in memory.
    """

    def __init__(self, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        places = self.places(name, args)
        split = [args[place] for place in places]
        if isinstance(mask := kwargs.get("attn_mask"), Tensor):
            split.append(mask)
        rows = len(split[0]) if places else 0
        apart = rows % self.count == 0 and all(len(each) == rows and each.device.type == "cpu" for each in split)
        if not places or not apart:
            return func(*args, **kwargs)
        results = []
        for parts in zip(*(each.split(rows // self.count) for each in split), strict=True):
            own = list(args)
            for place, part in zip(places, parts, strict=False):
                own[place] = part.clone()  # aligned in memory as every other
            results.append(func(*own, **kwargs | ({"attn_mask": parts[-1]} if len(parts) > len(places) else {})))
        if isinstance(results[0], Tensor):
            joined = torch.cat(results)
            return args[0].copy_(joined) if name.endswith("_") else joined
        return tuple(torch.cat(each) for each in zip(*results, strict=True))

    def places(self, name: str, args: Any) -> tuple[int, ...]:
        """The arguments to take image by image; none where all images fare alike in one call."""
        if name == "addmm" and args[0].ndim > 1:  # its bias is one for all rows
            return ()
        if name in APPROXIMATE and isinstance(args[0], Tensor) and args[0].ndim:
            return () if self.in_blocks(args[0].numel()) and torch.get_num_threads() == 1 else (0,)
        if name == "convolution" and max(args[1].shape[2:]) == 1:
            given, made = args[0].numel(), len(args[0]) * len(args[1]) * args[0][0, 0].numel()
            return () if self.in_blocks(given) and self.in_blocks(made) and max(args[3]) == 1 else (0,)
        return PRODUCTS.get(name, ())

    def in_blocks(self, elements: int) -> bool:
        return elements % (self.count * BLOCK) == 0


def in_fixed_batches(function: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """function(rows) of rows (B, ...), which it is only ever given `size` at a time: the last are filled up by zeros.

    function: (size, ...) -> tensors (size, ...), each row of them made of the same row. Kernels, and with them the last
    bit, are chosen by the shape and sometimes by the place in memory: each part is a fresh tensor of that shape. Nor
    does a row's place among the others matter, in products and functions by construction, in larger convolutions and
    the like as measured: docs/BENCHMARKS.md.
    """
    parts = []
    with ImagesApart(size):
        for part in rows.split(size):
            filled = rows.new_zeros(size, *rows.shape[1:])
            filled[: len(part)] = part
            parts.append([made[: len(part)] for made in function(filled)])
    return tuple(torch.cat(made) for made in zip(*parts, strict=True))
