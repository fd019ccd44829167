"""CUDA without a GPU: tensors that have a device, a shape and a type but no values, and a count of what stalls a GPU.

Forward passes and losses run; the autograd engine does not. Operations on tensors of two devices raise by themselves.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import earface.training.module

CUDA = torch.device("cuda", 0)
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ROOT = Path(earface.training.module.__file__).resolve().parents[2]
MODE = FakeTensorMode(allow_non_fake_inputs=True)  # one for all: tensors of two modes do not meet

SYNCHRONISING = {  # operations whose result the host needs before it can go on
    *("_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim"),
    *("unique_consecutive", "unique_dim_consecutive", "bincount", "nms", "_linalg_check_errors"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
COPYING = {"where", *INDEXING}  # a CPU scalar or CPU indices; other elementwise kernels take a CPU scalar as it is
NOTED = SYNCHRONISING | COPYING | {"repeat_interleave", "fill_", "masked_fill", "masked_fill_"}
PRODUCTS = {
    *("mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention"),
    *("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention"),
}

Kind = Literal["synchronisation", "to host", "to device"]


@dataclass(frozen=True)
class Event:
    """One thing that makes the host wait for the GPU, or moves data between them."""

    kind: Kind  # a copy to the host is one of both
    operation: str
    line: str  # of the project, file:number, the innermost

    def __str__(self) -> str:
        return f"{self.line} {self.operation} ({self.kind})"


class HostTraffic(TorchDispatchMode):
    """Notes what passes between host and GPU, and lets the code go on where it would need a value that is not there.

    There a mask is true everywhere, a boolean True, a whole number 0, any other number 1, and all values differ.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.products: set[torch.dtype] = set()  # of matrix products, convolutions and attention on the GPU

    def clear(self) -> None:
        """Forget what happened so far: warm-up, and building batches."""
        self.events, self.products = [], set()

    def count(self, *kinds: Kind) -> int:
        return sum(event.kind in kinds for event in self.events)

    def report(self) -> str:
        """Each line of the project with what it does and how often."""
        return "\n".join(f"{number} x {event}" for event, number in Counter(self.events).items())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        kind = _kind(name, func, args, kwargs)
        if kind is not None:
            self.events.append(Event(kind, name, project_line()))
        try:
            result = func(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            result = _stand_in(name, func, args, kwargs)
        if name in PRODUCTS:
            self.products |= {each.dtype for each in tree_leaves(result) if _on(each, "cuda")}
        return result


@contextmanager
def fake_cuda() -> Iterator[HostTraffic]:
    """Inside, tensors have no values, those on `cuda` as those on the CPU; `torch.autocast("cuda")` works."""
    torch._C._ensureCUDADeviceGuardSet()
    with ExitStack() as stack:
        # where there is no GPU autocast switches itself off, and no generator can be seeded
        stack.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", return_value=True))
        stack.enter_context(patch("torch.cuda.default_generators", (torch.Generator(),)))
        traffic = HostTraffic()
        stack.enter_context(patch("torch.utils.swap_tensors", _swap))
        stack.enter_context(MODE)
        stack.enter_context(traffic)
        for method in ("tolist", "numpy", "__array__"):
            stack.enter_context(patch.object(FakeTensor, method, _reading(traffic, method)))
        yield traffic


def _reading(traffic: HostTraffic, method: str) -> Callable[..., Any]:
    """A method that gives a fake tensor's values to Python: True, 0, or 1, 2, 3, ... in each row."""

    def read(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor.device.type == "cuda":
            if method != "tolist":
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            traffic.events.append(Event("to host", method, project_line()))
        values = np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        if tensor.dtype == torch.bool or tensor.is_floating_point():
            values += np.arange(1, values.shape[-1] + 1).astype(values.dtype) if values.ndim else values.dtype.type(1)
        return values.tolist() if method == "tolist" else values

    return read


@contextmanager
def precision(name: str) -> Iterator[None]:
    """As Lightning's mixed precision on CUDA: float32, float16 or bfloat16."""
    with torch.autocast("cuda", PRECISIONS[name], enabled=name != "float32"):
        yield


def on_cuda(value: Any) -> Any:
    """A batch, or a network: its tensors become fake ones on cuda:0, as moving them there does."""
    if isinstance(value, torch.nn.Module):
        return value.to(CUDA)
    return tree_map_only(Tensor, lambda tensor: tensor.to(CUDA), value)


def fake(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """On cuda:0."""
    return torch.empty(shape, dtype=dtype, device=CUDA)


def project_line() -> str:
    """Where the project is: file:number of the innermost frame that is its own and no test's."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            inside = path.relative_to(ROOT)
            if inside.parts[0] not in ("tests", ".venv"):
                return f"{inside}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


def _swap(parameter: Tensor, moved: Tensor) -> None:
    """For `Module.to`, of a fake network that is there already: nothing to do, and swapping would fail."""
    if (parameter.device, parameter.dtype) != (moved.device, moved.dtype):
        raise NotImplementedError("a fake network stays on its device: build it outside of fake_cuda()")


def _on(value: Any, device: str) -> bool:
    return isinstance(value, Tensor) and value.device.type == device


def _kind(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kind | None:
    """What an operation does beside computing; None if nothing."""
    if name in ("_to_copy", "copy_", "copy"):
        return _copy_kind(name, args, kwargs)
    if name not in NOTED:
        return None
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    if not any(each.device.type == "cuda" for each in tensors):
        return None
    if name in SYNCHRONISING:
        return "synchronisation"
    if name == "repeat_interleave" and func._overloadname == "Tensor" and kwargs.get("output_size") is None:
        return "synchronisation"
    if name in ("fill_", "masked_fill", "masked_fill_") and func._overloadname == "Tensor" and _on(args[-1], "cuda"):
        return "synchronisation" if name != "fill_" or _on(args[0], "cpu") else None  # the value is read
    if name in INDEXING:
        if args[0].device.type != "cuda":
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if any(_is_mask(index) for index in args[1]):
            return "synchronisation"
    if name in COPYING and any(each.device.type == "cpu" for each in tensors):
        return "to device"
    return None


def _copy_kind(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Kind | None:
    target, source = (args[0].device, args[1].device) if name != "_to_copy" else (kwargs.get("device"), args[0].device)
    if target is None or torch.device(target).type == source.type:
        return None
    return "to host" if source.type == "cuda" else "to device"


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _everywhere(mask: Tensor) -> tuple[Tensor, ...]:
    """The indices of a mask that is true everywhere."""
    return tuple(torch.empty(mask.numel(), dtype=torch.int64, device=mask.device) for _ in range(mask.ndim))


def _stand_in(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operation that needs values."""
    first: Tensor = args[0]
    if name == "_local_scalar_dense":
        return True if first.dtype == torch.bool else 1.0 if first.is_floating_point() else 0
    if name == "equal":
        return True
    if name == "nonzero":
        return first.new_empty(first.numel(), first.ndim, dtype=torch.int64)
    if name == "masked_select":
        return first.new_empty(torch.broadcast_shapes(first.shape, args[1].shape)).flatten()
    if name in ("_unique2", "_unique", "unique_consecutive"):
        counts = first.new_empty(first.numel(), dtype=torch.int64)
        results = first.flatten().clone(), torch.empty_like(first, dtype=torch.int64), counts
        return results[: len(func._schema.returns)]
    if name == "repeat_interleave":
        return torch.empty_like(first, dtype=torch.int64)
    if name == "nms":
        return first.new_empty(len(first), dtype=torch.int64)
    if name in INDEXING:
        indices: list[Tensor | None] = []
        for index in args[1]:
            indices += _everywhere(index) if _is_mask(index) else [index]
        return func(first, indices, *args[2:], **kwargs)
    raise NotImplementedError(f"{func}: its result depends on values, and fake tensors have none")
