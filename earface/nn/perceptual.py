"""Perceptual distance of two image batches: L1 between the feature maps of a frozen network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earface.core.errors import InputError
from earface.nn.frozen import move_frozen
from earface.nn.precision import float32_island
from earface.nn.weights import load_timm_backbone, timm_config

NAMED = {"vgg16": "vgg16.tv_in1k", "dinov2": "vit_small_patch14_dinov2.lvd142m"}  # torchvision's and Meta's weights
VGG16_MAPS = (0, 1, 2, 3)  # relu1_2, relu2_2, relu3_3, relu4_3


class PerceptualLoss:
    """L1 between the feature maps of two image batches, mean over each map's elements, then over the maps.

    backbone: "vgg16" (maps relu1_2, relu2_2, relu3_3, relu4_3), "dinov2" (the last three blocks of ViT-S/14), or
        "timm:NAME" (the maps that timm gives of that model).
    weights: "pretrained", or a weights file; see `earface.nn.weights`.
    off: the option without which no such network is needed, for the error's line.
    Images are in [0, 1]; the mean and standard deviation are the network's own. Where a network's patches do not divide
    the images, or it takes one size only, they are resampled first (bilinear, antialiased).

    A plain object that keeps its network out of its owner's parameters, state_dict, train() and deep copies (so out of
    optimiser, checkpoint and EMA). The network is frozen, always in evaluation mode, and follows the images' device.

    Raises InputError for a backbone or weights that cannot be had, and for weights "none".
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        weights: str | Path = "pretrained",
        in_channels: int = 3,
        off: str = "`perceptual_weight` 0",
    ) -> None:
        advice = f"`perceptual_weights` FILE (of another network: `perceptual_backbone` timm:NAME), or {off}"
        if backbone not in NAMED and not backbone.startswith("timm:"):
            raise InputError(f"`perceptual_backbone` {backbone}: choose vgg16, dinov2 or timm:NAME")
        if weights == "none":
            raise InputError(f"`perceptual_weights` none: a random network measures nothing: {advice}")
        if in_channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, not {in_channels}")
        self.in_channels = in_channels
        name = NAMED.get(backbone) or backbone.removeprefix("timm:")
        options: dict[str, Any] = {"advice": advice, "out_indices": VGG16_MAPS if backbone == "vgg16" else None}
        self.input_size: tuple[int, int] | None = None
        if timm_config(name).fixed_input_size:
            try:
                self.network = load_timm_backbone(name, weights, dynamic_img_size=True, **options)
            except TypeError:  # not a plain vision transformer: no table that can be interpolated
                self.network = load_timm_backbone(name, weights, **options)
                self.input_size = _config(self.network)["input_size"][-2:]
        else:
            self.network = load_timm_backbone(name, weights, **options)
        self.network.requires_grad_(False).eval()
        self.device = torch.device("cpu")
        self.mean = torch.tensor(_config(self.network)["mean"]).view(1, -1, 1, 1)
        self.std = torch.tensor(_config(self.network)["std"]).view(1, -1, 1, 1)
        info: Any = self.network.feature_info
        reductions = info.reduction()
        # A pyramid halves and pads by itself; equal strides mean patches, which must divide the image.
        self.patch = reductions[0] if self.input_size is None and len(set(reductions)) == 1 else 1

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """prediction, target: (B, in_channels, H, W) in [0, 1] -> (B,). The target gets no gradient.

        The network runs under the caller's autocast; the distance is taken in float32 or wider.
        """
        if self.device != prediction.device:
            self.to(prediction.device)
        with torch.no_grad():
            wanted = self.features(target)
        distances = [_mean_l1(found, want) for found, want in zip(self.features(prediction), wanted, strict=True)]
        return torch.stack(distances).mean(dim=0)

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) in [0, 1] -> the maps compared, finest first."""
        parameter = next(self.network.parameters())
        images = images.to(parameter.dtype).expand(-1, 3, -1, -1)
        size = self.input_size or tuple(max(round(side / self.patch), 1) * self.patch for side in images.shape[-2:])
        if size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        return self.network((images - self.mean) / self.std)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PerceptualLoss:
        """Move the network; calling the loss does it too."""
        if device is not None:
            move_frozen(self.network, device)
        with torch.inference_mode(False):
            self.network.to(dtype=dtype)
            weight = next(self.network.parameters())
            self.mean, self.std = self.mean.to(weight), self.std.to(weight)
        self.device = weight.device
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PerceptualLoss:
        return self  # frozen: a copy of the owner, such as an EMA, can share it


@float32_island
def _mean_l1(found: Tensor, wanted: Tensor) -> Tensor:
    """(B, ...) -> (B,)."""
    return (found - wanted).abs().flatten(1).mean(dim=1)


def _config(network: nn.Module) -> dict[str, Any]:
    config: Any = network.pretrained_cfg
    return config
