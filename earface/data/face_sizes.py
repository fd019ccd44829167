"""Sizes of faces: high resolution, ArcFace's frame, and very low resolution. Plain numbers, no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from earface.core.errors import InputError

DEGRADATIONS = ("bicubic", "area", "realistic", "mixed")
FILES = "files"  # a set's own VLR pictures instead
MIN_VLR, MAX_VLR = 8, 64  # pixels
EXAMPLES = (16, 24, 32, 48, 64)  # at which a model of a range is measured
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

    @property
    def longest(self) -> int:
        """The longer side."""
        return max(self)

    def takes(self, other: VLRSize | VLRRange) -> bool:
        """Whether a model of this size takes faces of the other."""
        return isinstance(other, VLRSize) and other == self


@dataclass(frozen=True)
class VLRRange:
    """Widths and heights of very-low-resolution faces, each from `low` to `high` pixels, both included."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"

    @property
    def longest(self) -> int:
        """The longest side."""
        return self.high

    def takes(self, other: VLRSize | VLRRange) -> bool:
        """Whether a model of this range takes faces of the other size, or of all sizes of the other range."""
        sides = other if isinstance(other, VLRSize) else (other.low, other.high)
        return self.low <= min(sides) and max(sides) <= self.high

    def nearest(self, width: int, height: int) -> VLRSize:
        """The size in the range that is nearest, each side by itself."""
        return VLRSize(*(min(max(side, self.low), self.high) for side in (width, height)))

    @property
    def examples(self) -> tuple[VLRSize, ...]:
        """The usual sizes in it; its two ends where it has none."""
        sides = [side for side in EXAMPLES if self.low <= side <= self.high] or [self.low, self.high]
        return tuple(VLRSize(side, side) for side in sides)


def parse_vlr_size(text: str) -> VLRSize:
    """ "32", "24", "16" or "14x16" (width x height). Raises InputError for anything else and beyond 8 to 64."""
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text.strip())
    if match is None:
        raise InputError(f"VLR size {text!r}: 32, 24, 16 or 14x16 (width x height) expected")
    size = VLRSize(int(match[1]), int(match[2] or match[1]))
    if not MIN_VLR <= min(size) <= max(size) <= MAX_VLR:
        raise InputError(f"VLR size {text!r} is out of range: {MIN_VLR} to {MAX_VLR} pixels")
    return size


def parse_vlr_sizes(text: str) -> VLRSize | VLRRange:
    """As `parse_vlr_size`, or a range such as "14-32", whose two ends differ. Raises InputError."""
    match = re.fullmatch(r"(\d{1,4})-(\d{1,4})", text.strip())
    if match is None:
        return parse_vlr_size(text)
    sizes = VLRRange(int(match[1]), int(match[2]))
    if sizes.low >= sizes.high:
        raise InputError(f"VLR sizes {text!r}: from the smaller to the larger, such as 14-32")
    if sizes.low < MIN_VLR or sizes.high > MAX_VLR:
        raise InputError(f"VLR sizes {text!r} are out of range: {MIN_VLR} to {MAX_VLR} pixels")
    return sizes


def by_chance(sizes: VLRSize | VLRRange, degradation: str, misalignment: float) -> bool:
    """Whether VLR faces made of one HR face by these options differ."""
    return isinstance(sizes, VLRRange) or degradation in ("realistic", "mixed") or misalignment > 0


def check_vlr(vlr_size: str, degradation: str, misalignment: float = 0.0, extra_hr: tuple[str, ...] = ()) -> None:
    """Raise InputError for options by which no VLR face can be made."""
    try:
        sizes = parse_vlr_sizes(vlr_size)
    except InputError as error:
        raise InputError(f"`vlr_size`: {error}") from None
    if degradation != FILES:
        return
    if isinstance(sizes, VLRRange):
        raise InputError(f"`vlr_size` {sizes}: a set's own VLR pictures (`degradation` {FILES}) have one size")
    if misalignment:
        raise InputError(
            f"`misalignment` {misalignment:g}: VLR pictures of a set (`degradation` {FILES}) stay as they are"
        )
    if extra_hr:
        raise InputError(f"`extra_hr` {extra_hr[0]}: its faces have no VLR pictures, which `degradation` {FILES} takes")


FACE_SIZE = 128  # side of a high-resolution face
ARCFACE_SIZE = 112
MIN_FACE = 20  # pixels of the photograph, the shorter side of a face's box: smaller ones are not enrolled
SMALL_FACE = 5  # nor these looked for: they have 7 pixels aligned, and people of 8 are recognised above chance
