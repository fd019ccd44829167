"""`python -m data.prepare_faces`, run as a user would: on synthetic pictures that pass for aligned faces, on
pictures of coloured marks with a detector of these, and on photographs of people where they and YuNet are at hand.
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from earface.data.degradation import bicubic
from earface.data.face_alignment import face_template
from earface.data.face_detection import FaceDetector, subject_face
from earface.data.face_rows import identity_of, read_faces
from earface.data.face_sizes import VLRSize
from earface.data.folders import list_images
from earface.data.identity_split import SPLIT_OF_ROLE, read_splits
from earface.data.images import Pixels, read_image
from earface.data.pixels import to_model_range
from earface.data.prepare_faces import main
from tests.conftest import only_line
from tests.support.shared_files import PHOTOGRAPHS, YUNET, needs
from tests.support.yunet import photograph, write_yunet

Draw = Callable[..., Pixels]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 identities with three pictures of 128x128, 4 with one."""
    from tests.earface.data.conftest import draw_picture

    folder = tmp_path_factory.mktemp("synthetic")
    pictures = [(f"m{number}", picture) for number in range(8) for picture in range(3)]
    for seed, (identity, picture) in enumerate(pictures + [(f"s{number}", 0) for number in range(4)]):
        (folder / identity).mkdir(exist_ok=True)
        Image.fromarray(draw_picture(seed, 128, 128)).save(folder / identity / f"{picture}.png")
    return folder


@pytest.fixture
def people(synthetic: Path, tmp_path: Path) -> Path:
    """A copy of `synthetic` to change."""
    return Path(shutil.copytree(synthetic, tmp_path / "people"))


@pytest.fixture(scope="module", params=["marks", pytest.param("people", marks=needs(YUNET, PHOTOGRAPHS))])
def snaps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A detector's file, and a folder of four people with three photographs of 250x250 each."""
    folder = tmp_path_factory.mktemp("snaps")
    if request.param == "people":
        for person in sorted(PHOTOGRAPHS.iterdir())[:12:3]:
            shutil.copytree(person, folder / person.name, copy_function=shutil.copyfile)
        return YUNET, folder
    for seed in range(12):
        place = 60.0 + 2 * seed, 90.0 - 3 * seed, 110.0 + seed, 4.0 * seed - 20
        path = folder / f"person_{seed // 3}" / f"{seed % 3}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photograph(250, 250, [place], seed)[0]).save(path)
    return write_yunet(tmp_path_factory.mktemp("yunet") / "marks.onnx"), folder


def prepare(images: Path, out: Path, *flags: object) -> int:
    return main(["--images", str(images), "--out", str(out), "--aligned", *map(str, flags)])


def detect(images: Path, out: Path, detector: Path, *flags: object) -> int:
    return main(["--images", str(images), "--out", str(out), "--detector", str(detector), *map(str, flags)])


def report_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "prepare_report.json").read_text(encoding="utf-8"))


