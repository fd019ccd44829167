"""Image grids with text and bars, laid out in pixels; all pictures of a grid have one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot: always the Agg canvas, no global state
from numpy.typing import NDArray
from torch import Tensor

from earface.core.files import atomic_write

SIDE, GAP = 144, 10  # of a picture, and between two, in pixels
DPI = 150
DARK, LIGHT = "#222222", "#6b6b6b"

Floats = NDArray[np.float64]


class ImageGrid:
    """A white canvas; positions are in pixels from the left and from the top."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Empty axes without a frame."""
        bottom = self.height - top - height
        axes = self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))
        axes.set_axis_off()
        return axes

    def text(self, left: float, top: float, words: str, size: float = 9.0, color: str = DARK, **alignment: Any) -> None:
        place = {"ha": "left", "va": "center", **alignment}
        self.figure.text(left / self.width, 1 - top / self.height, words, fontsize=size, color=color, **place)

    def row(self, left: float, top: float, pictures: Floats) -> None:
        """Pictures (S, H, W, 3) in [0, 1] side by side."""
        strip = np.ones((SIDE, strip_width(len(pictures)), 3))
        for place, picture in enumerate(pictures):
            start = place * (SIDE + GAP)
            rule = cv2.INTER_AREA if len(picture) > SIDE else cv2.INTER_CUBIC
            strip[:, start : start + SIDE] = cv2.resize(picture, (SIDE, SIDE), interpolation=rule).clip(0, 1)
        self.axes(left, top, strip.shape[1], SIDE).imshow(strip, aspect="auto", interpolation="nearest")

    def save(self, path: Path) -> None:
        save_figure(path, self.figure)


def save_figure(path: Path, figure: Figure) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def strip_width(count: int) -> int:
    return count * (SIDE + GAP) - GAP


def colours(images: Tensor) -> Floats:
    """(S, C, H, W) in [0, 1], C = 1 or 3, -> (S, H, W, 3)."""
    return images.double().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()


def signed(maps: Floats) -> Floats:
    """(S, H, W) of both signs -> (S, H, W, 3): red above 0, blue below, white at 0; one scale for all."""
    limit = max(float(np.abs(maps).max()), 1e-6)
    return np.asarray(mpl.colormaps["RdBu_r"](maps / limit / 2 + 0.5), np.float64)[..., :3]
