"""Faces side by side: the VLR input, what each method makes of it, and HR."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from dsr.config import HR_SIZE
from earface.data.pixels import interpolate, to_unit


def comparison_rows(vlr: Tensor, results: Mapping[str, Tensor], hr: Tensor | None = None) -> dict[str, Tensor]:
    """The rows of an image grid in [0, 1], each (B, 3, 128, 128): VLR enlarged by whole pixels, bicubic, results, HR.

    All arguments in [-1, 1], on any device.
    """
    pixels = F.interpolate(vlr, (HR_SIZE, HR_SIZE), mode="nearest-exact")
    named = {f"VLR {vlr.shape[3]}x{vlr.shape[2]}": pixels, "bicubic": interpolate(vlr, HR_SIZE), **results}
    if hr is not None:
        named["HR"] = hr
    return {label: to_unit(faces).clamp(0, 1).cpu() for label, faces in named.items()}
