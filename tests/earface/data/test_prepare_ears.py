"""`python -m data.prepare_ears`, run as a user would."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from earface.data.ear_rows import SUBJECT_COLUMN
from earface.data.folders import list_images
from earface.data.images import Pixels, read_image
from earface.data.npy import TeacherData, read_teacher_npy
from earface.data.prepare_ears import main
from earface.data.tables import write_csv
from tests.conftest import only_line
from tests.earface.data.conftest import draw_picture_folder
from tests.support.disk import run_with_small_disk

Draw = Callable[..., Pixels]


def prepare(images: Path, out: Path, *flags: object) -> int:
    return main(["--images", str(images), "--out", str(out), "--overwrite", "--fit", "stretch", *map(str, flags)])


def both(out: Path) -> tuple[TeacherData, TeacherData]:
    return read_teacher_npy(out / "train_teacher.npy"), read_teacher_npy(out / "val_teacher.npy")


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "prepare_report.json").read_text(encoding="utf-8"))


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    write_csv(path, list(rows[0]), (list(row.values()) for row in rows))
    return path


def index_rows(folder: Path, **columns: object) -> list[dict[str, object]]:
    files = [path.relative_to(folder).as_posix() for path in list_images(folder)]
    return [{"file": file, "subject": file.split("/")[0], **columns} for file in files]


@pytest.fixture
def copied(picture_folder: Path) -> Path:
    """The pictures, where s4 has the first of s1 as a mirrored JPEG, and a split that parts the two."""
    mirrored = np.ascontiguousarray(read_image(picture_folder / "s1" / "0.png")[:, ::-1])
    Image.fromarray(mirrored).save(picture_folder / "s4" / "copy.jpg", quality=80)
    (picture_folder / "splits.json").write_text('{"val": ["s1"]}')
    return picture_folder


def test_folders_are_subjects_and_no_subject_is_on_both_sides(picture_folder: Path, tmp_path: Path) -> None:
    assert prepare(picture_folder, tmp_path / "out", "--val-fraction", 0.3) == 0
    train, val = both(tmp_path / "out")
    assert train.subjects is not None
    assert val.subjects is not None
    assert len(set(val.subjects)) == 2
    assert set(train.subjects).isdisjoint(val.subjects)
    assert sorted([*train.image_paths, *val.image_paths]) == list_images(picture_folder)  # type: ignore[misc]
    for data in (train, val):
        assert [path.parent.name for path in data.image_paths or []] == data.subjects


def test_the_same_seed_gives_the_same_files(picture_folder: Path, tmp_path: Path) -> None:
    contents = []
    for out, seed in (("a", 1), ("b", 1), ("c", 2), ("d", 3), ("e", 4)):
        prepare(picture_folder, tmp_path / out, "--seed", seed)
        contents.append((tmp_path / out / "val_teacher.npy").read_bytes())
    assert contents[0] == contents[1]
    assert len(set(contents)) > 1


def test_a_folder_can_be_moved_with_the_npy_above_it(picture_folder: Path, tmp_path: Path) -> None:
    assert prepare(picture_folder, tmp_path) == 0
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("pictures", "train_teacher.npy", "val_teacher.npy"):
        shutil.move(tmp_path / name, moved / name)
    assert all(path.is_file() for data in both(moved) for path in data.image_paths or [])


def test_a_flat_folder_is_refused_at_once_with_the_ways_to_name_subjects(
    tmp_path: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flat").mkdir()
    for seed in range(10):
        Image.fromarray(draw(seed)).save(tmp_path / "flat" / f"p{seed % 3}_{seed}.png")
    assert prepare(tmp_path / "flat", tmp_path / "out") == 2
    line = only_line(capsys)
    assert "--index" in line
    assert "--subject-pattern" in line
    assert not any((tmp_path / "out").iterdir())
    assert prepare(tmp_path / "flat", tmp_path / "out", "--subject-pattern", ".+") == 0
    assert len({subject for data in both(tmp_path / "out") for subject in data.subjects or []}) == 10
    (tmp_path / "flat" / "someone").mkdir()
    Image.fromarray(draw(10)).save(tmp_path / "flat" / "someone" / "10.png")
    assert prepare(tmp_path / "flat", tmp_path / "mixed") == 0
    assert "10 of 11 pictures lie in no folder" in " ".join(capsys.readouterr().err.split())
    shutil.rmtree(tmp_path / "flat" / "someone")
    assert prepare(tmp_path / "flat", tmp_path / "out", "--subject-pattern", r"(p\d)_") == 0
    assert "warning" not in capsys.readouterr().err
    assert {subject for data in both(tmp_path / "out") for subject in data.subjects or []} == {"p0", "p1", "p2"}


def test_an_index_gives_subjects_and_boxes(picture_folder: Path, tmp_path: Path) -> None:
    rows = index_rows(picture_folder, x=2, y=3.5, width=20, height=30, note="ignored")
    index = write_rows(tmp_path / "index.csv", rows[:-2])
    assert prepare(picture_folder, tmp_path / "out", "--index", index) == 0
    train, val = both(tmp_path / "out")
    assert len(train) + len(val) == 22
    assert train.bboxes is not None
    np.testing.assert_array_equal(np.unique(train.bboxes, axis=0), [[2, 3.5, 20, 30]])


def test_corners_in_an_index_are_refused_by_name(
    picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        row | {"xmin": 2 * number % 24, "ymin": 12, "xmax": 2 * number % 24 + 20, "ymax": 34}
        for number, row in enumerate(index_rows(picture_folder))
    ]
    index = write_rows(tmp_path / "index.csv", rows)
    flags = ("--index", index, "--box-columns", "xmin,ymin,xmax,ymax")
    assert prepare(picture_folder, tmp_path / "out", *flags) == 2
    assert f"{index}: the boxes look like corners, xmin ymin xmax ymax" in only_line(capsys)


def test_a_few_boxes_outside_their_pictures_are_left_out(picture_folder: Path, tmp_path: Path) -> None:
    rows = index_rows(picture_folder, x=2, y=3, width=20, height=30)
    rows[3]["x"] = 40
    index = write_rows(tmp_path / "index.csv", rows)
    assert prepare(picture_folder, tmp_path / "out", "--index", index) == 0
    (rejected,) = report_of(tmp_path / "out")["rejected"]
    assert rejected["kind"] == "bad box"
    assert "leaves the 44x43 picture" in rejected["reason"]
    rows[9]["x"] = 40
    assert prepare(picture_folder, tmp_path / "out", "--index", write_rows(index, rows)) == 2


def test_columns_can_have_other_names(picture_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"pfad": row["file"], "wer": row["subject"], "l": 1, "t": 2, "w": 20, "h": 20}
        for row in index_rows(picture_folder)
    ]
    index = write_rows(tmp_path / "index.csv", rows)  # type: ignore[arg-type]
    flags = ("--file-column", "pfad", "--subject-column", "wer", "--box-columns", "l,t,w,h")
    assert prepare(picture_folder, tmp_path / "out", "--index", index, *flags) == 0
    assert both(tmp_path / "out")[0].bboxes is not None


def test_width_and_height_without_a_corner_are_no_boxes(picture_folder: Path, tmp_path: Path) -> None:
    index = write_rows(tmp_path / "index.csv", index_rows(picture_folder, width=20, height=30))
    assert prepare(picture_folder, tmp_path / "out", "--index", index) == 0
    assert both(tmp_path / "out")[0].bboxes is None


def test_a_photograph_with_two_ears_is_on_one_side(
    tmp_path: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    rows: list[dict[str, object]] = []
    for seed in range(6):
        Image.fromarray(draw(seed, 100, 100)).save(tmp_path / "p" / f"{seed}.png")
        rows += [{"file": f"{seed}.png", "x": x, "y": 20, "width": 30, "height": 60} for x in (5, 60)]
    index = write_rows(tmp_path / "index.csv", rows)
    assert prepare(tmp_path / "p", tmp_path / "out", "--index", index, "--val-fraction", 0.4) == 0
    train, val = both(tmp_path / "out")
    assert (len(train), len(val)) == (8, 4)
    assert set(train.image_paths or []).isdisjoint(val.image_paths or [])
    for row, other in zip(rows, "aabbccddeeff", strict=True):
        row[SUBJECT_COLUMN] = other if row["x"] == 5 else other.upper()
    index = write_rows(tmp_path / "index.csv", rows)
    assert prepare(tmp_path / "p", tmp_path / "out", "--index", index, "--seed", 1) == 2
    assert "exact" in capsys.readouterr().err


def test_what_cannot_be_used_is_listed(picture_folder: Path, tmp_path: Path, draw: Draw, capsys: Any) -> None:
    (picture_folder / "s2" / "broken.png").write_bytes((picture_folder / "s2" / "0.png").read_bytes()[:400])
    Image.fromarray(draw(50, 40, 15)).save(picture_folder / "s2" / "narrow.png")
    assert prepare(picture_folder, tmp_path / "out") == 0
    rejected = {entry["name"]: entry for entry in report_of(tmp_path / "out")["rejected"]}
    assert set(rejected) == {"s2/broken.png", "s2/narrow.png"}
    assert rejected["s2/broken.png"]["kind"] == "unreadable"
    assert "15x40: narrower or lower than 16 pixels" in rejected["s2/narrow.png"]["reason"]
    assert "1 unreadable" in capsys.readouterr().out
    assert sum(map(len, both(tmp_path / "out"))) == 24


def test_the_report_shows_what_was_written(picture_folder: Path, tmp_path: Path) -> None:
    prepare(picture_folder, tmp_path / "out", "--seed", 9)
    report = report_of(tmp_path / "out")
    assert report["seed"] == 9
    assert report["train"]["pictures"] + report["val"]["pictures"] == 24
    assert set(report["train"]["subjects"]).isdisjoint(report["val"]["subjects"])
    assert report["val"]["subjects"] == sorted(set(both(tmp_path / "out")[1].subjects or []))


def test_a_copy_on_both_sides_is_an_error_that_names_it(copied: Path, tmp_path: Path, capsys: Any) -> None:
    assert prepare(copied, tmp_path / "out", "--splits", copied / "splits.json") == 2
    assert "s1/0.png = s4/copy.jpg (near, " in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.npy"))
    refused = tmp_path / "out" / "prepare_refused.json"
    pairs = json.loads(refused.read_text(encoding="utf-8"))["duplicates_across_the_split"]
    assert [pair["files"] for pair in pairs] == [["s1/0.png", "s4/copy.jpg"]]
    given = ["--images", str(copied), "--out", str(tmp_path / "out"), "--splits", str(copied / "splits.json")]
    assert main([*given, "--duplicates", "drop", "--fit", "stretch"]) == 0, (
        "what is only a report of a refusal stands in nobody's way"
    )
    assert not refused.exists()


def test_an_exact_copy_under_another_name_is_found_too(picture_folder: Path, tmp_path: Path, capsys: Any) -> None:
    with Image.open(picture_folder / "s1" / "0.png") as picture:
        picture.save(picture_folder / "s4" / "other.bmp")
    (tmp_path / "s.csv").write_text("subject,split\ns1,val\ns4,train\n")
    assert prepare(picture_folder, tmp_path / "out", "--splits", tmp_path / "s.csv") == 2
    assert "s1/0.png = s4/other.bmp (exact, 1.00)" in capsys.readouterr().err


def test_dropping_removes_the_validation_copy(copied: Path, tmp_path: Path) -> None:
    flags = ("--splits", copied / "splits.json", "--duplicates", "drop")
    assert prepare(copied, tmp_path / "out", *flags) == 0
    train, val = both(tmp_path / "out")
    assert [path.name for path in val.image_paths or []] == ["1.png", "2.png", "3.png"]
    assert copied / "s4" / "copy.jpg" in (train.image_paths or [])


def test_keeping_together_puts_both_subjects_on_one_side(copied: Path, tmp_path: Path) -> None:
    sides = set()
    for seed in range(8):
        flags = ("--duplicates", "keep-together", "--seed", seed, "--val-fraction", 0.4)
        assert prepare(copied, tmp_path / "out", *flags) == 0
        train, val = both(tmp_path / "out")
        assert len(train) + len(val) == 25
        val_has = {"s1", "s4"} & set(val.subjects or [])
        assert len(val_has) in (0, 2)
        sides.add(len(val_has))
    assert sides == {0, 2}
    assert report_of(tmp_path / "out")["kept_together"][0]["files"] == ["s1/0.png", "s4/copy.jpg"]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_split_file_fixes_the_validation_subjects(picture_folder: Path, tmp_path: Path, form: str) -> None:
    split = tmp_path / f"split.{form}"
    split.write_text('{"val": ["s5", "s0"]}' if form == "json" else "split,subject\nval,s5\ntrain,s1\nval,s0\n")
    assert prepare(picture_folder, tmp_path / "out", "--splits", split) == 0
    assert set(both(tmp_path / "out")[1].subjects or []) == {"s0", "s5"}


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures/ and files that are not what `prepare_ears` wants."""
    here = tmp_path_factory.mktemp("mistakes")
    pictures = draw_picture_folder(here / "pictures")
    (here / "empty").mkdir()
    (here / "file").touch()
    rows = index_rows(pictures)
    write_rows(here / "good.csv", rows)
    write_rows(here / "missing.csv", [*rows, {"file": "s0/99.png", "subject": "s0"}])
    write_rows(here / "outside.csv", [{"file": "../good.csv", "subject": "s0"}])
    write_rows(here / "boxes.csv", index_rows(pictures, x="?", y=1, width=1, height=1))
    write_rows(here / "infinite.csv", index_rows(pictures, x="nan", y=1, width=1, height=1))
    write_rows(here / "nobody.csv", [{"file": "s0/0.png", "subject": ""}])
    (here / "no_rows.csv").write_text("file,subject\n")
    (here / "binary.csv").write_bytes(bytes(range(256)))
    (here / "unknown.json").write_text('{"val": ["s0", "nobody"]}')
    (here / "all.json").write_text(json.dumps({"val": [f"s{number}" for number in range(6)]}))
    (here / "broken.json").write_text("{")
    (here / "sides.csv").write_text("subject,split\ns0,test\n")
    return here


