"""Contact sheets: rows of images with a name each, as people and TensorBoard look at them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from earface.data.images import write_image

LABEL_WIDTH = 148  # at least
FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.45)
GAP = 2


def image_grid(rows: Mapping[str, Tensor], min_side: int = 96) -> np.ndarray:
    """name -> (N, C, S, S) in [0, 1], to one uint8 (H, W, 3) picture on white; small images are enlarged by pixels."""
    lines = [line for label in rows for line in label.split("\n")]
    label_width = max(LABEL_WIDTH, *(cv2.getTextSize(line, *FONT, 1)[0][0] + 12 for line in lines))
    strips = []
    for label, images in rows.items():
        pixels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        pixels = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        zoom = max(1, -(-min_side // pixels.shape[1]))
        pixels = pixels.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
        padded = torch.nn.functional.pad(pixels, (0, 0, 0, GAP, 0, GAP), value=255)
        strip = torch.cat(list(padded), dim=1).numpy()
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
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, grid)
    return grid
