"""Faces of several sizes as one batch: what is done to it is done to each as if it were alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from earface.data.padded_faces import (
    enlarge,
    interpolate_each,
    interpolation_table,
    pad_batch,
    padded,
    padded_sizes,
    unpadded,
    within,
)
from earface.data.pixels import interpolate, to_model_range
from earface.metrics.image_quality import SHARPNESS_SIDE, sharpness

SIZES = ((14, 14), (16, 9), (8, 16), (16, 16), (1, 3))  # height, width
SIDE = 16


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def batch(pictures: list[Tensor]) -> Tensor:
    return torch.stack([padded(each, SIDE) for each in pictures])


def test_a_padded_batch_holds_every_face_and_its_size(pictures: list[Tensor], batch: Tensor) -> None:
    assert batch.shape == (5, 3, SIDE, SIDE)
    assert [tuple(size) for size in padded_sizes(batch).tolist()] == list(SIZES)
    assert torch.equal(within(padded_sizes(batch), SIDE), ~batch[:, :1].isnan())
    for face, picture in zip(unpadded(batch), pictures, strict=True):
        assert torch.equal(face, to_model_range(picture[None])[0])
    assert torch.equal(pad_batch(batch[3:4], SIDE), batch[3:4])


def test_faces_are_enlarged_each_from_its_own_size(pictures: list[Tensor], batch: Tensor) -> None:
    found = enlarge(batch, 128, padded=True)
    assert found.dtype == torch.float32
    for face, picture in zip(found, pictures, strict=True):
        wanted = interpolate(to_model_range(picture[None]), 128)[0]
        torch.testing.assert_close(face, wanted, rtol=0, atol=2e-6)


def test_a_table_with_steps_interpolates_so_many_values_for_each_pixel(batch: Tensor) -> None:
    """And what lies beyond a face does not matter, as long as it is a number."""
    cells = torch.rand(5, 3, 4 * SIDE, 4 * SIDE, generator=torch.Generator().manual_seed(5))
    sizes, table = padded_sizes(batch), interpolation_table(128, SIDE, 4)
    found = interpolate_each(cells, sizes, table)
    for face, own, (height, width) in zip(found, cells, SIZES, strict=True):
        wanted = interpolate(own[None, :, : 4 * height, : 4 * width], 128)[0]
        torch.testing.assert_close(face, wanted, rtol=0, atol=2e-6)


def test_sharpness_of_padded_faces_is_that_of_each(pictures: list[Tensor], batch: Tensor) -> None:
    wanted = [float(sharpness(to_model_range(each[None]))) for each in pictures]
    assert sharpness(enlarge(batch, SHARPNESS_SIDE, padded=True)).tolist() == pytest.approx(wanted, rel=1e-4)
