"""Image grids, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from earface.data.image_grid import (
    ERROR_LIMIT,
    GAP,
    LABEL_WIDTH,
    SCALE_HEIGHT,
    absolute_error,
    error_colours,
    image_grid,
    save_image_grid,
    tile_images,
)


def pictures(count: int, side: int, channels: int = 3) -> torch.Tensor:
    """Values that are whole in uint8."""
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator) / 255


@pytest.mark.parametrize(("side", "zoom"), [(96, 1), (128, 1), (64, 2), (48, 2), (32, 3), (10, 10)])
def test_every_picture_stands_in_its_place_enlarged_by_whole_pixels(side: int, zoom: int) -> None:
    rows = {"input": pictures(3, side), "reconstruction\nof it": pictures(2, side)}
    grid = image_grid(rows)
    step = side * zoom + GAP
    assert grid.dtype == np.uint8
    assert grid.shape == (2 * step, LABEL_WIDTH + 3 * step, 3)
    for line, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            left, top = LABEL_WIDTH + column * step, line * step
            shown = grid[top : top + side * zoom, left : left + side * zoom]
            wanted = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
            assert np.array_equal(shown, np.kron(wanted, np.ones((zoom, zoom, 1), np.uint8)))


def test_gaps_and_missing_pictures_are_white() -> None:
    grid = image_grid({"a": torch.zeros(2, 3, 96, 96), "b": torch.zeros(1, 3, 96, 96)})
    assert (grid[96 : 96 + GAP] == 255).all()
    assert (grid[:, LABEL_WIDTH + 96 : LABEL_WIDTH + 96 + GAP] == 255).all()
    assert (grid[96 + GAP :, LABEL_WIDTH + 96 :] == 255).all()


def test_each_row_bears_its_name() -> None:
    margins = [image_grid({name: torch.zeros(1, 3, 96, 96)})[:, :LABEL_WIDTH] for name in ("input", "prior", "")]
    assert (margins[0] < 128).any()
    assert (margins[0] != margins[1]).any()
    assert (margins[2] == 255).all()


def test_grey_pictures_are_shown_grey() -> None:
    grey = pictures(2, 96, channels=1)
    assert np.array_equal(image_grid({"grey": grey}), image_grid({"grey": grey.expand(-1, 3, -1, -1)}))


def test_values_outside_the_range_are_clipped() -> None:
    grid = image_grid({"x": torch.stack([torch.full((3, 96, 96), -1.0), torch.full((3, 96, 96), 2.0)])})
    assert (grid[:96, LABEL_WIDTH : LABEL_WIDTH + 96] == 0).all()
    assert (grid[:96, LABEL_WIDTH + 96 + GAP : -GAP] == 255).all()


def test_the_file_holds_the_grid_in_rgb(tmp_path: Path) -> None:
    grid = save_image_grid(tmp_path / "grids" / "epoch_000.png", {"input": pictures(2, 96)})
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "grids" / "epoch_000.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read, grid)


def test_a_label_that_is_longer_than_the_margin_is_not_cut():
    name = "a-checkpoint-with-a-long-name/last"
    grid = image_grid({name: torch.ones(1, 3, 96, 96)})
    margin = grid[:, : grid.shape[1] - 96 - GAP]
    inked = (margin < 128).any(axis=(0, 2)).nonzero()[0]
    assert LABEL_WIDTH < inked.max() < margin.shape[1] - 2


@pytest.mark.parametrize(("count", "columns", "shape"), [(5, 2, (3, 2)), (4, 4, (1, 4)), (3, 8, (1, 3))])
def test_tiles_are_in_reading_order_and_empty_places_white(count: int, columns: int, shape: tuple[int, int]) -> None:
    images = [np.full((2, 3, 3), number, np.uint8) for number in range(count)]
    tiles = tile_images(images, columns)
    rows, across = shape
    wanted = np.pad(np.arange(count), (0, rows * across - count), constant_values=255).reshape(shape)
    assert np.array_equal(tiles, np.kron(wanted, np.ones((2, 3)))[..., None].repeat(3, axis=2))


def test_an_error_is_the_mean_difference_of_the_channels_as_they_are_shown() -> None:
    found, wanted = pictures(2, 8), pictures(2, 9)[..., :8, :8]
    slow = np.abs(found.numpy() - wanted.numpy()).sum(axis=1, keepdims=True) / 3
    np.testing.assert_allclose(absolute_error(found, wanted).numpy(), slow, atol=1e-6)
    assert absolute_error(torch.full((1, 3, 1, 1), 1.5), torch.ones(1, 3, 1, 1)).max() == 0  # both are shown white


def test_errors_have_one_hue_and_darken_in_proportion() -> None:
    """By CIE L*a*b*, from white on, in the same colours in every grid; all beyond the limit are the darkest."""
    levels = np.linspace(0, 1, 41)
    colours = error_colours(levels * ERROR_LIMIT / 255)
    lab = cv2.cvtColor((colours[None] / 255).astype(np.float32), cv2.COLOR_RGB2Lab)[0]
    np.testing.assert_allclose(lab[:, 0], 100 - 80 * levels, atol=1.0)
    coloured = lab[np.hypot(lab[:, 1], lab[:, 2]) > 8]
    assert len(coloured) > 30
    assert np.ptp(np.rad2deg(np.arctan2(coloured[:, 2], coloured[:, 1])) % 360) < 10
    assert (colours[0] == 255).all()
    assert np.array_equal(error_colours(np.array([ERROR_LIMIT / 255, 0.5, 1.0])), colours[[-1] * 3])


def test_error_maps_stand_below_the_images_with_their_scale() -> None:
    errors = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.3
    grid = image_grid({"input": pictures(2, 64)}, errors={"error of\nthe VAE": errors})
    plain = image_grid({"input": pictures(2, 64)})
    assert np.array_equal(grid[: len(plain)], plain)
    assert len(grid) == 2 * len(plain) + SCALE_HEIGHT
    shown = grid[len(plain) : len(plain) + 128, LABEL_WIDTH : LABEL_WIDTH + 128]
    assert np.array_equal(shown, error_colours(errors[0, 0].numpy()).repeat(2, 0).repeat(2, 1))
    bar = grid[-SCALE_HEIGHT + 14, LABEL_WIDTH + 1 : LABEL_WIDTH + 2 * 130 - GAP - 1].astype(int).sum(axis=1)
    assert (np.diff(bar) <= 0).all()
    assert bar[0] > 740
    assert bar[-1] < 170
