"""Random tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def noise(*shape: int, seed: int = 0) -> Tensor:
    """In [-1, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
