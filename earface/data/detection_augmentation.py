"""Photographs with their boxes and landmarks, augmented into squares: a function of (seed, epoch, index) alone.

A mirrored left ear looks like a right one, so mirroring swaps the side and keeps the order of the landmarks: they are
anatomical, and the tragus of a left ear is the tragus of a right one.
An ear of which less than `MIN_SHARE` of the box is left, or whose box is narrower than `MIN_SIDE` pixels, is dropped
with its landmarks. Of the others the box is cut to the picture, and landmarks outside become not labelled (0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earface.data.affine import AffineMap, clipped_boxes, hide_outside, letterbox
from earface.data.annotations import Floats, Photograph
from earface.data.augmentation import PixelAugmentation, PixelStrength
from earface.data.images import Pixels

MIN_SHARE = 0.35  # of the box's area
MIN_SIDE = 3.0  # pixels
AIMED = 0.5  # of the augmented views have a chosen ear inside: a crop without ears teaches little


@dataclass(frozen=True)
class Scene:
    """A photograph in a square picture."""

    image: Pixels  # (S, S, C)
    boxes: Floats  # (N, 4) x y width height in its pixels, cut to it
    keypoints: Floats  # (N, K, 3) x y visibility in its pixels
    sides: tuple[str, ...]  # of each ear: l, r or empty
    ears: NDArray[np.int64]  # (N,) which of the photograph's ears these are
    dropped: Floats  # (M, 4) what is left of the others, of more than no pixel: neither ear nor background
    placement: AffineMap  # where the photograph lies; it leads back


@dataclass(frozen=True)
class _Range:
    """Limits of a view: angles in degrees either way, zoom against the letterbox, stretch of width to height."""

    zoom: tuple[float, float]
    stretch: float
    rotation: float


_FULL = _Range((0.5, 2.5), 1.3, 20.0)
_RANGES: dict[PixelStrength, _Range] = {"light": _Range((0.8, 1.25), 1.05, 5.0), "full": _FULL, "strong": _FULL}


class SceneAugmentation:
    """`(photograph, image, key) -> Scene` of size x size pixels.

    image: the photograph's (H, W, C) uint8, C 1 or 3; key: any integers, such as (seed, epoch, index).
    `none` letterboxes and changes no pixel.
    """

    def __init__(self, strength: PixelStrength, size: int) -> None:
        self.size = size
        self.range = _RANGES.get(strength)
        self.pixels = PixelAugmentation(strength)

    def __call__(self, photograph: Photograph, image: Pixels, key: Sequence[int] = ()) -> Scene:
        height, width = image.shape[:2]
        if self.range is None:
            return place(photograph, image, letterbox((width, height), self.size))
        rng = np.random.default_rng([*key, 2])  # another stream than the pixels'
        placement, mirrored = random_placement((width, height), self.size, photograph.boxes, self.range, rng)
        scene = place(photograph, image, placement, mirrored)
        return replace(scene, image=self.pixels(scene.image, key))


def place(photograph: Photograph, image: Pixels, placement: AffineMap, mirrored: bool = False) -> Scene:
    """The photograph as the placement shows it, with the ears that are left."""
    size = placement.size
    boxes, share = clipped_boxes(placement.boxes(photograph.boxes), size, size)
    kept = (share >= MIN_SHARE) & (boxes[:, 2:].min(axis=1, initial=np.inf) >= MIN_SIDE)
    ears = np.flatnonzero(kept)
    keypoints = hide_outside(placement.points(photograph.keypoints[ears]), size, size)
    sides = photograph.sides or ("",) * len(photograph.boxes)
    swapped = {"l": "r", "r": "l"} if mirrored else {}
    return Scene(
        placement.image(image),
        boxes[ears],
        keypoints,
        tuple(swapped.get(sides[ear], sides[ear]) for ear in ears),
        ears,
        boxes[~kept & (share > 0)],
        placement,
    )


def random_placement(
    photograph: tuple[int, int], size: int, boxes: Floats, reach: _Range, rng: np.random.Generator
) -> tuple[AffineMap, bool]:
    """A mirrored, zoomed, stretched, turned and shifted view, and whether it is mirrored."""
    width, height = photograph
    zoom = np.exp(rng.uniform(*np.log(reach.zoom))) * size / max(width, height)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * np.log(reach.stretch))
    angle = np.radians(rng.uniform(-reach.rotation, reach.rotation))
    mirrored = bool(rng.random() < 0.5)
    aim = int(rng.integers(len(boxes))) if len(boxes) and rng.random() < AIMED else None
    across = rng.random(2)

    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([zoom * stretch * (-1 if mirrored else 1), zoom / stretch])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ linear.T
    ends = np.stack([-corners.min(axis=0), size - corners.max(axis=0)])  # the photograph against either edge
    shift = ends[0] + across * (ends[1] - ends[0])
    if aim is not None:
        unshifted = AffineMap(np.column_stack([linear, [0, 0]]), photograph, size)
        box = unshifted.boxes(boxes[aim : aim + 1])[0]
        shift = -box[:2] + across * (size - box[2:])
        shift = shift.clip(ends.min(axis=0), ends.max(axis=0))  # no more empty room for its sake
    return AffineMap(np.column_stack([linear, shift]), photograph, size), mirrored
