"""Soft-argmax in the pixel-centre convention, and landmarks that come back to where the photograph has them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ear_teacher.backbones import ConvBackbone
from ear_teacher.detector.landmarker import MARGIN, Landmarker, cell_centres
from ear_teacher.detector.model import EarDetector
from earface.data.affine import crop_around
from earface.data.images import Pixels

CROP, GRID, STRIDE = 64, 16, 4


class Constant(nn.Module):
    """A layer that says the same of every picture."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, _: Tensor) -> Tensor:
        return self.maps


def landmarker(num_landmarks: int = 3) -> Landmarker:
    torch.manual_seed(0)
    return Landmarker(ConvBackbone(3, 4, CROP), CROP, 16, num_landmarks).eval()


def seeing(heat: Tensor) -> Landmarker:
    """A landmarker whose heat maps are the given (1, 1, GRID, GRID)."""
    net = landmarker(1)
    net.tower = nn.Sequential(Constant(heat.repeat(1, 16, 1, 1)))
    with torch.no_grad():
        net.heat.weight.fill_(1 / 16)
        net.heat.bias.zero_()  # type: ignore[union-attr]
    return net


def test_cells_lie_in_the_middle_of_the_pixels_they_cover() -> None:
    """A cell of stride 4 covers the pixels 0 1 2 3, whose centres have the mean 1.5."""
    cells = cell_centres(GRID, STRIDE).view(GRID, GRID, 2)
    for row in range(GRID):
        for column in range(GRID):
            pixels = [STRIDE * column + step for step in range(STRIDE)], [STRIDE * row + step for step in range(STRIDE)]
            assert cells[row, column].tolist() == [sum(each) / STRIDE for each in pixels]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (5, 9), (15, 15), (0, 15)])
def test_a_narrow_peak_is_the_centre_of_its_cell(row: int, column: int) -> None:
    heat = torch.zeros(1, 1, GRID, GRID)
    heat[0, 0, row, column] = 100
    points, _, found = seeing(heat)(torch.zeros(1, 3, CROP, CROP))
    torch.testing.assert_close(found, heat)
    assert points[0, 0].tolist() == pytest.approx([STRIDE * column + 1.5, STRIDE * row + 1.5], abs=1e-4)


def test_two_equal_peaks_give_their_midpoint() -> None:
    heat = torch.zeros(1, 1, GRID, GRID)
    heat[0, 0, 3, 4] = heat[0, 0, 8, 13] = 100
    points, _, _ = seeing(heat)(torch.zeros(1, 3, CROP, CROP))
    assert points[0, 0].tolist() == pytest.approx([STRIDE * 8.5 + 1.5, STRIDE * 5.5 + 1.5], abs=1e-4)


def test_points_and_visibility_are_expectations_under_the_heat() -> None:
    """Of a real network, by a loop over the cells."""
    net = landmarker()
    torch.nn.init.normal_(net.heat.weight)
    torch.nn.init.normal_(net.visibility)
    crops = torch.rand(2, 3, CROP, CROP) * 2 - 1
    with torch.no_grad():
        points, visibility, heat = net(crops)
        maps = net.tower(net.pyramid(net.backbone(crops))[0])
    for crop in range(2):
        for landmark in range(3):
            weights = heat[crop, landmark].double().exp()
            weights /= weights.sum()
            x = y = 0.0
            seen = torch.zeros(16, dtype=torch.float64)
            for row in range(GRID):
                for column in range(GRID):
                    weight = weights[row, column]
                    x += float(weight) * (STRIDE * column + 1.5)
                    y += float(weight) * (STRIDE * row + 1.5)
                    seen += weight * maps[crop, :, row, column]
            assert points[crop, landmark].tolist() == pytest.approx([x, y], abs=1e-3)
            logit = (seen @ net.visibility[landmark].double() + net.visibility_bias[landmark]).item()
            assert float(visibility[crop, landmark]) == pytest.approx(logit, abs=1e-4)


