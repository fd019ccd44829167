"""What a landmarker learns to call not visible, and what `strong` crops keep true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ear_teacher.detector.crops_without_ears import picture_without_ear
from ear_teacher.detector.datamodule import EarCrops, narrowed
from ear_teacher.detector.losses import ABSENT
from earface.data.affine import PAD, crop_around
from earface.data.annotations import Photograph


def test_no_part_shows_more_of_an_ear_than_a_sliver() -> None:
    """The ears are white in a black photograph: a part that is no pattern is black."""
    photograph = np.zeros((200, 300, 3), np.uint8)
    ears = np.array([[40, 30, 50, 80], [200, 60, 60, 100]], np.float32)
    for x, y, width, height in ears.astype(int):
        photograph[y : y + height, x : x + width] = 255
    parts = 0
    for seed in range(200):
        crop = picture_without_ear(photograph, ears, 64, np.random.default_rng(seed))
        assert crop.shape == (64, 64, 3)
        values = set(np.unique(crop).tolist())
        inside = crop[24:40, 28:36]
        if (inside < 5).all() or values <= {0, 255, PAD}:
            parts += 1
            assert (crop == 255).all(axis=2).mean() < 0.1
    assert parts > 60


def test_a_photograph_that_is_all_ear_gives_patterns() -> None:
    photograph = np.full((100, 80, 3), 255, np.uint8)
    ears = np.array([[0, 0, 80, 100]], np.float32)
    crops = [picture_without_ear(photograph, ears, 48, np.random.default_rng(seed)) for seed in range(40)]
    assert not any((crop == 255).all() for crop in crops)
    assert len({crop.tobytes() for crop in crops}) == 40


def photograph_of(points: np.ndarray) -> Photograph:
    keypoints = np.column_stack([points, np.full(len(points), 2)]).astype(np.float32)
    return Photograph(Path("a.png"), (160, 160), np.array([[40, 20, 80, 120]], np.float32), keypoints[None])


def test_strong_crops_keep_landmarks_on_their_places_and_add_crops_without_ears() -> None:
    """A dot of four colours at each landmark is found where the crop says, however it was moved."""
    points = np.array([[60.0, 40.0], [100.0, 60.0], [70.0, 120.0], [95.0, 110.0]])
    photograph, image = photograph_of(points), np.full((160, 160, 3), 90, np.uint8)
    for x, y in points.astype(int):
        image[y - 3 : y + 4, x - 3 : x + 4] = 250
    crops = EarCrops("strong", 96, absent=0.15)
    crops.pixels = lambda picture, key: picture  # type: ignore[assignment]  # colours are not moved
    absent = widths = 0
    for epoch in range(80):
        found, keypoints = crops(photograph, image, (0, epoch, 0))
        absent += len(found) - 1
        if len(found) > 1:
            assert (keypoints[1] == (0, 0, ABSENT)).all()
        for x, y, visible in keypoints[0]:
            if not visible:
                continue
            column, row = round(float(x)), round(float(y))
            if 2 <= column < 94 and 2 <= row < 94:
                assert found[0, row - 1 : row + 2, column - 1 : column + 2].max() > 170
        widths += (found[0, 48] == PAD).all(axis=1).mean() > 0.2
    assert 3 <= absent <= 25
    assert widths > 10  # tight crops have grey beside them


@pytest.mark.parametrize("width", [0.6, 1.0, 1.2])
def test_a_narrowed_crop_is_narrower_about_its_middle(width: float) -> None:
    placement = crop_around(np.array([10, 20, 40, 80], np.float32), (200, 200), 64, 0.4)
    narrow = narrowed(placement, width)
    corners = np.array([[10.0, 20.0], [50.0, 100.0], [30.0, 60.0]], np.float32)
    before, after = placement.points(corners), narrow.points(corners)
    np.testing.assert_allclose(after[:, 1], before[:, 1], atol=1e-4)
    np.testing.assert_allclose(after[:, 0] - 31.5, (before[:, 0] - 31.5) * width, atol=1e-3)
