"""`earface ears prepare` in its three forms, from crops and from photographs, as a user would run it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from earface.data.annotations import Annotations
from earface.data.coco import read_coco
from earface.data.ear_alignment import RESIDUAL_SIDE, mean_ear
from earface.data.ear_contract import EarAligner, EarContract
from earface.data.ear_networks import EarLandmarker
from earface.data.ear_writing import contract_of_folder
from earface.data.folders import list_images
from earface.data.images import read_image, write_image
from earface.data.npy import TeacherData, read_teacher_npy
from earface.data.prepare_ears import main
from earface.synthetic.ear_set import EarSet, write_ear_set
from earface.synthetic.scene_set import SceneSet, write_scene_set
from tests.conftest import only_line
from tests.support.ear_boxes import write_fixed_boxes


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SUBJECT/NAME.png of 5 subjects with 4 ears each, and index.csv with file, subject, side."""
    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("crops")
    write_ear_set(made, EarSet(5, 4, 112, seed=41), num_workers=1)
    with (made / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    with (folder / "index.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "subject", "side"])
        for row in rows:
            name = f"{row['subject']}/{Path(row['file']).name}"
            x, y, width, height = (round(float(row[key])) for key in ("x", "y", "width", "height"))
            ear = read_image(made / row["file"])[max(y - 6, 0) : y + height + 6, max(x - 6, 0) : x + width + 6]
            write_image(folder / name, ear)
            writer.writerow([name, row["subject"], row["side"]])
    return folder


def prepare(images: Path, out: Path, *flags: object) -> int:
    return main(["--images", str(images), "--out", str(out), *map(str, flags)])


def both(out: Path) -> tuple[TeacherData, TeacherData]:
    return read_teacher_npy(out / "train_teacher.npy"), read_teacher_npy(out / "val_teacher.npy")


def report_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "prepare_report.json").read_text())
    return content


