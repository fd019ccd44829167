"""Odd pictures that are found before a training starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from earface.core.errors import InputError
from earface.core.notices import collecting_warnings, warnings_given
from earface.data.images import write_image
from earface.data.npy import TeacherData, read_teacher_npy
from earface.data.training_checks import DecodedPictures, check_decoded, copies, warn_of_unused_boxes


def noise(count: int, seed: int, side: int = 40) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def decoded(source: str, images: NDArray[np.uint8], with_subjects: bool = False) -> DecodedPictures:
    return DecodedPictures(source, images, [f"{source}/{row}" for row in range(len(images))], with_subjects)


def warnings_of(train: DecodedPictures, val: DecodedPictures) -> list[str]:
    with collecting_warnings():
        check_decoded([train], [val])
        return warnings_given()


def test_pictures_on_both_sides_of_nobody_known_are_refused_by_count_and_name() -> None:
    train, val = noise(20, 0), noise(10, 1)
    assert warnings_of(decoded("train", train), decoded("val", val)) == []
    val[[3, 7]] = train[[11, 2]]
    with pytest.raises(
        InputError, match=r"val: 2 of 10 pictures are also trained on, such as val/3 \(there train/11\)"
    ):
        check_decoded([decoded("train", train)], [decoded("val", val)])


def test_under_two_subjects_they_are_warned_of() -> None:
    train = noise(5, 0)
    (line,) = warnings_of(decoded("train", train, True), decoded("val", train[2:3], True))
    assert "1 of 1 pictures are also trained on" in line
    assert "another subject's name" in line


@pytest.mark.parametrize("side", [8, 40, 128])
def test_one_pixel_makes_another_picture(side: int) -> None:
    train = noise(4, 0, side)
    val = train.copy()
    val[:, -1, -1] ^= 1
    assert warnings_of(decoded("train", train), decoded("val", val)) == []


def test_pictures_of_one_colour_are_warned_of_and_are_no_copies() -> None:
    """Boxes of a pixel cut these from any photograph."""
    train, val = noise(4, 0), noise(4, 1)
    train[1], val[0], val[2] = 7, 7, 90
    found = warnings_of(decoded("train", train), decoded("val", val))
    assert "train: 1 of 4 pictures are of one colour, such as train/1:" in found[0]
    assert "val: 2 of 4 pictures are of one colour, such as val/0:" in found[1]
    assert len(found) == 2


def test_copies_are_files_of_the_same_bytes(tmp_path: Path) -> None:
    contents = {"a": b"one", "b": b"two", "c": b"one", "d": b"six", "e": b"longer", "empty": b"", "void": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    train, val = ([tmp_path / name for name in names] for names in (["a", "b", "empty"], ["c", "d", "e", "void", "f"]))
    assert copies(train, val) == [tmp_path / "c"]


# Boxes that are not used


def boxes_warned_of(data: TeacherData) -> list[str]:
    with collecting_warnings():
        warn_of_unused_boxes(data, "do this")
        return warnings_given()


def boxed(width: float, height: float, paths: list[Path] | None = None) -> TeacherData:
    boxes = np.tile(np.array([0, 0, width, height], np.float32), (6, 1))
    images = None if paths else noise(6, 0, 100)
    return TeacherData(Path("ears.npy"), paths, images, boxes, None, None)


@pytest.mark.parametrize(("width", "height", "warned"), [(100, 100, False), (20, 60, False), (20, 30, True)])
@pytest.mark.parametrize("files", [False, True])
def test_boxes_of_a_small_part_of_the_pictures_are_warned_of(
    width: float, height: float, warned: bool, files: bool, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{row}.png" for row in range(6)] if files else None
    for path in paths or ():
        write_image(path, noise(1, 0, 100)[0])
    found = boxes_warned_of(boxed(width, height, paths))
    assert len(found) == warned
    assert all("a small part of the pictures, and whole pictures are used: do this" in line for line in found)


def test_synthetic_ears_fill_their_pictures(ear_set: Path) -> None:
    assert boxes_warned_of(read_teacher_npy(ear_set / "train_teacher.npy")) == []
