"""Image grids: labelled rows of images and error maps for people and TensorBoard, and plain tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from earface.data.images import Pixels, write_image

if TYPE_CHECKING:
    from torch import Tensor

LABEL_WIDTH = 148  # at least
FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.45)
GAP = 2
ERROR_LIMIT = 40  # grey levels of 255 at the dark end of error maps, the same in every grid, so that two compare
SCALE_HEIGHT, SCALE_WIDTH, TICKS = 44, 400, 5  # of the bar below them, at most so wide, and its numbers


def tile_images(images: Sequence[Pixels], columns: int) -> Pixels:
    """N >= 1 uint8 (H, W, 3) images in rows of at most `columns`, without gaps; empty places are white."""
    columns = min(columns, len(images))
    tiles = [*images, *[np.full_like(images[0], 255)] * (-len(images) % columns)]
    return np.vstack([np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)])


def absolute_error(found: Tensor, wanted: Tensor) -> Tensor:
    """(N, C, H, W) in [0, 1], twice, to (N, 1, H, W): the mean over channels of |found - wanted|."""
    return (found.float().clamp(0, 1) - wanted.float().clamp(0, 1)).abs().mean(dim=1, keepdim=True)


def error_colours(errors: NDArray[np.floating]) -> Pixels:
    """Errors of any shape, in [0, 1], to uint8 (..., 3): white at 0, one hue of blue, dark from ERROR_LIMIT on.

    Lightness (CIE L*) falls from 100 to 20 in proportion to the error, so that a grey print says the same.
    """
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    chroma = 150 * levels * (1.05 - levels)  # what sRGB holds of this hue
    hue = np.deg2rad(268)
    lab = np.stack([100 - 80 * levels, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1).astype(np.float32)
    table = np.rint(cv2.cvtColor(lab[None], cv2.COLOR_Lab2RGB)[0].clip(0, 1) * 255).astype(np.uint8)
    places = np.rint(np.asarray(errors, np.float64) * 255 / ERROR_LIMIT * 255)
    return np.asarray(table[places.clip(0, 255).astype(np.intp)])


def image_grid(rows: Mapping[str, Tensor], min_side: int = 96, errors: Mapping[str, Tensor] | None = None) -> Pixels:
    """label -> (N, C, S, S) in [0, 1], to one uint8 (H, W, 3) picture on white; small images are enlarged by pixels.

    errors: label -> `absolute_error`, (N, 1, S, S), in rows of `error_colours` below the images, with their scale.
    """
    shown = {label: _pixels(images) for label, images in rows.items()}
    maps = {label: error_colours(error.squeeze(1).cpu().numpy()) for label, error in (errors or {}).items()}
    lines = [line for label in (*shown, *maps) for line in label.split("\n")]
    label_width = max(LABEL_WIDTH, *(cv2.getTextSize(line, *FONT, 1)[0][0] + 12 for line in lines))
    strips = []
    for label, pixels in {**shown, **maps}.items():
        zoom = max(1, -(-min_side // pixels.shape[1]))
        pixels = pixels.repeat(zoom, 1).repeat(zoom, 2)
        padded = np.pad(pixels, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
        strip = tile_images(list(padded), len(padded))
        margin = np.full((strip.shape[0], label_width, 3), 255, np.uint8)
        for line, text in enumerate(label.split("\n")):
            _write(margin, text, 6, strip.shape[0] // 2 + 18 * line)
        strips.append(np.concatenate([margin, strip], axis=1))
    if maps:
        strips.append(_error_scale(label_width, min(SCALE_WIDTH, strips[-1].shape[1] - label_width - GAP)))
    width = max(strip.shape[1] for strip in strips)
    padded_strips = [np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in strips]
    return np.concatenate(padded_strips)


def _pixels(images: Tensor) -> Pixels:
    """(N, C, H, W) in [0, 1] -> (N, H, W, 3) uint8."""
    pixels = (images.detach().float().clamp(0, 1) * 255).round().byte().cpu()
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def _error_scale(left: int, width: int) -> Pixels:
    """(SCALE_HEIGHT, left + width, 3): the colours of errors, with their grey levels."""
    strip = np.full((SCALE_HEIGHT, left + width, 3), 255, np.uint8)
    strip[8:20, left:] = error_colours(np.linspace(0, ERROR_LIMIT / 255, width))
    cv2.rectangle(strip, (left, 8), (left + width - 1, 19), (150, 150, 150), 1)
    _write(strip, "levels of 255", 6, 19)
    texts = [f"{level:g}" for level in np.linspace(0, ERROR_LIMIT, TICKS)]
    texts[-1] += "+"
    for share, text in zip(np.linspace(0, 1, TICKS), texts, strict=True):
        _write(strip, text, left + round(share * (width - cv2.getTextSize(text, *FONT, 1)[0][0])), 36)
    return strip


def _write(canvas: Pixels, text: str, left: int, bottom: int) -> None:
    cv2.putText(canvas, text, (left, bottom), *FONT, (40, 40, 40), 1, cv2.LINE_AA)


def save_image_grid(path: Path, rows: Mapping[str, Tensor], errors: Mapping[str, Tensor] | None = None) -> Pixels:
    """`image_grid` written to `path` as PNG; returns it."""
    grid = image_grid(rows, errors=errors)
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
