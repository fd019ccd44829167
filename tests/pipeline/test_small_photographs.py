"""Photographs of small faces and crops without landmarks, through `identify`, `enroll` and `dsr upscale`."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dsr import DSR, DSRConfig
from dsr.upscale import main as upscale
from earface.data.face_alignment import face_template
from earface.data.images import Pixels, read_image
from earface.synthetic.face_set import FaceSet, synthesize_faces
from pipeline.enroll import main as enroll
from pipeline.identify import main as identify
from tests.conftest import only_line
from tests.support.yunet import draw_marks, photograph, write_yunet

pytestmark = pytest.mark.runs

NAMES = ("al", "bo", "cy")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_yunet(tmp_path_factory.mktemp("yunet") / "marks.onnx")


@pytest.fixture(scope="module")
def faces() -> dict[str, Pixels]:
    """Of 128x128, synthetic, with the marks that the detector finds."""
    made = synthesize_faces(FaceSet(len(NAMES), 1, 128, seed=3))[0]
    for face in made:
        draw_marks(face, face_template() - 0.5, 128)
    return dict(zip(NAMES, made, strict=True))


@pytest.fixture(scope="module")
def gallery(faces: dict[str, Pixels], edgeface: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for name, face in faces.items():
        (folder / "people" / name).mkdir(parents=True)
        Image.fromarray(face).save(folder / "people" / name / "0.png")
    given = ["--input", str(folder / "people"), "--aligned", "--recognizer", str(edgeface), "--device", "cpu"]
    assert enroll([*given, "--out", str(folder / "g.npz")]) == 0
    return folder / "g.npz"


@pytest.fixture(scope="module")
def pictures(faces: dict[str, Pixels], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind."""
    folder = tmp_path_factory.mktemp("pictures")
    large = np.full((250, 300, 3), 128, np.uint8)
    large[60:188, 80:208] = faces["al"]
    cut = large[:, 86:300]  # through the cheek
    small = cv2.resize(large, (60, 50), interpolation=cv2.INTER_AREA)
    grey = (np.arange(400, dtype=np.uint16).reshape(20, 20) * 100) + 10_000
    for name, picture in {
        "large": large,
        "cut": cut,
        "small": small,
        "crop": photograph(20, 20)[0],
        "wall": photograph(70, 66)[0],
        "tall": photograph(20, 40)[0],
        "tiny": photograph(8, 8)[0],
    }.items():
        Image.fromarray(np.asarray(picture, np.uint8)).save(folder / f"{name}.png")
    cv2.imwrite(str(folder / "sixteen.png"), grey)
    Image.fromarray(large).convert("L").resize((40, 40)).save(folder / "grey.png")
    return folder


def search(given: Path, gallery: Path, detector: Path, out: Path, *extra: str) -> int:
    word = [] if "--track" in extra else ["--input", str(given)]
    shared = ["--gallery", str(gallery), "--detector", str(detector), "--out", str(out), "--device", "cpu"]
    return identify([*word, *shared, *extra])


