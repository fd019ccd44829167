"""What every loss of this project returns, and the distance of feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from earface.nn.precision import float32_island


@dataclass(frozen=True)
class LossResult:
    """total: the scalar to minimise. terms: its parts by name, before their weights."""

    total: Tensor
    terms: dict[str, Tensor]


def feature_matching_loss(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Maps of n stages, (B, C, h, w) each, twice -> the mean over stages of the mean absolute difference."""
    return torch.stack([_map_distance(one, other) for one, other in zip(found, wanted, strict=True)]).mean()


@float32_island
def _map_distance(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).abs().mean()
