"""The face contract: how an aligned crop becomes the recogniser's input. One place for every package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from earface.core.errors import InputError

SIZE = 112  # pixels a side of the recogniser's input, and of the ArcFace template
CANVAS = 128  # side of super-resolved crops
MARGIN = (CANVAS - SIZE) // 2  # around the template on a `center` canvas

Crop = Literal["arcface", "center"]


@dataclass(frozen=True)
class FaceContract:
    """Crops (B, 3, S, S) in [-1, 1], RGB -> the recogniser's input (B, 3, 112, 112) in [-1, 1], RGB.

    Mean .5 and deviation .5 on [0, 1] pixels give the range [-1, 1], so that values change only by the resize, which is
    bilinear and antialiased (Pillow's BILINEAR). Differentiable; the result of a crop does not depend on its batch.

    crop: where the ArcFace template (five landmarks in 112x112, Deng et al. 2019) lies in a crop.
        `arcface`: it fills the crop, scaled by S / 112. Any S is resized to 112.
        `center`: it lies in the middle of a canvas of 128, unscaled, 8 pixels from each edge. Another S is resized to
            128 first.
    Crops of 112 are the template itself under both, and are not changed.
    """

    crop: Crop = "arcface"

    def __post_init__(self) -> None:
        if self.crop not in get_args(Crop):
            raise InputError(f"crop {self.crop!r}: choose one of {', '.join(get_args(Crop))}")

    @property
    def id(self) -> str:
        """Embeddings of different ids must not be compared; stored in every table and gallery."""
        return f"edgeface-rgb-{SIZE}-{self.crop}-bilinear_antialias-mean.5-std.5"

    def __call__(self, crops: Tensor) -> Tensor:
        """Half precision comes out as float32. Raises ValueError for anything but float (B, 3, S, S)."""
        if not crops.is_floating_point():
            raise ValueError(
                f"float crops in [-1, 1] wanted, not {crops.dtype}: earface.data.pixels.to_model_range first"
            )
        if crops.ndim != 4 or crops.shape[1] != 3 or crops.shape[2] != crops.shape[3] or crops.shape[3] == 0:
            raise ValueError(f"aligned square RGB crops (B, 3, S, S) wanted, not {tuple(crops.shape)}")
        if crops.dtype in (torch.float16, torch.bfloat16):
            crops = crops.float()
        if crops.shape[3] == SIZE:
            return crops
        if self.crop == "arcface":
            return _resized(crops, SIZE)
        return _resized(crops, CANVAS)[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]


def _resized(crops: Tensor, side: int) -> Tensor:
    """Pixel centres at half: a point x (index of a pixel) lands on (x + .5) side / S - .5."""
    if crops.shape[3] == side:
        return crops
    return F.interpolate(crops, (side, side), mode="bilinear", antialias=True)
