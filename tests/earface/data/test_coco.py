"""COCO files as other people's tools write them are read, and no file ends in anything but annotations or a line."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from earface.core.errors import InputError
from earface.core.notices import DataWarning
from earface.data.annotations import Annotations
from earface.data.coco import read_coco, read_coco_file
from earface.data.convert_annotations import main
from earface.data.ear_categories import side_in_name

BOX = [5, 6, 20, 10]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 60x40, one of them a TIFF that is stored sideways."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        Image.new("RGB", (60, 40), (number, 80, 90)).save(folder / f"{number}.png")
    Image.new("RGB", (40, 60)).save(folder / "3.tif", tiffinfo={0x0112: 6})
    return folder


def content(*categories: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An ear on each of three images, of the categories in turn; `changes` of every annotation."""
    categories = categories or ({"id": 1, "name": "ear"},)
    images = [{"id": n + 1, "file_name": f"{n}.png", "width": 60, "height": 40} for n in range(3)]
    ears = [
        {"id": n + 1, "image_id": n + 1, "category_id": categories[n % len(categories)]["id"], "bbox": BOX} | changes
        for n in range(3)
    ]
    return {"images": images, "annotations": ears, "categories": list(categories)}


Read = Callable[..., Annotations]


@pytest.fixture
def read(pictures: Path, tmp_path: Path) -> Read:
    def read(written: dict[str, Any], category: str | None = None, folder: Path = pictures) -> Annotations:
        (tmp_path / "a.json").write_text(json.dumps(written))
        return read_coco(tmp_path / "a.json", folder, category)

    return read


def named(*names: str) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in enumerate(names)]


def test_a_category_without_annotations_is_ignored(read: Read):
    written = content(*named("ears"))
    written["categories"].insert(0, {"id": 7, "name": "ears-x7k2"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(written).num_ears == 3


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        (("ear", "Ear"), ("", "")),
        (("left_ear", "right_ear"), ("l", "r")),
        (("Ear-L", "ear R"), ("l", "r")),
        (("LeftEar", "ears"), ("l", "")),
    ],
)
def test_several_categories_of_ears_are_one_and_name_the_side(
    read: Read, names: tuple[str, str], sides: tuple[str, str]
):
    with pytest.warns(DataWarning, match=rf"{names[0]} \(2\), {names[1]} \(1\) count as ears"):
        found = read(content(*named(*names)))
    assert [p.sides for p in found.photographs] == [(sides[0],), (sides[1],), (sides[0],)]


def test_the_side_of_an_annotation_goes_before_that_of_its_category(read: Read):
    found = read(content({"id": 1, "name": "left_ear"}, side="r"))
    assert {side for photograph in found.photographs for side in photograph.sides} == {"r"}


@pytest.mark.parametrize("name", ["earring", "rear", "nose", "ear_lobe", "no ear", "bear", "", "pearl", "earl"])
def test_other_names_are_no_ears(name: str):
    assert side_in_name(name) is None


def test_the_category_can_be_chosen(read: Read):
    written = content(*named("Ohr", "Nase"))
    with pytest.raises(InputError, match=r"none of the categories Ohr \(2\), Nase \(1\) is named ear: choose by `cat"):
        read(written)
    with pytest.warns(DataWarning, match=r"1 annotations of other categories are left out: Nase"):
        assert read(written, "ohr").num_ears == 2
    with pytest.warns(DataWarning, match="count as ears"):
        assert read(written, "ohr, nase").num_ears == 3
    with pytest.raises(InputError, match=r"`category` auge: the categories are Ohr \(2\), Nase"):
        read(written, "auge")


def test_a_single_category_of_another_name_is_taken_with_a_warning(read: Read):
    with pytest.warns(DataWarning, match=r"although their category is Ohr \(3\)"):
        assert read(content(*named("Ohr"))).num_ears == 3


