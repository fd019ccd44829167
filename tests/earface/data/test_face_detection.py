"""YuNet's faces: which one is taken, how steady its points are, and files that are not YuNet's.

Each property holds for a detector of coloured marks in YuNet's layout, and for YuNet on photographs of people where the
folder `shared` stands beside the repository.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from earface.core.downloads import check_sha256
from earface.core.errors import InputError
from earface.data.face_alignment import Points
from earface.data.face_detection import DetectedFace, FaceDetector, subject_face
from earface.data.folders import list_images
from earface.data.images import Pixels, read_ahead, read_image
from tests.support.shared_files import PHOTOGRAPHS, YUNET, needs
from tests.support.yunet import photograph, write_yunet

SOURCES = ["marks", pytest.param("people", marks=needs(YUNET, PHOTOGRAPHS))]
FACES = [(75.0 + 3 * number, 90.0 - 4 * number, 70.0 + 2 * number, 3.0 * number - 10) for number in range(8)]


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> FaceDetector:
    return FaceDetector(write_yunet(tmp_path_factory.mktemp("yunet") / "marks.onnx"))


@pytest.fixture(scope="module", params=SOURCES)
def source(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def detector(source: str, marks: FaceDetector) -> FaceDetector:
    return marks if source == "marks" else FaceDetector(YUNET)


@pytest.fixture(scope="module")
def photographs(source: str) -> list[Pixels]:
    """Eight of 250x250, of a face each."""
    if source == "marks":
        return [photograph(250, 250, [face], seed)[0] for seed, face in enumerate(FACES)]
    return [read_image(path) for path in list_images(PHOTOGRAPHS)[::11]]


def face(x: float, y: float, side: float) -> DetectedFace:
    return DetectedFace(np.array([x, y, side, side]), np.zeros((5, 2)), 0.9)


def points_of(detector: FaceDetector, picture: Pixels) -> Points:
    height, width = picture.shape[:2]
    return detector.refined(picture, subject_face(detector(picture), (width, height))).points


def test_the_subject_is_the_large_face_near_the_middle() -> None:
    middle, larger_aside, far = face(80, 80, 80), face(0, 60, 90), face(150, 150, 90)
    assert subject_face([larger_aside, middle, far], (240, 240)) is middle
    assert subject_face([face(110, 110, 20), larger_aside], (240, 240)) is larger_aside
    assert subject_face([far], (240, 240)) is far
    portrait, passer_by = face(1200, 300, 600), face(1400, 1900, 100)
    assert subject_face([passer_by, portrait], (3000, 4000)) is portrait


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not YuNet's ONNX file"),
        (b"garbage" * 99, "not YuNet's ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:8f23\nsize 232589\n", "a Git LFS pointer"),
        (None, "No such file"),
    ],
)
def test_another_file_is_refused_without_output_from_opencv(
    tmp_path: Path, content: bytes | None, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "yunet.onnx").write_bytes(content)
    with pytest.raises(InputError, match=expected):
        FaceDetector(tmp_path / "yunet.onnx")
    assert capfd.readouterr().err == ""


def test_a_damaged_download_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    check_sha256(tmp_path / "file", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(InputError, match="its SHA-256 is ba7816bf8f01cfea"):
        check_sha256(tmp_path / "file", "0" * 64)


@pytest.mark.runs
def test_without_network_the_detector_is_asked_for_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    command = [
        sys.executable,
        "-m",
        "data.prepare_faces",
        "--images",
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "o"),
    ]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    shown = subprocess.run(command, capture_output=True, text=True, env=offline)
    assert shown.returncode == 2
    assert shown.stderr.count("\n") == 1
    assert "face_detection_yunet_2023mar.onnx" in shown.stderr
    assert "name it by --detector" in shown.stderr
    assert not (tmp_path / "o").exists()


def test_pictures_without_a_face_have_none(detector: FaceDetector) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 900), (40, 40), (300, 200)):
        assert detector(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) == []


def test_points_are_in_the_order_of_the_template(detector: FaceDetector, photographs: list[Pixels]) -> None:
    for picture in photographs:
        left_eye, right_eye, nose, left_mouth, right_mouth = points_of(detector, picture)
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_points_hardly_depend_on_size_or_mirroring(detector: FaceDetector, photographs: list[Pixels]) -> None:
    """Of 250 pixels; one look alone moves by 2 to 4."""
    for picture in photographs:
        points = points_of(detector, picture)
        doubled = cv2.resize(picture, (500, 500), interpolation=cv2.INTER_CUBIC)
        assert np.sqrt(np.square((points_of(detector, doubled) + 0.5) / 2 - 0.5 - points).mean()) < 1.5  # type: ignore[arg-type]
        mirrored = points_of(detector, np.ascontiguousarray(picture[:, ::-1]))[[1, 0, 2, 4, 3]]
        assert np.sqrt(np.square(mirrored * [-1, 1] + [249, 0] - points).mean()) < 1.5


def test_faces_are_found_in_large_photographs(detector: FaceDetector, photographs: list[Pixels]) -> None:
    small_in_large = np.full((1500, 2000, 3), 90, np.uint8)
    small_in_large[600:850, 900:1150] = photographs[0]
    offset = points_of(detector, small_in_large) - points_of(detector, photographs[0])
    np.testing.assert_allclose(offset.mean(0), [900, 600], atol=2)
    filling = np.asarray(cv2.resize(photographs[0], (2500, 2500), interpolation=cv2.INTER_CUBIC), np.uint8)
    offset = points_of(detector, filling) / 10 - points_of(detector, photographs[0])
    assert np.abs(offset).max() < 4
    (found,) = detector(filling)
    (shrunk,) = detector(np.asarray(cv2.resize(filling, (640, 640), interpolation=cv2.INTER_AREA), np.uint8))
    np.testing.assert_allclose(found.points + 0.5, (shrunk.points + 0.5) * 2500 / 640)
    np.testing.assert_allclose(found.box, shrunk.box * 2500 / 640)


def test_threads_share_a_detector(detector: FaceDetector, photographs: list[Pixels]) -> None:
    alone = [points_of(detector, picture) for picture in photographs]
    threaded = read_ahead(lambda picture: points_of(detector, picture), photographs, threads=4)
    np.testing.assert_array_equal(list(threaded), alone)


# Where the faces are is known


def test_points_and_boxes_are_where_the_marks_are(marks: FaceDetector) -> None:
    """In any place, size and turn; nearer once they are averaged over four larger looks."""
    for seed, drawn in enumerate(FACES):
        picture, (wanted,) = photograph(250, 250, [drawn], seed)
        (found,) = marks(picture)
        np.testing.assert_allclose(found.points, wanted, rtol=0, atol=2.5)
        np.testing.assert_allclose(marks.refined(picture, found).points, wanted, rtol=0, atol=0.6)
        np.testing.assert_allclose(found.box[:2] + found.box[2:] / 2, wanted[[0, 1, 3, 4]].mean(0) + 0.5, atol=1)
        np.testing.assert_allclose(found.side, 2.5 * (wanted[1] - wanted[0])[0], atol=2.5)
        assert 0.7 < found.score <= 1


def test_a_face_too_small_at_640_pixels_is_found_at_1280(marks: FaceDetector) -> None:
    picture, (wanted,) = photograph(1280, 960, [(700.0, 300.0, 40.0)])
    (found,) = marks(picture)
    np.testing.assert_allclose(found.points, wanted, rtol=0, atol=2.5)
    assert marks(cv2.resize(picture, (640, 480), interpolation=cv2.INTER_AREA)) == []  # type: ignore[arg-type]


def test_every_face_from_the_lowest_score_on_is_found(marks: FaceDetector) -> None:
    places = [(60.0, 60.0, 90.0), (330.0, 40.0, 120.0), (180.0, 330.0, 60.0)]
    picture, wanted = photograph(500, 480, places)
    found = sorted(marks(picture), key=lambda each: each.box[0] + each.box[2] / 2)
    assert len(found) == 3
    for each, points in zip(found, [wanted[0], wanted[2], wanted[1]], strict=True):
        np.testing.assert_allclose(each.points, points, rtol=0, atol=1.2)
    for left_out, score in enumerate(sorted(each.score for each in found)):
        assert len(FaceDetector(marks.path, score - 1e-4)(picture)) == 3 - left_out


def test_where_no_look_shows_a_face_its_points_stay(marks: FaceDetector) -> None:
    picture, _ = photograph(250, 250, [FACES[0]])
    found = subject_face(marks(picture), (250, 250))
    nowhere = dataclasses.replace(found, box=np.array([0.0, 0.0, 30.0, 30.0]))
    assert marks.refined(picture, nowhere) is nowhere
