"""What every loss of this project returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossResult:
    """total: the scalar to minimise. terms: its parts by name, before their weights."""

    total: Tensor
    terms: dict[str, Tensor]
