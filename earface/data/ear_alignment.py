"""Ears in one form: where the landmarks of an ear belong in a picture of it, and the crop that puts them there.

Points are x y in pixels, whole numbers at pixel centres. A canonical ear is a right one: its face lies to the right of
the picture, left ears are mirrored. It is upright and takes EAR_HEIGHT of a frame of its own proportions, FRAME_WIDTH
wide and 1 high, which is widened to a square for networks that take one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from earface.core.errors import InputError
from earface.data.affine import AffineMap
from earface.data.annotations import Floats, Size
from earface.data.images import Pixels

Side = Literal["l", "r"]
Matrix = NDArray[np.float64]

EAR_HEIGHT = 0.86
FRAME_WIDTH = 5 / 8
RESIDUAL_SIDE = 128  # residuals are in pixels of a frame this high
OVERSAMPLING = 2  # a crop is sampled so much finer, then averaged
LMEDS_PAIRS = 400  # similarities that are tried, each from two landmarks
# Tukey's biweight, in deviations: 95 % as good as least squares without outliers, and nothing of those beyond. On 640
# ears it is 9 % nearer to the fit of other landmarks than the inliers of the median alone.
BIWEIGHT, BIWEIGHT_STEPS = 4.685, 6

# The mean of 9,600 ears, in thousandths of the frame's height from its middle. Order as ibug: 0-19 outer helix,
# 20-34 inner helix, 35-49 tragus, concha and inferior crus, 50-54 superior crus.
MEAN_EAR_55 = (
    *((93, -333), (27, -384), (-42, -423), (-113, -430), (-169, -398)),
    *((-202, -335), (-212, -260), (-212, -186), (-200, -111), (-182, -36)),
    *((-163, 33), (-141, 106), (-113, 177), (-81, 236), (-42, 298)),
    *((-2, 351), (44, 394), (104, 426), (164, 430), (212, 407)),
    *((104, -84), (78, -154), (48, -224), (9, -279), (-43, -324)),
    *((-100, -342), (-144, -319), (-164, -262), (-165, -191), (-157, -121)),
    *((-144, -57), (-131, 10), (-112, 73), (-83, 132), (-40, 179)),
    *((122, -45), (105, 10), (108, 73), (136, 121), (150, 169)),
    *((110, 150), (69, 112), (15, 106), (-30, 79), (-55, 34)),
    *((-58, -20), (-46, -68), (-16, -104), (23, -126), (67, -146)),
    *((-123, -76), (-116, -137), (-106, -191), (-97, -242), (-85, -289)),
)
# The same for the landmarks of synthetic ears (`earface.synthetic.ear_anatomy.EAR_LANDMARKS`), in that frame.
MEAN_EAR_17 = (
    *((129, -224), (57, -305), (-75, -371), (-177, -263), (-154, -11)),
    *((-57, 206), (113, 456), (190, 301), (145, 52), (166, 189)),
    *((92, 158), (-65, 35), (-64, -103), (5, -224), (64, -65)),
    *((66, 75), (74, -5)),
)
TRAGUS = {17: 8, 55: 37}  # which landmark it is


@cache
def mean_ear(num_landmarks: int) -> Matrix:
    """(K, 2): the mean shape, in frame heights from the frame's middle. Raises InputError for an unknown number."""
    shapes = {17: MEAN_EAR_17, 55: MEAN_EAR_55}
    if num_landmarks not in shapes:
        raise InputError(f"{num_landmarks} landmarks: ears are aligned by {' or '.join(map(str, shapes))}")
    return np.array(shapes[num_landmarks], np.float64) / 1000.0


