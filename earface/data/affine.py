"""Where a photograph lies in a square picture: letterboxing, and every other affine map, for pixels, points and boxes.

Coordinates are those of `earface/data/annotations.py`: boxes from the top left corner, landmarks at pixel centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.data.annotations import UNLABELLED, Floats, Size
from earface.data.images import Pixels

PAD = 114  # grey around a photograph: about the mean of photographs


@dataclass(frozen=True, eq=False)
class AffineMap:
    """An affine map from a photograph into a picture of size x size.

    matrix: (2, 3) float64, on x y measured from the top left corners.
    """

    matrix: NDArray[np.float64]
    photograph: Size
    size: int

    @cached_property
    def inverse(self) -> NDArray[np.float64]:
        """(2, 3): from the square back to the photograph."""
        return np.asarray(cv2.invertAffineTransform(self.matrix), np.float64)

    def image(self, photograph: Pixels) -> Pixels:
        """(H, W, C) -> (size, size, C) uint8, `PAD` where the photograph does not reach.

        Resized first, area down and cubic up as everywhere here, then turned and shifted; letterboxing is only a copy.
        """
        left, top, right, bottom = self._needed(photograph.shape[1], photograph.shape[0])
        part = AffineMap(
            np.column_stack([self.matrix[:, :2], self.matrix @ [left, top, 1]]), self.photograph, self.size
        )
        return part._placed(photograph[top:bottom, left:right])

    def _needed(self, width: int, height: int) -> tuple[int, int, int, int]:
        """What of the photograph the square shows, with room for interpolation: enlarging all of it would cost more."""
        square = np.array([[0, 0, 1], [self.size, 0, 1], [0, self.size, 1], [self.size, self.size, 1]])
        corners = square @ self.inverse.T
        room = 4 + 4 / np.linalg.norm(self.matrix[:, :2], axis=0)
        low, high = np.floor(corners.min(0) - room), np.ceil(corners.max(0) + room)
        left, right = np.clip([low[0], high[0]], 0, width).astype(int).tolist()
        top, bottom = np.clip([low[1], high[1]], 0, height).astype(int).tolist()
        left, top = min(left, width - 1), min(top, height - 1)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    def _placed(self, photograph: Pixels) -> Pixels:
        height, width, channels = photograph.shape
        scale_x, scale_y = np.linalg.norm(self.matrix[:, :2], axis=0)
        resized_to = max(1, round(width * scale_x)), max(1, round(height * scale_y))
        if resized_to != (width, height):
            shrinks = resized_to[0] * resized_to[1] < width * height
            method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            photograph = np.asarray(cv2.resize(photograph, resized_to, interpolation=method), np.uint8)
        matrix = self.matrix @ np.diag([width / resized_to[0], height / resized_to[1], 1.0])
        matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV counts from pixel centres
        if np.abs(matrix - np.rint(matrix)).max() < 1e-6:
            matrix = np.rint(matrix)
        border = (PAD,) * 3
        square = (self.size, self.size)
        placed = cv2.warpAffine(photograph, matrix, square, flags=cv2.INTER_LINEAR, borderValue=border)
        return np.asarray(placed, np.uint8).reshape(self.size, self.size, channels)

    def points(self, keypoints: Floats) -> Floats:
        """(..., K, 2) or (..., K, 3) x y visibility of the photograph -> of the square; they may lie outside it."""
        return _moved_points(self.matrix, keypoints)

    def boxes(self, boxes: Floats) -> Floats:
        """(N, 4) x y width height of the photograph -> of the square; they may leave it.

        Turned, an ear's box becomes that of the turned ellipse which it holds: the corners of the box are no ear.
        """
        return _moved_boxes(self.matrix, boxes)

    def points_back(self, keypoints: Floats) -> Floats:
        """The inverse of `points`."""
        return _moved_points(self.inverse, keypoints)

    def boxes_back(self, boxes: Floats) -> Floats:
        """The inverse of `boxes`, unless the placement turns: then the box of the ellipse in it."""
        return _moved_boxes(self.inverse, boxes)


def letterbox(photograph: Size, size: int) -> AffineMap:
    """Letterbox: the whole photograph, as large as fits, its shape kept to the rounding of its sides, in the middle."""
    width, height = photograph
    scale = size / max(width, height)
    fitted = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - fitted[0]) // 2, (size - fitted[1]) // 2
    matrix = np.array([[fitted[0] / width, 0, left], [0, fitted[1] / height, top]], np.float64)
    return AffineMap(matrix, photograph, size)


def crop_around(
    box: Floats, photograph: Size, size: int, margin: float, turn: float = 0.0, mirrored: bool = False
) -> AffineMap:
    """The square around a box (4,) x y width height, of the longer side times 1 + margin, turned by `turn` degrees."""
    centre = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2], np.float64)
    scale = size / (max(float(box[2]), float(box[3])) * (1 + margin))
    cos, sin = np.cos(np.radians(turn)) * scale, np.sin(np.radians(turn)) * scale
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    return AffineMap(np.column_stack([linear, size / 2 - linear @ centre]), photograph, size)


def clipped_boxes(boxes: Floats, width: float, height: float) -> tuple[Floats, Floats]:
    """(N, 4) boxes cut to the picture, of zero size where they lie beside it; (N,) the share of each that is left."""
    limit = np.array([width, height], np.float32)
    low = boxes[:, :2].clip(0, limit)
    extent = (boxes[:, :2] + boxes[:, 2:]).clip(0, limit) - low
    share = extent.prod(1) / np.maximum(boxes[:, 2:].prod(1), 1e-9)
    return np.concatenate([low, extent], axis=1).astype(np.float32), share.astype(np.float32)


def hide_outside(keypoints: Floats, width: float, height: float) -> Floats:
    """(..., K, 3) where landmarks that no pixel of the picture shows are not labelled, at 0 0."""
    places = keypoints[..., :2]
    outside = ((places < -0.5) | (places > np.array([width, height]) - 0.5)).any(axis=-1)
    lost = outside | (keypoints[..., 2] == UNLABELLED)
    return np.where(lost[..., None], np.float32(0), keypoints)


def _moved_points(matrix: NDArray[np.float64], keypoints: Floats) -> Floats:
    moved = keypoints.copy()
    moved[..., :2] = (keypoints[..., :2] + 0.5) @ matrix[:, :2].T + matrix[:, 2] - 0.5
    return moved


def _moved_boxes(matrix: NDArray[np.float64], boxes: Floats) -> Floats:
    half = boxes[:, 2:].astype(np.float64) / 2
    centre = (boxes[:, :2] + half) @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt(half**2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([centre - half, 2 * half], axis=1).astype(np.float32)
