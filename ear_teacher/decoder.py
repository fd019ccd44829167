"""The decoder of the ear VAE: a latent to an image, by doublings."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.appearance_code import AppearanceCode
from ear_teacher.blocks import ResidualBlock
from ear_teacher.linear_path import LinearPath


class Decoder(nn.Module):
    """Linear to a grid of size / 32, then five doublings; the latent enters every scale.

    latent (B, D) -> (B, channels, S, S) in [-1, 1]. With `guided` its output corrects the image that the linear path
    decodes, which it also gets at every scale; its last layer starts at zero. With an appearance code, the last of the
    latents, it decodes a canonical picture, to which the code gives its light back.
    """

    linear_path: LinearPath | None = None  # the VAE's own: `share`
    appearance: AppearanceCode | None = None

    def __init__(self, latent_dim: int, image_size: int, channels: int, base_channels: int, guided: bool) -> None:
        super().__init__()
        self.grid = image_size // 32
        widths = [max(int(base_channels * factor), 8) for factor in (8, 8, 4, 2, 1, 0.5)]
        self.project = nn.Linear(latent_dim, widths[0] * self.grid**2)
        self.stem = ResidualBlock(widths[0], widths[0])
        self.ups = nn.ModuleList(
            UpBlock(before, after, latent_dim, channels if guided else 0) for before, after in pairwise(widths)
        )
        self.to_pixels = nn.Conv2d(widths[-1], channels, 3, padding=1)
        if guided:
            nn.init.zeros_(self.to_pixels.weight)
            nn.init.zeros_(self.to_pixels.bias)  # type: ignore[arg-type]

    def forward(self, latent: Tensor) -> Tensor:
        if self.appearance is None:
            return self._picture(latent)
        shape, code = latent.split([latent.shape[1] - self.appearance.size, self.appearance.size], dim=1)
        return self.appearance.restore(self._picture(shape), code)

    def _picture(self, latent: Tensor) -> Tensor:
        if self.linear_path is None:
            return torch.tanh(self._pixels(latent, None))
        guide = self.linear_path.decode(latent)
        return (guide + self._pixels(latent, guide).float()).clamp(-1.0, 1.0)

    def _pixels(self, latent: Tensor, guide: Tensor | None) -> Tensor:
        maps = self.stem(self.project(latent).unflatten(1, (-1, self.grid, self.grid)))
        for doubling, up in enumerate(self.ups, 1):
            maps = up(maps, latent, None if guide is None else F.avg_pool2d(guide, 32 // 2**doubling))
        pixels: Tensor = self.to_pixels(maps)
        return pixels


class UpBlock(nn.Module):
    """Doubles the grid, lets the latent scale and shift every channel, and refines with a residual block.

    maps (B, in_channels, H, W), latent (B, D), guide (B, guide_channels, 2H, 2W) -> (B, out_channels, 2H, 2W). The
    scale and shift are FiLM's (Perez et al. 2018); they start at the identity. The guide is the image that the
    linear path decodes, at this scale.
    """

    def __init__(self, in_channels: int, out_channels: int, latent_dim: int, guide_channels: int = 0) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.modulation = nn.Linear(latent_dim, 2 * out_channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.refine = ResidualBlock(out_channels + guide_channels, out_channels)

    def forward(self, maps: Tensor, latent: Tensor, guide: Tensor | None = None) -> Tensor:
        scale, shift = self.modulation(latent)[:, :, None, None].chunk(2, dim=1)
        maps = torch.relu(self.norm(self.upsample(maps)) * (1.0 + scale) + shift)
        if guide is not None:
            maps = torch.cat([maps, guide.to(maps.dtype)], dim=1)
        refined: Tensor = self.refine(maps)
        return refined
