"""Annotations of photographs: what is written comes back, and what is wrong is named in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earface.core.errors import InputError
from earface.core.notices import DataWarning
from earface.data.annotations import (
    Annotations,
    Photograph,
    read_boxes_csv,
    read_pts_folder,
    write_boxes_csv,
    write_pts,
)
from earface.data.coco import read_coco, write_coco

WIDTH, HEIGHT = 60, 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs 60x40."""
    for number in range(3):
        Image.new("RGB", (WIDTH, HEIGHT), (number, 80, 90)).save(tmp_path / f"{number}.png")
    return tmp_path


def photographs(folder: Path) -> Annotations:
    """Two ears with landmarks, none, and one without a box."""
    boxes = np.array([[1, 2.5, 10, 20], [30, 0, 30, 40]], np.float32)
    points = np.zeros((2, 3, 3), np.float32)
    points[0] = [[2, 3, 2], [0, 0, 0], [9, 20.25, 1]]
    points[1] = [[31, 1, 2], [59, 39, 2], [40, 20, 2]]
    size = (WIDTH, HEIGHT)
    none = np.empty((0, 4), np.float32)
    return Annotations(
        folder / "ears.json",
        [
            Photograph(folder / "0.png", size, boxes, points, True, ("l", ""), "ada"),
            Photograph(folder / "1.png", size, none, points[:0]),
            Photograph(
                folder / "2.png", size, np.array([[30.5, 0.5, 29.5, 39.5]], np.float32), points[1:], False, ("r",)
            ),
        ],
        ("top", "lobe", "tragus"),
        ((1, 2), (2, 3)),
    )


def assert_same(first: Annotations, second: Annotations, landmarks: bool = True) -> None:
    assert len(first) == len(second)
    for a, b in zip(first.photographs, second.photographs, strict=True):
        assert (a.path, a.size, a.subject) == (b.path, b.size, b.subject)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert {*a.sides} - {""} == {*b.sides} - {""}
        if landmarks:
            np.testing.assert_array_equal(a.keypoints, b.keypoints)
            assert a.has_boxes == b.has_boxes


def test_coco_comes_back_as_written(folder: Path):
    annotations = photographs(folder)
    annotations.photographs[2].boxes[:] = [[31, 1, 29, 39]]  # enclosing its points, half a pixel beyond the centres
    write_coco(folder / "ears.json", annotations)
    found = read_coco(folder / "ears.json")
    assert_same(found, annotations)
    assert (found.landmark_names, found.skeleton, found.num_ears) == (annotations.landmark_names, ((1, 2), (2, 3)), 3)
    assert [p.has_landmarks for p in found.photographs] == [True, False, True]