def test_in_half_precision_points_are_still_the_expectation_under_the_heat() -> None:
    """Beyond the rounding of bfloat16, which is a quarter of a pixel at 32 and half of one at 64."""
    net = landmarker()
    with torch.autocast("cpu", torch.bfloat16):
        points, visibility, heat = net(torch.rand(2, 3, CROP, CROP) * 2 - 1)
        assert net.heat(torch.zeros(1, 16, 1, 1)).dtype == torch.bfloat16
    assert points.dtype == visibility.dtype == torch.float32
    wanted = heat.flatten(2).double().softmax(dim=-1) @ cell_centres(GRID, STRIDE).double()
    torch.testing.assert_close(points.double(), wanted, rtol=0, atol=1e-4)


def test_a_landmark_is_called_visible_before_training() -> None:
    _, visibility, _ = landmarker()(torch.rand(2, 3, CROP, CROP) * 2 - 1)
    assert (visibility > 0).all()


# From the photograph to the crop and back


def dot(size: tuple[int, int], point: tuple[float, float], sigma: float) -> Pixels:
    """A bright Gaussian dot on black; coordinates are pixel centres."""
    across, down = (
        np.exp(-((np.arange(side) - place) ** 2) / (2 * sigma**2)) for side, place in zip(size, point, strict=True)
    )
    grey = np.rint(255 * down[:, None] * across).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def brightest(image: Pixels) -> tuple[float, float]:
    """x y of the brightest pixel after blurring, to a fraction by the parabola through it and its neighbours."""
    grey = cv2.GaussianBlur(image[..., 0].astype(np.float64), (0, 0), 1.5)
    row, column = np.unravel_index(int(grey.argmax()), grey.shape)
    across, down = grey[row, column - 1 : column + 2], grey[row - 1 : row + 2, column]
    parts = [(a - c) / (2 * (a - 2 * b + c)) for a, b, c in (across, down)]
    return float(column + parts[0]), float(row + parts[1])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0.0, -25.0, 90.0])
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((40, 30), (8.0, 6.0, 18.0, 20.0)),
        ((300, 420), (120.5, 200.25, 61.0, 88.0)),
        ((2200, 1500), (1800.0, 1100.0, 300.0, 380.0)),
        ((2200, 1500), (40.0, 30.0, 16.0, 22.0)),
        ((200, 160), (150.0, 110.0, 50.0, 50.0)),  # in the corner: a part of the crop is padding
    ],
    ids=["tiny", "middle", "huge", "a tiny ear in a huge one", "at the border"],
)
def test_a_dot_is_where_its_landmark_goes_and_leads_back(
    size: tuple[int, int], box: tuple[float, float, float, float], turn: float, mirrored: bool
) -> None:
    point = (box[0] + 0.4 * box[2], box[1] + 0.6 * box[3])
    image = dot(size, point, sigma=max(box[2:]) / 20)
    placement = crop_around(np.array(box, np.float32), size, 128, MARGIN, turn, mirrored)
    keypoint = np.array([[*point, 2]], np.float32)
    moved = placement.points(keypoint)
    assert brightest(placement.image(image)) == pytest.approx(tuple(moved[0, :2]), abs=0.3)
    assert placement.points_back(moved) == pytest.approx(keypoint, abs=1e-3)


def test_points_in_a_crop_map_back_to_the_photograph() -> None:
    """A landmarker that always points at a cell of the crop, from `place_landmarks`."""
    model = EarDetector(encoder="conv", base_channels=4, image_size=64, crop_size=CROP, pyramid_width=16).eval()
    heat = torch.zeros(1, 1, GRID, GRID)
    heat[0, 0, 5, 9] = 100
    model.landmarks = seeing(heat)
    model.config = type(model.config)(**{**vars(model.config), "num_landmarks": 1})
    box = torch.tensor([[100.0, 80.0, 140.0, 160.0]])  # 80 high: 112 pixels in a crop of 64
    photograph = np.zeros((300, 400, 3), np.uint8)
    found = model.place_landmarks([photograph], [box])[0]["keypoints"][0, 0]
    scale = 80 * 1.4 / CROP
    corner = np.array([120 - 56, 120 - 56])
    assert found[:2].tolist() == pytest.approx([*(corner + (np.array([37.5, 21.5]) + 0.5) * scale - 0.5)], abs=1e-3)
    assert found[2] == 1
