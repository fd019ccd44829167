"""Only what a square shows is cut out and resized: the same pixels as before, without the photograph enlarged."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from earface.data.affine import PAD, AffineMap, crop_around, letterbox
from earface.data.detection_augmentation import _RANGES, random_placement
from earface.data.images import Pixels
from tests.earface.data.conftest import draw_picture

BORDER = 3  # pixels of square and photograph at their edges, where what lies beyond has an effect


def shown(placement: AffineMap) -> np.ndarray:
    """(size, size) bool: the pixels of the square that show the photograph's inside."""
    width, height = placement.photograph
    y, x = np.mgrid[: placement.size, : placement.size] + 0.5
    places = np.stack([x, y, np.ones_like(x)], axis=-1) @ placement.inverse.T
    scale = np.linalg.norm(placement.matrix[:, :2], axis=0)
    room = BORDER * np.maximum(1, 1 / scale)
    return ((places > room) & (places < np.array([width, height]) - room)).all(axis=-1)


def placements(size: tuple[int, int], side: int) -> list[AffineMap]:
    """Random views of whole photographs, and of ears from 1/20 of them on."""
    rng = np.random.default_rng(0)
    boxes = np.empty((0, 4), np.float32)
    views = [random_placement(size, side, boxes, _RANGES["full"], rng)[0] for _ in range(10)]
    for _ in range(20):
        extent = min(size) * np.exp(rng.uniform(np.log(0.05), 0, 2))
        low = rng.uniform(0, np.array(size) - extent)
        box = np.concatenate([low, extent]).astype(np.float32)
        views.append(crop_around(box, size, side, 0.4, float(rng.uniform(-180, 180)), bool(rng.random() < 0.5)))
    return views


@pytest.mark.parametrize("size", [(90, 70), (400, 300), (640, 900)])
def test_cutting_before_resizing_shows_what_resizing_the_whole_photograph_shows(size: tuple[int, int]) -> None:
    image = draw_picture(0, size[1], size[0])
    seen = 0
    for placement in placements(size, 96):
        inside = shown(placement)
        seen += inside.sum() > 1000
        whole = placement._placed(image)[inside].astype(int)
        difference = np.abs(placement.image(image)[inside] - whole)  # other places of the resized pixels: rounding
        assert (difference > 2).mean() < 0.002
        assert difference.max() <= 5
    assert seen > 20


def test_padding_begins_where_the_photograph_ends() -> None:
    """Half of the square lies beside it."""
    image = np.full((100, 100, 3), 200, np.uint8)
    placed = crop_around(np.array([0, 40, 20, 20], np.float32), (100, 100), 112, 0.4).image(
        image
    )  # 28 pixels, 4 apiece
    left = 4 * 4  # of the 28 pixels, 4 lie left of the photograph
    assert (placed[:, : left - 4] == PAD).all()
    assert (placed[:, left + 4 :] == 200).all()


@pytest.mark.parametrize("beside", [(-500.0, 30.0), (30.0, 900.0)])
def test_a_square_beside_the_photograph_is_padding(beside: tuple[float, float]) -> None:
    image = np.full((60, 80, 3), 200, np.uint8)
    placed = crop_around(np.array([*beside, 20, 20], np.float32), (80, 60), 32, 0.4).image(image)
    assert (placed == PAD).all()


def test_a_small_ear_in_a_large_photograph_takes_little_memory() -> None:
    """Enlarged whole, as the ear is, the photograph would take 750 MB."""
    image = np.zeros((3000, 4000, 3), np.uint8)
    image[1500:1520, 2000:2020] = 255
    placement = crop_around(np.array([2000, 1500, 20, 20], np.float32), (4000, 3000), 128, 0.4)
    tracemalloc.start()
    placed = placement.image(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
    x, _, width, height = placement.boxes(np.array([[2000, 1500, 20, 20]], np.float32))[0]
    columns = np.flatnonzero(placed[64, :, 0] > 127)
    assert (columns[0], columns[-1] + 1) == pytest.approx((x, x + width), abs=1)
    assert (width, height) == pytest.approx((128 / 1.4, 128 / 1.4))


def test_a_letterboxed_photograph_is_cut_nowhere() -> None:
    image: Pixels = draw_picture(1, 300, 420)
    placement = letterbox((420, 300), 128)
    assert np.array_equal(placement.image(image), placement._placed(image))


# The square around a box


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_square_is_the_longer_side_and_its_margin_with_the_box_in_the_middle(mirrored: bool) -> None:
    box = np.array([[30.0, 50.0, 20.0, 40.0]], np.float32)
    placement = crop_around(box[0], (200, 200), 112, 0.4, mirrored=mirrored)  # 112 pixels for 56: twice as large
    assert placement.boxes(box)[0] == pytest.approx([36, 16, 40, 80], abs=1e-4)
    left, right = placement.points(np.array([[30.0, 50.0, 2], [50.0, 90.0, 2]], np.float32))
    assert (left[0] < right[0]) != mirrored


def test_positive_turns_go_from_x_to_y() -> None:
    """Clockwise as the picture is looked at: what lies right of the middle then lies below it."""
    placement = crop_around(np.array([40.0, 40, 20, 20], np.float32), (100, 100), 100, 0, turn=90)
    middle, right = placement.points(np.array([[49.5, 49.5, 2], [55.5, 49.5, 2]], np.float32))
    assert right[:2] - middle[:2] == pytest.approx([0, 30], abs=1e-3)
