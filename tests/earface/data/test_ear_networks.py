"""The networks of an export, run by OpenCV: landmarks of ears that nobody trained on, and boxes of photographs."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from ear_teacher.detector.box_detector import suppress
from earface.core.errors import InputError
from earface.data.ear_networks import EAR_LANDMARKS, EarBoxes, EarLandmarker, box_around, check_picture, remaining
from earface.data.onnx_metadata import read_onnx_metadata
from earface.synthetic.ear_factors import sample_shape, sample_view
from earface.synthetic.ear_rendering import EarPicture, draw_ear
from tests.support.ear_boxes import write_fixed_boxes

SEED = 987  # of ears that the network was not trained on


@cache
def landmarker() -> EarLandmarker:
    return EarLandmarker()


def synthetic_ear(subject: int) -> EarPicture:
    return draw_ear(sample_shape(SEED, subject), sample_view(SEED, subject, 0), 128)


def height(ear: EarPicture) -> float:
    return float(ear.bbox[3])


def test_landmarks_of_unseen_synthetic_ears_are_near_the_known_ones() -> None:
    """Left and right ears, hair, earrings and all; .05 of an ear is 5 of its 100 pixels."""
    errors = []
    for subject in range(40):
        ear = synthetic_ear(subject)
        found = landmarker()(ear.image).points
        errors.append(np.median(np.linalg.norm(found - ear.landmarks, axis=1)) / height(ear))
    assert np.median(errors) < 0.05
    assert np.percentile(errors, 90) < 0.1


def test_an_ear_is_found_where_it_lies_in_a_photograph() -> None:
    ear = synthetic_ear(3)
    photograph = np.full((400, 500, 3), 90, np.uint8)
    photograph[150:278, 230:358] = ear.image
    box = np.array([ear.bbox[0] + 230.5, ear.bbox[1] + 150.5, *ear.bbox[2:]], np.float32)
    found = landmarker()(photograph, box).points - [230, 150]
    assert np.median(np.linalg.norm(found - ear.landmarks, axis=1)) < 0.05 * height(ear)


def test_a_mirrored_ear_has_mirrored_landmarks_to_the_last_bit_but_one() -> None:
    ear = synthetic_ear(5).image
    plain, mirrored = landmarker()(ear), landmarker()(np.ascontiguousarray(ear[:, ::-1]))
    np.testing.assert_allclose(mirrored.points * [-1, 1] + [127, 0], plain.points, atol=0.2)
    assert mirrored.disagreement == pytest.approx(plain.disagreement, abs=0.01)


def test_grey_pictures_have_landmarks_too() -> None:
    ear = synthetic_ear(6).image
    grey = np.round(ear @ [0.299, 0.587, 0.114]).astype(np.uint8)[..., None]
    wanted = landmarker()(np.repeat(grey, 3, axis=2)).points
    np.testing.assert_array_equal(landmarker()(grey).points, wanted)


def test_opencv_computes_what_onnxruntime_computes() -> None:
    given = (synthetic_ear(1).image.transpose(2, 0, 1)[None].astype(np.float32)) / np.float32(127.5) - 1
    session = onnxruntime.InferenceSession(str(EAR_LANDMARKS), providers=["CPUExecutionProvider"])
    points, visibility = session.run(None, {session.get_inputs()[0].name: given})
    found = landmarker().network(synthetic_ear(1).image)
    np.testing.assert_allclose(found[0], points[0], atol=2e-3)
    np.testing.assert_allclose(found[1], visibility[0], atol=1e-4)


def test_anything_but_an_ear_moves_when_it_is_mirrored() -> None:
    rng = np.random.default_rng(0)
    ears = [landmarker()(synthetic_ear(subject).image).disagreement for subject in range(20)]
    noise = [landmarker()(rng.integers(0, 256, (90, 60, 3), dtype=np.uint8)).disagreement for _ in range(20)]
    assert np.median(noise) > 3 * np.median(ears)


def test_the_box_around_landmarks_is_that_of_the_ear() -> None:
    for subject in range(20):
        ear = synthetic_ear(subject)
        x, y, width, tall = box_around(ear.landmarks)
        middle, own = np.array([x + width / 2, y + tall / 2]), ear.bbox[:2] + ear.bbox[2:] / 2 + 0.5
        assert np.abs(middle - own).max() < 0.12 * height(ear)
        assert tall == pytest.approx(height(ear), rel=0.15)


@pytest.mark.parametrize(("iou", "containment"), [(0.5, 0.8), (0.3, 1.0), (1.0, 0.6)])
def test_overlapping_boxes_are_suppressed_as_the_detector_does(iou: float, containment: float) -> None:
    rng = np.random.default_rng(4)
    low = rng.uniform(0, 60, (120, 2))
    corners = np.concatenate([low, low + rng.uniform(5, 50, (120, 2))], axis=1).astype(np.float32)
    scores = torch.linspace(1, 0, 120)  # best first
    wanted = suppress(torch.from_numpy(corners), scores, iou, containment).tolist()
    found = remaining(corners, iou, containment)
    assert found == wanted
    assert 1 < len(found) < 120


def test_boxes_come_back_in_pixels_of_the_photograph(tmp_path: Path) -> None:
    """A network that always gives two boxes of its square of 64, of which the second scores too little."""
    path = write_fixed_boxes(tmp_path / "boxes.onnx", [[8, 16, 24, 40], [30, 30, 50, 50]], [0.9, 0.3])
    boxes, scores = EarBoxes(path)(np.zeros((360, 480, 3), np.uint8))  # 480 wide: 7.5 pixels to one, 8 rows above
    np.testing.assert_allclose(boxes, [[60, 60, 120, 180]], atol=1e-3)
    np.testing.assert_allclose(scores, [0.9], atol=1e-6)
    both, _ = EarBoxes(path, min_score=0.2)(np.zeros((360, 480, 3), np.uint8))
    assert len(both) == 2


def changed(path: Path, **properties: str | None) -> Path:
    """A copy of the landmarker with other metadata."""
    import onnx

    model = onnx.load(EAR_LANDMARKS)
    about = {entry.key: entry.value for entry in model.metadata_props} | properties
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {name: value for name, value in about.items() if value is not None})
    onnx.save(model, path)
    return path


def test_a_network_that_opencv_computes_otherwise_is_refused(tmp_path: Path) -> None:
    checks = json.loads(read_onnx_metadata(EAR_LANDMARKS).properties["check"])
    checks["landmarks.onnx"][0][0] += 5
    path = changed(tmp_path / "other.onnx", check=json.dumps(checks))
    with pytest.raises(InputError, match="computes this network wrongly"):
        EarLandmarker(path)


@pytest.mark.parametrize(("name", "message"), [("image", "not the landmarks.onnx"), ("check", "export the detector")])
def test_a_network_without_its_metadata_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        EarLandmarker(changed(tmp_path / "other.onnx", **{name: None}))


def test_boxes_are_no_landmarks_and_the_other_way_round(tmp_path: Path) -> None:
    path = write_fixed_boxes(tmp_path / "boxes.onnx", [[8, 16, 24, 40]], [0.9])
    with pytest.raises(InputError, match=r"not the landmarks\.onnx"):
        EarLandmarker(path)
    with pytest.raises(InputError, match=r"not the boxes\.onnx"):
        EarBoxes(EAR_LANDMARKS)


def test_threads_have_networks_of_their_own() -> None:
    from concurrent.futures import ThreadPoolExecutor

    ears = [synthetic_ear(subject).image for subject in range(8)]
    alone = [landmarker()(ear) for ear in ears]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(landmarker(), ears))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.points, other.points, atol=1e-4)


def test_the_check_picture_is_the_same_everywhere() -> None:
    picture: NDArray[np.uint8] = check_picture(64, 3)
    blocks = np.random.default_rng(7).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(picture, np.kron(blocks, np.ones((8, 8, 1), np.uint8)))
    assert check_picture(96, 1).shape == (96, 96, 1)
