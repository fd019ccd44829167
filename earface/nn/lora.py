"""Low-rank adapters of linear layers (Hu et al. 2022), as parametrisations of their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from earface.core.errors import InputError


class LowRank(nn.Module):
    """weight (O, I) -> weight + up @ down, with up (O, rank) and down (rank, I); the update is zero at the start."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_adapters(model: nn.Module, rank: int) -> list[LowRank]:
    """Adapters on every linear layer that is larger than they are; all else in `model` is frozen.

    Raises InputError if `rank` leaves no layer to adapt.
    """
    model.requires_grad_(False)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    adapted = [layer for layer in layers if rank < min(layer.weight.shape)]
    if not adapted:
        largest = max((min(layer.weight.shape) for layer in layers), default=1)
        raise InputError(f"`lora_rank` {rank}: no linear layer is larger; give less than {largest}")
    adapters = [LowRank(layer.weight, rank) for layer in adapted]
    for layer, adapter in zip(adapted, adapters, strict=True):
        parametrize.register_parametrization(layer, "weight", adapter)
    return adapters


def under_adapters(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of a model without adapters, `state`, under the names of `model`, whose adapters stay as they are."""
    found: dict[str, Tensor] = {}
    for name, own in model.state_dict().items():
        plain = name.replace(".parametrizations.weight.original", ".weight")
        if ".parametrizations." in plain:
            found[name] = own
        elif plain in state:
            found[name] = state[plain]
    return found


def merge_adapters(model: nn.Module) -> None:
    """The adapted weights become plain ones; outputs stay the same, bit for bit."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
