"""The face contract: geometry, range, channel order, gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from earface.core.errors import InputError
from facial_rec.contract import Crop, FaceContract
from facial_rec.embedding import read_face

# InsightFace's five points in 112x112: eyes, nose, corners of the mouth
TEMPLATE = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
CROPS: tuple[Crop, ...] = ("arcface", "center")


def blob(x: float, y: float, side: int) -> Tensor:
    """(1, 3, side, side) in [-1, 1]: dark, with a Gaussian spot of deviation 3 px on a point."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    spot = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))
    return (spot * 2 - 1).expand(1, 3, side, side)


def centroid(picture: Tensor) -> tuple[float, float]:
    light = (picture[0, 0].double() + 1) / 2
    rows, columns = torch.meshgrid(torch.arange(len(light)), torch.arange(len(light)), indexing="ij")
    return float((light * columns).sum() / light.sum()), float((light * rows).sum() / light.sum())


def place(crop: str, x: float, y: float, side: int) -> tuple[float, float]:
    """Where a point of the template lies in a crop of `side` pixels, by the crop's definition."""
    if crop == "arcface":
        return x * side / 112, y * side / 112
    return (x + 8) * side / 128, (y + 8) * side / 128


@pytest.mark.parametrize("side", [128, 112, 160, 256])
@pytest.mark.parametrize("crop", CROPS)
def test_landmarks_land_on_the_template(crop: Crop, side: int) -> None:
    for x, y in TEMPLATE:
        given = (x, y) if side == 112 else place(crop, x, y, side)
        found = centroid(FaceContract(crop)(blob(*given, side)))
        # a scaled template counts from the first pixel's centre, a resize from its edge: (side / 112 - 1) / 2 pixels
        # of the crop, .06 of the input's at 128 and .28 at 256
        tolerance = 0.1 if side <= 128 else 0.1 + abs(1 - 112 / side) / 2
        assert found == pytest.approx((x, y), abs=tolerance)


@pytest.mark.parametrize("crop", CROPS)
def test_what_is_aligned_by_pixel_edges_lands_exactly(crop: Crop) -> None:
    scale, shift = (128 / 112, 0) if crop == "arcface" else (1, 8)
    for x, y in TEMPLATE:
        given = blob((x + 0.5) * scale - 0.5 + shift, (y + 0.5) * scale - 0.5 + shift, 128)
        assert centroid(FaceContract(crop)(given)) == pytest.approx((x, y), abs=0.02)


def test_arcface_is_pillows_antialiased_bilinear_resize() -> None:
    pixels = torch.randint(0, 256, (128, 128, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wanted = Image.fromarray(pixels.numpy()).resize((112, 112), Image.Resampling.BILINEAR)
    found = FaceContract("arcface")(pixels.permute(2, 0, 1)[None] / 127.5 - 1)
    rounded = ((found[0] + 1) * 127.5).round().permute(1, 2, 0)
    difference = (rounded - torch.from_numpy(np.array(wanted)).float()).abs()
    assert difference.max() <= 1  # Pillow rounds after each axis


def test_center_is_the_middle_untouched() -> None:
    crops = torch.rand(2, 3, 128, 128) * 2 - 1
    found = FaceContract("center")(crops)
    for y, x in [(0, 0), (0, 111), (50, 7), (111, 111)]:
        assert torch.equal(found[:, :, y, x], crops[:, :, y + 8, x + 8])


@pytest.mark.parametrize("crop", CROPS)
def test_faces_of_112_are_taken_as_they_are(crop: Crop) -> None:
    faces = torch.rand(2, 3, 112, 112) * 2 - 1
    assert torch.equal(FaceContract(crop)(faces), faces)


@pytest.mark.parametrize("crop", CROPS)
def test_another_size_is_resized_and_then_the_rule_is_the_same(crop: Crop) -> None:
    """center: to 128 first, so that the margin is 8; arcface: straight to 112."""
    crops = torch.rand(1, 3, 200, 200) * 2 - 1
    found = FaceContract(crop)(crops)
    side = 128 if crop == "center" else 112
    wanted = torch.nn.functional.interpolate(crops, (side, side), mode="bilinear", antialias=True)
    assert torch.equal(found, wanted[..., 8:120, 8:120] if crop == "center" else wanted)


@pytest.mark.parametrize("side", [32, 100, 112, 128, 300])
@pytest.mark.parametrize("crop", CROPS)
def test_the_range_is_kept(crop: Crop, side: int) -> None:
    crops = torch.randint(0, 2, (2, 3, side, side), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    found = FaceContract(crop)(crops)
    assert found.shape == (2, 3, 112, 112)
    assert found.abs().max() <= 1 + 1e-6
    for value in (-1.0, 0.25, 1.0):
        flat = FaceContract(crop)(torch.full((1, 3, side, side), value))
        torch.testing.assert_close(flat, torch.full((1, 3, 112, 112), value))


@pytest.mark.parametrize("crop", CROPS)
def test_a_red_picture_stays_red(crop: Crop, tmp_path: Path) -> None:
    Image.new("RGB", (128, 128), (255, 0, 0)).save(tmp_path / "red.png")
    found = read_face(tmp_path / "red.png", FaceContract(crop))
    assert found.shape == (3, 112, 112)
    torch.testing.assert_close(found, torch.tensor([1.0, -1, -1]).view(3, 1, 1).expand(3, 112, 112))


@pytest.mark.parametrize("side", [112, 128, 136])
@pytest.mark.parametrize("crop", CROPS)
def test_gradients_are_those_of_the_function(crop: Crop, side: int) -> None:
    crops = (torch.rand(1, 3, side, side, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(FaceContract(crop), (crops,), fast_mode=True)


def test_pixels_outside_the_center_have_no_gradient() -> None:
    crops = torch.zeros(1, 3, 128, 128, requires_grad=True)
    FaceContract("center")(crops).sum().backward()
    assert crops.grad is not None
    assert crops.grad[..., 8:120, 8:120].min() == 1
    assert crops.grad.sum() == 3 * 112 * 112


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype: torch.dtype) -> None:
    crops = (torch.rand(1, 3, 128, 128) * 2 - 1).to(dtype)
    found = FaceContract()(crops)
    assert found.dtype == torch.float32
    assert torch.equal(found, FaceContract()(crops.float()))


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        (torch.zeros(1, 3, 128, 128, dtype=torch.uint8), r"float crops in \[-1, 1\] wanted, not torch.uint8"),
        (torch.zeros(1, 1, 128, 128), "square RGB crops"),
        (torch.zeros(3, 128, 128), "square RGB crops"),
        (torch.zeros(1, 128, 128, 3), "square RGB crops"),
        (torch.zeros(1, 3, 128, 112), "square RGB crops"),
        (torch.zeros(1, 3, 0, 0), "square RGB crops"),
    ],
)
def test_other_input_is_refused(crops: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceContract()(crops)


def test_each_crop_has_an_id_of_its_own_and_no_other_is_known() -> None:
    assert len({FaceContract(crop).id for crop in CROPS}) == len(CROPS)
    assert FaceContract() == FaceContract("arcface")
    with pytest.raises(InputError, match="choose one of arcface, center"):
        FaceContract("middle")  # type: ignore[arg-type]
