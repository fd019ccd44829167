"""Crops that show no ear, which a landmarker learns to call not visible: other parts of photographs, and patterns."""

from __future__ import annotations

import cv2
import numpy as np

from earface.data.affine import PAD, crop_around
from earface.data.annotations import Floats
from earface.data.images import Pixels

TRIES = 10
MAX_EAR = 0.02  # of the crop's area that an ear may take
PATTERNS = 0.4  # share of patterns, also where there is room beside the ears
TIGHT = 0.5  # share of crops with nothing around them


def picture_without_ear(photograph: Pixels, ears: Floats, size: int, rng: np.random.Generator) -> Pixels:
    """(size, size, C) uint8: a part of (H, W, C) beside the ears (N, 4) x y width height, or a pattern."""
    crop = None if rng.random() < PATTERNS else _part(photograph, ears, size, rng)
    if crop is None:
        crop = _pattern(size, photograph.shape[2], rng)
    if rng.random() >= TIGHT:
        return crop
    height, width = (size * rng.uniform([0.5, 0.25], [0.8, 0.7])).astype(int)
    top, left = (size - height) // 2, (size - width) // 2
    alone = np.full_like(crop, PAD)
    alone[top : top + height, left : left + width] = crop[top : top + height, left : left + width]
    return alone


def _part(photograph: Pixels, ears: Floats, size: int, rng: np.random.Generator) -> Pixels | None:
    height, width = photograph.shape[:2]
    for _ in range(TRIES):
        side = float(np.exp(rng.uniform(np.log(0.1), np.log(0.7)))) * min(height, width)
        low = rng.uniform(0, [width - side, height - side])
        shared = np.minimum(low + side, ears[:, :2] + ears[:, 2:]) - np.maximum(low, ears[:, :2])
        if (shared.clip(0).prod(axis=1) <= MAX_EAR * side**2).all():
            box = np.array([*low, side, side], np.float32)
            return crop_around(box, (width, height), size, 0.0, float(rng.uniform(-30, 30))).image(photograph)
    return None


def _pattern(size: int, channels: int, rng: np.random.Generator) -> Pixels:
    """One colour, a gradient, blocks, smooth colours or noise."""
    kind = rng.integers(5)
    colours = rng.uniform(0, 255, (2, channels))
    if kind == 0:
        values = np.broadcast_to(colours[0], (size, size, channels))
    elif kind == 1:
        angle, line = rng.uniform(0, 2 * np.pi), np.linspace(-0.5, 0.5, size)
        along = np.clip(np.cos(angle) * line[None] + np.sin(angle) * line[:, None] + 0.5, 0, 1)[..., None]
        values = colours[0] * along + colours[1] * (1 - along)
    else:
        cells = rng.integers(2, 17, 2)
        coarse = rng.uniform(0, 255, (*cells, channels)).astype(np.float32)
        how = cv2.INTER_NEAREST if kind == 2 else cv2.INTER_CUBIC
        values = cv2.resize(coarse, (size, size), interpolation=how).reshape(size, size, channels)
        if kind == 4:
            values = colours[0] + rng.normal(0, rng.uniform(5, 60), (size, size, channels)) + 0.2 * values
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
