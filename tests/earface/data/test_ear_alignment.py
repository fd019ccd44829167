"""Ears in one form: a known similarity is found again though some landmarks are wrong, on both sides, and the crop is
that of the map, by OpenCV and on tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.data.ear_alignment import (
    EAR_HEIGHT,
    FRAME_WIDTH,
    RESIDUAL_SIDE,
    align_ear,
    align_ears,
    ear_placement,
    fit_ear,
    mean_ear,
)

Points = NDArray[np.float64]


def placed(scale: float, degrees: float, x: float, y: float, side: str) -> Points:
    """The mean ear, `scale` pixels to a frame's height, turned, its middle at x y; mirrored for a left one."""
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = scale * mean_ear(55) @ rotation.T
    return points * [1 if side == "r" else -1, 1] + [x, y]


def smooth_picture(width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    """Waves of 7 pixels and more."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (1.1 + each) + each) * np.cos(y / (1.7 + each)) for each in range(channels)]
    return np.uint8(127.5 + 120 * np.stack(waves, axis=-1)).reshape(height, width, channels)


def test_the_mean_ear_is_a_right_one_upright_in_the_middle_of_its_frame() -> None:
    mean = mean_ear(55)
    assert np.ptp(mean[:, 1]) == pytest.approx(EAR_HEIGHT, abs=1e-3)
    assert np.ptp(mean[:, 0]) < FRAME_WIDTH
    assert (mean.max(0) + mean.min(0)) == pytest.approx([0, 0], abs=1e-3)
    assert mean[37, 0] > mean[:20, 0].mean()  # the tragus is on the side of the face
    assert mean[17, 1] > mean[3, 1]  # the lobe is below


@pytest.mark.parametrize("side", ["l", "r"])
@pytest.mark.parametrize(("scale", "degrees"), [(40.0, 0.0), (150.0, 35.0), (900.0, -60.0)])
def test_a_known_similarity_is_found_again(side: str, scale: float, degrees: float) -> None:
    fit = fit_ear(placed(scale, degrees, 321.5, -4.0, side))
    assert fit.side == side
    assert fit.residual == pytest.approx(0, abs=1e-6)
    assert fit.confidence == pytest.approx(1)
    back = placed(scale, degrees, 321.5, -4.0, side) @ fit.similarity[:, :2].T + fit.similarity[:, 2]
    np.testing.assert_allclose(back, mean_ear(55), atol=1e-9)


def test_a_third_of_wrong_landmarks_does_not_move_the_fit() -> None:
    points, generator = placed(100.0, 12.0, 80.0, 90.0, "l"), np.random.default_rng(3)
    wanted = fit_ear(points)
    noisy = points + generator.normal(0, 0.3, points.shape)
    noisy[generator.permutation(55)[:18]] += generator.uniform(20, 60, (18, 2))
    fit = fit_ear(noisy)
    assert fit.side == "l"
    np.testing.assert_allclose(fit.similarity[:, :2], wanted.similarity[:, :2], atol=2e-4)
    least_squares = np.linalg.lstsq(np.column_stack([noisy * [-1, 1], np.ones(55)]), mean_ear(55), rcond=None)[0]
    assert np.abs(least_squares[:2].T - wanted.similarity[:, :2] * [-1, 1]).max() > 2e-3  # which these do move


def test_the_residual_is_the_median_distance_in_pixels_of_the_frame() -> None:
    points = placed(200.0, 0.0, 0.0, 0.0, "r")
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 55)
    shift = 4.0 * np.column_stack([np.cos(angles), np.sin(angles)])  # of 200 pixels: 2 % of the frame
    assert fit_ear(points + shift).residual == pytest.approx(0.02 * RESIDUAL_SIDE, rel=0.1)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((55, 2), np.nan), "not finite"),
        (np.full((55, 2), 7.25), "all fall on one pixel"),
        (np.zeros((30, 2)), "30 landmarks: ears are aligned by 17 or 55"),
    ],
)
def test_landmarks_of_no_ear_are_refused(points: Points, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_ear(points)


@pytest.mark.parametrize("widen", [True, False])
def test_the_placement_puts_the_mean_ear_where_it_belongs_and_back(widen: bool) -> None:
    points = placed(90.0, 20.0, 60.0, 70.0, "l")
    placement = ear_placement(fit_ear(points), (130, 150), 128, widen)
    found = placement.points(points.astype(np.float32))
    stretch = np.array([1 / FRAME_WIDTH if widen else 1.0, 1.0])
    np.testing.assert_allclose(found, 128 * mean_ear(55) * stretch + 63.5, atol=1e-3)
    np.testing.assert_allclose(placement.points_back(found), points, atol=1e-3)


@pytest.mark.parametrize("side", ["l", "r"])
def test_the_crop_is_the_picture_at_the_places_of_the_map(side: str) -> None:
    """Against the picture's own formula, at the pixels that lie inside it."""
    picture = smooth_picture(160, 200)
    placement = ear_placement(fit_ear(placed(120.0, 10.0, 80.0, 100.0, side)), (160, 200), 128)
    ear = align_ear(picture, placement)
    v, u = np.mgrid[:128, :128].reshape(2, -1).astype(np.float32)
    x, y = placement.points_back(np.column_stack([u, v])).T
    inside = (x > 1) & (x < 158) & (y > 1) & (y < 198)
    wanted = np.stack([127.5 + 120 * np.sin(x / (1.1 + c) + c) * np.cos(y / (1.7 + c)) for c in range(3)], axis=-1)
    difference = np.abs(ear.reshape(-1, 3) - wanted)[inside]
    assert inside.mean() > 0.9
    assert np.median(difference[:, 2]) < 4  # a bilinear sample of a wave of 23 pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("scale", "degrees", "side"), [(30.0, 0.0, "r"), (130.0, -25.0, "l"), (700.0, 8.0, "r")])
def test_tensors_are_aligned_as_pictures_are(channels: int, scale: float, degrees: float, side: str) -> None:
    """Enlarged, at about its size, and shrunk; with what lies outside the picture."""
    size = int(scale * 1.1), int(scale * 1.2)
    picture = smooth_picture(*size, channels)
    placement = ear_placement(fit_ear(placed(scale, degrees, size[0] / 2, size[1] / 2, side)), size, 128)
    wanted = align_ear(picture, placement)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    found = align_ears(torch.cat([tensor, tensor]), np.stack([placement.matrix] * 2), 128)
    assert found.shape == (2, channels, 128, 128)
    assert np.abs(found[1].permute(1, 2, 0).numpy() - wanted).max() <= 2
    assert torch.equal(found[0], found[1])


def test_what_lies_outside_the_picture_repeats_its_border() -> None:
    picture = np.zeros((60, 50, 3), np.uint8)
    picture[:, -1] = (10, 200, 30)
    placement = ear_placement(fit_ear(placed(60.0, 0.0, 45.0, 30.0, "r")), (50, 60), 128)
    assert (align_ear(picture, placement)[64, -8:] == (10, 200, 30)).all()
