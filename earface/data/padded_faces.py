"""Faces of several sizes as one batch: each in the top left corner of a square, and NaN beyond it.

A network that works on them so sees every face's own pixels. Brought to one size first, by interpolation, small faces
were restored worse: docs/RESULTS.md.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from earface.data.pixels import interpolate, to_model_range


def padded(face: Tensor, side: int) -> Tensor:
    """(h, w, 3) uint8 -> (3, side, side) float32: the face in [-1, 1], at most of that size."""
    return pad_batch(to_model_range(face[None]), side)[0]


def pad_batch(faces: Tensor, side: int) -> Tensor:
    """(B, C, h, w) -> (B, C, side, side)."""
    return F.pad(faces, (0, side - faces.shape[3], 0, side - faces.shape[2]), value=torch.nan)


def padded_sizes(faces: Tensor) -> Tensor:
    """(B, C, side, side) -> (B, 2) int64: height and width of each face."""
    known = ~faces[:, 0].isnan()
    return torch.stack([known[:, :, 0].sum(dim=1), known[:, 0].sum(dim=1)], dim=1)


def within(sizes: Tensor, side: int) -> Tensor:
    """(B, 2) height and width -> (B, 1, side, side) bool: where a padded face is."""
    places = torch.arange(side, device=sizes.device)
    rows, columns = (places < sizes[:, axis, None] for axis in range(2))
    return rows[:, None, :, None] & columns[:, None, None, :]


@lru_cache(maxsize=16)
def interpolation_table(side: int, longest: int, step: int = 1) -> Tensor:
    """(longest + 1, side, longest step): row n interpolates the first n step of `longest step` values to `side`.

    Bicubic, as `interpolate`; zero for the others. float32.
    """
    table = torch.zeros(longest + 1, side, longest * step)
    for count in range(1, longest + 1):
        unit = torch.eye(count * step)[None, None]
        table[count, :, : count * step] = F.interpolate(
            unit, (side, count * step), mode="bicubic", align_corners=False
        )[0, 0]
    return table


def interpolate_each(faces: Tensor, sizes: Tensor, table: Tensor) -> Tensor:
    """(B, C, S, S) -> (B, C, side, side) float32: each from its own height and width in `sizes` (B, 2).

    table: of `interpolation_table`. `faces` must be finite, and beyond a face may be anything.
    """
    rows, columns = (table[sizes[:, axis]] for axis in range(2))
    return rows[:, None] @ faces.float() @ columns.transpose(1, 2)[:, None]


def enlarge(faces: Tensor, side: int, *, padded: bool) -> Tensor:
    """(B, C, h, w) -> (B, C, side, side) float32, bicubic; where they are padded each face from its own size."""
    if not padded:
        return interpolate(faces, side)
    table = _table_on(side, faces.shape[3], faces.device)
    return interpolate_each(faces.nan_to_num(), padded_sizes(faces), table)


@lru_cache(maxsize=16)
def _table_on(side: int, longest: int, device: torch.device) -> Tensor:
    return interpolation_table(side, longest).to(device)


def unpadded(faces: Tensor) -> list[Tensor]:
    """(B, C, S, S) -> B of (C, height, width)."""
    return [face[:, :height, :width] for face, (height, width) in zip(faces, padded_sizes(faces).tolist(), strict=True)]