def found_in(out: Path) -> dict[str, tuple[str, str]]:
    """How, and of which size, by the picture's name."""
    with (out / "candidates.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["rank"] == "1"]
    return {Path(row["file"]).stem: (row["found"], row["size"]) for row in rows}


def saved_dsr(folder: Path, size: str) -> Path:
    torch.manual_seed(0)
    DSR(DSRConfig(8, 1, size)).save_pretrained(folder)
    return folder


def test_every_picture_says_how_its_face_was_found(
    pictures: Path, gallery: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Crops are warned of in one line, and what cannot be used is listed with the reason."""
    assert search(pictures, gallery, detector, tmp_path, "--pictures", "9") == 0
    said = capsys.readouterr()
    assert found_in(tmp_path) == {
        "large": ("detected", "128"),
        "cut": ("detected", "128"),
        "small": ("enlarged", found_in(tmp_path)["small"][1]),
        "crop": ("centred", "20"),
        "tiny": ("centred", "8"),
        "sixteen": ("centred", "20"),
        "grey": ("centred", "40"),
    }
    assert float(found_in(tmp_path)["small"][1]) == pytest.approx(25.6, abs=2)
    assert "2 of 9 pictures cannot be used and are left out:" in said.out
    assert "wall.png: no face with a score of 0.7 or more" in said.out
    assert "tall.png: no face with a score of 0.7 or more" in said.out
    assert said.err.count("in 4 of 9 pictures no face is found") == 1
    assert "or give --no-centred-crops" in said.err
    assert read_image(tmp_path / "candidates.png").any()


def test_crops_are_left_out_where_they_are_not_wanted(
    pictures: Path, gallery: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(pictures, gallery, detector, tmp_path, "--no-pictures", "--no-centred-crops") == 0
    assert found_in(tmp_path).keys() == {"large", "cut", "small"}
    assert "crops of faces" not in capsys.readouterr().err
    assert search(pictures / "crop.png", gallery, detector, tmp_path / "one", "--no-centred-crops") == 2
    assert "crop.png: no face with a score of 0.7 or more" in only_line(capsys)


def test_a_crop_scores_as_the_aligned_face_that_it_is_taken_for(
    pictures: Path, gallery: Path, detector: Path, tmp_path: Path
) -> None:
    given = [pictures / "crop.png", gallery, detector]
    for upsampler in ("none", "bicubic"):
        shared = ["--no-pictures", "--upsampler", upsampler]
        assert search(*given, tmp_path / upsampler, *shared) == 0
        assert search(*given, tmp_path / f"{upsampler}_aligned", *shared, "--aligned") == 0
        with (
            (tmp_path / upsampler / "candidates.csv").open() as one,
            (tmp_path / f"{upsampler}_aligned" / "candidates.csv").open() as other,
        ):
            rows, same = ([row | {"found": ""} for row in csv.DictReader(stream)] for stream in (one, other))
        assert rows == same


def test_a_gallery_takes_no_face_under_twenty_pixels_and_a_probe_may_have_five(
    gallery: Path, detector: Path, edgeface: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "people" / "al").mkdir(parents=True)
    path = tmp_path / "people" / "al" / "small.png"
    picture, _ = photograph(100, 90, [(30.0, 30.0, 20.0)])  # its box has 14 pixels
    Image.fromarray(picture).save(path)
    given = ["--input", str(tmp_path / "people"), "--recognizer", str(edgeface), "--detector", str(detector)]
    assert enroll([*given, "--out", str(tmp_path / "g.npz")]) == 2
    assert "pixels wide or high, under 20" in only_line(capsys)
    assert enroll([*given, "--out", str(tmp_path / "g.npz"), "--min-face", "10"]) == 0
    assert search(path, gallery, detector, tmp_path / "out", "--no-pictures") == 0
    assert found_in(tmp_path / "out")["small"][0] == "enlarged"


def test_faces_of_other_sizes_than_a_super_resolver_takes_are_counted(
    pictures: Path, gallery: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By their size in the photograph: of seven three are larger than 32 pixels, and one is smaller than 14."""
    dsr = saved_dsr(tmp_path / "dsr", "14-32")
    given = ["--upsampler", "dsr", "--dsr-checkpoint", str(dsr), "--no-pictures"]
    assert search(pictures, gallery, detector, tmp_path / "out", *given) == 0
    said = capsys.readouterr().err
    assert "3 of 7 faces are larger than the super-resolver takes, 14-32 px (such as" in said
    assert "shrunk to it first: --upsampler bicubic or none keeps more of these" in said
    assert "1 of 7 faces are smaller than the super-resolver takes" in said
    assert "tiny.png, 8x8), and are enlarged to it first" in said
    (tmp_path / "aligned").mkdir()
    for size in (8, 20, 200):
        Image.fromarray(photograph(size, size)[0]).save(tmp_path / "aligned" / f"{size}.png")
    assert search(tmp_path / "aligned", gallery, detector, tmp_path / "more", *given, "--aligned") == 0
    said = capsys.readouterr().err
    assert "1 of 3 faces are larger than the super-resolver takes, 14-32 px" in said
    assert "1 of 3 faces are smaller than the super-resolver takes, 14-32 px" in said
    assert set(found_in(tmp_path / "more").values()) == {("", "8"), ("", "20"), ("", "200")}


def test_a_track_of_crops_is_decided_once(
    pictures: Path, gallery: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "track").mkdir()
    for name in ("crop", "small", "wall"):
        shutil.copy(pictures / f"{name}.png", tmp_path / "track")
    given = ["--track", str(tmp_path / "track"), "--no-pictures"]
    assert search(pictures, gallery, detector, tmp_path / "out", *given) == 0
    assert found_in(tmp_path / "out")["track"][0] == "centred and enlarged"
    assert "2 of 3 pictures of the track are used; left out: 1 no face" in capsys.readouterr().out
    (tmp_path / "film.mp4").write_bytes(b"no film")
    assert search(pictures, gallery, detector, tmp_path / "none", "--track", str(tmp_path / "film.mp4")) == 2
    assert "film.mp4" in only_line(capsys)


# dsr upscale


def test_faces_of_photographs_are_found_and_enlarged(
    pictures: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A face each, the reasons for the others, and the crop as it is without `photographs`."""
    shared = ["--checkpoint", str(saved_dsr(tmp_path / "dsr", "14-32")), "--device", "cpu"]
    found = [*shared, "--photographs", "--detector", str(detector)]
    assert upscale([*found, "--input", str(pictures), "--out", str(tmp_path / "out"), "--compare"]) == 0
    said = capsys.readouterr()
    names = {path.stem for path in (tmp_path / "out").iterdir()}
    assert names == {"large", "cut", "small", "crop", "tiny", "sixteen", "grey", "compare"}
    assert "2 of 9 pictures cannot be used and are left out:" in said.out
    assert "wall.png: no face with a score of 0.7 or more" in said.out
    assert "in 4 of 9 pictures no face is found" in said.err
    assert "3 of 7 faces are larger than the super-resolver takes, 14-32 px" in said.err
    assert read_image(tmp_path / "out" / "large.png").shape == (128, 128, 3)
    upscaled = read_image(tmp_path / "out" / "small.png").astype(int)
    assert np.abs(upscaled - read_image(tmp_path / "out" / "large.png")).mean() < 12
    assert upscale([*shared, "--input", str(pictures / "crop.png"), "--out", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "crop.png").read_bytes() == (tmp_path / "out" / "crop.png").read_bytes()


def test_photographs_without_any_face_are_one_line(
    pictures: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--checkpoint", str(saved_dsr(tmp_path / "dsr", "16")), "--out", str(tmp_path / "out"), "--device", "cpu"]
    given = [*shared, "--input", str(pictures / "wall.png")]
    assert upscale([*given, "--photographs", "--detector", str(detector)]) == 2
    assert "wall.png: no face with a score of 0.7 or more" in only_line(capsys)
    assert upscale([*given, "--min-face", "30"]) == 2
    assert "--min-face: of faces that are found in photographs: give --photographs" in only_line(capsys)
    assert not (tmp_path / "out").exists()
