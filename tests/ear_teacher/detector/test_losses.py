"""Losses of boxes and landmarks, each against a loop over its elements, and what has no gradient where it counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_iou, complete_box_iou_loss

from ear_teacher.detector.box_detector import STRIDES, assign, places_of
from ear_teacher.detector.landmarker import cell_centres
from ear_teacher.detector.losses import (
    ABSENT,
    HEAT_SIGMA,
    box_losses,
    complete_iou_loss,
    gaussian_heat,
    landmark_losses,
    quality_focal_loss,
)
from tests.ear_teacher.detector.test_box_detector import answers_by_loop, random_ears

GRIDS = [math.ceil(96 / stride) for stride in STRIDES]
PLACES, PLACE_STRIDES = places_of(96, GRIDS)
LEVELS = PLACES, PLACE_STRIDES, [grid * grid for grid in GRIDS]
EARS = [torch.tensor([[10.0, 12, 40, 50], [60.0, 20, 90, 80]]), torch.tensor([[30.0, 30, 50, 70]])]
NONE = torch.empty(0, 4)
WHOLE = torch.tensor([True, True])


def said(count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (B, P) and boxes (B, P, 4) of a network that is about right, both with gradients."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, len(PLACES), generator=generator) * 2 - 2
    reach = (2 + 6 * torch.rand(count, len(PLACES), 4, generator=generator)) * PLACE_STRIDES[:, None] * 0.5
    boxes = torch.cat([PLACES - reach[..., :2], PLACES + reach[..., 2:]], dim=-1)
    return logits.requires_grad_(), boxes.requires_grad_()


def losses(logits: Tensor, boxes: Tensor, ears: list[Tensor], unclear: list[Tensor], complete: Tensor) -> dict:
    return box_losses(logits, boxes, *LEVELS, padded(ears), padded(unclear), complete)


def padded(tables: list[Tensor]) -> Tensor:
    """(N, 4) of each picture -> (B, N + 1, 4): NaN follows every picture's own."""
    tables = [*tables, torch.empty(1 + max(map(len, tables)), 4)]
    return pad_sequence(tables, batch_first=True, padding_value=torch.nan)[:-1]


def answers_of(ears: list[Tensor]) -> Tensor:
    return assign(padded(ears), *LEVELS)


# The quality focal loss


def focal_by_element(logit: float, quality: float) -> float:
    score = 1 / (1 + math.exp(-logit))
    entropy = -(quality * math.log(score) + (1 - quality) * math.log(1 - score))
    return abs(quality - score) ** 2 * entropy


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_quality_focal_loss_is_that_of_its_elements(dtype: torch.dtype, tolerance: float) -> None:
    logits = torch.linspace(-7, 7, 15, dtype=dtype).repeat(5)
    quality = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=dtype).repeat_interleave(15)
    found = quality_focal_loss(logits, quality)
    wanted = [focal_by_element(x, q) for x, q in zip(logits.tolist(), quality.tolist(), strict=True)]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=dtype), rtol=tolerance, atol=tolerance)


def test_the_quality_focal_loss_has_the_gradient_of_finite_differences() -> None:
    logits = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    quality = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda values: quality_focal_loss(values, quality), [logits])


def test_the_quality_focal_loss_and_its_gradient_vanish_where_the_score_is_the_quality() -> None:
    quality = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    logits = quality.logit().requires_grad_()
    loss = quality_focal_loss(logits, quality).sum()
    loss.backward()
    assert loss.item() < 1e-30
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-15


# Boxes