@dataclass(frozen=True, eq=False)
class EarFit:
    """How an ear lies in its picture.

    similarity: (2, 3), from pixels of the picture (x y, whole numbers at pixel centres) to frame heights from the
    frame's middle; it mirrors a left ear. residual: median distance of the landmarks from the mean shape, in pixels of
    a frame RESIDUAL_SIDE high: about 2.8, 95 % below 6.4. confidence: of the side, 0 (either) to 1; below 0 where the
    other one fits better than the one that was given.
    """

    similarity: Matrix
    side: Side
    residual: float
    confidence: float


def fit_ear(points: Floats, given: Side | None = None) -> EarFit:
    """The robust similarity of landmarks (K, 2) to the mean shape: least median of squares (Rousseeuw
    1984), then its biweight.

    Both sides are tried, and the one that fits better is the ear's, unless one is given. Raises InputError for
    landmarks that are not finite, or of which all fall together.
    """
    points = np.asarray(points, np.float64)
    mean = mean_ear(len(points))
    if not np.isfinite(points).all():
        raise InputError("landmarks that are not finite")
    if np.ptp(points, axis=0).max() < 1.0:
        raise InputError("landmarks that all fall on one pixel")
    flip = np.array([-1.0, 1.0])
    (right, from_right), (left, from_left) = (robust_similarity(points * turn, mean) for turn in ((1, 1), flip))
    side: Side = given or ("r" if from_right <= from_left else "l")
    similarity, residual = (right, from_right) if side == "r" else (left * np.array([-1.0, 1.0, 1.0]), from_left)
    other = from_left if side == "r" else from_right
    confidence = (other - residual) / max(from_left, from_right, 1e-12)
    return EarFit(similarity, side, residual * RESIDUAL_SIDE, confidence)


def ear_placement(fit: EarFit, picture: Size, size: int, widen: bool = True) -> AffineMap:
    """The map into a canonical ear of size x size. widen: False keeps its proportions, with its surroundings beside
    it."""
    stretch = 1 / FRAME_WIDTH if widen else 1.0
    linear = np.diag([stretch, 1.0]) @ fit.similarity[:, :2] * size
    # AffineMap counts from the top left corner, the fit from pixel centres
    offset = np.diag([stretch, 1.0]) @ fit.similarity[:, 2] * size + size / 2 - linear @ [0.5, 0.5]
    return AffineMap(np.column_stack([linear, offset]), picture, size)


def unwidened(square: Pixels) -> Pixels:
    """(S, S, C), a canonical ear -> (S, FRAME_WIDTH S, C), in its own proportions, which landmarkers know."""
    side, _, channels = square.shape
    frame = cv2.resize(square, (round(side * FRAME_WIDTH), side), interpolation=cv2.INTER_AREA)
    return np.asarray(frame, np.uint8).reshape(side, -1, channels)