def files_of(out: Path) -> dict[str, bytes]:
    paths = [path for path in out.rglob("*") if path.is_file() and path.name != "prepare_report.json"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def put_mirrored_copy(people: Path, source: str, target: str) -> None:
    """JPEG of the mirrored picture, turned by two degrees."""
    picture = Image.fromarray(np.ascontiguousarray(read_image(people / source)[:, ::-1]))
    picture.rotate(2, Image.Resampling.BICUBIC).save(people / target, quality=70)


def test_the_layout_holds_pairs_whose_names_give_the_identity(synthetic: Path, tmp_path: Path) -> None:
    assert prepare(synthetic, tmp_path / "out") == 0
    rows = read_faces(tmp_path / "out")
    assert len(rows) == 28
    for row in rows:
        source = synthetic / row.identity / f"{row.path.stem.split('__')[1]}.png"
        np.testing.assert_array_equal(read_image(row.path), read_image(source))
        assert row.vlr_path is not None
        hr = to_model_range(torch.from_numpy(read_image(row.path))[None])
        low = to_model_range(torch.from_numpy(read_image(row.vlr_path))[None])
        assert torch.equal(low, bicubic(hr, VLRSize(32, 32)))
        assert identity_of(row.path) == identity_of(row.vlr_path) == row.identity


def test_no_identity_is_in_two_splits_and_the_json_says_which(synthetic: Path, tmp_path: Path) -> None:
    prepare(synthetic, tmp_path / "out", "--seed", 3)
    rows = read_faces(tmp_path / "out")
    roles = read_splits(tmp_path / "out" / "splits.json").roles
    for row in rows:
        assert (row.split, row.role) == (SPLIT_OF_ROLE[roles[row.identity]], roles[row.identity])
    assert Counter(roles.values()) == {"train": 5, "tune": 1, "score": 2, "nonmated": 2, "train_single": 2}
    assert {row.identity for row in rows if row.role in ("nonmated", "train_single")} == {"s0", "s1", "s2", "s3"}
    report = report_of(tmp_path / "out")
    assert report["roles"]["score"] == {"split": "test_processed", "identities": 2, "pictures": 6}
    assert report["roles"]["nonmated"] == {"split": "test_processed", "identities": 2, "pictures": 2}
    assert (report["pictures"], report["faces"]) == (28, 28)


def test_the_index_names_each_photograph(synthetic: Path, tmp_path: Path) -> None:
    prepare(synthetic, tmp_path / "out")
    with (tmp_path / "out" / "faces.csv").open(encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    assert [record["photograph"] for record in table] == [
        p.relative_to(synthetic).as_posix() for p in list_images(synthetic)
    ]
    assert {row.path for row in read_faces(tmp_path / "out" / "faces.csv")} == {
        row.path for row in read_faces(tmp_path / "out")
    }


@pytest.mark.parametrize(("text", "size"), [("24", (24, 24)), ("16", (16, 16)), ("14x16", (14, 16))])
def test_the_size_is_width_by_height(synthetic: Path, tmp_path: Path, text: str, size: tuple[int, int]) -> None:
    prepare(synthetic, tmp_path / "out", "--vlr-size", text, "--degradation", "realistic")
    for row in read_faces(tmp_path / "out"):
        assert row.vlr_path is not None
        with Image.open(row.vlr_path) as picture:
            assert picture.size == size


def test_the_same_command_gives_the_same_bytes_and_one_more_picture_changes_no_other(
    people: Path, tmp_path: Path, draw: Draw
) -> None:
    flags = ("--degradation", "realistic", "--seed", 5)
    for out in "ab":
        prepare(people, tmp_path / out, *flags)
    before = files_of(tmp_path / "a")
    assert before == files_of(tmp_path / "b")
    Image.fromarray(draw(99, 128, 128)).save(people / "m0" / "0a.png")
    prepare(people, tmp_path / "c", *flags)
    after = files_of(tmp_path / "c")
    assert {name for name in before if after[name] != before[name]} == {"faces.csv", "splits.json"}
    prepare(people, tmp_path / "d", "--degradation", "realistic", "--seed", 6)
    assert files_of(tmp_path / "d") != after


def test_a_split_that_exists_is_kept(people: Path, tmp_path: Path, draw: Draw) -> None:
    prepare(people, tmp_path / "out", "--seed", 1)
    splits = tmp_path / "out" / "splits.json"
    before = read_splits(splits).roles
    shutil.rmtree(people / "m5")
    for name in ("new/1.png", "s0/second.png"):
        (people / name).parent.mkdir(exist_ok=True)
        Image.fromarray(draw(len(name) + 200, 128, 128)).save(people / name)
    assert prepare(people, tmp_path / "again", "--seed", 2, "--splits", splits, "--vlr-size", 16) == 0
    after = read_splits(tmp_path / "again" / "splits.json").roles
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"new"}
    assert len(read_faces(tmp_path / "again")) == 27
    assert prepare(people, tmp_path / "out", "--splits", splits, "--overwrite") == 0
    assert read_splits(splits).roles == after


def test_one_picture_under_two_identities_is_refused_and_named(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_mirrored_copy(people, "m1/0.png", "m2/copy.jpg")
    (tmp_path / "s.json").write_text('{"roles": {"train": ["m1"], "score": ["m2"]}}')
    flags = ("--splits", tmp_path / "s.json")
    assert prepare(people, tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert "m1/0.png = m2/copy.jpg (near, " in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").rglob("hr_images/*"))
    listed = report_of(tmp_path / "out" / ".prepare")["one_picture_two_identities"]
    assert [pair["files"] for pair in listed] == [["m1/0.png", "m2/copy.jpg"]]
    assert prepare(people, tmp_path / "out", *flags, "--duplicates", "keep-together") == 2
    assert "m2 and others of one photograph stand in two splits" in capsys.readouterr().err


def test_identities_that_share_a_picture_can_be_kept_together(people: Path, tmp_path: Path) -> None:
    shutil.copy(people / "m1" / "0.png", people / "s2" / "same.png")
    put_mirrored_copy(people, "s3/0.png", "m4/copy.jpg")
    shutil.copy(people / "m0" / "0.png", people / "m0" / "harmless.png")
    for seed in range(2):
        flags = ("--duplicates", "keep-together", "--seed", seed, "--overwrite")
        assert prepare(people, tmp_path / "out", *flags) == 0
        roles = read_splits(tmp_path / "out" / "splits.json").roles
        assert roles["m1"] == roles["s2"]
        assert roles["m4"] == roles["s3"]
    assert len(report_of(tmp_path / "out")["one_picture_two_identities"]) == 2


def test_what_cannot_be_used_is_listed_by_kind(people: Path, tmp_path: Path, draw: Draw, capsys: Any) -> None:
    (people / "m0" / "broken.png").write_bytes((people / "m0" / "0.png").read_bytes()[:300])
    Image.fromarray(draw(50, 128, 112)).save(people / "m1" / "narrow.png")
    assert prepare(people, tmp_path / "out") == 0
    report = report_of(tmp_path / "out")
    assert report["rejected_by_kind"] == {"unreadable": 1, "wrong size": 1}
    reasons = {reject["name"]: reject["reason"] for reject in report["rejected"]}
    assert reasons["m1/narrow.png"] == "112x128, expected an aligned face of 128x128"
    assert set(reasons) == {"m0/broken.png", "m1/narrow.png"}
    assert "1 wrong size, left out" in capsys.readouterr().out
    assert len(read_faces(tmp_path / "out")) == 28


def test_a_stopped_run_continues_where_it_was(people: Path, tmp_path: Path, draw: Draw, capsys: Any) -> None:
    """Here after more than 5 % unreadable. A face exchanged meanwhile shows that no photograph is inspected again."""
    prepare(people, tmp_path / "whole")
    content = {name: (people / name).read_bytes() for name in ("m0/0.png", "m3/1.png")}
    for name in content:
        (people / name).write_bytes(b"")
    assert prepare(people, tmp_path / "out") == 2
    assert "2 of 28 pictures cannot be read, over 5%: m0/0.png: empty file; m3/1.png" in capsys.readouterr().err
    for name, original in content.items():
        (people / name).write_bytes(original)
    work = tmp_path / "out" / ".prepare"
    Image.fromarray(draw(500, 128, 128)).save(work / "m5__1.png")
    (work / "s3__0.png").unlink()
    journal = work / "journal.jsonl"
    journal.write_text(journal.read_text() + '\n{"name": "m7/2.p')  # as a kill leaves it
    assert prepare(people, tmp_path / "out") == 0
    assert not work.exists()
    expected, found = files_of(tmp_path / "whole"), files_of(tmp_path / "out")
    assert expected.keys() == found.keys()
    assert {Path(name).name for name in expected if expected[name] != found[name]} == {"m5__1.png"}


def test_what_other_settings_found_is_not_used(people: Path, tmp_path: Path) -> None:
    work = tmp_path / "out" / ".prepare"
    work.mkdir(parents=True)
    status = (people / "m0" / "0.png").stat()
    record = {"name": "m0/0.png", "stem": "m0__0", "stamp": [status.st_size, status.st_mtime_ns]}
    lines = [{"min_score": 0.5}, record | {"reject": ["no face", "none"]}]
    (work / "journal.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert prepare(people, tmp_path / "out") == 0
    assert report_of(tmp_path / "out")["rejected"] == []


DIE_AFTER_FIVE = """
import os, signal, sys
from earface.data import face_inspection
from earface.data.prepare_faces import main
from tests.conftest import only_line
from tests.support.shared_files import PHOTOGRAPHS, YUNET, needs
from tests.support.yunet import photograph, write_yunet

append, five = face_inspection._append, iter(range(4))

def append_and_die(journal, record):
    append(journal, record)
    if next(five, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)

face_inspection._append = append_and_die
main(sys.argv[1:])
"""


@pytest.mark.runs
def test_a_killed_run_ends_as_one_that_was_not(synthetic: Path, tmp_path: Path) -> None:
    prepare(synthetic, tmp_path / "whole")
    flags = ["--aligned", "--images", str(synthetic), "--out", str(tmp_path / "out")]
    run = subprocess.run([sys.executable, "-c", DIE_AFTER_FIVE, *flags], stdout=subprocess.DEVNULL)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / ".prepare" / "journal.jsonl").read_bytes().count(b"\n") == 5
    assert not (tmp_path / "out" / "prepare_report.json").exists()
    assert prepare(synthetic, tmp_path / "out") == 0
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_finished_set_is_replaced_only_on_request(people: Path, tmp_path: Path, capsys: Any) -> None:
    assert prepare(people, tmp_path / "out") == 0
    before = files_of(tmp_path / "out")
    assert prepare(people, tmp_path / "out") == 2
    assert "out is not empty" in capsys.readouterr().err
    (tmp_path / "out" / "notes.txt").write_text("mine")
    shutil.rmtree(people / "m7")
    assert prepare(people, tmp_path / "out", "--min-score", 2, "--overwrite") == 2
    assert files_of(tmp_path / "out") == before | {"notes.txt": b"mine"}
    assert prepare(people, tmp_path / "out", "--overwrite") == 0
    assert not any("m7" in name for name in files_of(tmp_path / "out"))
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_multi_pie_names_stay_and_give_the_conditions(tmp_path: Path, draw: Draw) -> None:
    for number, subject in enumerate(("001", "001", "002", "002", "250", "250", "251")):
        name = f"session01/{subject}_01_01_{'051' if number % 2 else '140'}_{number:02d}_crop_128.png"
        (tmp_path / "pie" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(number, 128, 128)).save(tmp_path / "pie" / name)
    assert prepare(tmp_path / "pie", tmp_path / "out") == 0
    rows = read_faces(tmp_path / "out")
    assert {row.name for row in rows} == {path.name for path in list_images(tmp_path / "pie")}
    assert Counter(row.identity for row in rows) == {"001": 2, "002": 2, "250": 2, "251": 1}
    assert {(row.camera, row.illumination) for row in rows if row.identity == "002"} == {("140", "02"), ("051", "03")}


def test_a_csv_names_pictures_and_identities(synthetic: Path, tmp_path: Path) -> None:
    index = tmp_path / "index.csv"
    taken = [path.relative_to(synthetic).as_posix() for path in list_images(synthetic)][:20]
    index.write_text("file,identity\n" + "".join(f"{name},Person {name[1]}/{name[0]}\n" for name in taken))
    assert prepare(synthetic, tmp_path / "out", "--index", index) == 0
    assert {row.identity for row in read_faces(tmp_path / "out")} == {f"Person {name[1]}/{name[0]}" for name in taken}


@pytest.fixture(scope="module")
def mistakes(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people/ as `synthetic`, and files and folders that are not what `prepare_faces` wants."""
    here = tmp_path_factory.mktemp("mistakes")
    (here / "people").symlink_to(synthetic)
    (here / "empty").mkdir()
    (here / "file").write_text("file,who\n")
    (here / "one" / "m0").mkdir(parents=True)
    shutil.copy(synthetic / "m0" / "0.png", here / "one" / "m0")
    shutil.copytree(synthetic / "m1", here / "two" / "m1")
    shutil.copytree(synthetic / "m2", here / "two" / "m2")
    shutil.copytree(synthetic / "m1", here / "flat")
    (here / "who.csv").write_text("file,who\nm0/0.png,Ann\n")
    (here / "others.json").write_text('{"roles": {"train": ["Ann"]}}')
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").touch()
    return here


@pytest.mark.parametrize(
    ("images", "flags", "expected"),
    [
        ("nothing", [], "nothing: no such folder"),
        ("empty", [], "empty: holds no pictures"),
        ("file", [], "file: not a folder"),
        ("one", [], "holds one identity, m0"),
        ("two", [], "2 identities, 2 with two or more pictures: at least three of these are needed"),
        ("flat", [], "3 of 3 pictures lie in no folder"),
        ("people", ["--vlr-size", "14by16"], "--vlr-size: VLR size '14by16': 32, 24, 16 or 14x16"),
        ("people", ["--vlr-size", "256"], "out of range: 8 to 64"),
        ("people", ["--degradation", "worse"], "--degradation worse: choose one of bicubic, realistic"),
        ("people", ["--seed", "-1"], "--seed -1: must be at least 0"),
        ("people", ["--min-score", "1"], "--min-score 1.0: must be above 0 and at most 0.99"),
        ("people", ["--min-face", "0"], "--min-face 0: must be at least 1"),
        ("people", ["--index", "{here}/who.csv"], "no column 'identity' (it has file, who)"),
        ("people", ["--index", "{here}/no.csv"], "no.csv: no such file"),
        ("people", ["--splits", "{here}/no.json"], "no.json: no such file"),
        ("people", ["--splits", "{here}/who.csv"], "not JSON"),
        ("people", ["--splits", "{here}/others.json"], "names none of the 12 identities here (m0, ...)"),
        ("people", ["--out", "{here}/full"], "full is not empty"),
        ("people", ["--out", "{here}/file"], "file: is a file; give a folder"),
        ("people", ["--out", "{here}/file/sub"], "file is a file; give a folder"),
        ("people", ["--out", "{here}/people/prepared"], "lies in --images"),
        ("people", ["--ali"], "unrecognized arguments"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(
    mistakes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str, flags: list[str], expected: str
) -> None:
    given = [flag.format(here=mistakes) for flag in flags]
    assert prepare(mistakes / images, tmp_path / "out", *given) == 2
    assert expected in only_line(capsys)
    assert not list((tmp_path / "out").rglob("hr_images/*"))
    assert not (mistakes / "full" / ".prepare").exists()


def test_another_file_than_yunets_is_one_line(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no network")
    assert detect(synthetic, tmp_path / "out", tmp_path / "file") == 2
    assert "file: not YuNet's ONNX file" in only_line(capsys)


def test_a_folder_of_other_sizes_only_is_an_error(tmp_path: Path, draw: Draw, capsys: Any) -> None:
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        Image.fromarray(draw(1, 112, 112)).save(tmp_path / "in" / name)
    assert prepare(tmp_path / "in", tmp_path / "out") == 2
    expected = "none of 2 pictures can be used: a/1.png: 112x112, expected an aligned face of 128x128"
    assert expected in capsys.readouterr().err


def test_photographs_are_aligned_to_the_template(snaps: tuple[Path, Path], tmp_path: Path) -> None:
    file, photographs = snaps
    assert detect(photographs, tmp_path / "out", file) == 0
    rows, detector = read_faces(tmp_path / "out"), FaceDetector(file)
    assert len(rows) == 12
    aligned = []
    for row in rows:
        face = read_image(row.path)
        assert face.shape == (128, 128, 3)
        aligned.append(detector.refined(face, subject_face(detector(face), (128, 128))).points)
    offsets = np.array(aligned) - face_template()
    assert np.abs(offsets.mean((0, 1))).max() < 1
    assert np.linalg.norm(offsets, axis=2).mean() < 5
    report = report_of(tmp_path / "out")
    assert 0.7 < report["enlargement"]["50%"] < 1.3
    assert report["score"]["5%"] > 0.7


def test_photographs_without_a_usable_face_are_rejects(
    snaps: tuple[Path, Path], tmp_path: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    detector, photographs = snaps
    people = Path(shutil.copytree(photographs, tmp_path / "people"))
    first, second = (read_image(path) for path in list_images(people)[:2])
    (people / "nobody").mkdir()
    Image.fromarray(draw(3, 200, 200)).save(people / "nobody" / "wall.png")
    Image.fromarray(first).resize((100, 100)).save(people / "nobody" / "small.png")
    Image.fromarray(np.concatenate([first, second], axis=1)).save(people / "nobody" / "two.png")
    assert detect(people, tmp_path / "out", detector, "--several", "reject") == 0
    kinds = {reject["name"]: reject["kind"] for reject in report_of(tmp_path / "out")["rejected"]}
    assert {name: kinds[name] for name in kinds if name.startswith("nobody")} == {
        "nobody/wall.png": "no face",
        "nobody/small.png": "too small",
        "nobody/two.png": "several",
    }
    assert detect(people, tmp_path / "central", detector) == 0
    assert "nobody/two.png" in report_of(tmp_path / "central")["chosen_among_several"]
    capsys.readouterr()
    assert detect(people, tmp_path / "huge", detector, "--min-face", 500) == 2
    said = capsys.readouterr().err
    assert "none of 15 pictures can be used" in said
    assert "--aligned" not in said


def test_aligned_faces_that_are_given_as_photographs_are_noticed(
    synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = write_yunet(tmp_path / "marks.onnx")
    assert detect(synthetic, tmp_path / "out", marks) == 2
    assert only_line(capsys).endswith("if they are aligned faces, give --aligned\n")


def test_the_next_step_keeps_the_size(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size, wanted in (("16", "--vlr-size 16"), ("14x16", "--vlr-size 14x16"), ("32", "")):
        assert prepare(people, tmp_path / size, "--vlr-size", size) == 0
        line = f"next: earface dsr train --dataset-root {tmp_path / size} {wanted}".strip()
        assert line in capsys.readouterr().out.splitlines()
