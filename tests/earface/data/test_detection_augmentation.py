"""Boxes and landmarks follow the pixels: what is painted at a place is found at the place it is said to go to."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from earface.data.affine import PAD, AffineMap, hide_outside, letterbox
from earface.data.annotations import Floats, Photograph
from earface.data.augmentation import PixelAugmentation
from earface.data.detection_augmentation import _RANGES, MIN_SHARE, Scene, SceneAugmentation, place, random_placement
from earface.data.images import Pixels

SIZES = [(48, 36), (480, 360), (333, 500), (97, 640), (1, 1), (7, 300), (256, 256)]


def photograph_of(
    size: tuple[int, int], boxes: object, keypoints: object = None, sides: tuple[str, ...] = ()
) -> Photograph:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    points = np.zeros((len(boxes), 0, 3)) if keypoints is None else keypoints
    return Photograph(Path("synthetic.png"), size, boxes, np.array(points, np.float32), sides=sides)


def dot_picture(size: tuple[int, int], point: tuple[float, float], sigma: float) -> Pixels:
    """A bright Gaussian dot around a point, on black; coordinates are pixel centres."""
    y, x = np.mgrid[: size[1], : size[0]]
    dot = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(dot).astype(np.uint8)[..., None], 3, axis=2)


def found_dot(image: Pixels) -> Floats:
    """The weighted middle of what is brighter than the padding."""
    weight = np.clip(image[..., 0].astype(np.float64) - PAD - 16, 0, None)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def placements(
    size: tuple[int, int], count: int, boxes: Floats, strength: str = "full", side: int = 256
) -> list[AffineMap]:
    rng = np.random.default_rng(3)
    return [random_placement(size, side, boxes, _RANGES[strength], rng)[0] for _ in range(count)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [64, 129])
def test_letterboxing_leads_back(size: tuple[int, int], side: int):
    rng = np.random.default_rng(0)
    placement = letterbox(size, side)
    points = np.concatenate([rng.uniform(-0.5, np.array(size) - 0.5, (5, 2)), np.ones((5, 1))], axis=1).astype(
        np.float32
    )
    low = rng.uniform(0, 0.5, (4, 2)) * size
    boxes = np.concatenate([low, rng.uniform(0.1, 0.5, (4, 2)) * size], axis=1).astype(np.float32)
    np.testing.assert_allclose(placement.points_back(placement.points(points)), points, atol=2e-4)
    np.testing.assert_allclose(placement.boxes_back(placement.boxes(boxes)), boxes, atol=5e-4)


@pytest.mark.parametrize("size", SIZES)
def test_letterboxing_shows_the_whole_photograph_and_pads_the_rest(size: tuple[int, int]):
    image = np.full((size[1], size[0], 3), 200, np.uint8)
    placed = letterbox(size, 64).image(image)
    x, y, width, height = letterbox(size, 64).boxes(np.array([[0, 0, *size]], np.float32))[0]
    assert max(width, height) == 64
    columns, rows = np.flatnonzero((placed == 200).any(axis=(0, 2))), np.flatnonzero((placed == 200).any(axis=(1, 2)))
    assert (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1) == pytest.approx((x, x + width, y, y + height))
    assert set(np.unique(placed)) <= {PAD, 200}


def test_a_square_of_the_same_size_is_the_photograph_itself():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(letterbox((64, 64), 64).image(image), image)
    wide = np.random.default_rng(0).integers(0, 256, (40, 64, 1), np.uint8)
    assert np.array_equal(letterbox((64, 40), 64).image(wide)[12:52], wide)


@pytest.mark.parametrize(("size", "sigma"), [((480, 360), 6.0), ((60, 90), 2.0), ((900, 700), 12.0)])
def test_a_dot_at_a_landmark_is_found_where_the_landmark_goes(size: tuple[int, int], sigma: float):
    point = (0.55 * size[0] + 0.3, 0.45 * size[1])
    image = dot_picture(size, point, sigma)
    box = np.array([[point[0] - 20, point[1] - 20, 40, 40]], np.float32)
    keypoint = np.array([[*point, 2]], np.float32)
    seen = 0
    for placement in [letterbox(size, 256), *placements(size, 40, box)]:
        x, y, _ = placement.points(keypoint)[0]
        if 60 < x < 196 and 60 < y < 196:  # the whole dot is inside
            seen += 1
            np.testing.assert_allclose(found_dot(placement.image(image)), (x, y), atol=0.1)
    assert seen > 10


def test_an_ellipse_in_a_box_fills_the_box_it_goes_to():
    size, box = (480, 360), np.array([[200, 120, 60, 100]], np.float32)
    image = np.zeros((360, 480, 3), np.uint8)
    y, x = np.mgrid[:360, :480] + 0.5
    image[((x - 230) / 30) ** 2 + ((y - 170) / 50) ** 2 <= 1] = 255
    seen = 0
    for placement in [letterbox(size, 256), *placements(size, 40, box)]:
        left, top, width, height = placement.boxes(box)[0]
        if left > 2 and top > 2 and left + width < 254 and top + height < 254:
            seen += 1
            inside = placement.image(image)[..., 0] > 184  # halfway from the padding's grey
            columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
            found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            np.testing.assert_allclose(found, (left, top, left + width, top + height), atol=1.6)
    assert seen > 15


def test_without_turning_boxes_are_those_of_their_corners():
    """The loop that any mirrored, scaled and shifted box must agree with."""
    rng = np.random.default_rng(1)
    boxes = np.concatenate([rng.uniform(0, 200, (20, 2)), rng.uniform(5, 100, (20, 2))], axis=1).astype(np.float32)
    for _ in range(10):
        sx, sy, tx, ty = rng.choice([-1, 1]) * rng.uniform(0.3, 3), rng.uniform(0.3, 3), *rng.uniform(-50, 50, 2)
        moved = AffineMap(np.array([[sx, 0, tx], [0, sy, ty]]), (300, 300), 256).boxes(boxes)
        for (x, y, w, h), found in zip(boxes, moved, strict=True):
            xs, ys = sorted((x * sx + tx, (x + w) * sx + tx)), sorted((y * sy + ty, (y + h) * sy + ty))
            np.testing.assert_allclose(found, (xs[0], ys[0], xs[1] - xs[0], ys[1] - ys[0]), atol=1e-3)


def test_mirroring_swaps_the_side_and_keeps_the_landmarks_order():
    photograph = photograph_of((100, 80), [[10, 20, 30, 40]], [[[12, 30, 2], [35, 50, 1]]], ("l",))
    image = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    mirror = AffineMap(np.array([[-1.0, 0, 100], [0, 1, 0]]), (100, 80), 100)
    scene = place(photograph, image, mirror, mirrored=True)
    assert scene.sides == ("r",)
    np.testing.assert_allclose(scene.boxes, [[60, 20, 30, 40]])
    np.testing.assert_allclose(scene.keypoints, [[[87, 30, 2], [64, 50, 1]]])
    assert np.array_equal(scene.image[:80], image[:, ::-1])


def test_ears_are_kept_by_what_is_left_of_them():
    window = AffineMap(np.array([[1.0, 0, 0], [0, 1, 0]]), (200, 200), 100)  # the photograph's first 100 pixels
    share = MIN_SHARE + 0.01
    boxes = [
        [10, 10, 20, 20],
        [100 - 40 * share, 10, 40, 40],
        [100 - 40 * (MIN_SHARE - 0.01), 50, 40, 40],
        [150, 9, 9, 9],
    ]
    points = [[[x + 1, y + 1, 2], [x + w - 1, y + h - 1, 1], [0, 0, 0]] for x, y, w, h in boxes]
    photograph = photograph_of((200, 200), boxes, points, ("l", "r", "l", ""))
    scene = place(photograph, np.zeros((200, 200, 3), np.uint8), window)
    assert scene.ears.tolist() == [0, 1]
    assert scene.sides == ("l", "r")
    np.testing.assert_allclose(scene.boxes[1], [100 - 40 * share, 10, 40 * share, 40], rtol=1e-5)
    np.testing.assert_array_equal(scene.keypoints[..., 2], [[2, 1, 0], [2, 0, 0]])
    assert (scene.keypoints[1, 1:] == 0).all()
    np.testing.assert_allclose(
        scene.dropped, [[100 - 40 * (MIN_SHARE - 0.01), 50, 40 * (MIN_SHARE - 0.01), 40]], rtol=1e-4
    )


def test_a_landmark_is_labelled_exactly_where_a_pixel_shows_it():
    points = np.array([[[-0.4, 0, 2], [-0.6, 0, 2], [9.4, 19.4, 1], [9.6, 5, 2], [5, 19.6, 2], [3, 3, 0]]], np.float32)
    assert hide_outside(points, 10, 20)[0, :, 2].tolist() == [2, 0, 1, 0, 0, 0]


def scene_of(strength: str, key: tuple[int, ...], channels: int = 3) -> Scene:
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), (120, 90))
    boxes = [[10, 20, 20, 30], [80, 10, 25, 40]]
    points = [[[x + 5, y + 9, 2], [x + w / 2, y + h / 2, 1]] for x, y, w, h in boxes]
    photograph = photograph_of((120, 90), boxes, points, ("l", "r"))
    return SceneAugmentation(strength, 96)(photograph, image[..., :channels], key)  # type: ignore[arg-type]


@pytest.mark.parametrize("strength", ["light", "full"])
def test_a_view_follows_from_its_key_alone(strength: str):
    keys = [(1, epoch, index) for epoch in range(3) for index in range(3)]
    first = [scene_of(strength, key) for key in keys]
    again = [scene_of(strength, key) for key in reversed(keys)][::-1]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.keypoints, b.keypoints)
    assert len({scene.image.tobytes() for scene in first}) == len(keys)


def test_views_of_all_kinds_occur_and_stay_consistent():
    scenes = [scene_of("full", (5, 0, index)) for index in range(60)]
    assert {len(scene.boxes) for scene in scenes} == {0, 1, 2}
    assert {scene.sides for scene in scenes} >= {("l", "r"), ("r", "l")}
    assert any(len(scene.dropped) for scene in scenes)
    for scene in scenes:
        assert scene.image.shape == (96, 96, 3)
        assert scene.boxes.shape == (len(scene.ears), 4)
        assert scene.keypoints.shape == (len(scene.ears), 2, 3)
        low, high = scene.boxes[:, :2], scene.boxes[:, :2] + scene.boxes[:, 2:]
        assert (low >= 0).all()
        assert (high <= 96 + 1e-3).all()
        seen = scene.keypoints[scene.keypoints[..., 2] > 0]
        assert ((seen[:, :2] >= -0.5) & (seen[:, :2] <= 95.5)).all()


def test_no_augmentation_is_the_letterbox():
    scene = scene_of("none", ())
    np.testing.assert_allclose(scene.placement.boxes_back(scene.boxes), [[10, 20, 20, 30], [80, 10, 25, 40]], atol=1e-3)
    assert scene.sides == ("l", "r")


def test_grey_photographs_stay_grey():
    scene = scene_of("full", (1, 2, 3), channels=1)
    assert scene.image.shape == (96, 96, 1)


@pytest.mark.parametrize("strength", ["light", "full"])
def test_pixel_augmentation_moves_nothing(strength: str):
    """An edge stays where it is, to a fraction of a pixel, whatever blur and JPEG do to it."""
    image = np.full((64, 64, 3), 40, np.uint8)
    image[:, 32:] = 200
    augment = PixelAugmentation(strength)  # type: ignore[arg-type]
    for index in range(60):
        for picture, turn in ((image, 0), (image.transpose(1, 0, 2), 1)):
            profile = augment(np.ascontiguousarray(picture), (0, index)).mean(axis=(turn, 2))
            low, high = profile[:20].mean(), profile[-20:].mean()
            edge = ((high - profile) / (high - low)).sum()  # how many of the pixels are dark
            assert edge == pytest.approx(32, abs=0.5)


def test_a_photograph_without_ears_can_be_augmented():
    scene = SceneAugmentation("full", 64)(photograph_of((50, 40), []), np.zeros((40, 50, 3), np.uint8), (1, 2))
    assert scene.boxes.shape == (0, 4)
    assert scene.dropped.shape == (0, 4)
