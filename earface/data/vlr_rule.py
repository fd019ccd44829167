"""How VLR faces are made of HR ones: the size, degradation and misalignment of each are functions of its key alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from earface.data.degradation import degrade
from earface.data.face_sizes import VLRRange, VLRSize, by_chance
from earface.data.images import Pixels
from earface.data.pixels import interpolate, to_model_range, to_uint8

NOT_SQUARE = 0.3  # share of a range's faces whose height is drawn on its own
TURN, ZOOM = math.radians(5.0), 0.075  # of a face that is misaligned by up to one VLR pixel, at most
SIZE, MOVE, WAY = 2, 3, 5  # end the keys of these draws


@dataclass(frozen=True)
class VLRRule:
    """(H, W, 3) uint8, an HR face, and its key -> its VLR face (h, w, 3) uint8, on the CPU.

    degradation: of DEGRADATIONS. sizes: of a range each face has one of its own, `size_of`.
    misalignment: the HR face is moved first, `misaligned`, as if it had been aligned by poor landmarks.
    The same key gives the same bytes.
    """

    degradation: str
    sizes: VLRSize | VLRRange
    misalignment: float = 0.0  # VLR pixels

    @property
    def by_chance(self) -> bool:
        """Whether two keys may give two VLR faces of one HR face."""
        return by_chance(self.sizes, self.degradation, self.misalignment)

    def __call__(self, hr: Pixels, key: Sequence[int]) -> Tensor:
        moved = self.moved(hr, key)
        (vlr,) = degrade(self.degradation, to_model_range(torch.from_numpy(moved)[None]), self.size_of(key), [key])
        return to_uint8(vlr)  # exact: `degrade` gives values that an 8-bit file holds

    def moved(self, hr: Pixels, key: Sequence[int]) -> Pixels:
        """The HR face that the VLR one is made of."""
        return misaligned(hr, self.size_of(key), self.misalignment, key) if self.misalignment else hr

    def size_of(self, key: Sequence[int]) -> VLRSize:
        """The size of a face. In a range the logarithm of a side is uniform: as many from 14 to 21 as from 21 to 32.

        The share NOT_SQUARE has another height than width, drawn likewise.
        """
        if isinstance(self.sizes, VLRSize):
            return self.sizes
        rng = np.random.default_rng([*key, SIZE])
        ends = math.log(self.sizes.low), math.log(self.sizes.high + 1)
        width, height = (min(int(math.exp(rng.uniform(*ends))), self.sizes.high) for _ in range(2))
        return VLRSize(width, height if rng.random() < NOT_SQUARE else width)


def misaligned(hr: Pixels, size: VLRSize, amount: float, key: Sequence[int]) -> Pixels:
    """(H, W, 3) uint8 -> the same, moved: bicubic, reflected at the border.

    Shifted along each axis by up to `amount` pixels of a VLR face of `size`, turned by up to amount TURN, zoomed by up
    to amount ZOOM, all uniformly and either way.
    """
    right, down, turn, zoom = np.random.default_rng([*key, MOVE]).uniform(-amount, amount, 4)
    return _warped(hr, size, (right, down), turn * TURN, 1.0 + zoom * ZOOM)


@dataclass(frozen=True)
class Movement:
    """How far the crop of a VLR face is off, by one kind of error alone: the same for all faces, in ways of chance.

    kind: shift, amount in VLR pixels in any direction; turn, amount in degrees either way; or zoom, where amount .15
    makes the face 15 % larger or smaller.
    """

    kind: Literal["shift", "turn", "zoom"]
    amount: float

    def __str__(self) -> str:
        by = {"shift": f"{self.amount:g} px", "turn": f"{self.amount:g}°", "zoom": f"{self.amount:.3g}"}
        return f"{self.kind} {by[self.kind]}"

    def __call__(self, hr: Pixels, key: Sequence[int], size: VLRSize) -> Pixels:
        """(H, W, 3) uint8 -> the same, moved as the VLR face of `size` made of it is to be; bicubic."""
        rng = np.random.default_rng([*key, WAY])
        if self.kind == "shift":
            direction = rng.uniform(0, 2 * math.pi)
            by = self.amount * math.cos(direction), self.amount * math.sin(direction)
            return _warped(hr, size, by, 0.0, 1.0)
        way = float(rng.choice([-1.0, 1.0]))
        if self.kind == "turn":
            return _warped(hr, size, (0.0, 0.0), way * math.radians(self.amount), 1.0)
        return _warped(hr, size, (0.0, 0.0), 0.0, 1.0 + way * self.amount)


def _warped(hr: Pixels, size: VLRSize, shift: tuple[float, float], turn: float, scale: float) -> Pixels:
    """shift: right and down, pixels of a VLR face of `size`. turn: radians, around the middle. Reflected beyond."""
    height, width = hr.shape[:2]
    centre = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(centre, math.degrees(turn), scale)
    matrix[:, 2] += shift[0] * width / size.width, shift[1] * height / size.height
    moved = cv2.warpAffine(hr, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


def on_grid(vlr: Tensor, side: int) -> Tensor:
    """(h, w, 3) uint8 -> (3, side, side) float32 in [-1, 1], bicubic: so VLR faces of several sizes are a batch."""
    return interpolate(to_model_range(vlr[None]), side)[0]
