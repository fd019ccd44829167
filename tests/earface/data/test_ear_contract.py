"""The ear contract: what its id depends on, and ears brought into their form."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from earface.core.errors import InputError
from earface.data import ear_contract
from earface.data.ear_alignment import RESIDUAL_SIDE, mean_ear
from earface.data.ear_contract import EarAligner, EarContract, letterboxed, share_inside
from earface.data.ear_networks import EarLandmarker, EarLandmarks
from earface.data.images import Pixels, resize_image
from earface.synthetic.ear_factors import EarShape, EarView, sample_shape, sample_view
from earface.synthetic.ear_rendering import EarPicture, draw_ear

SEED = 986


@cache
def aligner() -> EarAligner:
    return EarAligner("canonical", EarLandmarker())


@cache
def ear(subject: int, side: str = "l") -> EarPicture:
    view = sample_view(SEED, subject, 0)
    values = {name: getattr(view, name) for name in ("rotation", "light_azimuth", "light_elevation", "hair_cover")}
    return draw_ear(sample_shape(SEED, subject), EarView(side=side, **{**values, "hair_cover": 0.1}), 128)


def test_an_id_is_read_back() -> None:
    for contract in (EarContract(), EarContract("letterbox"), aligner().contract):
        assert EarContract.parse(contract.id) == contract
    assert EarContract.parse("").fit == "stretch"  # pictures from before there was a contract


def test_the_id_says_which_landmarks_and_which_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    own = aligner().contract
    before = own.id
    assert before.startswith(f"canonical:17-{EarLandmarker().digest[:12]}-shape-")
    monkeypatch.setattr(ear_contract, "EAR_HEIGHT", 0.8)
    assert own.id != before
    with pytest.raises(InputError, match="not of this version"):
        EarContract.parse(before)


@pytest.mark.parametrize("written", ["canonical", "canonical:", "square", "stretch:17-abc", "canonical:17-abc-shape-1"])
def test_other_ids_are_refused(written: str) -> None:
    with pytest.raises(InputError, match="not of this version"):
        EarContract.parse(written)


@pytest.mark.parametrize("subject", range(6))
def test_canonical_landmarks_lie_at_the_mean_shape(subject: int) -> None:
    """The known landmarks of a synthetic ear, through the placement: within a few pixels of the template."""
    picture = ear(subject)
    located = aligner().locate(picture.image)
    assert located.problem == ""
    assert located.fit is not None
    points = aligner().placement(picture.image, located, RESIDUAL_SIDE).points(picture.landmarks)
    template = mean_ear(17) * [8 / 5, 1] * RESIDUAL_SIDE + RESIDUAL_SIDE / 2 - 0.5
    assert np.median(np.linalg.norm(points - template, axis=1)) < 9
    back = aligner().placement(picture.image, located, RESIDUAL_SIDE).points_back(points.astype(np.float32))
    np.testing.assert_allclose(back, picture.landmarks, atol=1e-3)


@pytest.mark.parametrize("subject", range(4))
def test_both_sides_come_out_as_right_ears(subject: int) -> None:
    picture = ear(subject).image
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    left, right = (aligner().locate(each) for each in (picture, mirrored))
    assert left.fit is not None
    assert right.fit is not None
    assert {left.fit.side, right.fit.side} == {"l", "r"}
    crops = [aligner().image(each, at, 96).astype(int) for each, at in ((picture, left), (mirrored, right))]
    assert np.abs(crops[0] - crops[1]).mean() < 2


def test_a_turned_and_enlarged_ear_has_nearly_the_same_form() -> None:
    picture = ear(1).image
    turn = cv2.getRotationMatrix2D((63.5, 63.5), 20, 1.0)
    turned = np.asarray(cv2.warpAffine(picture, turn, (128, 128), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    large = np.asarray(cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), np.uint8)
    plain, *others = (
        aligner().image(each, aligner().locate(each), 96).astype(float) for each in (picture, turned, large)
    )
    middle = np.s_[10:-10, 10:-10]
    for other in others:
        assert np.corrcoef(plain[middle].ravel(), other[middle].ravel())[0, 1] > 0.9


def test_letterbox_and_stretch_are_those_of_the_whole_box() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (80, 50, 3), dtype=np.uint8)
    box = np.array([10, 20, 20, 40], np.float32)
    part = picture[20:60, 10:30]
    stretch, letterbox = EarAligner("stretch"), EarAligner("letterbox")
    np.testing.assert_array_equal(stretch.image(picture, stretch.locate(picture, box), 64), resize_image(part, 64))
    boxed = letterbox.image(picture, letterbox.locate(picture, box), 64)
    np.testing.assert_array_equal(boxed[:, 16:48], cv2.resize(part, (32, 64), interpolation=cv2.INTER_CUBIC))
    assert (boxed[:, :16] == 114).all()


def grey(value: int, height: int = 100, width: int = 70) -> Pixels:
    return np.full((height, width, 3), value, np.uint8)


def test_what_is_no_ear_has_a_problem() -> None:
    rng = np.random.default_rng(1)
    others = [grey(0), grey(128), rng.integers(0, 256, (90, 60, 3), dtype=np.uint8)]
    checks = np.kron(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
    assert all(aligner().locate(picture).problem for picture in [*others, checks])


def test_an_ear_half_outside_its_picture_has_a_problem() -> None:
    fit = aligner().locate(ear(2).image).fit
    assert fit is not None
    assert share_inside(ear(2).image, fit) == 1
    half = np.ascontiguousarray(ear(2).image[:, :64])
    assert share_inside(half, fit) < 0.8


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((17, 2), 7.0), "all fall on one pixel"),
        (np.full((17, 2), np.nan), "not finite"),
        (np.random.default_rng(3).uniform(0, 100, (17, 2)), "form no ear"),
        (mean_ear(17) * 100 + [160, 50], "outside the picture"),
    ],
)
def test_bad_landmarks_are_a_problem(points: np.ndarray, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = EarAligner("canonical", EarLandmarker())
    found = EarLandmarks(points.astype(np.float32), np.ones(17, np.float32), 0.0)
    monkeypatch.setattr(own, "landmarker", lambda picture, box: found)
    assert message in own.locate(grey(90)).problem


def test_a_given_side_is_kept_and_its_contradiction_seen() -> None:
    picture = ear(3).image
    free = aligner().locate(picture).fit
    assert free is not None
    assert free.confidence > 0.3
    other = "r" if free.side == "l" else "l"
    forced = aligner().locate(picture, side=other).fit  # type: ignore[arg-type]
    assert forced is not None
    assert forced.side == other
    assert forced.confidence == pytest.approx(-free.confidence)


def test_a_misfit_is_letterboxed_when_it_is_kept() -> None:
    picture = grey(200, 90, 30)
    located = letterboxed(aligner().locate(picture))
    assert located.problem == ""
    boxed = aligner().image(picture, located, 90)
    assert (boxed[:, 30:60] == 200).all()
    assert (boxed[:, :29] == 114).all()


def test_shapes_vary_and_views_do_not_matter() -> None:
    """One person's ear in other light and pose keeps its form better than another person's."""
    shapes = [EarShape(aspect=0.55, lobe_length=-0.8), EarShape(aspect=0.7, lobe_length=0.8)]
    views = [EarView(), EarView(rotation=20.0, scale=0.7, side="r")]
    crops = []
    for shape in shapes:
        pictures = [draw_ear(shape, view, 128).image for view in views]
        crops.append([aligner().image(each, aligner().locate(each), 64).astype(float) for each in pictures])
    same = np.mean([np.abs(first - second).mean() for first, second in crops])
    other = np.abs(crops[0][0] - crops[1][0]).mean()
    assert same < other
