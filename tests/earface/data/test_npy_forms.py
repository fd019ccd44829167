"""The forms in which people keep pictures in an NPY: each is read as the documented one, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earface.core.notices import DataWarning
from earface.data.image_cache import open_image_cache, read_picture
from earface.data.images import resize_image
from earface.data.npy import read_teacher_npy
from earface.data.training_checks import warn_of_unused_boxes
from tests.earface.data.test_npy import save_dict


def objects(items: list[Any]) -> NDArray[Any]:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def test_paths_alone_and_rows_of_dicts_are_read_as_columns_are(tmp_path: Path) -> None:
    names, boxes = ["a.png", "b/c.png"], [[0, 0, 9, 9], [1, 2, 3, 4]]
    rows = [
        {"image_path": name, "bbox": box, "subject": who} for name, box, who in zip(names, boxes, "ab", strict=True)
    ]
    columns = read_teacher_npy(
        save_dict(tmp_path / "t.npy", {"image_paths": names, "bboxes": boxes, "subjects": ["a", "b"]})
    )
    for array in (np.array(names), objects(names), objects([Path(name) for name in names])):
        np.save(tmp_path / "paths.npy", array)
        assert read_teacher_npy(tmp_path / "paths.npy").image_paths == [tmp_path / name for name in names]
    np.save(tmp_path / "rows.npy", objects(rows))
    read = read_teacher_npy(tmp_path / "rows.npy")
    assert (read.image_paths, read.subjects) == (columns.image_paths, columns.subjects)
    np.testing.assert_array_equal(read.bboxes, columns.bboxes)


def test_an_object_array_of_pictures_holds_the_same_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), np.uint8)
    for array in (objects(list(pixels)), np.array(list(pixels), dtype=object)):
        np.save(tmp_path / "t.npy", array)
        np.testing.assert_array_equal(read_teacher_npy(tmp_path / "t.npy").images, pixels)
    ragged = [pixels[0], pixels[1, :5], pixels[2, :, :4, 0]]
    np.save(tmp_path / "t.npy", objects(ragged))
    read = read_teacher_npy(tmp_path / "t.npy")
    cache = open_image_cache(read, image_size=16, channels=3, cache_dir=tmp_path)
    for row, picture in enumerate(ragged):
        colour = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        np.testing.assert_array_equal(cache.images[row], resize_image(colour, 16))


@pytest.mark.parametrize(("dtype", "factor"), [(np.uint16, 257), (np.int64, 1), (np.uint8, 1), (np.int16, 1)])
def test_whole_numbers_of_any_width_are_the_same_pixels(tmp_path: Path, dtype: type, factor: int) -> None:
    pixels = np.arange(4 * 8 * 8).reshape(4, 8, 8).astype(np.uint8)
    np.save(tmp_path / "t.npy", pixels.astype(dtype) * dtype(factor))
    np.testing.assert_array_equal(read_teacher_npy(tmp_path / "t.npy").images, pixels[..., None])


def test_keys_that_are_not_read_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.arange(2))
    with pytest.warns(DataWarning, match="labels are not read .*; whose picture each is stands under subjects"):
        read_teacher_npy(tmp_path / "t.npz")


def test_subjects_that_look_alike_are_one_person(tmp_path: Path) -> None:
    names = ["Jos\u00e9", "Jose\u0301", " Jos\u00e9\t"]
    read = read_teacher_npy(save_dict(tmp_path / "t.npy", {"image_paths": list("abc"), "subjects": names}))
    assert set(read.subjects or ()) == {"Jos\u00e9"}


def test_boxes_on_pictures_of_many_sizes_are_judged_by_each_picture_s_own(tmp_path: Path) -> None:
    sizes = [(8, 6), (40, 60), (90, 80)]
    boxes = [[1, 1, 5, 6], [2, 2, 9, 9], [3, 3, 9, 9]]
    content = {"images": [np.zeros((*size, 3), np.uint8) for size in sizes], "bboxes": boxes}
    data = read_teacher_npy(save_dict(tmp_path / "t.npy", content))
    with pytest.warns(DataWarning, match="has boxes that are a small part of the pictures"):  # of two of the three
        warn_of_unused_boxes(data, "crop them")
    assert read_picture(data, 1, channels=3, crop_to_bbox=True).shape == (9, 9, 3)
