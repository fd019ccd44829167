from __future__ import annotations

import numpy as np
import pytest
import torch

from earface.data.pixels import to_model_range, to_uint8, to_unit

LEVELS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


def test_every_level_survives_the_way_to_the_model_and_back() -> None:
    images = np.concatenate([LEVELS, LEVELS[:, ::-1], LEVELS.transpose(0, 2, 1, 3)], axis=3)
    assert torch.equal(to_uint8(to_model_range(torch.from_numpy(images))), torch.from_numpy(images))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_channels_become_the_last_axis_whatever_comes_before_them(batch: tuple[int, ...]) -> None:
    images = torch.rand(*batch, 3, 5, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = np.rint(np.moveaxis((images.numpy() + 1) / 2 * 255, -3, -1))
    found = to_uint8(images)
    assert found.is_contiguous()
    assert np.array_equal(found.numpy(), wanted)


def test_what_is_out_of_range_is_clamped_not_wrapped() -> None:
    assert to_uint8(torch.tensor([-1.5, -1.0, 1.0, 9.0]).reshape(1, 1, 4)).flatten().tolist() == [0, 0, 255, 255]


def test_to_unit_maps_the_models_range_to_pixels() -> None:
    assert to_unit(torch.tensor([-1.0, 0.0, 1.0, 1.5])).tolist() == [0.0, 0.5, 1.0, 1.25]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_to_unit_adds_in_float32_at_least(dtype: torch.dtype) -> None:
    images = torch.linspace(-1, 1, 301).to(dtype)
    found = to_unit(images)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found.double(), (images.double() + 1) / 2, rtol=0, atol=1e-7)
