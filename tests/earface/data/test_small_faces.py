"""Small faces in photographs: found in the picture enlarged, or else taken by the middle square of a small crop."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from earface.core.notices import DataWarning
from earface.data.aligned_faces import FaceReader, OtherSizes
from earface.data.face_alignment import align_face, face_placement, face_template, share_outside
from earface.data.face_detection import ENLARGED_LOOKS, FaceDetector, subject_face
from earface.data.face_inspection import NO_FACE, TOO_SMALL, FaceFinder
from earface.data.face_sizes import VLRRange, VLRSize
from earface.data.folders import list_images
from earface.data.images import Pixels, read_image, write_image
from tests.support.shared_files import PHOTOGRAPHS, YUNET, needs
from tests.support.yunet import photograph, write_yunet


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> FaceDetector:
    return FaceDetector(write_yunet(tmp_path_factory.mktemp("yunet") / "marks.onnx"))


@pytest.fixture(scope="module", params=["marks", pytest.param("people", marks=needs(YUNET, PHOTOGRAPHS))])
def seen(request: pytest.FixtureRequest, marks: FaceDetector) -> tuple[FaceDetector, list[Pixels]]:
    """A detector, and photographs of 250x250 of a face each that it finds."""
    if request.param == "people":
        return FaceDetector(YUNET), [read_image(path) for path in list_images(PHOTOGRAPHS)[::18]]
    return marks, [photograph(250, 250, [(75.0, 90.0, 70.0 + 9 * seed)], seed)[0] for seed in range(4)]


def faceless(width: int, height: int) -> Pixels:
    return photograph(width, height)[0]


@pytest.mark.parametrize(
    ("width", "height", "face"),
    [(60, 48, (15.0, 12.0, 24.0)), (150, 90, (100.0, 30.0, 26.0)), (640, 480, (500.0, 300.0, 24.0))],
)
def test_a_face_too_small_is_found_enlarged_and_aligned_in_the_pictures_own_pixels(
    marks: FaceDetector, width: int, height: int, face: tuple[float, float, float]
) -> None:
    picture, (wanted,) = photograph(width, height, [face])
    assert FaceFinder(marks)(picture)[0] == NO_FACE
    (found,) = marks.enlarged(picture)
    np.testing.assert_allclose(found.points, wanted, rtol=0, atol=1.3)
    aligned, known = FaceFinder(marks, enlarging=True)(picture)
    assert isinstance(known, dict)
    assert known["found"] == "enlarged"
    assert known["enlargement"] == pytest.approx(128 / face[2], rel=0.06)
    assert np.abs(np.asarray(aligned, int) - align_face(picture, wanted)).mean() < 6
    (seen,) = marks(np.asarray(aligned))
    np.testing.assert_allclose(seen.points, face_template() - 0.5, rtol=0, atol=4)


def test_a_face_that_is_found_without_has_the_same_bits(seen: tuple[FaceDetector, list[Pixels]]) -> None:
    detector, photographs = seen
    for picture in photographs:
        face, known = FaceFinder(detector)(picture)
        again, same = FaceFinder(detector, enlarging=True, centred_crops=True)(picture)
        np.testing.assert_array_equal(again, face)
        assert same == known
        assert isinstance(known, dict)
        assert known["found"] == "detected"


@needs(YUNET, PHOTOGRAPHS)
@pytest.mark.parametrize("side", [10, 16])
def test_faces_of_people_are_aligned_as_in_the_large_photograph(side: int) -> None:
    """Their five points to half a pixel in the median."""
    detector, away = FaceDetector(YUNET), []
    for path in list_images(PHOTOGRAPHS)[::9]:
        picture = read_image(path)
        wanted = detector.refined(picture, subject_face(detector(picture), (250, 250))).points
        size = round(250 * side / 130)  # LFW's faces are about 130 pixels wide
        small = np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
        aligned, known = FaceFinder(detector, min_face=5, enlarging=True)(small)
        assert isinstance(known, dict), known
        found = subject_face(detector(small) or detector.enlarged(small), (size, size))
        found = detector.refined(small, found, ENLARGED_LOOKS)
        away.append(np.linalg.norm(found.points - ((wanted + 0.5) * size / 250 - 0.5), axis=1).mean())
        assert np.asarray(aligned).shape == (128, 128, 3)
    assert np.median(away) < 0.5


@pytest.mark.parametrize("middle", [(60, 60), (10, 60), (95, 110), (0, 0), (-200, 60)])
def test_what_lies_beyond_the_photograph_is_what_is_grey_in_the_aligned_face(middle: tuple[int, int]) -> None:
    white = np.full((120, 100, 3), 255, np.uint8)
    turned = np.array([[0.5, -0.1], [0.1, 0.5]])
    points = (face_template() - 64) @ turned + middle
    grey = (align_face(white, points)[..., 0] < 200).mean()
    assert share_outside(face_placement(points, (100, 120))) == pytest.approx(grey, abs=0.02)


def test_faces_that_are_cut_are_warned_of(marks: FaceDetector, tmp_path: Path) -> None:
    picture, _ = photograph(120, 96, [(40.0, 30.0, 40.0)])
    write_image(tmp_path / "whole.png", picture)
    write_image(tmp_path / "cut.png", picture[:, 50:])
    reader = FaceReader(FaceFinder(marks, 6))
    for name in ("whole.png", "cut.png"):
        reader(tmp_path / name)
    assert reader.cut == {tmp_path / "cut.png": pytest.approx(10 / 40, abs=0.02)}
    with pytest.warns(DataWarning, match=r"1 of 2 faces are cut by the border of the photograph \(such as .*cut\.png"):
        reader.warn(2)


@pytest.mark.parametrize("detector", ["marks", pytest.param("YuNet", marks=needs(YUNET))])
def test_a_small_picture_without_a_face_is_a_crop_of_one(detector: str, marks: FaceDetector) -> None:
    """Of 8 to 64 pixels, no longer than 1.5 times its breadth: its middle square, pixel by pixel."""
    finder = FaceFinder(marks if detector == "marks" else FaceDetector(YUNET), 6, enlarging=True, centred_crops=True)
    for width, height, left, top in ((20, 20, 0, 0), (8, 8, 0, 0), (64, 64, 0, 0), (30, 20, 5, 0), (43, 64, 0, 10)):
        picture = faceless(width, height)
        face, known = finder(picture)
        side = min(width, height)
        np.testing.assert_array_equal(face, picture[top : top + side, left : left + side])
        assert known == {"found": "centred"}
    for width, height in ((7, 7), (65, 65), (31, 20), (42, 64), (300, 200)):
        assert finder(faceless(width, height))[0] == NO_FACE
    assert FaceFinder(finder.detector, 6, enlarging=True)(faceless(20, 20))[0] == NO_FACE
    assert FaceFinder(finder.detector, 20, centred_crops=True)(faceless(19, 25))[0] == NO_FACE


def test_a_face_under_the_least_size_is_refused_and_no_crop_is_made_of_it(marks: FaceDetector) -> None:
    picture, _ = photograph(60, 48, [(15.0, 12.0, 24.0)])
    kind, reason = FaceFinder(marks, 30, enlarging=True, centred_crops=True)(picture)
    assert kind == TOO_SMALL
    assert "pixels wide or high, under 30" in str(reason)


def test_preparing_faces_goes_on_from_the_journals_that_it_has(marks: FaceDetector) -> None:
    """They begin with these settings: any other would find all faces again."""
    settings = {"detector": marks.digest, "min_score": 0.7, "min_face": 64, "reject_several": False}
    assert FaceFinder(marks, 64).settings() == settings


@pytest.mark.filterwarnings("error")
def test_faces_of_a_size_that_is_not_taken_are_counted(recwarn: pytest.WarningsRecorder) -> None:
    sizes = OtherSizes()
    for name, side in (("a", 14), ("b", 32), ("c", 33), ("d", 200), ("e", 8)):
        sizes.look(name, VLRSize(side, side), VLRRange(14, 32))
    assert (sizes.larger, sizes.smaller) == ({"c": "33x33", "d": "200x200"}, {"e": "8x8"})
    exact = OtherSizes()
    for name, size in (("fits", (14, 16)), ("wide", (16, 16)), ("small", (7, 8))):
        exact.look(name, VLRSize(*size), VLRSize(14, 16))
    assert (exact.larger, exact.smaller) == ({"wide": "16x16"}, {"small": "7x8"})
    OtherSizes().warn(3, VLRSize(14, 16), "")
    assert not recwarn.list
