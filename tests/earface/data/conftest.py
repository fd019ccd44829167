"""Synthetic pictures that the data tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from earface.data.images import Pixels

Draw = Callable[..., Pixels]


def draw_picture(seed: int, height: int = 60, width: int = 50) -> Pixels:
    """(height, width, 3) of smooth colour with some detail: JPEG keeps it, and two seeds differ."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    detail = cv2.resize(rng.normal(0, 40, (16, 12, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse * 0.7 + 35 + detail, 0, 255).astype(np.uint8)


@pytest.fixture
def draw() -> Draw:
    return draw_picture


def draw_picture_folder(folder: Path) -> Path:
    """folder/s0/0.png ... s5/3.png: six subjects with four pictures each, 40 to 63 px."""
    for subject in range(6):
        (folder / f"s{subject}").mkdir(parents=True)
        for number in range(4):
            seed = subject * 4 + number
            Image.fromarray(draw_picture(seed, 40 + seed, 44)).save(folder / f"s{subject}" / f"{number}.png")
    return folder


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """tmp_path/pictures/s0/0.png ... s5/3.png, to change."""
    return draw_picture_folder(tmp_path / "pictures")
