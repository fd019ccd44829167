"""What every loss of this project returns, and the distance of feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from earface.nn.precision import float32_island


@dataclass(frozen=True)
class LossResult:
    """total: the scalar to minimise. terms: its parts by name, before their weights."""

    total: Tensor
    terms: dict[str, Tensor]


def training_processes() -> int:
    """How many processes' batches make up one. Where nothing is learnt, as in validation, each stands alone."""
    if not (dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()):
        return 1
    return dist.get_world_size()


def shared_count(count: Tensor) -> Tensor:
    """Of what a loss is the mean over, at least 1: in training the mean of all processes' counts, in any shape.

    Of losses divided by it, the mean over processes, as of their gradients, is that of all samples in one process. All
    processes have to call it.
    """
    world = training_processes()
    if world > 1:
        count = count.clone()
        dist.all_reduce(count)
    return count.clamp(min=1) / world


def feature_matching_loss(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Maps of n stages, (B, C, h, w) each, twice -> the mean over stages of the mean absolute difference."""
    return torch.stack([_map_distance(one, other) for one, other in zip(found, wanted, strict=True)]).mean()


@float32_island
def _map_distance(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).abs().mean()
