"""`python -m data.convert_annotations`, run as a user would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from earface.data.annotations import Annotations, write_pts
from earface.data.coco import read_coco
from earface.data.convert_annotations import main, split_paths
from earface.data.images import Pixels, read_image

Draw = Callable[..., Pixels]


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    """Twelve photographs of four people, an ear in each but one, two in another; `boxes.csv` and .pts of half."""
    rows = ["file,x,y,width,height,subject"]
    for number in range(12):
        Image.fromarray(draw(number, 60, 80)).save(tmp_path / f"{number}.png")
        box = ",,," if number == 5 else f"{number},3,20.5,30"
        rows.append(f"{number}.png,{box},p{number % 4}")
        if number % 2:
            write_pts(tmp_path / f"{number}.pts", np.array([[4, 5], [10, 30 + number]], np.float32))
    (tmp_path / "boxes.csv").write_text("\n".join([*rows, "7.png,40,20,9,8,p3", ""]))
    return tmp_path


def convert(folder: Path, *flags: object, boxes: str = "boxes.csv") -> int:
    return main(["--boxes", str(folder / boxes), "--out", str(folder / "ears.json"), "--overwrite", *map(str, flags)])


def files_of(annotations: Annotations) -> set[str]:
    return {photograph.path.name for photograph in annotations.photographs}


def both(folder: Path) -> tuple[Annotations, Annotations]:
    train, val = split_paths(folder / "ears.json")
    return read_coco(train), read_coco(val)


def test_boxes_become_coco_and_a_disjoint_split(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(folder, "--val-fraction", 0.25) == 0
    whole, (train, val) = read_coco(folder / "ears.json"), both(folder)
    assert len(files_of(whole)) == 12
    assert whole.num_ears == 12
    np.testing.assert_array_equal(whole.photographs[7].boxes, [[7, 3, 20.5, 30], [40, 20, 9, 8]])
    assert len(val) == 3
    assert files_of(train).isdisjoint(files_of(val))
    assert files_of(train) | files_of(val) == files_of(whole)
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("ears.json: 12 photographs, 12 ears, 1 without ears")
    parts = f"--train-json {folder}/ears_train.json --val-json {folder}/ears_val.json"
    assert said[3:] == [
        "note: 3 people are on both sides; --split-by subject keeps each on one side",
        f"next: earface ears detector train {parts}",
    ]


def test_points_become_coco(folder: Path):
    assert main(["--pts", str(folder), "--out", str(folder / "ears.json"), "--val-fraction", "0"]) == 0
    found = read_coco(folder / "ears.json")
    assert files_of(found) == {"1.png", "3.png", "5.png", "7.png", "9.png", "11.png"}
    assert found.photographs[-1].keypoints.tolist() == [[[4, 5, 2], [10, 39, 2]]]
    assert not split_paths(folder / "ears.json")[0].exists()


def test_folds_validate_every_photograph_once(folder: Path):
    assert convert(folder, "--folds", 3) == 0
    folds = [split_paths(folder / "ears.json", number) for number in (1, 2, 3)]
    validated = [name for _, val in folds for name in files_of(read_coco(val))]
    assert sorted(validated) == sorted(files_of(read_coco(folder / "ears.json")))
    for train, val in folds:
        assert files_of(read_coco(train)).isdisjoint(files_of(read_coco(val)))
        assert len(read_coco(train)) + len(read_coco(val)) == 12


def test_boxes_around_points_are_no_boxes(folder: Path):
    assert main(["--pts", str(folder), "--out", str(folder / "ears.json"), "--val-fraction", "0"]) == 0
    assert not any(photograph.has_boxes for photograph in read_coco(folder / "ears.json").photographs)


def test_coco_is_checked_and_split_again(folder: Path):
    assert convert(folder) == 0
    assert main(["--coco", str(folder / "ears.json"), "--out", str(folder / "again.json"), "--seed", "5"]) == 0
    assert json.loads((folder / "again.json").read_text()) == json.loads((folder / "ears.json").read_text())


def test_the_split_follows_from_the_seed_and_not_from_the_place(folder: Path, tmp_path: Path):
    chosen = []
    for seed in (1, 1, 2, 3, 4):
        convert(folder, "--seed", seed)
        chosen.append(files_of(both(folder)[1]))
    assert chosen[0] == chosen[1]
    assert len({frozenset(files) for files in chosen}) > 1
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (*folder.glob("*.png"), folder / "boxes.csv"):
        shutil.copy(path, moved)
    convert(moved, "--seed", 1)
    assert files_of(both(moved)[1]) == chosen[0]


def test_split_by_subject_keeps_each_person_on_one_side(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(folder, "--split-by", "subject") == 0
    assert "both sides" not in capsys.readouterr().out
    train, val = ({photograph.subject for photograph in part.photographs} for part in both(folder))
    assert len(val) == 1
    assert train.isdisjoint(val)
    (folder / "plain.csv").write_text("file,x,y,width,height\n0.png,1,2,20,30\n1.png,1,2,20,30\n")
    assert convert(folder, "--split-by", "subject", boxes="plain.csv") == 2
    assert "2 of 2 photographs have no subject" in capsys.readouterr().err


def test_one_photograph_on_both_sides_is_refused_or_kept_together(folder: Path, capsys: pytest.CaptureFixture[str]):
    convert(folder)
    for name in files_of(both(folder)[1]):  # a smaller mirrored JPEG of each validation photograph
        mirrored = Image.fromarray(np.ascontiguousarray(read_image(folder / name)[:, ::-1])).resize((64, 48))
        mirrored.save(folder / f"copy{name[:-4]}.jpg", quality=80)
    copies = [f"{path.name},,,,," for path in folder.glob("copy*.jpg")]
    (folder / "more.csv").write_text((folder / "boxes.csv").read_text() + "\n".join(copies) + "\n")
    codes = [convert(folder, "--seed", seed, boxes="more.csv") for seed in range(6)]
    assert 2 in codes
    refused = capsys.readouterr().err.splitlines()[0]
    assert "on both sides of the split" in refused
    assert "--duplicates keep-together" in refused
    for seed in range(6):
        assert convert(folder, "--seed", seed, "--duplicates", "keep-together", boxes="more.csv") == 0
        train, val = (files_of(part) for part in both(folder))
        for copy in folder.glob("copy*.jpg"):
            original = f"{copy.stem.removeprefix('copy')}.png"
            assert {copy.name, original} <= train or {copy.name, original} <= val


def test_a_damaged_photograph_is_left_out_and_named(folder: Path, capsys: pytest.CaptureFixture[str]):
    more = [f"{number}.bmp,1,2,20,30,p" for number in range(12, 30)]
    for number in range(12, 30):
        Image.new("RGB", (50, 50), (number, 9, 9)).save(folder / f"{number}.bmp")
    (folder / "boxes.csv").write_text((folder / "boxes.csv").read_text() + "\n".join(more) + "\n")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:300])
    assert convert(folder, "--val-fraction", 0) == 0
    said = capsys.readouterr()
    assert "left out: " + str(folder / "2.png") in said.out
    assert "boxes.csv: 1 photographs cannot be read and are left out" in said.err
    assert "2.png" not in files_of(read_coco(folder / "ears.json"))
    (folder / "3.png").write_bytes(b"x")
    assert convert(folder, "--val-fraction", 0) == 2
    assert "over 5%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ((), "give one of --boxes, --pts, --points, --coco and --yolo"),
        (("--boxes", "boxes.csv", "--pts", "."), "give only one of --boxes and --pts"),
        (("--boxes", "boxes.csv", "--val-fraction", "1"), "--val-fraction 1.0: must be at least 0 and at most 0.99"),
        (("--boxes", "boxes.csv", "--val-fraction", "nan"), "--val-fraction nan: expected a number"),
        (("--boxes", "boxes.csv", "--images", "none"), "no such folder"),
        (("--boxes", "gone.csv"), "gone.csv"),
        (("--pts", ".", "--images", "."), "--images belongs to --boxes, --points, --coco and --yolo"),
        (("--boxes", "boxes.csv", "--category", "ear"), "--category belongs to --coco and --yolo"),
        (("--yolo", "none"), "no such folder"),
        (("--yolo", "."), "holds no label files"),
        (("--boxes", "empty.csv"), "empty.csv: 2 photographs and no ears"),
        (("--pts", "none"), "no such folder"),
        (("--coco", "ears.json"), "would replace"),
        (("--coco", "boxes.csv"), "not JSON"),
        (("--boxes", "boxes.csv", "--split-by", "ear"), "--split-by ear: choose one of photograph, subject"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    flags: tuple[str, ...],
    named: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(folder)
    convert(folder)
    (folder / "empty.csv").write_text("file,x,y,width,height\n0.png,,,,\n1.png,,,,\n")
    capsys.readouterr()
    assert main([*flags, "--out", "ears.json", "--overwrite"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert named in said


def test_out_must_be_json(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--pts", str(folder), "--out", str(folder / "ears.csv")]) == 2
    assert "a name that ends in .json" in capsys.readouterr().err
    assert main(["--pts", str(folder)]) == 2
    assert "--out: give a JSON file" in capsys.readouterr().err