def align_ear(picture: Pixels, placement: AffineMap) -> Pixels:
    """(H, W, C) uint8 -> (size, size, C) uint8, the border replicated where the picture does not reach.

    Averaged over whole cells where it shrinks by 4 or more, sampled bilinearly at twice the size, and averaged.
    """
    cell = _cell(placement.matrix)
    if cell > 1:
        picture = np.asarray(_cells(picture, cell), np.uint8)
    finer = _pixel_matrix(placement.matrix, cell)
    side = placement.size * OVERSAMPLING
    large = cv2.warpAffine(picture, finer, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    small = cv2.resize(large, (placement.size, placement.size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).reshape(placement.size, placement.size, picture.shape[2])


def align_ears(pictures: Tensor, matrices: Matrix, size: int) -> Tensor:
    """`align_ear` of a batch on its device: (B, C, H, W) float -> (B, C, size, size), within 2 grey levels of it.

    matrices: (B, 2, 3) of `ear_placement`, of which each is for its picture.
    """
    aligned = [_aligned(picture[None], matrix, size) for picture, matrix in zip(pictures, matrices, strict=True)]
    return torch.cat(aligned)


def _aligned(picture: Tensor, matrix: Matrix, size: int) -> Tensor:
    cell = _cell(matrix)
    if cell > 1:
        picture = F.avg_pool2d(picture, cell)
    height, width = picture.shape[-2:]
    inverse = cv2.invertAffineTransform(_pixel_matrix(matrix, cell))
    # grid_sample's coordinates: -1 and 1 are the picture's edges, pixel centres lie between them
    from_unit = np.array([[size * OVERSAMPLING / 2, 0, size * OVERSAMPLING / 2 - 0.5]] * 2)
    from_unit[1] = [0, size * OVERSAMPLING / 2, size * OVERSAMPLING / 2 - 0.5]
    pixels = inverse @ np.vstack([from_unit, [0, 0, 1]])
    theta = np.diag([2 / width, 2 / height]) @ pixels
    theta[:, 2] += [1 / width - 1, 1 / height - 1]
    grid = F.affine_grid(
        torch.from_numpy(theta)[None].to(picture), [1, 1, size * OVERSAMPLING, size * OVERSAMPLING], align_corners=False
    )
    fine = F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(fine, OVERSAMPLING)


def _cell(matrix: Matrix) -> int:
    """Pixels of the picture, a side, that become one before it is sampled."""
    shrinking = 1.0 / float(np.linalg.norm(matrix[:, :2], axis=0).max() * OVERSAMPLING)
    return max(1, int(shrinking))


def _cells(picture: Pixels, cell: int) -> Pixels:
    height, width, channels = picture.shape
    rows, columns = height // cell, width // cell
    whole = np.ascontiguousarray(picture[: rows * cell, : columns * cell])
    means = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.uint8).reshape(rows, columns, channels)


def _pixel_matrix(matrix: Matrix, cell: int) -> Matrix:
    """(2, 3) from pixels of the picture in cells to those of the finer crop, whole numbers at pixel centres."""
    finer = matrix * OVERSAMPLING
    finer = finer @ np.diag([cell, cell, 1.0])
    finer[:, 2] += finer[:, :2] @ [0.5, 0.5] - 0.5
    return np.asarray(finer, np.float64)


def robust_similarity(points: Matrix, mean: Matrix) -> tuple[Matrix, float]:
    """The similarity (2, 3) of points (K, 2) to others, such as the mean shape's, and the median distance that it
    leaves, in the units of `mean`."""
    source, target = points[:, 0] + 1j * points[:, 1], mean[:, 0] + 1j * mean[:, 1]
    first, second = _pairs(len(points))
    span = source[second] - source[first]
    usable = np.abs(span) > 1e-9
    first, second, span = first[usable], second[usable], span[usable]
    turn = (target[second] - target[first]) / span
    shift = target[first] - turn * source[first]
    medians = np.median(np.abs(turn[:, None] * source + shift[:, None] - target), axis=1)
    best = int(medians.argmin())
    rotation, offset = turn[best], shift[best]
    for _ in range(BIWEIGHT_STEPS):
        distance = np.abs(rotation * source + offset - target)
        limit = max(BIWEIGHT * 1.4826 * float(np.median(distance)), 1e-9)
        weights = (1 - np.minimum(distance / limit, 1) ** 2) ** 2
        centre, goal = np.average(source, weights=weights), np.average(target, weights=weights)
        spread = source - centre
        energy = float((weights * np.abs(spread) ** 2).sum())
        rotation = (weights * spread.conj() * (target - goal)).sum() / max(energy, 1e-12)
        offset = goal - rotation * centre
    residual = float(np.median(np.abs(rotation * source + offset - target)))
    a, b = rotation.real, rotation.imag
    return np.array([[a, -b, offset.real], [b, a, offset.imag]]), residual


@cache
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Two landmarks each, the same in every call; all pairs where these are few."""
    first, second = np.triu_indices(count, 1)
    if len(first) > LMEDS_PAIRS:
        chosen = np.random.default_rng(0).permutation(len(first))[:LMEDS_PAIRS]
        first, second = first[chosen], second[chosen]
    return first, second