def written(out: Path) -> list[dict[str, str]]:
    with (out / "ears" / "index.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_canonical_ears_are_written_with_their_sides_and_their_contract(crops: Path, tmp_path: Path) -> None:
    assert prepare(crops, tmp_path, "--index", crops / "index.csv", "--size", 96) == 0
    contract = EarContract.canonical(EarLandmarker()).id
    report, sides = report_of(tmp_path), {}
    with (crops / "index.csv").open() as stream:
        sides = {row["file"]: row["side"] for row in csv.DictReader(stream)}
    kept = 0
    for data in both(tmp_path):
        assert data.contract == contract
        assert data.image_paths is not None
        assert data.sides is not None
        assert data.bboxes is None
        kept += len(data)
        assert all(read_image(path).shape == (96, 96, 3) for path in data.image_paths)
    assert kept + len(report["rejected"]) == 20
    assert kept >= 17
    lines = written(tmp_path)
    agree = [line["side"] == sides[line["source"]] for line in lines]
    assert np.mean(agree) > 0.9
    assert contract_of_folder(tmp_path / "ears" / lines[0]["subject"]) == contract
    for name in ("kept.png", "histograms.png"):
        assert read_image(tmp_path / name).std() > 5


def test_what_is_written_is_what_the_aligner_makes_of_each_picture(crops: Path, tmp_path: Path) -> None:
    assert prepare(crops, tmp_path, "--size", 64) == 0
    aligner = EarAligner("canonical", EarLandmarker())
    for line in written(tmp_path)[:5]:
        picture = read_image(crops / line["source"])
        located = aligner.locate(picture)
        found = read_image(tmp_path / "ears" / line["file"])
        np.testing.assert_array_equal(found, aligner.image(picture, located, 64))
        assert located.fit is not None
        assert float(line["residual"]) == pytest.approx(located.fit.residual, abs=1e-3)


def test_the_split_does_not_depend_on_the_form(crops: Path, tmp_path: Path) -> None:
    subjects = []
    for fit in ("canonical", "letterbox", "stretch"):
        assert prepare(crops, tmp_path / fit, "--fit", fit) == 0
        subjects.append([set(data.subjects or ()) for data in both(tmp_path / fit)])
    assert subjects[0] == subjects[1] == subjects[2]
    stretch, letterbox = both(tmp_path / "stretch")[0], both(tmp_path / "letterbox")[0]
    assert (stretch.contract, letterbox.contract) == ("", "letterbox")
    assert stretch.image_paths is not None
    assert stretch.image_paths[0].is_relative_to(crops)
    assert not (tmp_path / "stretch" / "ears").exists()


def known_errors(out: Path, annotations: Annotations, photographs: Path) -> list[float]:
    """Of each prepared ear: the median distance of its known landmarks from the template, pixels of RESIDUAL_SIDE."""
    aligner = EarAligner("canonical", EarLandmarker())
    of_photograph = {each.path.name: each for each in annotations.photographs}
    template = mean_ear(17) * [8 / 5, 1] * RESIDUAL_SIDE + RESIDUAL_SIDE / 2 - 0.5
    errors = []
    for line in written(out):
        known = of_photograph[Path(line["source"]).name]
        box = np.array([float(line[key]) for key in "xywh"], np.float32)
        ear = int(np.abs(known.boxes - box).sum(axis=1).argmin())
        picture = read_image(photographs / line["source"])
        placement = aligner.placement(picture, aligner.locate(picture, box), RESIDUAL_SIDE)
        labelled = known.keypoints[ear][:, 2] > 0
        points = placement.points(known.keypoints[ear])[:, :2]
        errors.append(float(np.median(np.linalg.norm(points - template, axis=1)[labelled])))
    return errors


def test_from_photographs_with_boxes_to_canonical_ears(tmp_path: Path) -> None:
    """Synthetic scenes, whose landmarks are known: they come to lie near the template."""
    write_scene_set(tmp_path / "scenes", SceneSet(40, 480, 360, seed=8))
    annotations = read_coco(tmp_path / "scenes" / "annotations.json")
    rows = []
    for number, photograph in enumerate(annotations.photographs):
        for box in photograph.boxes:
            if box[3] >= 60:
                name = photograph.path.relative_to(tmp_path / "scenes").as_posix()
                rows.append([name, f"p{number}", *box.tolist()])
    assert len(rows) >= 6
    with (tmp_path / "index.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "subject", "x", "y", "width", "height"], *rows])
    assert prepare(tmp_path / "scenes", tmp_path / "out", "--index", tmp_path / "index.csv", "--val-fraction", 0.3) == 0
    errors = known_errors(tmp_path / "out", annotations, tmp_path / "scenes")
    assert len(errors) >= 0.5 * len(rows)
    assert np.median(errors) < 10


def test_a_detector_finds_the_ears_of_photographs(crops: Path, tmp_path: Path) -> None:
    """Crops set into photographs at a place that a network of constants knows, and one beside it."""
    detector = write_fixed_boxes(tmp_path / "boxes.onnx", [[16, 8, 32, 40]], [0.8])
    folder = tmp_path / "photographs"
    for number, path in enumerate(list_images(crops)[:8]):
        photograph = np.full((400, 400, 3), 128, np.uint8)
        photograph[50:250, 100:200] = np.asarray(Image.open(path).convert("RGB").resize((100, 200)))
        write_image(folder / f"person{number // 2}" / f"{number}.png", photograph)
    assert prepare(folder, tmp_path / "out", "--detector", detector, "--val-fraction", 0.3) == 0
    lines = written(tmp_path / "out")
    assert len(lines) >= 6
    for line in lines:
        assert [float(line[key]) for key in "xywh"] == pytest.approx([100, 50, 100, 200], abs=0.1)
    low = tmp_path / "low"
    assert prepare(folder, low, "--detector", detector, "--min-score", 0.9) == 2


def test_rejects_are_listed_drawn_and_left_out(crops: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for path in list_images(crops):
        write_image(folder / path.relative_to(crops), read_image(path))
    rng = np.random.default_rng(0)
    write_image(folder / "S0001" / "noise.png", rng.integers(0, 256, (90, 60, 3), dtype=np.uint8))
    write_image(folder / "S0002" / "small.png", rng.integers(0, 256, (15, 9, 3), dtype=np.uint8))
    assert prepare(folder, tmp_path / "out") == 0
    rejected = {each["name"]: each["kind"] for each in report_of(tmp_path / "out")["rejected"]}
    assert rejected["S0001/noise.png"] == "misfit"
    assert rejected["S0002/small.png"] == "too small"
    assert read_image(tmp_path / "out" / "rejected.png").std() > 5
    assert not any("noise" in line["source"] for line in written(tmp_path / "out"))

    assert prepare(folder, tmp_path / "kept", "--misfits", "letterbox") == 0
    assert "S0001/noise.png" in report_of(tmp_path / "kept")["kept_as_letterbox"]
    line = next(line for line in written(tmp_path / "kept") if line["source"] == "S0001/noise.png")
    assert line["misfit"]
    assert line["residual"] == ""


def swapped(crops: Path, path: Path) -> Path:
    text = (crops / "index.csv").read_text().replace(",l\n", ",x\n").replace(",r\n", ",l\n").replace(",x\n", ",r\n")
    path.write_text(text.replace(",l\r\n", ",x\r\n").replace(",r\r\n", ",l\r\n").replace(",x\r\n", ",r\r\n"))
    return path


def test_sides_that_are_all_wrong_are_reported_and_not_overruled(crops: Path, tmp_path: Path, capsys: Any) -> None:
    index = swapped(crops, tmp_path / "index.csv")
    assert prepare(crops, tmp_path / "out", "--index", index) == 0
    assert "are the pictures mirrored?" in " ".join(capsys.readouterr().err.split())
    assert len(report_of(tmp_path / "out")["sides_that_disagree"]) >= 15
    flags = ("--index", index, "--side", "column", "--max-residual", 60)
    assert prepare(crops, tmp_path / "given", *flags) == 0
    given = dict(row.split(",")[::2] for row in index.read_text().split()[1:])
    assert all(line["side"] == given[line["source"]] for line in written(tmp_path / "given"))


def test_an_earlier_preparation_is_replaced_and_other_folders_are_not(crops: Path, tmp_path: Path, capsys: Any) -> None:
    assert prepare(crops, tmp_path, "--size", 64) == 0
    stale = tmp_path / "ears" / "S0001" / "stale.png"
    stale.write_bytes(b"")
    assert prepare(crops, tmp_path) == 2
    capsys.readouterr()
    assert prepare(crops, tmp_path, "--overwrite", "--size", 96) == 0
    assert not stale.exists()
    (tmp_path / "ears" / "ear_contract.json").unlink()
    capsys.readouterr()
    assert prepare(crops, tmp_path, "--overwrite") == 2
    assert "not of an earlier preparation" in only_line(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--landmarker", "NONE.onnx"], "NONE.onnx: no such file"),
        (["--landmarker", "index.csv"], "not an ONNX file"),
        (["--fit", "letterbox", "--landmarker", "index.csv"], "--landmarker belongs to --fit canonical"),
        (["--side", "column"], "--side column: needs --index"),
        (["--detector", "index.csv"], "not an ONNX file"),
        (["--size", "8"], "--size"),
        (["--out", "inside"], "--out inside lies in --images"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(
    flags: list[str], message: str, crops: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(crops)
    assert prepare(crops, tmp_path, *flags) == 2
    assert message in only_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_any_ear_is_one_line(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        picture = rng.integers(0, 256, (90, 60, 3), dtype=np.uint8)
        write_image(tmp_path / "pictures" / f"s{number // 2}" / f"{number}.png", picture)
    assert prepare(tmp_path / "pictures", tmp_path / "out") == 2
    assert "none of 6 pictures can be used" in only_line(capsys)


def test_further_columns_of_the_index_are_carried_over(crops: Path, tmp_path: Path) -> None:
    with (crops / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    given = tmp_path / "index.csv"
    with given.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "whose", "side", "pitch", "misfit", "light, or not"])
        for number, row in enumerate(rows):
            writer.writerow([row["file"], row["subject"], row["side"], number % 3 - 1, "mine", f"é {number}"])
    flags = ("--index", given, "--subject-column", "whose", "--fit", "letterbox")
    assert prepare(crops, tmp_path / "out", *flags) == 0
    with (tmp_path / "out" / "ears" / "index.csv").open(encoding="utf-8") as stream:
        written = {row["source"]: row for row in csv.DictReader(stream)}
    assert len(written) == len(rows)
    assert list(next(iter(written.values())))[-2:] == ["pitch", "light, or not"]
    for number, row in enumerate(rows):
        found = written[row["file"]]
        assert (found["pitch"], found["light, or not"]) == (str(number % 3 - 1), f"é {number}")
        assert found["misfit"] == ""  # the preparation's own
        assert "whose" not in found
        assert found["subject"] == row["subject"]
