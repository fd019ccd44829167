"""The picture that a scene is painted on, layer over layer, and which ear each pixel shows."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.synthetic.curves import Array, smooth_curve

Region = tuple[slice, slice]  # rows, columns


class Canvas:
    """image: (H, W, 3) float32 sRGB in [0, 255]. owner: (H, W) int16, the number of the ear on top, 0 for none."""

    def __init__(self, image: Array) -> None:
        self.image = np.ascontiguousarray(image, np.float32)
        self.owner: NDArray[np.int16] = np.zeros(image.shape[:2], np.int16)

    def region(self, points: Array, margin: float = 2.0) -> Region | None:
        """The rows and columns around points (N, 2), cut to the picture; None where nothing is left."""
        height, width = self.owner.shape
        low = np.floor(points.min(axis=0) - margin).astype(int).clip(0, [width, height])
        high = np.ceil(points.max(axis=0) + margin + 1).astype(int).clip(0, [width, height])
        return (slice(low[1], high[1]), slice(low[0], high[0])) if (low < high).all() else None

    def cover(self, region: Region, colour: Array, mask: Array, owner: int = 0) -> None:
        """Lay a colour, (3,) or (h, w, 3), over a region through a mask (h, w) in [0, 1]; `owner` is then on top."""
        under = self.image[region]
        under += (colour - under) * mask[..., None]
        self.owner[region][mask > 0.5] = owner

    def shape(self, points: Array, colour: Array, *, soft: float = 0.0, round_shade: float = 0.0) -> None:
        """A filled outline (N, 2) of pixels. soft: sigma of its edge in pixels; round_shade: how dark its edge is."""
        margin = 2 + 3 * soft
        region = self.region(points, margin)
        if region is None:
            return
        mask = outline_mask(points, region)
        if soft > 0.3:
            mask = cv2.GaussianBlur(mask, (0, 0), soft)
        if round_shade:
            colour = colour * (1 - round_shade + round_shade * inner_shade(mask))[..., None]
        self.cover(region, colour, mask)

    def line(self, points: Array, colour: Array, width: float, strength: float = 1.0) -> None:
        """A smooth line (N, 2) of pixels."""
        region = self.region(points, width + 2)
        if region is None:
            return
        mask = np.zeros(self.owner[region].shape, np.uint8)
        origin = (region[1].start, region[0].start)
        thick = max(1, round(width))
        shifted = np.rint((points - origin) * 16).astype(np.int32)
        cv2.polylines(mask, [shifted], False, 255, thick, cv2.LINE_AA, shift=4)
        self.cover(region, colour, mask.astype(np.float32) * np.float32(min(width, 1.0) * strength / 255))


def outline_mask(points: Array, region: Region) -> Array:
    """(h, w) in [0, 1] of a closed outline in pixels of the whole picture."""
    mask = np.zeros((region[0].stop - region[0].start, region[1].stop - region[1].start), np.uint8)
    shifted = np.rint((points - (region[1].start, region[0].start)) * 16).clip(-(2**24), 2**24).astype(np.int32)
    cv2.fillPoly(mask, [shifted], 255, cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) * np.float32(1 / 255)


def inner_shade(mask: Array) -> Array:
    """(h, w): 1 deep inside a mask, toward 0 at its edge, as on something round."""
    height, width = mask.shape
    small = cv2.resize(mask, (max(width // 8, 2), max(height // 8, 2)), interpolation=cv2.INTER_AREA)
    sigma = max(0.12 * min(small.shape), 0.5)
    small = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.clip(2 * cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR) - 1, 0, 1)


class Frame:
    """A frame of its own unit in the picture: turned, squeezed across and perhaps mirrored.

    matrix: (2, 3) from the frame, x right and y down, to pixels.
    """

    def __init__(
        self, centre: tuple[float, float], unit: float, turn: float = 0.0, squeeze: float = 1.0, mirrored: bool = False
    ) -> None:
        cos, sin = np.cos(turn), np.sin(turn)
        flip = -squeeze if mirrored else squeeze
        linear = unit * np.array([[cos * flip, -sin], [sin * flip, cos]])
        self.unit = unit
        self.matrix = np.column_stack([linear, centre])

    def __call__(self, points: object) -> Array:
        """(N, 2) of the frame -> pixels."""
        return np.asarray(np.asarray(points, np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2], np.float32)

    def curve(self, points: object, closed: bool = False) -> Array:
        """A smooth curve through (N, 2) of the frame, in pixels."""
        return self(smooth_curve(np.asarray(points, np.float32), 6, closed))

    def back(self, region: Region) -> tuple[Array, Array]:
        """Where each pixel of a region lies in the frame: x and y, (h, w) each."""
        a = np.asarray(cv2.invertAffineTransform(self.matrix), np.float32)
        columns = np.arange(region[1].start, region[1].stop, dtype=np.float32)[None]
        rows = np.arange(region[0].start, region[0].stop, dtype=np.float32)[:, None]
        return a[0, 0] * columns + a[0, 1] * rows + a[0, 2], a[1, 0] * columns + a[1, 1] * rows + a[1, 2]
