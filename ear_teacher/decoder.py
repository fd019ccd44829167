"""The decoder of the ear VAE: a latent to an image, by doublings."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.appearance_code import AppearanceCode
from ear_teacher.blocks import ResidualBlock
from ear_teacher.linear_path import LinearPath


class Decoder(nn.Module):
    """Linear to a grid of size / 32, then doublings to size / `patch_size`; the latent enters every scale.

    latent (B, D) -> (B, channels, S, S) in [-1, 1]. Every place of the last grid becomes a square of `patch_size`
    pixels a side (sub-pixel convolution, Shi et al. 2016): with 1 there are five doublings, with 4 three, of twice the
    depth, which leaves out the widest grids and most of the time. With `guided` its output corrects the image that the
    linear path decodes, which it also gets at every scale; its last layer starts at zero. With an appearance code, the
    last of the latents, it decodes a canonical picture, to which the code gives its light back.
    """

    linear_path: LinearPath | None = None  # the VAE's own: `share`
    appearance: AppearanceCode | None = None

    def __init__(
        self,
        latent_dim: int,
        image_size: int,
        channels: int,
        base_channels: int,
        guided: bool,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        self.grid, self.patch_size = image_size // 32, patch_size
        widths = [max(int(base_channels * factor), 8) for factor in (8, 8, 4, 2, 1, 0.5)]
        widths = widths[: len(widths) - int(math.log2(patch_size))]
        of_patch = channels * patch_size**2
        self.project = nn.Linear(latent_dim, widths[0] * self.grid**2)
        self.stem = ResidualBlock(widths[0], widths[0])
        self.ups = nn.ModuleList(
            UpBlock(before, after, latent_dim, of_patch if guided else 0, depth=1 if patch_size == 1 else 2)
            for before, after in pairwise(widths)
        )
        self.to_pixels = nn.Conv2d(widths[-1], of_patch, 3, padding=1)
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
        patch = self.patch_size
        for doubling, up in enumerate(self.ups, 1):
            here = None
            if guide is not None:
                here = F.pixel_unshuffle(F.avg_pool2d(guide, 32 // 2**doubling // patch), patch)
            maps = up(maps, latent, here)
        pixels: Tensor = F.pixel_shuffle(self.to_pixels(maps), patch)
        return pixels


class UpBlock(nn.Module):
    """Doubles the grid, lets the latent scale and shift every channel, and refines with `depth` residual blocks.

    maps (B, in_channels, H, W), latent (B, D), guide (B, guide_channels, 2H, 2W) -> (B, out_channels, 2H, 2W). The
    scale and shift are FiLM's (Perez et al. 2018); they start at the identity. The guide is the image that the
    linear path decodes, at this scale: what of it lies in each place, patch by patch.
    """

    def __init__(
        self, in_channels: int, out_channels: int, latent_dim: int, guide_channels: int = 0, depth: int = 1
    ) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.modulation = nn.Linear(latent_dim, 2 * out_channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.refine: nn.Module = ResidualBlock(out_channels + guide_channels, out_channels)
        if depth > 1:
            self.refine = nn.Sequential(
                self.refine, *(ResidualBlock(out_channels, out_channels) for _ in range(depth - 1))
            )

    def forward(self, maps: Tensor, latent: Tensor, guide: Tensor | None = None) -> Tensor:
        scale, shift = self.modulation(latent)[:, :, None, None].chunk(2, dim=1)
        maps = torch.relu(self.norm(self.upsample(maps)) * (1.0 + scale) + shift)
        if guide is not None:
            maps = torch.cat([maps, guide.to(maps.dtype)], dim=1)
        refined: Tensor = self.refine(maps)
        return refined
