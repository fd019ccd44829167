"""Image encoders behind one interface: backbone maps, then a posterior head.

`encoder(images) -> (mu, logvar)`, `encoder.features(images) -> maps, finest first`, `encoder.layer_groups()`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ear_teacher.appearance_code import AppearanceCode
from ear_teacher.backbones import Backbone
from ear_teacher.blocks import ResidualBlock
from ear_teacher.config import ENCODERS, EarVAEConfig
from ear_teacher.linear_path import LinearPath, principal_components
from earface.nn.precision import float32_island

LOGVAR_LIMIT = 10.0  # exp(10) and exp(-10) are far outside any useful posterior and inside half precision
MAX_HEAD_GRID = 8  # a wider grid would make the linear layers larger than everything else


class PosteriorHead(nn.Module):
    """Three residual blocks with spatial attention, a 1x1 reduction, and linear mu and logvar.

    maps (B, C, H, W) -> mu (B, latent_dim), logvar (B, latent_dim + further), clamped to +/- LOGVAR_LIMIT. further:
    latents whose mean comes from elsewhere.
    """

    def __init__(self, in_channels: int, grid: int, width: int, latent_dim: int, further: int = 0) -> None:
        super().__init__()
        stride = 1
        while -(-grid // stride) > MAX_HEAD_GRID:
            stride *= 2
        self.blocks = nn.Sequential(
            ResidualBlock(in_channels, width, stride), ResidualBlock(width, width), ResidualBlock(width, width)
        )
        self.reduce = nn.Conv2d(width, width // 2, 1)
        flat = width // 2 * (-(-grid // stride)) ** 2
        self.mu = nn.Linear(flat, latent_dim)
        self.logvar = nn.Linear(flat, latent_dim + further)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        flat = self.reduce(self.blocks(maps)).flatten(1)
        return self.mu(flat), self.logvar(flat).float().clamp(-LOGVAR_LIMIT, LOGVAR_LIMIT)


class IdentityHead(nn.Module):
    """A backbone's embedding (B, E) -> the latents of who it is, (B, identity_dim) float32: a linear layer."""

    def __init__(self, embedding_dim: int, identity_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding_dim, identity_dim)

    @torch.no_grad()
    def fit(self, embeddings: Tensor) -> None:
        """Start as their principal components, all divided by one number: mean variance 1, and cosines as they were.

        embeddings: (N, E) of training pictures.
        """
        mean, components, stds, _ = principal_components(embeddings.numpy(), len(self.linear.weight))
        weight = components / max(float(np.sqrt(np.square(stds).mean())), 1e-6)
        self.linear.weight.copy_(torch.from_numpy(weight))
        self.linear.bias.copy_(torch.from_numpy(-weight @ mean))

    @float32_island
    def forward(self, embedding: Tensor) -> Tensor:
        latents: Tensor = self.linear(embedding)
        return latents


def plain_layout(images: Tensor) -> Tensor:
    """On a CPU the same images with the strides of a fresh (B, C, H, W) tensor; a copy only where they differ.

    `contiguous()` takes the channels-last strides of a permuted grey batch for plain ones, and oneDNN's convolutions
    (torch 2.15) then write past the end of their buffers.
    """
    _, channels, height, width = images.shape
    if images.device.type != "cpu" or images.stride() == (channels * height * width, height * width, width, 1):
        return images
    return images.clone(memory_format=torch.contiguous_format)


class Encoder(nn.Module):
    """A backbone and its posterior head, and the linear path that it corrects, if the VAE has one.

    With an identity part, these latents follow those of shape; their means come from the backbone's embedding. With an
    appearance code, which is the last of the latents, all of them see canonical pictures, but for backbones that were
    trained on others.
    """

    linear_path: LinearPath | None = None  # the VAE's own: `share`
    appearance: AppearanceCode | None = None

    def __init__(self, backbone: Backbone, width: int, latent_dim: int, identity_dim: int = 0) -> None:
        """latent_dim: without the identity part and the appearance code."""
        super().__init__()
        self.backbone = backbone
        level = backbone.posterior_map
        self.head = PosteriorHead(backbone.channels[level], backbone.grids[level], width, latent_dim, identity_dim)
        self.identity = IdentityHead(backbone.embedding_dim, identity_dim) if identity_dim else None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) in [-1, 1] -> mu, logvar, each (B, latent_dim) in float32: the whole posterior."""
        images, code = plain_layout(images), None
        maps = self.backbone(self._seen(images))
        if self.appearance is not None:
            images, code = self.appearance.split(images)
        mu, logvar = self.head(maps[self.backbone.posterior_map])
        mu = mu.float() if self.linear_path is None else mu.float() + self.linear_path.encode(images)
        if self.identity is not None:
            mu = torch.cat([mu, self.identity(self.backbone.embedding(maps))], dim=1)
        if code is None:
            return mu, logvar
        return torch.cat([mu, code], dim=1), torch.cat([logvar, torch.full_like(code, -LOGVAR_LIMIT)], dim=1)

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, C, S, S) in [-1, 1] -> list of (B, C_i, H_i, W_i), finest first."""
        maps: list[Tensor] = self.backbone(self._seen(plain_layout(images)))
        return maps

    def embedding(self, images: Tensor) -> Tensor:
        """(B, C, S, S) in [-1, 1] -> (B, E): what the identity part is made of."""
        embedding: Tensor = self.backbone.embedding(self.features(images))
        return embedding

    def _seen(self, images: Tensor) -> Tensor:
        """What the backbone sees of them."""
        if self.appearance is None or self.backbone.with_light:
            return images
        return self.appearance.split(images)[0]

    def layer_groups(self) -> list[list[nn.Module]]:
        """The backbone's stages or blocks, from the input on, as `freeze_layers` counts them."""
        return self.backbone.layer_groups()

    def compile_regions(self, **options: Any) -> None:
        """Compile backbone and head. options: of torch.compile."""
        self.backbone.compile_regions(**options)
        self.head.compile(**options)

    def freeze(self, groups: int) -> None:
        """Freeze the backbone's first `groups` layer groups."""
        self.backbone.freeze(groups)


def build_encoder(config: EarVAEConfig, weights: str = "none") -> Encoder:
    """The encoder of `config`. `weights`: `pretrained`, `none` or a file. The head is 8 * base_channels wide."""
    return Encoder(build_backbone(config, weights), 8 * config.base_channels, config.linear_dim, config.identity_dim)


def backbone_class(encoder: str) -> type[Backbone]:
    """The class that ENCODERS names; every other name is one of timm's."""
    module, _, name = ENCODERS.get(encoder, ENCODERS["timm:NAME"]).partition(":")
    found: type[Backbone] = getattr(import_module(module), name)
    return found


def require_backbone(config: EarVAEConfig, weights: str) -> None:
    """Raise InputError if `build_backbone` would find no weights; pretrained ones are downloaded now."""
    backbone_class(config.encoder).require_weights(config, weights)


def build_backbone(config: EarVAEConfig, weights: str = "none") -> Backbone:
    """The backbone of the encoder of `config`. `weights`: `pretrained`, `none` or a file."""
    return backbone_class(config.encoder).from_config(config, weights)
