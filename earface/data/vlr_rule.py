"""How VLR faces are made of HR ones: the size, degradation and misalignment of each are functions of its key alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
SIZE, MOVE = 2, 3  # end the keys of these draws


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
        size = self.size_of(key)
        if self.misalignment:
            hr = misaligned(hr, size, self.misalignment, key)
        (vlr,) = degrade(self.degradation, to_model_range(torch.from_numpy(hr)[None]), size, [key])
        return to_uint8(vlr)  # exact: `degrade` gives values that an 8-bit file holds

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
    height, width = hr.shape[:2]
    right, down, turn, zoom = np.random.default_rng([*key, MOVE]).uniform(-amount, amount, 4)
    centre = (width - 1) / 2, (height - 1) / 2
    matrix = cv2.getRotationMatrix2D(centre, math.degrees(turn * TURN), 1.0 + zoom * ZOOM)
    matrix[:, 2] += right * width / size.width, down * height / size.height
    moved = cv2.warpAffine(hr, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8)


def on_grid(vlr: Tensor, side: int) -> Tensor:
    """(h, w, 3) uint8 -> (3, side, side) float32 in [-1, 1]: what a model of a range makes of a VLR face first.

    By bicubic interpolation in float, as `interpolate` and `DSR.forward` do it; so faces of several sizes are a batch.
    """
    return interpolate(to_model_range(vlr[None]), side)[0]
