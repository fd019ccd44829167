"""EarDetector: torchvision's form, and what a photograph's result depends on and what not."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms

from ear_teacher.detector.box_detector import CANDIDATES, Suppression
from ear_teacher.detector.model import EarDetector
from earface.core.errors import InputError
from earface.data.affine import letterbox
from earface.data.images import Pixels
from earface.data.pixels import to_model_range

SHAPE: dict[str, Any] = {
    **{"encoder": "conv", "base_channels": 4, "pyramid_width": 16},
    **{"image_size": 96, "crop_size": 32, "num_landmarks": 3},
}
SIZES = [(64, 48), (300, 200), (48, 150), (96, 96), (20, 20), (640, 481)]


def detector(**shape: Any) -> EarDetector:
    """Of random weights, with scores that differ."""
    torch.manual_seed(0)
    model = EarDetector(**{**SHAPE, **shape}).eval()
    nn.init.normal_(model.boxes.score.weight)
    nn.init.constant_(model.boxes.score.bias, -1.0)  # type: ignore[arg-type]
    if model.landmarks is not None:
        nn.init.normal_(model.landmarks.heat.weight)
        nn.init.normal_(model.landmarks.visibility)
        nn.init.zeros_(model.landmarks.visibility_bias)
    return model


def photograph(number: int, channels: int = 3) -> Pixels:
    """Coarse random colours: a detector of random weights sees something in them."""
    width, height = SIZES[number]
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, channels), np.uint8)
    resized = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)


PHOTOGRAPHS = [photograph(number) for number in range(len(SIZES))]


@pytest.fixture(scope="module")
def model() -> EarDetector:
    return detector()


@pytest.fixture(scope="module")
def found(model: EarDetector) -> list[dict[str, Tensor]]:
    return model.predict(PHOTOGRAPHS)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor], tolerance: float = 0.0) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=tolerance, atol=tolerance)


# Form


@pytest.mark.parametrize("landmarks", [3, 0])
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_detections_have_torchvisions_form_also_where_there_are_none(landmarks: int, threshold: float) -> None:
    model = detector(num_landmarks=landmarks)
    model.score_threshold = threshold
    for each in model.predict(PHOTOGRAPHS[:2]):
        count = len(each["boxes"])
        assert (count > 0) == (threshold == 0)
        assert {name: (tuple(value.shape), value.dtype) for name, value in each.items()} == {
            "boxes": ((count, 4), torch.float32),
            "scores": ((count,), torch.float32),
            "labels": ((count,), torch.int64),
            "keypoints": ((count, landmarks, 3), torch.float32),
            "keypoints_scores": ((count, landmarks), torch.float32),
        }
        assert (each["labels"] == 1).all()


def test_no_photographs_are_no_detections(model: EarDetector) -> None:
    assert model.predict([]) == []
    assert model([]) == []


def test_boxes_lie_in_the_photograph_and_scores_fall(found: list[dict[str, Tensor]]) -> None:
    assert sum(len(each["boxes"]) for each in found) > 20
    for each, (width, height) in zip(found, SIZES, strict=True):
        x1, y1, x2, y2 = each["boxes"].T
        assert (x1 >= 0).all()
        assert (y1 >= 0).all()
        assert (x2 <= width).all()
        assert (y2 <= height).all()
        assert ((x2 - x1 >= 1) & (y2 - y1 >= 1)).all()
        assert each["scores"].tolist() == sorted(each["scores"].tolist(), reverse=True)
        assert (each["scores"] >= 0.05).all()


def test_a_landmark_is_visible_where_its_probability_is_over_a_half(found: list[dict[str, Tensor]]) -> None:
    for each in found:
        assert torch.equal(each["keypoints"][..., 2] == 1, each["keypoints_scores"] > 0.5)
    shares = torch.cat([each["keypoints"][..., 2].flatten() for each in found])
    assert 0 < shares.mean() < 1


# What is found


def test_detections_are_the_networks_output_for_the_letterboxed_photograph(model: EarDetector) -> None:
    """By hand for one photograph: threshold, torchvision's suppression, and the letterbox undone."""
    image, (width, height) = PHOTOGRAPHS[1], SIZES[1]
    square = letterbox((width, height), 96).image(image)
    with torch.no_grad():
        logits, boxes = model.boxes(to_model_range(torch.from_numpy(square[None])))
    scores = logits[0].sigmoid()
    order = scores.argsort(descending=True)[:CANDIDATES]
    order = order[scores[order] >= 0.05]
    model.suppression = Suppression(iou=0.5, containment=1)
    try:
        each = model.predict([image])[0]
    finally:
        model.suppression = Suppression()
    kept = order[nms(boxes[0][order], scores[order], 0.5)][:100]
    top = (96 - 64) / 2  # 300x200 in 96: 96x64 with 16 rows above
    wanted = (boxes[0][kept] - torch.tensor([0, top, 0, top])) * 300 / 96
    wanted = torch.minimum(wanted.clamp(min=0), torch.tensor([300.0, 200, 300, 200]))
    inside = ((wanted[:, 2:] - wanted[:, :2]) >= 1).all(dim=1)
    assert not inside.all()  # boxes in the padding are none
    torch.testing.assert_close(each["boxes"], wanted[inside], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(each["scores"], scores[kept][inside])


def test_the_landmarks_of_found_boxes_are_those_of_given_boxes(
    model: EarDetector, found: list[dict[str, Tensor]]
) -> None:
    """Each ear by itself, and all of several photographs at once, more than one call of the network takes."""
    boxes = [each["boxes"] for each in found]
    assert sum(map(len, boxes)) > 32
    for each, placed in zip(found, model.place_landmarks(PHOTOGRAPHS, boxes), strict=True):
        assert_same({name: each[name] for name in placed}, placed, 1e-4)
    alone = [model.place_landmarks([PHOTOGRAPHS[1]], [box[None]])[0] for box in boxes[1][:5]]
    for name in ("keypoints", "keypoints_scores"):
        torch.testing.assert_close(torch.cat([each[name] for each in alone]), found[1][name][:5], atol=1e-3, rtol=1e-4)


def test_a_photograph_does_not_depend_on_its_company_nor_on_the_order(
    model: EarDetector, found: list[dict[str, Tensor]]
) -> None:
    for number, image in enumerate(PHOTOGRAPHS):
        assert_same(model.predict([image])[0], found[number], 1e-4)
    for each, again in zip(found[::-1], model.predict(PHOTOGRAPHS[::-1]), strict=True):
        assert_same(each, again, 1e-4)
    many = model.predict(PHOTOGRAPHS * 2)  # 12: more than one call of the network takes
    for each, again in zip(found * 2, many, strict=True):
        assert_same(each, again, 1e-4)


def test_tensors_in_the_models_range_are_the_photographs(model: EarDetector, found: list[dict[str, Tensor]]) -> None:
    tensors = [to_model_range(torch.from_numpy(image[None]))[0] for image in PHOTOGRAPHS]
    for each, again in zip(found, model(tensors), strict=True):
        assert_same(each, again)


def test_fewer_rules_leave_more_boxes_and_a_higher_threshold_fewer() -> None:
    model = detector(num_landmarks=0)
    square = PHOTOGRAPHS[3:4]
    scores = model.predict(square)[0]["scores"]
    model.score_threshold = float(scores[3:5].mean())
    torch.testing.assert_close(model.predict(square)[0]["scores"], scores[:4])
    model.score_threshold, model.suppression = 0.05, Suppression(1, 1)
    assert len(scores) < len(model.predict(square)[0]["scores"]) == 100


@pytest.mark.parametrize("in_channels", [3, 1])
def test_grey_and_colour_photographs_go_into_grey_and_colour_models(in_channels: int) -> None:
    model = detector(in_channels=in_channels)
    grey = photograph(1, channels=1)
    repeated = np.repeat(grey, 3, axis=2)
    first, second = model.predict([grey, repeated])
    assert len(first["boxes"])
    assert_same(first, second, 1e-4)


def test_photographs_of_one_pixel_and_of_extreme_shape_are_answered(model: EarDetector) -> None:
    for shape in ((1, 1, 3), (2, 500, 3), (500, 1, 3)):
        each = model.predict([np.full(shape, 200, np.uint8)])[0]
        assert all(value.isfinite().all() for value in each.values())


def test_the_smallest_shape_answers_a_single_photograph() -> None:
    """Its coarsest level has one place, of which there is nothing to normalise but channels."""
    each = detector(image_size=64, crop_size=32, pyramid_width=16).predict(PHOTOGRAPHS[:1])[0]
    assert len(each["boxes"])


# Another detector's weights


def saved(model: EarDetector, path: Any) -> str:
    from earface.core.options import to_plain
    from earface.training.checkpoint_io import AtomicCheckpointIO

    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    AtomicCheckpointIO().save_checkpoint(
        {"state_dict": state, "hyper_parameters": {"detector": to_plain(model.config)}}, path
    )
    return str(path)


def test_another_number_of_landmarks_starts_their_last_layers_anew(model: EarDetector, tmp_path: Any) -> None:
    path = saved(model, tmp_path / "three.ckpt")
    five = EarDetector(**{**SHAPE, "num_landmarks": 5})
    before = {name: value.clone() for name, value in five.state_dict().items()}
    reason = five.initialise_from(path)
    given = model.state_dict()
    anew = {f"landmarks.{name}" for name in ("heat.weight", "heat.bias", "visibility", "visibility_bias")}
    for name, value in five.state_dict().items():
        assert torch.equal(value, before[name] if name in anew else given[name]), name
    assert path in reason
    assert "4 of the landmarker's start anew" in reason


def test_weights_go_from_a_model_with_landmarks_into_one_of_boxes_only_and_back(
    model: EarDetector, tmp_path: Any
) -> None:
    boxes_only = EarDetector(**{**SHAPE, "num_landmarks": 0})
    reason = boxes_only.initialise_from(saved(model, tmp_path / "three.ckpt"))
    assert reason == f"all weights are those of {tmp_path / 'three.ckpt'}"
    for name, value in boxes_only.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    three = EarDetector(**SHAPE)
    landmarks = {name: value.clone() for name, value in three.state_dict().items() if name.startswith("landmarks.")}
    three.initialise_from(saved(boxes_only, tmp_path / "boxes.ckpt"))
    for name, value in three.state_dict().items():
        assert torch.equal(value, landmarks.get(name, model.state_dict().get(name))), name


def test_weights_fit_another_size_of_photographs(model: EarDetector, tmp_path: Any) -> None:
    larger = EarDetector(**{**SHAPE, "image_size": 160})
    assert larger.initialise_from(saved(model, tmp_path / "three.ckpt")).startswith("all weights are those of")


@pytest.mark.parametrize("other", [{"base_channels": 8}, {"pyramid_width": 24}, {"encoder": "resnet18"}])
def test_weights_of_another_encoder_or_pyramid_are_refused(
    model: EarDetector, tmp_path: Any, other: dict[str, Any]
) -> None:
    path = saved(model, tmp_path / "three.ckpt")
    with pytest.raises(InputError, match=r"three\.ckpt: another encoder, size or pyramid"):
        EarDetector(**{**SHAPE, **other}).initialise_from(path)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"encoder": "resnet51"}, "`encoder` resnet51: choose one of"),
        ({"image_size": 100}, "`image_size` 100: must be a multiple of 32"),
        ({"crop_size": 100}, "`crop_size` 100: must be a multiple of 32"),
        ({"in_channels": 2}, "`in_channels` 2: must be 1"),
        ({"pyramid_width": 20}, "`pyramid_width` 20: must be a multiple of 8"),
        ({"pyramid_width": 8}, "`pyramid_width` 8: must be at least 16"),
        ({"num_landmarks": -1}, "`num_landmarks` -1: must be at least 0"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(shape: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as error:
        EarDetector(**{**SHAPE, **shape})
    assert str(error.value).startswith(reason)
