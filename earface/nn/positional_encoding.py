"""EdgeNeXt's positional encoding as a constant: timm's brings numbers from the CPU at every call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.models.edgenext import PositionalEncodingFourier
from torch import Tensor, nn


class SharedPositionalEncoding(nn.Module):
    """timm's encoding of a grid of side x side, the same bits on a CPU: its waves are a constant, their projection is
    computed once a batch instead of once an image. It takes over timm's projection, weights and names."""

    waves: Tensor

    def __init__(self, timms: PositionalEncodingFourier, side: int) -> None:
        super().__init__()
        self.hidden_dim, self.temperature = timms.hidden_dim, timms.temperature
        self.token_projection = timms.token_projection
        self.register_buffer("waves", self.waves_of(side, side), persistent=False)

    def forward(self, shape: tuple[int, int, int]) -> Tensor:
        """(batch, height, width) -> (batch, dim, height, width)."""
        batch, height, width = shape
        fits = (height, width) == tuple(self.waves.shape[2:])
        waves = self.waves if fits else self.waves_of(height, width)
        return self.token_projection(waves.to(self.token_projection.weight)).expand(batch, -1, -1, -1)

    def waves_of(self, height: int, width: int) -> Tensor:
        """(1, 2 hidden_dim, height, width) float32 in [-1, 1]: sines and cosines of the row, then of the column."""
        rows = fourier_waves(height, self.hidden_dim, self.temperature)[:, :, None].expand(-1, -1, width)
        columns = fourier_waves(width, self.hidden_dim, self.temperature)[:, None, :].expand(-1, height, -1)
        return torch.cat([rows, columns])[None].contiguous()


def fourier_waves(side: int, hidden_dim: int, temperature: float) -> Tensor:
    """(hidden_dim, side) float32 in [-1, 1]: sines and cosines of each place."""
    place = torch.arange(1, side + 1, dtype=torch.float32)
    place = place / (side + 1e-6) * (2 * math.pi)
    channel = torch.arange(hidden_dim).float()
    angles = place[:, None] / temperature ** (2 * torch.div(channel, 2, rounding_mode="floor") / hidden_dim)
    return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1).T


def share_positional_encodings(network: nn.Module, stages: Sequence[dict[str, Any]], image_size: int) -> None:
    """Put SharedPositionalEncoding in the place of timm's, in an EdgeNeXt; any other network stays as it is.

    stages: timm's feature information, from which the side of each stage's grid follows.
    """
    for name, module in list(network.named_modules()):
        if type(module) is PositionalEncodingFourier:
            stage = int(next(part for part in name.replace("_", ".").split(".") if part.isdecimal()))
            parent, _, child = name.rpartition(".")
            shared = SharedPositionalEncoding(module, image_size // stages[stage]["reduction"])
            setattr(network.get_submodule(parent), child, shared)