def test_keypoints_of_merged_categories_must_agree(read: Read):
    first, second = {"id": 1, "name": "left_ear", "keypoints": ["a", "b"]}, {"id": 2, "name": "right_ear"}
    with pytest.warns(DataWarning, match="count as ears"):
        assert read(content(first, second)).landmark_names == ("a", "b")
    with pytest.raises(InputError, match="have 2 and 1 keypoints: choose one"):
        read(content(first, second | {"keypoints": ["a"]}))


@pytest.mark.filterwarnings("ignore::earface.core.notices.DataWarning")
@pytest.mark.parametrize(
    ("box", "keypoints", "expected"),
    [
        ([27.65, 18.18, 0, 0], [27.65, 18.18, 2, 0, 0, 0], [27.65, 18.18, 1, 1]),
        ([5.45, 31.01, 30.31, 0.0], [5.45, 31.01, 2, 35.76, 31.01, 2], [5.45, 31.01, 31.31, 1]),
        ([], [5, 6, 2, 20, 30, 2], [5, 6, 16, 25]),
    ],
)
def test_a_box_without_size_becomes_that_of_the_keypoints(
    read: Read, box: list[float], keypoints: list[float], expected: list[float]
):
    found = read(content({"id": 1, "name": "ear", "keypoints": ["a", "b"]}, bbox=box, keypoints=keypoints))
    np.testing.assert_allclose(found.photographs[0].boxes, [expected], atol=1e-5)
    assert not found.photographs[0].has_boxes


def test_a_crowd_is_an_ear_with_a_warning(read: Read):
    with pytest.warns(DataWarning, match="3 of 3 annotations are crowds"):
        found = read(content(iscrowd=1, segmentation={"counts": [845, 20, 1535], "size": [40, 60]}))
    assert found.photographs[0].boxes.tolist() == [BOX]


def test_corners_are_named_as_such(read: Read):
    written = content()
    for ear, box in zip(written["annotations"], ([20, 20, 55, 38], [5, 6, 25, 16], [30, 4, 50, 20]), strict=True):
        ear["bbox"] = box
    with pytest.raises(InputError, match=r"a\.json: the boxes look like corners, xmin ymin xmax ymax: .* 2 of 3 leave"):
        read(written)


@pytest.mark.parametrize(
    "pattern",
    [
        "..\\..\\label-studio\\media\\upload\\4\\{}.png",
        "/data/local-files/?d=ears/{}.png",
        "/data/local-files/?d={}.png",
        "http://localhost:8080/data/local-files/?d=ears%2F{}.png",
        "/data/upload/4/{}.png",
        "/data/upload/4/1f0c2b3d-{}.png",
        "C:\\Users\\me\\ears\\{}.png",
        "%30{}.png",
    ],
)
def test_names_of_other_computers_lead_to_the_picture_below_the_folder(read: Read, tmp_path: Path, pattern: str):
    below = tmp_path / "pictures" / "deep"
    below.mkdir(parents=True)
    written = content()
    for number, image in enumerate(written["images"]):
        name = f"0{number}.png" if pattern.startswith("%30") else f"{number}.png"
        Image.new("RGB", (60, 40), (number, 80, 90)).save(below / name)
        image["file_name"] = pattern.format(number)
    with pytest.warns(DataWarning, match="3 of its file names lead nowhere, and the pictures of these names below"):
        found = read(written, folder=tmp_path / "pictures")
    assert all(photograph.path.parent == below for photograph in found.photographs)
    with pytest.raises(InputError, match=r"leaves|missing"):
        read_coco(tmp_path / "a.json")  # without the folder nothing is looked for


def test_of_two_pictures_of_one_name_the_folder_decides(read: Read, tmp_path: Path):
    for folder in ("ada", "bob"):
        (tmp_path / "p" / folder).mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(tmp_path / "p" / folder / "0.png")
    written = content()
    written["images"][1:], written["annotations"][1:] = [], []
    written["images"][0]["file_name"] = "D:\\set\\bob\\0.png"
    with pytest.warns(DataWarning, match="lead nowhere"):
        assert read(written, folder=tmp_path / "p").photographs[0].path == tmp_path / "p" / "bob" / "0.png"
    written["images"][0]["file_name"] = "D:\\set\\0.png"
    with pytest.raises(InputError, match=r"0\.png may be .*ada/0\.png or .*bob/0\.png"):
        read(written, folder=tmp_path / "p")


