"""YuNet's faces: which one is taken, how steady its points are, and files that are not YuNet's.

What needs its weights or photographs of people runs where the folder `shared` stands beside the repository.
"""

from __future__ import annotations

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
from earface.data.images import Pixels, list_images, read_ahead, read_image

SHARED = Path(__file__).parents[3].parent / "shared"
YUNET = SHARED / "weights" / "face_detection_yunet_2023mar.onnx"
PHOTOGRAPHS = SHARED / "data" / "face_photos_lfw"
needs_yunet = pytest.mark.skipif(not YUNET.is_file() or not PHOTOGRAPHS.is_dir(), reason="no weights and photographs")


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(YUNET)


@pytest.fixture(scope="module")
def photographs() -> list[Pixels]:
    """Eight of 250x250."""
    return [read_image(path) for path in list_images(PHOTOGRAPHS)[::11]]


def face(x: float, y: float, side: float) -> DetectedFace:
    return DetectedFace(np.array([x, y, side, side]), np.zeros((5, 2)), 0.9)


def points_of(detector: FaceDetector, photograph: Pixels) -> Points:
    height, width = photograph.shape[:2]
    return detector.refined(photograph, subject_face(detector(photograph), (width, height))).points


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
def test_another_file_is_refused_without_a_word_from_opencv(
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


@needs_yunet
def test_pictures_without_a_face_have_none(detector: FaceDetector) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 900), (40, 40), (300, 200)):
        assert detector(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) == []


@needs_yunet
def test_points_are_in_the_order_of_the_template(detector: FaceDetector, photographs: list[Pixels]) -> None:
    for photograph in photographs:
        left_eye, right_eye, nose, left_mouth, right_mouth = points_of(detector, photograph)
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@needs_yunet
def test_points_hardly_depend_on_size_or_mirroring(detector: FaceDetector, photographs: list[Pixels]) -> None:
    """Of 250 pixels; one look alone moves by 2 to 4."""
    for photograph in photographs:
        points = points_of(detector, photograph)
        doubled = cv2.resize(photograph, (500, 500), interpolation=cv2.INTER_CUBIC)
        assert np.sqrt(np.square((points_of(detector, doubled) + 0.5) / 2 - 0.5 - points).mean()) < 1.5  # type: ignore[arg-type]
        mirrored = points_of(detector, np.ascontiguousarray(photograph[:, ::-1]))[[1, 0, 2, 4, 3]]
        assert np.sqrt(np.square(mirrored * [-1, 1] + [249, 0] - points).mean()) < 1.5


@needs_yunet
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


@needs_yunet
def test_threads_share_a_detector(detector: FaceDetector, photographs: list[Pixels]) -> None:
    alone = [points_of(detector, photograph) for photograph in photographs]
    threaded = read_ahead(lambda photograph: points_of(detector, photograph), photographs, threads=4)
    np.testing.assert_array_equal(list(threaded), alone)
