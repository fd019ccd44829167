"""The decoders of the ear VAE: a latent to an image, by doublings down to single pixels or to squares of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.appearance_code import AppearanceCode
from ear_teacher.blocks import PreActivationBlock, ResidualBlock
from ear_teacher.config import EarVAEConfig
from ear_teacher.linear_path import LinearPath


class Decoder(nn.Module, ABC):
    """latent (B, D) -> image (B, channels, S, S) in [-1, 1].

    With a linear path a decoder corrects the image that it decodes; the last layer starts at zero. With an appearance
    code, the last of the latents, it decodes a canonical picture, to which the code gives its light back.
    """

    linear_path: LinearPath | None = None  # the VAE's own: `share`
    appearance: AppearanceCode | None = None

    def forward(self, latent: Tensor) -> Tensor:
        if self.appearance is None:
            return self._picture(latent)
        shape, code = latent.split([latent.shape[1] - self.appearance.size, self.appearance.size], dim=1)
        return self.appearance.restore(self._picture(shape), code)

    def _picture(self, latent: Tensor) -> Tensor:
        if self.linear_path is None:
            return torch.tanh(self.pixels(latent, None))
        guide = self.linear_path.decode(latent)
        return (guide + self.pixels(latent, guide).float()).clamp(-1.0, 1.0)

    @abstractmethod
    def pixels(self, latent: Tensor, guide: Tensor | None) -> Tensor:
        """The network's image, or its correction of the guide, the image of the linear path (B, channels, S, S)."""


def build_decoder(config: EarVAEConfig) -> Decoder:
    shape = (config.shape_dim, config.image_size, config.in_channels, config.base_channels)
    guided = config.linear_path_size > 0
    if config.patch_size > 1:
        return PatchDecoder(*shape, guided=guided, patch_size=config.patch_size)
    return PixelDecoder(*shape, guided=guided)


class PixelDecoder(Decoder):
    """Linear to a grid of S / 32, then five doublings to single pixels; latent and guide enter every scale."""

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
            zero(self.to_pixels)

    def pixels(self, latent: Tensor, guide: Tensor | None) -> Tensor:
        maps = self.stem(self.project(latent).unflatten(1, (-1, self.grid, self.grid)))
        for doubling, up in enumerate(self.ups, 1):
            maps = up(maps, latent, None if guide is None else F.avg_pool2d(guide, 32 // 2**doubling))
        image: Tensor = self.to_pixels(maps)
        return image


class UpBlock(nn.Module):
    """Doubles the grid, lets the latent scale and shift every channel, and refines.

    maps (B, in_channels, H, W), latent (B, D), guide (B, guide_channels, 2H, 2W) -> (B, out_channels, 2H, 2W). The
    scale and shift are FiLM's (Perez et al. 2018); they start at the identity. The guide is the image that the
    linear path decodes, at this scale.
    """

    def __init__(self, in_channels: int, out_channels: int, latent_dim: int, guide_channels: int = 0) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.modulation = nn.Linear(latent_dim, 2 * out_channels)
        zero(self.modulation)
        self.refine = ResidualBlock(out_channels + guide_channels, out_channels)

    def forward(self, maps: Tensor, latent: Tensor, guide: Tensor | None = None) -> Tensor:
        scale, shift = self.modulation(latent)[:, :, None, None].chunk(2, dim=1)
        maps = torch.relu(self.norm(self.upsample(maps)) * (1.0 + scale) + shift)
        if guide is not None:
            maps = torch.cat([maps, guide.to(maps.dtype)], dim=1)
        refined: Tensor = self.refine(maps)
        return refined


class PatchDecoder(Decoder):
    """Linear to a grid of S / 16, then doublings to a grid of S / `patch_size`, each place of which becomes a square of
    pixels (sub-pixel convolution, Shi et al. 2016): without the widest grids, which take most of a decoder's time."""

    def __init__(
        self, latent_dim: int, image_size: int, channels: int, base_channels: int, guided: bool, patch_size: int
    ) -> None:
        super().__init__()
        self.grid, self.patch_size = image_size // 16, patch_size
        patches = [patch for patch in (16, 8, 4, 2) if patch >= patch_size]  # pixels a side of a place of each grid
        widths = [base_channels * patch // 2 for patch in patches]
        self.project = nn.Linear(latent_dim, widths[0] // 2 * self.grid**2)
        first = nn.Conv2d(widths[0] // 2, widths[0], 3, padding=1)
        doublings = (
            nn.Sequential(nn.Conv2d(before, after * 4, 1), nn.PixelShuffle(2)) for before, after in pairwise(widths)
        )
        self.scales = nn.ModuleList(
            PatchScale(enter, width, latent_dim, patch, channels if guided else 0)
            for enter, width, patch in zip([first, *doublings], widths, patches, strict=True)
        )
        self.to_patches = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], channels * patch_size**2, 3, padding=1)
        )
        if guided:
            zero(self.to_patches[-1])

    def pixels(self, latent: Tensor, guide: Tensor | None) -> Tensor:
        maps = self.project(latent).unflatten(1, (-1, self.grid, self.grid))
        for scale in self.scales:
            maps = scale(maps, latent, guide)
        image: Tensor = F.pixel_shuffle(self.to_patches(maps), self.patch_size)
        return image


class PatchScale(nn.Module):
    """One grid of a `PatchDecoder`: maps of the grid before, and the guide, all pixels of each place's `patch`, scaled
    and shifted by the latent (FiLM, Perez et al. 2018, from the identity), through `DEPTH` residual blocks.

    maps (B, in_channels, H, W), latent (B, D), guide (B, guide_channels, S, S) -> (B, width, G, G), G = S / patch.
    """

    DEPTH = 2

    def __init__(self, enter: nn.Module, width: int, latent_dim: int, patch: int, guide_channels: int) -> None:
        """enter: from the maps of the grid before to `width` channels on this one."""
        super().__init__()
        self.enter, self.patch = enter, patch
        self.guide: nn.Module | None = None
        if guide_channels:
            size = 1 if patch == 16 else 3  # 768 channels need no neighbours
            self.guide = nn.Conv2d(guide_channels * patch**2, width, size, padding=size // 2)
        self.modulation = nn.Linear(latent_dim, 2 * width)
        zero(self.modulation)
        self.blocks = nn.Sequential(*(PreActivationBlock(width) for _ in range(self.DEPTH)))

    def forward(self, maps: Tensor, latent: Tensor, guide: Tensor | None) -> Tensor:
        maps = self.enter(maps)
        if self.guide is not None and guide is not None:
            maps = maps + self.guide(F.pixel_unshuffle(guide, self.patch))
        scale, shift = self.modulation(latent)[:, :, None, None].chunk(2, dim=1)
        refined: Tensor = self.blocks(maps * (1.0 + scale) + shift)
        return refined


def zero(layer: nn.Module) -> None:
    """A linear layer or convolution that starts by giving nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