def box_losses_by_loop(
    logits: Tensor, boxes: Tensor, ears: list[Tensor], unclear: list[Tensor], complete: Tensor
) -> dict[str, Tensor]:
    """Place by place, with torchvision's IoU and loss, and with gradients."""
    score, box = logits.sum() * 0, boxes.sum() * 0
    positives = 0
    for picture, (around, marked, whole) in enumerate(zip(unclear, ears, complete.tolist(), strict=True)):
        answers = answers_by_loop(marked, PLACES, PLACE_STRIDES)
        for index, ear in enumerate(answers):
            found, logit = boxes[picture, index][None], logits[picture, index]
            if ear >= 0:
                wanted = marked[ear][None]
                score = score + quality_focal_loss(logit, box_iou(found.detach(), wanted)[0, 0])
                box = box + complete_box_iou_loss(found, wanted, reduction="sum")
                positives += 1
                continue
            x, y = PLACES[index].tolist()

            def holds(region: Tensor, x: float = x, y: float = y) -> bool:
                x1, y1, x2, y2 = region.tolist()
                return x1 <= x <= x2 and y1 <= y <= y2

            background = whole or any(holds(each) for each in marked)
            if background and not any(holds(each) for each in around):
                score = score + quality_focal_loss(logit, torch.zeros(()))
    return {"score": score / max(positives, 1), "box": box / max(positives, 1)}


@pytest.mark.parametrize(
    ("ears", "unclear", "complete"),
    [
        (EARS, [NONE, NONE], [True, True]),
        (EARS, [torch.tensor([[50.0, 0, 96, 96]]), NONE], [True, True]),
        (EARS, [NONE, NONE], [False, True]),
        (EARS, [NONE, torch.tensor([[0.0, 0, 96, 40]])], [False, False]),
        ([NONE, EARS[1]], [NONE, NONE], [True, True]),
        ([NONE, NONE], [NONE, torch.tensor([[0.0, 0, 50, 50]])], [True, True]),
    ],
    ids=["plain", "unclear", "incomplete", "both", "one without ears", "no ears"],
)
def test_box_losses_are_those_of_the_loop(ears: list[Tensor], unclear: list[Tensor], complete: list[bool]) -> None:
    assert_losses_of_the_loop(said(), ears, unclear, complete)


@pytest.mark.parametrize("seed", range(4))
def test_box_losses_of_random_pictures_are_those_of_the_loop(seed: int) -> None:
    """0 to 4 ears and up to 2 unclear regions in each of three, some of them incomplete."""
    rng = np.random.default_rng(seed)
    ears = [random_ears(96, int(rng.integers(0, 5)), 10 * seed + picture) for picture in range(3)]
    unclear = [random_ears(96, int(rng.integers(0, 3)), 100 + 10 * seed + picture) for picture in range(3)]
    assert_losses_of_the_loop(said(3, seed), ears, unclear, rng.integers(0, 2, 3).astype(bool).tolist())


def assert_losses_of_the_loop(
    given: tuple[Tensor, Tensor], ears: list[Tensor], unclear: list[Tensor], complete: list[bool]
) -> None:
    """Their values and their gradients."""
    found = losses(*given, ears, unclear, torch.tensor(complete))
    wanted = box_losses_by_loop(*given, ears, unclear, torch.tensor(complete))
    for name in ("score", "box"):
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-6)
        gradients = (torch.autograd.grad(each[name], given, materialize_grads=True) for each in (found, wanted))
        for mine, slow in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, slow, rtol=1e-4, atol=1e-6)


def score_gradient(ears: list[Tensor], unclear: list[Tensor], complete: Tensor) -> Tensor:
    logits, boxes = said()
    losses(logits, boxes, ears, unclear, complete)["score"].backward()
    assert logits.grad is not None
    return logits.grad


def test_places_in_unclear_regions_have_no_loss() -> None:
    region = torch.tensor([[50.0, 0, 96, 96]])  # holds the second ear, whose own places do teach
    gradient = score_gradient(EARS, [region, NONE], WHOLE)
    inside = ((region[0, :2] <= PLACES) & (region[0, 2:] >= PLACES)).all(dim=1)
    answers = answers_of(EARS)[0] >= 0
    assert (inside & ~answers).any()
    assert torch.equal(gradient[0] == 0, inside & ~answers)
    assert (gradient[1] != 0).all()


def test_the_background_of_incompletely_annotated_pictures_has_no_loss() -> None:
    gradient = score_gradient(EARS, [NONE, NONE], torch.tensor([False, True]))
    in_an_ear = torch.stack([((each[:2] <= PLACES) & (each[2:] >= PLACES)).all(dim=1) for each in EARS[0]]).any(0)
    answers = answers_of(EARS)[0] >= 0
    assert (in_an_ear & ~answers).any()
    assert torch.equal(gradient[0] != 0, in_an_ear | answers)
    assert (gradient[1] != 0).all()


