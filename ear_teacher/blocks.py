"""Building blocks of the ear VAE: attention, residual convolution, upsampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation


def maximum(values: Tensor, dim: int) -> Tensor:
    """`amax`, but the gradient goes to one of the largest values.

    `amax` finds these by equality. Compiled code may keep the values in float32 and the maximum in half precision; then
    none is equal, and the gradient is 0 / 0.
    """
    return values.max(dim).values


class SpatialAttention(nn.Module):
    """Weights each position by a 7x7 convolution of its mean and maximum over channels (CBAM, Woo et al. 2018).

    (B, C, H, W) -> (B, C, H, W). The gate is 2 sigmoid, so that it starts near the identity.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, maps: Tensor) -> Tensor:
        summary = torch.cat([maps.mean(1, keepdim=True), maximum(maps, 1)[:, None]], dim=1)
        return maps * (2.0 * torch.sigmoid(self.gate(summary)))


class ChannelAttention(nn.Module):
    """Weights each channel by a shared MLP of its mean and maximum over positions (CBAM, Woo et al. 2018).

    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.mlp = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, maps: Tensor) -> Tensor:
        mean = maps.mean((2, 3), keepdim=True)
        highest = maximum(maps.flatten(2), 2).view_as(mean)  # OpenCV 4 cannot add two axes at once
        return maps * torch.sigmoid(self.mlp(mean) + self.mlp(highest))


class ResidualBlock(nn.Module):
    """Convolution, batch norm, ReLU, twice, around a shortcut; then spatial attention.

    (B, in_channels, H, W) -> (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.attention = SpatialAttention()

    def forward(self, maps: Tensor) -> Tensor:
        attended: Tensor = self.attention(torch.relu(self.body(maps) + self.shortcut(maps)))
        return attended


class PreActivationBlock(nn.Module):
    """Batch norm, SiLU, convolution, twice, beside the identity (He et al. 2016); starts as the identity.

    (B, width, H, W) -> (B, width, H, W).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
        )
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]

    def forward(self, maps: Tensor) -> Tensor:
        added: Tensor = maps + self.body(maps)
        return added


class ConvAttentionBlock(nn.Module):
    """One stage of the `conv` encoder: a halving residual block with channel and spatial attention.

    (B, in_channels, H, W) -> (B, out_channels, H / 2, W / 2).
    """

    def __init__(self, in_channels: int, out_channels: int, squeeze_excitation: bool = False) -> None:
        super().__init__()
        self.residual = ResidualBlock(in_channels, out_channels, stride=2)
        self.channel_attention = ChannelAttention(out_channels)
        self.squeeze_excitation: nn.Module = nn.Identity()
        if squeeze_excitation:
            self.squeeze_excitation = SqueezeExcitation(out_channels, max(out_channels // 16, 4))

    def forward(self, maps: Tensor) -> Tensor:
        squeezed: Tensor = self.squeeze_excitation(self.channel_attention(self.residual(maps)))
        return squeezed
