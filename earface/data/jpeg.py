"""What a JPEG file makes of a picture, as tensor operations: batches, on any device, each picture at its own quality.

The steps are libjpeg's, roundings included, but for its integer approximation of the cosine transform: ITU-T T.81,
T.871 (colours), and the Independent JPEG Group's quality scale and chroma filters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8
LUMA = (  # T.81, table K.1
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (  # table K.2
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)
TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def jpeg(images: Tensor, quality: Tensor, subsample: bool = True) -> Tensor:
    """(B, 3, H, W) RGB in [0, 255] -> what is read back from JPEG files of the given qualities: whole numbers, float64.

    quality: (B,) whole, 1 to 100. subsample: halve the chroma both ways (4:2:0), as cameras do, and OpenCV and Pillow
    by default. Sizes that are no multiples of 8 are filled up by repeating the edge, as encoders do. In float64: no
    rounding then depends on how a device adds up.
    """
    height, width = images.shape[2:]
    quality = quality.to(images.device)
    levels = _filled(images.double().round().clamp(0, 255), 2, 2 * BLOCK)
    ycc = (_colour(levels, TO_YCC) + _offsets(levels)).round()
    luma, chroma = ycc[:, :1], ycc[:, 1:]
    if subsample:
        chroma = _halved(chroma)
    luma = _through_blocks(luma, _steps(LUMA, quality))[:, :, :height, :width]
    chroma = _through_blocks(chroma, _steps(CHROMA, quality))
    if subsample:
        chroma = _doubled(chroma[:, :, : (height + 1) // 2, : (width + 1) // 2])
    ycc = torch.cat([luma, chroma[:, :, :height, :width]], 1)
    return _colour(ycc - _offsets(ycc), TO_RGB).round().clamp(0, 255)


def _filled(planes: Tensor, rows: int, columns: int) -> Tensor:
    """(B, C, H, W) with its last row and column repeated until H and W are multiples of `rows` and `columns`."""
    return F.pad(planes, (0, -planes.shape[3] % columns, 0, -planes.shape[2] % rows), mode="replicate")


def _colour(images: Tensor, matrix: tuple[tuple[float, float, float], ...]) -> Tensor:
    rows = [sum(weight * images[:, channel] for channel, weight in enumerate(row)) for row in matrix]
    return torch.stack(rows, 1)  # type: ignore[arg-type]


def _offsets(images: Tensor) -> Tensor:
    return images.new_tensor([0.0, 128.0, 128.0]).view(3, 1, 1)


def _steps(table: tuple[int, ...], quality: Tensor) -> Tensor:
    """(B,) quality -> (B, 8, 8) quantisation steps, 1 to 255."""
    scale = torch.where(quality < 50, 5000 // quality.clamp(min=1), 200 - 2 * quality)
    base = torch.tensor(table, device=quality.device).view(1, BLOCK, BLOCK)
    return ((base * scale.view(-1, 1, 1) + 50) // 100).clamp(1, 255).double()


def _through_blocks(planes: Tensor, steps: Tensor) -> Tensor:
    """(B, C, H, W) whole numbers -> (B, C, H', W'), multiples of 8: cosine transform, quantisation, and back."""
    planes = _filled(planes, BLOCK, BLOCK)
    batch, channels, height, width = planes.shape
    blocks = (planes - 128).view(batch, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK).transpose(3, 4)
    cosines, norm = _cosine_transform(planes)
    steps = steps.view(batch, 1, 1, 1, -1)
    # libjpeg hands over eighths; ties, which they make common, go away from zero
    eighths = (blocks.flatten(4) @ cosines.T * (norm * 8) + 0.5).floor()
    quantised = (eighths.abs() / (steps * 8) + 0.5).floor() * eighths.sign()
    restored = (quantised * steps * norm) @ cosines
    return (restored.unflatten(4, (BLOCK, BLOCK)).transpose(3, 4).reshape(planes.shape) + 128).round().clamp(0, 255)


def _cosine_transform(like: Tensor) -> tuple[Tensor, Tensor]:
    """(64, 64) products of cosines, frequency x place in a block, and (64,) what they are to be multiplied by."""
    place = torch.arange(BLOCK, dtype=like.dtype, device=like.device)
    cosines = torch.cos((2 * place + 1) * place[:, None] * (math.pi / (2 * BLOCK)))
    scale = torch.full_like(place, 0.5)
    scale[0] = math.sqrt(0.125)
    return torch.kron(cosines, cosines), torch.outer(scale, scale).round(decimals=15).flatten()


def _halved(chroma: Tensor) -> Tensor:
    """Means of 2x2; the halves are rounded down and up in turn along a row, as libjpeg does."""
    sums = F.avg_pool2d(chroma, 2, divisor_override=1)
    bias = 1.0 + torch.arange(sums.shape[-1], device=sums.device) % 2
    return ((sums + bias) / 4).floor()


def _doubled(chroma: Tensor) -> Tensor:
    """libjpeg's triangle filter: each new sample is 3/4 its nearer neighbour and 1/4 the other, in both directions."""
    padded = F.pad(chroma, (0, 0, 1, 1), mode="replicate")
    above, here, below = padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]
    tall = torch.stack([3 * here + above, 3 * here + below], 3).flatten(2, 3)
    padded = F.pad(tall, (1, 1, 0, 0), mode="replicate")
    left, here, right = padded[..., :-2], padded[..., 1:-1], padded[..., 2:]
    wide = torch.stack([3 * here + left + 8, 3 * here + right + 7], 4).flatten(3, 4)
    return (wide / 16).floor()
