"""Backbones: networks that turn an image into maps. Each has the mean and standard deviation it was trained with.

`backbone(images) -> maps, finest first`, `backbone.channels` and `backbone.grids` of these, `backbone.layer_groups()`,
`backbone.freeze(groups)`, `backbone.embedding(maps)`, and, where supported, `backbone.set_grad_checkpointing()`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ear_teacher.blocks import ConvAttentionBlock
from ear_teacher.config import RESNETS, EarVAEConfig
from earface.core.errors import InputError
from earface.nn.positional_encoding import share_positional_encodings
from earface.nn.weights import load_timm_backbone, normalisation_of, require_weights, timm_config

WEIGHTS_ADVICE = (
    "`encoder_weights` FILE (the authors' .pth, or transformers' or timm's .safetensors), or none to start from random "
    "ones"
)
DINOV2_VARIANTS = {
    "vits14": "vit_small_patch14_dinov2.lvd142m",
    "vitb14": "vit_base_patch14_dinov2.lvd142m",
    "vits14_reg": "vit_small_patch14_reg4_dinov2.lvd142m",
    "vitb14_reg": "vit_base_patch14_reg4_dinov2.lvd142m",
}


class Backbone(nn.Module, ABC):
    """The network below an encoder or a detector; its first layer groups can be frozen."""

    channels: list[int]  # of each map, finest first
    grids: list[int]  # their sides
    posterior_map = -1  # which of them the posterior is made of
    frozen_groups = 0
    with_light = False  # whether it sees a picture with its light where an appearance code takes that out of the others

    @property
    def embedding_dim(self) -> int:
        return self.channels[-1]

    def embedding(self, maps: list[Tensor]) -> Tensor:
        """One vector an image, (B, embedding_dim), of its maps: the coarsest, averaged over positions."""
        return maps[-1].mean(dim=(2, 3))

    @classmethod
    @abstractmethod
    def from_config(cls, config: EarVAEConfig, weights: str) -> Self:
        """weights: `pretrained`, `none` or a file. Raises InputError for weights that cannot be had."""

    @staticmethod
    def timm_name(config: EarVAEConfig) -> str | None:
        """Which of timm's models has its pretrained weights; None: there are none."""
        return None

    @classmethod
    def require_weights(cls, config: EarVAEConfig, weights: str) -> None:
        """Raise InputError if `from_config` would find no weights; pretrained ones are downloaded now."""
        name = cls.timm_name(config)
        if name is not None:
            require_weights(name, weights, WEIGHTS_ADVICE)

    @abstractmethod
    def layer_groups(self) -> list[list[nn.Module]]:
        """Stages, or transformer blocks, from the input on, as `freeze_layers` counts them; the first has the stem."""

    def freeze(self, groups: int) -> None:
        """Freeze the first `groups` layer groups: no gradient, and always in evaluation mode."""
        available = len(self.layer_groups())
        if groups > available:
            raise InputError(f"`freeze_layers` {groups}: this encoder has {available} layer groups")
        self.frozen_groups = groups
        for module in self._frozen_modules():
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()  # requires_grad=False alone would let batch statistics drift
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        if not self.frozen_groups:
            return []
        return [module for group in self.layer_groups()[: self.frozen_groups] for module in group]

    def compile_regions(self, **options: Any) -> None:
        """Compile it: as a whole, or block by block where blocks are alike. options: of torch.compile."""
        self.compile(**options)

    def set_grad_checkpointing(self) -> None:
        raise InputError("`gradient_checkpointing`: this encoder has no transformer blocks; leave it out")


class PretrainedBackbone(Backbone):
    """`normalise` maps images from [-1, 1] to the mean and std of the weights, which checkpoints store."""

    mean: Tensor
    std: Tensor

    def own_normalisation(self, net: nn.Module, in_channels: int) -> None:
        config = normalisation_of(net)
        for name in ("mean", "std"):
            values = torch.tensor(config[name])
            values = values.mean(0, keepdim=True) if in_channels == 1 else values
            self.register_buffer(name, values.view(1, -1, 1, 1))

    def normalise(self, images: Tensor) -> Tensor:
        return (images * 0.5 + 0.5 - self.mean) / self.std