def test_the_quality_is_no_way_for_the_score_to_move_the_boxes() -> None:
    logits, boxes = said()
    found = losses(logits, boxes, EARS, [NONE, NONE], WHOLE)
    assert torch.autograd.grad(found["score"], boxes, allow_unused=True, retain_graph=True)[0] is None
    gradient = torch.autograd.grad(found["box"], boxes)[0]
    answers = answers_of(EARS) >= 0
    assert torch.equal(gradient.any(dim=-1), answers)


def test_no_ear_at_all_is_a_finite_loss_with_both_networks_in_the_graph() -> None:
    logits, boxes = said()
    found = losses(logits, boxes, [NONE, NONE], [NONE, NONE], WHOLE)
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert found["box"].item() == 0
    assert 0 < found["score"].item() < math.inf
    assert boxes.grad is not None
    assert not boxes.grad.any()


def test_right_boxes_with_sure_scores_cost_nothing() -> None:
    answers = answers_of(EARS)
    boxes = torch.stack([each[index.clamp(min=0)] for each, index in zip(EARS, answers, strict=True)])
    logits = torch.where(answers >= 0, 20.0, -20.0)
    found = losses(logits, boxes, EARS, [NONE, NONE], WHOLE)
    assert float(found["score"]) < 1e-6
    assert float(found["box"]) == pytest.approx(0, abs=1e-6)


def test_losses_are_computed_in_float32_whatever_they_are_given() -> None:
    logits, boxes = said()
    wanted = losses(logits.bfloat16().float(), boxes.bfloat16().float(), EARS, [NONE, NONE], WHOLE)
    found = losses(logits.bfloat16(), boxes.bfloat16(), EARS, [NONE, NONE], WHOLE)
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, wanted[name])


def test_the_box_loss_is_torchvisions_whether_the_boxes_overlap_or_not() -> None:
    """Value and gradient of boxes side by side, that touch, nested, crossing and the same."""
    first = torch.tensor([[0.0, 0, 10, 20]]).repeat(6, 1).requires_grad_()
    second = [[30.0, 0, 50, 10], [10, 0, 20, 20], [2, 3, 8, 11], [5, 5, 40, 15], [0, 0, 10, 20], [-9, -9, 90, 91]]
    found, wanted = (each(first, torch.tensor(second)) for each in (complete_iou_loss, complete_box_iou_loss))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(each.sum(), first)[0] for each in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def test_empty_boxes_of_unassigned_places_have_no_gradient() -> None:
    """A far place may say a box of zero width, whose proportions are not a number."""
    logits, boxes = said()
    answers = answers_of(EARS) >= 0
    with torch.no_grad():
        boxes[~answers] = PLACES.repeat(2, 1, 2)[~answers]
    found = losses(logits, boxes, EARS, [NONE, NONE], WHOLE)
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()
    assert not boxes.grad[~answers].any()


# Landmarks

CROP, GRID = 64, 16


def crops(seed: int = 0) -> dict[str, Tensor]:
    """What a landmarker says of 3 crops with 5 landmarks, and the truth: not labelled, hidden and visible ones."""
    generator = torch.Generator().manual_seed(seed)
    keypoints = torch.cat([4 + 56 * torch.rand(3, 5, 2, generator=generator), torch.zeros(3, 5, 1)], dim=-1)
    keypoints[..., 2] = torch.tensor([[2, 2, 1, 0, 2], [1, 0, 2, 2, 0], [0, 1, 2, 2, 1]])
    keypoints[keypoints[..., 2] == 0] = 0
    return {
        "points": (60 * torch.rand(3, 5, 2, generator=generator)).requires_grad_(),
        "visibility": torch.randn(3, 5, generator=generator).requires_grad_(),
        "heat": (3 * torch.randn(3, 5, GRID, GRID, generator=generator)).requires_grad_(),
        "keypoints": keypoints,
    }