def test_a_coco_file_moves_with_its_photographs(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    write_coco(folder / "ears.json", photographs(folder))
    elsewhere = tmp_path_factory.mktemp("moved")
    for path in folder.iterdir():
        path.rename(elsewhere / path.name)
    assert read_coco(elsewhere / "ears.json").photographs[0].path == elsewhere / "0.png"
    (elsewhere / "json").mkdir()
    moved = (elsewhere / "ears.json").rename(elsewhere / "json" / "ears.json")
    assert read_coco(moved, data_root=elsewhere).photographs[0].path == elsewhere / "0.png"
    with pytest.raises(InputError, match="3 of 3 photographs are missing"):
        read_coco(moved)


def test_coco_file_reads_in_the_loop_of_any_coco_tool(folder: Path):
    write_coco(folder / "ears.json", photographs(folder))
    content = json.loads((folder / "ears.json").read_text())
    ears_of: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for ear in content["annotations"]:
        ears_of[ear["image_id"]].append(ear)
        assert ear["category_id"] == content["categories"][0]["id"]
        assert ear["iscrowd"] == 0
        assert ear["num_keypoints"] == sum(v > 0 for v in ear["keypoints"][2::3])
        assert len(ear["keypoints"]) == 3 * len(content["categories"][0]["keypoints"])
        if "bbox" in ear:
            assert ear["area"] == ear["bbox"][2] * ear["bbox"][3]
    assert [len(ears) for ears in ears_of.values()] == [2, 0, 1]
    assert len({ear["id"] for ear in content["annotations"]}) == 3


def test_csv_comes_back_as_written(folder: Path):
    annotations = photographs(folder)
    write_boxes_csv(folder / "boxes.csv", annotations)
    assert_same(read_boxes_csv(folder / "boxes.csv"), annotations, landmarks=False)


def test_csv_of_the_five_columns_alone(folder: Path):
    (folder / "boxes.csv").write_text("file,x,y,width,height\n0.png,1,2,3,4\n1.png,,,,\n0.png,5,6,7,8\n")
    first, second = read_boxes_csv(folder / "boxes.csv").photographs
    np.testing.assert_array_equal(first.boxes, [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert (first.keypoints.shape, first.has_boxes, first.has_landmarks) == ((2, 0, 3), True, False)
    assert len(second.boxes) == 0


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("0.png,1,2,0,4", "has no size"),
        ("0.png,1,2,-3,4", "has no size"),
        ("0.png,.1,.2,.5,.5", "fractions"),
        ("0.png,1,2,nan,4", "NaN"),
        ("0.png,1,2,,4", "not numbers"),
        ("0.png,50,2,30,4", "leaves the 60x40 picture"),
        ("0.png,70,2,1,1", "picture"),
        ("9.png,1,2,3,4", "missing"),
        ("../0.png,1,2,3,4", "leaves"),
        (",1,2,3,4", "not a path"),
    ],
)
def test_a_bad_row_of_a_csv_is_named(folder: Path, row: str, named: str):
    (folder / "boxes.csv").write_text(f"file,x,y,width,height\n1.png,1,2,3,4\n{row}\n")
    with pytest.raises(InputError, match=named) as error:
        read_boxes_csv(folder / "boxes.csv")
    assert "boxes.csv" in str(error.value)
    assert "line 3" in str(error.value) or "9.png" in str(error.value)


def test_boxes_a_slip_beyond_the_edge_are_cut_to_the_picture(folder: Path):
    (folder / "boxes.csv").write_text(f"file,x,y,width,height\n0.png,-1,-1,{WIDTH + 2},{HEIGHT + 2}\n")
    np.testing.assert_array_equal(read_boxes_csv(folder / "boxes.csv").photographs[0].boxes, [[0, 0, WIDTH, HEIGHT]])


def test_pts_come_back_as_written_in_a_box_around_their_pixels(folder: Path):
    points = np.array([[3, 4], [10.5, 20.25], [7, 30]], np.float32)
    write_pts(folder / "1.pts", points)
    write_pts(folder / "2.pts", points + 1)
    with pytest.warns(DataWarning, match=r"1 of 3 pictures have no \.pts file and are left out"):
        annotations = read_pts_folder(folder)
    assert [p.path.name for p in annotations.photographs] == ["1.png", "2.png"]
    np.testing.assert_array_equal(annotations.photographs[0].keypoints[0, :, :2], points)
    assert (annotations.photographs[0].keypoints[0, :, 2] == 2).all()
    np.testing.assert_array_equal(annotations.photographs[0].boxes, [[3, 4, 8.5, 27]])  # pixels 3 to 10.5, 4 to 30
    assert annotations.landmark_names == ("point_01", "point_02", "point_03")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("version: 1\nn_points: 3\n{\n1 2\n3 4\n}\n", "declares 3 points and holds 2"),
        ("version: 1\nn_points: 2\n{\n1 2\n3 4 5\n}\n", "declares 2"),
        ("version: 1\nn_points: 2\n{\n1 2\n3 nan\n}\n", "NaN"),
        ("version: 1\nn_points: 2\n{\n1 2\n3 400\n}\n", "landmark 2 lies outside"),
        ("version: 1\nn_points: 2\n{\n1 2\n3 4\n", "declares"),
        ("version: 1\nn_points: 3\n{\n1 2\n3 4\n5 6\n}\n", "3 points, but 1.pts has 2"),
        ("version: 1\nn_points: 2.0\n{\n1 2\n3 4\n}\n", "not a .pts file"),
        ("points\n", "not a .pts file"),
    ],
)
def test_a_bad_pts_file_is_named(folder: Path, text: str, named: str):
    write_pts(folder / "1.pts", np.array([[3, 4], [5, 6]], np.float32))
    (folder / "2.pts").write_text(text)
    with pytest.raises(InputError, match=named) as error:
        read_pts_folder(folder)
    assert "2.pts" in str(error.value)


