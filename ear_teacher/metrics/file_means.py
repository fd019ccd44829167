"""Means of values of images over each of the files that they come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


class FileMeans:
    """Sums on the device, by the images' places in all files in a row; sums of several processes add up."""

    def __init__(self, sizes: Sequence[int], names: Sequence[str], device: torch.device) -> None:
        """sizes: images of each file. names: of the values."""
        self.names = list(names)
        self.starts = torch.tensor(np.cumsum([0, *sizes])[:-1], device=device)
        self.sums = torch.zeros(len(sizes), 1 + len(names), device=device)

    def add(self, values: Mapping[str, Tensor], index: Tensor) -> None:
        """values: (B,) each, by name; index: (B,)."""
        file = torch.bucketize(index, self.starts, right=True) - 1
        of_file = file == torch.arange(len(self.starts), device=file.device)[:, None]
        columns = [values[name].to(self.sums.dtype) for name in self.names]
        self.sums += of_file.to(self.sums.dtype) @ torch.stack([torch.ones_like(columns[0]), *columns], dim=1)

    def means(self, total: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """`NAME_NUMBER` of each file, numbered from 1. total: sums a tensor over all processes."""
        sums = total(self.sums).cpu()
        rows = (sums[:, 1:] / sums[:, :1]).tolist()
        return {
            f"{name}_{number}": value
            for number, row in enumerate(rows, 1)
            for name, value in zip(self.names, row, strict=True)
        }