def test_landmark_losses_are_those_of_the_loop() -> None:
    given = crops()
    sums, count = {"heatmap": 0.0, "landmark": 0.0, "visibility": 0.0}, 0
    for crop in range(3):
        for landmark in range(5):
            x, y, visible = given["keypoints"][crop, landmark].tolist()
            if not visible:
                continue
            count += 1
            px, py = given["points"][crop, landmark].tolist()
            sums["landmark"] += math.hypot(px - x, py - y) / CROP
            score = 1 / (1 + math.exp(-given["visibility"][crop, landmark].item()))
            sums["visibility"] -= math.log(score if visible == 2 else 1 - score)
            heat = given["heat"][crop, landmark].double()
            said = (heat - heat.logsumexp(dim=(0, 1))).tolist()
            stride = CROP / GRID
            middles = [(cell + 0.5) * stride - 0.5 for cell in range(GRID)]
            squares = [[(across - x) ** 2 + (down - y) ** 2 for across in middles] for down in middles]
            gauss = [[math.exp(-each / (2 * (HEAT_SIGMA * stride) ** 2)) for each in row] for row in squares]
            total = sum(map(sum, gauss))
            for row in range(GRID):
                for column in range(GRID):
                    share = gauss[row][column] / total
                    sums["heatmap"] += share * (math.log(share) - said[row][column])
    found = landmark_losses(**given, crop_size=CROP)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {name: value / count for name, value in sums.items()}, rel=1e-4
    )


def test_exact_points_have_no_distance_and_finite_gradients() -> None:
    given = crops()
    given["points"] = given["keypoints"][..., :2].clone().requires_grad_()
    loss = landmark_losses(**given, crop_size=CROP)["landmark"]
    loss.backward()
    assert loss.item() == 0
    assert given["points"].grad is not None
    assert given["points"].grad.isfinite().all()


def test_heat_that_is_the_gaussian_costs_nothing() -> None:
    given = crops()
    gauss = gaussian_heat(given["keypoints"][..., :2], GRID, CROP)
    torch.testing.assert_close(gauss.sum(dim=-1), torch.ones(3, 5))
    given["heat"] = gauss.clamp(min=1e-30).log().view(3, 5, GRID, GRID) + 7  # logits up to a constant
    assert landmark_losses(**given, crop_size=CROP)["heatmap"].item() == pytest.approx(0, abs=1e-5)


def test_the_gaussian_lies_where_the_landmark_is() -> None:
    point = torch.tensor([[[30.0, 41.0]]])
    gauss = gaussian_heat(point, GRID, CROP)
    torch.testing.assert_close(gauss @ cell_centres(GRID, CROP / GRID), point, atol=0.01, rtol=0)


def test_unlabelled_landmarks_have_no_gradient_and_hidden_ones_have() -> None:
    given = crops()
    sum(landmark_losses(**given, crop_size=CROP).values()).backward()  # type: ignore[union-attr]
    labelled = given["keypoints"][..., 2] > 0
    assert (given["keypoints"][..., 2] == 1).any()
    for name in ("points", "visibility", "heat"):
        gradient = given[name].grad
        assert gradient is not None
        assert torch.equal(gradient.view(3, 5, -1).any(dim=-1), labelled), name


def test_no_labelled_landmark_is_a_loss_of_zero() -> None:
    given = crops()
    given["keypoints"] = torch.zeros(3, 5, 3)
    assert {value.item() for value in landmark_losses(**given, crop_size=CROP).values()} == {0.0}


def test_a_crop_without_an_ear_counts_for_visibility_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    points, visibility = torch.rand(3, 5, 2, generator=generator) * 32, torch.randn(3, 5, generator=generator)
    heat = torch.randn(3, 5, 8, 8, generator=generator)
    keypoints = torch.cat([torch.rand(3, 5, 2, generator=generator) * 32, torch.full((3, 5, 1), 2.0)], dim=2)
    keypoints[2] = torch.tensor([0.0, 0.0, ABSENT])
    together = landmark_losses(points, visibility, heat, keypoints, 32)
    alone = landmark_losses(points[:2], visibility[:2], heat[:2], keypoints[:2], 32)
    assert together["heatmap"] == alone["heatmap"]
    assert together["landmark"] == alone["landmark"]
    softplus = torch.nn.functional.softplus
    wanted = (softplus(-visibility[:2]).sum() + softplus(visibility[2]).sum()) / 15
    torch.testing.assert_close(together["visibility"], wanted)