def test_the_size_of_a_tiff_is_the_upright_one(read: Read):
    image = {"id": 1, "file_name": "3.tif", "width": 60, "height": 40}
    written = {**content(), "images": [image], "annotations": content()["annotations"][:1]}
    assert read(written).photographs[0].size == (60, 40)
    written["images"] = [image | {"width": 40, "height": 60}]
    with pytest.raises(InputError, match="written as 40x60, but the file has 60x40: annotate the picture as its EXIF"):
        read(written)


def test_whole_numbers_may_be_floats_and_text(read: Read, tmp_path: Path, pictures: Path):
    written = content()
    for image, ear in zip(written["images"], written["annotations"], strict=True):
        image |= {"width": 60.0, "height": "40"}
        ear["image_id"] = str(ear["image_id"])
        del ear["category_id"]
    written["categories"][0]["id"] = "1"
    assert read(written).num_ears == 3
    written["images"][0]["id"] = "01"  # a name of its own
    written["annotations"][0]["image_id"] = "01"
    assert read(written).num_ears == 3
    file = read_coco_file(tmp_path / "a.json", pictures)
    assert (file.image_ids, file.category_id) == (["01", 2, 3], "1")


def test_no_ear_in_the_whole_file_is_an_error(read: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    read(written := content(*named("ear", "nose")))
    written["annotations"] = [ear | {"category_id": 1} for ear in written["annotations"]]
    with pytest.warns(DataWarning, match=r"3 annotations of other categories are left out: nose \(3\)"):
        assert read(written).num_ears == 0
    (tmp_path / "a.json").write_text(json.dumps(written))
    pictures = str(read(written).photographs[0].path.parent)
    assert main(["--coco", str(tmp_path / "a.json"), "--images", pictures, "--out", str(tmp_path / "out.json")]) == 2
    assert "3 photographs and no ears" in capsys.readouterr().err


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 90)
    | st.floats()
    | st.sampled_from(["", "1", "ear", "l", "0.png", "é"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
FULL = {
    **content({"id": 1, "name": "ear", "keypoints": ["a", "b"], "skeleton": [[1, 2]]}, keypoints=[5, 6, 2, 9, 9, 1]),
    "info": {},
}
for entry in FULL["annotations"]:
    entry |= {"iscrowd": 0, "side": "l", "area": 200, "segmentation": [[1, 2, 3, 4, 5, 6]]}
for entry in FULL["images"]:
    entry["subject"] = "ada"


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested lists and dicts."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(places(FULL)), JSON | st.just(KeyError)), min_size=1, max_size=3))
@example([(("categories", 0, "keypoints"), [None, "b"])])
@example([(("images", 0, "width"), 10**400), (("images", 0, "id"), "9" * 5000)])
@example([(("images", 0, "file_name"), "\ud800.png"), (("images", 1, "file_name"), "x" * 5000)])
@pytest.mark.filterwarnings("ignore::earface.core.notices.DataWarning")
def test_any_content_ends_in_annotations_or_one_line(read: Read, changes: list[tuple[tuple[Any, ...], Any]]):
    """Values in up to three places of a good file are exchanged for others, or taken out."""
    written: Any = copy.deepcopy(FULL)
    for place, value in changes:
        try:
            inside = written
            for key in place[:-1]:
                inside = inside[key]
            if value is KeyError:
                del inside[place[-1]]
            elif place:
                inside[place[-1]] = value
            else:
                written = value
        except (IndexError, KeyError, TypeError):  # the place went with another change
            continue
    try:
        found = read(written)
    except InputError:
        return
    for photograph in found.photographs:
        assert photograph.boxes.shape == (len(photograph.sides), 4)
        assert np.isfinite(photograph.boxes).all()
        assert np.isfinite(photograph.keypoints).all()
