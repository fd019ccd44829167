"""Ears drawn into photographs: where ink may be, what stays readable, what the inputs keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ear_teacher.detector.drawing import FOUND, MIN_SIDE, TRUE, draw_detections, photograph_grid, zoomed
from earface.data.annotations import Photograph
from earface.data.images import Pixels

SIDE = MIN_SIDE  # photographs of this size are not enlarged


def detected(
    boxes: list[list[float]], scores: list[float] | None = None, points: list[list[list[float]]] | None = None
) -> dict[str, Tensor]:
    count = len(boxes)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(count, 4),
        "scores": torch.tensor(scores or [0.9] * count),
        "labels": torch.ones(count, dtype=torch.int64),
        "keypoints": torch.tensor(points or []).reshape(count, len(points[0]) if points else 0, 3),
    }


def photograph(height: int = SIDE, width: int = SIDE, channels: int = 3) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def ink(before: Pixels, after: Pixels) -> np.ndarray:
    """(H, W) bool: what was drawn on."""
    return (before != after).any(axis=2)


def coloured(picture: Pixels, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == colour).all(axis=2)


def test_only_the_box_its_landmarks_and_its_label_are_drawn_on() -> None:
    picture = photograph()
    drawn = draw_detections(picture, detected([[400, 500, 480, 620]], points=[[[410, 530, 1], [470, 600, 0]]]))
    rows, columns = np.nonzero(ink(picture, drawn))
    assert 460 < rows.min() < 490  # the label is above
    assert (rows.max(), columns.min(), columns.max()) == (620 + 2, 400 - 3, 480 + 2)  # two pixels of line, one of rim
    inside = ink(picture, drawn)[510:610, 420:460]  # between the two landmarks: the ear is not covered
    assert not inside.any()


@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_stay_as_they_were_and_grey_becomes_rgb(channels: int) -> None:
    picture, found = photograph(70, 50, channels), detected([[5, 5, 30, 40]], points=[[[10, 10, 1], [20, 30, 0]]])
    truth = Photograph(Path("a.png"), (50, 70), np.array([[4, 4, 20, 30]], np.float32), np.ones((1, 2, 3), np.float32))
    picture.flags.writeable = truth.boxes.flags.writeable = truth.keypoints.flags.writeable = False
    kept = {name: values.clone() for name, values in found.items()}
    for drawn in (
        draw_detections(picture, found, truth=truth, skeleton=[(1, 2)]),
        zoomed(picture, found["boxes"][0], found, truth=truth, skeleton=[(1, 2)]),
        photograph_grid([picture, picture], 2),
    ):
        assert (drawn.dtype, drawn.shape[2], drawn.flags.writeable) == (np.uint8, 3, True)
    assert all(torch.equal(kept[name], found[name]) for name in found)


def test_a_photograph_without_ears_is_only_copied() -> None:
    picture = photograph()
    drawn = draw_detections(picture, detected([]))
    assert np.array_equal(drawn, picture)
    assert not np.shares_memory(drawn, picture)


def test_a_small_photograph_is_enlarged_so_that_a_pixel_can_be_seen() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    drawn = draw_detections(picture, detected([[20, 10, 40, 30]]))
    assert drawn.shape == (640, 960, 3)
    rows, columns = np.nonzero(coloured(drawn[150:], FOUND))  # below the label
    assert (rows.max() + 150, columns.min(), columns.max()) == (480 + 1, 320 - 2, 640 + 1)  # the frame is around it


def test_a_landmark_is_drawn_on_the_middle_of_its_enlarged_pixel() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    drawn = draw_detections(picture, detected([[-9, -9, -5, -5]], points=[[[25, 20, 1]]]))
    rows, columns = np.nonzero(drawn[300:360, 300:500, 1] > 128)
    assert (columns.mean() + 300, rows.mean() + 300) == pytest.approx((25.5 * 16 - 0.5, 20.5 * 16 - 0.5), abs=0.2)


@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("size", [30, 400, SIDE])
def test_a_label_at_a_corner_is_whole(corner: tuple[int, int], size: int) -> None:
    """Two scores differ in as many pixels as in the middle of the picture."""

    def differing(left: float, top: float, side: float) -> int:
        first, second = (
            draw_detections(picture, detected([[left, top, left + side, top + side]], [score]))
            for score in (0.12, 0.87)
        )
        return int(ink(first, second).sum())

    picture = photograph()
    left, top = (place * (SIDE - size) for place in corner)
    assert differing(left, top, size) == differing(450, 450, 60) > 50


def test_labels_of_neighbouring_ears_do_not_cover_each_other() -> None:
    picture = photograph()
    boxes = [[400.0, 400, 460, 500], [405, 402, 465, 502], [410, 396, 470, 498]]
    alone = [int(coloured(draw_detections(picture, detected([box], [0.5])), FOUND).sum()) for box in boxes]
    together = int(coloured(draw_detections(picture, detected(boxes, [0.5] * 3)), FOUND).sum())
    assert together > 0.85 * sum(alone)  # frames cross, labels are most of the ink


def test_a_hidden_landmark_is_hollow_and_a_visible_one_is_not() -> None:
    picture = photograph()
    points = [[[430, 520, 1], [470, 580, 0]]]
    drawn = draw_detections(picture, detected([[350, 450, 550, 650]], points=points), skeleton=[(1, 2)])
    assert tuple(drawn[520, 430]) == FOUND
    assert np.array_equal(drawn[580, 470], picture[580, 470])
    assert ink(picture, drawn)[576:585, 466:475].any()


def test_the_skeleton_joins_its_landmarks_counted_from_one() -> None:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    found = detected([[100, 100, 500, 500]], points=[[[150, 200, 1], [450, 200, 1], [300, 400, 1]]])
    assert (draw_detections(picture, found, skeleton=[(1, 2)])[200, 160:440, 1] > 128).all()
    assert not draw_detections(picture, found, skeleton=[(2, 3)])[200, 160:440].any()


def test_truth_has_a_colour_of_its_own_and_enclosing_boxes_are_no_truth() -> None:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    boxes, points = np.array([[100, 100, 200, 200]], np.float32), np.array([[[150, 150, 2], [0, 0, 0]]], np.float32)
    for has_boxes in (True, False):
        truth = Photograph(Path("a.png"), (SIDE, SIDE), boxes, points, has_boxes)
        drawn = draw_detections(picture, detected([]), truth=truth)
        assert tuple(drawn[150, 150]) == TRUE
        assert not drawn[:20, :20].any()  # a landmark that is not labelled is nowhere
        assert bool(coloured(drawn, TRUE)[99, 100:300].all()) == has_boxes
    assert not coloured(drawn, FOUND).any()


def test_ears_below_the_score_are_left_out() -> None:
    picture = photograph()
    boxes = [[100.0, 100, 200, 200], [500, 500, 600, 600]]
    wanted = draw_detections(picture, detected(boxes[:1], [0.8]))
    assert np.array_equal(draw_detections(picture, detected(boxes, [0.8, 0.3]), min_score=0.5), wanted)


@pytest.mark.parametrize("shape", [(1, 1), (10, 10), (1, 3000), (3000, 2)])
def test_any_picture_and_any_numbers_can_be_drawn(shape: tuple[int, int]) -> None:
    nan, far = float("nan"), 1e20
    boxes = [[-far, 0, far, far], [nan, 0, 1, 1], [5.0, 5, 5, 5], [9, 9, 1, 1], [0, 0, 1, 1]]
    points = [[[nan, 1, 1], [far, -far, 1], [0, 0, 0]]] * len(boxes)
    picture = photograph(*shape)
    found = detected(boxes, points=points)
    truth = Photograph(Path("a.png"), (shape[1], shape[0]), np.array([[0, 0, 1, 1]], np.float32), np.zeros((1, 0, 3)))
    drawn = draw_detections(picture, found, truth=truth, skeleton=[(1, 2), (2, 3)])
    assert drawn.shape[0] * shape[1] == drawn.shape[1] * shape[0]
    zoomed(picture, [0, 0, 1, 1], found, skeleton=[(1, 2)])


def test_a_close_up_shows_the_same_pixels_and_ears() -> None:
    picture = photograph(600, 800)
    found = detected([[300, 200, 340, 280], [700, 500, 720, 530]], points=[[[320, 240, 1]], [[710, 510, 1]]])
    close = zoomed(picture, [300, 200, 340, 280], found, margin=0.5, side=160)
    cut = picture[160:320, 260:380]  # half of the longer side, 40, around
    assert close.shape == cut.shape
    unlike = ink(cut, close)
    assert tuple(close[80, 60]) == FOUND
    assert unlike.mean() < 0.3
    assert not unlike[:, 100:].any()  # the other ear lies beside it


def test_tiles_are_equal_and_show_pictures_whole() -> None:
    black, wide = np.zeros((100, 50, 3), np.uint8), np.zeros((20, 200, 1), np.uint8)
    made = photograph_grid([black, black, wide], 2, side=60, gap=4)
    assert made.shape == (4 + 2 * 64, 4 + 2 * 34, 3)
    dark = (made == 0).all(axis=2)
    assert dark[4:64, 4:34].all()
    assert dark[4:64, 38:68].all()
    rows = np.flatnonzero(dark[68:128, 4:34].all(axis=1))
    assert list(rows) == [28, 29, 30]  # 3 of 60 rows, centred: in its proportions
    assert dark.sum() == 2 * 60 * 30 + 3 * 30


def test_captions_stay_under_their_tiles() -> None:
    grey = np.full((50, 50, 3), 128, np.uint8)
    long = "people/" * 30 + "ear.jpg"
    plain, named = (
        photograph_grid([grey] * 2, 2, side=100),
        photograph_grid([grey] * 2, 2, side=100, captions=["", long]),
    )
    dark = (named < 100).any(axis=2)
    assert dark.any()
    assert not dark[:, :112].any()
    assert not dark[:106].any()
    assert named.shape[0] > plain.shape[0]
    with pytest.raises(ValueError, match="1 captions for 2 pictures"):
        photograph_grid([grey] * 2, 2, captions=[long])
