"""Image encoders behind one interface: backbone maps, then a posterior head.

`encoder(images) -> (mu, logvar)`, `encoder.features(images) -> maps, finest first`, `encoder.layer_groups()`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from data.errors import InputError
from ear_teacher.backbones import Backbone, ConvBackbone, DINOv2Backbone, TimmBackbone
from ear_teacher.blocks import ResidualBlock
from ear_teacher.config import RESNETS, EarVAEConfig
from ear_teacher.sam import SAMBackbone

LOGVAR_LIMIT = 10.0  # exp(10) and exp(-10) are far outside any useful posterior and inside half precision
MAX_HEAD_GRID = 8  # a wider grid would make the linear layers larger than everything else


class PosteriorHead(nn.Module):
    """Three residual blocks with spatial attention, a 1x1 reduction, and linear mu and logvar.

    maps (B, C, H, W) -> mu, logvar, each (B, latent_dim). `logvar` is clamped to +/- LOGVAR_LIMIT.
    """

    def __init__(self, in_channels: int, grid: int, width: int, latent_dim: int) -> None:
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
        self.logvar = nn.Linear(flat, latent_dim)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        flat = self.reduce(self.blocks(maps)).flatten(1)
        return self.mu(flat), self.logvar(flat).float().clamp(-LOGVAR_LIMIT, LOGVAR_LIMIT)


class Encoder(nn.Module):
    """A backbone and its posterior head; the first `freeze` layer groups can be frozen."""

    def __init__(self, backbone: Backbone, width: int, latent_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen_groups = 0
        self.head = PosteriorHead(backbone.channels[-1], backbone.grid, width, latent_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) in [-1, 1] -> mu, logvar, each (B, latent_dim)."""
        return self.head(self.features(images)[-1])

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, C, S, S) in [-1, 1] -> list of (B, C_i, H_i, W_i), finest first."""
        return self.backbone(images)

    def layer_groups(self) -> list[list[nn.Module]]:
        """The backbone's stages or blocks, from the input on: what `--freeze-layers` counts."""
        return self.backbone.layer_groups()

    def freeze(self, groups: int) -> None:
        """Take the first `groups` layer groups out of training: no gradient, and evaluation mode for good."""
        available = len(self.layer_groups())
        if groups > available:
            raise InputError(f"--freeze-layers {groups}: this encoder has {available} layer groups")
        self.frozen_groups = groups
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()  # requires_grad=False alone would let batch statistics drift
        return self

    def _frozen_modules(self) -> Sequence[nn.Module]:
        return [module for group in self.layer_groups()[: self.frozen_groups] for module in group]


def build_encoder(config: EarVAEConfig, weights: str = "none") -> Encoder:
    """The encoder of `config`. `weights`: `pretrained`, `none` or a file. The head is 8 * base_channels wide."""
    name, in_channels, size = config.encoder, config.in_channels, config.image_size
    backbone: Backbone
    if name == "conv":
        if weights not in ("pretrained", "none"):
            raise InputError(f"--encoder-weights {weights}: the conv encoder has no published weights; use none")
        backbone = ConvBackbone(in_channels, config.base_channels, size)
    elif name == "dinov2":
        backbone = DINOv2Backbone(config.dinov2_variant, in_channels, config.dinov2_size or size // 14 * 14, weights)
    elif name == "sam":
        backbone = SAMBackbone(in_channels, config.sam_size or size, weights)
    elif name in RESNETS:
        backbone = TimmBackbone(f"{name}.tv_in1k", in_channels, size, weights)
    else:
        backbone = TimmBackbone(name.removeprefix("timm:"), in_channels, size, weights)
    return Encoder(backbone, 8 * config.base_channels, config.latent_dim)
