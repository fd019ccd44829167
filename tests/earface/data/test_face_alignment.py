"""The alignment of faces against scikit-image's transform and against pictures whose points are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from earface.core.errors import InputError
from earface.data.affine import PAD
from earface.data.face_alignment import (
    ARCFACE_POINTS,
    Points,
    align_face,
    alignment_residual,
    enlargement,
    face_placement,
    face_template,
    similarity,
)
from earface.data.face_sizes import FACE_SIZE
from earface.data.images import Pixels


def moved(points: Points, scale: float, turn: float, shift: tuple[float, float]) -> Points:
    """By a similarity about the origin; `turn` in degrees."""
    cos, sin = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    return points @ np.array([[cos, sin], [-sin, cos]]) + shift


def spots(points: Points, height: int, width: int, sigma: float) -> Pixels:
    """A black picture with a bright Gaussian spot at each point."""
    y, x = np.mgrid[:height, :width]
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points)
    return np.repeat(np.clip(230 * light, 0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def centroids(face: Pixels, near: Points, reach: int = 6) -> Points:
    found = []
    for px, py in np.rint(near).astype(int):
        part = face[py - reach : py + reach + 1, px - reach : px + reach + 1, 0].astype(float)
        y, x = np.mgrid[py - reach : py + reach + 1, px - reach : px + reach + 1]
        found.append([(part * x).sum() / part.sum(), (part * y).sum() / part.sum()])
    return np.array(found)


def test_the_template_is_arcfaces_scaled() -> None:
    np.testing.assert_array_equal(face_template(112), ARCFACE_POINTS)
    np.testing.assert_allclose(face_template(), np.array(ARCFACE_POINTS) * 128 / 112)


@pytest.mark.parametrize("seed", range(5))
def test_the_similarity_is_the_least_squares_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 300, (5, 2))
    target = moved(source, 0.4, 25 * seed, (10, -7)) + rng.normal(0, 4, (5, 2))
    reference = SimilarityTransform.from_estimate(source, target)
    np.testing.assert_allclose(similarity(source, target), reference.params[:2], atol=1e-9)


def test_a_similarity_is_found_exactly() -> None:
    matrix = similarity(moved(face_template(), 3.7, -140, (900, 41)), face_template())
    inverse = cv2.invertAffineTransform(matrix)
    assert np.hypot(*inverse[:, 0]) == pytest.approx(3.7)
    np.testing.assert_allclose(inverse[:, 2], (900, 41), atol=1e-9)


def test_mirrored_points_are_not_answered_by_a_mirror_image() -> None:
    points = face_template()
    mirrored = points * [-1, 1] + [128, 0]
    assert np.linalg.det(similarity(mirrored, points)[:, :2]) > 0


@pytest.mark.parametrize("points", [np.full((5, 2), 7.0), np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * [-1.0, 1.0]])
def test_points_that_fix_no_similarity_are_refused(points: Points) -> None:
    target = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]) if len(points) == 4 else face_template()
    with pytest.raises(InputError, match="no alignment"):
        similarity(points, target)


@pytest.mark.parametrize("scale", [0.45, 1.0, 1.1, 4.0])
@pytest.mark.parametrize("turn", [0.0, -35.0])
def test_the_points_of_the_photograph_come_to_the_template(scale: float, turn: float) -> None:
    template = face_template()
    points = moved(template - 64, scale, turn, (64 * scale + 40, 64 * scale + 50))
    photograph = spots(points, int(128 * scale) + 110, int(128 * scale) + 90, 2.5 * scale)
    face = align_face(photograph, points)
    assert face.shape == (FACE_SIZE, FACE_SIZE, 3)
    np.testing.assert_allclose(centroids(face, template), template, atol=0.12)


def test_what_lies_beside_the_photograph_is_grey() -> None:
    face = align_face(np.full((200, 200, 3), 250, np.uint8), face_template() + np.array([0, -60]))
    assert (face[:50] == PAD).all()
    assert (face[75:] == 250).all()


def test_fine_detail_survives_the_turn() -> None:
    """One bilinear warp keeps 71 % of this wave, resizing first and turning then 50 %."""
    y, x = np.mgrid[:400, :400]
    wave = 100 * np.cos(2 * np.pi * 0.27 * (0.8 * x + 0.6 * y))
    photograph = np.repeat(np.rint(127 + wave).astype(np.uint8)[..., None], 3, axis=2)
    points = moved(face_template() - 64, 1 / 0.9, -7, (200, 200))
    face = align_face(photograph, points)
    assert face[20:-20, 20:-20].std() > 0.78 * wave.std()


def test_residual_and_enlargement_describe_the_alignment() -> None:
    points = moved(face_template(), 2.0, 30, (5, 6))
    placement = face_placement(points, (400, 400))
    assert enlargement(placement) == pytest.approx(0.5)
    assert alignment_residual(points, placement) < 1e-4
    off = points.copy()
    off[2] += [12, 0]
    assert 1 < alignment_residual(off, face_placement(off, (400, 400))) < 6
