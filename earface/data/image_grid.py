"""Image grids: labelled rows of images for people and TensorBoard, and plain tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from earface.data.images import Pixels, write_image

if TYPE_CHECKING:
    from torch import Tensor

LABEL_WIDTH = 148  # at least
FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.45)
GAP = 2


def tile_images(images: Sequence[Pixels], columns: int) -> Pixels:
    """N >= 1 uint8 (H, W, 3) images in rows of at most `columns`, without gaps; empty places are white."""
    columns = min(columns, len(images))
    tiles = [*images, *[np.full_like(images[0], 255)] * (-len(images) % columns)]
    return np.vstack([np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)])


def image_grid(rows: Mapping[str, Tensor], min_side: int = 96) -> np.ndarray:
    """label -> (N, C, S, S) in [0, 1], to one uint8 (H, W, 3) picture on white; small images are enlarged by pixels."""
    lines = [line for label in rows for line in label.split("\n")]
    label_width = max(LABEL_WIDTH, *(cv2.getTextSize(line, *FONT, 1)[0][0] + 12 for line in lines))
    strips = []
    for label, images in rows.items():
        pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().cpu()
        pixels = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        zoom = max(1, -(-min_side // pixels.shape[1]))
        pixels = pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
        padded = np.pad(pixels.numpy(), ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
        strip = tile_images(list(padded), len(padded))
        margin = np.full((strip.shape[0], label_width, 3), 255, np.uint8)
        for line, text in enumerate(label.split("\n")):
            place = (6, strip.shape[0] // 2 + 18 * line)
            cv2.putText(margin, text, place, *FONT, (40, 40, 40), 1, cv2.LINE_AA)
        strips.append(np.concatenate([margin, strip], axis=1))
    width = max(strip.shape[1] for strip in strips)
    padded_strips = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return np.concatenate(padded_strips)


def save_image_grid(path: Path, rows: Mapping[str, Tensor]) -> np.ndarray:
    """`image_grid` written to `path` as PNG; returns it."""
    grid = image_grid(rows)
    write_image(path, grid)
    return grid


def tile(picture: Pixels | None, height: int, width: int) -> Pixels:
    """(height, width, 3): the whole picture (H, W, C), its proportions kept, centred on white; grey if it is None."""
    if picture is None:
        return np.full((height, width, 3), 224, np.uint8)
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = resized.reshape(size[1], size[0], -1)
    return canvas