@pytest.mark.parametrize(
    ("images", "flags", "expected"),
    [
        ("nothing", [], "nothing: no such folder"),
        ("empty", [], "empty: holds no pictures"),
        ("file", [], "file: not a folder"),
        ("pictures/s0", ["--subject-pattern", "png"], "s0: shows one subject, png; another"),
        ("pictures", ["--val-fraction", "1"], "--val-fraction 1.0: must be above 0 and at most 0.99"),
        ("pictures", ["--val-fraction", "0"], "--val-fraction 0.0: must be above 0"),
        ("pictures", ["--val-fraction", "0.99"], "each side needs at least one subject"),
        ("pictures", ["--min-size", "0"], "--min-size 0: must be at least 1"),
        ("pictures", ["--min-size", "1000"], "none of 24 pictures can be used"),
        ("pictures", ["--index", "{here}/no.csv"], "no.csv: no such file"),
        ("pictures", ["--index", "{here}/no_rows.csv"], "has no rows"),
        ("pictures", ["--index", "{here}/binary.csv"], "not a text file"),
        (
            "pictures",
            ["--index", "{here}/good.csv", "--file-column", "path"],
            "no column 'path' (it has file, subject)",
        ),
        ("pictures", ["--index", "{here}/good.csv", "--subject-column", "who"], "no column 'who'"),
        ("pictures", ["--index", "{here}/good.csv", "--box-columns", "a,b,c,d"], "no column 'a'"),
        (
            "pictures",
            ["--index", "{here}/good.csv", "--box-columns", "a,b"],
            "--box-columns a,b: expected four column names",
        ),
        ("pictures", ["--index", "{here}/missing.csv"], "1 of its files are not in"),
        ("pictures", ["--index", "{here}/outside.csv"], "outside.csv line 2: '../good.csv' leaves"),
        ("pictures", ["--index", "{here}/boxes.csv"], "boxes.csv line 2: box ['?', '1', '1', '1'] is not four numbers"),
        ("pictures", ["--index", "{here}/infinite.csv"], "infinite.csv line 2: box nan 1.0 1.0 1.0 is not finite"),
        ("pictures", ["--index", "{here}/nobody.csv"], "nobody.csv line 2: column 'subject' is empty"),
        ("pictures", ["--subject-pattern", "("], "--subject-pattern (: missing )"),
        ("pictures", ["--subject-pattern", "zz"], "--subject-pattern zz finds nothing in 's0/0.png'"),
        ("pictures", ["--splits", "{here}/unknown.json"], "1 validation subject(s) have no picture: nobody"),
        ("pictures", ["--splits", "{here}/all.json"], "puts all 6 subjects on one side"),
        ("pictures", ["--splits", "{here}/broken.json"], "not JSON"),
        ("pictures", ["--splits", "{here}/sides.csv"], "'test' is neither train nor val"),
        ("pictures", ["--splits", "{here}/no.json"], "no.json: no such file"),
        ("pictures", ["--duplicates", "maybe"], "--duplicates maybe: choose one of error, drop, keep-together"),
        ("pictures", ["--val", "0.2"], "unrecognized arguments"),
        ("pictures", ["--out", "{here}/file/sub"], "file is a file; give a folder"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(
    mistakes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str, flags: list[str], expected: str
) -> None:
    given = [flag.format(here=mistakes) for flag in flags]
    assert prepare(mistakes / images, tmp_path / "out", *given) == 2
    assert expected in only_line(capsys)
    assert not list((tmp_path / "out").glob("*"))


def test_more_than_five_percent_unreadable_stops(picture_folder: Path, tmp_path: Path, capsys: Any) -> None:
    for number in range(2):
        (picture_folder / "s0" / f"{number}.png").write_bytes(b"")
    assert prepare(picture_folder, tmp_path / "out") == 2
    assert "2 of 24 pictures cannot be used, over 5%: s0/0.png: empty file; s0/1.png" in capsys.readouterr().err


@pytest.mark.runs
def test_the_module_runs_and_prints_a_table(picture_folder: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "data.prepare_ears",
        "--images",
        str(picture_folder),
        "--out",
        str(tmp_path / "out"),
        "--fit",
        "stretch",
    ]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0
    assert "subjects" in shown.stdout
    assert shown.stderr == ""
    assert subprocess.run([*command, "--seed", "x"], capture_output=True, text=True).returncode == 2


@pytest.mark.runs
def test_a_full_disk_is_one_line(picture_folder: Path, tmp_path: Path) -> None:
    """On a file system of 8 kB, which holds no two NPY files of this set."""
    for number in range(40):
        shutil.copytree(picture_folder / "s0", picture_folder / f"{'x' * 200}{number}")
    flags = f"--images {picture_folder} --out {tmp_path}/small --duplicates drop --fit stretch"
    run = f"{sys.executable} -m data.prepare_ears {flags}"
    shown = run_with_small_disk(tmp_path / "small", "8k", f"{run}; echo $?; ls -A {tmp_path}/small")
    assert shown.stderr.count("\n") == 1
    assert "No space left on device" in shown.stderr
    assert "teacher.npy" in shown.stderr
    assert shown.stdout.endswith("2\n")  # nothing is listed after the exit code


def test_photographs_are_found_mirrored_even_when_recompressed(tmp_path: Path, draw: Draw) -> None:
    (tmp_path / "p").mkdir()
    for seed in range(12):
        Image.fromarray(draw(seed, 80, 60)).save(tmp_path / "p" / f"{seed}.png")
        if seed < 3:
            mirrored = np.ascontiguousarray(draw(seed, 80, 60)[:, ::-1, ::-1])
            cv2.imwrite(str(tmp_path / "p" / f"again{seed}.jpg"), mirrored)
    assert prepare(tmp_path / "p", tmp_path / "out", "--duplicates", "keep-together", "--subject-pattern", ".+") == 0
    names = {tuple(pair["files"]) for pair in report_of(tmp_path / "out")["kept_together"]}
    assert names == {(f"{seed}.png", f"again{seed}.jpg") for seed in range(3)}
