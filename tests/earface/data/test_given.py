"""Pictures as Python code has them: each way gives the same pixels, and what could be misread is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from earface.core.errors import InputError
from earface.core.notices import DataWarning
from earface.data.given import Picture, each_picture, in_model_range, pixels_of_picture
from earface.data.images import Pixels, read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def read(given: Any, channels: int = 3) -> list[Pixels]:
    return [pixels_of_picture(picture, name, channels) for name, picture in each_picture(given)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_every_way_to_give_a_picture_gives_its_pixels(path: Path) -> None:
    chw = torch.from_numpy(PIXELS).permute(2, 0, 1)
    ways: list[Picture] = [path, str(path), Image.open(path), PIXELS, chw]
    for way in ways:
        for several in (way, [way, way]):
            for pixels in read(several):
                np.testing.assert_array_equal(pixels, PIXELS)
                assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(read(way, channels=1)[0], read_image(path, 1))
    assert len(read(np.stack([PIXELS] * 3))) == len(read(torch.stack([chw] * 3))) == 3
    assert [name for name, _ in each_picture(path.parent)] == [str(path)]
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(read(grey)[0], np.repeat(grey[..., None], 3, axis=2))


def test_pillow_s_picture_is_turned_as_the_file_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read(Image.open(tmp_path / "turned.png"))[0], read_image(tmp_path / "turned.png"))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (PIXELS.astype(np.float32), r"array of float32, which is to be uint8: x\.round\(\)\.astype\('uint8'\)"),
        (
            torch.from_numpy(PIXELS).permute(2, 0, 1).long(),
            r"tensor of int64, which is to be uint8: x\.astype\('uint8'\)",
        ),
        (PIXELS.astype(np.int16) - 40, "array of int16, which is to be uint8, 0 to 255$"),
        (PIXELS * np.nan, "array of float64, which is to be uint8, 0 to 255$"),
        (PIXELS / 255, r"array of float64, which is to be uint8: round\(255 \* x\)"),
        (np.zeros((4, 4, 5), np.uint8), "with 1 or 3 channels is wanted"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), r"tensor with 1 or 3 channels is wanted, not \(4, 5, 3\)"),
        ([PIXELS, 7], "picture 1: is a int, not a path"),
        ([], "no pictures were given"),
        ("nowhere.png", "nowhere.png: no such file"),
    ],
)
def test_what_could_be_misread_is_refused(given: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read(given)


def test_float_tensors_are_taken_in_the_range_of_models_alone() -> None:
    images = torch.rand(2, 3, 4, 4) * 2 - 1
    assert in_model_range(images) is images
    assert torch.equal(in_model_range(images[0]), images[:1])  # type: ignore[arg-type]
    assert in_model_range(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)) is None
    for wrong in (images * 255, images * torch.nan):
        with pytest.raises(InputError, match=r"give them in \[-1, 1\]"):
            in_model_range(wrong)
    with pytest.warns(DataWarning, match="without a value below 0"):
        in_model_range(images.abs())
