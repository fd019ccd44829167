"""Boxes that are something else than x y width height are refused or warned of, and right ones are not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from earface.core.errors import InputError
from earface.core.notices import DataWarning
from earface.data.annotations import read_boxes_csv, read_pts_folder, write_pts
from earface.data.boxes import check_boxes, checked_box, looks_like_fractions, read_headers

SIZE = (480, 360)


def check(boxes: NDArray[np.float64], size: tuple[int, int] = SIZE, orientation: int = 1) -> None:
    check_boxes("b.csv", enumerate(boxes.tolist()), dict.fromkeys(range(len(boxes)), (size, orientation)))


def as_corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def ears(seed: int, low: tuple[float, float] = (0, 0), count: int = 40) -> NDArray[np.float64]:
    """(count, 4) boxes of 20 to 60 pixels anywhere in the picture from `low` on."""
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(20, 60, (count, 2))
    return np.concatenate([rng.uniform(low, np.array(SIZE) - sizes), sizes], axis=1)


def crops(seed: int, count: int = 40) -> NDArray[np.float64]:
    """(count, 4) boxes of nearly the whole picture, so that every width is above x and every height above y."""
    rng = np.random.default_rng(seed)
    near, far = rng.uniform(0, 0.15, (count, 2)), rng.uniform(0.85, 1, (count, 2))
    return np.concatenate([near, far - near], axis=1) * np.tile(SIZE, 2)


@given(st.integers(0, 10**6))
def test_right_boxes_are_not_warned_of(seed: int):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for boxes in (ears(seed), ears(seed, count=1), crops(seed), crops(seed, count=1), crops(seed) / 2):
            check(boxes)
            for box in boxes:
                checked_box(box.tolist(), SIZE)


@given(st.integers(0, 10**6))
def test_corners_of_ears_all_over_the_picture_are_refused(seed: int):
    with pytest.raises(InputError, match=r"^b\.csv: the boxes look like corners, .* write x y, xmax - xmin and ymax"):
        check(as_corners(ears(seed)))
    with pytest.raises(InputError, match="look like corners"):
        check(as_corners(ears(seed)), orientation=6)


@given(st.integers(0, 10**6))
def test_corners_that_all_fit_as_boxes_are_warned_of(seed: int):
    rng = np.random.default_rng(seed)
    near, sizes = rng.uniform(10, 120, (30, 2)), rng.uniform(20, 40, (30, 2))
    boxes = as_corners(np.concatenate([near, sizes], axis=1))
    with pytest.warns(DataWarning, match="may be corners"):
        check(boxes)


@given(st.tuples(*[st.floats(0.02, 0.98)] * 2), st.tuples(*[st.floats(0.01, 0.9)] * 2))
def test_fractions_are_known_with_the_corner_and_with_the_centre(place: tuple[float, float], size: tuple[float, float]):
    for fractions in ([*place, *size], [min(place[0], 1 - size[0]), min(place[1], 1 - size[1]), *size]):
        assert looks_like_fractions(np.array(fractions))
        with pytest.raises(InputError, match="fractions"):
            checked_box(fractions, SIZE)
        with pytest.raises(InputError, match=r"^b\.csv: the boxes look like fractions"):
            check(np.array([fractions] * 3))


def test_a_set_in_another_unit_is_refused_by_its_size():
    with pytest.raises(InputError, match=r"none of its 5 boxes is larger than 2 pixels"):
        check(np.array([[30, 40, 1.5, 2]] * 5))
    check(np.array([[30, 40, 1.5, 2]] * 5 + [[30, 40, 9, 9]]))
    check(np.array([[0, 0, 2, 2]]), (2, 2))


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """Six pictures of 60x40 that EXIF turns to 40x60, and one that it leaves."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(6):
        Image.new("RGB", (60, 40), (number, 80, 90)).save(tmp_path / f"{number}.jpg", exif=exif)
    Image.new("RGB", (60, 40)).save(tmp_path / "6.jpg")
    return tmp_path


def table(folder: Path, box: str) -> Path:
    path = folder / "boxes.csv"
    path.write_text("file,x,y,width,height\n" + "".join(f"{number}.jpg,{box}\n" for number in range(6)) + "6.jpg,,,,\n")
    return path


def test_boxes_on_pictures_that_exif_turns_are_warned_of(turned: Path):
    with pytest.warns(DataWarning, match="EXIF turns 6 of the 6 pictures"):
        read_boxes_csv(table(turned, "5,5,20,20"))


def test_boxes_that_fit_what_is_stored_alone_are_refused(turned: Path):
    with pytest.raises(InputError, match="6 boxes fit their pictures as these are stored, and not as EXIF turns them"):
        read_boxes_csv(table(turned, "38,5,20,20"))


def test_boxes_that_fit_the_upright_pictures_alone_are_right(turned: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_boxes_csv(table(turned, "5,38,20,20"))


def test_points_on_pictures_that_exif_turns_are_warned_of(turned: Path):
    write_pts(turned / "1.pts", np.array([[3, 4], [20, 30]], np.float32))
    with pytest.warns(DataWarning, match="EXIF turns 1 of the 1 pictures"):
        read_pts_folder(turned)


def test_the_size_in_a_header_is_the_upright_one(turned: Path):
    (turned / "7.jpg").write_bytes(b"no picture")
    headers = read_headers(turned / f"{number}.jpg" for number in (0, 6, 7))
    assert list(headers.values()) == [((40, 60), 6), ((60, 40), 1), None]
