"""Faces side by side: the VLR input, what each method makes of it, HR, and where they differ from it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from dsr.config import HR_SIZE
from earface.data.image_grid import absolute_error
from earface.data.padded_faces import enlarge, unpadded
from earface.data.pixels import to_unit

HR = "HR"


def comparison_rows(
    vlr: Tensor, results: Mapping[str, Tensor], hr: Tensor | None = None, *, padded: bool = False
) -> dict[str, Tensor]:
    """The rows of an image grid in [0, 1], each (B, 3, 128, 128): VLR enlarged by whole pixels, bicubic, results, HR.

    All arguments in [-1, 1], on any device. padded: whether vlr is.
    """
    faces = [face[None] for face in unpadded(vlr)] if padded else [vlr]
    pixels = torch.cat([F.interpolate(each, (HR_SIZE, HR_SIZE), mode="nearest-exact") for each in faces])
    size = "VLR" if padded else f"VLR {vlr.shape[3]}x{vlr.shape[2]}"
    named = {size: pixels, "bicubic": enlarge(vlr, HR_SIZE, padded=padded), **results}
    if hr is not None:
        named[HR] = hr
    return {label: to_unit(faces).clamp(0, 1).cpu() for label, faces in named.items()}


def comparison_errors(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of `comparison_rows` with HR: the errors of bicubic interpolation and of each result, (B, 1, 128, 128)."""
    methods = [label for label in rows if label != HR][1:]
    return {f"error of\n{label}": absolute_error(rows[label], rows[HR]) for label in methods}
