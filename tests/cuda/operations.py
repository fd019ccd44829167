"""Operations on a GPU that make the host wait, that copy, and that do neither: by name, on tensors of any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Operation = Callable[[Tensor, Tensor, Tensor], Any]  # of (4, 3) numbers, a mask (4,) and rows (2,) in 0 to 3


def _put(values: Tensor, index: Any, new: Any) -> Tensor:
    values = values.clone()
    values[index] = new
    return values


SYNCHRONISING: dict[str, Operation] = {
    "item": lambda x, mask, rows: x.sum().item(),
    "float": lambda x, mask, rows: float(x.sum()),
    "int": lambda x, mask, rows: int(rows.max()),
    "truth": lambda x, mask, rows: bool(mask.any()),
    "slice up to a tensor": lambda x, mask, rows: x[: rows[0]],
    "nonzero": lambda x, mask, rows: mask.nonzero(),
    "where of a mask": lambda x, mask, rows: torch.where(mask),
    "mask as index": lambda x, mask, rows: x[mask],
    "rows into a mask": lambda x, mask, rows: _put(x, mask, x[:1].expand(4, 3)[mask]),
    "masked_select": lambda x, mask, rows: x.masked_select(mask[:, None]),
    "unique": lambda x, mask, rows: x.unique(),
    "equal": lambda x, mask, rows: torch.equal(x, x + 1),
    "isfinite": lambda x, mask, rows: bool(x.isfinite().all()),
    "repeat_interleave": lambda x, mask, rows: x[:2].repeat_interleave(rows, dim=0),
    "masked_fill with a tensor": lambda x, mask, rows: x.masked_fill(mask[:, None], x[0, 0]),
}
TO_HOST: dict[str, Operation] = {
    "cpu": lambda x, mask, rows: x.cpu(),
    "tolist": lambda x, mask, rows: x.tolist(),
    "copy into a CPU tensor": lambda x, mask, rows: torch.empty(4, 3).copy_(x),
}
TO_DEVICE: dict[str, Operation] = {
    "new_tensor": lambda x, mask, rows: x.new_tensor([1.0, 2.0]),
    "torch.tensor": lambda x, mask, rows: torch.tensor([1.0, 2.0], device=x.device),
    "to": lambda x, mask, rows: torch.ones(3).to(x),
    "CPU rows as index": lambda x, mask, rows: x[torch.zeros(2, dtype=torch.int64)],
    "a list as index": lambda x, mask, rows: x[[0, 2]],
    "copy from a CPU tensor": lambda x, mask, rows: x.clone().copy_(torch.ones(4, 3)),
    "where with a CPU scalar": lambda x, mask, rows: torch.where(mask[:, None], x, torch.tensor(1.0)),
}
FREE: dict[str, Operation] = {
    "arithmetic": lambda x, mask, rows: (x * 2 + 1).softmax(dim=1).mean(),
    "times a CPU scalar": lambda x, mask, rows: x * torch.tensor(2.0),
    "rows as index": lambda x, mask, rows: x[rows],
    "a number into a mask": lambda x, mask, rows: _put(x, mask, 0.0),
    "a CPU scalar into a row": lambda x, mask, rows: _put(x, 0, torch.tensor(1.0)),
    "masked_fill": lambda x, mask, rows: x.masked_fill(mask[:, None], -torch.inf),
    "where with a number": lambda x, mask, rows: torch.where(mask[:, None], x, 0.0),
    "repeat_interleave to a size": lambda x, mask, rows: x[:2].repeat_interleave(rows, dim=0, output_size=3),
    "full": lambda x, mask, rows: torch.full((3,), 2.0, device=x.device),
    "arange": lambda x, mask, rows: torch.arange(3, device=x.device),
    "randn": lambda x, mask, rows: torch.randn(3, device=x.device),
    "to its own device": lambda x, mask, rows: x.to(x.device),
    "to another type": lambda x, mask, rows: x.half(),
    "topk": lambda x, mask, rows: x.topk(2, dim=1),
    "sort": lambda x, mask, rows: x.sort(dim=0),
    "cumsum": lambda x, mask, rows: x.cumsum(0),
    "scatter": lambda x, mask, rows: x.scatter(1, rows[:, None], 1.0),
    "a loop over rows": lambda x, mask, rows: [row.sum() for row in x],
}
