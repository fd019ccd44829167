"""Sizes of faces: high resolution, ArcFace's frame, and very low resolution. Plain numbers, no torch."""

from __future__ import annotations

import re
from typing import NamedTuple

from earface.core.errors import InputError

DEGRADATIONS = ("bicubic", "realistic")
MIN_VLR, MAX_VLR = 8, 64  # pixels
USUAL_VLR = "32"  # what commands take where no size is given
NONE = "none"  # no upsampler: the HR face itself
UPSAMPLERS = ("dsr", "bicubic", NONE)
HR = "hr"  # HR faces, in batches and in the names of metrics


class VLRSize(NamedTuple):
    """Width and height of a very-low-resolution face, pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}" if self.width == self.height else f"{self.width}x{self.height}"


def parse_vlr_size(text: str) -> VLRSize:
    """ "32", "24", "16" or "14x16" (width x height). Raises InputError for anything else and beyond 8 to 64."""
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text.strip())
    if match is None:
        raise InputError(f"VLR size {text!r}: 32, 24, 16 or 14x16 (width x height) expected")
    size = VLRSize(int(match[1]), int(match[2] or match[1]))
    if not MIN_VLR <= min(size) <= max(size) <= MAX_VLR:
        raise InputError(f"VLR size {text!r} is out of range: {MIN_VLR} to {MAX_VLR} pixels")
    return size


FACE_SIZE = 128  # side of a high-resolution face
ARCFACE_SIZE = 112
MIN_FACE = 20  # pixels of the photograph: smaller faces are not enrolled or looked for
