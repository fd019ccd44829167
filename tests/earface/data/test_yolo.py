"""YOLO label files become what the same boxes and landmarks are in pixels."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from earface.core.errors import InputError
from earface.core.notices import DataWarning
from earface.data.coco import read_coco
from earface.data.convert_annotations import main
from earface.data.yolo import read_yolo

WIDTH, HEIGHT = 80, 40


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (len(path.stem), 80, 90)).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """images/ and labels/ with two ears, one ear, and an empty file, in two splits."""
    for name in ("train/a", "train/b", "val/c"):
        picture(tmp_path / "images" / f"{name}.png")
    write(tmp_path / "labels" / "train" / "a.txt", "0 0.5 0.5 0.25 0.5\n0 0.125 0.25 0.125 0.25\n")
    write(tmp_path / "labels" / "train" / "b.txt", "0 0.25 0.75 0.5 0.5\n")
    write(tmp_path / "labels" / "val" / "c.txt", "")
    return tmp_path


def boxes(folder: Path, images: Path | None = None) -> dict[str, list[list[float]]]:
    return {p.path.stem: p.boxes.tolist() for p in read_yolo(folder, images).photographs}


EXPECTED = {"a": [[30, 10, 20, 20], [5, 5, 10, 10]], "b": [[0, 20, 40, 20]], "c": []}  # by hand, of 80x40


def test_fractions_of_centre_and_size_become_pixels_from_the_corner(folder: Path):
    assert boxes(folder) == EXPECTED
    assert boxes(folder / "labels") == EXPECTED
    assert boxes(folder / "labels", folder / "images") == EXPECTED


def test_the_folders_of_the_splits_may_be_outside(folder: Path, tmp_path: Path):
    for split in ("train", "val"):
        (tmp_path / "other" / split).mkdir(parents=True)
        for part in ("images", "labels"):
            (folder / part / split).rename(tmp_path / "other" / split / part)
    write(tmp_path / "other" / "README.roboflow.txt", "ears - v1\n")
    assert boxes(tmp_path / "other") == EXPECTED


def test_labels_may_lie_beside_their_pictures(tmp_path: Path):
    picture(tmp_path / "a.jpg")
    write(tmp_path / "a.txt", "0 0.5 0.5 0.25 0.5")
    write(tmp_path / "classes.txt", "ear\n")
    assert boxes(tmp_path) == {"a": [[30, 10, 20, 20]]}


def test_the_same_as_in_coco(folder: Path, tmp_path: Path):
    write(folder / "labels" / "train" / "b.txt", "1 0.25 0.75 0.5 0.5\n")
    write(folder / "data.yaml", "names: [left_ear, right_ear]\nnc: 2\n")
    ears = [(1, 0, [30, 10, 20, 20]), (1, 0, [5, 5, 10, 10]), (2, 1, [0, 20, 40, 20])]
    names = ("train/a.png", "train/b.png", "val/c.png")
    coco = {
        "images": [
            {"id": n, "file_name": f"images/{name}", "width": 80, "height": 40} for n, name in enumerate(names, 1)
        ],
        "annotations": [{"id": n, "image_id": i, "category_id": c, "bbox": box} for n, (i, c, box) in enumerate(ears)],
        "categories": [{"id": 0, "name": "left_ear"}, {"id": 1, "name": "right_ear"}],
    }
    (folder / "ears.json").write_text(json.dumps(coco))
    with pytest.warns(DataWarning, match="count as ears, with the side that each names"):
        first, second = read_yolo(folder), read_coco(folder / "ears.json")
    for a, b in zip(first.photographs, second.photographs, strict=True):
        assert (a.path, a.size, a.sides, a.has_boxes) == (b.path, b.size, b.sides, b.has_boxes)
        np.testing.assert_array_equal(a.boxes, b.boxes)


def pose(box: str, *points: str) -> str:
    return f"0 {box} {' '.join(points)}\n"


@pytest.mark.parametrize("declared", [True, False])
def test_poses_with_visibility_have_landmarks_on_coco_s_coordinates(folder: Path, declared: bool):
    write(folder / "labels/train/a.txt", pose("0.5 0.5 0.25 0.5", "0.4 0.3 2", "0 0 0", "0.6 0.7 1"))
    write(folder / "labels/train/b.txt", pose("0.5 0.5 0.25 0.5", "0.4 0.3 2", "0.5 0.5 2", "0.6 0.7 2"))
    if declared:
        write(folder / "data.yaml", "kpt_shape: [3, 3]\nnames:\n  0: ear\n")
    found = read_yolo(folder)
    np.testing.assert_allclose(found.photographs[0].keypoints, [[[32, 12, 2], [0, 0, 0], [48, 28, 1]]], atol=1e-4)
    assert found.landmark_names == ("point_01", "point_02", "point_03")
    assert found.photographs[2].keypoints.shape == (0, 3, 3)


def test_poses_without_visibility_leave_out_what_lies_at_zero(folder: Path):
    for name in "ab":
        points = ("0.4 0.3", "0 0", "0.6 0.7", "0.45 0.5")
        write(folder / f"labels/train/{name}.txt", pose("0.5 0.5 0.25 0.5", *points))
    found = read_yolo(folder).photographs[0].keypoints[0]
    np.testing.assert_allclose(found, [[32, 12, 2], [0, 0, 0], [48, 28, 2], [36, 20, 2]], atol=1e-4)


def test_a_box_without_size_becomes_that_of_the_landmarks(folder: Path):
    for name in "ab":
        write(folder / f"labels/train/{name}.txt", pose("0.5 0.5 0 0", "0.25 0.25 2", "0.5 0.5 2"))
    photograph = read_yolo(folder).photographs[0]
    assert photograph.boxes.tolist() == [[20, 10, 21, 11]]
    assert not photograph.has_boxes


ellipse = st.tuples(
    *[st.floats(0.05, 0.3)] * 2, st.floats(0, 1), st.floats(0, 1), st.integers(5, 30), st.integers(0, 29)
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ellipse, st.booleans())
def test_outlines_are_no_landmarks_and_landmarks_no_outlines(
    folder: Path, drawn: tuple[float, float, float, float, int, int], is_outline: bool
):
    """Ellipses with as many points on each ear: of outlines the numbers of one line do not say which they are."""
    a, b, across, down, count, start = drawn
    cx, cy = a + across * (1 - 2 * a), b + down * (1 - 2 * b)
    angles = 2 * np.pi * (np.arange(count) + start) / count
    points = [f"{cx + a * np.cos(t):.6f} {cy + b * np.sin(t):.6f}" for t in angles]
    line = f"0 {' '.join(points)}\n" if is_outline else pose(f"{cx:.6f} {cy:.6f} {2.1 * a:.6f} {2.1 * b:.6f}", *points)
    for name in "ab":
        write(folder / f"labels/train/{name}.txt", line)
    if is_outline:
        with pytest.raises(InputError, match=r"holds outlines \(segments\), as in .*a\.txt line 1"):
            read_yolo(folder)
    else:
        assert read_yolo(folder).photographs[0].keypoints.shape == (1, count, 3)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("0 0.5 0.5 0.25\n", "a.txt line 1: '0 0.5 0.5 0.25' is not class cx cy w h"),
        ("0 0.5 0.5 0.25 0.5 0.9\n" * 2, "has lines of 6 numbers"),
        ("0 40 20 20 20\n", "is not class cx cy w h, fractions"),
        ("0.5 0.5 0.5 0.25 0.5\n", "is not class"),
        ("ear 0.5 0.5 0.25 0.5\n", "line 1: line ['ear', '0.5'"),
        ("0 0.5 0.5 nan 0.5\n", "NaN"),
        ("0 0.5 0.5 0.25 0\n", "a.txt line 1: box 30 20 20 0 has no size"),
        ("\n0 0.9 0.5 0.5 0.5\n", "a.txt line 2: box 52 10 40 20 leaves the 80x40 picture"),
        ("0 0.5 0.5 0.25 0.5 0.4 0.3 2\n", "give landmarks, all of them, on each ear or on none"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2\n0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n", "give landmarks, all of them"),
    ],
)
def test_a_bad_label_file_is_named(folder: Path, text: str, named: str):
    write(folder / "labels" / "train" / "a.txt", text)
    with pytest.raises(InputError) as error:
        read_yolo(folder)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_outlines_of_several_lengths_are_refused_as_such(folder: Path):
    write(folder / "labels/train/a.txt", "0 0.1 0.1 0.2 0.1 0.2 0.2\n")
    write(folder / "labels/train/b.txt", "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n")
    with pytest.raises(InputError, match="holds outlines"):
        read_yolo(folder)


def test_labels_and_pictures_must_belong_together(folder: Path):
    picture(folder / "images" / "train" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.txt: belongs to .*a\.jpg and to .*a\.png"):
        read_yolo(folder)
    (folder / "images" / "train" / "a.jpg").unlink()
    (folder / "images" / "train" / "b.png").unlink()
    with pytest.raises(
        InputError, match=r"b\.txt: no picture of that name in .* name the folder of the pictures by `im"
    ):
        read_yolo(folder)


def test_pictures_without_a_label_file_are_counted(folder: Path):
    picture(folder / "images" / "train" / "d.png")
    with pytest.warns(DataWarning, match="1 of 4 pictures have no label file, and count as photographs without ears"):
        assert boxes(folder) == EXPECTED | {"d": []}


def test_classes_are_chosen_as_in_coco(folder: Path):
    write(folder / "labels/train/b.txt", "1 0.25 0.75 0.5 0.5\n")
    with pytest.raises(InputError, match=r"none of the categories class 0 \(2\), class 1 \(1\) is named ear"):
        read_yolo(folder)
    with pytest.warns(DataWarning, match=r"left out: class 0"):
        assert read_yolo(folder, category="class 1").num_ears == 1
    write(folder / "labels" / "classes.txt", "nose\near\n")
    with pytest.warns(DataWarning, match=r"2 annotations of other categories are left out: nose \(2\)"):
        assert read_yolo(folder).num_ears == 1
    with pytest.warns(DataWarning, match="left out: ear"):
        assert read_yolo(folder, category="nose").num_ears == 2


def test_fractions_fit_either_view_of_a_turned_picture(folder: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / "train" / "a.png", exif=exif)
    with pytest.warns(DataWarning, match="EXIF turns 1 of the 2 pictures"):
        assert boxes(folder)["a"][0] == [15, 20, 10, 40]  # of 40x80


def test_the_command_writes_what_is_read(folder: Path, capsys: pytest.CaptureFixture[str]):
    out = folder / "ears.json"
    assert main(["--yolo", str(folder), "--out", str(out), "--val-fraction", "0"]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {p.path.stem: p.boxes.tolist() for p in read_coco(out).photographs} == EXPECTED
    assert "3 photographs, 3 ears, 1 without ears" in capsys.readouterr().out
