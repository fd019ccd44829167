"""Image encoders behind one interface: backbone maps, then a posterior head.

`encoder(images) -> (mu, logvar)`, `encoder.features(images) -> maps, finest first`, `encoder.layer_groups()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from data.errors import InputError
from ear_teacher.blocks import ConvAttentionBlock, ResidualBlock
from training.weights import load_timm_backbone, timm_config

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
ENCODERS = (*RESNETS, "conv", "timm:NAME")
LOGVAR_LIMIT = 10.0  # exp(10) and exp(-10) are far outside any useful posterior and inside half precision
MAX_HEAD_GRID = 8  # a wider grid would make the linear layers larger than everything else


class ConvBackbone(nn.Module):
    """Four halving stages with channel and spatial attention; squeeze-excitation at the bottleneck.

    images (B, C, S, S) in [-1, 1] -> maps of widths b, 2b, 4b, 8b at S/2, S/4, S/8, S/16.
    """

    def __init__(self, in_channels: int, base_channels: int) -> None:
        super().__init__()
        self.channels = [base_channels * factor for factor in (1, 2, 4, 8)]
        widths = [in_channels, *self.channels]
        self.stages = nn.ModuleList(
            ConvAttentionBlock(before, after, squeeze_excitation=after == widths[-1])
            for before, after in pairwise(widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps

    def layer_groups(self) -> list[list[nn.Module]]:
        return [[stage] for stage in self.stages]


class TimmBackbone(nn.Module):
    """Any timm model with feature maps. It owns the mean and standard deviation that it was pretrained with.

    images (B, C, S, S) in [-1, 1] -> maps from stride 4 on. `weights` as in `training.weights.load_timm_backbone`.
    """

    net: Any  # timm adds attributes that its types do not tell
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, in_channels: int, image_size: int, weights: str) -> None:
        super().__init__()
        config = timm_config(name)
        fixed: dict[str, Any] = {"img_size": image_size} if config.fixed_input_size else {}
        advice = "give a file with --encoder_weights PATH, or start from random weights with --encoder_weights none"
        self.net = load_timm_backbone(name, weights, in_chans=in_channels, advice=advice, **fixed)
        mean, std = torch.tensor(config.mean), torch.tensor(config.std)
        if in_channels == 1:
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, -1, 1, 1), persistent=False)
        info = self.net.feature_info
        reductions = info.reduction()
        self.kept = [index for index, reduction in enumerate(reductions) if reduction >= 4]
        self.channels = [info.channels()[index] for index in self.kept]

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.net((images * 0.5 + 0.5 - self.mean) / self.std)
        return [maps[index] for index in self.kept]

    def layer_groups(self) -> list[list[nn.Module]]:
        """Stages, or transformer blocks, from the input on; the stem belongs to the first."""
        inner = getattr(self.net, "model", None)
        if inner is not None and hasattr(inner, "blocks"):
            names = [name for name, _ in inner.named_children()]
            around = [module for name, module in inner.named_children() if name != "blocks"]
            stem, tail = around[: names.index("blocks")], around[names.index("blocks") :]
            loose = nn.ParameterList(inner.parameters(recurse=False))  # position embedding, class token
            groups: list[list[nn.Module]] = [[block] for block in inner.blocks]
            groups[0] = [loose, *stem, *groups[0]]
            groups[-1] += tail
            return groups
        ends = {self.net.feature_info.module_name()[index].replace(".", "_") for index in self.kept}
        groups = [[]]
        for name, module in self.net.named_children():
            groups[-1].append(module)
            if name in ends:
                groups.append([])
        return [group for group in groups if group]


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

    def __init__(self, backbone: ConvBackbone | TimmBackbone, image_size: int, width: int, latent_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.frozen_groups = 0
        with torch.no_grad():
            example = torch.zeros(1, _in_channels(backbone), image_size, image_size)
            coarsest = backbone.eval()(example)[-1]
        backbone.train()
        self.head = PosteriorHead(coarsest.shape[1], coarsest.shape[-1], width, latent_dim)

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


def _in_channels(backbone: nn.Module) -> int:
    return next(module.in_channels for module in backbone.modules() if isinstance(module, nn.Conv2d))


def build_encoder(
    name: str,
    *,
    image_size: int,
    latent_dim: int,
    in_channels: int = 3,
    base_channels: int = 64,
    weights: str = "none",
) -> Encoder:
    """`name` is one of ENCODERS. `weights`: `pretrained`, `none` or a file. The head is 8 * base_channels wide."""
    backbone: ConvBackbone | TimmBackbone
    if name == "conv":
        if weights not in ("pretrained", "none"):
            raise InputError(f"--encoder-weights {weights}: the conv encoder has no published weights; use none")
        backbone = ConvBackbone(in_channels, base_channels)
    elif name in RESNETS:
        backbone = TimmBackbone(f"{name}.tv_in1k", in_channels, image_size, weights)
    elif name.startswith("timm:"):
        backbone = TimmBackbone(name.removeprefix("timm:"), in_channels, image_size, weights)
    else:
        raise InputError(f"--encoder {name}: choose one of {', '.join(ENCODERS)}")
    return Encoder(backbone, image_size, 8 * base_channels, latent_dim)