class ConvBackbone(Backbone):
    """Four halving stages with channel and spatial attention; squeeze-excitation at the bottleneck.

    images (B, C, S, S) in [-1, 1] -> maps of widths b, 2b, 4b, 8b at S/2, S/4, S/8, S/16.
    """

    @classmethod
    def from_config(cls, config: EarVAEConfig, weights: str) -> Self:
        if weights not in ("pretrained", "none"):
            raise InputError(f"`encoder_weights` {weights}: the conv encoder has no published weights; use none")
        return cls(config.in_channels, config.base_channels, config.image_size)

    def __init__(self, in_channels: int, base_channels: int, image_size: int) -> None:
        super().__init__()
        self.channels = [base_channels * factor for factor in (1, 2, 4, 8)]
        self.grids = [image_size // 2**doubling for doubling in (1, 2, 3, 4)]
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


class TimmBackbone(PretrainedBackbone):
    """Any timm model with feature maps; `weights` as in `earface.nn.weights.load_timm_backbone`.

    images (B, C, S, S) in [-1, 1] -> maps from stride 4 on.
    """

    net: Any  # timm sets attributes that its type hints lack

    @classmethod
    def from_config(cls, config: EarVAEConfig, weights: str) -> Self:
        return cls(cls.timm_name(config), config.in_channels, config.image_size, weights)

    @staticmethod
    def timm_name(config: EarVAEConfig) -> str:
        name = config.encoder
        return f"{name}.tv_in1k" if name in RESNETS else name.removeprefix("timm:")

    def __init__(self, name: str, in_channels: int, image_size: int, weights: str) -> None:
        super().__init__()
        about = timm_config(name)
        fixed: dict[str, Any] = {"img_size": image_size} if about.fixed_input_size else {}
        try:
            self.net = load_timm_backbone(name, weights, in_chans=in_channels, advice=WEIGHTS_ADVICE, **fixed)
            self.own_normalisation(self.net, in_channels)
            info = self.net.feature_info
            share_positional_encodings(self.net, info.get_dicts(), image_size)
            self.kept = [index for index, reduction in enumerate(info.reduction()) if reduction >= 4]
            self.channels = [info.channels()[index] for index in self.kept]
            patch = info.reduction()[0]
            if len(set(info.reduction())) == 1 and image_size % patch:  # timm would silently drop the last pixels
                raise InputError(f"`image_size` {image_size}: {name} takes multiples of its patch, {patch}")
            with torch.no_grad():
                maps = self.eval()(torch.zeros(1, in_channels, image_size, image_size))
        except (InputError, OSError, MemoryError):
            raise
        except Exception as error:  # a network of one size or without maps says so in its own way
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            own = about.input_size[-1]
            raise InputError(
                f"`encoder` timm:{name}: gives no maps of a {image_size} px image ({reason}): try "
                f"{f'`image_size` {own}' if own % 32 == 0 else 'another `image_size`'}, or another encoder"
            ) from error
        self.grids = [each.shape[-1] for each in maps]
        self.train()

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = self.net(self.normalise(images))
        if getattr(self.net, "output_fmt", "NCHW") == "NHWC":  # Swin, MambaOut, Sequencer
            maps = [each.permute(0, 3, 1, 2) for each in maps]
        return [maps[index] for index in self.kept]

    def layer_groups(self) -> list[list[nn.Module]]:
        inner = getattr(self.net, "model", None)
        if inner is not None and hasattr(inner, "blocks"):
            return transformer_groups(inner)
        ends = {self.net.feature_info.module_name()[index].replace(".", "_") for index in self.kept}
        groups: list[list[nn.Module]] = [[]]
        for name, module in self.net.named_children():
            groups[-1].append(module)
            if name in ends:
                groups.append([])
        return [group for group in groups if group]

    def set_grad_checkpointing(self) -> None:
        inner = getattr(self.net, "model", None)
        if inner is None or not hasattr(inner, "blocks"):
            super().set_grad_checkpointing()
        inner.set_grad_checkpointing()  # type: ignore[union-attr]


class TransformerBackbone(PretrainedBackbone):
    """A complete timm vision transformer on images resampled to `size`, a multiple of its patch."""

    net: Any

    def __init__(self, name: str, in_channels: int, size: int, weights: str, **options: Any) -> None:
        super().__init__()
        self.net = load_timm_backbone(
            name, weights, features_only=False, in_chans=in_channels, advice=WEIGHTS_ADVICE, **options
        )
        self.own_normalisation(self.net, in_channels)
        self.size = size

    def set_maps(self, widths: list[int]) -> None:
        """widths: of the maps, all of one stride, the patch."""
        self.channels, self.grids = widths, [self.size // self.net.patch_embed.patch_size[0]] * len(widths)

    def prepared(self, images: Tensor) -> Tensor:
        """The network's input from images (B, C, S, S) in [-1, 1]: normalised, (B, C, size, size)."""
        images = self.normalise(images)
        if images.shape[-1] == self.size:
            return images
        return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)

    def layer_groups(self) -> list[list[nn.Module]]:
        return transformer_groups(self.net)

    def compile_regions(self, **options: Any) -> None:
        for block in self.net.blocks:
            block.compile(**options)

    def set_grad_checkpointing(self) -> None:
        self.net.set_grad_checkpointing()


class DINOv2Backbone(TransformerBackbone):
    """DINOv2 (Oquab et al. 2023): maps of blocks 3, 6, 9 and 12 through the final norm, all of stride 14.

    images (B, C, S, S) in [-1, 1], resampled to `size`, a multiple of 14 (timm would silently drop the rest) -> four
    maps (B, D, size / 14, size / 14). The position embedding keeps its 37x37 places and is resampled in every call
    (bicubic, antialiased), so weights fit any size.
    """

    @classmethod
    def from_config(cls, config: EarVAEConfig, weights: str) -> Self:
        size = config.dinov2_size or config.image_size // 14 * 14
        return cls(config.dinov2_variant, config.in_channels, size, weights)

    @staticmethod
    def timm_name(config: EarVAEConfig) -> str:
        return DINOV2_VARIANTS[config.dinov2_variant]

    def __init__(self, variant: str, in_channels: int, size: int, weights: str) -> None:
        super().__init__(DINOV2_VARIANTS[variant], in_channels, size, weights, dynamic_img_size=True)
        depth = len(self.net.blocks)
        self.taken = [depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
        self.set_maps([self.net.embed_dim] * len(self.taken))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.net.forward_intermediates(
            self.prepared(images), indices=self.taken, norm=True, intermediates_only=True
        )
        return maps


def transformer_groups(net: Any) -> list[list[nn.Module]]:
    """A vision transformer's blocks; patch and position embedding belong to the first, norm and neck to the last."""
    names = [name for name, _ in net.named_children()]
    around = [module for name, module in net.named_children() if name != "blocks"]
    stem, tail = around[: names.index("blocks")], around[names.index("blocks") :]
    loose = nn.ParameterList(net.parameters(recurse=False))  # position embedding, class token
    groups: list[list[nn.Module]] = [[block] for block in net.blocks]
    groups[0] = [loose, *stem, *groups[0]]
    groups[-1] += tail
    return groups