def test_files_of_the_system_are_no_annotations(folder: Path):
    write_pts(folder / "1.pts", np.array([[3, 4], [10, 20]], np.float32))
    for place in (folder / "__MACOSX", folder / "@eaDir" / "1.png", folder / ".Trash"):
        place.mkdir(parents=True)
        (place / "1.pts").write_bytes(b"\0\5\x16\7")
    for name in ("._1.pts", "__MACOSX/._1.pts"):
        (folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    with pytest.warns(DataWarning, match="2 of 3 pictures have no"):
        assert [p.path.name for p in read_pts_folder(folder).photographs] == ["1.png"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.filterwarnings("ignore:.*(Windows-1252|no .pts file)")
def test_a_pts_file_may_have_another_encoding(folder: Path, encoding: str):
    text = "version: 1\r\n# d'après José\r\nn_points: 2\r\n{\r\n1 2\r\n3 4\r\n}\r\n"
    (folder / "1.pts").write_bytes(text.encode(encoding))
    assert read_pts_folder(folder).photographs[0].keypoints[0].tolist() == [[1, 2, 2], [3, 4, 2]]


def test_pts_without_its_picture_is_refused(folder: Path):
    write_pts(folder / "lonely.pts", np.ones((2, 2), np.float32))
    with pytest.raises(InputError, match=r"lonely\.pts: no picture"):
        read_pts_folder(folder)
    (folder / "lonely.pts").unlink()
    with pytest.raises(InputError, match="holds no picture"):
        read_pts_folder(folder)


Change = Callable[[dict[str, Any]], object]


def drop(part: str, name: str) -> Change:
    return lambda content: content[part][0].pop(name)


def put(part: str, name: str, value: object) -> Change:
    return lambda content: content[part][0].update({name: value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.pop("images"), "no images"),
        (lambda c: c.pop("annotations"), "no annotations"),
        (lambda c: c.pop("categories"), "no categories"),
        (lambda c: c.update(images=[]), "images is empty"),
        (lambda c: c.update(annotations=[7]), "annotations entry 1 is not an object"),
        (lambda c: c["images"].append(c["images"][0]), "id 1 is there twice"),
        (lambda c: c["images"][1].update(file_name="0.png"), "is image 1 too"),
        (lambda c: c["categories"].append({"id": 1.0, "name": "ear"}), "categories entry 2: id 1 is there twice"),
        (lambda c: c.update(categories=[]), "no categories"),
        (put("categories", "id", None), "categories entry 1: id 'None' is not a number"),
        (drop("images", "file_name"), "image 1 has no file_name"),
        (drop("images", "width"), "has no width"),
        (put("images", "width", 61), "written as 61x40, but the file has 60x40"),
        (lambda c: c["images"][0].update(width=HEIGHT, height=WIDTH), "EXIF"),
        (put("images", "height", "40.5"), "height '40.5' is not a whole number"),
        (put("images", "file_name", "../0.png"), "leaves"),
        (put("images", "file_name", "gone.png"), "1 of 3 photographs are missing"),
        (drop("annotations", "image_id"), "annotations entry 1: image_id"),
        (put("annotations", "image_id", 99), "image_id 99 is none"),
        (put("annotations", "image_id", [1]), "annotations entry 1: image_id"),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 4], keypoints=[]),
            "annotation 1 of 0.png: box 1 2 0 4 has no size",
        ),
        (put("annotations", "bbox", [0.1, 0.2, 0.3, 0.3]), "fractions"),
        (put("annotations", "bbox", [20, 20, 55, 38]), "not corners"),
        (put("annotations", "bbox", [1, 2, float("nan"), 4]), "NaN"),
        (put("annotations", "bbox", [1, 2, "3", [4]]), "not numbers"),
        (put("annotations", "bbox", [1, 2, 3]), "box of 3 numbers"),
        (put("annotations", "bbox", 5), "not a list"),
        (put("annotations", "bbox", [1, 2, 10**400, 4]), "not numbers"),
        (put("annotations", "keypoints", [1, 2, 2] * 2), "2 keypoints, but its category names 3"),
        (put("annotations", "keypoints", [1, 2, 3] * 3), "visibility"),
        (put("annotations", "keypoints", [1, 2] * 4), "x y visibility"),
        (put("annotations", "keypoints", [0.5, 0.2, 2] * 3), "fractions"),
        (put("annotations", "keypoints", [100, 2, 2] * 3), "landmark 1 lies outside"),
        (put("annotations", "bbox", [1, 2, 0, None]), "not numbers"),
        (put("images", "subject", ["ada"]), "is not a name"),
        (put("annotations", "side", "up"), "neither l nor r"),
        (lambda c: c["annotations"][0].update(bbox=None, keypoints=[0] * 9), "neither a box nor"),
        (put("categories", "keypoints", "top"), "not a list"),
        (put("categories", "skeleton", [[1, 4]]), "not two of the keypoints"),
    ],
)
def test_a_bad_coco_file_is_named_with_its_entry(folder: Path, change: Change, named: str):
    write_coco(folder / "ears.json", photographs(folder))
    content = json.loads((folder / "ears.json").read_text())
    change(content)
    (folder / "ears.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=named) as error:
        read_coco(folder / "ears.json")
    assert str(error.value).startswith(str(folder / "ears.json"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 100_000, "\xff"])
def test_what_is_not_a_coco_file_is_refused(folder: Path, content: str):
    (folder / "ears.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"ears\.json: not"):
        read_coco(folder / "ears.json")


def test_a_photograph_that_cannot_be_read_is_left_to_the_loader(folder: Path):
    write_coco(folder / "ears.json", photographs(folder))
    (folder / "1.png").write_bytes(b"damaged")
    assert len(read_coco(folder / "ears.json")) == 3
    (folder / "boxes.csv").write_text("file,x,y,width,height\n1.png,1,2,3,4\n")
    assert read_boxes_csv(folder / "boxes.csv").photographs[0].size is None


def test_other_categories_are_not_ears(folder: Path):
    write_coco(folder / "ears.json", photographs(folder))
    content = json.loads((folder / "ears.json").read_text())
    content["categories"].insert(0, {"id": 7, "name": "nose"})
    content["annotations"][0]["category_id"] = 7
    (folder / "ears.json").write_text(json.dumps(content))
    with pytest.warns(DataWarning, match=r"1 annotations of other categories are left out: nose \(1\)"):
        assert read_coco(folder / "ears.json").num_ears == 2
